"""What torch functions do to meanings: elements move, are scaled, added and averaged, or are weighed.

Each rule takes the running trace, the function and its arguments. A ValueError names what cannot be
folded; it becomes SD205 with the path of the module. Functions without a rule are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snn_deploy.freezing import forms
from snn_deploy.freezing.forms import Form, Pattern
from snn_deploy.freezing.pooling import pair
from snn_deploy.freezing.tracing import Item, Meaning, Rule, Trace, Traced, plain
from snn_deploy.synapses import Conv2d, Dense, Shape, SumPool

Floats = NDArray[np.float64]
Args = Any
Options = dict[str, Any]


def floats(tensor: Any) -> Floats:
    """A constant of the module in float64."""
    return np.asarray(torch.as_tensor(plain(tensor)).detach().double().cpu().numpy())


# ---- nothing is computed ----


def query(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """Questions about a tensor, and new tensors like it: its meaning has no part in them."""
    return func(*plain(args), **plain(options))


def move(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """Elements change their place, or are repeated or left out."""
    found: list[Traced] = []
    _collect((args, options), found)
    labels, all_forms, starts = Meaning.joined([traced.meaning for traced in found])
    by_tensor = {id(traced): label for traced, label in zip(found, labels, strict=True)}
    data = func(*plain(args), **plain(options))
    moved = func(*_relabelled(args, by_tensor), **_relabelled(options, by_tensor))
    return _meant(data, moved, all_forms, starts)


def _collect(value: Any, found: list[Traced]) -> None:
    if isinstance(value, Traced):
        if all(value is not known for known in found):
            found.append(value)
    elif isinstance(value, (list, tuple)):
        for one in value:
            _collect(one, found)
    elif isinstance(value, dict):
        _collect(list(value.values()), found)


def _relabelled(value: Any, labels: dict[int, Tensor]) -> Any:
    if isinstance(value, Traced):
        return labels[id(value)]
    if isinstance(value, Tensor) and value.is_floating_point():
        if value.any():
            raise ValueError("that joins spikes with constants")
        return torch.full(value.shape, -1)  # zeros
    if isinstance(value, (list, tuple)):
        return type(value)(_relabelled(one, labels) for one in value)
    if isinstance(value, dict):
        return {key: _relabelled(one, labels) for key, one in value.items()}
    return value


def _meant(data: Any, labels: Any, all_forms: tuple[Form, ...], starts: tuple[int, ...]) -> Any:
    if isinstance(data, Tensor):
        return Traced.of(data, Meaning(labels, all_forms, starts))
    return type(data)(
        _meant(d, one, all_forms, starts) for d, one in zip(data, labels, strict=True)
    )


def iterate(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """``for x in tensor``."""
    return iter(move(trace, torch.unbind, args, {}))


def same(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """Nothing happens: dropout in evaluation, copies, conversions."""
    traced = args[0] if args else options["input"]
    if options.get("training") or (func.__name__ == "dropout" and len(args) > 2 and args[2]):
        raise ValueError("with dropout in training: call eval() first, it")
    return Traced.of(plain(traced).clone(), traced.meaning)


# ---- element by element ----


def _made(data: Tensor, meaning: Meaning) -> Traced:
    return Traced.of(data, meaning)


def add(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """Sum or difference of two tensors, or with a constant."""
    name = func.__name__.strip("_")
    one, other = args[0], args[1] if len(args) > 1 else options["other"]
    alpha = float(options.get("alpha", 1))
    signs = {"add": (1, 1), "iadd": (1, 1), "radd": (1, 1), "sub": (1, -1), "isub": (1, -1),
             "subtract": (1, -1), "rsub": (-1, 1)}[name]  # fmt: skip
    data = torch.as_tensor(plain(one)) * signs[0] + torch.as_tensor(plain(other)) * signs[1] * alpha
    if isinstance(one, Traced) and isinstance(other, Traced):
        return _made(data, _sum(one.meaning, other.meaning, signs[0], signs[1] * alpha, data.shape))
    traced, constant, first = (one, other, True) if isinstance(one, Traced) else (other, one, False)
    sign, shift = (signs[0], signs[1] * alpha) if first else (signs[1] * alpha, signs[0])
    return _made(data, _shifted(trace, traced.meaning, constant, sign, shift, data.shape))


def _sum(one: Meaning, other: Meaning, a: float, b: float, shape: torch.Size) -> Meaning:
    """Elements that are the same feature of the same sample, added."""
    (left, right), all_forms, starts = Meaning.joined([one, other])
    left, right = (x.expand(shape).reshape(-1).numpy() for x in (left, right))
    bounds = np.array(starts)
    sizes = np.array([int(np.prod(form.shape)) for form in all_forms])

    def decoded(labels: Any) -> tuple[Any, Any]:
        which = np.where(labels < 0, -1, np.searchsorted(bounds, labels, side="right") - 1)
        return which, np.where(labels < 0, -1, labels - bounds[which])

    (k, local), (m, beside) = decoded(left), decoded(right)
    both = (k >= 0) & (m >= 0)
    if (local != beside)[both].any() or (sizes[k] != sizes[m])[both].any():
        raise ValueError("that adds tensors whose elements are arranged differently or are not of "
                         "the same sample")  # fmt: skip
    pairs, inverse = np.unique(np.stack([k, m], 1), axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    made: list[Form] = []
    for i, j in pairs:
        if i >= 0 and j >= 0:
            if all_forms[i].shape != all_forms[j].shape:
                raise ValueError(f"that adds {all_forms[i].shape} and {all_forms[j].shape}")
            made.append(all_forms[i].times(a).plus(all_forms[j], b))
        elif i >= 0 or j >= 0:
            made.append(all_forms[i].times(a) if i >= 0 else all_forms[j].times(b))
        else:
            made.append(Form((1,), {}))
    return _placed(made, inverse, np.where(k >= 0, local, beside), shape)


def _placed(
    made: Sequence[Form], which: NDArray[Any], local: NDArray[Any], shape: torch.Size
) -> Meaning:
    """A meaning from the form of every element and its place in it (sample and feature)."""
    starts, end = [], 0
    for form in made:
        starts.append(end)
        end += 2 * int(np.prod(form.shape))
    labels = np.where(local < 0, -1, np.array(starts)[which] + local)
    return Meaning(torch.from_numpy(labels).reshape(shape), tuple(made), tuple(starts))


def _per_feature(meaning: Meaning, constant: Any, shape: torch.Size) -> list[Floats]:
    """A constant spread over the features of every form, [features] or one number."""
    value = torch.as_tensor(plain(constant))
    if value.numel() == 1:
        return [floats(value).reshape(())] * len(meaning.forms)
    spread = floats(value.expand(shape)).reshape(-1)
    labels = meaning.labels.expand(shape).reshape(-1).numpy()
    found = []
    for form, start in zip(meaning.forms, meaning.starts, strict=True):
        size = int(np.prod(form.shape))
        mine = (labels >= start) & (labels < start + 2 * size)
        feature = (labels[mine] - start) % size
        full = np.zeros(size)
        full[feature] = spread[mine]
        if not np.array_equal(full[feature], spread[mine], equal_nan=True):
            raise ValueError("with a constant that differs between samples or timesteps")
        found.append(full.reshape(form.shape))
    if (spread[labels < 0] != 0).any():
        raise ValueError("that adds a constant to padding")
    return found


def _narrowed(values: Floats) -> Floats:
    """[C, 1, 1] or () where the values of a map say no more; as compact as the module had it."""
    if values.ndim == 0:
        return values
    channels = forms.channel_values(values, values.shape)
    if channels is None:
        return values
    if (channels == channels[0]).all():
        return channels[0].reshape(())
    return channels.reshape(-1, *([1] * (values.ndim - 1)))


def _shifted(
    trace: Trace, meaning: Meaning, constant: Any, sign: float, shift: float, shape: torch.Size,
    magnitude: Any = None,
) -> Meaning:  # fmt: skip
    """``sign * x + shift * constant``."""
    values = _per_feature(meaning, constant, shape)
    sizes = values if magnitude is None else _per_feature(meaning, magnitude, shape)
    made = []
    for form, value, size in zip(meaning.forms, values, sizes, strict=True):
        value, size = _narrowed(value), _narrowed(np.abs(size))
        normal = _input_of(form)
        if normal is not None:
            pattern = forms.replace(normal, mean=normal.mean * sign - value * shift * normal.std,
                                    std=normal.std * sign)  # fmt: skip
            if sign < 0:
                raise ValueError("that subtracts the input from a constant")
            made.append(_renormalised(trace, pattern, form))
        else:
            made.append(form.times(sign).plus(
                trace.folding.constant(value * shift, form.shape, size * abs(shift))))  # fmt: skip
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


def multiply(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """Product or quotient with a constant."""
    name = func.__name__.strip("_")
    one, other = args[0], args[1] if len(args) > 1 else options["other"]
    if isinstance(one, Traced) and isinstance(other, Traced):
        raise ValueError("that multiplies two tensors made of spikes")
    divides = name in ("div", "truediv", "itruediv", "divide", "true_divide")
    if options.get("rounding_mode") is not None or (divides and not isinstance(one, Traced)):
        raise ValueError(f"with the torch operation `{func.__name__}`")
    traced, constant = (one, other) if isinstance(one, Traced) else (other, one)
    value = torch.as_tensor(plain(constant))
    data = plain(traced) / value if divides else plain(traced) * value
    return _made(data, _scaled(trace, traced.meaning, constant, divides, data.shape))


def _scaled(
    trace: Trace, meaning: Meaning, constant: Any, divides: bool, shape: torch.Size
) -> Meaning:
    made = []
    for form, value in zip(meaning.forms, _per_feature(meaning, constant, shape), strict=True):
        value = _narrowed(value)
        normal = _input_of(form)
        if normal is not None:
            divided = normal.std * value if divides else normal.std / value
            if not (np.isfinite(divided).all() and (divided > 0).all()):
                raise ValueError("that multiplies the input by a number not above 0")
            made.append(_renormalised(trace, forms.replace(normal, std=divided), form))
            continue
        factor = 1.0 / value if divides else value
        if factor.ndim == 0:
            made.append(form.times(float(factor)))
        else:
            made.append(_scaled_form(trace, form, factor))
    return Meaning(meaning.labels.expand(shape), tuple(made), meaning.starts)


def _scaled_form(trace: Trace, form: Form, factor: Floats) -> Form:
    key = ("scale", factor.shape, factor.tobytes())
    return trace.folding.apply(form, key, (), lambda p: forms.scaled(p, factor), form.shape)


def negate(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """Change of sign."""
    return multiply(trace, torch.mul, (args[0], -1.0), {})


def batch_norm(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """Running statistics, gamma and beta: a factor and a shift per channel.

    ``k = gamma / sqrt(var + eps)``, ``y = k * x + (beta - k * mean)``.
    """
    names = (
        "input",
        "running_mean",
        "running_var",
        "weight",
        "bias",
        "training",
        "momentum",
        "eps",
    )
    given = {"weight": None, "bias": None, "training": False, "eps": 1e-5} | options
    given |= dict(zip(names, args, strict=False))
    if given["training"] or given["running_mean"] is None:
        raise ValueError("with batch normalisation without running statistics, or in training,")
    mean, variance = floats(given["running_mean"]), floats(given["running_var"])
    gamma = np.ones_like(mean) if given["weight"] is None else floats(given["weight"])
    beta = np.zeros_like(mean) if given["bias"] is None else floats(given["bias"])
    factor = gamma / np.sqrt(variance + given["eps"])
    x = given["input"]
    data = func(*plain(args), **plain(options))
    spread = (-1, *([1] * (x.ndim - 2)))

    def tensor(values: Floats) -> Tensor:
        return torch.from_numpy(values.reshape(spread))

    shift = beta - factor * mean
    magnitude = np.abs(beta) + np.abs(factor * mean)
    scaled = _scaled(trace, x.meaning, tensor(factor), False, data.shape)
    return _made(
        data, _shifted(trace, scaled, tensor(shift), 1.0, 1.0, data.shape, tensor(magnitude))
    )


# ---- synapses ----


def _per_item(meaning: Meaning, lead: tuple[int, ...], make: Callable[[Item], Form]) -> Meaning:
    """Turn every item over the leading axes into all of one new form, in order."""
    made: list[Form] = []
    known: dict[Any, int] = {}
    which, samples = [], []
    for item in meaning.items(len(lead)):
        key = tuple(
            (id(meaning.forms[p.form]), p.places.tobytes(), p.features.tobytes())
            for p in item.parts
        )
        if key not in known:
            known[key] = len(made)
            made.append(make(item))
        which.append(known[key])
        samples.append(item.sample or 0)
    shape = made[0].shape
    size = int(np.prod(shape))
    starts = [2 * size * k for k in range(len(made))]
    begin = np.array([starts[k] + s * size for k, s in zip(which, samples, strict=True)])
    labels = torch.from_numpy(begin[:, None] + np.arange(size)).reshape(*lead, *shape)
    return Meaning(labels, tuple(made), tuple(starts))


def linear(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """A weight matrix over the last axis."""
    given = dict(zip(("input", "weight", "bias"), args, strict=False)) | options
    x, weight, bias = given["input"], given["weight"], given.get("bias")
    if not isinstance(x, Traced) or isinstance(weight, Traced) or isinstance(bias, Traced):
        raise ValueError("with weights made of spikes")
    data = func(*plain(args), **plain(options))
    return _made(data, _weighed(trace, x, weight, bias, data.shape))


def matmul(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """``x @ W``."""
    x, right = args[0], args[1] if len(args) > 1 else options.get("other", options.get("mat2"))
    if not isinstance(x, Traced) or isinstance(right, Traced) or right.ndim != 2 or x.ndim < 2:
        raise ValueError("with a product of matrices that is no layer of synapses")
    data = func(*plain(args), **plain(options))
    return _made(data, _weighed(trace, x, right.T, None, data.shape))


def addmm(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """``bias + x @ W``."""
    bias, x, right = args
    if options or not isinstance(x, Traced) or isinstance(right, Traced):
        raise ValueError("with a product of matrices that is no layer of synapses")
    product = matmul(trace, torch.matmul, (x, right), {})
    return add(trace, torch.add, (product, bias), {})


def _weighed(trace: Trace, x: Traced, weight: Any, bias: Any, shape: torch.Size) -> Meaning:
    matrix = floats(weight)
    constant = Form((len(matrix),), {})
    if bias is not None:
        constant = trace.folding.constant(floats(bias), (len(matrix),))
    label = _Label(trace, "linear", weight)

    def make(item: Item) -> Form:
        total = Form((len(matrix),), {}).plus(constant)
        for part in item.parts:
            form = x.meaning.forms[part.form]
            key = ("dense", *_identity(weight), part.places.tobytes(), part.features.tobytes())
            some = trace.folding.apply(
                form, key, (weight,),
                lambda p, part=part: forms.gathered(
                    p, matrix[:, part.places], part.features, label(), trace.where
                ),
                (len(matrix),),
                absorb=True,
            )  # fmt: skip
            total = total.plus(some)
        return total

    meaning = _per_item(x.meaning, tuple(x.shape[:-1]), make)
    return Meaning(meaning.labels.reshape(shape), meaning.forms, meaning.starts)


def _identity(tensor: Tensor) -> tuple[int, ...]:
    """What tells parameters apart while the trace holds them: place, shape and strides."""
    return (tensor.data_ptr(), tensor.storage_offset(), *tensor.shape, *tensor.stride())


class _Label:
    """The name of synapses, taken when it is first needed: ``conv1`` for the first convolution."""

    def __init__(self, trace: Trace, kind: str, weight: Tensor) -> None:
        self._make = lambda: trace.folding.label(kind, _identity(weight))

    def __call__(self) -> str:
        return self._make()


def convolution(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """Kernels over a map [B, C, H, W], or a line [B, C, L]."""
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1} | options
    given |= dict(zip(names, args, strict=False))
    x, weight = given["input"], given["weight"]
    line = func.__name__ == "conv1d"
    if not isinstance(x, Traced) or x.ndim != (3 if line else 4):
        raise ValueError("over a tensor without a batch axis, or with weights made of spikes,")
    data = func(*plain(args), **plain(options))
    kernel = floats(weight)
    kernel = kernel[:, :, None] if line else kernel

    def both(value: Any, rest: int) -> tuple[int, int]:
        return (rest, pair(value)[0]) if line else pair(value)

    dilation = both(given["dilation"], 1)
    padding = given["padding"]
    if isinstance(padding, str):
        padding = _named_padding(padding, kernel.shape[2:], dilation)
    else:
        padding = both(padding, 0)
    conv = Conv2d(kernel, both(given["stride"], 1), padding, dilation, int(given["groups"]))
    shape = (len(kernel), *data.shape[2:]) if not line else (len(kernel), 1, data.shape[2])
    constant = Form(shape, {})
    if given["bias"] is not None:
        constant = trace.folding.constant(floats(given["bias"]).reshape(-1, 1, 1), shape)
    seen = (x.shape[1], 1, x.shape[2]) if line else tuple(x.shape[1:])
    label = _Label(trace, "conv", weight)
    key = ("conv", *_identity(weight), conv.stride, conv.padding, conv.dilation, conv.groups)

    def make(item: Item) -> Form:
        total = Form(shape, {}).plus(constant)
        for part, first, count in _channels(item, x.meaning, seen):
            form = x.meaning.forms[part]
            some = trace.folding.apply(
                form, (*key, first, count), (weight,),
                lambda p: forms.synaptic(
                    _as_map(p, seen), _of_channels(conv, first, count, seen[0]), label(),
                    trace.where,
                ),
                shape,
                absorb=True,
            )  # fmt: skip
            total = total.plus(some)
        return total

    meaning = _per_item(x.meaning, (x.shape[0],), make)
    return _made(data, Meaning(meaning.labels.reshape(data.shape), meaning.forms, meaning.starts))


def _named_padding(name: str, kernel: Any, dilation: tuple[int, int]) -> tuple[int, int]:
    if name == "valid":
        return 0, 0
    spread = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if any(s % 2 for s in spread):
        raise ValueError("with padding that is not the same on both sides")
    return spread[0] // 2, spread[1] // 2


def _channels(item: Item, meaning: Meaning, seen: Shape) -> list[tuple[int, int, int]]:
    """(form, first channel, channels) of a map whose channels come from one or several forms."""
    area = int(np.prod(seen[1:]))
    found = []
    covered = 0
    for part in item.parts:
        size = int(np.prod(meaning.forms[part.form].shape))
        block = np.arange(part.places[0], part.places[0] + size)
        if (
            len(part.features) != size
            or (part.features != np.arange(size)).any()
            or (part.places != block).any()
            or part.places[0] % area
            or size % area
        ):
            raise ValueError("over a map whose pixels or channels were rearranged")
        found.append((part.form, int(part.places[0]) // area, size // area))
        covered += size
    if covered != item.size:
        raise ValueError("over a map of which a part is padding")
    return found


def _as_map(pattern: Pattern, seen: Shape) -> Pattern:
    """The same neurons as a map of the height and width of ``seen``."""
    if pattern.shape[1:] == seen[1:]:
        return pattern
    raise ValueError(f"that sees {pattern.shape} as {seen}")


def _of_channels(conv: Conv2d, first: int, count: int, channels: int) -> Conv2d:
    if (first, count) == (0, channels):
        return conv
    if conv.groups != 1:
        raise ValueError("in groups over joined maps")
    return Conv2d(conv.weight[:, first : first + count], conv.stride, conv.padding, conv.dilation)


# ---- pools and sums ----


def average_pool(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """Averages over windows."""
    names = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad",
             "divisor_override")  # fmt: skip
    given = {"stride": None, "padding": 0, "ceil_mode": False, "divisor_override": None} | options
    given |= dict(zip(names, args, strict=False))
    data = func(*plain(args), **plain(options))
    line = "1d" in func.__name__
    kernel = pair(given["kernel_size"])
    stride = kernel if given["stride"] in (None, [], ()) else pair(given["stride"])
    if given["ceil_mode"] or max(pair(given["padding"])) or given["divisor_override"] is not None:
        raise ValueError("with padding, ceil_mode or a divisor of its own")
    if line:
        kernel, stride = (1, kernel[0]), (1, stride[0])
    return _pooled(trace, given["input"], SumPool(kernel, stride), data)


def adaptive_pool(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """Averages over as many windows as are asked for, where these are all alike."""
    given = dict(zip(("input", "output_size"), args, strict=False)) | options
    x, wanted = given["input"], given["output_size"]
    data = func(*plain(args), **plain(options))
    line = "1d" in func.__name__
    sizes = tuple(x.shape[2:])
    out = tuple(data.shape[2:])
    if any(size % o for size, o in zip(sizes, out, strict=True)):
        raise ValueError(f"with windows of several sizes ({sizes} to {wanted})")
    kernel = tuple(size // o for size, o in zip(sizes, out, strict=True))
    window = (1, kernel[0]) if line else (kernel[0], kernel[1])
    return _pooled(trace, x, SumPool(window, window), data)


def _pooled(trace: Trace, x: Traced, pool: SumPool, data: Tensor) -> Traced:
    if pool.kernel == (1, 1) and pool.stride == (1, 1):
        return _made(data, x.meaning)

    def make(item: Item) -> Form:
        index = item.whole(x.meaning.forms)
        if index is None:
            raise ValueError("over a map whose pixels or channels were rearranged")
        form = x.meaning.forms[index]
        return trace.folding.apply(
            form, ("average", pool), (), lambda p: forms.average_pooled(p, pool),
            pool.output_shape(form.shape),
        )  # fmt: skip

    meaning = _per_item(x.meaning, (x.shape[0],), make)
    return _made(data, Meaning(meaning.labels.reshape(data.shape), meaning.forms, meaning.starts))


def max_pool(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """The largest of a window of spikes: a population that fires where any of them does."""
    names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    given = {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False,
             "return_indices": False} | options  # fmt: skip
    given |= dict(zip(names, args, strict=False))
    data = func(*plain(args), **plain(options))
    line = "1d" in func.__name__
    if given["ceil_mode"] or given["return_indices"]:
        raise ValueError("with ceil_mode or indices")

    def both(value: Any, rest: int) -> tuple[int, int]:
        return (rest, pair(value)[0]) if line else pair(value)

    kernel = both(given["kernel_size"], 1)
    stride = kernel if given["stride"] in (None, [], ()) else both(given["stride"], 1)
    padding, dilation = both(given["padding"], 0), both(given["dilation"], 1)
    x: Traced = given["input"]

    def make(item: Item) -> Form:
        index = item.whole(x.meaning.forms)
        if index is None:
            raise ValueError("over a map whose pixels or channels were rearranged")
        form = x.meaning.forms[index]
        shape = form.shape
        window = Conv2d(np.ones((shape[0], 1, *kernel)), stride, padding, dilation, shape[0])
        return trace.largest(form, window)

    meaning = _per_item(x.meaning, (x.shape[0],), make)
    return _made(data, Meaning(meaning.labels.reshape(data.shape), meaning.forms, meaning.starts))


def reduce(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """Sum or mean over axes: over time, or over the places of a map."""
    x = args[0]
    dims = args[1] if len(args) > 1 else options.get("dim", options.get("axis"))
    keep = (
        bool(args[2]) if len(args) > 2 else options.get("keepdim", options.get("keepdims", False))
    )
    dims = range(x.ndim) if dims is None else (dims,) if isinstance(dims, int) else dims
    axes = sorted({d % x.ndim for d in dims}, reverse=True)
    data = func(*plain(args), **plain(options))
    mean = func.__name__ == "mean"
    meaning = x.meaning
    for axis in axes:
        meaning = _reduced(trace, meaning, axis, mean)
    return _made(data, Meaning(meaning.labels.reshape(data.shape), meaning.forms, meaning.starts))


def _reduced(trace: Trace, meaning: Meaning, axis: int, mean: bool) -> Meaning:
    """One axis less."""
    moved = meaning.labels.movedim(axis, -1)
    shape, count = moved.shape[:-1], moved.shape[-1]
    rows = moved.reshape(-1, count).numpy()
    if (rows < 0).any():
        raise ValueError("that sums over padding")
    starts = np.array(meaning.starts)
    sizes = np.array([int(np.prod(form.shape)) for form in meaning.forms])
    which = np.searchsorted(starts, rows, side="right") - 1
    local = rows - starts[which]
    feature, sample = local % sizes[which], local // sizes[which]
    if (sample != sample[:, :1]).any():
        raise ValueError("that sums over the samples of a batch")
    share = 1.0 / count if mean else 1.0
    if (feature == feature[:, :1]).all() and (sizes[which] == sizes[which[:, :1]]).all():
        distinct, inverse = np.unique(which, axis=0, return_inverse=True)
        made = []
        for row in distinct:
            total = Form(meaning.forms[row[0]].shape, {})
            for k in row:
                total = total.plus(meaning.forms[k], share)
            made.append(total)
        return _placed(made, inverse.reshape(-1), local[:, 0], shape)
    if (which != which[:, :1]).any():
        raise ValueError("that sums over time and places at once")
    return _summed_places(trace, meaning, which[:, 0], sample[:, 0], feature, shape, share)


def _summed_places(
    trace: Trace,
    meaning: Meaning,
    which: NDArray[Any],
    sample: NDArray[Any],
    feature: NDArray[Any],
    shape: torch.Size,
    share: float,
) -> Meaning:
    """Sums over features: of whole rows or columns of a map, a pool; else dense synapses."""
    made: list[Form] = []
    local = np.zeros(len(which), np.int64)
    place = np.zeros(len(which), np.int64)
    for k in np.unique(which):
        form = meaning.forms[k]
        mine = np.flatnonzero(which == k)
        first = mine[sample[mine] == sample[mine[0]]]
        sums = feature[first]
        pool = _whole_axis(form.shape, sums)
        if pool is not None:
            window = pool.kernel[0] * pool.kernel[1]
            some = trace.folding.apply(
                form, ("average", pool), (), lambda p, pool=pool: forms.average_pooled(p, pool),
                pool.output_shape(form.shape),
            ).times(share * window)  # fmt: skip
        else:
            matrix = np.zeros((len(first), int(np.prod(form.shape))))
            np.add.at(matrix, (np.arange(len(first))[:, None], sums), share)
            some = trace.folding.apply(
                form, ("places", matrix.tobytes()), (),
                lambda p, matrix=matrix: _combined(p, matrix, trace), (len(first),),
            )  # fmt: skip
        size = int(np.prod(some.shape))
        for s in np.unique(sample[mine]):
            here = mine[sample[mine] == s]
            if len(here) != size or (feature[here] != sums).any():
                raise ValueError("that sums places of samples differently")
            local[here] = s * size + np.arange(size)
            place[here] = len(made)
        made.append(some)
    return _placed(made, place, local, shape)


def _whole_axis(shape: Shape, sums: NDArray[Any]) -> SumPool | None:
    """The pool that sums a whole axis of a map, if these sets of features are that."""
    if len(shape) != 3:
        return None
    full = np.arange(int(np.prod(shape))).reshape(shape)
    for axis, kernel in ((2, (1, shape[2])), (1, (shape[1], 1))):
        rows = np.moveaxis(full, axis, -1).reshape(-1, shape[axis])
        if rows.shape == sums.shape and np.array_equal(rows, np.sort(sums, axis=1)):
            return SumPool(kernel, kernel)
    return None


def _combined(pattern: Pattern, matrix: Floats, trace: Trace) -> Form:
    """Weighted sums of features."""
    if pattern.source is None:
        value, size = (np.broadcast_to(x, pattern.shape).reshape(-1)
                       for x in (pattern.constant, pattern.magnitude))  # fmt: skip
        return forms.alone(forms.replace(
            pattern, constant=matrix @ value, magnitude=np.abs(matrix) @ size,
            shape=(len(matrix),)))  # fmt: skip
    if isinstance(pattern.synapses, Dense):
        return forms.alone(forms.replace(
            pattern, synapses=Dense(matrix @ pattern.synapses.weight), shape=(len(matrix),)))  # fmt: skip
    label = trace.folding.label("sum", (id(pattern), matrix.tobytes()))
    return forms.synaptic(pattern, Dense(matrix), label, trace.where)


# ---- refused ----


def _refusing(why: str) -> Rule:
    def rule(trace: Trace, func: Any, args: Args, options: Options) -> NoReturn:
        raise ValueError(why)

    return rule


def _table(*groups: tuple[str, Rule]) -> dict[str, Rule]:
    return {name: rule for names, rule in groups for name in names.split()}


RULES: dict[str, Rule] = _table(
    (
        "shape size dim ndim device dtype is_cuda numel nelement __len__ is_contiguous stride "
        "layout get_device is_floating_point is_complex requires_grad zeros_like ones_like "
        "new_zeros new_ones empty_like new_empty new_full full_like rand_like __repr__ is_sparse "
        "is_quantized is_mkldnn is_mps is_leaf grad_fn storage_offset names __hash__ itemsize "
        "element_size untyped_storage __deepcopy__ is_meta is_nested",
        query,
    ),
    (
        "view reshape flatten unflatten permute transpose t T mT movedim moveaxis swapaxes squeeze "
        "unsqueeze expand expand_as view_as reshape_as repeat repeat_interleave stack cat concat "
        "unbind split chunk tensor_split narrow select index_select __getitem__ tile flip roll "
        "contiguous swapdims ravel broadcast_to",
        move,
    ),
    ("__iter__", iterate),
    (
        "dropout dropout1d dropout2d feature_dropout alpha_dropout detach clone to float double half "
        "bfloat16 type cpu cuda data requires_grad_ type_as",
        same,
    ),
    ("add __add__ __radd__ __iadd__ sub subtract __sub__ __rsub__ rsub __isub__", add),
    ("mul multiply __mul__ __rmul__ __imul__ div divide true_divide __truediv__ __itruediv__",
     multiply),
    ("neg __neg__ negative", negate),
    ("batch_norm", batch_norm),
    ("linear", linear),
    ("matmul __matmul__ mm", matmul),
    ("addmm", addmm),
    ("conv1d conv2d", convolution),
    ("avg_pool1d avg_pool2d", average_pool),
    ("adaptive_avg_pool1d adaptive_avg_pool2d", adaptive_pool),
    ("max_pool1d max_pool2d", max_pool),
    ("mean sum", reduce),
    ("__bool__ item tolist numpy __int__ __float__ __index__ __contains__ any all",
     _refusing("whose control flow depends on its data")),
    ("relu relu6 sigmoid tanh softmax log_softmax leaky_relu gelu elu selu silu hardtanh softplus "
     "clamp clip exp abs sqrt pow __pow__ square erf",
     _refusing("with a smooth function of currents or spikes left in evaluation")),
    ("pad", _refusing("with padding other than zeros that a convolution adds itself")),
    ("layer_norm group_norm instance_norm", _refusing("that normalises by its own data")),
    ("__setitem__ copy_ add_ mul_ sub_ div_ index_put_ fill_ zero_ index_copy_ scatter_",
     _refusing("that writes into a tensor (gather results in a list and stack them)")),
    ("gt ge lt le eq ne __gt__ __ge__ __lt__ __le__ __eq__ __ne__ where heaviside sign",
     _refusing("with a comparison outside a neuron that is known")),
    ("max amax maximum topk argmax median", _refusing("that takes a largest value over time")),
)  # fmt: skip
