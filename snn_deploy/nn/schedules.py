"""What changes from epoch to epoch: noise, sharpening, temperature, and the matched width rate."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from snn_deploy.nn.losses import Loss
from snn_deploy.nn.models import SpikingNet
from snn_deploy.nn.spikes import Dspike, SpikeFunction, Whetstone

# Over a run a learned log-width may travel about so far (in nats): Adam moves it by at most its
# rate per step. The papers' CIFAR run has 35; fewer than the several nats between a bad and a good
# width leave a fixed width with noise.
WIDTH_TRAVEL = 10.0
WIDTH_RATES = (3e-4, 3e-2)


def probability_at(
    first: float, zeta: float, milestones: Sequence[float], epoch: int, epochs: int
) -> float:
    """Probability of a spike in an epoch (ASGL, appendix B.1): ``p <- 1 - (1 - p) * zeta``.

    Once at every milestone, given as fraction of the epochs: ``int(fraction * epochs)`` epochs are
    trained before it. ``zeta`` 1 keeps p.

    Parameters
    ----------
    first : probability before the first milestone.
    epoch : epochs already trained.
    """
    passed = sum(epoch >= int(fraction * epochs) for fraction in milestones)
    return 1 - (1 - first) * zeta**passed


def sharpness_at(layer: int, layers: int, start: float, end: float, progress: float) -> float:
    """Sharpness of one layer of a Whetstone network, in [0, 1].

    Layers are sharpened one after the other, from the input on, each linearly within its own share
    of the time from ``start`` to ``end`` (fractions of the training, as ``progress``).
    """
    share = (end - start) / layers
    return min(1.0, max(0.0, (progress - start - layer * share) / share))


def sharpen(model: nn.Module, start: float, end: float, progress: float) -> None:
    """Set the sharpness of all Whetstone functions of a network."""
    functions = [m for m in model.modules() if isinstance(m, Whetstone)]
    for number, function in enumerate(functions):
        function.sharpen(sharpness_at(number, len(functions), start, end, progress))


def set_probability(model: nn.Module, probability: float) -> None:
    """Set the probability of a spike of all spike functions of a network."""
    for module in model.modules():
        if isinstance(module, SpikeFunction):
            module.probability = probability


def matched_width_rate(steps: int) -> float:
    """A learning rate with which Adam can move widths far enough in so many steps."""
    least, most = WIDTH_RATES
    return min(most, max(least, WIDTH_TRAVEL / steps))


def dspike_temperature(
    model: SpikingNet,
    x: Tensor,
    target: Tensor,
    loss: Loss,
    *,
    step: float = 0.2,
    epsilon: float = 0.1,
    weights: int = 256,
) -> float:
    """Choose the temperature of a Dspike network, and set it (Dspike, Algorithm 1).

    The gradient of the first synaptic layer by central differences of ``epsilon`` per weight (Eq.
    10) is compared with the Dspike gradient at temperatures b - step, b and b + step; the one of
    largest cosine similarity is kept. The paper perturbs all weights of that layer and does not say
    on which batch; here at most ``weights`` of them, drawn at random, on the batch given.

    Returns
    -------
    The chosen temperature, always above 0.
    """
    functions = [m for m in model.modules() if isinstance(m, Dspike)]
    if not functions:
        raise ValueError("a network without Dspike functions has no temperature")
    probe = copy.deepcopy(model).train()  # its batch statistics may move; the model's do not
    layer = next(m for m in probe.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    layer.weight.data = layer.weight.data.contiguous()  # it may have channels last
    flat = layer.weight.detach().view(-1)
    chosen = torch.randperm(flat.numel())[:weights]
    differences = torch.empty(len(chosen))
    with torch.no_grad():
        for place, index in enumerate(chosen.tolist()):
            kept = flat[index].item()
            values = []
            for sign in (1.0, -1.0):
                flat[index] = kept + sign * epsilon
                values.append(loss(probe.currents(x), target).item())
            flat[index] = kept
            differences[place] = (values[0] - values[1]) / (2 * epsilon)
    present = functions[0].temperature
    best, best_similarity = present, -math.inf
    for temperature in (present, present - step, present + step):
        if temperature <= 0:
            continue
        for function in probe.modules():
            if isinstance(function, Dspike):
                function.temperature = temperature
        (gradient,) = torch.autograd.grad(loss(probe.currents(x), target), [layer.weight])
        similarity = nn.functional.cosine_similarity(
            gradient.reshape(-1).cpu()[chosen], differences, dim=0
        ).item()
        if similarity > best_similarity:
            best, best_similarity = temperature, similarity
    for own in functions:
        own.temperature = best
    return best
