"""NIR's nodes without state, each as a linear map and a bias."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from snn_deploy.exporters.nir.file import Node
from snn_deploy.exporters.nir.linear import LinearMap, scaled

from snn_deploy.errors import SnnDeployError
from snn_deploy.synapses import Conv2d, Dense, Pair, Shape, SumPool

Array = NDArray[Any]

# What no network has; shapes of files are not believed beyond it.
MAX_NEURONS = 1 << 31

WINDOWS = ("AvgPool2d", "Conv1d", "Conv2d", "SumPool2d")
LINEAR = ("Affine", "Delay", "Flatten", "Linear", "Scale", *WINDOWS)


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """``y = map(x) + bias``; bias of the map's target shape, or None."""

    map: LinearMap
    bias: NDArray[np.float64] | None = None


def affine(node: Node, shape: Shape, dt: float | None) -> Affine:
    """What a node makes of values of a shape, (C, H, W) or (N,).

    ``dt`` is the length of a timestep in the file's unit of time; only a Delay needs it.

    Raises
    ------
    SnnDeployError
        SD401 and SD403 for parameters, SD204 for what does not fit or is no projection.
    """
    makers = {
        "Affine": _dense,
        "Linear": _dense,
        "Scale": _scale,
        "Conv1d": _conv1d,
        "Conv2d": _conv2d,
        "SumPool2d": _pool,
        "AvgPool2d": _pool,
    }
    if node.kind == "Flatten":  # the order of the neurons stays
        return Affine(LinearMap(shape))
    if node.kind == "Delay":
        return _delay(node, shape, dt)
    found = makers[node.kind](node, shape)
    try:
        target = found.map.target
    except SnnDeployError as error:
        raise node.refuse(f"does not fit its input: {error.message}") from None
    if math.prod(target) > MAX_NEURONS:
        raise node.refuse(f"makes {math.prod(target)} values", code="SD402")
    if found.bias is None:
        return found
    return Affine(found.map, np.broadcast_to(found.bias, target))


def size_of_input(node: Node) -> int | None:
    """Number of values that a node takes, where it says so itself."""
    if node.kind not in ("Affine", "Linear", "Conv2d"):
        return None
    shape = node.array("weight").shape
    if node.kind != "Conv2d":
        return shape[-1] if shape else None
    if len(shape) != 4 or not node.has("input_shape"):
        return None
    rows, columns = node.pair("input_shape", 1)
    return int(shape[1] * node.groups * rows * columns)


def _bias(node: Node, target: Shape) -> NDArray[np.float64] | None:
    """One per output channel, in a shape that goes with the target; None where all are zero."""
    if not node.has("bias"):
        return None
    bias = node.numbers("bias")
    if bias.size not in (1, target[0]):
        raise node.refuse(f"a bias of shape {bias.shape} for an output of shape {target}")
    if not bias.any():
        return None
    return np.asarray(bias.reshape(-1, *[1] * (len(target) - 1)))


def _dense(node: Node, shape: Shape) -> Affine:
    weight = node.numbers("weight")
    if weight.ndim != 2 or weight.shape[1] != int(np.prod(shape)):
        raise node.refuse(f"weights of shape {weight.shape} do not fit an input of shape {shape}")
    return Affine(LinearMap(shape, None, Dense(weight)), _bias(node, (len(weight),)))


def _elements(node: Node, name: str, shape: Shape) -> NDArray[np.float64]:
    """A parameter of one value for all, or of one per neuron, in ``shape``."""
    value = node.numbers(name)
    if value.size == 1:
        return np.broadcast_to(value.reshape(()), shape)
    if value.size != int(np.prod(shape)):
        raise node.refuse(f"`{name}` of shape {value.shape} does not fit {shape}")
    return value.reshape(shape)


def _scale(node: Node, shape: Shape) -> Affine:
    return Affine(scaled(shape, _elements(node, "scale", shape)))


