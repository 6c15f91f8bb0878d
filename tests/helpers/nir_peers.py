"""Run a NIR file in snnTorch, Norse, SpikingJelly or sinabs, each through its own importer.

The libraries live in an environment of their own (``make peers``), whose packages come after ours.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.helpers.foreign import imported

Array = NDArray[Any]

snn_import = imported("snntorch.import_nir")
norse = imported("norse.torch")
jelly_nir = imported("spikingjelly.activation_based.nir_exchange")
sinabs_nir = imported("sinabs.nir")
sinabs_activation = imported("sinabs.activation")

SPIKING = (nir.LIF, nir.IF, nir.CubaLIF)
DT = 1e-4


class NotRecordedError(Exception):
    """Not every spike of a run was seen once: a fault of this module, no library's refusal."""


@dataclass(frozen=True, slots=True, eq=False)
class Ran:
    """What a library made of a file: spikes [B, T, ...] by NIR node, and the output [B, T, ...]."""

    spikes: dict[str, Array]
    output: Array


def run_in(peer: str, path: Path, inputs: Array) -> Ran:
    """Load a file with a library's own importer, and step it through inputs [B, T, ...].

    Whatever the library raises is passed on: it is how that library refuses the file.
    """
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        graph = nir.read(path)
        return PEERS[peer](graph, torch.from_numpy(inputs.astype(np.float32)))


def _recorder(net: nn.Module, graph: nir.NIRGraph) -> dict[str, list[Tensor]]:
    """Lists by neuron node, that fill with what its module emits."""
    modules = dict(net.named_modules())
    found: dict[str, list[Tensor]] = {}

    def hook(emitted: list[Tensor]) -> Callable[..., None]:
        def keep(module: nn.Module, _: Any, out: Any) -> None:
            emitted.append(out[0] if isinstance(out, tuple) else out)

        return keep

    for name, node in graph.nodes.items():
        if isinstance(node, SPIKING):
            module = modules[name.replace(".", "_")]
            module.register_forward_hook(hook(found.setdefault(name, [])))
    return found


def _stepped(net: Any, graph: nir.NIRGraph, x: Tensor) -> Ran:
    """Run a module that takes a timestep and a state, and returns both."""
    found, outputs, state = _recorder(net, graph), [], None
    for t in range(x.shape[1]):
        out, state = net(x[:, t], state)
        outputs.append(out)
    steps = x.shape[1]
    for name, emitted in found.items():
        if len(emitted) != steps:
            raise NotRecordedError(f"{name} was called {len(emitted)} times in {steps} timesteps")
    spikes = {name: torch.stack(emitted, 1).numpy() for name, emitted in found.items()}
    return Ran(spikes, torch.stack(outputs, 1).numpy())


def _in_snntorch(graph: nir.NIRGraph, x: Tensor) -> Ran:
    # Its importer wraps recurrent neurons into subgraphs, which nirtorch 2.6 then cannot load.
    wrap = snn_import._replace_rnn_subgraph_with_nirgraph
    snn_import._replace_rnn_subgraph_with_nirgraph = lambda one: one
    try:
        net = snn_import.import_from_nir(graph)
    finally:
        snn_import._replace_rnn_subgraph_with_nirgraph = wrap
    return _stepped(net, graph, x)


def _in_norse(graph: nir.NIRGraph, x: Tensor) -> Ran:
    return _stepped(norse.from_nir(graph, dt=DT, ignore_warnings=True), graph, x)


def _in_spikingjelly(graph: nir.NIRGraph, x: Tensor) -> Ran:
    return _stepped(jelly_nir.import_from_nir(graph, dt=DT), graph, x)


def _in_sinabs(graph: nir.NIRGraph, x: Tensor) -> Ran:
    """With what its importer leaves out set by hand: how neurons reset, and how often they fire."""
    for node in graph.nodes.values():
        if isinstance(node, nir.LIF | nir.LI):
            if node.v_leak.any() or (node.r != 1).any():
                raise ValueError("sinabs knows neither v_leak nor r")
            node.v_leak, node.r = np.zeros(1), np.ones(1)  # it asks any() of the rows of a map
    batch, steps = x.shape[:2]
    net = sinabs_nir.from_nir(graph, batch_size=batch)
    modules = dict(net.named_modules())
    for name, node in graph.nodes.items():
        if isinstance(node, SPIKING):
            module, unsaid = modules[name], node.metadata or {}
            if unsaid.get("reset") != "subtract":
                module.reset_fn = sinabs_activation.MembraneReset()
            else:
                amount = torch.from_numpy(np.asarray(unsaid["reset_amount"], np.float32))
                module.reset_fn = sinabs_activation.MembraneSubtract(amount)
            module.spike_fn = sinabs_activation.SingleSpike
            if "max_spikes" in unsaid:
                module.spike_fn = sinabs_activation.MaxSpike(int(unsaid["max_spikes"]))
    found = _recorder(net, graph)
    output, _ = net(x.flatten(0, 1))
    apart = (batch, steps)
    for name, emitted in found.items():
        if len(emitted) != 1:
            raise NotRecordedError(f"{name} was called {len(emitted)} times")
    spikes = {name: emitted[0].unflatten(0, apart).numpy() for name, emitted in found.items()}
    return Ran(spikes, output.unflatten(0, apart).numpy())


PEERS: dict[str, Callable[[nir.NIRGraph, Tensor], Ran]] = {
    "snntorch": _in_snntorch,
    "norse": _in_norse,
    "spikingjelly": _in_spikingjelly,
    "sinabs": _in_sinabs,
}
