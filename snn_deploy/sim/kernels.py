"""Compiled kernels of the event engine: gather the weights of active inputs, update the neurons.

Layout: a population of (C, H, W) has P = H*W pixels of C channels; its spikes are bit-packed, 64
channels to a uint64 word, as [samples, steps, P, ceil(C / 64)].
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic


def _count_trailing_zeros(typing_context: Any, word: Any) -> Any:
    """Index of the lowest set bit of a uint64 that is not zero, as one instruction."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zero_is_undefined = ir.Constant(ir.IntType(1), 1)
        return builder.cttz(arguments[0], zero_is_undefined)

    return types.uint64(types.uint64), generate


_trailing_zeros: Any = intrinsic(_count_trailing_zeros)


@njit(cache=True, nogil=True)
def accumulate_spikes(
    words: Any,  # uint64 [samples, steps, source pixels, words]
    first: int,
    last: int,
    delay: int,
    starts: Any,  # int64 [target pixels + 1]
    pixels: Any,  # int32 [entries]: source pixel
    taps: Any,  # int32 [entries]: kernel position
    weights: Any,  # [taps, source channels, target channels per group]
    channels_per_group: int,
    current: Any,  # int32 or int64 [samples, steps, target pixels, target channels], added to
    events: Any,  # int64 [samples], added to
) -> None:
    """Add the weights of all spikes that arrive in steps ``first`` to ``last``."""
    width = weights.shape[2]
    for sample in range(words.shape[0]):
        count = 0
        for step in range(max(first, delay), last):
            for target in range(starts.shape[0] - 1):
                total = current[sample, step, target]
                for entry in range(starts[target], starts[target + 1]):
                    tap = taps[entry]
                    row = words[sample, step - delay, pixels[entry]]
                    for index in range(row.shape[0]):
                        word = row[index]
                        while word != np.uint64(0):
                            channel = index * 64 + np.int64(_trailing_zeros(word))
                            word &= word - np.uint64(1)
                            base = (channel // channels_per_group) * width
                            # plain slices: an index that may wrap around would not vectorise
                            targets = total[base : base + width]
                            weight = weights[tap, channel]
                            for out in range(width):
                                targets[out] += weight[out]
                            count += width
        events[sample] += count


@njit(cache=True, nogil=True)
def accumulate_values(
    values: Any,  # int64 [samples, steps or 1, source pixels, source channels]
    starts: Any,
    pixels: Any,
    taps: Any,
    weights: Any,
    channels_per_group: int,
    total: Any,  # int64 [samples, steps or 1, target pixels, target channels], added to
    products: Any,  # int64 [samples, steps or 1], added to
) -> None:
    """Add weight times value; count the products whose value is not zero."""
    width = weights.shape[2]
    for sample in range(values.shape[0]):
        for step in range(values.shape[1]):
            count = 0
            for target in range(starts.shape[0] - 1):
                for entry in range(starts[target], starts[target + 1]):
                    for channel in range(values.shape[3]):
                        value = values[sample, step, pixels[entry], channel]
                        if value == 0:
                            continue
                        base = (channel // channels_per_group) * width
                        for out in range(width):
                            weight = np.int64(weights[taps[entry], channel, out])
                            total[sample, step, target, base + out] += weight * value
                        count += width
            products[sample, step] += count


@njit(cache=True, nogil=True)
def update_neurons(
    current: Any,  # int32 or int64 [samples, steps, P, C]: sums in weight units
    host: Any,  # int64 [samples, steps or 1, P, C]: bias mantissas set by the host
    first: int,
    last: int,
    fraction_bits: int,
    wrap_half: int,
    bias: Any,  # int64 [P, C]: mantissas
    bias_shift: int,
    decay: Any,  # int64 [P, C]
    decay_bits: int,
    limit: int,
    threshold: Any,  # int64 [P, C], membrane units: a neuron fires above it
    subtracts: bool,
    reset: int,
    membrane: Any,  # int64 [samples, P, C], state
    words: Any,  # uint64 [samples, steps, P, words], written
    spikes: Any,  # int64 [P, C], added to
    sample_spikes: Any,  # int64 [samples], added to
    updates: Any,  # int64 [samples], added to
    membrane_trace: Any,  # int64 [samples, steps, P, C], or empty
    current_trace: Any,  # the same
) -> None:
    """Decay, integrate, limit, compare, reset, pack: the rules of numerics.py, once per step."""
    traced = membrane_trace.shape[0] > 0
    for sample in range(current.shape[0]):
        fired_in_sample = 0
        changed = 0
        for step in range(first, last):
            host_step = step if host.shape[1] > 1 else 0
            for pixel in range(current.shape[2]):
                for channel in range(current.shape[3]):
                    arriving = np.int64(current[sample, step, pixel, channel]) << fraction_bits
                    if arriving > wrap_half:
                        arriving -= 2 * wrap_half
                    elif arriving <= -wrap_half:
                        arriving += 2 * wrap_half
                    before = membrane[sample, pixel, channel]
                    kept = (abs(before) * decay[pixel, channel]) >> decay_bits
                    if before < 0:
                        kept = -kept
                    mantissa = bias[pixel, channel] + host[sample, host_step, pixel, channel]
                    after = kept + arriving + (mantissa << bias_shift)
                    after = min(max(after, -limit), limit)
                    fires = after > threshold[pixel, channel]
                    if fires:
                        after = after - reset if subtracts else reset
                        words[sample, step, pixel, channel >> 6] |= np.uint64(1) << np.uint64(
                            channel & 63
                        )
                        spikes[pixel, channel] += 1
                        fired_in_sample += 1
                    if fires or after != before:
                        changed += 1
                    membrane[sample, pixel, channel] = after
                    if traced:
                        membrane_trace[sample, step, pixel, channel] = after
                        current_trace[sample, step, pixel, channel] = arriving
        sample_spikes[sample] += fired_in_sample
        updates[sample] += changed
