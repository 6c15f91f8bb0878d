"""NIR files: lossless both ways, true to what others simulate, refused when tampered with."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

import nir
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from snn_deploy.exporters.nir import exporter
from snn_deploy.exporters.nir.metadata import from_data, to_data
from snn_deploy.exporters.nir.neurons import TIMESTEP

from snn_deploy.checks import check_integer
from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import (
    LIF,
    Graph,
    InputSpec,
    Integrator,
    Neurons,
    Population,
    Projection,
    ResetSubtract,
    ResetTo,
)
from snn_deploy.packets import Recording
from snn_deploy.quantization import prove_ranges
from snn_deploy.synapses import Conv2d, Dense, SumPool, Synapses, pooled_shape
from tests.helpers.graphs import GENERIC, LOIHI2, SMALL, Case, float_cases, integer_cases
from tests.helpers.nets import dense, integers, lif, one_layer, population, spike_input
from tests.helpers.nir_interpreter import Fires, assert_said
from tests.helpers.refusals import refused

Array = NDArray[Any]
Shape = tuple[int, ...]

# --- graphs by hand -------------------------------------------------------------------------------

KERNEL = Conv2d(np.ones((2, 1, 3, 3), np.int64), padding=(1, 1))
MAP = spike_input(1, 3, 3)
SPREAD = np.arange(18).reshape(2, 3, 3)


def integrator(decay: int = 0, **more: Any) -> Integrator:
    return Integrator(decay=integers(decay), bias=integers(0), **more)


def chain(*names: str, spec: InputSpec | None = None, **more: Any) -> Graph:
    """Populations of two neurons, one behind the other."""
    spec = spec or spike_input(2)
    ends = (spec.name, *names)
    options: dict[str, Any] = {"outputs": names[-1:], "number_format": GENERIC, "timesteps": 2}
    return Graph(
        inputs=(spec,),
        populations=tuple(population(name, 2) for name in names),
        projections=tuple(dense(a, b, 2, 2) for a, b in zip(ends, names, strict=False)),
        **options | more,
    )


# --- random graphs that NIR can say ---------------------------------------------------------------


class Builder:
    """Draws the structure of a feed-forward graph; a seeded generator fills its arrays."""

    def __init__(self, draw: st.DrawFn, *, exact: bool) -> None:
        self.draw, self.exact = draw, exact
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.format = draw(st.sampled_from((LOIHI2, GENERIC)))
        self.timesteps = draw(st.integers(1, 4))
        self.populations: list[Population] = []
        self.projections: list[Projection] = []
        self.input = self._input()

    def _input(self) -> InputSpec:
        kinds: tuple[Literal["spikes", "constant", "graded"], ...] = (
            "spikes",
            "constant",
            "graded",
        )
        kind = self.draw(st.sampled_from(kinds))
        side = self.draw(st.integers(3, 6))
        shape = self.draw(
            st.sampled_from(((2, side, side + 1), (1, side, side), (2, side, side), (5,)))
        )
        if kind == "spikes":
            return InputSpec(name="in", kind="spikes", shape=shape)
        scale = 0.25 if self.exact else self.draw(st.floats(0.02, 0.3))
        return InputSpec(
            name="in",
            kind=kind,
            shape=shape,
            low=-scale,
            high=30 * scale,
            mean=np.array([0.0 if self.exact else 0.1 * scale]),
            scale=scale,
        )

    def synapses(
        self, shape: Shape, wanted: Shape | None, *, values: bool, on_host: bool
    ) -> Synapses | None:
        """Synapses from (pooled) ``shape``, to ``wanted`` if it is given and can be reached."""
        rng, form = self.rng, self.format
        most = 40 if values else form.weight_max
        step = 1 if on_host else form.weight_step
        dtype = self.draw(st.sampled_from((np.int16, np.int64)))

        def weight(*size: int) -> Array:
            drawn = step * rng.integers(-most // step, most // step, size, endpoint=True)
            return drawn.astype(dtype)

        if wanted is not None and len(wanted) == 3:
            groups = 2 if shape[0] % 2 == wanted[0] % 2 == 0 else 1
            same = Conv2d(
                weight(wanted[0], shape[0] // groups, 3, 3), (1, 1), (1, 1), (1, 1), groups
            )
            return same if shape[1:] == wanted[1:] else None
        if len(shape) == 1 or wanted is not None or self.draw(st.integers(0, 2)) == 0:
            out = self.draw(st.integers(1, 6)) if wanted is None else wanted[0]
            return Dense(weight(out, int(np.prod(shape))))
        groups = self.draw(st.sampled_from((1, shape[0])))
        kernel, dilation = self.draw(st.sampled_from(((1, (1, 1)), (2, (1, 2)), (3, (1, 1)))))
        return Conv2d(
            weight(2 * groups, shape[0] // groups, kernel, kernel),
            stride=self.draw(st.sampled_from(((1, 1), (2, 1)))),
            padding=self.draw(st.sampled_from(((0, 0), (1, 2)))),
            dilation=dilation,
            groups=groups,
        )

    def project(self, source: str, target: str, wanted: Shape | None = None) -> Shape | None:
        shape = next(
            p.shape for p in (self.input, *self.populations) if p.name == source
        )  # fmt: skip
        pool = None
        if wanted is None and len(shape) == 3 and min(shape[1:]) > 3 and self.draw(st.booleans()):
            pool = SumPool(*self.draw(st.sampled_from((((2, 2), (2, 2)), ((3, 2), (1, 2))))))
        seen = pooled_shape(shape, pool)
        values = source == "in" and self.input.kind != "spikes"
        constant = source == "in" and self.input.kind == "constant"
        on_host = constant and self.format.first_layer == "host_bias"
        synapses = self.synapses(seen, wanted, values=values, on_host=on_host)
        if synapses is None:
            return None
        exponent = 0 if self.exact or not on_host else self.draw(st.sampled_from((0, -3)))
        self.projections.append(
            Projection(
                source=source, target=target, synapses=synapses, pool=pool, exponent=exponent
            )
        )
        return synapses.target_shape(seen)

    def neurons(self, shape: Shape, *, readout: bool) -> Neurons:
        rng, form = self.rng, self.format
        per_output = (shape[0], *([1] * (len(shape) - 1)))
        bias = rng.integers(-100, 100, self.draw(st.sampled_from(((), per_output))))
        if readout:
            return Integrator(decay=integers(0), bias=np.asarray(bias), readout="mean")
        leaks = ((0, 0), (4096, 4096)) if self.exact else ((0, 0), (4096, 4096), (0, 4095))
        low, high = self.draw(st.sampled_from(leaks))
        decay = rng.integers(
            low, high, self.draw(st.sampled_from(((), per_output, shape))), endpoint=True
        )
        size = () if form.threshold_per_population else self.draw(st.sampled_from(((), shape)))
        level = 2 * form.weight_max << form.fraction_bits - form.threshold_shift
        reset = 0 if not form.soft_reset else self.draw(st.sampled_from((0, 64, -500)))
        return LIF(
            decay=np.asarray(decay),
            threshold=np.asarray(rng.integers(0, level, size)),
            bias=np.asarray(bias),
            reset=ResetTo(reset),
        )

    def case(self) -> Case:
        count = self.draw(st.sampled_from((1, 2, 3, 4, 4)))
        for index in range(count):
            name = f"p{index}"
            sources = ["in", *(p.name for p in self.populations)]
            source = self.draw(st.sampled_from(sources))
            shape = self.project(source, name)
            assert shape is not None
            others = [s for s in sources if s != source]
            if others and self.draw(st.booleans()):
                self.project(self.draw(st.sampled_from(others)), name, shape)
            readout = index == count - 1 and self.draw(st.booleans())
            neurons = self.neurons(shape, readout=readout)
            self.populations.append(Population(name=name, shape=shape, neurons=neurons, scale=0.5))
        graph = Graph(
            inputs=(self.input,),
            populations=tuple(self.populations),
            projections=tuple(self.projections),
            outputs=(self.populations[-1].name,),
            timesteps=self.timesteps,
            number_format=self.format,
        )
        return Case(graph, self.recording(), self.timesteps)

    def recording(self) -> Recording:
        spec = self.input
        time = () if spec.kind == "constant" else (self.timesteps,)
        size = (2, *time, *spec.shape)
        if spec.kind == "spikes":
            return Recording(spikes={"": (self.rng.random(size) < 0.4).astype(np.uint8)})
        return Recording(values={"": self.rng.uniform(spec.low, spec.high, size)})


@st.composite
def sayable(draw: st.DrawFn, *, exact: bool = False) -> Case:
    """A provable graph that NIR can say; ``exact`` if its floats are exact in every simulator."""
    try:
        case = Builder(draw, exact=exact).case()
        check_integer(case.graph)
        prove_ranges(case.graph)
    except SnnDeployError:
        assume(False)
    return case


def same(one: Any, other: Any) -> bool:
    """Whether two graphs, or parts of them, are equal in every field and every array's type."""
    if type(one) is not type(other):
        return False
    if is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return bool(one == other)


