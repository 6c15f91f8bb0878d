"""Quantization: every rule of every number format, on random networks; and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from snn_deploy import checks
from snn_deploy.errors import Exit, SnnDeployError
from snn_deploy.freezing import freeze
from snn_deploy.graph import (
    LIF,
    Graph,
    InputSpec,
    Integrator,
    Population,
    Projection,
    Reset,
    ResetSubtract,
    ResetTo,
)
from snn_deploy.hardware import target
from snn_deploy.nn.architecture import Architecture
from snn_deploy.numerics import NumberFormat
from snn_deploy.packets import Recording
from snn_deploy.quantization import prove_ranges, quantize
from snn_deploy.quantization.scales import at_scale, misfit
from snn_deploy.quantization.scheme import weight_grid
from snn_deploy.sim import simulate
from snn_deploy.synapses import Conv2d, Dense, Synapses
from tests.helpers.refusals import refused
from tests.helpers.spiking import architectures, every_kind, settled

Array = NDArray[Any]

CHIPS = ("loihi2", "generic")
LOIHI2 = target("loihi2").require_format()
GENERIC = target("generic").require_format()
CLOSE = 1e-9  # relative rounding of the float64 arithmetic that chooses scales


def quantized(graph: Graph, chip: str) -> tuple[Graph, NumberFormat]:
    integer = quantize(graph, chip)
    assert integer.number_format is not None
    return integer, integer.number_format


def reals(value: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(value, np.float64)


def one_layer(
    weight: ArrayLike,
    *,
    spec: InputSpec | None = None,
    threshold: ArrayLike = 0.5,
    decay: ArrayLike = 0.5,
    bias: ArrayLike = 0.0,
    reset: Reset | None = None,
    current_decay: ArrayLike | None = None,
    timesteps: int | None = 4,
    max_spikes: int = 1,
    **projection: Any,
) -> Graph:
    """A float graph: an input, dense or convolution synapses, and neurons "p"."""
    array = reals(weight)
    synapses: Synapses = Dense(array) if array.ndim == 2 else Conv2d(array)
    if spec is None:
        spec = InputSpec(name="in", kind="spikes", shape=array.shape[1:2])
    neurons = LIF(
        decay=reals(decay),
        threshold=reals(threshold),
        bias=reals(bias),
        reset=reset or ResetTo(),
        current_decay=None if current_decay is None else reals(current_decay),
    )
    shape = synapses.target_shape(spec.shape)
    return Graph(
        inputs=(spec,),
        populations=(Population(name="p", shape=shape, neurons=neurons, max_spikes=max_spikes),),
        projections=(Projection(source=spec.name, target="p", synapses=synapses, **projection),),
        outputs=("p",),
        timesteps=timesteps,
    )


def lif(graph: Graph, name: str = "p") -> LIF:
    neurons = graph.population(name).neurons
    assert isinstance(neurons, LIF)
    return neurons


def scale_of(population: Population) -> float:
    """Weight units per unit of the float network."""
    assert population.scale is not None
    return 1 / population.scale


def check_population(graph: Graph, integer: Graph, name: str) -> None:
    """Every number of a population against the rule that makes it."""
    form = integer.number_format
    assert form is not None
    scale = scale_of(integer.population(name))
    unit = scale * 2**form.fraction_bits
    before, after = graph.population(name).neurons, integer.population(name).neurons
    assert type(before) is type(after)
    assert np.array_equal(after.decay, np.rint(before.decay * 2**form.decay_bits))
    shift = 2.0**form.bias_shift
    assert (np.abs(after.bias * shift - before.bias * unit) <= shift / 2 * (1 + CLOSE)).all()
    if isinstance(before, LIF) and isinstance(after, LIF):
        check_threshold(before.threshold * unit, after.threshold, form)
    for old, new in zip(graph.incoming(name), integer.incoming(name), strict=True):
        check_weights(integer, old, new, scale, form)


def check_threshold(level: Array, mantissa: Array, form: NumberFormat) -> None:
    """The lowest membrane that fires is the threshold itself, or the next integer above."""
    fires_from = (mantissa.astype(np.int64) << form.threshold_shift) + (form.comparator == ">")
    if form.threshold_per_population:
        assert fires_from == pytest.approx(level, rel=1e-12)
    else:
        slack = CLOSE * np.abs(level)
        assert (fires_from >= level - slack).all()
        assert (fires_from < level + 1 + slack).all()


def on_host(integer: Graph, projection: Projection) -> bool:
    """Only what is constant over time: the chip itself multiplies what changes."""
    form = integer.number_format
    constant = integer.is_input(projection.source) and (
        integer.input(projection.source).kind == "constant"
    )
    return constant and form is not None and form.first_layer == "host_bias"


def check_weights(
    integer: Graph, old: Projection, new: Projection, scale: float, form: NumberFormat
) -> None:
    """Every mantissa is the nearest one, none is clipped, and none could be finer."""
    exact = old.synapses.weight * scale
    mantissa = new.synapses.weight
    assert np.issubdtype(mantissa.dtype, np.integer)
    assert mantissa.shape == exact.shape
    step = form.weight_step
    limits = form.weight_min, form.weight_max
    if integer.is_input(new.source) and integer.input(new.source).kind != "spikes":
        exact = exact * integer.input(new.source).scale
    if on_host(integer, new):
        limits = -form.first_layer_weight_limit, form.first_layer_weight_limit
        step = 1
        exact = exact * 2.0 ** (form.fraction_bits - form.bias_shift)
        finer = np.abs(exact).max() * 2.0 ** -(new.exponent - 1)
        assert new.exponent == -30 or finer > form.first_layer_weight_limit
        assert new.exponent <= 0
    else:
        high = 127 * step  # of 8 bits
        if new.exponent:  # a smaller one does not hold the weights
            halved = exact * 2.0 ** -(new.exponent - 1)
            assert np.rint(np.abs(halved).max() / step) > high / step
        assert new.exponent <= form.weight_exponent_max
        limits = max(form.weight_min, -high - step), min(form.weight_max, high)
    exact = exact * 2.0**-new.exponent
    assert (np.abs(mantissa - exact) <= step / 2 + CLOSE * np.abs(exact)).all()
    assert (mantissa % step == 0).all()
    assert limits[0] <= mantissa.min()
    assert mantissa.max() <= limits[1]


def check_largest(graph: Graph, integer: Graph, name: str) -> None:
    """The next larger scale does not fit, or would need every projection to be shifted."""
    form = integer.number_format
    assert form is not None
    population = graph.population(name)
    with_inputs = replace(graph, inputs=integer.inputs, number_format=form)
    neurons = integer.population(name).neurons
    scale = scale_of(integer.population(name))
    grid = weight_grid(form, 8)
    if isinstance(neurons, LIF) and form.threshold_per_population:
        mantissa = int(neurons.threshold.item()) + 1
        if mantissa > form.threshold_limit:
            return
        threshold = population.neurons.threshold.item()  # type: ignore[union-attr]
        larger = ((mantissa << form.threshold_shift) + 1) / (threshold * 2**form.fraction_bits)
        step = at_scale(with_inputs, population, larger, grid, form, threshold=mantissa)
    else:
        step = at_scale(with_inputs, population, scale * 2**0.125, grid, form)
        shifted = [p.exponent > 0 for p in step.projections if p.synapses.weight.any()]
        if shifted and all(shifted):
            return
    assert misfit(with_inputs, step, grid, form) is not None


def what_loihi_cannot(graph: Graph) -> bool:
    """Reset by subtraction, and a constant input that a synaptic filter would have to pass."""
    soft = any(isinstance(lif(graph, p.name).reset, ResetSubtract) for p in graph.spiking())
    filtered = any(
        graph.is_constant(p) and graph.population(p.target).neurons.current_decay is not None
        for p in graph.projections
    )
    return soft or filtered


@settings(max_examples=150)
@given(described=architectures(), seed=st.integers(0, 2**16), chip=st.sampled_from(CHIPS))
def test_every_number_follows_its_rule(described: Architecture, seed: int, chip: str) -> None:
    graph = freeze(settled(described, seed))
    try:
        integer, form = quantized(graph, chip)
    except SnnDeployError as error:
        unable = error.code == "SD202"
        assert unable == (chip == "loihi2" and what_loihi_cannot(graph))
        assert unable or error.code == "SD203"  # noqa: PT017
        event(f"{chip} cannot" if unable else f"does not fit {chip}")
        assume(False)
    assert not (chip == "loihi2" and what_loihi_cannot(graph))
    event(f"fits {chip}")
    assert form == target(chip).number_format
    checks.check_integer(integer)
    prove_ranges(integer)
    assert [p.name for p in integer.populations] == [p.name for p in graph.populations]
    assert [p.name for p in integer.projections] == [p.name for p in graph.projections]
    assert (integer.outputs, integer.timesteps) == (graph.outputs, graph.timesteps)
    for old, new in zip(graph.projections, integer.projections, strict=True):
        assert (old.pool, old.delay) == (new.pool, new.delay)
    for population in integer.populations:
        check_population(graph, integer, population.name)
        check_largest(graph, integer, population.name)


@pytest.mark.parametrize("chip", CHIPS)
def test_a_network_of_every_kind_fits(chip: str) -> None:
    for seed in range(3):
        graph = freeze(every_kind(seed))
        integer = quantize(graph, chip)
        for population in graph.populations:
            check_population(graph, integer, population.name)


def test_a_constant_input_behind_a_synaptic_filter_is_refused_where_the_host_sums() -> None:
    """A bias of Loihi's joins the membrane, not the current: it would skip the filter."""
    spec = InputSpec(name="in", kind="constant", shape=(2,))
    graph = one_layer([[0.5, 0.25]], spec=spec, current_decay=0.5)
    with refused("SD202", "synaptic filter"):
        quantize(graph, "loihi2")
    assert lif(quantize(graph, "generic")).current_decay is not None
    quantize(one_layer([[0.5, 0.25]], current_decay=0.5), "loihi2")