def _delay(node: Node, shape: Shape, dt: float | None) -> Affine:
    delay = _elements(node, "delay", shape)
    if not delay.any():
        return Affine(LinearMap(shape))
    if dt is None:
        raise node.refuse(
            "a delay in seconds, and no timestep", code="SD104", fix="give --dt, in seconds"
        )
    steps = np.rint(delay / dt)
    if (np.abs(delay / dt - steps) > 1e-3).any() or steps.min() < 0 or steps.max() > 1 << 20:
        raise node.refuse(
            f"delays from {delay.min():g} to {delay.max():g} are no multiples of a timestep of "
            f"{dt:g}",
            fix="give the --dt that the network was made for",
        )
    return Affine(LinearMap(shape, delay=steps.astype(np.int64).reshape(1, -1)).simplified())


def _conv1d(node: Node, shape: Shape) -> Affine:
    weight = node.numbers("weight")
    if weight.ndim != 3 or len(shape) != 3 or shape[1] != 1:
        raise node.refuse(f"weights of shape {weight.shape} do not fit an input of shape {shape}")
    stride, dilation = (1, node.one("stride", 1)), (1, node.one("dilation", 1))
    return _convolution(node, shape, weight[:, :, None], stride, dilation)


def _conv2d(node: Node, shape: Shape) -> Affine:
    weight = node.numbers("weight")
    if weight.ndim != 4 or len(shape) != 3:
        raise node.refuse(f"weights of shape {weight.shape} do not fit an input of shape {shape}")
    return _convolution(node, shape, weight, node.pair("stride", 1), node.pair("dilation", 1))


def _convolution(node: Node, shape: Shape, weight: Array, stride: Pair, dilation: Pair) -> Affine:
    said = node.parameters.get("padding")
    if isinstance(said, str) and said not in ("same", "valid"):
        raise node.refuse(f"padding {said[:20]!r}")
    if isinstance(said, str) and said == "same":
        if stride != (1, 1):
            raise node.refuse("padding `same` with a stride")
        weight, padding = _same(node, weight, dilation)
    elif isinstance(said, str):
        padding = (0, 0)
    elif node.kind == "Conv1d":
        padding = (0, node.one("padding", 0))
    else:
        padding = node.pair("padding", 0)
    synapses = Conv2d(weight, stride, padding, dilation, node.groups)
    return Affine(LinearMap(shape, None, synapses), _bias(node, (len(weight), 1, 1)))


def _same(node: Node, weight: Array, dilation: Pair) -> tuple[Array, Pair]:
    """Kernel and padding that keep the size; what is odd is padded below and right.

    There the kernel grows by a row or column of zeros above or left, and all is padded alike.
    """
    around = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    odd = [amount % 2 for amount in around]
    if any(o and d > 1 for o, d in zip(odd, dilation, strict=True)):
        raise node.refuse("padding `same` that is odd, with a dilation")
    wider = np.pad(weight, ((0, 0), (0, 0), (odd[0], 0), (odd[1], 0)))
    return wider, ((around[0] + odd[0]) // 2, (around[1] + odd[1]) // 2)


def _pool(node: Node, shape: Shape) -> Affine:
    """A sum or mean over windows; a padded one is a convolution of ones, channel by channel."""
    if len(shape) != 3:
        raise node.refuse(f"pools maps, not an input of shape {shape}")
    kernel, padding = node.pair("kernel_size", 1), node.pair("padding", 0)
    stride = node.pair("stride", 1) if node.has("stride") else kernel
    if padding == (0, 0):
        one = LinearMap(shape, SumPool(kernel, stride))
    else:
        windows = np.ones((shape[0], 1, *kernel))
        one = LinearMap(shape, None, Conv2d(windows, stride, padding, groups=shape[0]))
    if node.kind == "SumPool2d":
        return Affine(one)
    try:
        mean = scaled(one.target, np.array(1 / (kernel[0] * kernel[1])))
    except SnnDeployError as error:
        raise node.refuse(f"does not fit its input: {error.message}") from None
    return Affine(one.then(mean))
