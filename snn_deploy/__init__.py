"""snn-deploy: put a spiking neural network trained with ASGL on a neuromorphic chip, exactly.

The public API on one screen; each name is loaded when it is first used, so that importing the
package (and simulating) never loads torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snn_deploy.artefacts import export, open_artefact
    from snn_deploy.checking import check
    from snn_deploy.diffing import diff
    from snn_deploy.energy_model import energy
    from snn_deploy.errors import SnnDeployError
    from snn_deploy.events import record
    from snn_deploy.exporters import ReadOptions
    from snn_deploy.freezing import freeze
    from snn_deploy.inspection import inspect
    from snn_deploy.mapping.placing import place
    from snn_deploy.nn.checkpoint import load, save
    from snn_deploy.nn.trainer import train
    from snn_deploy.packet_files import open_recording
    from snn_deploy.packets import Recording, read_recording
    from snn_deploy.parity import verify
    from snn_deploy.quantization import quantize
    from snn_deploy.sim import Simulator, simulate

__all__ = [
    "ReadOptions",
    "Recording",
    "Simulator",
    "SnnDeployError",
    "check",
    "diff",
    "energy",
    "export",
    "freeze",
    "inspect",
    "load",
    "open_artefact",
    "open_recording",
    "place",
    "quantize",
    "read_recording",
    "record",
    "save",
    "simulate",
    "train",
    "verify",
]

_HOME = {
    "ReadOptions": "exporters",
    "Recording": "packets",
    "Simulator": "sim",
    "SnnDeployError": "errors",
    "check": "checking",
    "diff": "diffing",
    "energy": "energy_model",
    "export": "artefacts",
    "freeze": "freezing",
    "inspect": "inspection",
    "load": "nn.checkpoint",
    "open_artefact": "artefacts",
    "open_recording": "packet_files",
    "place": "mapping.placing",
    "quantize": "quantization",
    "read_recording": "packets",
    "record": "events",
    "save": "nn.checkpoint",
    "simulate": "sim",
    "train": "nn.trainer",
    "verify": "parity",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
