"""Every refusal of the two checks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from snn_deploy.checks import check_float, check_integer
from snn_deploy.graph import LIF, Graph, InputSpec, Integrator, ResetSubtract, ResetTo
from snn_deploy.numerics import NumberFormat
from snn_deploy.synapses import Conv2d, Dense
from tests.helpers import graphs
from tests.helpers.graphs import FOREIGN, LOIHI2
from tests.helpers.nets import integers, lif, one_layer, spike_input
from tests.helpers.refusals import refused

VALUES = InputSpec(name="in", kind="graded", shape=(4,), scale=1.0)

# With narrow weights and no exponents.
GENERIC = replace(graphs.GENERIC, weight_min=-127, weight_max=127, weight_exponent_max=0)

NO_CURRENT = replace(GENERIC, synaptic_current=False)
SHIFTED = replace(GENERIC, decay_rule="shift_subtract")


def float_lif(**more: Any) -> LIF:
    one = np.array(1.0)
    return LIF(**{"decay": one, "threshold": one, "bias": one, **more})


def float_graph(
    neurons: LIF | None = None, spec: InputSpec | None = None, **projection: Any
) -> Graph:
    weight = projection.pop("weight", np.ones((3, 4)))
    return one_layer(
        Dense(weight),
        spec or spike_input(4),
        neurons or float_lif(),
        number_format=None,
        scale=None,
        **projection,
    )


def integer_graph(
    neurons: LIF | Integrator | None = None,
    spec: InputSpec | None = None,
    number_format: NumberFormat = GENERIC,
    weight: Any = 1,
    **more: Any,
) -> Graph:
    synapses = Dense(np.full((3, 4), weight))
    return one_layer(synapses, spec or spike_input(4), neurons, number_format=number_format, **more)


@pytest.mark.parametrize(
    ("graph", "code", "text"),
    [
        (integer_graph(), "SD408", "no number format"),
        (float_graph(spec=VALUES), "SD408", "not quantized"),
        (float_graph(weight=np.ones((3, 4), np.float32)), "SD408", "weights must be float64"),
        (float_graph(weight=np.ones((3, 4), int)), "SD408", "weights must be float64"),
        (float_graph(weight=np.full((3, 4), np.nan)), "SD403", "weights hold NaN"),
        (float_graph(exponent=1), "SD408", "no exponent"),
        (float_graph(sum_bits=16), "SD408", "no register"),
        (
            float_graph(float_lif(current_decay=np.array(1))),
            "SD408",
            "current_decay must be float64",
        ),
        (float_graph(float_lif(current_decay=np.array(np.nan))), "SD403", "current_decay hold NaN"),
        (
            float_graph(float_lif(current_decay=np.array(1.5))),
            "SD408",
            "current_decay lies outside",
        ),
        (float_graph(float_lif(current_decay=np.ones(2))), "SD408", "current_decay of shape"),
        (float_graph(float_lif(bias=np.array(np.inf))), "SD403", "bias hold NaN"),
        (float_graph(float_lif(threshold=np.array(np.nan))), "SD403", "threshold hold NaN"),
        (float_graph(float_lif(decay=np.array(1))), "SD408", "decay must be float64"),
        (float_graph(float_lif(bias=np.ones(2))), "SD408", "bias of shape"),
        (float_graph(float_lif(bias=np.ones((1, 3)))), "SD408", "bias of shape"),
        (float_graph(float_lif(decay=np.array(1.5))), "SD408", "decay lies outside"),
        (float_graph(float_lif(decay=np.array(-0.1))), "SD408", "decay lies outside"),
        (float_graph(float_lif(reset=ResetTo(float("nan")))), "SD403", "reset"),
        (float_graph(float_lif(reset=ResetSubtract(-1.0))), "SD408", "reset"),
    ],
)
def test_float_refusals(graph: Graph, code: str, text: str) -> None:
    with refused(code, text):
        check_float(graph)


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"low": float("nan")}, "SD403", "not finite"),
        ({"high": float("inf")}, "SD403", "not finite"),
        ({"mean": np.array([np.nan])}, "SD403", "not finite"),
        ({"std": np.array([np.inf])}, "SD403", "not finite"),
        ({"scale": float("nan")}, "SD403", "not finite"),
        ({"mean": np.zeros(3)}, "SD408", "mean and std"),
        ({"mean": np.array(0.0)}, "SD408", "mean and std"),
        ({"std": np.ones((1, 1))}, "SD408", "mean and std"),
        ({"std": np.zeros(1)}, "SD408", "std > 0"),
        ({"low": 2.0}, "SD408", "std > 0"),
        ({"scale": None}, "SD408", "need a scale"),
        ({"scale": 0.0}, "SD408", "need a scale"),
        ({"scale": 1 / 256}, "SD202", "quantized values reach 256, the format has 255"),
        ({"scale": 1 / 255, "low": -1.0}, "SD202", "reach 255, the format has 127"),
        ({"scale": 1e-300}, "SD202", "quantized values reach"),
    ],
)
def test_input_refusals(change: dict[str, Any], code: str, text: str) -> None:
    with refused(code, text):
        check_integer(integer_graph(spec=replace(VALUES, **change)))


@pytest.mark.parametrize("shape", [(2, 2), (1, 2, 2, 1)])
def test_input_shape(shape: tuple[int, ...]) -> None:
    with refused("SD408", "an input of shape"):
        check_float(float_graph(spec=spike_input(*shape)))


LOIHI: dict[str, Any] = {"number_format": LOIHI2}
# What is constant over time the host multiplies; what changes the chip does, by its own weights.
HOST: dict[str, Any] = {**LOIHI, "spec": replace(VALUES, kind="constant")}
GRADED: dict[str, Any] = {**LOIHI, "spec": VALUES}
COARSE = replace(GENERIC, weight_exponent_max=2, delay_max=5, first_layer_weight_bits=4)


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"weight": 1.0}, "SD408", "weights must be integers"),
        ({"weight": 128}, "SD202", "do not lie on the target's grid"),
        ({"weight": -128}, "SD202", "do not lie on the target's grid"),
        ({"weight": 3, **LOIHI}, "SD202", "multiples of 2"),
        ({"weight": 256, **LOIHI}, "SD202", r"\[-256, 254\]"),
        ({"weight": -258, **LOIHI}, "SD202", r"\[-256, 254\]"),
        ({"weight": 128, "spec": VALUES}, "SD202", r"\[-127, 127\]"),
        ({"weight": -32768, **HOST}, "SD202", r"\[-32767, 32767\]"),
        ({"weight": 3, **GRADED}, "SD202", "multiples of 2"),
        ({"weight": 256, **GRADED}, "SD202", r"\[-256, 254\]"),
        ({"exponent": -1, "weight": 2, **GRADED}, "SD202", r"outside \[0, 0\]"),
        ({"exponent": 3, "spec": VALUES, "number_format": COARSE}, "SD202", r"outside \[0, 2\]"),
        ({"sum_bits": 16, **HOST}, "SD408", "a sum on the host has no register"),
        ({"delay": 6, "number_format": COARSE}, "SD202", "6 timesteps, the target has 5"),
        (
            {"delay": np.array([[0, 1, 6, 5]]), "number_format": COARSE},
            "SD202",
            "6 timesteps, the target has 5",
        ),
        ({"delay": 63, "weight": 2, **LOIHI}, "SD202", "63 timesteps, the target has 62"),
        ({"exponent": 1}, "SD202", r"outside \[0, 0\]"),
        ({"exponent": -1, "weight": 2, **LOIHI}, "SD202", r"outside \[0, 0\]"),
        ({"exponent": -1, "spec": VALUES}, "SD202", r"outside \[0, 0\]"),
        ({"exponent": 1, **HOST}, "SD202", r"outside \[-62, 0\]"),
        ({"exponent": -63, **HOST}, "SD202", r"outside \[-62, 0\]"),
        ({"scale": None}, "SD408", "needs a scale"),
        ({"scale": 0.0}, "SD408", "needs a scale"),
        ({"scale": float("inf")}, "SD408", "needs a scale"),
    ],
)
def test_projection_and_scale_refusals(change: dict[str, Any], code: str, text: str) -> None:
    with refused(code, text):
        check_integer(integer_graph(**change))


@pytest.mark.parametrize(
    ("neurons", "number_format", "code", "text"),
    [
        (float_lif(), GENERIC, "SD408", "decay must be integers"),
        (lif(bias=[1, 2]), GENERIC, "SD408", "bias of shape"),
        (lif(threshold=[[1, 2, 3]]), GENERIC, "SD408", "threshold of shape"),
        (lif(decay=4097), GENERIC, "SD202", "decay outside"),
        (lif(decay=-1), GENERIC, "SD202", "decay outside"),
        (lif(current_decay=integers(4097)), GENERIC, "SD202", "a current_decay outside"),
        (lif(current_decay=integers(-1)), GENERIC, "SD202", "a current_decay outside"),
        (lif(current_decay=integers([1, 2])), GENERIC, "SD408", "current_decay of shape"),
        (lif(current_decay=np.array(0.5)), GENERIC, "SD408", "current_decay must be integers"),
        (lif(current_decay=integers(0)), NO_CURRENT, "SD202", "no synaptic current"),
        (
            Integrator(decay=integers(0), bias=integers(0), current_decay=integers(0)),
            NO_CURRENT,
            "SD202",
            "no synaptic current",
        ),
        (lif(decay=32), SHIFTED, "SD202", "a decay outside"),
        (lif(bias=1 << 31), GENERIC, "SD202", "exceeds 32 bits"),
        (lif(bias=-(1 << 63)), GENERIC, "SD202", "exceeds 32 bits"),
        (lif(bias=[0, 0, -4096]), LOIHI2, "SD202", "exceeds 13 bits"),
        (Integrator(decay=integers(0), bias=integers(4096)), LOIHI2, "SD202", "exceeds 13 bits"),
        (lif(threshold=[1, 1, 1]), LOIHI2, "SD202", "one threshold per population"),
        (lif(threshold=1 << 17), LOIHI2, "SD202", "threshold outside"),
        (lif(threshold=-1), GENERIC, "SD202", "threshold outside"),
        (lif(reset=ResetSubtract(1)), LOIHI2, "SD202", "no reset by subtraction"),
        (lif(reset=ResetTo(1)), LOIHI2, "SD202", "resets to zero only"),
        (lif(reset=ResetTo(1 << 31)), GENERIC, "SD202", "reset outside"),
        (lif(reset=ResetSubtract(1.5)), GENERIC, "SD202", "reset outside"),
        (lif(reset=ResetSubtract(0)), GENERIC, "SD202", "reset outside"),
        (lif(reset=ResetSubtract(-1)), GENERIC, "SD202", "reset outside"),
        (lif(reset=ResetTo(float("nan"))), GENERIC, "SD202", "reset outside"),
        (lif(reset=ResetTo(float("inf"))), GENERIC, "SD202", "reset outside"),
    ],
)
def test_neuron_refusals(
    neurons: LIF | Integrator, number_format: NumberFormat, code: str, text: str
) -> None:
    with refused(code, text):
        check_integer(integer_graph(neurons, number_format=number_format, weight=2))


def test_how_often_a_neuron_may_fire() -> None:
    graph = integer_graph(lif(reset=ResetSubtract(1)), number_format=replace(GENERIC, spikes_max=3))
    (population,) = graph.populations
    check_integer(replace(graph, populations=(replace(population, max_spikes=3),)))
    with refused("SD202", "up to 4 times per timestep, the target's 3"):
        check_integer(replace(graph, populations=(replace(population, max_spikes=4),)))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"word_bits": 31}, "at least `membrane_bits`"),
        ({"decay_rule": "shift"}, "`decay_rule` = 'shift' must be multiply_truncate or"),
        ({"current_overflow": "clip"}, "`current_overflow` = 'clip' must be saturate or wrap"),
        ({"spikes_max": 256}, r"not in \[1, 255\]"),
        ({"weight_min": -(1 << 31) - 1}, "span zero within 32 bits"),
        ({"weight_max": 1 << 31}, "span zero within 32 bits"),
    ],
)
def test_faulty_formats(change: dict[str, Any], text: str) -> None:
    with refused("SD408", f"{text}(.|\n)*--> number format"):
        check_integer(integer_graph(number_format=replace(GENERIC, **change)))


def test_an_integer_graph_needs_a_format() -> None:
    with refused("SD408", "needs a number format"):
        check_integer(float_graph())


def test_a_grid_wider_than_the_type_of_the_weights() -> None:
    """Mantissas may come in any integer type that holds them."""
    coarse = replace(GENERIC, weight_min=-1024, weight_max=1024, weight_step=256)
    check_integer(integer_graph(number_format=coarse, weight=np.int8(0)))
    with refused("SD202", "multiples of 256"):
        check_integer(integer_graph(number_format=coarse, weight=np.int8(1)))


def test_weights_that_int64_does_not_hold() -> None:
    """Their lower 63 bits would lie on the grid."""
    check_integer(integer_graph(weight=np.uint64(127)))
    with refused("SD202", "weights from 18446744073709551488"):
        check_integer(integer_graph(weight=np.uint64((1 << 64) - 128)))


def test_edges_of_every_range_are_legal() -> None:
    weight = np.array([[-256, 254, 0, 2]] * 3)
    graph = one_layer(
        Dense(weight),
        spike_input(4),
        lif(decay=[0, 4096, 1], threshold=131_071, bias=[-4095, 0, 4095]),
        number_format=LOIHI2,
    )
    check_integer(graph)
    limit = GENERIC.membrane_limit
    neurons = lif(threshold=[0, 1, limit], bias=[-limit, 0, limit], reset=ResetSubtract(limit))
    check_integer(integer_graph(neurons))
    check_integer(integer_graph(replace(neurons, reset=ResetTo(-limit))))
    check_integer(integer_graph(spec=replace(VALUES, scale=1 / 255), weight=-127))
    check_integer(integer_graph(spec=replace(VALUES, low=-1.0, scale=1 / 127)))
    check_integer(integer_graph(**HOST, weight=32_767, exponent=-62))
    check_integer(integer_graph(**GRADED, weight=-256))
    check_integer(integer_graph(spec=VALUES, number_format=COARSE, weight=127, exponent=2))
    check_integer(integer_graph(number_format=COARSE, delay=np.array([[0], [5], [1]]), sum_bits=1))
    check_integer(integer_graph(lif(31, current_decay=integers(31)), number_format=SHIFTED))
    check_integer(integer_graph(lif(4096, current_decay=integers([0, 4096, 1]))))
    check_integer(integer_graph(number_format=FOREIGN, weight=-(1 << 31)))
    check_integer(integer_graph(number_format=replace(GENERIC, word_bits=32)))


def test_parameters_per_channel_and_per_neuron() -> None:
    kernel = Conv2d(np.ones((2, 1, 1, 1)))
    for shape in ((), (2, 1, 1), (2, 3, 4)):
        neurons = float_lif(bias=np.zeros(shape), decay=np.ones(shape), threshold=np.ones(shape))
        check_float(one_layer(kernel, spike_input(1, 3, 4), neurons, number_format=None))
    for wrong in ((1, 1, 1), (2,), (1, 3, 4)):
        neurons = float_lif(bias=np.zeros(wrong))
        with refused("SD408", "bias of shape"):
            check_float(one_layer(kernel, spike_input(1, 3, 4), neurons, number_format=None))


def test_where_names_the_place() -> None:
    with refused("SD202", "--> p"):
        check_integer(integer_graph(lif(decay=5000)))
    with refused("SD202", "--> in->p"):
        check_integer(integer_graph(weight=1000))
