"""How the event engine stores spikes: by pixel, then channel, 64 channels to a word."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.sim.cached import Kernel
from snn_deploy.synapses import as_map

Array = NDArray[Any]


@Kernel
def _add_bits(values: Any, words: Any) -> None:
    """0/1 uint8 [rows, channels, pixels] into uint64 [rows, pixels, words]."""
    for row in range(values.shape[0]):
        for channel in range(values.shape[1]):
            index, place = channel >> 6, np.uint64(channel & 63)
            for pixel in range(values.shape[2]):
                words[row, pixel, index] |= np.uint64(values[row, channel, pixel] != 0) << place


def pack(spikes: Array) -> NDArray[np.uint64]:
    """0/1 [samples, steps, *shape] to words [samples, steps, pixels, ceil(channels / 64)]."""
    lead = spikes.shape[:2]
    channels, height, width = as_map(spikes.shape[2:])
    pixels, number = height * width, -(-channels // 64)
    rows = spikes.astype(np.uint8, copy=False).reshape(math.prod(lead), channels, pixels)
    if pixels == 1:  # bits of a word follow each other already
        packed = np.packbits(rows[:, :, 0], axis=1, bitorder="little")
        padded = np.zeros((len(rows), 8 * number), np.uint8)
        padded[:, : packed.shape[1]] = packed
        words = padded.view("<u8").astype(np.uint64, copy=False)
    else:
        words = np.zeros((len(rows), pixels, number), np.uint64)
        _add_bits(np.ascontiguousarray(rows), words)
    return words.reshape(*lead, pixels, number)


def count(spikes: Array) -> NDArray[np.int64]:
    """How often each element of 0/1 uint8 [samples, steps, *shape] is one: int64 [*shape]."""
    rows = spikes.reshape(-1, *spikes.shape[2:])
    total = np.zeros(rows.shape[1:], np.int64)
    for first in range(0, len(rows), 255):  # as many as uint8 can count
        total += np.add.reduce(rows[first : first + 255], axis=0, dtype=np.uint8)
    return total


@Kernel
def _count_bits(words: Any, counts: Any) -> None:
    """Ones of uint64 [samples, steps, pixels, words] over steps: int64 [samples, pixels, C]."""
    for sample in range(words.shape[0]):
        for step in range(words.shape[1]):
            for pixel in range(words.shape[2]):
                total = counts[sample, pixel]
                for index in range(words.shape[3]):
                    word, base = words[sample, step, pixel, index], index * 64
                    for place in range(min(64, total.shape[0] - base)):
                        total[base + place] += np.int64((word >> np.uint64(place)) & np.uint64(1))


def spike_counts(words: NDArray[np.uint64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Spikes of every neuron over time, int64 [samples, *shape]; words as :func:`pack` makes."""
    counts = np.zeros((len(words), words.shape[2], shape[0]), np.int64)
    _count_bits(np.ascontiguousarray(words), counts)
    return channels_first(counts, shape)


def unpack(words: NDArray[np.uint64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The inverse of :func:`pack`: bool [samples, steps, *shape]."""
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), axis=3, bitorder="little")
    return channels_first(bits[..., : shape[0]].astype(bool), shape)


def channels_first(pixels: Array, shape: tuple[int, ...]) -> Array:
    """[..., pixels, channels] to [..., *shape]."""
    return np.ascontiguousarray(np.swapaxes(pixels, -1, -2)).reshape(*pixels.shape[:-2], *shape)


def by_pixel(values: Array, shape: tuple[int, ...]) -> Array:
    """[..., *shape] to contiguous [..., pixels, channels]."""
    lead = values.shape[: values.ndim - len(shape)]
    channels, height, width = as_map(shape)
    rows = values.reshape(*lead, channels, height * width)
    return np.ascontiguousarray(np.swapaxes(rows, -1, -2))
