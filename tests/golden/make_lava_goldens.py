"""Record two small spiking networks as Intel's Lava runs them, step by step.

``lava_dense.npz`` and ``lava_conv.npz`` are recordings of Lava's fixed-point CPU models (lava-nc
0.10.0 with lava-dl 0.6.0). The reference simulator must equal them in every bit at every timestep.

- ``lava_dense.npz``: 24 -> 20 -> 10, dense, 80 steps. Bias 0 of layer 0 equals its threshold, so
  that after step 1 that membrane lies exactly on the threshold, which is not enough to spike.
- ``lava_conv.npz``: 2x9x8 -> conv 3x3 -> 6x9x8 -> conv 3x2, stride 2 -> 8x5x4 -> dense -> 10,
  60 steps. Images are channel, height, width; the dense layer reads them flattened in that order.

Both files hold, for every synaptic layer ``i`` from 0 on:

- ``kind_i``: "dense" or "conv"; ``weight_i``: (out, in) or (out, in, height, width), applied as a
  cross-correlation; ``bias_i``: one per neuron or channel, zeros if the layer has none;
- ``stride_i``, ``padding_i``: (y, x), of conv layers only;
- ``v_decay_i``: of 4096, what the membrane loses in a step (the current decay is 4096, so that a
  current lasts one step); ``threshold_i``: in weight units, each being 64 membrane units;
- ``s_i``, ``u_i``, ``v_i``: spikes, currents and membranes after each step, the membrane after
  its reset to zero. Row k is Lava's timestep k + 1.

``input`` holds the spikes fed: row k is sent in timestep k + 1, reaches layer 0 one step later, and
each further layer one step after the layer before. Nothing is ever reset but by a spike, and biases
act from timestep 1 on in all layers. ``lava_versions`` names what was run.

To make them again, with the Python of an environment that has Lava, and an oracle script that runs
``NETWORK.net INPUT.npz OUTPUT.npz`` on Lava's ``fixed_pt`` models and records ``s0``, ``u0``, ...::

    python make_lava_goldens.py --lava-python PYTHON --oracle lava_oracle.py

Lava (BSD-3-Clause and LGPL-2.1) is only run, in a process of its own. None of its code is here.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LAVA_VERSIONS = "lava-nc 0.10.0, lava-dl 0.6.0"
SEED = 20240521
TIMEOUT_SECONDS = 300
MAX_BYTES = 300_000


@dataclass(frozen=True)
class Layer:
    """A dense layer (2-D weight) or a conv layer (4-D weight), and the neurons behind it."""

    weight: Array
    bias: Array | None
    shape: tuple[int, ...]
    v_decay: int
    threshold: int
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)

    @property
    def kind(self) -> str:
        return "conv" if self.weight.ndim == 4 else "dense"


def even_weights(rng: np.random.Generator, shape: tuple[int, ...], low: int, high: int) -> Array:
    """Even integers of both signs, with both ends of the range among them."""
    weight = 2 * rng.integers(low // 2, high // 2, size=shape, endpoint=True)
    weight.flat[rng.choice(weight.size, size=2, replace=False)] = (low, high)
    return weight.astype(np.int16)


def biases(rng: np.random.Generator, size: int, low: int, high: int) -> Array:
    return rng.integers(low, high, size=size, endpoint=True).astype(np.int16)


def spikes(
    rng: np.random.Generator, shape: tuple[int, ...], blocks: list[tuple[int, float]]
) -> Array:
    """Random spikes; each block gives a number of steps and the density in them."""
    density = np.repeat([d for _, d in blocks], [n for n, _ in blocks])
    draws = rng.random((len(density), *shape))
    return (draws < density.reshape(-1, *[1] * len(shape))).astype(np.uint8)


def dense_network(rng: np.random.Generator) -> tuple[list[Layer], Array]:
    first_bias = biases(rng, 20, -60, 90)
    first_bias[0] = 330
    layers = [
        Layer(even_weights(rng, (20, 24), -256, 254), first_bias, (20,), 2048, 330),
        Layer(even_weights(rng, (10, 20), -120, 140), biases(rng, 10, -25, 35), (10,), 614, 420),
    ]
    blocks = [(6, 0.0), (20, 0.1), (16, 0.5), (10, 0.0), (10, 0.1), (12, 0.5), (6, 0.0)]
    return layers, spikes(rng, (24,), blocks)


def conv_network(rng: np.random.Generator) -> tuple[list[Layer], Array]:
    layers = [
        Layer(
            even_weights(rng, (6, 2, 3, 3), -100, 128),
            biases(rng, 6, -30, 20),
            (6, 9, 8),
            1229,
            300,
            padding=(1, 1),
        ),
        Layer(
            even_weights(rng, (8, 6, 3, 2), -200, 220),
            None,
            (8, 5, 4),
            410,
            500,
            stride=(2, 2),
            padding=(1, 0),
        ),
        Layer(even_weights(rng, (10, 160), -90, 100), biases(rng, 10, -60, -1), (10,), 2867, 260),
    ]
    blocks = [(4, 0.0), (16, 0.1), (12, 0.5), (8, 0.0), (8, 0.2), (8, 0.5), (4, 0.0)]
    return layers, spikes(rng, (2, 9, 8), blocks)


def write_netx(path: Path, layers: list[Layer], input_shape: tuple[int, ...]) -> None:
    """Write the network as a netx file: groups /layer/0, /layer/1, ... in execution order."""
    entries: list[dict[str, Any]] = []
    if len(input_shape) == 3:
        entries.append({"type": "input", "shape": input_shape})
    previous = "dense"
    for layer in layers:
        if (previous, layer.kind) == ("conv", "dense"):
            entries.append({"type": "flatten"})
        entry: dict[str, Any] = {"type": layer.kind, "shape": layer.shape}
        entry["weight"] = layer.weight.astype(np.int32)
        if layer.bias is not None:
            entry["bias"] = layer.bias.astype(np.int32)
        if layer.kind == "conv":
            entry |= {"stride": layer.stride, "padding": layer.padding, "dilation": (1, 1)}
            entry["groups"] = 1
        neuron = {"iDecay": 4096, "vDecay": layer.v_decay, "vThMant": layer.threshold}
        entry |= {"neuron/type": "CUBA"} | {f"neuron/{k}": value for k, value in neuron.items()}
        entries.append(entry)
        previous = layer.kind
    with h5py.File(path, "w") as file:
        for i, entry in enumerate(entries):
            for key, value in entry.items():
                file[f"layer/{i}/{key}"] = value


def run_bounded(command: list[str]) -> str:
    """Run a command with a timeout that also ends its children: Lava can hang in one of them."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if process.returncode:
        raise SystemExit(f"{command[0]} failed:\n{output}")
    return output