def test_the_firing_level_of_loihi_is_the_threshold() -> None:
    """By hand: S = (64 m + 1) / (64 * 0.5); m = 127 makes a weight of 1 254.03, m = 128 256.03."""
    integer, _ = quantized(one_layer([[1.0, -1.0, 0.25]]), "loihi2")
    assert lif(integer).threshold.item() == 127
    assert scale_of(integer.population("p")) == pytest.approx(254.03125, rel=1e-15)
    # a quarter of the scale is 63.508, and only even mantissas exist
    assert integer.projections[0].synapses.weight.tolist() == [[254, -254, 64]]
    assert lif(integer).decay.item() == 2048


def test_a_neuron_at_its_threshold_fires_and_the_next_lower_one_does_not() -> None:
    recording = Recording(spikes={"": np.ones((1, 4, 1), np.uint8)})

    def fired(graph: Graph) -> list[int]:
        output: list[list[int]] = (
            simulate(graph, recording, engine="reference").output["p"].tolist()
        )
        return output[0]

    assert fired(one_layer([[0.5], [np.nextafter(0.5, 0)]], decay=0.0)) == [4, 0]
    between = one_layer([[127.0], [126.0]], decay=0.0, threshold=126.5)
    assert [fired(quantize(between, chip)) for chip in CHIPS] == [[4, 0], [4, 0]]
    met = one_layer([[127.0], [126.0]], decay=0.0, threshold=127.0)
    assert fired(quantize(met, "generic")) == [4, 0]  # S = 1: every number is an integer


