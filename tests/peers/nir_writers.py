"""The NIR files that libraries write of their own modules, and what those modules do.

Weights become multiples of 1/8. Edges are sorted before a graph is written, since most exporters
list them in the order of a set of strings, which differs from run to run; nothing else is changed
beyond what :func:`_written` says.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.helpers.foreign import imported
from tests.peers.nir_modules import (
    BATCH,
    HIDDEN,
    KINDS,
    STEPS,
    Net,
    Random,
    norse,
    rockpool,
    sj_neuron,
    sl,
    snn,
)

Array = NDArray[Any]

snn_export = imported("snntorch.export_nir")
sj = imported("spikingjelly.activation_based.functional")
sj_nir = imported("spikingjelly.activation_based.nir_exchange")
sinabs_nir = imported("sinabs.nir")


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """A graph as a library writes it, and its module's own run.

    Attributes
    ----------
    graph : what the library's exporter returned.
    inputs : 0/1 [B, T, *shape], uint8.
    spikes : NIR node -> number of spikes [B, T, ...], uint8.
    output : what the module returns, float32 [B, T, ...].
    info : plain data: peer, kind, seed, version; dialect, dt and reset to read it with; lost.
    """

    graph: nir.NIRGraph
    inputs: Array
    spikes: dict[str, Array]
    output: Array
    info: dict[str, Any]


def written_by(peer: str, kind: str, seed: int) -> Written:
    """The network of this kind and seed, as the library writes and as it runs it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the libraries use of nirtorch and torch
        return _made(peer, kind, seed)


def _made(peer: str, kind: str, seed: int) -> Written:
    number = [*KINDS[peer]].index(kind)
    random = np.random.default_rng([seed, number, *peer.encode()])
    torch.manual_seed(seed)
    net = KINDS[peer][kind](random)
    _round_weights(net.model, random)
    inputs = (random.random((BATCH, STEPS, *net.shape)) < random.uniform(0.2, 0.7)).astype(np.uint8)
    graph = _written(peer, net)
    with torch.no_grad():
        spikes, output = RUNS[peer](net.model, torch.from_numpy(inputs.astype(np.float32)))
    info = {
        "peer": peer,
        "kind": kind,
        "seed": seed,
        "version": importlib.metadata.version(peer),
        "dialect": net.dialect or peer,
        "dt": net.dt,
        "reset": net.reset,
        "lost": list(net.lost),
    }
    return Written(graph, inputs, spikes, output, info)


def _round_weights(model: Any, random: Random) -> None:
    """Replace weights and biases of synapses by multiples of 1/8."""
    for module in nn.Module.modules(model):  # rockpool's modules() is another method
        if not isinstance(module, nn.Linear | nn.Conv2d | rockpool.LinearTorch):
            continue
        few = module.weight.numel() <= HIDDEN * HIDDEN
        for name, mean, spread in (("weight", 0.25 if few else 0.0, 1.0), ("bias", 0.0, 0.25)):
            old = getattr(module, name, None)
            if old is not None:
                drawn = random.normal(mean, spread if few else spread / 2, tuple(old.shape))
                with torch.no_grad():
                    old.copy_(torch.from_numpy(np.round(drawn * 8) / 8))


def _written(peer: str, net: Net) -> nir.NIRGraph:
    """The library's own export; the calls around it are those that it needs to succeed."""
    one = torch.zeros(net.shape)
    if peer == "snntorch":
        graph = snn_export.export_to_nir(net.model, one[None], ignore_dims=[0])
    elif peer == "spikingjelly":
        graph = sj_nir.export_to_nir(net.model, one[None])
    elif peer == "norse":
        graph = norse.to_nir(net.model, one, **net.options)
    elif peer == "sinabs":
        # its neurons fold the samples' axis into time
        graph = sinabs_nir.to_nir(net.model, torch.zeros(BATCH, *net.shape))
    else:
        graph = rockpool.to_nir(net.model)
    if len(net.shape) > 1 and peer in ("norse", "sinabs"):
        graph.infer_types()  # else a convolution has no input shape, and cannot be written
    graph.edges = sorted(graph.edges)
    return graph


