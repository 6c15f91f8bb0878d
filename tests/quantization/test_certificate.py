"""The certificate of a range proof: holds as written, for its network alone, and no tighter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from snn_deploy.exporters.nir import NirExporter

from snn_deploy import verify
from snn_deploy.artefacts import MANIFEST
from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import LIF, Graph, Population, Projection, ResetSubtract, ResetTo
from snn_deploy.quantization import prove_ranges
from snn_deploy.quantization.certificate import certificate, check_certificate, network_digest
from snn_deploy.synapses import with_weights
from tests.helpers.deploy import make_files
from tests.helpers.graphs import GENERIC, LOIHI2, SMALL, Case, integer_cases, narrow_formats
from tests.helpers.random_graphs import chain, network
from tests.helpers.refusals import refused


def copied(value: Any) -> Any:
    """As read from a manifest."""
    return json.loads(json.dumps(value))


def proved(graph: Graph) -> Any:
    return copied(certificate(graph, prove_ranges(graph)))


@settings(max_examples=100)
@given(
    case=integer_cases(
        (SMALL,),
        formats=st.one_of(
            st.sampled_from((LOIHI2, GENERIC)), narrow_formats(20), narrow_formats(24)
        ),
    ),
    bounded=st.booleans(),
)
def test_what_is_proved_is_checked_and_nothing_tighter_is(case: Case, bounded: bool) -> None:
    """Every bound that is drawn in by one is caught: the check knows as much as the proof does."""
    graph = replace(case.graph, timesteps=case.steps if bounded else None)
    try:
        claimed = proved(graph)
    except SnnDeployError as error:
        assert error.code == "SD203"  # noqa: PT017
        event("not proved")
        return
    event(f"proved, {'some' if bounded else 'any number of'} steps")
    check_certificate(graph, claimed)
    for name in claimed["populations"]:
        spans = ["current", "membrane"]
        bias = graph.population(name).neurons.bias
        if len(np.unique(bias)) > 1 or any(graph.on_host(p) for p in graph.incoming(name)):
            spans.append("host_bias")
        for span in spans:
            for end, inward in ((0, 1), (1, -1)):
                tighter = copied(claimed)
                ends = tighter["populations"][name][span]
                if span != "host_bias" and ends[end] == 0:  # a neuron begins there
                    continue
                ends[end] += inward
                with refused("SD409", name):
                    check_certificate(graph, tighter)
        for projection in claimed["populations"][name]["accumulators"]:
            for key, inward in (("low", 1), ("high", -1), ("bits", -1)):
                tighter = copied(claimed)
                sums = tighter["populations"][name]["accumulators"][projection]
                if sums[key] == (1 if key == "bits" else 0):
                    continue
                sums[key] += inward
                with refused("SD409", f"the sum of {projection}"):
                    check_certificate(graph, tighter)


@settings(max_examples=40)
@given(case=integer_cases((SMALL,), formats=narrow_formats(24)), factor=st.integers(2, 50))
def test_a_wider_claim_holds_while_it_fits(case: Case, factor: int) -> None:
    """No proof is needed of more than it says: bounds may be wider, up to the register."""
    graph = replace(case.graph, timesteps=case.steps)
    try:
        claimed = proved(graph)
    except SnnDeployError:
        assume(False)
    form = graph.number_format
    assert form is not None
    limit = form.membrane_limit
    for bounds in claimed["populations"].values():
        for span in ("current", "membrane"):
            low, high = bounds[span]
            bounds[span] = [max(low * factor, -limit), min(high * factor, limit)]
        bounds["bits"]["needed"] = form.membrane_bits
    check_certificate(graph, claimed)
    name = graph.populations[0].name
    claimed["populations"][name]["membrane"][1] = limit + 1
    with refused("SD409", f"do not fit(.|\n)*{name}"):
        check_certificate(graph, claimed)


# Of one network.


def mutate(graph: Graph, name: str, change: Callable[[Any], Any]) -> Graph:
    """The graph with its first population or projection changed."""
    parts = list(getattr(graph, name))
    parts[0] = change(parts[0])
    return replace(graph, **{name: tuple(parts)})


def turned(projection: Projection) -> Projection:
    weight = projection.synapses.weight.copy()
    weight.flat[weight.size // 2] += 2
    return replace(projection, synapses=with_weights(projection.synapses, weight))


def finer(projection: Projection) -> Projection:
    """Exponents are positive on a chip, negative on a host."""
    by = -1 if projection.exponent < 0 else 1
    return replace(projection, exponent=projection.exponent + by)


def neurons(**changed: Callable[[Any], Any]) -> Callable[[Population], Population]:
    def change(population: Population) -> Population:
        new = {name: by(getattr(population.neurons, name)) for name, by in changed.items()}
        return replace(population, neurons=replace(population.neurons, **new))

    return change


SUBTRACTS = neurons(reset=lambda _: ResetSubtract(1))
CHANGES: dict[str, Callable[[Graph], Graph]] = {
    "a weight": lambda g: mutate(g, "projections", turned),
    "an exponent": lambda g: mutate(g, "projections", finer),
    "a delay": lambda g: mutate(g, "projections", lambda p: replace(p, delay=p.delay + 1)),
    "a register": lambda g: mutate(g, "projections", lambda p: replace(p, sum_bits=31)),
    "a bias": lambda g: mutate(g, "populations", neurons(bias=lambda b: b + 1)),
    "a decay": lambda g: mutate(g, "populations", neurons(decay=lambda d: (d + 1) % 4096)),
    "a memory": lambda g: mutate(g, "populations", neurons(current_decay=lambda _: np.array(7))),
    "a threshold": lambda g: mutate(g, "populations", neurons(threshold=lambda t: t + 1)),
    "a reset": lambda g: mutate(g, "populations", neurons(reset=lambda _: ResetTo(1))),
    "a kind of reset": lambda g: mutate(g, "populations", SUBTRACTS),
    "spikes": lambda g: mutate(g, "populations", lambda p: replace(p, max_spikes=2)),
    "what is 0": lambda g: mutate(g, "inputs", lambda i: replace(i, low=-1.0)),
    "the input's range": lambda g: mutate(g, "inputs", lambda i: replace(i, high=2.0)),
    "the timesteps": lambda g: replace(g, timesteps=9),
    "the format": lambda g: replace(g, number_format=replace(LOIHI2, decay_rule="multiply_floor")),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_another_network_is_told_apart(change: str) -> None:
    for seed in range(8):
        graph, _ = network(seed)
        first = graph.populations[0]
        if change == "spikes":
            graph = mutate(graph, "populations", SUBTRACTS)
        assert isinstance(first.neurons, LIF)
        other = CHANGES[change](graph)
        assert network_digest(other) != network_digest(graph)
        claimed = copied(certificate(graph, prove_ranges(graph)))
        with refused("SD409", "of another network"):
            check_certificate(other, claimed)


@settings(max_examples=40)
@given(case=integer_cases((SMALL,), formats=st.just(GENERIC)))
def test_a_network_is_the_same_however_its_arrays_are_stored(case: Case) -> None:
    graph = case.graph
    wide = replace(
        graph,
        populations=tuple(
            replace(
                p,
                neurons=replace(
                    p.neurons,
                    bias=np.broadcast_to(p.neurons.bias, p.shape).astype(np.int32),
                    decay=np.broadcast_to(p.neurons.decay, p.shape).astype(np.int64),
                ),
            )
            for p in reversed(graph.populations)
        ),
        projections=tuple(
            replace(p, synapses=with_weights(p.synapses, p.synapses.weight.astype(np.int64)))
            for p in reversed(graph.projections)
        ),
    )
    assert network_digest(wide) == network_digest(graph)


def test_a_network_is_the_same_after_it_was_read_again(tmp_path: Path) -> None:
    written = 0
    for seed in range(60):
        for make in (chain, network):
            graph, _ = make(seed)
            path = tmp_path / f"{make.__name__}{seed}.nir"
            try:
                NirExporter().write(graph, path)
            except SnnDeployError as error:
                assert error.code == "SD204"  # noqa: PT017
                continue  # not all networks can be said in NIR
            written += 1
            read = NirExporter().read(path)
            assert network_digest(read) == network_digest(graph)
            check_certificate(read, proved(graph))
    assert written >= 5


# What is no certificate.


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c.clear(),
        lambda c: c.pop("network"),
        lambda c: c.update(network=5),
        lambda c: c.update(timesteps=c["timesteps"] + 1),
        lambda c: c["inputs"]["in"].update(high=0),
        lambda c: c["populations"].clear(),
        lambda c: c["populations"].update(more={}),
        lambda c: c.update(populations=[]),
        lambda c: next(iter(c["populations"].values())).update(membrane=[0]),
        lambda c: next(iter(c["populations"].values())).update(membrane=[0, 1e9]),
        lambda c: next(iter(c["populations"].values())).update(membrane=[-(1 << 50), 1 << 50]),
        lambda c: next(iter(c["populations"].values())).update(current=[1, 2]),
        lambda c: next(iter(c["populations"].values())).update(current=None),
        lambda c: next(iter(c["populations"].values())).update(accumulators={}),
        lambda c: next(iter(c["populations"].values()))["bits"].update(needed=2),
        lambda c: next(iter(c["populations"].values()))["bits"].update(needed=-2),
        lambda c: next(iter(c["populations"].values()))["bits"].update(declared=99),
        lambda c: next(iter(c["populations"].values())).update(host_bias=[-(1 << 40), 1 << 40]),
    ],
)
def test_what_is_no_certificate_is_refused(spoil: Callable[[Any], Any]) -> None:
    graph, _ = network(3)
    claimed = proved(graph)
    check_certificate(graph, claimed)
    spoil(claimed)
    with refused("SD409"):
        check_certificate(graph, claimed)


@pytest.mark.parametrize("claimed", [None, [], 5, "x", {}])
def test_nothing_is_no_certificate(claimed: Any) -> None:
    with refused("SD409", "not readable"):
        check_certificate(network(3)[0], claimed)


def test_an_exported_folder_holds_its_certificate(tmp_path: Path) -> None:
    files = make_files(tmp_path)
    manifest = json.loads((files.build / MANIFEST).read_text())
    claimed = manifest["proof"]["ranges"]
    assert claimed == proved(files.graph)
    assert claimed["network"] == network_digest(files.graph)
    verify(files.build)
    claimed["populations"]["conv2"]["membrane"][1] -= 1
    spoilt = Path(shutil.copytree(files.build, tmp_path / "spoilt"))
    (spoilt / MANIFEST).write_text(json.dumps(manifest))
    with refused("SD409", "its current or membrane leaves its bounds(.|\n)*conv2"):
        verify(spoilt)
