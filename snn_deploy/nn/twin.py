"""The analog twin of a spiking network, and starting one network from another's weights."""

from __future__ import annotations

from torch import Tensor, nn

from snn_deploy.errors import SnnDeployError
from snn_deploy.nn.architecture import Architecture
from snn_deploy.nn.models import SpikingNet
from snn_deploy.nn.neurons import Neuron


class _Rectifier(nn.Module):
    """A ReLU in the place of spiking neurons."""

    def forward(self, current: Tensor, timesteps: int) -> Tensor:
        """The positive part."""
        return nn.functional.relu(current)


class AnalogTwin(SpikingNet):
    """The ANN of the same architecture: ReLU instead of neurons, one timestep.

    It is trained to initialise a spiking network (Dspike, section 5; Time Inheritance Training) and
    cannot be frozen or saved as a spiking one.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.timesteps = 1
        for module in list(self.modules()):
            for name, child in module.named_children():
                if isinstance(child, Neuron):
                    setattr(module, name, _Rectifier())


def inherit(model: nn.Module, source: nn.Module, where: str) -> int:
    """Copy weights and batch statistics of the same names into a network.

    What only one of the two has stays (an ANN has no widths). Returns the number of tensors copied.

    Raises
    ------
    SnnDeployError
        SD104 if a tensor has another shape, or synapses of the network have none.
    """
    given, own = source.state_dict(), model.state_dict()
    for name, value in own.items():
        if name in given and given[name].shape != value.shape:
            raise SnnDeployError(
                "SD104",
                f"weights of {name} have the shape {list(given[name].shape)}, not "
                f"{list(value.shape)}",
                where=where,
                fix="start from a network of the same architecture",
            )
    synapses = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and not name.endswith(".recurrent")
    }
    missing = sorted(synapses - given.keys())
    if missing:
        raise SnnDeployError(
            "SD104",
            f"there are no weights for {missing[0]}",
            where=where,
            fix="start from a network of the same architecture",
        )
    shared = {name: value for name, value in given.items() if name in own}
    model.load_state_dict(shared, strict=False)
    return len(shared)
