"""From a trained torch module to a float graph: pure Heaviside inference, everything folded."""

from __future__ import annotations

from torch import nn

from snn_deploy.freezing.lowering import lower
from snn_deploy.freezing.proof import FreezeProof, Tie, prove_freeze
from snn_deploy.graph import Graph

__all__ = ["FreezeProof", "Tie", "freeze", "prove_freeze"]


def freeze(model: nn.Module) -> Graph:
    """Turn a trained network into a float graph that spikes as the module does in evaluation.

    Widths, noise and smooth functions are dropped; batch normalisation is folded into weights and
    biases, average pooling into a sum pool and weights. Runs in float64.

    Parameters
    ----------
    model : a :class:`snn_deploy.nn.models.SpikingNet`.

    Raises
    ------
    SnnDeployError
        SD205 for a module that cannot be frozen, SD403 for weights that are not finite.
    """
    return lower(model).graph
