"""What makes a graph legal at each stage, beyond what :class:`snn_deploy.graph.Graph` itself holds.

``check_float``: float64 everywhere, finite, parameters broadcastable. ``check_integer``: mantissas
on the target's grid and inside its widths. Both raise :class:`SnnDeployError` naming the place.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import (
    LIF,
    Graph,
    InputSpec,
    Integrator,
    Population,
    Projection,
    ResetTo,
)
from snn_deploy.numerics import NumberFormat
from snn_deploy.synapses import Shape


def check_float(graph: Graph) -> None:
    """Raise unless ``graph`` is a well-formed float graph."""
    if graph.number_format is not None:
        raise SnnDeployError("SD408", "a float graph carries no number format")
    for spec in graph.inputs:
        _check_input(spec)
        if spec.scale is not None:
            raise SnnDeployError("SD408", "a float graph's input is not quantized", where=spec.name)
    for projection in graph.projections:
        _require_finite(projection.synapses.weight, projection.name, "weights", np.float64)
        if projection.exponent != 0:
            raise SnnDeployError(
                "SD408", "a float graph's weights have no exponent", where=projection.name
            )
        if projection.sum_bits is not None:
            raise SnnDeployError(
                "SD408", "a float graph's sums have no register", where=projection.name
            )
    for population in graph.populations:
        for name, value in parameters(population).items():
            _require_finite(value, population.name, name, np.float64)
            _require_broadcastable(value, population.shape, population.name, name)
        _check_float_reset(population)
        for name, decay in decays(population).items():
            if decay.min() < 0 or decay.max() > 1:
                raise SnnDeployError(
                    "SD408", f"a {name} lies outside [0, 1]", where=population.name
                )


def _check_float_reset(population: Population) -> None:
    if not isinstance(population.neurons, LIF):
        return
    reset = population.neurons.reset
    amount = reset.value if isinstance(reset, ResetTo) else reset.amount
    if not np.isfinite(amount):
        raise SnnDeployError("SD403", "a reset is not finite", where=population.name)
    if not isinstance(reset, ResetTo) and amount <= 0:
        raise SnnDeployError("SD408", "a reset must subtract more than 0", where=population.name)


def check_integer(graph: Graph) -> None:
    """Raise unless ``graph`` obeys its number format: grid, widths, granularity, resets."""
    number_format = graph.number_format
    if number_format is None:
        raise SnnDeployError("SD408", "an integer graph needs a number format")
    fault = format_fault(number_format)
    if fault is not None:
        raise SnnDeployError("SD408", fault, where="number format")
    for spec in graph.inputs:
        _check_input(spec)
        if spec.kind != "spikes":
            _check_quantized_input(spec, number_format)
    for projection in graph.projections:
        _check_weights(graph, projection, number_format)
    for population in graph.populations:
        _check_neurons(population, number_format)


_WIDTHS = {
    "fraction_bits": (0, 16),
    "membrane_bits": (8, 32),
    "word_bits": (8, 64),
    "decay_bits": (1, 12),
    "threshold_bits": (1, 31),
    "threshold_shift": (0, 16),
    "bias_bits": (2, 32),
    "bias_shift": (0, 16),
    "first_layer_weight_bits": (2, 16),
    "input_bits": (1, 31),
    "weight_exponent_max": (0, 16),
    "weight_step": (1, 256),
    "spikes_max": (1, 255),
    "delay_max": (0, 1 << 20),
    "hop_delay": (0, 1),
}


def format_fault(number_format: NumberFormat) -> str | None:
    """What is wrong with a number format: types, allowed words, widths; None if nothing is."""
    hints = get_type_hints(NumberFormat)
    for field in fields(NumberFormat):
        value, hint = getattr(number_format, field.name), hints[field.name]
        words = get_args(hint)
        if words and value not in words:
            return f"`{field.name}` = {value!r} must be {' or '.join(words)}"
        if not words and type(value) is not hint:
            return f"`{field.name}` = {value!r} must be of type {hint.__name__}"
    for name, (low, high) in _WIDTHS.items():
        value = getattr(number_format, name)
        if not low <= value <= high:
            return f"`{name}` = {value} is not in [{low}, {high}]"
    if not -(1 << 31) <= number_format.weight_min < 0 < number_format.weight_max < 1 << 31:
        return "weights must span zero within 32 bits"
    if number_format.word_bits < number_format.membrane_bits:
        return "`word_bits` must be at least `membrane_bits`"
    return None


def decays(population: Population) -> dict[str, NDArray[Any]]:
    """The decays of a population's neurons, by name."""
    neurons = population.neurons
    found = {"decay": neurons.decay}
    if neurons.current_decay is not None:
        found["current_decay"] = neurons.current_decay
    return found


