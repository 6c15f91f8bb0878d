"""Other people's counters of operations, watching the torch form of a network."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from torch import nn

from tests.helpers.counters import LAYERS, Run
from tests.helpers.foreign import imported

operations = imported("neurobench.metrics.workload.synaptic_operations")
hooks = imported("neurobench.hooks.layer")
op_counter = imported("spikingjelly.activation_based.op_counter")


@dataclass(frozen=True, slots=True)
class Found:
    """Operations of one layer per sample."""

    accumulates: float
    products: float


def neurobench(run: Run) -> dict[str, Found]:
    """NeuroBench's ``SynapticOperations``, a layer at a time."""
    watched = {name: hooks.LayerHook(getattr(run.net, name)) for name in LAYERS}
    run.net(run.x)
    found = {}
    for name, hook in watched.items():
        model = SimpleNamespace(connection_hooks=[hook])
        counted = operations.SynapticOperations()(model, None, (run.x,))
        found[name] = Found(counted["Effective_ACs"], counted["Effective_MACs"])
        hook.close()
    return found


def spikingjelly(run: Run) -> dict[str, Found]:
    """SpikingJelly's ``SynOpCounter`` and ``MACCounter``."""
    synops, macs = op_counter.SynOpCounter(), op_counter.MACCounter()
    with op_counter.DispatchCounterMode([synops, macs]):
        run.net(run.x)

    def of(counter: Any, layer: str) -> float:
        scopes = [v for name, v in counter.get_counts().items() if name.endswith(f".{layer}")]
        return sum(sum(counts.values()) for counts in scopes) / len(run.x)

    return {name: Found(of(synops, name), of(macs, name)) for name in LAYERS}


def syops(run: Run) -> dict[str, Found]:
    """syops-counter's hooks."""
    rules = _syops_rules()
    handles = []
    for name in LAYERS:
        layer: Any = getattr(run.net, name)
        layer.__syops__ = np.zeros(4)
        rule = "conv" if isinstance(layer, nn.Conv2d) else "linear"
        hook = getattr(rules, f"{rule}_syops_counter_hook")
        handles.append(layer.register_forward_hook(hook))
    run.net(run.x)
    for handle in handles:
        handle.remove()
    counted = {name: getattr(run.net, name).__syops__ / len(run.x) for name in LAYERS}
    return {name: Found(float(c[1]), float(c[2])) for name, c in counted.items()}


COUNTERS = {"NeuroBench": neurobench, "SpikingJelly": spikingjelly, "syops-counter": syops}


def _syops_rules() -> ModuleType:
    """``syops/ops.py`` alone: the package around it draws progress bars.

    It asks SpikingJelly for neurons by names of before 2.0, only to count them; ours are not those.
    """
    spec = importlib.util.find_spec("syops")
    assert spec is not None
    assert spec.origin is not None
    old = ModuleType("spikingjelly.clock_driven.neuron")
    for name in ("IFNode", "LIFNode", "ParametricLIFNode"):
        for prefix in ("", "MultiStep"):
            setattr(old, prefix + name, type(prefix + name, (nn.Module,), {}))
    path = Path(spec.origin).with_name("ops.py")
    loading = importlib.util.spec_from_file_location("syops_ops", path)
    assert loading is not None
    assert loading.loader is not None
    made = importlib.util.module_from_spec(loading)
    names = ("spikingjelly.clock_driven", old.__name__)
    before = {name: sys.modules.get(name) for name in names}
    sys.modules |= {names[0]: ModuleType(names[0]), names[1]: old}
    try:
        loading.loader.exec_module(made)
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    return made