def test_thresholds_of_the_generic_core_are_rounded_up() -> None:
    integer, _ = quantized(one_layer([[1.0], [0.5]], threshold=[0.3, 0.25]), "generic")
    assert scale_of(integer.population("p")) == 127
    assert lif(integer).threshold.tolist() == [2439, 2032]  # 0.3 * 127 * 64 = 2438.4; exact
    assert integer.projections[0].synapses.weight.tolist() == [[127], [64]]  # 63.5, ties to even


def test_both_resets_of_the_generic_core_are_scaled() -> None:
    for reset, value in ((ResetSubtract(0.25), 2032), (ResetTo(-0.125), -1016)):
        integer, _ = quantized(one_layer([[1.0]], reset=reset), "generic")
        found = lif(integer).reset
        amount = found.amount if isinstance(found, ResetSubtract) else found.value
        assert (type(found), amount) == (type(reset), value)


@pytest.mark.parametrize("decay", [0.0, 0.1, 0.5, 0.9, 0.99, 1.0, 0.50011, 0.50013])
def test_decays_are_rounded_to_4096ths(decay: float) -> None:
    for chip in CHIPS:
        integer, _ = quantized(one_layer([[0.1]], decay=decay), chip)
        found = lif(integer).decay.item()
        assert abs(found / 4096 - decay) <= 2**-13
        assert found == {0.0: 0, 0.5: 2048, 1.0: 4096, 0.50011: 2048, 0.50013: 2049}.get(
            decay, found
        )


