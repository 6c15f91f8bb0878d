"""Rules that work element by element: sums, factors, shifts, batch normalisation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_deploy.freezing import forms
from snn_deploy.freezing.forms import Floats, Form, Pattern
from snn_deploy.freezing.meaning import SAMPLES, Meaning, placed
from snn_deploy.freezing.movement import Args, Options
from snn_deploy.freezing.refusal import UnfoldableError
from snn_deploy.freezing.tracing import Trace, Traced, name_of, plain


def floats(tensor: Any) -> Floats:
    """A constant of the module in float64."""
    return np.asarray(torch.as_tensor(plain(tensor)).detach().double().cpu().numpy())


# Signs of both operands.
_SIGNS = {
    "add": (1, 1), "iadd": (1, 1), "radd": (1, 1), "sub": (1, -1), "isub": (1, -1),
    "subtract": (1, -1), "rsub": (-1, 1),
}  # fmt: skip


def add(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """Sum or difference of two tensors, or with a constant."""
    one, other = args[0], args[1] if len(args) > 1 else options["other"]
    name, alpha = name_of(func).strip("_"), options.get("alpha", 1)
    a, b = _SIGNS[name]
    a, b = (a * alpha, b) if name == "rsub" else (a, b * alpha)
    data = torch.as_tensor(plain(one)) * a + torch.as_tensor(plain(other)) * b
    if isinstance(one, Traced) and isinstance(other, Traced):
        return Traced.of(data, _sum(one.meaning, other.meaning, a, b, data.shape))
    traced, constant = (one, other) if isinstance(one, Traced) else (other, one)
    sign, shift = (a, b) if isinstance(one, Traced) else (b, a)
    return Traced.of(data, shifted(trace, traced.meaning, constant, sign, shift, data.shape))


def _sum(one: Meaning, other: Meaning, a: float, b: float, shape: torch.Size) -> Meaning:
    """Elements that are the same feature of the same sample, added."""
    both_labels, known, starts = Meaning.joined([one, other])
    left, right = (x.expand(shape).reshape(-1).numpy() for x in both_labels)
    bounds = np.array([*starts, 0])
    sizes = np.array([*(int(np.prod(form.shape)) for form in known), 0])

    def decoded(labels: Any) -> tuple[Any, Any]:
        which = np.where(labels < 0, -1, np.searchsorted(bounds[:-1], labels, side="right") - 1)
        return which, np.where(labels < 0, -1, labels - bounds[which])

    (k, local), (m, beside) = decoded(left), decoded(right)
    both = (k >= 0) & (m >= 0)
    if (local != beside)[both].any() or (sizes[k] != sizes[m])[both].any():
        raise UnfoldableError(
            "it adds tensors whose elements are arranged differently, or are of several samples",
            "add spikes or currents of the same layout, element by element",
        )
    pairs, inverse = np.unique(np.stack([k, m], 1), axis=0, return_inverse=True)
    made: list[Form] = []
    for i, j in pairs:
        if i >= 0 and j >= 0:
            if known[i].shape != known[j].shape:
                raise UnfoldableError(
                    f"it adds neurons of {known[i].shape} and of {known[j].shape}",
                    "flatten after the sum, or put synapses between",
                )
            made.append(known[i].times(a).plus(known[j], b))
        elif i >= 0 or j >= 0:
            made.append(known[i].times(a) if i >= 0 else known[j].times(b))
        else:
            made.append(Form((1,), {}))
    return placed(made, inverse.reshape(-1), np.where(k >= 0, local, beside), shape)


def _per_feature(
    meaning: Meaning, constant: Any, shape: torch.Size, padding_too: bool = False
) -> tuple[Meaning, list[Floats]]:
    """A constant spread over the features of every form: their shape, or one number.

    Elements that are always zero have no feature: they may be multiplied (``padding_too``), but
    nothing but zero may be added to them. A form that stands at several places with constants of
    their own comes back as several forms.
    """
    value = torch.as_tensor(plain(constant))
    padding = meaning.labels < 0
    if not padding_too and bool(padding.any()) and value.expand(shape)[padding.expand(shape)].any():
        raise UnfoldableError(
            "it adds a constant to zeros that spikes or currents were joined with",
            "add the constant before",
        )
    if value.numel() == 1:
        return meaning, [floats(value).reshape(())] * len(meaning.forms)
    spread = floats(value.expand(shape)).reshape(-1)
    found = _assigned(meaning, spread, shape)
    if found is None:
        meaning = _one_by_one(meaning, shape)
        found = _assigned(meaning, spread, shape)
    if found is None:
        raise UnfoldableError(
            "it uses a constant that differs between samples",
            "use the same constant for all samples",
        )
    return meaning, found


def _assigned(meaning: Meaning, spread: Floats, shape: torch.Size) -> list[Floats] | None:
    """The constant of every feature; None where elements of one feature have several."""
    labels = meaning.labels.expand(shape).reshape(-1).numpy()
    found = []
    for form, start in zip(meaning.forms, meaning.starts, strict=True):
        size = int(np.prod(form.shape))
        mine = (labels >= start) & (labels < start + SAMPLES * size)
        feature = (labels[mine] - start) % size
        full = np.zeros(size)
        full[feature] = spread[mine]
        if not np.array_equal(full[feature], spread[mine], equal_nan=True):
            return None
        found.append(full.reshape(form.shape))
    return found


def _one_by_one(meaning: Meaning, shape: torch.Size) -> Meaning:
    """The same meaning, with a form for every time that a form stands in the tensor."""
    labels = meaning.labels.expand(shape).reshape(-1).numpy()
    order = np.argsort(labels, kind="stable")
    first = np.searchsorted(labels[order], labels[order])
    turn = np.empty(len(labels), np.int64)
    turn[order] = np.arange(len(labels)) - first  # how often the same label came before
    turn[labels < 0] = 0
    end = sum(SAMPLES * int(np.prod(form.shape)) for form in meaning.forms)
    times = int(turn.max(initial=0)) + 1
    spread = np.where(labels < 0, labels, labels + turn * end)
    return Meaning(
        torch.from_numpy(spread).reshape(shape),
        meaning.forms * times,
        tuple(start + end * k for k in range(times) for start in meaning.starts),
    )


def _split_for(meaning: Meaning, shape: torch.Size, *constants: Any) -> Meaning:
    """A meaning whose forms can take all of some constants."""
    for constant in constants:
        meaning, _ = _per_feature(meaning, constant, shape)
    return meaning


def _narrowed(values: Floats) -> Floats:
    """[C, 1, 1] or () where the values of a map say no more."""
    if values.ndim == 0:
        return values
    channels = forms.channel_values(values, values.shape)
    if channels is None:
        return values
    if (channels == channels[0]).all():
        return np.asarray(channels[0])
    return channels.reshape(-1, *([1] * (values.ndim - 1)))


def shifted(
    trace: Trace, meaning: Meaning, constant: Any, sign: float, shift: float, shape: torch.Size,
    magnitude: Any = None,
) -> Meaning:  # fmt: skip
    """``sign * x + shift * constant``; ``magnitude`` is what was added up to the constant."""
    if magnitude is None:
        meaning, values = _per_feature(meaning, constant, shape)
        sizes = values
    else:  # both of one shape: what splits one splits the other
        meaning = _split_for(meaning, shape, constant, magnitude)
        values, sizes = (_per_feature(meaning, one, shape)[1] for one in (constant, magnitude))
    made = []
    for form, value, size in zip(meaning.forms, values, sizes, strict=True):
        narrow, magnitudes = _narrowed(value * shift), _narrowed(np.abs(size * shift))
        normal = _input_of(form)
        if normal is None:
            made.append(
                form.times(sign).plus(trace.folding.constant(narrow, form.shape, magnitudes))
            )
            continue
        if sign < 0:
            raise UnfoldableError(
                "it subtracts the input from a constant", "write (x - mean) / std, with std above 0"
            )
        # ((x - mean) / std) * sign + v = (x - (mean - v * std / sign)) / (std / sign)
        std = normal.std / sign
        made.append(
            _renormalised(trace, replace(normal, mean=normal.mean - narrow * std, std=std), form)
        )
    return Meaning(meaning.labels.expand(shape), tuple(made), meaning.starts)


def _input_of(form: Form) -> Pattern | None:
    """The input of values that a form is, before any synapses; None if it is something else."""
    single = form.single()
    if single is None:
        return None
    pattern, _, weight = single
    if pattern.own_values and pattern.values and pattern.pool is None and weight == 1.0:
        return pattern
    return None


def _renormalised(trace: Trace, pattern: Pattern, form: Form) -> Form:
    """The input under another normalisation; equal ones are one pattern."""
    (time,) = (time for _, time in form.terms)
    key = ("input", pattern.source, pattern.mean.shape, pattern.mean.tobytes(),
           pattern.std.shape, pattern.std.tobytes())  # fmt: skip
    known = trace.folding.once(key, lambda: forms.alone(pattern))
    ((found, _),) = known.terms
    return Form(form.shape, {(found, time): 1.0})


_QUOTIENTS = ("div", "truediv", "itruediv", "divide", "true_divide")


def multiply(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """Product or quotient with a constant."""
    name = name_of(func).strip("_")
    one, other = args[0], args[1] if len(args) > 1 else options["other"]
    if isinstance(one, Traced) and isinstance(other, Traced):
        raise UnfoldableError(
            "it multiplies spikes or currents with each other, which no synapse does",
            "use a neuron that is known for what is written by hand here",
        )
    divides = name in _QUOTIENTS
    if options.get("rounding_mode") is not None or (divides and not isinstance(one, Traced)):
        raise UnfoldableError("it divides in a way that is not linear", "multiply by constants")
    traced, constant = (one, other) if isinstance(one, Traced) else (other, one)
    value = torch.as_tensor(plain(constant))
    data = plain(traced) / value if divides else plain(traced) * value
    return Traced.of(data, scaled(trace, traced.meaning, constant, divides, data.shape))


def scaled(
    trace: Trace, meaning: Meaning, constant: Any, divides: bool, shape: torch.Size
) -> Meaning:
    """``x * constant``, or ``x / constant``."""
    made = []
    meaning, values = _per_feature(meaning, constant, shape, padding_too=True)
    for form, value in zip(meaning.forms, values, strict=True):
        value = _narrowed(value)
        normal = _input_of(form)
        if normal is not None:
            divided = normal.std * value if divides else normal.std / value
            if not (np.isfinite(divided).all() and (divided > 0).all()):
                raise UnfoldableError(
                    "it multiplies the input by a number that is not above 0",
                    "write (x - mean) / std, with std above 0",
                )
            made.append(_renormalised(trace, replace(normal, std=divided), form))
            continue
        factor = 1.0 / value if divides else value
        if factor.ndim == 0:
            made.append(form.times(float(factor)))
        else:
            made.append(_scaled_form(trace, form, factor))
    return Meaning(meaning.labels.expand(shape), tuple(made), meaning.starts)


def _scaled_form(trace: Trace, form: Form, factor: Floats) -> Form:
    key = ("scale", factor.shape, factor.tobytes())
    return trace.folding.apply(form, key, lambda p: forms.scaled(p, factor), form.shape)


def negate(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """Change of sign."""
    return multiply(trace, torch.mul, (args[0], -1.0), {})


_BATCH_NORM = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum",
               "eps")  # fmt: skip


def batch_norm(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """Running statistics, gamma and beta: a factor and a shift per channel.

    ``k = gamma / sqrt(var + eps)``, ``y = k * x + (beta - k * mean)`` (Ioffe and Szegedy 2015).
    """
    given: Options = {"weight": None, "bias": None, "training": False, "eps": 1e-5} | options
    given |= dict(zip(_BATCH_NORM, args, strict=False))
    if given["training"] or given["running_mean"] is None:
        raise UnfoldableError(
            "it normalises by the statistics of a batch: it has no running statistics, or is left "
            "in training",
            "keep track_running_stats=True, and do not call train() inside forward",
        )
    mean, variance = floats(given["running_mean"]), floats(given["running_var"])
    gamma = np.ones_like(mean) if given["weight"] is None else floats(given["weight"])
    beta = np.zeros_like(mean) if given["bias"] is None else floats(given["bias"])
    factor = gamma / np.sqrt(variance + given["eps"])
    x = given["input"]
    data = func(*plain(args), **plain(options))
    spread = (-1, *([1] * (plain(x).ndim - 2)))

    def tensor(values: Floats) -> Tensor:
        return torch.from_numpy(values.reshape(spread))

    shift = beta - factor * mean
    magnitude = np.abs(beta) + np.abs(factor * mean)
    meaning = scaled(trace, x.meaning, tensor(factor), False, data.shape)
    return Traced.of(
        data,
        shifted(trace, meaning, tensor(shift), 1.0, 1.0, data.shape, tensor(magnitude)),
    )
