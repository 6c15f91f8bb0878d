"""Schemes: what is chosen where nothing is said, what is refused; and the choice of scales."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray
from snn_deploy.exporters.nir.metadata import from_data, to_data

from snn_deploy import checks
from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing import freeze
from snn_deploy.graph import (
    LIF,
    Graph,
    InputSpec,
    Integrator,
    Population,
    Projection,
    ResetSubtract,
    ResetTo,
)
from snn_deploy.hardware import Target, target
from snn_deploy.nn.architecture import Architecture
from snn_deploy.numerics import firing_level
from snn_deploy.packets import Recording
from snn_deploy.quantization import prove_ranges, quantize
from snn_deploy.quantization.moments import Moments, current_error
from snn_deploy.quantization.scales import Quantized, at_scale, float_weights, misfit
from snn_deploy.quantization.scheme import Scheme, weight_bits, weight_grid
from snn_deploy.sim import simulate
from snn_deploy.synapses import Conv2d, Dense
from tests.helpers.graphs import GENERIC, LOIHI2
from tests.helpers.refusals import refused
from tests.helpers.spiking import architectures, settled

Array = NDArray[Any]

CLIPPINGS = ("max", "mse", "percentile")


def reals(value: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(value, np.float64)


def layer(
    weight: ArrayLike, *, threshold: ArrayLike = 0.5, bias: ArrayLike = 0.0, **more: Any
) -> Graph:
    """A float graph: spikes, dense synapses, neurons "p"."""
    array = reals(weight)
    neurons = LIF(decay=reals(0.5), threshold=reals(threshold), bias=reals(bias), **more)
    return Graph(
        inputs=(InputSpec(name="in", kind="spikes", shape=array.shape[1:]),),
        populations=(Population(name="p", shape=array.shape[:1], neurons=neurons),),
        projections=(Projection(source="in", target="p", synapses=Dense(array)),),
        outputs=("p",),
        timesteps=4,
    )


def lif(graph: Graph, name: str = "p") -> LIF:
    neurons = graph.population(name).neurons
    assert isinstance(neurons, LIF)
    return neurons


# ---------------------------------------------------------------- what a scheme is


def test_defaults() -> None:
    generic, loihi = target("generic"), target("loihi2")
    assert Scheme.of(generic) == Scheme(bits=8, clipping="max")
    assert Scheme.of(loihi) == Scheme(bits=8, clipping="max")
    assert Scheme.of(generic, bits=5).clipping == "mse"
    assert Scheme.of(generic, bits=6).clipping == "max"
    assert Scheme.of(generic, bits=4, clipping="max").clipping == "max"
    narrow = replace(GENERIC, weight_min=-7, weight_max=7)
    assert Scheme.of(replace(generic, number_format=narrow)).bits == 4


def test_grids() -> None:
    """By hand: Loihi's 8 bits are its own even numbers, fewer are symmetric."""
    assert (weight_bits(LOIHI2), weight_bits(GENERIC)) == (8, 16)
    grids = {bits: weight_grid(LOIHI2, bits) for bits in (8, 4, 2)}
    assert [(g.low, g.high, g.step) for g in grids.values()] == [
        (-256, 254, 2), (-14, 14, 2), (-2, 2, 2),
    ]  # fmt: skip
    assert [(weight_grid(GENERIC, b).low, weight_grid(GENERIC, b).high) for b in (16, 8, 2)] == [
        (-32767, 32767), (-127, 127), (-1, 1),
    ]  # fmt: skip
    odd = weight_grid(replace(GENERIC, weight_min=-255, weight_max=255, weight_step=2), 8)
    assert (odd.low, odd.high) == (-254, 254)  # both are steps


@pytest.mark.parametrize(
    ("chip", "options", "code", "text"),
    [
        ("generic", {"bits": 1}, "SD104", "choose 2 to 16 bits"),
        ("generic", {"bits": 17}, "SD104", "choose 2 to 16 bits"),
        ("loihi2", {"bits": 9}, "SD202", "weights of 8 bits, not 9"),
        ("loihi2", {"granularity": "channel"}, "SD202", "one threshold per population"),
        ("generic", {"granularity": "neuron"}, "SD104", "choose one of: tensor, channel"),
        ("generic", {"clipping": "minmax"}, "SD104", "choose one of: max, mse, percentile"),
        ("generic", {"rounding": "up"}, "SD104", "choose one of: nearest, learned"),
        ("generic", {"rounding": "learned"}, "SD104", "needs a calibration"),
        ("generic", {"correction": True}, "SD104", "needs a calibration"),
        ("cmos45", {}, "SD201", "not a target for export"),
    ],
)
def test_refusals(chip: str, options: dict[str, Any], code: str, text: str) -> None:
    with refused(code, text):
        quantize(layer([[1.0]]), chip, **options)


