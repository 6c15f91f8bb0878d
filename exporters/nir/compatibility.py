"""Who runs a file exactly, who reads it as another network, and who refuses it.

Of each library its own importer is judged, in the release of ``PEERS``, told the timestep. Exact
means: it spikes as the file's numbers say in float, up to the rounding of float32. Some findings
have a step that mends them in the loaded network; a verdict also says what is left after all steps.
Whether the integers round what those floats keep is a question of its own: ``rounds``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import nir
from snn_deploy.exporters.nir.encoding import Encoded, encode
from snn_deploy.exporters.nir.neurons import TIMESTEP, DialectName
from snn_deploy.exporters.nir.values import rounds

from snn_deploy.graph import LIF, Graph, Population, ResetSubtract, ResetTo

Judgement = Literal["exact", "approximate", "misread", "refused"]
_WORSE: tuple[Judgement, ...] = ("exact", "approximate", "misread", "refused")

PEERS = {
    "snntorch": "1.0.0",
    "norse": "1.1.0",
    "spikingjelly": "2.0.0",
    "sinabs": "3.1.3",
    "rockpool": "3.1.0",
    "spyx": "1.0.0",
}

NEURONS = (nir.LIF, nir.IF, nir.CubaLIF)
INTEGRATORS = (nir.LI, nir.I, nir.CubaLI)


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason against a library, and the step that mends it, if there is one."""

    judgement: Judgement
    why: str
    step: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a library makes of a file: as its importer reads it, and after the ``steps``."""

    verdict: Judgement
    mended: Judgement
    why: tuple[str, ...]
    steps: tuple[str, ...]

    @staticmethod
    def of(findings: list[Finding]) -> Verdict:
        """The worst of the findings decides."""
        left = [f for f in findings if f.step is None]
        return Verdict(
            _worst(findings),
            _worst(left),
            tuple(dict.fromkeys(f.why for f in findings)),
            tuple(dict.fromkeys(f.step for f in findings if f.step is not None)),
        )


def _worst(findings: list[Finding]) -> Judgement:
    return max((f.judgement for f in findings), key=_WORSE.index, default="exact")


def peers(graph: Graph, dialect: DialectName = "portable") -> dict[str, Verdict]:
    """The verdict of every library of :data:`PEERS` on the file of a graph.

    Raises
    ------
    SnnDeployError
        SD204 for what cannot be written.
    """
    file = _File(graph, encode(graph, dialect))
    return {name: Verdict.of(list(_JUDGES[name](file))) for name in PEERS}


def facts(graph: Graph, dialect: DialectName) -> dict[str, Any]:
    """What a manifest says of the file of a graph: plain data.

    ``integer_exact``: the floats of the file act as the integers do, on values of the input's grid;
    else ``integer_rounding`` says where not.
    """
    rounding = list(rounds(graph))
    return {
        "dialect": dialect,
        "dt": TIMESTEP[dialect],
        "integer_exact": not rounding,
        "integer_rounding": rounding,
        "peers": {
            name: {"release": PEERS[name], **asdict(verdict)}
            for name, verdict in peers(graph, dialect).items()
        },
    }


class _File:
    """A graph with its nodes, and what several judges ask of them."""

    def __init__(self, graph: Graph, encoded: Encoded) -> None:
        self.graph, self.encoded = graph, encoded
        self.nodes: dict[str, Any] = encoded.graph.nodes
        self.edges = encoded.graph.edges
        self.followers: dict[str, list[str]] = {name: [] for name in self.nodes}
        for source, target in self.edges:
            self.followers[source].append(target)
        self.names = {node: name for name, node in encoded.nodes.items()}
        self.names |= {n: self._beside(n) for n in self.nodes if n not in self.names}

    def _beside(self, node: str) -> str:
        """The population that a node leads to; the node's own name for an Output of spikes."""
        for after in self.followers[node]:
            return self.names.get(after) or self._beside(after)
        return node

    def of_type(self, *kinds: type) -> Iterator[tuple[str, Any]]:
        """Nodes of these types, with the population they belong to."""
        for name, node in self.nodes.items():
            if isinstance(node, kinds):
                yield self.names[name], node

    def neurons(self) -> Iterator[tuple[Population, LIF, Any]]:
        """Populations that spike, with their neurons and their node."""
        for population in self.graph.spiking():
            assert isinstance(population.neurons, LIF)
            yield population, population.neurons, self.nodes[self.encoded.nodes[population.name]]

    def ends(self, kind: type) -> list[str]:
        """Nodes of a type: Input or Output."""
        return [name for name, node in self.nodes.items() if isinstance(node, kind)]

    def depth_first(self) -> list[str]:
        """Nodes in the order in which a walk from the first input meets them."""
        first = self.ends(nir.Input)[0]
        found, waiting = {first: None}, [iter(self.followers[first])]
        while waiting:
            for node in waiting[-1]:
                if node not in found:
                    found[node] = None
                    waiting.append(iter(self.followers[node]))
                    break
            else:
                waiting.pop()
        return list(found)


