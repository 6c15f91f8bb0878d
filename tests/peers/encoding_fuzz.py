"""What netx and Lava's Dense make of dense weights. Lava's Python runs it for test_encoding.py.

    LAVA_PYTHON encoding_fuzz.py MATRICES.npz ACTS.npz

``MATRICES.npz`` holds ``w0``, ``w1``, ... and, for layers with recurrence, ``r0``, ...: weights as
a file holds them. Each is written to an HDF5 file in memory, read by netx as a layer of a network,
and the model of the resulting synapses is stepped by hand. Lava's own code does all of it; only
the channels between processes are replaced. ``ACTS.npz`` holds for each matrix

- ``w0.each``: (N_out, N_in), the activation that a single spike of each input causes;
- ``w0.all``: (N_out,), the activation when all inputs spike;
- ``w0.kept``: (N_out, N_in), the weights as Lava keeps them, shifted to the left by ``w0.shift``;

and the same for ``r0``; or ``failed0``, the name of the error with which netx refused the layer.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

LAVA_EXPORTER = Path(__file__).resolve().parents[2] / "exporters" / "lava"


def import_lava() -> SimpleNamespace:
    """The parts of Lava that are asked."""
    sys.path.insert(0, str(LAVA_EXPORTER))
    importlib.import_module("runner.lava_imports").import_lava()
    return SimpleNamespace(
        Network=importlib.import_module("lava.lib.dl.netx.hdf5").Network,
        NetDict=importlib.import_module("lava.lib.dl.netx.utils").NetDict,
        DenseModel=importlib.import_module("lava.proc.dense.models").PyDenseModelBitAcc,
    )


def layer(lava: SimpleNamespace, weight: Any, recurrent: Any) -> Any:
    """The layer that netx makes of weights in a file."""
    h5py = importlib.import_module("h5py")
    with h5py.File("layer", "w", driver="core", backing_store=False) as file:
        file["type"] = b"dense" if recurrent is None else b"dense_rec"
        file["shape"] = [len(weight)]
        file["weight"] = weight
        if recurrent is not None:
            file["weight_rec"] = recurrent
        return lava.Network.create_dense(lava.NetDict(f=file), rec=recurrent is not None)[0]


class Synapses:
    """The model of a Dense process, without the process."""

    def __init__(self, lava: SimpleNamespace, process: Any) -> None:
        weights = np.asarray(process.weights.init)
        self.inputs = weights.shape[1]
        self.spikes = np.zeros(self.inputs, np.int32)
        self.sent: list[Any] = []
        model = object.__new__(lava.DenseModel)  # its __init__ asks for a running process
        model.proc_params = {
            name: process.proc_params[name] for name in ("weight_exp", "num_weight_bits")
        }
        model.weights_set = False
        model.weights = weights.astype(np.int32)  # as the builder fills the model's variable
        model.num_message_bits = np.zeros(1, int)
        model.a_buff = np.zeros(len(weights), np.int32)
        model.s_in = SimpleNamespace(recv=lambda: self.spikes)
        model.a_out = SimpleNamespace(send=self.sent.append)
        self.model = model
        self.respond()

    def respond(self, *spiking: int) -> Any:
        """The activation that spikes of these inputs cause, which is sent one step later."""
        self.spikes = np.zeros(self.inputs, np.int32)
        self.spikes[list(spiking)] = 1
        self.model.run_spk()
        self.model.run_spk()
        return np.asarray(self.sent[-1]).astype(np.int32)

    def described(self, name: str) -> dict[str, Any]:
        """What is written about these synapses."""
        return {
            f"{name}.each": np.stack([self.respond(i) for i in range(self.inputs)], axis=1),
            f"{name}.all": self.respond(*range(self.inputs)),
            f"{name}.kept": self.model.weights,
            f"{name}.shift": np.array(-self.model.weight_exp),
        }


def main() -> None:
    """Answer for every matrix of the input file."""
    warnings.simplefilter("ignore", RuntimeWarning)  # netx divides by zero where no weight is > 0
    source, target = sys.argv[1:]
    lava = import_lava()
    found: dict[str, Any] = {}
    with np.load(source) as file, contextlib.redirect_stdout(io.StringIO()):  # netx warns of clips
        given = {name: file[name] for name in file.files}
        for index in range(sum(name.startswith("w") for name in given)):
            try:
                made = layer(lava, given[f"w{index}"], given.get(f"r{index}"))
            except (OverflowError, ValueError) as error:
                found[f"failed{index}"] = np.array(type(error).__name__)
                continue
            found |= Synapses(lava, made.synapse).described(f"w{index}")
            if f"r{index}" in given:
                found |= Synapses(lava, made.synapse_rec).described(f"r{index}")
    np.savez(target, **found)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
