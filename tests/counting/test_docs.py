"""docs/counting.md says what the code does."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from snn_deploy.counting import Convention, conventions, count
from tests.helpers.counters import Kind, run

PAGE = Path("docs/counting.md").read_text("utf-8")
SWITCHES = [f.name for f in fields(Convention) if f.name not in ("name", "source", "remarks")]


def markdown(rows: list[tuple[str, ...]]) -> str:
    head, *body = rows
    rule = ("---",) * len(head)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *body))


def said(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def switches() -> str:
    made = {name: factory() for name, factory in conventions().items()}
    head = ("switch", *(f"`{name}`" for name in made))
    body = [
        (f"`{switch}`", *(said(getattr(convention, switch)) for convention in made.values()))
        for switch in SWITCHES
    ]
    return markdown([head, *body])


def terms() -> str:
    """What conventions count besides synapses, of the network that is averaged, per sample."""
    ran = run(Kind("averaged", padding=1, pool=True))
    rows = [("convention", "term", "operation", "per sample", "of the twin")]
    for name, factory in conventions().items():
        counts = count(ran.graph, ran.trace.record, factory())
        found: dict[tuple[str, str], list[float]] = {}
        for term in counts.terms:
            both = found.setdefault((term.name, term.operation), [0, 0])
            both[term.twin] += term.count / (1 if term.twin else counts.samples)
        for (term_name, operation), (spiking, twin) in sorted(found.items()):
            cells = (f"{n:,.0f}" if n else "" for n in (spiking, twin))
            rows.append((f"`{name}`", term_name, operation.replace("_", " "), *cells))
    return markdown(rows)


def test_every_switch_of_every_convention() -> None:
    assert switches() in PAGE


def test_terms_beside_the_synapses() -> None:
    assert terms() in PAGE


if __name__ == "__main__":
    print(switches(), "", terms(), sep="\n")