@pytest.mark.parametrize("sign", [-1, 1])
def test_biases_are_rounded_to_the_nearest(sign: int) -> None:
    """On Loihi 2 here S = 254.03 and a bias mantissa is one weight unit."""
    scale = 254.03125
    for units, expected in ((0.4, 0), (0.6, 1), (1.4, 1), (1.6, 2), (100.7, 101)):
        graph = one_layer([[1.0]], bias=sign * units / scale)
        integer, _ = quantized(graph, "loihi2")
        assert lif(integer).bias.item() == sign * expected
        fine, _ = quantized(graph, "generic")
        exact = sign * units / scale * 127 * 64
        assert abs(lif(fine).bias.item() - exact) <= 0.5


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize(("decay", "field"), [(0.0, 0), (0.5, 2048), (1.0, 4096), (0.3, 1229)])
def test_currents_decay_in_4096ths_too(decay: float, field: int, chip: str) -> None:
    integer, _ = quantized(one_layer([[0.1]], decay=0.25, current_decay=decay), chip)
    neurons = lif(integer)
    assert neurons.current_decay is not None
    assert (neurons.decay.item(), neurons.current_decay.item()) == (1024, field)


def test_what_a_current_remembers_takes_room() -> None:
    """Ten steps of -1 add up: the proof leaves a tenth of the scale, or so, to each."""
    forgetful = one_layer([[-1.0]], decay=0.0, threshold=1e-3, bias=1e-3, timesteps=10)
    narrow = replace(GENERIC, membrane_bits=12)
    chip = replace(target("generic"), number_format=narrow)
    scales = []
    for memory in (None, 0.0, 1.0):
        neurons = replace(lif(forgetful), current_decay=None if memory is None else reals(memory))
        (population,) = forgetful.populations
        graph = replace(forgetful, populations=(replace(population, neurons=neurons),))
        integer = quantize(graph, chip)
        assert prove_ranges(integer)["p"].current[0] >= -2047
        scales.append(scale_of(integer.population("p")))
    assert scales[0] == scales[1]
    assert scales[0] / 12 < scales[2] < scales[0] / 8


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("kind", ["spikes", "graded"])
def test_two_memories_stay_close_to_those_of_the_float_network(kind: Any, chip: str) -> None:
    """With the weights that were rounded, only decays differ: each cuts off a unit at most."""
    weight, steps = [[1.0, -1.0], [-0.3, 0.8]], 20
    spec = InputSpec(name="in", kind=kind, shape=(2,), low=-1.0, high=1.0)
    sink = Integrator(decay=reals(0.75), bias=reals(0.0), current_decay=reals([0.5, 0.25]))
    graph = replace(
        one_layer(weight, spec=spec, timesteps=steps),
        populations=(Population(name="p", shape=(2,), neurons=sink),),
    )
    integer, form = quantized(graph, chip)
    held = {"": np.random.default_rng(3).integers(0, 2, (3, steps, 2))}
    recording = Recording(spikes=held) if kind == "spikes" else Recording(values=held)
    (projection,) = integer.projections
    value = scale_of(integer.population("p")) * (integer.inputs[0].scale or 1.0)
    weighed = replace(projection, synapses=Dense(projection.synapses.weight / value))
    exact, found = (
        simulate(g, recording, engine="reference", trace=True)
        for g in (replace(graph, projections=(weighed,)), integer)
    )
    unit = scale_of(integer.population("p")) * 2**form.fraction_bits
    # a unit each step, of which a half stays; and then that much each step, of which 3/4 stay
    for part, error in (("current", 2), ("membrane", (2 + 1) * 4)):
        wanted = getattr(exact, part)["p"] * unit
        assert np.abs(getattr(found, part)["p"] - wanted).max() <= error
        assert np.abs(wanted).max() > 100 * error


