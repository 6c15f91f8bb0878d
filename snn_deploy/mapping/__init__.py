"""From an integer graph to one that a chip's tools can say, and to a place on the chip.

Each lowering pass takes a graph and returns a graph that does the same, output for output; what it
changes is in its name. ``place`` says where on a chip's cores the neurons are; it changes nothing.
"""

from __future__ import annotations

from snn_deploy.mapping.chip_rules import CHIP_RULES, Breach
from snn_deploy.mapping.host import HostLayer, split_host
from snn_deploy.mapping.placement import Placement
from snn_deploy.mapping.placing import place
from snn_deploy.mapping.pooling import fold_pools
from snn_deploy.mapping.readout import accumulate_readout
from snn_deploy.mapping.relays import insert_relays
from snn_deploy.mapping.rules import RULES, Finding, design_rules

__all__ = [
    "CHIP_RULES",
    "RULES",
    "Breach",
    "Finding",
    "HostLayer",
    "Placement",
    "accumulate_readout",
    "design_rules",
    "fold_pools",
    "insert_relays",
    "place",
    "split_host",
]
