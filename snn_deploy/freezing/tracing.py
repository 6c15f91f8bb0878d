"""Follow a module's evaluation and write down what every tensor means.

The module runs once, in float64, on a made-up input. Its tensors carry a :class:`Meaning`: for every
element, which feature of which form it is, for which sample. Whatever moves elements (views,
stacking, flattening, indexing) moves these labels with them; whatever computes is folded into the
forms by a rule, or refused with the path of the module that asked for it. Loops over time simply
run. Neurons are leaves: they turn the form that reaches them into the spikes of a population.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing.forms import Folding, Form
from snn_deploy.synapses import Shape

# Samples in the made-up input: two, so that mixing samples shows.
SAMPLES = 2


@dataclass(frozen=True, slots=True, eq=False)
class Meaning:
    """What the elements of a tensor are.

    ``labels`` has the tensor's shape: ``starts[k] + sample * size_k + feature`` for the form k, whose
    size is the number of its features; -1 for an element that is always zero.
    """

    labels: Tensor
    forms: tuple[Form, ...]
    starts: tuple[int, ...]

    @staticmethod
    def of(forms: Sequence[Form], lead: tuple[int, ...], shape: Shape) -> Meaning:
        """Forms one after the other: a tensor [*lead, *shape] whose lead counts forms and samples.

        ``lead`` is (samples,), (forms, samples) or (samples, forms).
        """
        size = int(np.prod(shape))
        labels = torch.arange(len(forms) * SAMPLES * size).reshape(len(forms), SAMPLES, *shape)
        if len(lead) == 1:
            labels = labels[0]
        elif lead != (len(forms), SAMPLES):
            labels = labels.transpose(0, 1)
        starts = tuple(k * SAMPLES * size for k in range(len(forms)))
        return Meaning(labels.contiguous(), tuple(forms), starts)

    @staticmethod
    def joined(
        meanings: Sequence[Meaning],
    ) -> tuple[list[Tensor], tuple[Form, ...], tuple[int, ...]]:
        """Labels of several, each over the forms of all."""
        labels, forms, starts, end = [], [], [], 0
        for meaning in meanings:
            labels.append(torch.where(meaning.labels < 0, meaning.labels, meaning.labels + end))
            forms.extend(meaning.forms)
            starts.extend(start + end for start in meaning.starts)
            end += sum(SAMPLES * int(np.prod(form.shape)) for form in meaning.forms)
        return labels, tuple(forms), tuple(starts)

    def items(self, lead: int) -> list[Item]:
        """The tensor as items over its first ``lead`` axes: what each is made of."""
        flat = self.labels.reshape(int(np.prod(self.labels.shape[:lead])), -1).numpy()
        starts = np.array(self.starts)
        found = []
        for row in flat:
            real = row >= 0
            which = np.where(real, np.searchsorted(starts, row, side="right") - 1, -1)
            parts = []
            sample = None
            for k in dict.fromkeys(which[real].tolist()):
                places = np.flatnonzero(which == k)
                size = int(np.prod(self.forms[k].shape))
                local = row[places] - starts[k]
                samples = np.unique(local // size)
                if len(samples) > 1 or sample not in (None, int(samples[0])):
                    raise ValueError("mixes samples of a batch and")
                sample = int(samples[0])
                parts.append(Part(k, places, local % size))
            found.append(Item(sample, tuple(parts), len(row)))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Features of one form, and the places of an item where they stand."""

    form: int
    places: np.ndarray[Any, np.dtype[np.int64]]
    features: np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One sample at one timestep: ``size`` places, of which parts of forms fill some."""

    sample: int | None
    parts: tuple[Part, ...]
    size: int

    def whole(self, forms: Sequence[Form], shape: Shape | None = None) -> int | None:
        """The form that this item is, all of it in order; None if it is another arrangement."""
        if len(self.parts) != 1:
            return None
        (part,) = self.parts
        size = int(np.prod(forms[part.form].shape))
        if size != self.size or not np.array_equal(part.features, np.arange(size)):
            return None
        return part.form


class Traced(torch.Tensor):
    """A tensor that knows what it means. All operations on it go through :meth:`Trace.apply`."""

    meaning: Meaning

    @staticmethod
    def of(data: Tensor, meaning: Meaning) -> Traced:
        """Attach a meaning to values of the same shape."""
        if data.shape != meaning.labels.shape:
            raise AssertionError(f"{tuple(data.shape)} means {tuple(meaning.labels.shape)}")
        traced: Traced = torch.Tensor._make_subclass(Traced, plain(data).detach())
        traced.meaning = meaning
        return traced

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return Trace.current().apply(func, args, kwargs or {})


def plain(value: Any) -> Any:
    """The same without meanings."""
    if isinstance(value, Traced):
        with torch._C.DisableTorchFunctionSubclass():
            return value.as_subclass(Tensor)  # type: ignore[arg-type]
    if isinstance(value, (list, tuple)):
        values = [plain(v) for v in value]
        return type(value)(*values) if hasattr(value, "_fields") else type(value)(values)
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value


Rule = Callable[["Trace", Any, Any, dict[str, Any]], Any]


@dataclass(slots=True)
class Trace:
    """One run of a module.

    ``rules`` maps the names of torch functions to what they do to meanings.
    """

    rules: dict[str, Rule]
    folding: Folding = field(default_factory=Folding)
    path: list[str] = field(default_factory=list)

    @staticmethod
    def current() -> Trace:
        """The trace that is running."""
        if not _RUNNING:
            raise RuntimeError("a traced tensor outside its trace")
        return _RUNNING[-1]

    @property
    def where(self) -> str:
        """Path of the module that is running, or that failed."""
        return self.path[-1] if self.path else "the network"

    def apply(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Carry out one torch function."""
        name = func.__self__.__name__ if func.__name__ == "__get__" else func.__name__
        rule = self.rules.get(name)
        try:
            if rule is None:
                raise ValueError(f"with the torch operation `{name}`")  # noqa: TRY301
            return rule(self, func, args, kwargs)
        except ValueError as error:
            self.refuse(str(error))

    def refuse(self, what: str, fix: str | None = None) -> None:
        """Raise SD205 for the module that is running."""
        raise SnnDeployError(
            "SD205", f"a module {what} cannot be frozen", where=self.where, fix=fix
        ) from None

    @contextmanager
    def running(self, module: nn.Module) -> Iterator[None]:
        """Make this the current trace, and know the path of whatever submodule runs."""
        handles = []
        for name, child in module.named_modules():

            def enter(_: nn.Module, __: Any, name: str = name) -> None:
                self.path.append(name or "the network")

            def leave(_: nn.Module, __: Any, ___: Any) -> None:
                self.path.pop()

            handles.append(child.register_forward_pre_hook(enter))
            handles.append(child.register_forward_hook(leave))
        _RUNNING.append(self)
        try:
            yield
        finally:
            _RUNNING.remove(self)
            for handle in handles:
                handle.remove()


_RUNNING: list[Trace] = []
