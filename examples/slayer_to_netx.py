"""Make a netx file of weights that were trained with SLAYER's Loihi layers.

    python examples/slayer_to_netx.py WEIGHTS.npz OUT.net fc1 fc2

``WEIGHTS.npz`` holds one integer array [outputs, inputs] for each fully connected layer, named on
the command line in the order in which spikes pass them. The integers are Loihi's own: SLAYER rounds
to even ones while it trains. A spike adds 64 times the weight to the synaptic current. Neurons are
as in SLAYER's network description, the same in all layers; the defaults are those of its example
for N-MNIST. The file runs with ``snn-deploy sim OUT.net``, and in Intel's Lava.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import h5py
import numpy as np


def main() -> None:
    """Write the file."""
    description, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path, metavar="WEIGHTS.npz")
    parser.add_argument("output", type=Path, metavar="OUT.net")
    parser.add_argument("layers", nargs="+", metavar="LAYER", help="names of arrays, in order")
    for name, value in (("iDecay", 1024), ("vDecay", 128), ("vThMant", 80)):
        parser.add_argument(f"--{name}", type=int, default=value, help="default: %(default)s")
    arguments = parser.parse_args()
    with np.load(arguments.weights) as held, h5py.File(arguments.output, "w") as file:
        for index, name in enumerate(arguments.layers):
            weight = held[name]
            if weight.ndim != 2 or weight.dtype.kind not in "iu":
                raise SystemExit(f"{name}: {weight.dtype} {weight.shape} is no dense layer")
            layer = file.create_group(f"layer/{index}")
            layer.create_dataset("type", (1,), "S10", [b"dense"])
            layer["shape"] = np.array([len(weight)])
            layer["weight"] = weight.astype(np.int32)
            layer["neuron/type"] = b"CUBA"
            for parameter in ("iDecay", "vDecay", "vThMant"):
                layer[f"neuron/{parameter}"] = getattr(arguments, parameter)


if __name__ == "__main__":
    main()