def test_a_calibration_that_nobody_looks_at_is_refused() -> None:
    seen = Recording(spikes={"": np.ones((1, 4, 1), np.uint8)})
    with refused("SD104", "of no use"):
        quantize(layer([[1.0]]), "generic", calibration=seen)
    for options in ({"clipping": "mse"}, {"bits": 4}, {"rounding": "learned"}):
        quantize(layer([[1.0]]), "generic", calibration=seen, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("reset", [ResetSubtract(0.5), ResetTo(-0.25)])
def test_channels_of_their_own_scales_are_reset_to_zero_only(reset: Any) -> None:
    with refused("SD202", "reset to zero only(.|\n)*--> p"):
        quantize(layer([[1.0], [0.5]], reset=reset), "generic", granularity="channel")
    graph = layer([[1.0], [0.5]], reset=reset, readout="sum")  # compared: one scale anyway
    integer = quantize(graph, "generic", granularity="channel")
    assert isinstance(integer.population("p").scale, float)


# ---------------------------------------------------------------- every number


def used(chip: Target, integer: Graph, graph: Graph, bits: int, clipping: str) -> None:
    """Every number against its rule, channel by channel, from the scales that were chosen."""
    form = chip.require_format()
    grid = weight_grid(form, bits)
    for population in integer.populations:
        name = population.name
        scale = 1 / np.asarray(population.scale)
        unit = scale * 2.0**form.fraction_bits
        before, after = graph.population(name).neurons, population.neurons
        shift = 2.0**form.bias_shift
        assert (np.abs(after.bias * shift - before.bias * unit) <= shift / 2 * (1 + 1e-9)).all()
        if isinstance(before, LIF) and isinstance(after, LIF):
            level = firing_level(form, after.threshold.astype(np.int64))
            error = level - before.threshold * unit
            assert (error >= -1e-9 * level).all()
            assert (error < 1 + 1e-9 * level).all()
        for old, new in zip(graph.incoming(name), integer.incoming(name), strict=True):
            if integer.on_host(new):
                continue
            weight = old.synapses.weight
            factor = scale.reshape(-1, *([1] * (weight.ndim - 1))) if scale.ndim else scale
            exact = weight * factor * 2.0**-new.exponent
            if integer.carries_values(new):
                exact = exact * integer.input(new.source).scale
            nearest = np.clip(exact, grid.low, grid.high)
            if clipping == "max":
                assert (np.abs(nearest - exact) <= grid.step / 2 * (1 + 1e-9)).all()
            error = np.abs(new.synapses.weight - nearest)
            assert (error <= grid.step / 2 * (1 + 1e-9)).all()
            assert (new.synapses.weight % grid.step == 0).all()
            assert 0 <= new.exponent <= form.weight_exponent_max


@settings(max_examples=60)
@given(
    described=architectures(),
    seed=st.integers(0, 2**16),
    chip=st.sampled_from(("generic", "generic", "loihi2")),
    bits=st.sampled_from((2, 3, 4, 8, 16)),
    granularity=st.sampled_from(("tensor", "channel")),
    clipping=st.sampled_from(CLIPPINGS),
)
def test_every_number_follows_its_rule(
    described: Architecture, seed: int, chip: str, bits: int, granularity: str, clipping: str
) -> None:
    graph = freeze(settled(described, seed))
    to = target(chip)
    try:
        integer = quantize(graph, to, bits=bits, granularity=granularity, clipping=clipping)
    except SnnDeployError as error:
        assert error.code in ("SD202", "SD203")  # noqa: PT017
        event(f"{chip}: {error.message.split(':')[0][:40]}")
        return
    event(f"fits {chip}, {granularity}")
    checks.check_integer(integer)
    prove_ranges(integer)
    used(to, integer, graph, bits, clipping)
    data = to_data(integer)
    again = from_data(*data)
    assert to_data(again)[0] == data[0]
    for one, other in zip(integer.populations, again.populations, strict=True):
        assert np.array_equal(np.asarray(one.scale), np.asarray(other.scale))
        assert isinstance(one.scale, float) == isinstance(other.scale, float)


@given(
    seed=st.integers(0, 2**32 - 1), bits=st.sampled_from((2, 4, 8)),
    clipping=st.sampled_from(CLIPPINGS),
)  # fmt: skip
def test_a_channel_of_its_own_scale_is_a_population_of_its_own(
    seed: int, bits: int, clipping: str
) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(5, 20)) * rng.uniform(0.2, 2, (5, 1))
    threshold, bias = rng.uniform(0.3, 0.6, 5), rng.normal(size=5) / 4
    options: dict[str, Any] = {"bits": bits, "clipping": clipping}
    together = quantize(
        layer(weight, threshold=threshold, bias=bias), "generic", granularity="channel", **options
    )
    scale = together.population("p").scale
    assert isinstance(scale, np.ndarray)
    assert scale.shape == (5,)
    for channel in range(5):
        one = layer(weight[[channel]], threshold=threshold[channel], bias=bias[channel])
        alone = quantize(one, "generic", **options)
        assert alone.population("p").scale == pytest.approx(scale[channel], rel=1e-12)
        for mine, theirs in (
            (
                together.projections[0].synapses.weight[channel],
                alone.projections[0].synapses.weight,
            ),
            (lif(together).threshold[channel], lif(alone).threshold),
            (lif(together).bias[channel], lif(alone).bias),
        ):
            assert np.array_equal(np.ravel(mine), np.ravel(theirs))


