"""From an integer graph to one that a chip's tools can say: the same spikes, never rescaled.

Each pass takes a graph and returns a graph that does the same, output for output; what it changes
is in its name.
"""

from __future__ import annotations

from snn_deploy.mapping.host import HostLayer, split_host
from snn_deploy.mapping.pooling import fold_pools
from snn_deploy.mapping.readout import accumulate_readout
from snn_deploy.mapping.relays import insert_relays
from snn_deploy.mapping.rules import RULES, Finding, design_rules

__all__ = [
    "RULES",
    "Finding",
    "HostLayer",
    "accumulate_readout",
    "design_rules",
    "fold_pools",
    "insert_relays",
    "split_host",
]
