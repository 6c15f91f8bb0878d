"""Rules of synapses: weight matrices and convolutions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_deploy.freezing import forms
from snn_deploy.freezing.elementwise import add, floats
from snn_deploy.freezing.forms import Form, Pattern
from snn_deploy.freezing.meaning import SAMPLES, Item, Meaning
from snn_deploy.freezing.merging import dense_kernel
from snn_deploy.freezing.movement import Args, Options
from snn_deploy.freezing.pooling import pair
from snn_deploy.freezing.refusal import UnfoldableError
from snn_deploy.freezing.tracing import Trace, Traced, name_of, plain
from snn_deploy.synapses import Conv2d, Shape


def per_item(meaning: Meaning, lead: int, make: Callable[[Item], Sequence[Form]]) -> Meaning:
    """Turn every item over the leading axes into all of some new forms, one after the other.

    Equal items become the same forms. The labels are [items, features].
    """
    made: list[Form] = []
    starts: list[int] = []
    known: dict[Hashable, list[int]] = {}
    rows = []
    end = 0
    for item in meaning.items(lead):
        key = tuple(
            (id(meaning.forms[p.form]), p.places.tobytes(), p.features.tobytes())
            for p in item.parts
        )
        if key not in known:
            known[key] = []
            for form in make(item):
                known[key].append(len(made))
                made.append(form)
                starts.append(end)
                end += SAMPLES * int(np.prod(form.shape))
        row = []
        for k in known[key]:
            size = int(np.prod(made[k].shape))
            row.append(starts[k] + (item.sample or 0) * size + np.arange(size))
        rows.append(np.concatenate(row))
    return Meaning(torch.from_numpy(np.stack(rows)), tuple(made), tuple(starts))


def shaped(data: Tensor, meaning: Meaning) -> Traced:
    """A tensor with a meaning whose labels are in its order, whatever their shape."""
    return Traced.of(
        data, Meaning(meaning.labels.reshape(data.shape), meaning.forms, meaning.starts)
    )


def _no_weights_of_spikes(*weights: Any) -> None:
    if any(isinstance(weight, Traced) for weight in weights):
        raise UnfoldableError(
            "its weights depend on its input", "use weights that are the same for every input"
        )


_NO_LAYER = UnfoldableError(
    "it multiplies matrices in another way than synapses do", "write x @ W, or use nn.Linear"
)


def linear(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """A weight matrix over the last axis."""
    given = dict(zip(("input", "weight", "bias"), args, strict=False)) | options
    x, weight, bias = given["input"], given["weight"], given.get("bias")
    _no_weights_of_spikes(weight, bias)
    data = func(*plain(args), **plain(options))
    return shaped(data, _weighed(trace, x, weight, bias))


def matmul(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """``x @ W``."""
    given = dict(zip(("input", "other"), args, strict=False)) | options
    x, right = given["input"], given.get("other", given.get("mat2"))
    _no_weights_of_spikes(right)
    if not isinstance(x, Traced) or right is None:
        raise _NO_LAYER
    if right.ndim != 2 or plain(x).ndim < 2:
        raise _NO_LAYER
    data = func(*plain(args), **plain(options))
    return shaped(data, _weighed(trace, x, right.T, None))


def addmm(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """``bias + x @ W``."""
    if options or len(args) != 3:
        raise _NO_LAYER
    product = matmul(trace, torch.matmul, args[1:], {})
    return add(trace, torch.add, (product, args[0]), {})


def _weighed(trace: Trace, x: Traced, weight: Tensor, bias: Tensor | None) -> Meaning:
    matrix = floats(weight)
    shape = (len(matrix),)
    constant = Form(shape, {})
    if bias is not None:
        constant = trace.folding.constant(floats(bias), shape)
    mark = fingerprint(weight)
    label = _labelling(trace, "linear", mark)

    def make(item: Item) -> list[Form]:
        total = constant
        for part in item.parts:
            form = x.meaning.forms[part.form]
            columns, features = matrix[:, part.places], part.features

            def fold(pattern: Pattern, columns: Any = columns, features: Any = features) -> Form:
                return forms.gathered(pattern, columns, features, label(), trace.where)

            key = ("dense", *mark, part.places.tobytes(), features.tobytes())
            total = total.plus(trace.folding.apply(form, key, fold, shape, absorb=True))
        return [total]

    return per_item(x.meaning, plain(x).ndim - 1, make)


def fingerprint(tensor: Tensor) -> tuple[Hashable, ...]:
    """What tells weights apart: their values, for a module may change or compute them."""
    values = np.ascontiguousarray(floats(tensor))
    return values.shape, hashlib.blake2b(values.tobytes(), digest_size=16).digest()


def _labelling(trace: Trace, kind: str, mark: Hashable) -> Callable[[], str]:
    """The name of synapses, taken when it is first needed: ``conv1`` for the first convolution."""
    where = trace.where
    return lambda: trace.folding.label(kind, (where, mark))


_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


def convolution(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """Kernels over a map [B, C, H, W], or a line [B, C, L]."""
    given: Options = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1} | options
    given |= dict(zip(_CONVOLUTION, args, strict=False))
    x, weight, bias = given["input"], given["weight"], given["bias"]
    _no_weights_of_spikes(weight, bias)
    line = name_of(func) == "conv1d"
    size = tuple(plain(x).shape)
    if len(size) != (3 if line else 4):
        raise UnfoldableError("it convolves without a batch axis", "keep the batch axis")
    data = func(*plain(args), **plain(options))
    kernel = floats(weight)[:, :, None] if line else floats(weight)
    stride, dilation = _both(given["stride"], 1, line), _both(given["dilation"], 1, line)
    padding = given["padding"]
    if isinstance(padding, str):
        padding = _named_padding(padding, kernel.shape[2:], dilation)
    else:
        padding = _both(padding, 0, line)
    conv = Conv2d(kernel, stride, padding, dilation, int(given["groups"]))
    seen = (size[1], 1, size[2]) if line else size[1:]
    shape = conv.target_shape(seen)
    constant = Form(shape, {})
    if bias is not None:
        constant = trace.folding.constant(floats(bias).reshape(-1, 1, 1), shape)
    mark = fingerprint(weight)
    label = _labelling(trace, "conv", mark)
    key = ("conv", *mark, conv.stride, conv.padding, conv.dilation, conv.groups)

    def make(item: Item) -> list[Form]:
        total = constant
        for part, first, count in channel_blocks(item, x.meaning, seen):

            def fold(pattern: Pattern, first: int = first, count: int = count) -> Form:
                if pattern.shape[1:] != seen[1:]:
                    raise UnfoldableError(
                        f"it sees neurons of {pattern.shape} as a map of {seen}",
                        "use nn.Linear, or neurons of the shape of a map",
                    )
                some = _of_channels(conv, first, count, seen[0])
                return forms.synaptic(pattern, some, label(), trace.where)

            form = x.meaning.forms[part]
            total = total.plus(
                trace.folding.apply(form, (*key, first, count), fold, shape, absorb=True)
            )
        return [total]

    return shaped(data, per_item(x.meaning, 1, make))


def _both(value: Any, rest: int, line: bool) -> tuple[int, int]:
    """(vertical, horizontal); a line has one row."""
    return (rest, pair(value)[0]) if line else pair(value)


def _named_padding(name: str, kernel: Any, dilation: tuple[int, int]) -> tuple[int, int]:
    if name == "valid":
        return 0, 0
    spread = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if any(s % 2 for s in spread):
        raise UnfoldableError(
            "its padding is not the same on both sides", "use a kernel of odd size"
        )
    return spread[0] // 2, spread[1] // 2


def channel_blocks(item: Item, meaning: Meaning, seen: Shape) -> list[tuple[int, int, int]]:
    """(form, first channel, channels) of a map whose channels come from one or several forms."""
    area = int(np.prod(seen[1:]))
    found = []
    covered = 0
    for part in item.parts:
        size = int(np.prod(meaning.forms[part.form].shape))
        first = int(part.places[0])
        if (
            not np.array_equal(part.features, np.arange(size))
            or not np.array_equal(part.places, np.arange(first, first + size))
            or first % area
            or size % area
        ):
            raise UnfoldableError(
                "it sees a map whose pixels or channels were rearranged",
                "keep the layout of maps; whole channels may be joined with torch.cat(dim=1)",
            )
        found.append((part.form, first // area, size // area))
        covered += size
    if covered != item.size:
        raise UnfoldableError(
            "it sees a map of which a part is zeros that were joined to it",
            "use the padding of the convolution",
        )
    return found


def _of_channels(conv: Conv2d, first: int, count: int, channels: int) -> Conv2d:
    """The part of a convolution that sees some of the channels."""
    if (first, count) == (0, channels):
        return conv
    if conv.groups == 1:
        weight, dilation = conv.weight, conv.dilation
    else:
        weight, dilation = dense_kernel(conv), (1, 1)
    return Conv2d(weight[:, first : first + count], conv.stride, conv.padding, dilation)
