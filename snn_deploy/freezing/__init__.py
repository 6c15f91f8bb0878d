"""From a trained torch module to a float graph: pure Heaviside inference, everything folded."""

from __future__ import annotations

from torch import nn

from snn_deploy.freezing.lowering import lower
from snn_deploy.freezing.proof import FreezeProof, Tie, prove_freeze
from snn_deploy.freezing.trial import try_out
from snn_deploy.graph import Graph, InputSpec
from snn_deploy.nn.models import SpikingNet

__all__ = ["FreezeProof", "Tie", "freeze", "prove_freeze"]


def freeze(
    model: nn.Module,
    spec: InputSpec | None = None,
    *,
    timesteps: int | None = None,
    time_first: bool = False,
    fold_normalisation: bool = False,
) -> Graph:
    """Turn a trained network into a float graph that spikes as the module does in evaluation.

    The network is run once, in evaluation and float64, on a made-up input, and followed: widths,
    noise and smooth functions are gone; batch normalisation, average pooling and amplitudes are
    folded into weights and biases; loops over time become one graph. It may be any module made of
    torch's layers and of neurons that are known (ours; those of snnTorch, SpikingJelly and Norse
    where these are installed) that maps its whole input to one tensor [B, classes]: spike counts,
    or the sum or mean of currents over time. A module that no architecture describes is then run
    on made-up inputs beside its graph; docs/freezing.md says what is followed and what is refused.

    Parameters
    ----------
    model : a :class:`snn_deploy.nn.models.SpikingNet`, or any such module.
    spec : the input of a module that no architecture describes. ``constant``: the module is given
        [B, *shape] and runs its own loop over time; ``spikes``: it is given [B, T, *shape].
    timesteps : T of a spikes input; of a constant one, a check.
    time_first : the module is given [T, B, *shape].
    fold_normalisation : fold mean and std of the input into the first weights and biases, in place
        of leaving them to the host.

    Raises
    ------
    SnnDeployError
        SD205 for what cannot be frozen, with path and type of the module and a mend; SD403 for
        weights that are not finite; SD406 for a module that does not do what its graph does.
    """
    lowered = lower(
        model, spec, timesteps=timesteps, time_first=time_first,
        fold_normalisation=fold_normalisation,
    )  # fmt: skip
    if not isinstance(model, SpikingNet):
        try_out(model, lowered)
    return lowered.graph