def test_channels_of_a_readout_share_a_scale() -> None:
    graph = layer([[1.0, 0.3], [0.25, 0.1]])
    sink = Integrator(decay=reals(0.0), bias=reals([0.5, 0.0]))
    graph = replace(graph, populations=(Population(name="p", shape=(2,), neurons=sink),))
    integer = quantize(graph, "generic", granularity="channel")
    assert integer.population("p").scale == pytest.approx(1 / 127)


# ---------------------------------------------------------------- exponents


def shortcut(shape: tuple[int, int, int], amplitude: float, size: float) -> Graph:
    """Spikes into small convolution weights, and past them through an identity."""
    rng = np.random.default_rng(2)
    channels = shape[0]
    neurons = LIF(decay=reals(0.5), threshold=reals(0.5), bias=reals(0.0))
    first = Conv2d(rng.normal(size=(channels, channels, 3, 3)), (1, 1), (1, 1))
    second = Conv2d(size * rng.normal(size=(channels, channels, 3, 3)), (1, 1), (1, 1))
    identity = Conv2d(np.full((channels, 1, 1, 1), amplitude), groups=channels)
    return Graph(
        inputs=(InputSpec(name="in", kind="spikes", shape=shape),),
        populations=tuple(Population(name=n, shape=shape, neurons=neurons) for n in ("a", "b")),
        projections=(
            Projection(source="in", target="a", synapses=first),
            Projection(source="a", target="b", synapses=second),
            Projection(source="in", target="b", synapses=identity),
        ),
        outputs=("b",),
        timesteps=4,
    )


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("clipping", ["max", "mse"])
def test_a_shortcut_does_not_cost_a_convolution_its_precision(
    granularity: str, clipping: str
) -> None:
    graph = shortcut((3, 5, 5), 1.0, 0.01)
    to = target("generic")
    plain = replace(to, number_format=replace(GENERIC, weight_exponent_max=0))
    options: dict[str, Any] = {"granularity": granularity, "clipping": clipping}

    def noise(chip: Target) -> float:
        integer = quantize(graph, chip, **options)
        (projection,) = (p for p in integer.projections if p.name == "a->b")
        exact = graph.incoming("b")[0].synapses.weight
        error = float_weights(integer, projection) - exact
        return float((error**2).sum() / (exact**2).sum())

    integer = quantize(graph, to, **options)
    convolution, identity = integer.incoming("b")
    assert (convolution.exponent, identity.exponent > 3) == (0, True)
    assert np.abs(convolution.synapses.weight).max() == 127 or clipping == "mse"
    assert np.abs(identity.synapses.weight).max() >= 64
    assert noise(to) < 1e-4 < 1e-2 < noise(plain)


@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_exponents_go_with_one_threshold_per_population(clipping: str) -> None:
    """A chip like Loihi 2, but with exponents: the threshold stays exact, the shortcut shifts."""
    graph = shortcut((3, 5, 5), 1.0, 0.02)
    chip = replace(target("loihi2"), number_format=replace(LOIHI2, weight_exponent_max=7))
    integer = quantize(graph, chip, clipping=clipping)
    convolution, identity = integer.incoming("b")
    assert (convolution.exponent, identity.exponent > 2) == (0, True)
    assert np.abs(convolution.synapses.weight).max() > 127
    level = firing_level(LOIHI2, int(lif(integer, "b").threshold.item()))
    scale = integer.population("b").scale
    assert isinstance(scale, float)
    assert level * scale / 64 == pytest.approx(0.5, rel=1e-12)
    plain = quantize(graph, "loihi2", clipping=clipping)
    assert np.abs(plain.incoming("b")[0].synapses.weight).max() < 127