# ---- their own runs: spikes [B, T, ...] by NIR node, and the output ----

Run = Callable[[Any, Tensor], tuple[dict[str, Array], Array]]


def _recorded(model: Any, neurons: tuple[type, ...]) -> dict[str, list[Tensor]]:
    """Lists that fill with what the neurons of these types emit, by their path."""
    found: dict[str, list[Tensor]] = {}

    def hook(name: str) -> Any:
        def keep(module: nn.Module, _: Any, out: Any) -> None:
            found.setdefault(name, []).append(out[0] if isinstance(out, tuple) else out)

        return keep

    for name, module in model.named_modules():
        if isinstance(module, neurons):
            module.register_forward_hook(hook(name))
    return found


def _counts(spikes: Tensor) -> Array:
    counts = spikes.numpy()
    assert (counts == counts.astype(np.uint8)).all()
    return counts.astype(np.uint8)


def _step_by_step(
    model: Any, x: Tensor, neurons: tuple[type, ...], name: Callable[[str, Any], str]
) -> tuple[dict[str, Array], Array]:
    found = _recorded(model, neurons)
    state: Any = None
    outputs: list[Tensor] = []
    for t in range(x.shape[1]):
        out = model(x[:, t], state) if isinstance(model, norse.SequentialState) else model(x[:, t])
        out, state = out if isinstance(out, tuple) else (out, None)
        outputs.append(out)
    modules = dict(model.named_modules())
    stacked = {
        name(path, modules[path]): _counts(torch.stack(all_, 1)) for path, all_ in found.items()
    }
    return stacked, torch.stack(outputs, 1).numpy()


def _run_snntorch(model: Any, x: Tensor) -> tuple[dict[str, Array], Array]:
    kinds: tuple[type, ...] = (snn.Leaky, snn.Synaptic, snn.RLeaky, snn.RSynaptic)
    for module in model.modules():
        if isinstance(module, kinds):
            module.reset_mem()
    return _step_by_step(
        model, x, kinds,
        lambda path, module: f"{path}.lif" if type(module).__name__.startswith("R") else path,
    )  # fmt: skip


def _run_spikingjelly(model: Any, x: Tensor) -> tuple[dict[str, Array], Array]:
    sj.reset_net(model)
    return _step_by_step(
        model, x, (sj_neuron.BaseNode,), lambda path, _: f"_{path}" if path.isdigit() else path
    )


def _run_norse(model: Any, x: Tensor) -> tuple[dict[str, Array], Array]:
    spiking = (norse.LIFBoxCell, norse.LIFCell, norse.IAFCell)
    return _step_by_step(model, x, spiking, lambda path, _: path)


def _run_sinabs(model: Any, x: Tensor) -> tuple[dict[str, Array], Array]:
    for module in model.modules():
        if isinstance(module, sl.StatefulLayer):
            module.reset_states()
    found = _recorded(model, (sl.StatefulLayer,))
    batch, steps = x.shape[:2]
    output = model(x.flatten(0, 1)).unflatten(0, (batch, steps)).numpy()
    modules = dict(model.named_modules())
    spikes = {
        path: _counts(one.unflatten(0, (batch, steps)))
        for path, (one,) in found.items()
        if modules[path].does_spike
    }
    return spikes, output


def _run_rockpool(model: Any, x: Tensor) -> tuple[dict[str, Array], Array]:
    model.reset_state()
    output, _, record = model(x, record=True)
    spikes = {
        name: _counts(one["spikes"])
        for name, one in record.items()
        if isinstance(one, dict) and "spikes" in one
    }
    return spikes, output.numpy()


RUNS: dict[str, Run] = {
    "snntorch": _run_snntorch,
    "spikingjelly": _run_spikingjelly,
    "norse": _run_norse,
    "sinabs": _run_sinabs,
    "rockpool": _run_rockpool,
}
