"""Neurons as leaves: how those of each library are called, and what they are in the graph.

A leaf is a module that keeps a state over time and emits spikes. While a network is followed
(:mod:`snn_deploy.freezing.following`) or run beside its graph (the freeze proof), calls of its
leaves are intercepted here; everything else runs as it is.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from snn_deploy.freezing.neurons import FrozenNeurons, freeze_neurons
from snn_deploy.nn.neurons import Neuron

# What a tensor of a leaf is: its spikes, its membrane, or a state that nobody outside may read.
Kind = Literal["spikes", "membrane", "hidden"]
Mark = Callable[[Kind, Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One call of a leaf.

    Attributes
    ----------
    current : what it is fed: [T, B, ...] for a sequence, else [B, ...].
    steps : number of timesteps; with a sequence of length 1 it is the same current at all of them.
    sequence : whether time is the first axis.
    state : what it goes on from; None: it starts. Either one object that the leaf returned as it
        is, or its tensors by kind, whether they were handed over or the module keeps them.
    rest : the membrane of a state by kind that starts.
    """

    current: Tensor
    steps: int
    sequence: bool
    state: Any = None
    rest: Any = 0.0


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

    def marked(self, module: nn.Module, call: Call, out: Any, mark: Mark) -> Any:
        """What a call returned, with every tensor marked as what it is."""

    def kept(self, module: nn.Module) -> dict[str, Kind]:
        """Attributes in which the module itself carries its state from call to call."""

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

    def marked(self, module: nn.Module, call: Call, out: Any, mark: Mark) -> Any:
        """The state stays as it is: it is what names the neurons at the next step."""
        return mark("spikes", out) if call.sequence else (mark("spikes", out[0]), out[1])

    def kept(self, module: nn.Module) -> dict[str, Kind]:
        """Nothing: states are handed over."""
        return {}

    def forget(self, module: nn.Module) -> None:
        """Nothing is kept."""


# Package, as it is imported by whoever made modules with it, and its class here.
_OTHERS = {"snntorch": "SnnTorch", "spikingjelly": "SpikingJelly", "norse": "Norse"}


def libraries() -> tuple[Library, ...]:
    """Ours, and those of packages that are loaded: a module of theirs can exist only then."""
    others = [
        getattr(importlib.import_module(f"snn_deploy.freezing.libraries.{package}"), name)()
        for package, name in _OTHERS.items()
        if package in sys.modules
    ]
    return (Ours(), *others)


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
    """Send all calls of a network's leaves through ``interceptor``.

    Their states begin and end clear.
    """
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