def _common(
    file: _File, unknown: tuple[type, ...], peer: str, of_unknown: Judgement = "refused"
) -> Iterator[Finding]:
    """What no importer can do: many ends, nodes it does not know (refused, or left out)."""
    for kind, many in ((nir.Input, "inputs"), (nir.Output, "outputs")):
        if len(file.ends(kind)) > 1:
            yield Finding(of_unknown, f"the network has several {many}, {peer} knows one")
    for name, node in file.of_type(*unknown):
        yield Finding(of_unknown, f"{peer} has no {type(node).__name__}, which {name} needs")
    for population, neurons, _ in file.neurons():
        if neurons.readout is not None and population.name in file.graph.outputs:
            yield Finding(
                "misread",
                f"{population.name} is read out from its membranes, {peer} hands out its spikes",
            )
        if all(p.source == p.target for p in file.graph.incoming(population.name)):
            yield Finding("refused", f"nothing but {population.name} feeds {population.name}")


def _foreign(file: _File, dialect: DialectName, peer: str) -> Iterator[Finding]:
    if file.encoded.dialect != dialect:
        yield Finding(
            "misread",
            f"{peer} reads time constants otherwise than the dialect {file.encoded.dialect} "
            f"means them: write the dialect {dialect}",
        )


def _hard_reset(file: _File, peer: str) -> Iterator[Finding]:
    """A spike sets the membrane to zero, whatever the file says."""
    for population, neurons, _ in file.neurons():
        if isinstance(neurons.reset, ResetSubtract):
            yield Finding("misread", f"{population.name} resets by subtraction, {peer} to zero")
        elif neurons.reset.value != 0:
            yield Finding(
                "misread", f"{population.name} resets to another value than zero, {peer} to zero"
            )


def _uniform(file: _File, peer: str, *fields: str) -> Iterator[Finding]:
    """Parameters that must be one number for a population."""
    for population, _, node in file.neurons():
        for field in fields:
            values = getattr(node, field, None)
            if values is not None and (values != values.flat[0]).any():
                yield Finding(
                    "refused", f"{peer} wants one {field} for all neurons of {population.name}"
                )


def _no_leak(file: _File, peer: str) -> Iterator[Finding]:
    for population, _, node in file.neurons():
        if not isinstance(node, nir.IF) and (node.v_leak != 0).any():
            yield Finding(
                "refused",
                f"{population.name} has a bias that only v_leak can hold, {peer} wants zeros",
            )


def _snntorch(file: _File) -> Iterator[Finding]:
    yield from _foreign(file, "portable", "snnTorch")
    yield from _common(file, (*INTEGRATORS, nir.Delay), "snnTorch")
    for name, _ in file.of_type(nir.IF):
        yield Finding("refused", f"snnTorch reads no IF with r = 1/dt, as {name} is")
    yield from _hard_reset(file, "snnTorch")
    yield from _uniform(file, "snnTorch", "v_threshold")
    yield from _no_leak(file, "snnTorch")
    for population, _, node in file.neurons():
        if (node.v_threshold < 0).any():
            yield Finding("misread", f"{population.name} fires at rest, snnTorch resets it then")
        own = file.encoded.nodes[population.name]
        loops = (b for a, b in file.edges if a == own and (b, own) in file.encoded.late)
        if any(isinstance(file.nodes[b], nir.Affine) for b in loops) and not isinstance(
            node, nir.IF
        ):
            yield Finding(
                "refused",
                f"{population.name} feeds itself: snnTorch makes a subgraph of it that nirtorch "
                "cannot load",
                "snntorch.import_nir._replace_rnn_subgraph_with_nirgraph = lambda graph: graph",
            )


def _norse(file: _File) -> Iterator[Finding]:
    yield from _foreign(file, "portable", "Norse")
    yield from _common(file, (*INTEGRATORS, nir.Delay), "Norse", "misread")
    yield from _hard_reset(file, "Norse")
    for population, _, node in file.neurons():
        if not isinstance(node, nir.IF) and (node.v_leak != 0).any():
            yield Finding(
                "misread",
                f"{population.name} has a bias that only v_leak can hold, Norse begins with it",
            )
    yield from _in_order(file, "Norse", loops=True)


def _in_order(file: _File, peer: str, *, loops: bool) -> Iterator[Finding]:
    """It follows edges depth first: what arrives later than its target ran is late or lost."""
    order = {name: i for i, name in enumerate(file.depth_first())}
    last = next(reversed(order))
    if last not in file.ends(nir.Output):
        yield Finding("misread", f"{peer} hands out {file.names[last]}, which it runs last")
    for source, target in file.edges:
        if source not in order or target not in order:
            continue
        closing = (source, target) in file.encoded.late
        if closing and not loops:
            yield Finding("misread", f"{file.names[target]} feeds itself, {peer} runs no loops")
        elif not closing and order[source] > order[target]:
            yield Finding(
                "misread",
                f"{file.names[target]} is fed on parallel ways, {peer} runs it before all arrived",
            )


