"""Follow a module's evaluation and write down what every tensor means.

The module runs once, in float64, on a made-up input. Its tensors carry a :class:`Meaning`: for
every element, which feature of which form it is, for which sample. Whatever moves elements (views,
stacking, flattening, indexing) moves these labels with them; whatever computes is folded into the
forms by a rule, or refused with the path of the module that asked for it. Loops over time simply
run. Neurons are leaves: they turn the form that reaches them into the spikes of a population.

What cannot be seen in the values of one run is watched for: random numbers, writing into parameters
and buffers, and writing into memory that other tensors share. Torch counts the writes into shared
memory (``_version``); a tensor whose memory was written through another name has lost its meaning,
and is refused where it is used next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from snn_deploy.freezing.forms import Folding, Form
from snn_deploy.freezing.meaning import Meaning
from snn_deploy.freezing.refusal import UnfoldableError, refuse
from snn_deploy.synapses import Conv2d


class Traced(torch.Tensor):
    """A tensor that knows what it means. All operations on it go through :meth:`Trace.apply`.

    ``version`` counts the writes into its memory up to when the meaning was written down; None in
    inference mode, where nothing is counted.
    """

    meaning: Meaning
    version: int | None

    @staticmethod
    def of(data: Tensor, meaning: Meaning) -> Traced:
        """Attach a meaning to values of the same shape, which stay where they are in memory."""
        if data.shape != meaning.labels.shape:
            raise AssertionError(f"{tuple(data.shape)} means {tuple(meaning.labels.shape)}")
        traced: Traced = torch.Tensor._make_subclass(Traced, plain(data).detach())
        traced.meaning = meaning
        traced.version = version_of(traced)
        return traced

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return Trace.current().apply(func, args, kwargs or {})


def plain(value: Any) -> Any:
    """The same without meanings, over the same memory."""
    if isinstance(value, Traced):
        with torch._C.DisableTorchFunctionSubclass():
            return value.as_subclass(Tensor)
    if isinstance(value, (list, tuple)):
        values = [plain(v) for v in value]
        return type(value)(*values) if hasattr(value, "_fields") else type(value)(values)
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value


def version_of(tensor: Tensor) -> int | None:
    """How often the memory of a tensor was written; None where torch does not count."""
    with torch._C.DisableTorchFunction():
        return None if tensor.is_inference() else tensor._version


def memory_of(tensor: Tensor) -> int:
    """The address of the memory that a tensor shares with its views."""
    with torch._C.DisableTorchFunction():
        return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in arguments, nested or not."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from tensors_in(one)
    elif isinstance(value, dict):
        for one in value.values():
            yield from tensors_in(one)


Rule = Callable[["Trace", Any, Any, dict[str, Any]], Any]

_RANDOM = frozenset(
    ("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like",
     "bernoulli", "bernoulli_", "normal", "normal_", "uniform_", "random_", "exponential_",
     "geometric_", "log_normal_", "cauchy_", "multinomial", "poisson", "rrelu", "gumbel_softmax",
     "_standard_gamma")
)  # fmt: skip


@dataclass(slots=True)
class Trace:
    """One run of a module.

    Attributes
    ----------
    rules : names of torch functions, and what they do to meanings.
    folding : the algebra, with what was folded so far.
    path : names and types of the modules that are running, the innermost last.
    own : addresses of the memory of the module's parameters and buffers.
    lent : of spikes and states that neurons handed out, which they may look at again.
    written : of plain tensors that became traced ones by writing into them.
    """

    rules: dict[str, Rule]
    folding: Folding = field(default_factory=Folding)
    path: list[tuple[str, str]] = field(default_factory=list)
    own: set[int] = field(default_factory=set)
    lent: dict[int, Tensor] = field(default_factory=dict)
    written: dict[int, Tensor] = field(default_factory=dict)

    @staticmethod
    def current() -> Trace:
        """The trace that is running."""
        if not _RUNNING:
            raise RuntimeError("a traced tensor outside its trace")
        return _RUNNING[-1]

    @property
    def where(self) -> str:
        """Path of the module that is running, or that failed."""
        return self.path[-1][0] if self.path else ""

    @property
    def kind(self) -> str:
        """Its type."""
        return self.path[-1][1] if self.path else "the network"

    def largest(self, form: Form, window: Conv2d) -> Form:
        """The largest spike in every window of a form of spikes."""
        raise NotImplementedError

    def apply(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Carry out one torch function that has a traced argument."""
        name = name_of(func)
        rule = self.rules.get(name)
        try:
            self.check_unwritten((args, kwargs))
            if rule is None:
                raise UnfoldableError(
                    f"it uses torch's `{name}`, which has no counterpart in a graph of neurons and "
                    "synapses",
                    "see docs/freezing.md for what is followed",
                )
            if kwargs.get("out") is not None:
                raise UnfoldableError(f"`{name}` writes into a tensor (out=)", "use its result")
            return rule(self, func, args, kwargs)
        except ValueError as error:
            if not isinstance(error, UnfoldableError):
                raise
            refuse(self.kind, error, self.where)

    def check_unwritten(self, value: Any) -> None:
        """Tensors mean what was written down, unless their memory was written since."""
        for tensor in tensors_in(value):
            if isinstance(tensor, Traced):
                stale = version_of(tensor) != tensor.version
            else:
                stale = bool(self.written) and memory_of(tensor) in self.written
            if stale:
                raise UnfoldableError(
                    "it reads a tensor after writing in place into another one that shares its "
                    "memory",
                    "write y = x + z in place of x += z where x is still needed, or clone() it",
                )

    def overwrite(self, target: Tensor, result: Traced) -> Tensor:
        """Write a result into a tensor: ``target`` itself means it from now on."""
        memory = memory_of(target)
        if memory in self.own:
            raise _stateful()
        if memory in self.lent:
            raise UnfoldableError(
                "it writes in place into spikes or states, which their neurons may still need",
                "make a new tensor: z = z * a in place of z *= a",
            )
        if result.shape != target.shape or version_of(target) is None:
            raise UnfoldableError("it writes into a tensor in place", "make a new tensor")
        with torch._C.DisableTorchFunction():
            target.copy_(plain(result))
            if not isinstance(target, Traced):
                self.written[memory] = target
                target.__class__ = Traced
        target.meaning = result.meaning  # type: ignore[attr-defined]
        target.version = version_of(target)  # type: ignore[attr-defined]
        return target

    def lend(self, value: Any) -> None:
        """Remember memory that neurons share with what they returned."""
        for tensor in tensors_in(value):
            self.lent[memory_of(tensor)] = tensor

    def watch(self, func: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """Look at every torch function, with traced arguments or without."""
        name = name_of(func)
        try:
            if name in _RANDOM or ("dropout" in name and kwargs.get("training")):
                raise UnfoldableError(
                    "it draws random numbers in evaluation",
                    "draw them only where self.training is set",
                )
            found = list(tensors_in((args, kwargs)))
            if any(isinstance(tensor, Traced) for tensor in found):
                return
            self.check_unwritten(found)
            if _writes(name) and isinstance(args[0], Tensor) and memory_of(args[0]) in self.own:
                raise _stateful()
        except UnfoldableError as error:
            refuse(self.kind, error, self.where)

    @contextmanager
    def running(self, module: nn.Module) -> Iterator[None]:
        """Make this the current trace, and know the path of whatever submodule runs."""
        handles = []
        for name, child in module.named_modules():

            def enter(child: nn.Module, _: Any, name: str = name) -> None:
                self.path.append((name, type(child).__name__))

            def leave(_: nn.Module, __: Any, ___: Any) -> None:
                self.path.pop()

            handles.append(child.register_forward_pre_hook(enter))
            handles.append(child.register_forward_hook(leave))
        self.own = {memory_of(t) for t in (*module.parameters(), *module.buffers()) if t.numel()}
        _RUNNING.append(self)
        try:
            with _Watching(self):
                yield
        finally:
            _RUNNING.remove(self)
            for handle in handles:
                handle.remove()


class _Watching(TorchFunctionMode):
    """Shows a trace every torch function."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.trace.watch(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def name_of(func: Any) -> str:
    """A torch function's name; of a property, the property's."""
    name = getattr(func, "__name__", str(func))
    return str(func.__self__.__name__) if name == "__get__" else str(name)


def _writes(name: str) -> bool:
    """Whether a function writes into its first argument."""
    if name.startswith("__"):
        return name == "__setitem__" or (name[2] == "i" and name not in _NOT_WRITING)
    return name.endswith("_") and name not in _NOT_WRITING


_NOT_WRITING = ("__index__", "__int__", "__invert__", "__iter__", "detach_", "requires_grad_")


def _stateful() -> UnfoldableError:
    return UnfoldableError(
        "it writes into its own parameters or buffers while it runs",
        "let neurons keep the state, and weights be the same at every timestep",
    )


_RUNNING: list[Trace] = []
