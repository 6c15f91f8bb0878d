"""Compiled kernels of the event engine: gather the weights of active inputs, update the neurons.

Layout: a population of (C, H, W) has P = H*W pixels of C channels; its spikes are bit-packed, 64
channels to a uint64 word, as [samples, steps, P, ceil(C / 64)].
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from snn_deploy.sim.cached import Kernel
from snn_deploy.sim.vectors import trailing_zeros


@Kernel
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
    current: Any,  # int32 or int64 [samples, steps from ``first`` on, pixels, channels], added to
    events: Any,  # int64 [samples], added to
) -> None:
    """Add the weights of all spikes that arrive in steps ``first`` to ``last``."""
    width = weights.shape[2]
    for sample in range(words.shape[0]):
        count = 0
        for step in range(max(first, delay), last):
            for target in range(starts.shape[0] - 1):
                total = current[sample, step - first, target]
                for entry in range(starts[target], starts[target + 1]):
                    tap = taps[entry]
                    row = words[sample, step - delay, pixels[entry]]
                    for index in range(row.shape[0]):
                        word = row[index]
                        while word != np.uint64(0):
                            channel = index * 64 + np.int64(trailing_zeros(word))
                            word &= word - np.uint64(1)
                            base = (channel // channels_per_group) * width
                            # plain slices: an index that may wrap around would not vectorise
                            targets = total[base : base + width]
                            weight = weights[tap, channel]
                            for out in range(width):
                                targets[out] += weight[out]
                            count += width
        events[sample] += count


@Kernel
def accumulate_values(
    values: Any,  # integers [samples, steps, source pixels, source channels]
    first: int,
    last: int,
    delay: int,
    starts: Any,
    pixels: Any,
    taps: Any,
    weights: Any,
    channels_per_group: int,
    current: Any,  # int32 or int64 [samples, steps from ``first`` on, pixels, channels], added to
    events: Any,  # int64 [samples], added to
    count_value: bool,  # a value of n is n events (spikes), not one (a product)
) -> None:
    """Add weight times value of all that arrives in steps ``first`` to ``last``."""
    width = weights.shape[2]
    for sample in range(values.shape[0]):
        count = 0
        for step in range(max(first, delay), last):
            for target in range(starts.shape[0] - 1):
                total = current[sample, step - first, target]
                for entry in range(starts[target], starts[target + 1]):
                    for channel in range(values.shape[3]):
                        value = np.int64(values[sample, step - delay, pixels[entry], channel])
                        if value == 0:
                            continue
                        base = (channel // channels_per_group) * width
                        targets = total[base : base + width]
                        weight = weights[taps[entry], channel]
                        for out in range(width):
                            targets[out] += np.int64(weight[out]) * value
                        count += width * value if count_value else width
        events[sample] += count


@Kernel
def accumulate_delayed(
    values: Any,  # integers [samples, steps, source pixels, source channels]
    first: int,
    last: int,
    delays: Any,  # int64 [distinct delays]
    starts: Any,  # int64 [distinct delays, source neurons + 1]
    targets: Any,  # int32 [synapses]: target neuron
    weights: Any,  # int64 [synapses]
    current: Any,  # int64 [samples, steps from ``first`` on, 1, target neurons], added to
    events: Any,  # int64 [samples], added to
    count_value: bool,
) -> None:
    """Add weight times value through synapses that each have a delay of their own."""
    channels = values.shape[3]
    for sample in range(values.shape[0]):
        count = 0
        for row in range(delays.shape[0]):
            for step in range(max(first, delays[row]), last):
                total = current[sample, step - first, 0]
                for source in range(starts.shape[1] - 1):
                    sent = values[sample, step - delays[row], source // channels, source % channels]
                    value = np.int64(sent)
                    if value == 0:
                        continue
                    begin, end = starts[row, source], starts[row, source + 1]
                    for synapse in range(begin, end):
                        total[targets[synapse]] += weights[synapse] * value
                    count += (end - begin) * value if count_value else end - begin
        events[sample] += count


# The rules of numerics.py by number, as a kernel is told them.
DECAY_RULES = {"multiply_truncate": 0, "multiply_floor": 1, "shift_subtract": 2}
OVERFLOW_RULES = {"saturate": 0, "wrap": 1, "wrap_once": 2}


@njit(nogil=True, inline="always")
def _decayed(value: Any, decay: Any, rule: int, bits: int) -> Any:
    if rule == 0:
        kept = (abs(value) * decay) >> bits
        return -kept if value < 0 else kept
    if rule == 1:
        return (value * decay) >> bits
    left = value - (value >> decay)
    if left == value:
        left -= (value > 0) - (value < 0)
    return left


@njit(nogil=True, inline="always")
def _limited(value: Any, spare: int, rule: int, half: int) -> Any:
    """The word that adds up (of 64 - ``spare`` bits), then the register of +-``half``."""
    value = (value << spare) >> spare
    if rule == 0:
        return min(max(value, 1 - half), half - 1)
    if rule == 1:
        return ((value + half) & (2 * half - 1)) - half
    if value > half:
        return value - 2 * half
    return value + 2 * half if value <= -half else value


@Kernel
def update_neurons(
    current: Any,  # int32 or int64 [samples, steps from ``first`` on, P, C]: in weight units
    host: Any,  # int64 [samples, windows, P, C]: bias mantissas set by the host
    windows: Any,  # int64 [steps]
    resets: Any,  # bool [steps]: whether all neurons are cleared before a step
    first: int,
    last: int,
    fraction_bits: int,
    spare_bits: int,
    half: int,
    current_overflow: int,
    membrane_overflow: int,
    decay_rule: int,
    decay_bits: int,
    biases: Any,  # int64 [P or 1, C]: mantissas
    bias_shift: int,
    decays: Any,  # int64 [P or 1, C]
    current_decays: Any,  # int64 [P or 1, C], or empty: the current has no memory
    thresholds: Any,  # int64 [P or 1, C], membrane units: a neuron fires above it
    subtracts: bool,
    reset: int,
    max_spikes: int,
    membrane: Any,  # int64 [samples, P, C], state
    memory: Any,  # int64 [samples, P, C] or empty, state: the synaptic current
    words: Any,  # uint64 [samples, steps, P, words], written
    sent: Any,  # uint8 [samples, steps, P, C] or empty, written: spikes as numbers
    spikes: Any,  # int64 [P, C], added to
    sample_spikes: Any,  # int64 [samples], added to
    updates: Any,  # int64 [samples], added to
    membrane_trace: Any,  # int64 [samples, steps, P, C], or empty
    current_trace: Any,  # the same
) -> None:
    """Decay, integrate, limit, compare, reset, pack: the rules of numerics.py, once per step."""
    traced = membrane_trace.shape[0] > 0
    remembers = current_decays.shape[0] > 0
    for sample in range(current.shape[0]):
        fired_in_sample = 0
        changed = 0
        for step in range(first, last):
            cleared = resets[step]
            for pixel in range(current.shape[2]):
                bias = biases[min(pixel, biases.shape[0] - 1)]
                decay = decays[min(pixel, decays.shape[0] - 1)]
                threshold = thresholds[min(pixel, thresholds.shape[0] - 1)]
                for channel in range(current.shape[3]):
                    before = 0 if cleared else membrane[sample, pixel, channel]
                    sums = np.int64(current[sample, step - first, pixel, channel])
                    arriving = sums << fraction_bits
                    if remembers and not cleared:
                        arriving += _decayed(
                            memory[sample, pixel, channel],
                            current_decays[min(pixel, current_decays.shape[0] - 1), channel],
                            decay_rule,
                            decay_bits,
                        )
                    arriving = _limited(arriving, spare_bits, current_overflow, half)
                    if remembers:
                        memory[sample, pixel, channel] = arriving
                    kept = _decayed(before, decay[channel], decay_rule, decay_bits)
                    mantissa = bias[channel] + host[sample, windows[step], pixel, channel]
                    after = kept + arriving + (mantissa << bias_shift)
                    after = _limited(after, spare_bits, membrane_overflow, half)
                    above = after - threshold[channel]
                    fires = 0
                    if above > 0:
                        fires = 1
                        if max_spikes > 1:
                            fires = min((above - 1) // reset + 1, max_spikes)
                        after = after - fires * reset if subtracts else reset
                        words[sample, step, pixel, channel >> 6] |= np.uint64(1) << np.uint64(
                            channel & 63
                        )
                        if sent.shape[0] > 0:
                            sent[sample, step, pixel, channel] = fires
                        spikes[pixel, channel] += fires
                        fired_in_sample += fires
                    if fires > 0 or after != before:
                        changed += 1
                    membrane[sample, pixel, channel] = after
                    if traced:
                        membrane_trace[sample, step, pixel, channel] = after
                        current_trace[sample, step, pixel, channel] = arriving
        sample_spikes[sample] += fired_in_sample
        updates[sample] += changed
