"""The table of docs/counting.md in which one network stands under every counter, by counting.

To make it again::

    SNN_DEPLOY_MODULES=... python -m tests.peers.counters_table
"""

from __future__ import annotations

from snn_deploy.counting import conventions, count
from tests.helpers.counters import Kind, Run, run
from tests.peers.counters import COUNTERS

KINDS = (
    Kind("spikes of 1", padding=1),
    Kind("spikes of ½", padding=1, height=0.5),
    Kind("averaged 2×2", padding=1, pool=True),
    Kind("both, still image", padding=1, height=0.5, pool=True, input="constant"),
)


def table() -> str:
    """Markdown: conventions and counters down, kinds of the network across, per sample."""
    runs = [run(kind) for kind in KINDS]
    rows = [("", *(kind.name for kind in KINDS)), ("---", *["---:"] * len(KINDS))]
    rows += [(f"our `{name}`", *(_ours(name, ran) for ran in runs)) for name in conventions()]
    rows += [(name, *(_theirs(name, ran) for ran in runs)) for name in COUNTERS]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def _ours(name: str, ran: Run) -> str:
    counts = count(ran.graph, ran.trace.record, conventions()[name]())
    projections = counts.projections
    return _cell(
        sum(p.accumulates for p in projections) / counts.samples,
        sum(p.multiply_accumulates for p in projections) / counts.samples,
    )


def _theirs(name: str, ran: Run) -> str:
    layers = COUNTERS[name](ran).values()
    return _cell(sum(f.accumulates for f in layers), sum(f.products for f in layers))


def _cell(accumulates: float, products: float) -> str:
    parts = [f"{accumulates:,.0f} AC"] * bool(accumulates)
    parts += [f"{products:,.0f} MAC"] * bool(products)
    return " + ".join(parts) or "0"


if __name__ == "__main__":
    print(table())
