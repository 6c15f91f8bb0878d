"""Keep NIR files that other libraries wrote, with what the modules they were written from did.

``nir/PEER_KIND.nir`` is what the library's exporter made of a module of its own, and ``.npz``
beside it holds, for the same module:

- ``inputs``: 0/1 [B, T, *shape], uint8;
- ``NODE.spikes`` for every neuron node NODE of the file: how often it fired, uint8 [B, T, ...];
- ``output``: what the module returned, float32 [B, T, ...].

``nir/recordings.json`` says of each file who wrote it (``peer``, ``version``) of which network
(``kind``, ``seed``: tests/peers/nir_modules.py), and how it is to be read: ``dialect``, ``dt`` in
seconds (null where the file counts in timesteps), ``reset``; and what the module does that the file
does not say (``lost``).

To make them again, in the tests' environment and with the packages of `make peers`; nothing of
theirs is here but what they wrote::

    SNN_DEPLOY_MODULES=.peers/training/lib/python3.11/site-packages \\
      .venv/bin/python -m tests.golden.make_nir_goldens
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
            folder / f"{name}.npz",
            inputs=one.inputs,
            output=one.output.astype(np.float32),
            **spikes,
        )
        about[name] = one.info
    text = json.dumps(about, indent=2, sort_keys=True)
    (folder / "recordings.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    make(FOLDER)
