"""Rules that compute nothing: elements move, are repeated, left out, converted or overwritten."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from snn_deploy.freezing.forms import Form
from snn_deploy.freezing.meaning import Meaning
from snn_deploy.freezing.refusal import UnfoldableError
from snn_deploy.freezing.tracing import Rule, Trace, Traced, name_of, plain, tensors_in

Args = Any
Options = dict[str, Any]

# Functions whose tensors are all data; of the others, plain tensors are indices.
_JOINING = ("stack", "cat", "concat", "concatenate")


def query(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """Questions about a tensor, and new tensors like it: its meaning has no part in them."""
    return func(*plain(args), **plain(options))


def move(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """Elements change their place, or are repeated or left out: labels move as the values do."""
    found: list[Traced] = []
    for tensor in tensors_in((args, options)):
        if isinstance(tensor, Traced) and all(tensor is not known for known in found):
            found.append(tensor)
    if name_of(func) not in _JOINING and not (len(found) == 1 and found[0] is args[0]):
        raise UnfoldableError(
            "it moves elements to places that depend on its data", "use indices that are constant"
        )
    if any(isinstance(one, torch.dtype) for one in (*args, *options.values())):
        raise UnfoldableError(
            "it reads the bits of numbers as another type", "keep spikes and currents in float32"
        )
    labels, forms, starts = Meaning.joined([traced.meaning for traced in found])
    known = {id(traced): label for traced, label in zip(found, labels, strict=True)}
    data = func(*plain(args), **plain(options))
    joining = name_of(func) in _JOINING
    moved = func(*_relabelled(args, known, joining), **_relabelled(options, known, joining))
    return _meant(data, moved, forms, starts)


def _relabelled(value: Any, labels: dict[int, Tensor], joining: bool) -> Any:
    if isinstance(value, Traced):
        return labels[id(value)]
    if isinstance(value, Tensor) and joining:
        return zeros(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_relabelled(one, labels, joining) for one in value)
    if isinstance(value, dict):
        return {key: _relabelled(one, labels, joining) for key, one in value.items()}
    return value


def zeros(value: Tensor) -> Tensor:
    """Labels of a plain tensor, which must hold nothing but zeros."""
    if value.any():
        raise UnfoldableError(
            "it joins spikes or currents with a constant that is not zero",
            "add constants as the bias of a layer",
        )
    return torch.full(value.shape, -1)


def _meant(data: Any, labels: Any, forms: tuple[Form, ...], starts: tuple[int, ...]) -> Any:
    if isinstance(data, Tensor):
        return Traced.of(data, Meaning(labels, forms, starts))
    return type(data)(_meant(d, one, forms, starts) for d, one in zip(data, labels, strict=True))


def shape_as(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """``x.view_as(other)``: of the other tensor only the shape counts."""
    x, other = args[0], args[1] if len(args) > 1 else options["other"]
    act = Tensor.expand if name_of(func) == "expand_as" else Tensor.reshape
    if not isinstance(x, Traced):
        return func(x, plain(other))
    return move(trace, act, (x, tuple(plain(other).shape)), {})


def iterate(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """``for x in tensor``."""
    return iter(move(trace, torch.unbind, args, {}))


_REAL = (torch.float32, torch.float64)


def unchanged(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """Nothing happens: dropout in evaluation, other names for a tensor, conversions.

    The result shares the memory of its argument, as most of these do in torch, so that writing into
    either is seen.
    """
    traced = args[0] if args else options["input"]
    name = name_of(func)
    if "dropout" in name and (
        options.get("training") or options.get("train") or args[2:3] == (True,)
    ):
        raise UnfoldableError("it drops out in evaluation", "pass training=self.training")
    if not isinstance(traced, Traced):  # plain.type_as(traced)
        return func(*plain(args), **plain(options))
    if name == "type" and len(args) == 1 and not options:
        return func(plain(traced))
    wanted = [
        one.dtype if isinstance(one, Tensor) else one for one in (*args[1:], *options.values())
    ]
    if name in ("to", "type_as") and any(
        isinstance(one, torch.dtype) and one not in _REAL for one in wanted
    ):
        raise UnfoldableError(
            "it converts its numbers to another type than float32 or float64",
            "keep spikes and currents in float32",
        )
    return Traced.of(plain(traced), traced.meaning)


def copied(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """The same values in memory of their own."""
    return Traced.of(plain(args[0]).clone(), args[0].meaning)


# ---- writing ----


def in_place(rule: Rule) -> Rule:
    """The rule of ``x += y``, from that of ``x + y``: x itself means the result from now on."""

    def write(trace: Trace, func: Any, args: Args, options: Options) -> Any:
        return trace.overwrite(args[0], rule(trace, func, args, options))

    return write


def set_item(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """``x[index] = value``: labels of the value take the place of those in x."""
    target, index, value = args
    if any(isinstance(one, Traced) for one in tensors_in(index)):
        raise UnfoldableError(
            "it writes to places that depend on its data", "use indices that are constant"
        )
    parts = [one.meaning for one in (target, value) if isinstance(one, Traced)]
    joined, forms, starts = Meaning.joined(parts)
    labels = joined.pop(0).clone() if isinstance(target, Traced) else zeros(plain(target))
    new = joined.pop() if isinstance(value, Traced) else zeros(torch.as_tensor(value))
    labels[index] = new
    data = plain(target).clone()
    data[index] = plain(value)
    trace.overwrite(target, Traced.of(data, Meaning(labels, forms, starts)))


def copy_into(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """``x.copy_(value)``."""
    set_item(trace, func, (args[0], ..., args[1]), {})
    return args[0]
