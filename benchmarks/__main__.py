"""The table of what the engine costs beside others, in one run.

    python -m benchmarks [--json] [--quick] [--only PART ...] [--docs]

Spikes are compared in this very process before anything is timed. ``--docs`` writes the figures
into ``docs/performance.md`` and draws its plots anew.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable

# Read when the libraries are loaded: one thread each, whatever the machine has.
os.environ["OMP_NUM_THREADS"] = "1"

import torch

from benchmarks import documents, lava, layers, peers, resnet, scaling, start
from benchmarks.measuring import NotThereError, Options, Row

PARTS: dict[str, Callable[[Options], list[Row]]] = {
    "peers": peers.rows,  # first: in a process that has compiled much else, theirs are slower
    "resnet": resnet.rows,
    "lava": lava.rows,
    "start": start.rows,
}
GROWTH = "growth"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", action="store_true", help="all figures as JSON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two rounds, nothing compiled")
    parser.add_argument("--only", nargs="+", choices=[*PARTS, GROWTH], help="parts of it")
    parser.add_argument("--docs", action="store_true", help="write docs/performance.md's figures")
    arguments = parser.parse_args()
    if arguments.docs and arguments.only:
        parser.error("--docs needs all parts")
    parts = arguments.only or [*PARTS, GROWTH]
    torch.set_num_threads(1)
    options = Options(rounds=2 if arguments.quick else arguments.rounds, quick=arguments.quick)
    found: list[Row] = []
    began = time.perf_counter()
    for name, measure in PARTS.items():
        if name not in parts:
            continue
        try:
            found += measure(options)
        except NotThereError as error:
            found.append(Row(work=name, against="", note=str(error)))
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    growth = None
    if GROWTH in parts:
        growth = layers.measure(options) | {"neurons": scaling.measure(options)}
        print(f"{GROWTH}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    result = {
        "versions": peers.versions(),
        "rounds": options.rounds,
        "rows": [row.record() for row in found],
        "growth": growth,
    }
    print(json.dumps(result, indent=2) if arguments.json else documents.text(result))
    if arguments.docs:
        documents.write(result)


if __name__ == "__main__":
    main()