def rewritten(graph: Graph, folder: Path, name: str = "again.nir") -> bytes:
    exporter.write(graph, folder / name)
    return (folder / name).read_bytes()


@settings(max_examples=40)
@given(case=sayable())
def test_round_trip(case: Case) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.nir"
        exporter.write(case.graph, path)
        read = exporter.read(path)
        assert same(read, case.graph)
        assert rewritten(read, path.parent) == path.read_bytes()
    before, after = (replace(case, graph=g).run("reference") for g in (case.graph, read))
    assert before.record.difference(after.record) == 0
    for name, spikes in before.spikes.items():
        np.testing.assert_array_equal(spikes, after.spikes[name])


@settings(max_examples=150)
@given(case=st.one_of(integer_cases((SMALL,)), float_cases()))
def test_every_graph_can_be_described(case: Case) -> None:
    """Whatever NIR itself can say: the description beside it says every graph, without loss."""
    text, arrays = to_data(case.graph)
    found = from_data(text, arrays)
    assert same(found, case.graph)
    assert to_data(found)[0] == text


@pytest.mark.parametrize(("shift", "tau"), [(1, 2), (4, 16), (10, 1024)])
def test_a_shift_is_a_time_constant(shift: int, tau: int, tmp_path: Path) -> None:
    """u - (u >> k) loses a 2**k-th of u per step, that is tau = 2**k steps."""
    form = replace(GENERIC, decay_rule="shift_subtract")
    graph = one_layer(KERNEL, MAP, lif(shift), number_format=form)
    exporter.write(replace(graph, timesteps=2), tmp_path / "model.nir")
    (node,) = (n for n in nir.read(tmp_path / "model.nir").nodes.values() if isinstance(n, nir.LIF))
    np.testing.assert_allclose(node.tau / TIMESTEP["portable"], tau, rtol=1e-15)


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    weights = Dense(np.full((1, 3000), 254))
    graph = one_layer(weights, spike_input(3000), number_format=LOIHI2)
    with refused("SD203"):
        exporter.write(graph, tmp_path / "model.nir")


