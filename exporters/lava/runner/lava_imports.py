"""Import Lava, also where its requirements are not met in full.

lava-nc 0.10.0 and lava-dl 0.6.0 ask for Python 3.10 and torch. Both run networks on Python 3.11
too, and need torch for training only. Nothing on disk is changed.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import sys
import types
import warnings


def import_lava() -> None:
    """Import what runs networks. It is slow, so do it before forking."""
    # The compiler executes the modules beside each process' own, and warns of those that fail.
    warnings.filterwarnings("ignore", message="Cannot import module")
    if sys.version_info >= (3, 11):
        _import_unhashable_defaults()
    if importlib.util.find_spec("torch") is None:
        _stand_in_for_training()
    for name in ("lib.dl.netx.hdf5", "magma.core.run_configs", "proc.io"):
        importlib.import_module(f"lava.{name}")


def _import_unhashable_defaults() -> None:
    """Import the module whose dataclasses have other dataclasses as defaults.

    Since Python 3.11 such a default must be hashable, so all that it defines are made hashable.
    """
    original = dataclasses.dataclass
    dataclasses.dataclass = functools.partial(original, unsafe_hash=True)
    try:
        importlib.import_module("lava.magma.compiler.var_model")
    finally:
        dataclasses.dataclass = original


def _stand_in_for_training() -> None:
    """Put empty modules where lava-dl imports those that need torch.

    Of all these, reading networks uses one function, for resonate-and-fire neurons.
    """
    netx = importlib.util.find_spec("lava.lib.dl.netx")
    assert netx is not None
    assert netx.submodule_search_locations is not None
    for name in ("slayer", "slayer.neuron", "slayer.neuron.rf", "netx.sequential_modules"):
        module = types.ModuleType(f"lava.lib.dl.{name}")
        module.__path__ = []
        # The compiler asks for the file of every module beside netx.hdf5.
        module.__file__ = f"{netx.submodule_search_locations[0]}/sequential_modules.py"
        sys.modules[module.__name__] = module
    sys.modules["lava.lib.dl.slayer.neuron.rf"].neuron_params = _no_neuron_params  # type: ignore[attr-defined]


def _no_neuron_params(*_: object) -> None:
    raise NotImplementedError(
        "resonate-and-fire neurons need lava-dl's slayer, and that needs torch"
    )
