"""Rules of pools and sums: averages over windows, largest spikes, sums over axes and over time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_deploy.freezing import forms
from snn_deploy.freezing.forms import Floats, Form, Pattern
from snn_deploy.freezing.meaning import Integers, Item, Meaning, placed
from snn_deploy.freezing.movement import Args, Options
from snn_deploy.freezing.pooling import pair
from snn_deploy.freezing.refusal import UnfoldableError
from snn_deploy.freezing.tracing import Trace, Traced, name_of, plain
from snn_deploy.freezing.weighing import channel_blocks, per_item, shaped
from snn_deploy.synapses import Conv2d, Dense, Shape, SumPool

# Weights of a matrix that sums places which are no windows of a map.
_MAX_MATRIX = 2**26

_AVERAGE = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad",
            "divisor_override")  # fmt: skip


def average_pool(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """Averages over windows."""
    given: Options = {"stride": None, "padding": 0, "ceil_mode": False, "divisor_override": None}
    given |= options | dict(zip(_AVERAGE, args, strict=False))
    line = "1d" in name_of(func)
    if given["ceil_mode"] or max(pair(given["padding"])) or given["divisor_override"] is not None:
        raise UnfoldableError(
            "it pools with padding, ceil_mode or divisor_override: windows of several sizes",
            "use nn.AvgPool2d(kernel, stride) without them",
        )
    kernel = pair(given["kernel_size"])
    stride = pair(given["stride"]) if given["stride"] else kernel
    if line:
        kernel, stride = (1, kernel[0]), (1, stride[0])
    data = func(*plain(args), **plain(options))
    return shaped(data, _averaged(trace, given["input"], SumPool(kernel, stride)))


def adaptive_pool(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """Averages over as many windows as are asked for, where these are all alike."""
    x = (dict(zip(("input", "output_size"), args, strict=False)) | options)["input"]
    data = func(*plain(args), **plain(options))
    axes = 1 if "1d" in name_of(func) else 2
    size, out = tuple(plain(x).shape[-axes:]), tuple(data.shape[-axes:])
    if any(n % m for n, m in zip(size, out, strict=True)):
        raise UnfoldableError(
            f"it averages over windows of several sizes ({size} to {out})",
            "let the size be a multiple of what is asked for",
        )
    window = tuple(n // m for n, m in zip(size, out, strict=True))
    kernel = (1, window[0]) if axes == 1 else (window[0], window[1])
    return shaped(data, _averaged(trace, x, SumPool(kernel, kernel)))


def _averaged(trace: Trace, x: Traced, pool: SumPool) -> Meaning:
    """Means over windows of the last two axes; of the last one where the kernel has one row."""
    meaning = x.meaning
    windows = meaning.labels
    if pool.kernel[0] > 1 or pool.stride[0] > 1:
        windows = windows.unfold(-2, pool.kernel[0], pool.stride[0])
        windows = windows.unfold(-2, pool.kernel[1], pool.stride[1]).flatten(-2)
    else:
        windows = windows.unfold(-1, pool.kernel[1], pool.stride[1])
    return _reduced(trace, Meaning(windows, meaning.forms, meaning.starts), -1, True, (pool,))


_LARGEST = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")


def max_pool(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """The largest of a window of spikes: a population that fires where any of them does."""
    given: Options = {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False,
                      "return_indices": False}  # fmt: skip
    given |= options | dict(zip(_LARGEST, args, strict=False))
    if given["ceil_mode"] or given["return_indices"]:
        raise UnfoldableError(
            "it pools with ceil_mode or return_indices", "use nn.MaxPool2d(kernel, stride)"
        )
    line = "1d" in name_of(func)

    def both(value: Any, rest: int) -> tuple[int, int]:
        return (rest, pair(value)[0]) if line else pair(value)

    kernel = both(given["kernel_size"], 1)
    stride = both(given["stride"], 1) if given["stride"] else kernel
    padding, dilation = both(given["padding"], 0), both(given["dilation"], 1)
    x: Traced = given["input"]
    size = tuple(plain(x).shape)
    if len(size) != (3 if line else 4):
        raise UnfoldableError("it pools without a batch axis", "keep the batch axis")
    seen = (size[1], 1, size[2]) if line else size[1:]
    data = func(*plain(args), **plain(options))

    def make(item: Item) -> list[Form]:
        found = []
        for part, _, channels in channel_blocks(item, x.meaning, seen):
            form = x.meaning.forms[part]
            if form.shape != (channels, *seen[1:]):
                raise UnfoldableError(
                    f"it pools neurons of {form.shape} as a map of {seen}",
                    "pool over neurons of the shape of a map",
                )
            ones = np.ones((channels, 1, *kernel))
            found.append(trace.largest(form, Conv2d(ones, stride, padding, dilation, channels)))
        return found

    return shaped(data, per_item(x.meaning, 1, make))


def reduce(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """Sum or mean over axes: over time, or over places."""
    given: Options = dict(zip(("input", "dim", "keepdim"), args, strict=False)) | options
    x: Traced = given["input"]
    dims = given.get("dim", given.get("axis"))
    count = plain(x).ndim
    chosen = range(count) if dims is None else (dims,) if isinstance(dims, int) else dims
    data = func(*plain(args), **plain(options))
    meaning = x.meaning
    for axis in sorted({d % count for d in chosen}, reverse=True):
        meaning = _reduced(trace, meaning, axis, name_of(func) == "mean")
    return shaped(data, meaning)


def _reduced(
    trace: Trace, meaning: Meaning, axis: int, mean: bool, pools: tuple[SumPool, ...] = ()
) -> Meaning:
    """One axis less: elements of several timesteps are added, or of several places.

    ``pools`` are what the places may be windows of.
    """
    moved = meaning.labels.movedim(axis, -1)
    shape, count = moved.shape[:-1], moved.shape[-1]
    rows = moved.reshape(-1, count).numpy()
    if (rows < 0).any():
        raise UnfoldableError(
            "it sums over zeros that were joined to spikes or currents", "sum before joining"
        )
    starts = np.array(meaning.starts)
    sizes = np.array([int(np.prod(form.shape)) for form in meaning.forms])
    which = np.searchsorted(starts, rows, side="right") - 1
    local = rows - starts[which]
    feature, sample = local % sizes[which], local // sizes[which]
    if (sample != sample[:, :1]).any():
        raise UnfoldableError("it sums over the samples of a batch", "treat every sample by itself")
    share = 1.0 / count if mean else 1.0
    if (feature == feature[:, :1]).all() and (sizes[which] == sizes[which[:, :1]]).all():
        return _summed_forms(meaning, which, local[:, 0], shape, share)
    if (which != which[:, :1]).any():
        raise UnfoldableError(
            "it sums over several timesteps, or several neurons, and places at once",
            "sum over time first, then over places",
        )
    return _summed_places(trace, meaning, which[:, 0], sample[:, 0], feature, shape, share, pools)


def _summed_forms(
    meaning: Meaning, which: Integers, local: Integers, shape: torch.Size, share: float
) -> Meaning:
    """Sums of the same place in several forms: over time."""
    distinct, inverse = np.unique(which, axis=0, return_inverse=True)
    made = []
    for row in distinct:
        shapes = {meaning.forms[k].shape for k in row}
        if len(shapes) != 1:
            raise UnfoldableError(f"it adds neurons of {' and '.join(map(str, sorted(shapes)))}")
        total = Form(shapes.pop(), {})
        for k in row:
            total = total.plus(meaning.forms[k], share)
        made.append(total)
    return placed(made, inverse.reshape(-1), local, shape)


def _summed_places(
    trace: Trace,
    meaning: Meaning,
    which: Integers,
    sample: Integers,
    feature: Integers,
    shape: torch.Size,
    share: float,
    pools: tuple[SumPool, ...],
) -> Meaning:
    """Sums over features of one form each: of windows of a map, a pool; else dense synapses."""
    made: list[Form] = []
    local = np.zeros(len(which), np.int64)
    place = np.zeros(len(which), np.int64)
    for k in np.unique(which):
        form = meaning.forms[k]
        mine = np.flatnonzero(which == k)
        sums, times = _once(feature[mine[sample[mine] == sample[mine[0]]]])
        some = _sums(trace, form, sums, share, pools)
        size = int(np.prod(some.shape))
        for s in np.unique(sample[mine]):
            here = mine[sample[mine] == s]
            if len(here) != times * size or (feature[here] != np.tile(sums, (times, 1))).any():
                raise UnfoldableError(
                    "it sums the places of samples differently", "treat every sample alike"
                )
            local[here] = s * size + np.tile(np.arange(size), times)
            place[here] = len(made)
        made.append(some)
    return placed(made, place, local, shape)


def _once(sums: Integers) -> tuple[Integers, int]:
    """The sets of features of one timestep, and how often they come: a still image is repeated."""
    times = int((sums == sums[0]).all(1).sum())
    first = sums[: len(sums) // times]
    repeated = np.array_equal(sums, np.tile(first, (times, 1)))
    return (first, times) if repeated else (sums, 1)


def _sums(
    trace: Trace, form: Form, sums: Integers, share: float, pools: tuple[SumPool, ...]
) -> Form:
    """One form of the sums over each set of features, [sums, features in each]."""
    for pool in (*pools, *_whole_axes(form.shape)):
        windows = _windows(form.shape, pool)
        if windows is None or not np.array_equal(windows, sums):
            continue

        def average(pattern: Pattern, pool: SumPool = pool) -> Form:
            return forms.average_pooled(pattern, pool)

        pooled = trace.folding.apply(
            form, ("average", pool), average, pool.output_shape(form.shape)
        )
        return pooled.times(share * pool.kernel[0] * pool.kernel[1])
    size = int(np.prod(form.shape))
    if len(sums) * size > _MAX_MATRIX:
        raise UnfoldableError(
            "it sums places of a large map that are no windows of it",
            "use nn.AvgPool2d on a map of the layout of its neurons",
        )
    matrix = np.zeros((len(sums), size))
    np.add.at(matrix, (np.arange(len(sums))[:, None], sums), share)

    def combine(pattern: Pattern) -> Form:
        return _combined(trace, pattern, matrix)

    return trace.folding.apply(form, ("places", matrix.tobytes()), combine, (len(sums),))


def _whole_axes(shape: Shape) -> tuple[SumPool, ...]:
    """Pools over all columns, and over all rows of a map."""
    if len(shape) != 3:
        return ()
    columns, rows = (1, shape[2]), (shape[1], 1)
    return SumPool(columns, columns), SumPool(rows, rows)


def _windows(shape: Shape, pool: SumPool) -> Integers | None:
    """Features in every window of a map, [windows, places]."""
    if len(shape) != 3 or shape[1] < pool.kernel[0] or shape[2] < pool.kernel[1]:
        return None
    features: Tensor = torch.arange(int(np.prod(shape))).reshape(shape)
    windows = features.unfold(1, pool.kernel[0], pool.stride[0])
    windows = windows.unfold(2, pool.kernel[1], pool.stride[1])
    found: Integers = windows.reshape(-1, pool.kernel[0] * pool.kernel[1]).numpy()
    return found


def _combined(trace: Trace, pattern: Pattern, matrix: Floats) -> Form:
    """Weighted sums of features."""
    shape = (len(matrix),)
    if pattern.source is None:
        value, size = (
            np.broadcast_to(x, pattern.shape).reshape(-1)
            for x in (pattern.constant, pattern.magnitude)
        )
        return forms.alone(
            replace(pattern, constant=matrix @ value, magnitude=np.abs(matrix) @ size, shape=shape)
        )
    if isinstance(pattern.synapses, Dense):
        weight = matrix @ pattern.synapses.weight
        return forms.alone(replace(pattern, synapses=Dense(weight), shape=shape))
    label = trace.folding.label("sum", (id(pattern), matrix.tobytes()))
    return forms.synaptic(pattern, Dense(matrix), label, trace.where)