def test_same_bytes_from_another_process(tmp_path: Path) -> None:
    path, other = tmp_path / "model.nir", tmp_path / "elsewhere" / "copy.nir"
    other.parent.mkdir()
    exporter.write(chain("a", "b"), path)
    code = (
        "import sys; from pathlib import Path; from snn_deploy.exporters.nir import exporter\n"
        "exporter.write(exporter.read(Path(sys.argv[1])), Path(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", code, str(path), str(other)], check=True)
    assert other.read_bytes() == path.read_bytes()


# --- what other simulators make of it -------------------------------------------------------------


@pytest.mark.parametrize("fires", [np.greater, np.greater_equal], ids=[">", ">="])
@settings(max_examples=50)
@given(case=sayable(exact=True))
def test_independent_reader_sees_the_same_spikes(case: Case, fires: Fires) -> None:
    """Where nothing is truncated and the values lie on the grid, the file says it all."""
    assert_said(case, "portable", fires)


@pytest.mark.parametrize("fires", [np.greater, np.greater_equal], ids=[">", ">="])
@pytest.mark.parametrize("decay", [0, 4096])
@pytest.mark.parametrize("below", [0, 1])
def test_tie_fires(fires: Fires, decay: int, below: int) -> None:
    """A membrane at the threshold fires, one unit below it does not, however ``>`` is read."""
    neurons = lif(decay, threshold=128, bias=-below)
    graph = one_layer(Dense(np.ones((2, 2), np.int64)), spike_input(2), neurons)
    case = Case(
        replace(graph, timesteps=1), Recording(spikes={"": np.ones((1, 1, 2), np.uint8)}), 1
    )
    assert case.run("reference").spikes["p"].all() != below
    assert_said(case, "portable", fires)


