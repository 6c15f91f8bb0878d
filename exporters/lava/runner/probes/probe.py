"""Lava processes that record a population, and that change its bias, at every timestep.

They move whole arrays through ports: Lava's ``Var.get`` and ``Var.set`` send one number at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyRefPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, RefPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


def _plain(shape: Any) -> tuple[int, ...]:
    """A shape of plain integers: a file may say its shapes in types that Lava's ports fail on."""
    return tuple(int(extent) for extent in shape)


class Probe(AbstractProcess):
    """Records spikes, current and membrane of a LIF-like process.

    Parameters
    ----------
    neurons : the process, with ``s_out``, ``u`` and ``v``.
    path : an .npy file, int32 [3, steps, *shape], that exists and is filled.
    """

    def __init__(self, neurons: Any, path: str) -> None:
        super().__init__(path=path)
        self.spikes = InPort(shape=_plain(neurons.s_out.shape))
        self.current = RefPort(shape=_plain(neurons.u.shape))
        self.membrane = RefPort(shape=_plain(neurons.v.shape))
        neurons.s_out.connect(self.spikes)
        self.current.connect_var(neurons.u)
        self.membrane.connect_var(neurons.v)


@implements(proc=Probe, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyProbe(PyLoihiProcessModel):
    """Spikes come while neurons are updated, the state after that is read when all are done."""

    spikes: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    current: PyRefPort = LavaPyType(PyRefPort.VEC_DENSE, np.int32)
    membrane: PyRefPort = LavaPyType(PyRefPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.recorded = np.load(proc_params["path"], mmap_mode="r+")

    def run_spk(self) -> None:
        """Record the spikes of this timestep; Lava counts timesteps from 1."""
        self.recorded[0, self.time_step - 1] = self.spikes.recv()

    def post_guard(self) -> bool:
        """Ask for the management phase, in which variables can be read, in every timestep."""
        return True

    def run_post_mgmt(self) -> None:
        """Record current and membrane after this timestep."""
        self.recorded[1, self.time_step - 1] = self.current.read()
        self.recorded[2, self.time_step - 1] = self.membrane.read()


class BiasWriter(AbstractProcess):
    """Writes a new bias into a LIF-like process after every ``window`` timesteps.

    Parameters
    ----------
    bias : the process' variable ``bias_mant``, which holds the first window's already.
    path : an .npy file, integers [windows, *shape]; the last one stays.
    window : timesteps.
    """

    def __init__(self, bias: Any, path: str, window: int) -> None:
        super().__init__(path=path, window=window)
        self.bias = RefPort(shape=_plain(bias.shape))
        self.bias.connect_var(bias)


@implements(proc=BiasWriter, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyBiasWriter(PyLoihiProcessModel):
    """Writes at the end of a window's last timestep."""

    bias: PyRefPort = LavaPyType(PyRefPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.maps = np.load(proc_params["path"], mmap_mode="r")
        self.window = proc_params["window"]

    def post_guard(self) -> bool:
        """Ask for the management phase, in which variables can be written, where one is due."""
        due, rest = divmod(self.time_step, self.window)
        return bool(rest == 0 and due < len(self.maps))

    def run_post_mgmt(self) -> None:
        """Write the next window's bias, and wait until it is there.

        Nothing acknowledges a write, and the neurons could begin the next timestep before they look
        for it. A read is answered, and only after the write before it.
        """
        self.bias.write(self.maps[self.time_step // self.window].astype(np.int32))
        self.bias.read()
