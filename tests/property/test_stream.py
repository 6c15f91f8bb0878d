"""All samples in one pipelined run, cut into windows: each is what the zero-delay graph does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

from snn_deploy.sim import EngineName, simulate_stream
from tests.helpers.brute_force import stages_of
from tests.helpers.graphs import MEDIUM, SMALL, Case, integer_cases
from tests.helpers.refusals import refused


@settings(max_examples=250)
@given(
    case=integer_cases((SMALL, MEDIUM, MEDIUM), delays=False, hop_delay=1),
    engine=st.sampled_from(("reference", "event")),
)
def test_every_window_is_a_zero_delay_run(case: Case, engine: EngineName) -> None:
    case = replace(case, reset_interval=None, reset_offset=None)
    stages = stages_of(case.graph, "pipelined")
    assert stages is not None
    alone = case.run("reference")
    windows = simulate_stream(case.graph, case.recording, engine=engine, steps=case.steps)
    for mine, theirs in (
        (windows.spikes, alone.spikes),
        (windows.membrane, alone.membrane),
        (windows.current, alone.current),
    ):
        assert mine.keys() == theirs.keys()
        for name, part in theirs.items():
            assert mine[name].dtype == part.dtype
            np.testing.assert_array_equal(mine[name], part, name)
    assert windows.difference(alone) == 0
    event(f"{min(alone.record.samples, 2)} samples, {max(stages.values())} stages")


@settings(max_examples=100)
@given(case=integer_cases((SMALL,), hop_delay=1))
def test_what_waits_in_a_synapse_is_refused(case: Case) -> None:
    constant = {spec.name for spec in case.graph.inputs if spec.kind == "constant"}
    waits = [
        p.name for p in case.graph.projections if np.max(p.delay) > 0 and p.source not in constant
    ]
    event(f"waits: {bool(waits)}")
    if waits:
        with refused("SD207", "|".join(f"--> {name}" for name in waits)):
            simulate_stream(case.graph, case.recording, steps=case.steps)
    else:
        simulate_stream(case.graph, case.recording, steps=case.steps)