SHIFTING = replace(
    target("generic"), number_format=replace(GENERIC, decay_rule="shift_subtract"), id="shifting"
)


@pytest.mark.parametrize(
    ("decay", "shift"), [(0.0, 0), (0.2, 0), (0.3, 1), (0.5, 1), (0.7, 2), (0.75, 2), (0.99, 7)]
)
def test_decays_become_shifts(decay: float, shift: int) -> None:
    integer = quantize(one_layer([[0.1]], decay=decay, current_decay=decay), SHIFTING)
    neurons = lif(integer)
    assert neurons.current_decay is not None
    assert (neurons.decay.item(), neurons.current_decay.item()) == (shift, shift)


def test_what_a_shift_cannot_keep_is_refused() -> None:
    for decays in ({"decay": 1.0}, {"current_decay": 1.0}):
        with refused("SD203", "--> p(.|\n)*never decays"):
            quantize(one_layer([[0.1]], **decays), SHIFTING)
    with refused("SD202", "a decay outside its field(.|\n)*--> p"):
        quantize(one_layer([[0.1]], decay=1 - 2.0**-40), SHIFTING)


def test_a_floor_is_quantized_like_a_cut() -> None:
    chip = replace(target("generic"), number_format=replace(GENERIC, decay_rule="multiply_floor"))
    assert lif(quantize(one_layer([[0.1]], decay=0.3), chip)).decay.item() == 1229


def test_several_spikes_and_delays_are_kept_where_a_chip_has_them() -> None:
    reset, delay = ResetSubtract(0.5), np.array([[0, 62], [7, 3]])
    graph = one_layer(np.ones((2, 2)), reset=reset, max_spikes=200, delay=delay)
    integer, _ = quantized(graph, "generic")
    assert integer.population("p").max_spikes == 200
    assert np.array_equal(integer.projections[0].delay, delay)
    slow = replace(target("generic"), number_format=replace(GENERIC, spikes_max=199))
    with refused("SD202", "200 times per timestep, the target's 199(.|\n)*--> p"):
        quantize(graph, slow)
    single = one_layer(np.ones((2, 2)), delay=delay)
    assert np.array_equal(quantize(single, "loihi2").projections[0].delay, delay)
    with refused("SD202", "63 timesteps, the target has 62(.|\n)*--> in->p"):
        quantize(one_layer(np.ones((2, 2)), delay=delay + 1), "loihi2")


def test_a_chip_without_synaptic_currents() -> None:
    chip = replace(target("generic"), number_format=replace(GENERIC, synaptic_current=False))
    quantize(one_layer([[0.1]]), chip)
    with refused("SD202", "no synaptic current(.|\n)*--> p"):
        quantize(one_layer([[0.1]], current_decay=0.5), chip)


finite = st.integers(-64, 64).map(lambda n: n / 16)


