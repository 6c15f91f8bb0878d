"""Check a network against a chip before anything is exported: rules with codes, and a placement."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from snn_deploy.artefacts import open_artefact
from snn_deploy.errors import Exit, SnnDeployError
from snn_deploy.exporters import ReadOptions
from snn_deploy.graph import Graph
from snn_deploy.hardware import Target, target
from snn_deploy.mapping import RULES, Breach, Finding, Placement, design_rules
from snn_deploy.mapping.chip_rules import rules_of
from snn_deploy.mapping.cores import Cores
from snn_deploy.mapping.placing import attempt, breaches
from snn_deploy.quantization import quantize


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that a network breaks on a chip.

    Attributes
    ----------
    code, where, message, fix : which rule, where, what was found, what mends it.
    kind : ``rule`` of the number format, ``wall`` or ``budget`` of a limit. What is within all
        walls runs; over a budget it runs worse than the chip's makers plan for.
    why : who says so, where the profile does.
    limit, needed, most : of a limit, its name, what the network needs and what the chip has.
    """

    code: str
    where: str
    message: str
    fix: str
    kind: str = "rule"
    why: str | None = None
    limit: str | None = None
    needed: int | None = None
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """A population on its cores."""

    population: str
    neurons: int
    cores: int


@dataclass(frozen=True, slots=True)
class Resource:
    """A limit of a core: what one has, and what the cores in use hold of it.

    ``least_cores``: cores that any placement takes because of it, None where cores differ.
    """

    name: str
    capacity: int
    mean: float
    highest: float
    least_cores: int | None


@dataclass(frozen=True, slots=True)
class Placed:
    """A placement, summed up."""

    cores: int
    chips: int
    least_cores: int
    populations: tuple[Share, ...]
    resources: tuple[Resource, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, and what was found.

    Attributes
    ----------
    network : ``integer`` or ``float``: what the rules were held against.
    rules : code -> what it demands, of the rules that were looked at.
    broken : the rules that are broken.
    placed : the placement, None where there is none.
    notes : what was not looked at, and why; what acts otherwise than a file reads.
    """

    path: str
    target: str
    network: str
    rules: dict[str, str]
    broken: tuple[Broken, ...]
    placed: Placed | None
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing but budgets is exceeded."""
        return all(b.kind == "budget" for b in self.broken)


def check(
    path: str | os.PathLike[str],
    to: Target | str,
    *,
    factory: str | None = None,
    reading: ReadOptions | None = None,
) -> Check:
    """Hold a network against all rules of a chip, and place it on the chip's cores.

    Nothing is written. A float network is quantized for a chip with a number format, as
    :func:`snn_deploy.export` would by default.

    Parameters
    ----------
    path : a checkpoint, an exported folder, or a network file.
    to : the chip, by name or as a target.
    factory : who makes the module of a bare state_dict.
    reading : what a network file leaves unsaid.

    Raises
    ------
    SnnDeployError
        SD105 for an unknown target, SD209 for one of which nothing is known that could be checked;
        what reading and freezing raise.
    """
    chip = target(to) if isinstance(to, str) else to
    if chip.number_format is None and chip.structure is None and not chip.limits:
        raise SnnDeployError(
            "SD209",
            f"nothing is known of {chip.id} that a network could be checked for",
            why="its profile has no number format and no limits",
            fix="name another target: see `snn-deploy targets`",
        )
    graph, notes = _network(path, factory, reading)
    broken: list[Broken] = []
    rules = rules_of(chip)
    if chip.number_format is None:
        notes.append(f"the number format of {chip.id} is not described: no rule of it was checked")
    else:
        rules = {**RULES, **rules}
        graph, found = _in_format(graph, chip)
        broken += found
    cores = Cores.of(graph, chip)
    placement, exceeded = attempt(cores) if cores.limited else (None, breaches(cores))
    broken += [_of_limit(b) for b in exceeded]
    if not cores.limited:
        notes.append(f"what a core of {chip.id} holds is not known: nothing was placed")
    elif placement is not None and placement.unset:
        notes.append(f"not known of {chip.id}, and not looked at: {', '.join(placement.unset)}")
    return Check(
        path=str(path),
        target=chip.id,
        network="float" if graph.number_format is None else "integer",
        rules=rules,
        broken=tuple(broken),
        placed=None if placement is None else _summary(placement),
        notes=tuple(notes),
    )


def _network(
    path: str | os.PathLike[str], factory: str | None, reading: ReadOptions | None
) -> tuple[Graph, list[str]]:
    """The graph of a file or folder, and what acts otherwise than a file reads.

    A checkpoint is frozen.
    """
    if Path(path).suffix != ".pt":
        if factory is not None:
            raise SnnDeployError(
                "SD104", "only bare weights need a function that makes their module",
                where=str(path), fix="leave out --model",
            )  # fmt: skip
        artefact = open_artefact(path, reading)
        return artefact.graph, list(artefact.notes)
    from snn_deploy.freezing import freeze
    from snn_deploy.freezing.factory import open_network

    network = open_network(path, factory)
    return freeze(network.model, **network.options), []


def _in_format(graph: Graph, chip: Target) -> tuple[Graph, list[Broken]]:
    """The integer graph for a chip, and the rules of its number format that are broken."""
    if graph.number_format is None:
        try:
            graph = quantize(graph, chip)
        except SnnDeployError as error:
            if error.exit != Exit.UNSUPPORTED:
                raise
            where, fix = error.where or "network", error.fix or "train for this chip"
            return graph, [Broken(error.code, where, error.message, fix, why=error.why)]
    return graph, [_of_format(f) for f in design_rules(graph, chip.require_format())]


def _of_format(finding: Finding) -> Broken:
    return Broken(finding.code, finding.where, finding.message, finding.fix)


def _of_limit(breach: Breach) -> Broken:
    return Broken(
        code=breach.code,
        where=breach.where,
        message=breach.message,
        fix=breach.fix,
        kind=breach.kind,
        why=f"{breach.limit}: {breach.source}",
        limit=breach.limit,
        needed=breach.needed,
        most=breach.most,
    )


def _summary(placement: Placement) -> Placed:
    return Placed(
        cores=placement.cores,
        chips=placement.chips,
        least_cores=placement.lower_bound,
        populations=tuple(
            Share(p.name, p.size, placement.cores_of(p.name)) for p in placement.graph.populations
        ),
        resources=tuple(
            Resource(
                name=name,
                capacity=int(placement.capacity[name].max()),
                mean=float(used.mean()),
                highest=float(used.max()),
                least_cores=placement.lower_bounds.get(name),
            )
            for name, used in placement.utilisation().items()
        ),
    )