def test_exponents_end_where_the_format_ends() -> None:
    graph = shortcut((2, 4, 4), 1.0, 0.01)
    few = replace(target("generic"), number_format=replace(GENERIC, weight_exponent_max=3))
    convolution, identity = quantize(graph, few).incoming("b")
    assert (convolution.exponent, identity.exponent) == (0, 3)
    assert np.abs(identity.synapses.weight).max() == 127
    assert np.abs(convolution.synapses.weight).max() < 127


def test_the_engines_shift_as_the_graph_says() -> None:
    graph = shortcut((3, 5, 5), 1.0, 0.02)
    integer = quantize(graph, "generic")
    spikes = (np.random.default_rng(0).random((4, 4, 3, 5, 5)) < 0.3).astype(np.uint8)
    recording = Recording(spikes={"": spikes})
    exact, slow, fast = (
        simulate(g, recording, engine=engine, trace=True)
        for g, engine in ((graph, "reference"), (integer, "reference"), (integer, "event"))
    )  # type: ignore[call-overload]
    assert all(np.array_equal(slow.membrane[n], fast.membrane[n]) for n in ("a", "b"))
    scale = integer.population("b").scale
    assert isinstance(scale, float)
    same = (exact.spikes["a"] == slow.spikes["a"]).all(axis=(2, 3, 4)).cumprod(axis=1) > 0
    assert same.sum() >= 4
    error = slow.current["b"] * scale / 64 - exact.current["b"]
    assert np.abs(error[same]).max() < 28 * scale  # half a unit or less from each synapse


# ---------------------------------------------------------------- mse and percentile


def candidates(graph: Graph, bits: int) -> list[tuple[float, Quantized]]:
    """Every threshold mantissa of Loihi 2 that fits when weights are clipped, and its error."""
    inputs = replace(graph, number_format=LOIHI2)
    (population,) = inputs.populations
    grid = weight_grid(LOIHI2, bits)
    found = []
    threshold = float(lif(graph).threshold.item())
    for mantissa in range(1, 800):
        scale = firing_level(LOIHI2, mantissa) / (threshold * 64)
        one = at_scale(inputs, population, scale, grid, LOIHI2, threshold=mantissa, clips=True)
        if misfit(inputs, one, grid, LOIHI2) is None:
            found.append((current_error(inputs, population, one, Moments()), one))
    return found


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), bits=st.sampled_from((2, 3, 4, 8)))
def test_no_threshold_of_loihi_errs_less_than_mse(seed: int, bits: int) -> None:
    rng = np.random.default_rng(seed)
    graph = layer(rng.normal(size=(3, 6)), bias=rng.normal(size=3) / 8)
    integer = quantize(graph, "loihi2", bits=bits, clipping="mse")
    inputs = replace(graph, number_format=LOIHI2)
    found = Quantized(integer.population("p"), integer.projections)
    error = current_error(inputs, inputs.population("p"), found, Moments())
    assert error <= min(e for e, _ in candidates(graph, bits)) * (1 + 1e-12)


@given(
    seed=st.integers(0, 2**32 - 1), bits=st.sampled_from((2, 3, 4, 8)),
    granularity=st.sampled_from(("tensor", "channel")),
)  # fmt: skip
def test_no_scale_of_the_generic_core_errs_less_than_mse(
    seed: int, bits: int, granularity: str
) -> None:
    """Thresholds and biases are left out of the search: they weigh at most what T says."""
    rng = np.random.default_rng(seed)
    graph = layer(rng.normal(size=(3, 6)), bias=rng.normal(size=3) / 8)
    integer = quantize(graph, "generic", bits=bits, clipping="mse", granularity=granularity)
    inputs = replace(graph, number_format=GENERIC)
    population = inputs.population("p")
    found = Quantized(integer.population("p"), integer.projections)
    error = current_error(inputs, population, found, Moments())
    fine = np.asarray(integer.population("p").scale) / 64
    most = float(np.broadcast_to((1 + 1 / 4) * fine**2, (3,)).sum())
    grid = weight_grid(GENERIC, bits)
    largest = np.abs(graph.projections[0].synapses.weight).max()
    for scale in np.geomspace(grid.high / largest / 2, 16 * grid.high / largest, 300):
        one = at_scale(inputs, population, float(scale), grid, GENERIC, clips=True)
        other = current_error(inputs, population, one, Moments())
        assert error <= other + most + 1e-12