@given(
    bounds=st.tuples(finite, finite).map(sorted),
    mean=st.lists(finite, min_size=2, max_size=2),
    std=st.lists(st.integers(1, 64).map(lambda n: n / 16), min_size=2, max_size=2),
    chip=st.sampled_from(CHIPS),
)
def test_input_values_fill_their_bits_and_zero_stays_zero(
    bounds: list[float], mean: list[float], std: list[float], chip: str
) -> None:
    low, high = bounds
    spec = InputSpec(
        name="in",
        kind="constant",
        shape=(2, 1, 1),
        low=low,
        high=high,
        mean=reals(mean),
        std=reals(std),
    )
    (found,) = quantized(one_layer(np.ones((1, 2, 1, 1)), spec=spec, threshold=9.0), chip)[0].inputs
    assert found.scale is not None
    least, most = spec.encoded_range()
    encoded = found.encoded_range()
    if least.min() == most.max() == 0:
        return
    limit = 127 if encoded[0].min() < 0 else 255
    assert max(-encoded[0].min(), encoded[1].max()) == limit
    assert (found.encode(reals(mean).reshape(2, 1, 1)) == 0).all()  # what padding adds
    raw = np.linspace(low, high, 50).repeat(2).reshape(50, 2, 1, 1)
    error = np.abs(found.encode(raw) * found.scale - spec.normalise(raw))
    assert (error <= found.scale / 2 * (1 + CLOSE)).all()


def test_spikes_are_not_scaled() -> None:
    for chip in CHIPS:
        assert quantize(one_layer([[1.0]]), chip).inputs[0].scale is None


def test_host_sums_are_finer_than_a_weight_unit() -> None:
    spec = InputSpec(name="in", kind="constant", shape=(2,), high=1.0)
    integer, form = quantized(one_layer([[0.5, -0.25]], spec=spec), "loihi2")
    (projection,) = integer.projections
    assert projection.exponent < 0
    assert np.abs(projection.synapses.weight).max() > form.first_layer_weight_limit / 2
    found = prove_ranges(integer)["p"]
    scale = scale_of(integer.population("p"))
    assert found.host_bias[1] == pytest.approx(0.5 * scale, abs=1)
    assert found.host_bias[0] == pytest.approx(-0.25 * scale, abs=1)
    check_population(one_layer([[0.5, -0.25]], spec=spec), integer, "p")


def test_a_graded_input_is_multiplied_on_the_generic_core() -> None:
    spec = InputSpec(name="in", kind="graded", shape=(1,), low=-1.0, high=1.0)
    integer, _ = quantized(one_layer([[0.5]], spec=spec), "generic")
    assert integer.projections[0].synapses.weight.tolist() == [[127]]
    assert integer.projections[0].exponent == 0
    # 127 steps of 1/127 times 127 units are 127 units for a current of 0.5
    assert scale_of(integer.population("p")) == pytest.approx(127 * 127 * 2)


def test_a_graded_input_is_multiplied_on_loihi() -> None:
    """Only constant input goes through the host: values that change meet ordinary weights."""
    spec = InputSpec(name="in", kind="graded", shape=(3,), low=-1.0, high=1.0)
    graph = one_layer([[0.5, -0.5, 0.126]], spec=spec, threshold=1.0)
    integer, form = quantized(graph, "loihi2")
    (projection,) = integer.projections
    assert not integer.on_host(projection)
    assert projection.exponent == 0
    assert (projection.synapses.weight % 2 == 0).all()
    assert 240 < projection.synapses.weight.max() <= form.weight_max
    check_population(graph, integer, "p")
    values = np.zeros((1, 4, 3))
    values[0, 1] = [1.0, -0.25, 0.5]
    trace = simulate(integer, Recording(values={"": values}), trace=True)
    encoded = integer.inputs[0].encode(values)[0]
    expected = encoded @ projection.synapses.weight.T << form.fraction_bits
    assert trace.current["p"][0].tolist() == expected.tolist()


def test_an_integrator_is_scaled_by_its_weights() -> None:
    graph = one_layer([[1.0], [-0.5]])
    sink = Integrator(decay=reals(0.0), bias=reals([0.25, -0.25]))
    graph = replace(graph, populations=(Population(name="p", shape=(2,), neurons=sink),))
    for chip, most in (("loihi2", 254), ("generic", 127)):
        integer, _ = quantized(graph, chip)
        assert scale_of(integer.population("p")) == most
        check_population(graph, integer, "p")


def test_the_range_proof_limits_the_scale() -> None:
    """Without a leak the bias adds up over many steps: the scale must leave room for it."""
    slow = one_layer([[0.5]], decay=1.0, bias=-4.0, timesteps=1000)
    integer, form = quantized(slow, "loihi2")
    proved = prove_ranges(integer)["p"]
    assert 0.9 * form.membrane_limit < -proved.membrane[0] <= form.membrane_limit
    check_largest(slow, integer, "p")