# --- what takes more than a node each -------------------------------------------------------------


def colliding_names() -> Graph:
    """``a`` from ``b``, and ``a_from_b``."""
    ends = (("in", "b", 1), ("in", "a_from_b", -1), ("b", "a", 1), ("a_from_b", "a", 1))
    return replace(
        chain("b", "a_from_b", "a"),
        projections=tuple(
            Projection(source=a, target=b, synapses=Dense(np.full((2, 2), weight)))
            for a, b, weight in ends
        ),
    )


def readout_beside_the_output() -> Graph:
    """A readout that nobody asked for, and spikes as the output."""
    graph = chain("a", "b", outputs=("a",))
    first, second = graph.populations
    return replace(graph, populations=(first, replace(second, neurons=integrator())))


def special() -> Iterator[Any]:
    two = chain("a", "b")
    inputs = (*two.inputs, spike_input(2, name="other"))
    projections = (*two.projections, dense("other", "b", 2, 2))
    graph = replace(two, inputs=inputs, projections=projections)
    yield pytest.param(graph, id="two inputs")
    yield pytest.param(chain("a", "b", outputs=("a", "b")), id="two outputs")
    yield pytest.param(chain("input", "b"), id="population called input")
    yield pytest.param(chain("output", "b"), id="population called output")
    graph = replace(two, projections=(two.projections[0], dense("a", "b", 2, 2, delay=1)))
    yield pytest.param(graph, id="delay")
    graph = replace(two, projections=(*two.projections, dense("a", "a", 2, 2, delay=1)))
    yield pytest.param(graph, id="recurrence")
    for name, neurons in (
        ("readout with memory", integrator(2048)),
        ("readout that keeps all", integrator(4096)),
        ("readout of a synaptic current", integrator(2048, current_decay=integers(2048))),
        ("readout with a bias per neuron", Integrator(decay=integers(0), bias=SPREAD)),
        ("what keeps all, with a bias per neuron", lif(4096, bias=SPREAD)),
        ("what leaks, with a bias per neuron", lif(2048, bias=SPREAD)),
        ("synaptic current with a bias", lif(2048, bias=3, current_decay=integers(4096))),
        ("last readout", integrator(readout="last")),
        ("sum readout", integrator(readout="sum")),
        ("reset by subtraction", lif(reset=ResetSubtract(64))),
        ("synaptic current", lif(current_decay=integers(0))),
        ("some leak, some do not", lif(integers([[[4096]], [[2048]]]))),
        ("bias per neuron", lif(bias=SPREAD)),
        ("bias of 25 bits", lif(bias=integers([[[2**24 + 1]], [[0]]]))),
    ):
        yield pytest.param(one_layer(KERNEL, MAP, neurons), id=name)
    several = replace(two.populations[0], neurons=lif(reset=ResetSubtract(64)), max_spikes=2)
    graph = replace(two, populations=(several, two.populations[1]))
    yield pytest.param(graph, id="several spikes")
    delays = np.array([[0, 1], [0, 0]])
    graph = replace(two, projections=(two.projections[0], dense("a", "b", 2, 2, delay=delays)))
    yield pytest.param(graph, id="delay of one synapse")
    yield pytest.param(colliding_names(), id="two nodes of one name")
    yield pytest.param(readout_beside_the_output(), id="readout beside the output")
    oblong = Conv2d(np.ones((1, 1, 3, 2), np.int64))
    yield pytest.param(one_layer(oblong, MAP), id="oblong kernel")


@pytest.mark.parametrize("graph", list(special()))
def test_whatever_is_legal_can_be_written(graph: Graph, tmp_path: Path) -> None:
    """Written, read back and written again, and as others see it: NIR refuses nothing of ours."""
    graph = replace(graph, timesteps=4)
    path = tmp_path / "model.nir"
    exporter.write(graph, path)
    read = exporter.read(path)
    assert same(read, graph)
    assert rewritten(read, tmp_path) == path.read_bytes()
    fed = {
        spec.name: np.random.default_rng(0).integers(0, 2, (2, 4, *spec.shape), np.uint8)
        for spec in graph.inputs
    }
    case = Case(graph, Recording(spikes=fed), 4)
    assert any(s.any() for s in case.run("reference").spikes.values()) or not any(graph.spiking())
    assert_said(case, "portable", np.greater)