def _spikingjelly(file: _File) -> Iterator[Finding]:
    peer = "SpikingJelly"
    yield from _foreign(file, "portable", peer)
    yield from _common(file, (*INTEGRATORS, nir.Delay), peer)
    yield from _uniform(file, peer, "tau", "tau_mem", "tau_syn", "v_threshold")
    yield from _no_leak(file, peer)
    for population, neurons, node in file.neurons():
        if isinstance(neurons.reset, ResetSubtract):
            yield Finding("misread", f"{population.name} resets by subtraction, {peer} to v_reset")
        elif neurons.reset.value != 0 and isinstance(node, nir.LIF):
            yield Finding("refused", f"{population.name}: {peer} wants v_reset equal to v_leak")
        elif neurons.reset.value != 0:
            yield Finding("misread", f"{population.name} starts at zero, in {peer} at v_reset")


def _sinabs(file: _File) -> Iterator[Finding]:
    yield from _foreign(file, "sinabs", "sinabs")
    unknown = (nir.CubaLIF, nir.CubaLI, nir.I, nir.Delay)
    yield from _common(file, unknown, "sinabs", "misread")
    yield from _in_order(file, "sinabs", loops=False)
    if file.encoded.dialect != "sinabs":
        return
    for name, node in file.of_type(nir.LIF, nir.LI):
        if node.tau.ndim == 3 and node.tau[0].size > 1:
            yield Finding(
                "refused",
                f"sinabs cannot ask whether v_leak and r of a map ({name}) are zero and one",
                "node.v_leak, node.r = np.zeros(1), np.ones(1) for every LIF and LI before loading",
            )
    for population, neurons, node in file.neurons():
        yield from _sinabs_reset(population, neurons, node)


def _sinabs_reset(population: Population, neurons: LIF, node: Any) -> Iterator[Finding]:
    name, most = population.name, population.max_spikes
    once = f"spike_fn = sinabs.activation.SingleSpike for {name}"
    if isinstance(neurons.reset, ResetTo):
        if neurons.reset.value != 0:
            yield Finding("misread", f"{name} resets to another value than zero")
        else:
            yield Finding(
                "misread", f"{name} resets to zero, sinabs subtracts",
                f"reset_fn = sinabs.activation.MembraneReset() for {name}",
            )  # fmt: skip
        yield Finding("misread", f"{name} fires once in a timestep, sinabs several times", once)
        return
    amount = node.metadata["reset_amount"]
    equal = bool((node.v_threshold == amount).all())
    if not equal and most > 1:
        yield Finding("misread", f"{name} subtracts another amount than its threshold, repeatedly")
    elif not equal:
        yield Finding(
            "misread", f"{name} subtracts another amount than its threshold",
            f"reset_fn = sinabs.activation.MembraneSubtract({amount!r}) for {name}",
        )  # fmt: skip
    if most == 1:
        yield Finding("misread", f"{name} fires once in a timestep, sinabs several times", once)
    elif most < 255:
        yield Finding(
            "approximate", f"{name} fires {most} times at most in a timestep, sinabs any number",
            f"spike_fn = sinabs.activation.MaxSpike({most}) for {name}",
        )  # fmt: skip


def _rockpool(file: _File) -> Iterator[Finding]:
    unsupported = (nir.LIF, nir.IF, nir.I, nir.CubaLI, nir.Conv2d, nir.SumPool2d, nir.Flatten)
    yield from _common(file, (*unsupported, nir.Delay), "rockpool")
    for name, _ in file.of_type(nir.CubaLIF):
        yield Finding("misread", f"{name}: rockpool resets by subtraction and guesses the timestep")
    for name, _ in file.of_type(nir.LI):
        yield Finding("misread", f"{name}: rockpool cuts time constants to integers")
    yield from _in_order(file, "rockpool", loops=False)


def _spyx(file: _File) -> Iterator[Finding]:
    yield from _common(file, (nir.LI,), "spyx")
    for name, _ in file.of_type(*NEURONS):
        yield Finding("misread", f"{name}: spyx resets by subtraction, and spikes a timestep late")
    for name, node in file.of_type(nir.I, nir.CubaLI, nir.Delay):
        yield Finding("misread", f"spyx leaves out the {type(node).__name__} of {name}")
    for name in dict.fromkeys(a for a, _ in file.edges):
        if sum(a == name for a, _ in file.edges) > 1:
            yield Finding("misread", f"spyx follows one way only from {file.names[name]}")


_JUDGES: dict[str, Callable[[_File], Iterator[Finding]]] = {
    "snntorch": _snntorch,
    "norse": _norse,
    "spikingjelly": _spikingjelly,
    "sinabs": _sinabs,
    "rockpool": _rockpool,
    "spyx": _spyx,
}
