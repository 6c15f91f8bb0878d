"""The counting conventions of papers and tools, each a name for one setting of the same switches.

None of them is a law: they differ because a network's paper, a counter of tensors and a model of a
chip look at different things. docs/counting.md shows one network under all of them, and why the
figures differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from snn_deploy.counting.activity import MembraneAccess
from snn_deploy.counting.fans import FanOutRule, ZeroWeights
from snn_deploy.errors import SnnDeployError

FirstLayer = Literal["once", "per_timestep"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """How operations are counted where papers differ.

    Attributes
    ----------
    name, source : by which a report names it, and where it comes from.
    fanout : targets of a spike: see :func:`snn_deploy.counting.fans.fan`. Of values, and in the
        twin, ``ceiling`` means ``padded``.
    first_layer : MACs of a constant input: ``once``, since its current is the same at every
        timestep, or ``per_timestep``.
    values : whether values are counted (``mac``), or ``none`` are, in a model of spikes only.
    zero_weights : whether a synapse whose weight is zero is counted, or ``free``.
    zero_values : whether a value of zero is multiplied (``counted``), or ``free``.
    count_residual : whether an identity shortcut (one synapse per spike, beside another projection)
        adds anything. The twin's never multiplies.
    count_bias : ``no``; ``per_timestep``: one accumulate per neuron that has a bias; or ``rate``:
        that many times the rate of what its first projection sees, which is syops's.
    count_pool : ``no``, or ``inputs``: one accumulate per spike (MAC per value) into a pool.
    count_neuron : ``no``; ``add``: one accumulate per spiking neuron and timestep; ``leak``: one
        MAC per neuron that leaks and timestep. Updates are counted beside it in any case.
    count_reset : whether a reset by subtraction is an accumulate per spike.
    memory : accesses: ``none``; ``per_update`` or ``per_event``: weights once per event and
        membranes by that rule (:class:`MembraneAccess`); ``lemaire2022``: that paper's.
    ann_activation_sparsity : whether activations of zero are free in the twin. Those of the input
        are known, others are where :func:`snn_deploy.counting.count` is told.
    ann_adds : whether a MAC of the twin is counted as an accumulate as well.
    remarks : what a reader has to know about the figures.
    """

    name: str
    source: str
    fanout: FanOutRule = "exact"
    first_layer: FirstLayer = "once"
    values: Literal["mac", "none"] = "mac"
    zero_weights: ZeroWeights = "counted"
    zero_values: Literal["counted", "free"] = "counted"
    count_residual: bool = False
    count_bias: Literal["no", "per_timestep", "rate"] = "no"
    count_pool: Literal["no", "inputs"] = "no"
    count_neuron: Literal["no", "add", "leak"] = "no"
    count_reset: bool = False
    memory: Literal["none", "lemaire2022"] | MembraneAccess = "none"
    ann_activation_sparsity: bool = False
    ann_adds: bool = False
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.fanout, self.zero_weights) == ("ceiling", "free"):
            raise SnnDeployError(
                "SD104",
                "a bound on the fan-out does not know which weights are zero",
                where=self.name,
                fix="count zero weights, or take the exact fan-out",
            )

    def switches(self) -> str:
        """Every switch in words, on one line."""
        fanout = {
            "exact": "exact fan-out at borders",
            "padded": "padded fan-out (the mean over the layer)",
            "ceiling": "fan-out of ceil(K/S) per axis",
        }[self.fanout]
        values = "no values"
        if self.values == "mac":
            values = f"constant-input MACs {self.first_layer.replace('_', ' ')}"
        switches = {
            "zero weights": self.zero_weights == "counted",
            "zero values": self.zero_values == "counted",
            "the twin's zero activations": not self.ann_activation_sparsity,
            "identity shortcuts": self.count_residual,
            "biases": self.count_bias,
            "pools": self.count_pool,
            "neurons": self.count_neuron,
            "resets": self.count_reset,
            "memory accesses": self.memory,
            "an add per MAC of the twin": self.ann_adds,
        }
        counted = [
            what if how is True else f"{what} ({_WORDS.get(how, how.replace('_', ' '))})"
            for what, how in switches.items()
            if how and how not in ("no", "none")
        ]
        left_out = [what for what, how in switches.items() if not how or how in ("no", "none")]
        parts = [f"{self.name}: {fanout}, {values}"]
        parts += [f"counted: {', '.join(counted)}"] * bool(counted)
        parts += [f"not counted: {', '.join(left_out)}"] * bool(left_out)
        return "; ".join(parts)


_WORDS = {
    "rate": "by mean rate",
    "inputs": "an add per input",
    "add": "an add per timestep",
    "leak": "a MAC per leak",
    "lemaire2022": "as in Lemaire et al.",
}


def asgl(first_layer: FirstLayer = "once") -> Convention:
    """ASGL, ICML 2023, Eq. 29 (accumulates) and 30 (the ANN's MACs).

    The paper leaves open whether the MACs of a constant input are spent once or at every timestep.
    An identity shortcut is a synapse per neuron on a chip, and is counted as one.
    """
    return Convention(
        name="asgl",
        source="ASGL, ICML 2023, Eq. 29-30",
        first_layer=first_layer,
        count_residual=True,
    )


def dspike() -> Convention:
    """Dspike, NeurIPS 2021, Table 3: an ANN's MAC is an addition and a multiplication.

    At 0.9 pJ and 4.6 pJ it costs 5.5 pJ, although 4.6 pJ is the price of a whole MAC (3.7 + 0.9).
    Fan-outs are padded as in the table's ANN rows; its SNN rows mix both (6.8 M multiplications of
    ResNet-19 are exact ones, 3.52 M of ResNet-18 may be either).
    """
    return Convention(
        name="dspike",
        source="Dspike, NeurIPS 2021, Table 3",
        fanout="padded",
        first_layer="per_timestep",
        ann_adds=True,
        remarks=(
            "dspike counts the addition of the twin's MACs twice: a MAC costs 5.5 pJ at 45 nm, "
            "where 4.6 pJ is the multiplication (3.7 pJ) and the addition (0.9 pJ) together",
        ),
    )


def neurobench() -> Convention:
    """NeuroBench's effective synaptic operations (``SynapticOperations``, 2.3.0).

    It takes a layer's call for spiking if every input is -1, 0 or 1. Here that is what the source
    is: spikes are accumulates whatever their height or pooling, values are MACs.
    """
    return Convention(
        name="neurobench",
        source="NeuroBench 2.3.0, metrics/workload/synaptic_operations.py",
        first_layer="per_timestep",
        zero_weights="free",
        zero_values="free",
        ann_activation_sparsity=True,
    )


def syops() -> Convention:
    """syops-counter: operations of the whole padded layer times its mean spike rate.

    Batch normalisation is folded into the weights and counts nothing here; syops adds 2 per value.
    """
    return Convention(
        name="syops",
        source="syops-counter 0.0.5, syops/ops.py",
        fanout="padded",
        first_layer="per_timestep",
        count_bias="rate",
        count_pool="inputs",
        count_neuron="add",
    )


def lemaire2022() -> Convention:
    """Lemaire et al., ICONIP 2022: operations, memory accesses and addressing.

    A layer of constant values is evaluated once, for the values that are not zero; the biases and
    the leak of its neurons count once, too.
    """
    return Convention(
        name="lemaire2022",
        source="Lemaire et al., ICONIP 2022, arXiv 2210.13107, Eq. 1.1-16.3",
        fanout="ceiling",
        zero_values="free",
        count_bias="per_timestep",
        count_neuron="leak",
        count_reset=True,
        memory="lemaire2022",
    )


def sana_fe() -> Convention:
    """The events of SANA-FE's model of Loihi: synapses as mapped, updates and spikes of neurons.

    Messages and hops need a placement on cores. What a host computes is not in the model.
    """
    return Convention(
        name="sana-fe",
        source="SANA-FE 8951ab0, src/pipeline.hpp",
        values="none",
        count_residual=True,
        remarks=(
            "SANA-FE calls a neuron updated if its potential, its input or its bias was not zero; "
            "here it is if its membrane changed or it fired",
        ),
    )


def conventions() -> Mapping[str, Callable[[], Convention]]:
    """Every convention's factory by its name; asgl, the default, comes first."""
    return {
        "asgl": asgl,
        "dspike": dspike,
        "neurobench": neurobench,
        "syops": syops,
        "lemaire2022": lemaire2022,
        "sana-fe": sana_fe,
    }