def parameters(population: Population) -> dict[str, NDArray[Any]]:
    """The array parameters of a population's neurons, by name."""
    neurons = population.neurons
    found = {**decays(population), "bias": neurons.bias}
    if isinstance(neurons, LIF):
        found["threshold"] = neurons.threshold
    return found


def _require_finite(value: NDArray[Any], where: str, what: str, dtype: type) -> None:
    if value.dtype != dtype:
        raise SnnDeployError(
            "SD408", f"{what} must be {np.dtype(dtype)}, not {value.dtype}", where=where
        )
    if not np.isfinite(value).all():
        raise SnnDeployError(
            "SD403",
            f"{what} hold NaN or infinity",
            where=where,
            fix="train again, or restore an earlier checkpoint: the network has diverged",
        )


def _require_broadcastable(value: NDArray[Any], shape: Shape, where: str, what: str) -> None:
    per_channel = (shape[0], *([1] * (len(shape) - 1)))
    if value.shape not in ((), per_channel, shape):
        raise SnnDeployError(
            "SD408",
            f"{what} of shape {value.shape} fits neither one value, {per_channel} nor {shape}",
            where=where,
        )


def _check_input(spec: InputSpec) -> None:
    if len(spec.shape) not in (1, 3) or min(spec.shape) < 1:
        raise SnnDeployError("SD408", f"an input of shape {spec.shape}", where=spec.name)
    for value in (spec.mean, spec.std):
        if value.shape not in ((1,), (spec.shape[0],)):
            raise SnnDeployError(
                "SD408", "mean and std are one number, or one per channel", where=spec.name
            )
    numbers = [spec.low, spec.high, *spec.mean.tolist(), *spec.std.tolist()]
    if spec.scale is not None:
        numbers.append(spec.scale)
    if not np.isfinite(numbers).all():
        raise SnnDeployError("SD403", "input range or normalisation is not finite", where=spec.name)
    if spec.std.min() <= 0 or spec.low > spec.high:
        raise SnnDeployError(
            "SD408", "an input needs std > 0 and a range from low to high", where=spec.name
        )


def _check_quantized_input(spec: InputSpec, number_format: NumberFormat) -> None:
    if spec.scale is None or spec.scale <= 0:
        raise SnnDeployError("SD408", "an integer graph's values need a scale > 0", where=spec.name)
    bounds = [spec.normalise(np.full(spec.shape, v)) / spec.scale for v in (spec.low, spec.high)]
    least, most = float(np.rint(bounds[0].min())), float(np.rint(bounds[1].max()))
    limit = (1 << (number_format.input_bits - (least < 0))) - 1
    if max(-least, most) > limit:
        raise SnnDeployError(
            "SD202",
            f"quantized values reach {max(-least, most):.0f}, the format has {limit}",
            where=spec.name,
        )


def _require_integer(value: NDArray[Any], where: str, what: str) -> None:
    if not np.issubdtype(value.dtype, np.integer):
        raise SnnDeployError("SD408", f"{what} must be integers, not {value.dtype}", where=where)