def test_one_threshold_may_have_any_shape() -> None:
    for shape in ((), (1,), (1, 1, 1)):
        spec = InputSpec(name="in", kind="spikes", shape=(1, 3, 3) if len(shape) == 3 else (3,))
        weight = np.ones((1, 1, 2, 2)) if len(shape) == 3 else np.ones((1, 3))
        graph = one_layer(weight, spec=spec, threshold=np.full(shape, 0.5))
        assert lif(quantize(graph, "loihi2")).threshold.item() == 127


def test_quantizing_leaves_the_float_graph_alone() -> None:
    graph = one_layer([[0.3, 0.7]])
    before = graph.projections[0].synapses.weight.copy()
    quantize(graph, "loihi2")
    assert np.array_equal(graph.projections[0].synapses.weight, before)
    assert graph.number_format is None


REFUSED: dict[str, tuple[Graph, str, str, str]] = {
    "thresholds per channel": (
        one_layer([[1.0], [1.0]], threshold=[0.5, 0.6]), "loihi2", "SD202", "p"
    ),
    "reset by subtraction": (
        one_layer([[1.0]], reset=ResetSubtract(0.5)), "loihi2", "SD202", "p"
    ),
    "reset to a value": (one_layer([[1.0]], reset=ResetTo(-0.5)), "loihi2", "SD202", "p"),
    "impossible bias": (one_layer([[1.0]], bias=1e4), "loihi2", "SD203", "p"),
    "impossible bias, generic": (one_layer([[1.0]], bias=-1e30), "generic", "SD203", "p"),
    "a bias that leaves no weights": (one_layer([[1.0]], bias=1e9), "generic", "SD203", "p"),
    "impossible weight": (one_layer([[1.0]], threshold=1e-6), "loihi2", "SD203", "p"),
    "weight beyond all integers": (one_layer([[1.0]], threshold=1e-30), "loihi2", "SD203", "p"),
    "impossible fan-in": (
        one_layer(-np.ones((1, 200)), decay=1.0, timesteps=None), "loihi2", "SD203", "p"
    ),
    "no threshold": (one_layer([[1.0]], threshold=0.0), "generic", "SD202", "p"),
    "no number format": (one_layer([[1.0]]), "cmos45", "SD201", "cmos45"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_named(name: str) -> None:
    graph, chip, code, where = REFUSED[name]
    with pytest.raises(SnnDeployError) as caught:
        quantize(graph, chip)
    assert caught.value.code == code
    assert caught.value.exit == Exit.UNSUPPORTED
    assert where in (caught.value.where or str(caught.value))
    assert caught.value.fix or code == "SD202"


def test_a_reset_that_a_chip_lacks_says_what_to_do() -> None:
    for reset in (ResetSubtract(0.5), ResetTo(-0.5)):
        with refused("SD202", "resets membranes to zero only(.|\n)*generic"):
            quantize(one_layer([[1.0]], reset=reset), "loihi2")


@pytest.mark.parametrize("reset", [ResetSubtract(1e30), ResetTo(-1e30), ResetTo(1e12)])
def test_a_reset_beyond_all_registers(reset: Reset) -> None:
    with pytest.raises(SnnDeployError) as caught:
        quantize(one_layer([[1.0]], reset=reset), "generic")
    assert (caught.value.exit, caught.value.where) == (Exit.UNSUPPORTED, "p")


def test_an_integer_graph_is_not_quantized_again() -> None:
    with refused("SD408", "number format"):
        quantize(quantize(one_layer([[1.0]]), "generic"), "generic")


def test_weights_that_would_vanish_are_refused() -> None:
    """Room for a large bias may leave none for the weights: that is no network any more."""
    drowned = one_layer([[0.01]], decay=1.0, bias=-4.0, timesteps=1000)
    with refused("SD203", "rounds to zero"):
        quantize(drowned, "loihi2")
