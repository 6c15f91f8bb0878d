"""Our counts beside SANA-FE's model of Loihi, which runs the network itself, event by event.

A spike takes a timestep per hop there: the network is given silence at the end, until all is over.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from snn_deploy.counting import conventions, count
from snn_deploy.graph import LIF, Graph, InputSpec, Population, Projection
from snn_deploy.hardware import target
from snn_deploy.packets import Recording
from snn_deploy.sim import Trace, simulate
from snn_deploy.synapses import Dense
from tests.helpers.foreign import imported

sanafe = imported("sanafe")

SIZES = {"in": 10, "hidden": 16, "out": 6}
STEPS, SILENCE = 12, 3
THRESHOLD, DECAY = 8.0, 0.5


def drawn(seed: int) -> tuple[Graph, Recording]:
    random = np.random.default_rng(seed)
    # theirs fires above the threshold, ours at it
    threshold = np.array(np.nextafter(THRESHOLD, np.inf))
    neurons = LIF(decay=np.array(DECAY), threshold=threshold, bias=np.zeros(()))
    graph = Graph(
        inputs=(InputSpec(name="in", kind="spikes", shape=(SIZES["in"],)),),
        populations=tuple(
            Population(name=name, shape=(SIZES[name],), neurons=neurons)
            for name in ("hidden", "out")
        ),
        projections=tuple(
            Projection(
                source=source,
                target=name,
                synapses=Dense(random.integers(-3, 6, (SIZES[name], SIZES[source])).astype(float)),
            )
            for source, name in (("in", "hidden"), ("hidden", "out"))
        ),
        outputs=("out",),
    )
    spikes = random.random((1, STEPS + SILENCE, SIZES["in"])) < 0.4
    spikes[:, STEPS:] = False
    return graph, Recording(spikes={"": spikes.astype(np.uint8)})


def in_sanafe(graph: Graph, recording: Recording) -> Any:
    """Every population on a core of its own, with synapses of the dense kind."""
    chip, network = sanafe.load_loihi(), sanafe.Network()
    (spikes,) = recording.spikes.values()
    options = {"threshold": THRESHOLD, "leak_decay": DECAY}
    groups = {"in": network.create_neuron_group("in", SIZES["in"])}
    for number, neuron in enumerate(groups["in"]):
        train = spikes[0, :, number].tolist()
        neuron.set_attributes(
            model_attributes={"spikes": train}, soma_hw_name=f"loihi_inputs[{number}]"
        )
        neuron.map_to_core(chip.tiles[0].cores[0])
    for core, population in enumerate(graph.populations, 1):
        group = network.create_neuron_group(
            population.name, population.size, model_attributes=options
        )
        groups[population.name] = group
        for neuron in group:
            neuron.set_attributes(
                soma_hw_name="loihi_lif",
                default_synapse_hw_name="loihi_dense_synapse",
                log_spikes=True,
            )
            neuron.map_to_core(chip.tiles[0].cores[core])
    for projection in graph.projections:
        for to, row in enumerate(projection.synapses.weight.tolist()):
            for start, weight in enumerate(row):
                groups[projection.source][start].connect_to_neuron(
                    groups[projection.target][to], {"weight": weight}
                )
    running = sanafe.SpikingChip(chip)
    running.load(network)
    return running.sim(STEPS + SILENCE, spike_trace=True)


def woken(trace: Trace, recording: Recording) -> int:
    """Neurons that SANA-FE calls updated: with a potential before, or reached by a spike.

    The last steps are not run there: "hidden" is one timestep late, "out" two.
    """
    (spikes,) = recording.spikes.values()
    total = 0
    for late, (name, source) in enumerate((("hidden", spikes), ("out", trace.spikes["hidden"])), 1):
        membrane = trace.membrane[name][0]
        before = np.concatenate([np.zeros_like(membrane[:1]), membrane[:-1]])
        reached = source[0].any(axis=1)[:, None]
        total += int(((before != 0) | reached)[:-late].sum())
    return total


@pytest.mark.parametrize("seed", range(5))
def test_event_by_event(seed: int, capfd: pytest.CaptureFixture[str]) -> None:
    """Same synaptic events, spikes and messages; its energies are those of our profile."""
    graph, recording = drawn(seed)
    found = in_sanafe(graph, recording)
    capfd.readouterr()  # its progress
    trace = simulate(graph, recording, trace=True)
    (given,) = recording.spikes.values()
    for late, name in enumerate(("hidden", "out"), 1):
        for step, fired in enumerate(trace.spikes[name][0]):
            here = [n for n in found["spike_trace"][step + late :][:1] for n in n]
            expected = {f"{name}.{n}" for n in np.flatnonzero(fired)}
            assert {str(n) for n in here if str(n).startswith(f"{name}.")} == expected
    counts = count(graph, trace.record, conventions()["sana-fe"]())
    first, second = counts.projections
    hidden, out = counts.populations
    events = first.accumulates + second.accumulates
    assert hidden.spikes > 0
    assert out.spikes > 0
    assert found["spikes"] == events
    assert found["neurons_fired"] == given.sum() + hidden.spikes + out.spikes
    assert found["packets_sent"] == given.sum() + hidden.spikes
    updated = woken(trace, recording)
    assert found["neurons_updated"] == given.sum() + updated
    row = {name: r.picojoules for name, r in target("loihi1-sanafe").energy.items()}
    synapses = found["energy"]["synapse"] * 1e12
    assert synapses == pytest.approx(events * row["synaptic_operation"], rel=1e-9)
    neurons = (hidden.neurons + out.neurons) * (STEPS + SILENCE)
    somata = neurons * row["neuron_update_inactive"]
    somata += updated * (row["neuron_update_active"] - row["neuron_update_inactive"])
    somata += (hidden.spikes + out.spikes) * row["spike_out"]
    assert found["energy"]["soma"] * 1e12 == pytest.approx(somata, rel=1e-9)
    messages = found["packets_sent"] * row["message_out"]  # within one tile: no hops
    assert found["energy"]["network"] * 1e12 == pytest.approx(messages, rel=1e-9)