def test_a_percentile_leaves_out_the_largest_thousandth() -> None:
    weight = np.linspace(-1, 1, 2001)[None].repeat(2, axis=0)
    weight[0, 0] = 100.0
    integer = quantize(layer(weight), "generic", clipping="percentile")
    clipped = np.percentile(np.abs(weight), 99.9)
    assert integer.population("p").scale == pytest.approx(clipped / 127)
    assert integer.projections[0].synapses.weight[0, 0] == 127
    alone = quantize(layer(weight), "generic", clipping="percentile", granularity="channel")
    scale = alone.population("p").scale
    assert isinstance(scale, np.ndarray)
    assert scale == pytest.approx(np.percentile(np.abs(weight), 99.9, axis=1) / 127)


def test_rates_that_were_seen_decide_what_matters() -> None:
    """The large weight is of an input that never spikes: it is clipped for the others' sake."""
    graph = layer([[8.0, 0.5, -0.3, 0.21, 0.4]])
    spikes = np.ones((500, 4, 5), np.uint8)
    spikes[:, :, 0] = 0
    seen = Recording(spikes={"": spikes})
    blind = quantize(graph, "generic", bits=4, clipping="mse")
    sighted = quantize(graph, "generic", bits=4, clipping="mse", calibration=seen)
    exact = graph.projections[0].synapses.weight[:, 1:]

    def noise(integer: Graph) -> float:
        worth = float_weights(integer, integer.projections[0])[:, 1:]
        return float(((worth - exact) ** 2).sum())

    assert noise(sighted) < noise(blind) / 10


# ---------------------------------------------------------------- fixed scales


@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_fixed_scales_are_kept(clipping: str) -> None:
    graph = layer([[1.0, 0.3], [0.5, -0.25]])
    for fixed in (100.0, np.array([64.0, 200.0])):
        integer = quantize(
            graph, "generic", granularity="channel", clipping=clipping, scales={"p": fixed}
        )
        assert np.asarray(integer.population("p").scale) == pytest.approx(1 / fixed)
        used(target("generic"), integer, graph, 8, clipping)
    loihi = quantize(graph, "loihi2", scales={"p": 100.0}, clipping=clipping)
    assert lif(loihi).threshold.item() == 50  # of 49.98
    with refused("SD104", "share one"):
        quantize(
            replace(graph, populations=(
                Population(name="p", shape=(2,), neurons=Integrator(
                    decay=reals(0.0), bias=reals(0.0))),)),
            "generic", granularity="channel", scales={"p": np.array([1.0, 2.0])},
        )  # fmt: skip
    with refused("SD105", "'q'"):
        quantize(graph, "generic", scales={"q": 1.0})
    for wrong in (0.0, np.nan, -1.0):
        with refused("SD104", "above 0"):
            quantize(graph, "generic", scales={"p": wrong})
    with refused("SD104", "3 scales for 2 channels"):
        quantize(graph, "generic", scales={"p": np.ones(3)})


def test_a_network_on_the_grid_is_kept_as_it_is() -> None:
    """What fine-tuning hands over: weights that are mantissas already."""
    rng = np.random.default_rng(1)
    mantissas = rng.integers(-7, 8, (3, 9))
    integer = quantize(
        layer(mantissas / 40, threshold=20 / 40), "generic", bits=4, scales={"p": 40.0}
    )
    assert np.array_equal(integer.projections[0].synapses.weight, mantissas)
    assert lif(integer).threshold.item() == 20 * 64


def test_a_fixed_scale_that_does_not_fit_is_refused() -> None:
    few = replace(target("generic"), number_format=replace(GENERIC, weight_exponent_max=0))
    with refused("SD203", r"exceed \[-127, 127\]"):
        quantize(layer([[1.0]]), few, scales={"p": 200.0})
    integer = quantize(layer([[1.0]]), few, scales={"p": 200.0}, clipping="mse")
    assert integer.projections[0].synapses.weight.item() == 127  # clipped, as the scheme says


# ---------------------------------------------------------------- scales in graphs and files


def test_a_scale_per_channel_has_the_shape_of_channels() -> None:
    integer = quantize(layer([[1.0], [0.5]]), "generic", granularity="channel")
    (population,) = integer.populations
    for wrong in (np.ones(3), np.ones((2, 1)), np.ones(2, np.float32), np.array([1.0, 0.0]),
                  np.array([1.0, np.nan])):  # fmt: skip
        changed = replace(integer, populations=(replace(population, scale=wrong),))
        with refused("SD408", "scale"):
            checks.check_integer(changed)
