"""What is counted: one record of a run, and the conventions that make operations of it.

The raw record of a simulation (:class:`snn_deploy.sim.Record`) says how often each neuron spiked
and each input was not zero. An *accumulate* (AC) is a binary spike that adds a weight to a target
neuron; a *multiply-accumulate* (MAC) is a value through a weight. Both are dot products of the
record with a fan-out. Papers and counters differ in which fan-out that is and in what else they
count: a :class:`Convention` states every such choice as a switch. A *neuron update* is active if
it changed the membrane or fired.

The *ANN twin* is the same network with real-valued activations, evaluated once: every synapse is
one MAC, pooling happens before the synapses, and an identity shortcut multiplies nothing.
"""

from snn_deploy.counting.activity import (
    ActivityRecord,
    MembraneAccess,
    PopulationActivity,
    PopulationCount,
    ProjectionActivity,
    Spread,
    activity,
    activity_record,
)
from snn_deploy.counting.conventions import (
    Convention,
    FirstLayer,
    asgl,
    conventions,
    dspike,
    lemaire2022,
    neurobench,
    sana_fe,
    syops,
)
from snn_deploy.counting.counts import Counts, ProjectionCount, count
from snn_deploy.counting.terms import Term

__all__ = [
    "ActivityRecord",
    "Convention",
    "Counts",
    "FirstLayer",
    "MembraneAccess",
    "PopulationActivity",
    "PopulationCount",
    "ProjectionActivity",
    "ProjectionCount",
    "Spread",
    "Term",
    "activity",
    "activity_record",
    "asgl",
    "conventions",
    "count",
    "dspike",
    "lemaire2022",
    "neurobench",
    "sana_fe",
    "syops",
]
