"""Nets on real digits in Lava: the example, which netx can say, and a residual one as a program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from snn_deploy.exporters.lava import NET, PROGRAM, exporter
from snn_deploy.exporters.lava.peer import LavaCheck, verify_in_lava

from snn_deploy import quantize, verify
from snn_deploy.artefacts import export
from snn_deploy.graph import LIF, Graph, InputSpec, Integrator, Population, Projection
from snn_deploy.nn.datasets import DataOptions, open_dataset
from snn_deploy.nn.recipe import parse_recipe
from snn_deploy.nn.trainer import train
from snn_deploy.packets import Recording, read_recording
from snn_deploy.sim import simulate
from snn_deploy.synapses import Conv2d, Dense, SumPool
from snn_deploy.toml import tomllib
from tests.helpers.lava import Lava

SAMPLES = 100
EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.toml"


def assert_same(found: LavaCheck | None, file: str, populations: int) -> None:
    assert found is not None
    assert (found.file, found.samples) == (file, SAMPLES)
    assert len(found.differing) == populations
    assert not any(found.differing.values())
    print(f"{found.values} values in {file}, 0 differ")


def test_the_example(lava: Lava) -> None:
    recipe = tomllib.loads(EXAMPLE.read_text())
    recipe["training"]["epochs"] = 2  # what it learns is of no concern here
    model = lava.folder / "model.pt"
    trained = train(parse_recipe(recipe, "example"), model)
    build = export(model, "loihi2", lava.folder / "build").folder
    recording = read_recording(trained.recording).head(SAMPLES)
    found = verify(build, recording=recording, against="lava", lava_python=lava.python)
    assert_same(found.lava, NET, 4)


def residual(rng: np.random.Generator, kind: str) -> Graph:
    """Conv, two residual blocks (identity; strided, with a 1x1 shortcut), pool, readout."""

    def conv(out: int, into: int, size: int, **geometry: tuple[int, int]) -> Conv2d:
        return Conv2d(rng.normal(0.8 / size**2, 0.6 / size, (out, into, size, size)), **geometry)

    def lif(name: str, *shape: int) -> Population:
        neurons = LIF(
            decay=np.array(0.5), threshold=np.array(1.0), bias=rng.normal(0, 0.05, (shape[0], 1, 1))
        )
        return Population(name=name, shape=shape, neurons=neurons)

    same, half = {"padding": (1, 1)}, {"padding": (1, 1), "stride": (2, 2)}
    readout = Integrator(decay=np.array(0.0), bias=np.zeros(10), readout="mean")
    return Graph(
        inputs=(InputSpec(name="in", kind=kind, shape=(1, 8, 8)),),  # type: ignore[arg-type]
        populations=(
            lif("stem", 8, 8, 8),
            lif("a1", 8, 8, 8),
            lif("a2", 8, 8, 8),
            lif("b1", 16, 4, 4),
            lif("b2", 16, 4, 4),
            Population(name="out", shape=(10,), neurons=readout),
        ),
        projections=(
            Projection(source="in", target="stem", synapses=conv(8, 1, 3, **same)),
            Projection(source="stem", target="a1", synapses=conv(8, 8, 3, **same)),
            Projection(source="a1", target="a2", synapses=conv(8, 8, 3, **same)),
            Projection(
                source="stem",
                target="a2",
                synapses=Conv2d(np.full((8, 1, 1, 1), 0.7), groups=8),
            ),
            Projection(source="a2", target="b1", synapses=conv(16, 8, 3, **half)),
            Projection(source="b1", target="b2", synapses=conv(16, 16, 3, **same)),
            Projection(source="a2", target="b2", synapses=conv(16, 8, 1, stride=(2, 2))),
            Projection(
                source="b2",
                target="out",
                synapses=Dense(rng.normal(0, 0.2, (10, 64))),
                pool=SumPool((2, 2), (2, 2)),
            ),
        ),
        outputs=("out",),
        timesteps=4,
    )


def test_a_residual_net_as_a_program(lava: Lava) -> None:
    test = open_dataset(DataOptions(name="digits", test=SAMPLES), 4).test
    images = test.samples.batch(np.arange(SAMPLES)) / 16
    rng = np.random.default_rng(0)
    for kind in ("constant", "spikes"):
        graph = quantize(residual(rng, kind), "loihi2")
        recording = Recording(values={"": images})
        if kind == "spikes":
            drawn = rng.random((SAMPLES, 4, *images.shape[1:])) < images[:, None]
            recording = Recording(spikes={"": drawn.astype(np.uint8)})
        activity = simulate(graph, recording).record.sample_spikes
        assert min(spikes.mean() for spikes in activity.values()) > 20, activity
        folder = lava.folder / kind
        folder.mkdir()
        written = exporter.export(graph, folder)
        # stem -> a2 and a2 -> b2 each wait one timestep
        assert written.facts["relays"] == ("stem_relay1", "a2_relay1")
        found = verify_in_lava(folder, graph, recording, python=lava.python)
        assert_same(found, PROGRAM, 8)
