"""Networks to run: netx files, and programs that build Lava processes."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .recording import Array, channels_first, record
from .supervision import RunError

# Neuron parameters that Lava multiplies and shifts as integers, and would hang on as floats.
INTEGER_PARAMETERS = ("iDecay", "vDecay", "vThMant")


def run_net(
    path: Path,
    given: dict[str, Array],
    folder: Path,
    *,
    steps: int,
    reset_interval: int | None = None,
    reset_offset: int = 0,
    input_message_bits: int = 0,
    input_shape: tuple[int, ...] | None = None,
    window: int | None = None,
) -> dict[str, Array]:
    """Run a netx file on Lava's fixed-point models.

    Parameters
    ----------
    path : the netx file.
    given : ``spikes``, integers [T, N] or [T, C, H, W], for a net that begins with synapses; or
        ``bias``, integers [W, N] or [W, C, H, W], for one that begins with neurons.
    folder : for scratch files.
    steps : timesteps to run.
    reset_interval, reset_offset, input_message_bits : as Lava's netx takes them.
    input_shape : [W, H, C] of the input, if neither the file nor ``spikes`` says it.
    window : timesteps for which each map of ``bias`` is in force, the last one to the end.

    Returns
    -------
    name -> array
        See :func:`~.recording.record`. Populations are called 0, 1, ... in the order of the file;
        only layers with neurons count.
    """
    check_file(path)
    kind = next((key for key in ("spikes", "bias") if key in given), None)
    if kind is None or len(given) != 1:
        raise RunError(f"the input must hold either spikes or bias, not {sorted(given)}")
    fed = given[kind]
    if fed.dtype.kind not in "biu" or fed.ndim not in (2, 4) or not len(fed):
        raise RunError(
            f"{kind} must be integers [T, N] or [T, C, H, W], not {fed.dtype} {fed.shape}"
        )
    fed = channels_first(fed)
    if input_shape is None and kind == "spikes" and fed.ndim == 4:
        input_shape = fed.shape[1:]
    net = importlib.import_module("lava.lib.dl.netx.hdf5").Network(
        net_config=str(path),
        input_message_bits=input_message_bits,
        input_shape=input_shape,
        reset_interval=reset_interval,
        reset_offset=reset_offset,
    )
    starts_with_neurons = net.in_layer.block == "Input"
    if starts_with_neurons != (kind == "bias"):
        begin = "neurons, which take bias" if starts_with_neurons else "synapses, which take spikes"
        raise RunError(f"the input holds {kind}, but the net begins with {begin}")
    if kind == "bias":
        _feed_bias(net.in_layer.neuron, fed, window, folder)
    else:
        _feed_spikes(net, fed, steps)
    populations = {str(i): layer.neuron for i, layer in enumerate(net.layers)}
    return record(net, populations, steps, folder)


def run_program(
    path: Path,
    given: dict[str, Array],
    folder: Path,
    *,
    steps: int,
    reset_interval: int | None = None,
    reset_offset: int | None = None,
    window: int | None = None,
) -> dict[str, Array]:
    """Run what a Python module builds of Lava's processes.

    Its ``build(steps, inputs, reset_interval, reset_offset)`` returns an object with
    ``run_process``, on which ``run`` is called, ``populations``: name -> LIF-like process, and
    ``biased``: the one that takes the input ``bias``, or None. ``inputs`` are the arrays of the
    input file as they are. The rest is as in :func:`run_net`.
    """
    spec = importlib.util.spec_from_file_location("lava_program", path)
    if spec is None or spec.loader is None:
        raise RunError(f"{path} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    built = module.build(
        steps=steps, inputs=given, reset_interval=reset_interval, reset_offset=reset_offset
    )
    if built.biased is not None:
        _feed_bias(built.biased, channels_first(given["bias"]), window, folder)
    return record(built.run_process, built.populations, steps, folder)


def check_file(path: Path) -> None:
    """Refuse files on which Lava would hang, or run other models than this runner records.

    Raises
    ------
    RunError
        Naming the dataset.
    """
    if not path.exists():
        raise RunError(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            for number, layer in file["layer"].items():
                if "neuron" in layer:
                    _check_neuron(layer["neuron"], f"/layer/{number}/neuron")
    except (OSError, KeyError) as error:
        raise RunError(f"{path} is not a netx file: {error}") from None


def _check_neuron(neuron: h5py.Group, where: str) -> None:
    kind = np.ravel(neuron["type"][()])[0].decode("ascii")
    if kind not in ("CUBA", "LOIHI"):
        raise RunError(f"{where}/type is {kind}, not CUBA or LOIHI")
    for name in INTEGER_PARAMETERS:
        if neuron[name].dtype.kind not in "iu":
            raise RunError(f"{where}/{name} is {neuron[name].dtype}, not an integer")
    if "messageBits" in neuron:
        raise RunError(f"{where}/messageBits: Lava cannot run neurons with graded spikes")


def _feed_spikes(net: Any, spikes: Array, steps: int) -> None:
    """Connect a source of spikes: row k is sent in timestep k + 1."""
    shape = tuple(net.inp.shape)
    if len(shape) == 1 and spikes.ndim == 4:
        spikes = channels_first(spikes).reshape(len(spikes), -1)
    if spikes.shape[1:] != shape:
        raise RunError(f"spikes are {spikes.shape[1:]}, the net takes {shape} (Lava's order)")
    # The source begins anew at its end: silence follows instead.
    data = np.zeros((*shape, steps), np.int32)
    rows = min(steps, len(spikes))
    data[..., :rows] = np.moveaxis(spikes[:rows], 0, -1)
    source = importlib.import_module("lava.proc.io").source.RingBuffer(data=data)
    source.s_out.connect(net.inp)


def _feed_bias(neurons: Any, maps: Array, window: int | None, folder: Path) -> None:
    """Set the first map, and make a process that writes the others when their time comes."""
    shape = tuple(neurons.bias_mant.shape)
    if maps.shape[1:] != shape:
        raise RunError(f"biases are {maps.shape[1:]}, the net takes {shape} (Lava's order)")
    # Lava keeps the mantissa in 16 bits, and wraps it when it builds a process, but not later.
    maps = maps.astype(np.int16).astype(np.int32)
    neurons.bias_mant.init = maps[0]
    if len(maps) == 1:
        return
    if window is None:
        raise RunError(f"{len(maps)} maps of bias need a window")
    path = folder / "bias.npy"
    np.save(path, maps)
    probe = importlib.import_module(".probes.probe", __package__)
    probe.BiasWriter(neurons.bias_mant, str(path), window)
