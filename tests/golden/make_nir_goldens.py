"""Keep NIR files that other libraries wrote, with what the modules they were written from did.

``nir/PEER_KIND.nir`` is what the library's exporter made of a module of its own, and ``.npz`` beside
it holds, for the same module:

- ``inputs``: 0/1 [B, T, *shape], uint8;
- ``NODE.spikes`` for every neuron node NODE of the file: how often it fired, uint8 [B, T, ...];
- ``output``: what the module returned, float32 [B, T, ...].

``nir/recordings.json`` says of each file: ``peer``, ``version``, ``kind``, ``seed``; ``dt``, the
length of the module's timestep in the file's unit of time; ``reset``, what a spike does in it (``zero``:
to the file's v_reset; ``subtract``: the threshold is subtracted); and what else the file does not
say (``lost``). States start at zero unless that says otherwise.

To make them again, where the libraries are (see `make peers`; nothing of theirs is here but what they
wrote)::

    SNN_DEPLOY_MODULES=... python -m tests.golden.make_nir_goldens
"""

from __future__ import annotations

import json
from pathlib import Path

import nir
import numpy as np

FOLDER = Path(__file__).parent / "nir"
SEED = 0
KEPT = (
    ("snntorch", "leaky-subtract"),
    ("snntorch", "synaptic-zero-at-once"),
    ("snntorch", "rsynaptic-subtract"),
    ("spikingjelly", "lif-to-a-value"),
    ("spikingjelly", "residual"),
    ("spikingjelly", "conv"),
    ("norse", "box"),
    ("norse", "current"),
    ("sinabs", "lif"),
    ("sinabs", "conv"),
    ("rockpool", "lif"),
    ("rockpool", "no-current"),
)


def make(folder: Path) -> None:
    """Write all of them."""
    from tests.peers.nir_writers import written_by

    folder.mkdir(exist_ok=True)
    about = {}
    for peer, kind in KEPT:
        one = written_by(peer, kind, SEED)
        name = f"{peer}_{kind}"
        nir.write(folder / f"{name}.nir", one.graph)
        spikes = {f"{node}.spikes": counts for node, counts in one.spikes.items()}
        np.savez_compressed(
            folder / f"{name}.npz", inputs=one.inputs, output=one.output.astype(np.float32), **spikes
        )
        about[name] = one.info
    text = json.dumps(about, indent=2, sort_keys=True)
    (folder / "recordings.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    make(FOLDER)
