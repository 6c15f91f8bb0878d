"""The table of docs/nir-compatibility.md: who runs our NIR files as we do, by running them.

To make it again::

    SNN_DEPLOY_MODULES=... python -m tests.peers.nir_table > docs/nir-compatibility.md
"""

from __future__ import annotations

import functools
import importlib.metadata
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from snn_deploy.exporters.nir import exporter
from snn_deploy.exporters.nir.neurons import DialectName

from snn_deploy import quantize
from snn_deploy.graph import Graph
from tests.helpers.nir_compare import Array, Difference, compared, in_float
from tests.helpers.nir_peers import PEERS, NotRecordedError, run_in
from tests.peers.nir_structures import SAMPLES, STEPS, STRUCTURES, drawn

Form = Literal["float", "integer"]
SEEDS = range(4)
NAMES = {"snntorch": "snnTorch", "norse": "Norse", "spikingjelly": "SpikingJelly",
         "sinabs": "sinabs"}  # fmt: skip

HEAD = """\
# Who runs our NIR files as we do

Made by `python -m tests.peers.nir_table`, and compared with a new run by `make peers`. Every row is
a kind of network, of which {nets} are drawn and quantized for the target `generic`. We write each
to a file; a library reads it with its own importer and runs {samples} samples of {steps} timesteps.
Compared are the spikes of every neuron at every timestep, and the output where it is no spikes,
with what the numbers of the file mean: our integers, but for the rounding of their decays.

- **exact**: not one differs, of so many neuron-timesteps.
- **misread**: the file loads, and runs as another network; the share that differs.
- **refused**: the library raises an error, given below.

Norse and SpikingJelly are told `dt=1e-4`. snnTorch's importer makes a subgraph of neurons that feed
themselves, which nirtorch 2.6 cannot load; that step is left out
(`snntorch.import_nir._replace_rnn_subgraph_with_nirgraph = lambda graph: graph`). sinabs has a file
of its own (`dialect="sinabs"`), and what its importer leaves out is set to what the file says:
`reset_fn` and `spike_fn` of the neurons it made, and before that `v_leak` and `r`, which it cannot
read of maps, to an array of one zero and one of a one.
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a library makes of the networks of a row."""

    word: Literal["exact", "misread", "refused"]
    found: tuple[Difference, ...] = ()
    why: str = ""

    def __str__(self) -> str:
        if self.word == "refused":
            return "refused"
        slots = sum(one.slots for one in self.found)
        differing = sum(one.differing for one in self.found)
        if self.word == "exact":
            ties = sum(len(one.ties) for one in self.found)
            return f"exact ({f'{ties} ties, ' if ties else ''}{differing} of {slots})"
        if not differing:
            return "misread (output)"
        return f"misread ({max(1, round(100 * differing / slots))}%)"


def dialect_for(peer: str) -> DialectName:
    """The dialect of the file that a library is given."""
    return "sinabs" if peer == "sinabs" else "portable"


@functools.cache
def networks(structure: str, form: Form) -> tuple[tuple[Graph, Array], ...]:
    """The networks of a row, and input for each."""
    made = (drawn(structure, seed) for seed in SEEDS)
    if form == "float":
        return tuple(made)
    return tuple((quantize(graph, "generic"), inputs) for graph, inputs in made)


@functools.cache
def verdict(structure: str, peer: str, form: Form) -> Verdict:
    """Write, load and run the networks of a row in one library."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.nir"
        for graph, inputs in networks(structure, form):
            exporter.write(graph, path, dialect_for(peer))
            try:
                ran = run_in(peer, path, inputs)
            except NotRecordedError:
                raise
            except Exception as error:  # a library's refusal may be of any type
                if found:
                    raise RuntimeError(f"{structure}: {peer} refuses one network alone") from error
                return Verdict("refused", why=f"{type(error).__name__}: {error}".splitlines()[0])
            spikes = {p.name: ran.spikes[f"{p.name}_neurons"] for p in graph.spiking()}
            meant = graph if form == "float" else in_float(graph)
            found.append(compared(meant, inputs, spikes, ran.output))
    exact = not any(one.wrong or one.output > 1 for one in found)
    return Verdict("exact" if exact else "misread", tuple(found))


def table() -> str:
    """The document."""
    heads = [f"{NAMES[peer]} {importlib.metadata.version(peer)}" for peer in PEERS]
    lines = [
        HEAD.format(nets=len(SEEDS), samples=SAMPLES, steps=STEPS),
        f"| network | {' | '.join(heads)} |",
        "|---" * (1 + len(heads)) + "|",
    ]
    reasons = []
    for structure in STRUCTURES:
        verdicts = [verdict(structure, peer, "integer") for peer in PEERS]
        lines.append(f"| {structure} | {' | '.join(map(str, verdicts))} |")
        reasons += [
            f"- {structure}, {NAMES[peer]}: `{one.why}`"
            for peer, one in zip(PEERS, verdicts, strict=True)
            if one.why
        ]
    others = [
        f"- {structure}, {NAMES[peer]}: {one}"
        for structure in STRUCTURES
        for peer in PEERS
        if (one := verdict(structure, peer, "float")).word
        != verdict(structure, peer, "integer").word
    ]
    return "\n".join(
        [*lines, "", "Refused with:", "", *reasons, "", "A file of the float network, where that "
         "is read otherwise:", "", *others, ""]
    )  # fmt: skip


if __name__ == "__main__":
    sys.stdout.write(table())