def _check_weights(graph: Graph, projection: Projection, number_format: NumberFormat) -> None:
    _require_integer(projection.synapses.weight, projection.name, "weights")
    weight = projection.synapses.weight
    least, most = int(weight.min()), int(weight.max())  # as they are: uint64 may not fit in int64
    if graph.on_host(projection):
        limit = number_format.first_layer_weight_limit
        low, high, step = -limit, limit, 1
        exponents = (-62, 0)
        if projection.sum_bits is not None:
            raise SnnDeployError(
                "SD408", "a sum on the host has no register", where=projection.name
            )
    else:
        low, high = number_format.weight_min, number_format.weight_max
        step = number_format.weight_step
        exponents = (0, number_format.weight_exponent_max)
        if projection.longest_delay > number_format.delay_max:
            raise SnnDeployError(
                "SD202",
                f"a delay of {projection.longest_delay} timesteps, the target has "
                f"{number_format.delay_max}",
                where=projection.name,
                fix="train with shorter delays",
            )
    if least < low or most > high or (weight.astype(np.int64) % step).any():
        raise SnnDeployError(
            "SD202",
            f"weights from {least} to {most} do not lie on the target's grid: "
            f"multiples of {step} in [{low}, {high}]",
            where=projection.name,
        )
    if not exponents[0] <= projection.exponent <= exponents[1]:
        raise SnnDeployError(
            "SD202",
            f"exponent {projection.exponent} lies outside {list(exponents)}",
            where=projection.name,
        )


def _check_scale(population: Population) -> None:
    scale = population.scale
    if scale is None or not (np.isfinite(scale).all() and np.min(scale) > 0):
        raise SnnDeployError("SD408", "a population needs a scale > 0", where=population.name)
    if not isinstance(scale, np.ndarray):
        return
    per_channel = (population.shape[0], *([1] * (len(population.shape) - 1)))
    if scale.dtype != np.float64 or scale.shape != per_channel:
        raise SnnDeployError(
            "SD408",
            f"a scale of shape {scale.shape} and type {scale.dtype} is neither one number nor "
            f"float64 of shape {per_channel}",
            where=population.name,
        )


def _check_neurons(population: Population, number_format: NumberFormat) -> None:
    for name, value in parameters(population).items():
        _require_integer(value, population.name, name)
        _require_broadcastable(value, population.shape, population.name, name)
    neurons = population.neurons
    if population.max_spikes > number_format.spikes_max:
        raise SnnDeployError(
            "SD202",
            f"neurons fire up to {population.max_spikes} times per timestep, the target's "
            f"{number_format.spikes_max}",
            where=population.name,
        )
    if neurons.current_decay is not None and not number_format.synaptic_current:
        raise SnnDeployError(
            "SD202", "the target has no synaptic current with a decay", where=population.name
        )
    _check_scale(population)
    for name, decay in decays(population).items():
        if decay.min() < 0 or decay.max() > number_format.decay_limit:
            raise SnnDeployError("SD202", f"a {name} outside its field", where=population.name)
    limit = number_format.bias_limit
    if neurons.bias.min() < -limit or neurons.bias.max() > limit:
        raise SnnDeployError(
            "SD202",
            f"a bias exceeds {number_format.bias_bits} bits",
            where=population.name,
        )
    if isinstance(neurons, Integrator):
        return
    if number_format.threshold_per_population and neurons.threshold.size != 1:
        raise SnnDeployError(
            "SD202", "the target has one threshold per population", where=population.name
        )
    if neurons.threshold.min() < 0 or neurons.threshold.max() > number_format.threshold_limit:
        raise SnnDeployError("SD202", "a threshold outside its field", where=population.name)
    reset = neurons.reset
    hard = isinstance(reset, ResetTo)
    amount = reset.value if isinstance(reset, ResetTo) else reset.amount
    if not number_format.soft_reset and not (hard and amount == 0):
        what = "resets to zero only" if hard else "has no reset by subtraction"
        raise SnnDeployError("SD202", f"the target {what}", where=population.name)
    least = -number_format.membrane_limit if hard else 1
    if not least <= amount <= number_format.membrane_limit or amount != int(amount):
        raise SnnDeployError("SD202", "a reset outside the membrane's width", where=population.name)
