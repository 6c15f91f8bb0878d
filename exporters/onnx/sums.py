"""Synaptic sums as products of bytes: ConvInteger and MatMulInteger, which add up in 32 bits.

A source is split into parts of at most 7 bits: on some processors products with larger bytes
saturate while they are added in pairs. Spikes are one part. Weights are as many
bytes as they need. A product of every part with every byte is exact; their sum is taken in int64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from snn_deploy.exporters.onnx.emission import INT32, INT64, UINT8, Emitter
from snn_deploy.exporters.onnx.spans import Span
from snn_deploy.exporters.onnx.stored import Digit

from snn_deploy.errors import SnnDeployError
from snn_deploy.synapses import Conv2d, Dense, Shape, SumPool, Synapses

_MOST_PART = 127


@dataclass(frozen=True, slots=True)
class Source:
    """A value that synapses see, [batch, *shape], of ONNX type ``kind``."""

    name: str
    shape: Shape
    span: Span
    kind: int


def pooled(emit: Emitter, source: Source, pool: SumPool, place: str) -> Source:
    """Sums over windows: one kernel of ones per channel."""
    channels = source.shape[0]
    ones = Conv2d(
        np.ones((channels, 1, *pool.kernel), np.uint8), stride=pool.stride, groups=channels
    )
    name = f"{place}/ones"
    emit.stored.tensor(name, ones.weight)
    found = weighted_sum(emit, source, ones, (Digit(name, 0, 0),), 1, f"{place}/pooled")
    size = pool.kernel[0] * pool.kernel[1]
    return Source(found, pool.output_shape(source.shape), source.span.times(size), INT64)


def weighted_sum(
    emit: Emitter,
    source: Source,
    synapses: Synapses,
    digits: tuple[Digit, ...],
    factor: int,
    place: str,
) -> str:
    """``factor`` times the sum over all weights: an int64 value [batch, *target shape]."""
    name, terms = f"{place}/sum", []
    for share, part in _parts(emit, source, _most(synapses, place), place):
        for digit in digits:
            if isinstance(synapses, Dense):
                product = emit.add("MatMulInteger", [_vector(emit, part, source, place),
                                                     digit.tensor], f"{place}/product")  # fmt: skip
            else:
                product = _convolved(emit, part, source, synapses, digit, place)
            wide = emit.cast(product, INT64, name)
            terms.append(emit.scaled(wide, factor * share * 256**digit.place, name))
    return emit.total(terms, name)


def _vector(emit: Emitter, part: str, source: Source, place: str) -> str:
    return part if len(source.shape) == 1 else emit.reshaped(part, (-1,), f"{place}/vector")


def _convolved(
    emit: Emitter, part: str, source: Source, synapses: Conv2d, digit: Digit, place: str
) -> str:
    """A convolution; a vector is a map of one pixel."""
    vector = len(source.shape) == 1
    if vector:
        part = emit.reshaped(part, (source.shape[0], 1, 1), f"{place}/map")
    inputs = [part, digit.tensor]
    if digit.zero:
        inputs += [emit.constant(zero, UINT8) for zero in (0, digit.zero)]
    product = emit.add(
        "ConvInteger", inputs, f"{place}/product",
        dilations=synapses.dilation, group=synapses.groups, strides=synapses.stride,
        kernel_shape=synapses.weight.shape[2:], pads=(*synapses.padding, *synapses.padding),
    )  # fmt: skip
    if vector:
        product = emit.reshaped(product, (len(synapses.weight),), f"{place}/product")
    return product


def _most(synapses: Synapses, place: str) -> int:
    """The largest part whose products with any bytes add up within 32 bits."""
    summed = int(synapses.weight[0].size)
    most = ((1 << 31) - 1) // (255 * summed)
    if most == 0:
        raise SnnDeployError(
            "SD204", "the operators of ONNX add up in 32 bits, too few for these weights",
            where=place, why=f"{summed} weights are summed per neuron",
        )  # fmt: skip
    return min(most, _MOST_PART)


def _parts(emit: Emitter, source: Source, most: int, place: str) -> list[tuple[int, str]]:
    """A source as a sum of (factor, uint8 value of at most ``most``)."""
    name, value, kind = f"{place}/part", source.name, source.kind
    if kind == UINT8 and source.span.high <= most:
        return [(1, value)]
    if kind == UINT8:
        value, kind = emit.cast(value, INT32, name), INT32
    sides = [(1, value, source.span.high)]
    if source.span.low < 0:
        zero, negative = emit.constant(0, kind), emit.add("Neg", [value], name)
        sides = [
            (1, emit.add("Max", [value, zero], name), source.span.high),
            (-1, emit.add("Max", [negative, zero], name), -source.span.low),
        ]
    found = []
    bits = (most + 1).bit_length() - 1
    for sign, side, high in sides:
        if high <= most:
            found.append((sign, emit.cast(side, UINT8, name)))
            continue
        for shift in range(0, high.bit_length(), bits):
            part = side
            if shift:
                part = emit.add("Div", [side, emit.constant(1 << shift, kind)], name)
            if high >> shift >= 1 << bits:
                mask = emit.constant((1 << bits) - 1, kind)
                part = emit.add("BitwiseAnd", [part, mask], name)
            found.append((sign << shift, emit.cast(part, UINT8, name)))
    return found


def delayed_weights(
    emit: Emitter,
    digits: tuple[Digit, ...],
    delays: str,
    values: list[int],
    shape: Shape,
    place: str,
) -> tuple[Digit, ...]:
    """Weights parted by delay, [delays * N_in, N_out]: zero where a synapse has another delay.

    ``delays`` names the delays of the synapses, broadcastable to [N_in, N_out] of ``shape``.
    """
    listed = emit.constant(tuple(values))
    each = emit.add("Reshape", [listed, emit.constant((-1, 1, 1))], f"{place}/delays")
    waits = emit.add("Equal", [delays, each], f"{place}/waits")
    found = []
    for digit in digits:
        name = f"{place}/weight_by_delay"
        kind = emit.stored.tensors[digit.tensor].data_type
        here = emit.cast(waits, INT32, name)
        whole = emit.cast(digit.tensor, INT32, name)
        parted = emit.cast(emit.add("Mul", [here, whole], name), kind, name)
        rows = emit.constant((len(values) * shape[0], shape[1]))
        found.append(Digit(emit.add("Reshape", [parted, rows], name), digit.place, digit.zero))
    return tuple(found)