def check_versions(lava_python: str) -> None:
    names = "'lava-nc', 'lava-dl'"
    code = f"from importlib.metadata import version as v; print(*(v(n) for n in ({names})))"
    found = run_bounded([lava_python, "-c", code]).split()
    if "lava-nc {}, lava-dl {}".format(*found) != LAVA_VERSIONS:
        raise SystemExit(f"found versions {found}, but these recordings are of {LAVA_VERSIONS}")


def record(lava_python: str, oracle: str, layers: list[Layer], fed: Array) -> dict[str, Any]:
    """Run the network in Lava and return everything that a recording holds."""
    with tempfile.TemporaryDirectory() as folder:
        network, given, out = (Path(folder, n) for n in ("network.net", "given.npz", "out.npz"))
        write_netx(network, layers, fed.shape[1:])
        np.savez(given, spikes=fed)
        run_bounded([lava_python, oracle, str(network), str(given), str(out)])
        with np.load(out) as file:
            seen = {key: file[key] for key in file.files if key != "meta"}
    if not np.array_equal(seen["in"], fed):
        raise SystemExit("Lava was not fed the input it was meant to be fed")
    arrays: dict[str, Any] = {"lava_versions": np.array(LAVA_VERSIONS), "input": fed}
    for i, layer in enumerate(layers):
        no_bias = np.zeros(layer.weight.shape[0], np.int16)
        arrays[f"kind_{i}"] = np.array(layer.kind)
        arrays[f"weight_{i}"] = layer.weight
        arrays[f"bias_{i}"] = no_bias if layer.bias is None else layer.bias
        if layer.kind == "conv":
            arrays[f"stride_{i}"] = np.array(layer.stride)
            arrays[f"padding_{i}"] = np.array(layer.padding)
        arrays[f"v_decay_{i}"] = np.array(layer.v_decay)
        arrays[f"threshold_{i}"] = np.array(layer.threshold)
        for name, dtype in (("s", np.uint8), ("u", np.int32), ("v", np.int32)):
            values = seen[f"{name}{i}"].astype(dtype)
            if values.shape != (len(fed), *layer.shape):
                raise SystemExit(f"{name}{i} has shape {values.shape}")
            arrays[f"{name}_{i}"] = values
    return arrays


def check_worth(name: str, layer: int, arrays: dict[str, Any]) -> None:
    """Refuse a recording in which a wrong rule could go unnoticed."""
    s, u, v = (arrays[f"{key}_{layer}"] for key in "suv")
    rate, off_grid = s.mean(), np.mean(v % 64 != 0)
    cut = np.mean((v < 0) & (v * (4096 - int(arrays[f"v_decay_{layer}"])) % 4096 != 0))
    print(
        f"{name} layer {layer}: rate {rate:.1%}, membranes off the multiples of 64 {off_grid:.1%}, "
        f"negative with a truncated decay {cut:.1%}, "
        f"u {u.min()}..{u.max()}, v {v.min()}..{v.max()}, threshold "
        f"{64 * arrays[f'threshold_{layer}']}"
    )
    if not (0.02 <= rate <= 0.6 and off_grid >= 0.4 and cut >= 0.1 and abs(u).max() < 2**22):
        raise SystemExit("not worth recording: choose other parameters")


def main() -> None:
    parser = argparse.ArgumentParser(description="Record two small networks as Lava runs them.")
    parser.add_argument("--lava-python", required=True, help="a Python that has Lava")
    parser.add_argument("--oracle", required=True, help="the oracle script, lava_oracle.py")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).resolve().parent)
    arguments = parser.parse_args()
    check_versions(arguments.lava_python)
    arguments.output.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    for name, (layers, fed) in {"dense": dense_network(rng), "conv": conv_network(rng)}.items():
        arrays = record(arguments.lava_python, arguments.oracle, layers, fed)
        for i in range(len(layers)):
            check_worth(name, i, arrays)
        path = arguments.output / f"lava_{name}.npz"
        np.savez_compressed(path, **arrays)
        if path.stat().st_size > MAX_BYTES:
            raise SystemExit(f"{path.name} is too large: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
