"""Neurons as leaves: how those of each library are called, and what they are in the graph.

A leaf is a module that keeps a state over time and emits spikes. While a network is followed
(:mod:`snn_deploy.freezing.following`) or run beside its graph (the freeze proof), calls of its
leaves are intercepted here; everything else runs as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from snn_deploy.freezing.neurons import FrozenNeurons, freeze_neurons
from snn_deploy.nn.neurons import Neuron


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One call of a leaf.

    Attributes
    ----------
    current : what it is fed: [T, B, ...] for a sequence, else [B, ...].
    steps : number of timesteps; with a sequence of length 1 it is the same current at all of them.
    sequence : whether time is the first axis.
    state : what it was given of its earlier state; None: it starts, or keeps its state itself.
    """

    current: Tensor
    steps: int
    sequence: bool
    state: Any = None


class Library(Protocol):
    """The neurons of one library."""

    def knows(self, module: nn.Module) -> bool:
        """Whether a module is one of its neurons."""

    def entries(self, module: nn.Module) -> tuple[str, ...]:
        """Names of the methods by which it is called."""

    def freeze(self, module: nn.Module) -> FrozenNeurons:
        """The neurons of the graph; ValueError names what cannot be frozen."""

    def read(self, module: nn.Module, entry: str, args: Any, options: dict[str, Any]) -> Call:
        """Arguments of a call."""

    def spikes(self, entry: str, out: Any) -> Tensor:
        """The spikes in what a call returned."""

    def membrane(self, module: nn.Module, entry: str, out: Any) -> Tensor | None:
        """The membrane in what a call returned, None if it returns none."""

    def returned(self, entry: str, out: Any, spikes: Any, membrane: Any) -> Any:
        """What a call returned, with other spikes and another membrane."""

    def keeps_state(self, module: nn.Module) -> bool:
        """Whether the module itself carries its state from call to call."""

    def forget(self, module: nn.Module) -> None:
        """Clear the state that a module keeps."""


class Ours:
    """The neurons of :mod:`snn_deploy.nn.neurons`."""

    def knows(self, module: nn.Module) -> bool:
        """LIF and C-LIF."""
        return isinstance(module, Neuron)

    def entries(self, module: nn.Module) -> tuple[str, ...]:
        """Whole sequences, or steps."""
        return "forward", "step"

    def freeze(self, module: nn.Module) -> FrozenNeurons:
        """See :func:`freeze_neurons`."""
        assert isinstance(module, Neuron)
        return freeze_neurons(module)

    def read(self, module: nn.Module, entry: str, args: Any, options: dict[str, Any]) -> Call:
        """``forward(current, timesteps)`` or ``step(current, state)``."""
        current = args[0] if args else options["current"]
        if entry == "step":
            return Call(current, 1, False, args[1] if len(args) > 1 else options.get("state"))
        steps = args[1] if len(args) > 1 else options.get("timesteps")
        return Call(current, len(current) if steps is None else steps, True)

    def spikes(self, entry: str, out: Any) -> Tensor:
        """The tensor, or the first of two."""
        return out[0] if entry == "step" else out  # type: ignore[no-any-return]

    def membrane(self, module: nn.Module, entry: str, out: Any) -> Tensor | None:
        """Not for others to read."""
        return None

    def returned(self, entry: str, out: Any, spikes: Any, membrane: Any) -> Any:
        """The state stays as it is: it is what names the neurons at the next step."""
        return (spikes, out[1]) if entry == "step" else spikes

    def keeps_state(self, module: nn.Module) -> bool:
        """No: states are handed over."""
        return False

    def forget(self, module: nn.Module) -> None:
        """Nothing is kept."""


def libraries() -> tuple[Library, ...]:
    """Ours, and those of packages that are loaded."""
    return (Ours(),)


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """A leaf in a network."""

    module: nn.Module
    path: str
    library: Library


def leaves(model: nn.Module) -> list[Leaf]:
    """All leaves of a network, in the order of its modules."""
    known = libraries()
    found = []
    for path, module in model.named_modules():
        library = next((one for one in known if one.knows(module)), None)
        if library is not None:
            found.append(Leaf(module, path, library))
    return found


Original = Callable[..., Any]
# Leaf, name of the method, the method itself, its arguments: what the call is to return.
Interceptor = Callable[[Leaf, str, Original, Any, dict[str, Any]], Any]


@contextmanager
def intercepted(model: nn.Module, interceptor: Interceptor) -> Iterator[None]:
    """Send all calls of a network's leaves through ``interceptor``; their states begin and end clear."""
    found = leaves(model)

    def through(leaf: Leaf, entry: str) -> Callable[..., Any]:
        original = getattr(leaf.module, entry)

        def call(*args: Any, **options: Any) -> Any:
            return interceptor(leaf, entry, original, args, options)

        return call

    patched: list[tuple[nn.Module, str]] = []
    try:
        for leaf in found:
            leaf.library.forget(leaf.module)
            for entry in leaf.library.entries(leaf.module):
                leaf.module.__dict__[entry] = through(leaf, entry)
                patched.append((leaf.module, entry))
        yield
    finally:
        for module, entry in patched:
            del module.__dict__[entry]
        for leaf in found:
            leaf.library.forget(leaf.module)
