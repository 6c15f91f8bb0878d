"""A trial of a frozen module on made-up inputs: what following it could not see shows here.

Following reads a module in one run. What it does differently in another run is no property of its
layers: a state that outlasts a call, the number of samples in a batch, numbers below float32, code
that torch does not see. So the module runs again, on other inputs and in batches of other sizes,
and its frozen graph must spike as it does.
"""

from __future__ import annotations

import numpy as np
from torch import nn

from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing.lowering import Lowered, copy_of
from snn_deploy.freezing.module_run import run_module
from snn_deploy.freezing.proof import compare
from snn_deploy.packets import Recording, made_up

# Neither of them the number of samples with which modules are followed.
_SAMPLES, _OTHERS = 3, 5
_RATE = 0.3


def try_out(model: nn.Module, lowered: Lowered) -> None:
    """Compare a module with its frozen graph on inputs that are made up.

    Raises
    ------
    SnnDeployError
        SD205 for a module whose result depends on earlier calls or fails on another batch, SD406
        where graph and module differ beyond rounding.
    """
    (spec,) = lowered.graph.fed
    steps = lowered.graph.timesteps
    assert steps is not None
    random = np.random.default_rng(1)
    ours = copy_of(model)
    name = type(model).__name__
    one, other = (made_up(spec, steps, n, _RATE, random) for n in (_SAMPLES, _OTHERS))
    try:
        first, _, again = (run_module(ours, lowered, inputs) for inputs in (one, other, one))
    except SnnDeployError:
        raise
    except Exception as error:
        raise SnnDeployError(
            "SD205",
            f"{name} fails on a second batch, of another size than the first",
            why=f"{type(error).__name__}: {error}",
            fix="let forward() begin anew in every call, for any number of samples",
        ) from error
    same = [np.array_equal(first[0][key], again[0][key]) for key in first[0]]
    if not all(same) or not np.array_equal(first[1], again[1], equal_nan=True):
        raise SnnDeployError(
            "SD205",
            f"{name} gives another result when it is called again with the same input",
            why="it keeps a state from call to call, or draws random numbers",
            fix="clear its state at the beginning of forward()",
        )
    spikes = spec.kind == "spikes"
    recording = Recording(spikes={"": one}) if spikes else Recording(values={"": one})
    proof = compare(ours, lowered, recording)
    if not proof.holds:
        raise SnnDeployError(
            "SD406",
            f"{name} does not do what its frozen graph does",
            why=f"on a made-up input, {proof.violations} spikes and {proof.readout_violations} "
            "readouts differ beyond rounding",
            fix="its result must depend on its input alone: not on the number of samples, on "
            "numbers below float32, or on code that torch does not see",
        )
