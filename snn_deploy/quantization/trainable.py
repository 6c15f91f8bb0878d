"""An integer graph that can be trained: the target's own arithmetic, with gradients.

Weights, biases and scales are kept as numbers of the float network and rounded in every pass by
the rules of :mod:`snn_deploy.quantization.scales`; rounding, truncation and the threshold's ceiling
pass gradients straight through (Bengio et al., 2013), spikes have the gradient of their smooth
step, and in training take ASGL's noise. Everything is counted in the integers' own units, so that
in evaluation and float64 the module is the integer graph, bit for bit; what its readout returns is
in units of the float network. A scale learns as a step size does (LSQ, Esser et al., ICLR 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import LIF, Graph, Population, Projection, ResetSubtract
from snn_deploy.nn.smooth import SMOOTH_STEPS
from snn_deploy.numerics import NumberFormat, firing_level
from snn_deploy.quantization.scales import (
    Quantized,
    Scale,
    at_scale,
    host_grid,
    misfit,
    weight_factor,
)
from snn_deploy.quantization.scheme import Grid
from snn_deploy.synapses import Conv2d, Dense, as_map, pooled_shape, with_weights


@dataclass(frozen=True, slots=True)
class Emission:
    """What neurons emit in training: the spike with ``probability``, else the smooth step."""

    smooth: str = "clip"
    width: float = 1.0
    probability: float = 1.0


def through(rounded: Tensor, value: Tensor) -> Tensor:
    """``rounded``, with the gradient of ``value``."""
    return value + (rounded - value).detach()


class TrainableGraph(nn.Module):
    """A feed-forward or recurrent integer graph with trainable weights, biases and scales.

    Parameters
    ----------
    graph : the float graph.
    integer : it quantized: its number format, scales, exponents and coarse thresholds stay, but
        that a scale learns where thresholds follow it.
    grid : the mantissas that weights may take.
    emissions : of spiking populations; default: plain surrogate gradients.
    """

    def __init__(
        self,
        graph: Graph,
        integer: Graph,
        grid: Grid,
        emissions: Mapping[str, Emission] | None = None,
    ) -> None:
        super().__init__()
        number_format = integer.number_format
        if number_format is None:
            raise ValueError("what is trained is a quantized graph")
        self.source = graph
        self.graph = replace(graph, inputs=integer.inputs, number_format=number_format)
        self.integer, self.grid, self.format = integer, grid, number_format
        self.places = {p.name: k for k, p in enumerate(graph.populations)}
        self.emissions = dict(emissions or {})
        self.weights = nn.ParameterList(
            nn.Parameter(torch.from_numpy(p.synapses.weight.astype(np.float32)))
            for p in graph.projections
        )
        self.biases = nn.ParameterList(
            nn.Parameter(torch.from_numpy(np.array(p.neurons.bias, np.float32)))
            for p in graph.populations
        )
        self.log_scales = nn.ParameterList(
            nn.Parameter(
                torch.tensor(-np.log(np.array(p.scale, np.float64)), dtype=torch.float32),
                # a threshold that a whole population shares is coarse: the scale follows from it
                requires_grad=not (
                    number_format.threshold_per_population and isinstance(p.neurons, LIF)
                ),
            )
            for p in integer.populations
        )
        self.log_widths = nn.ParameterDict(
            {
                str(self.places[p.name]): nn.Parameter(
                    torch.tensor(np.log(self._emission(p).width), dtype=torch.float32)
                )
                for p in graph.spiking()
            }
        )
        for population in graph.populations:
            if population.max_spikes > 1:
                raise SnnDeployError(
                    "SD202", "several spikes per timestep cannot be trained", where=population.name
                )

    def _emission(self, population: Population) -> Emission:
        return self.emissions.get(population.name, Emission())

    # ---- parameters as integers ----

    def scale(self, population: Population) -> Tensor:
        """Weight units per unit of the float network: (), (C, 1, 1) or (N,)."""
        return self._exact_scale(population).to(self.weights[0].dtype)

    def _exact_scale(self, population: Population) -> Tensor:
        place = self.places[population.name]
        log: Tensor = self.log_scales[place]
        if log.requires_grad:
            return log.double().exp()
        return torch.tensor(1.0 / np.array(self.integer.populations[place].scale, np.float64))

    def _unit(self, population: Population) -> Tensor:
        """Membrane LSBs per unit of the float network."""
        return self.scale(population) * 2.0**self.format.fraction_bits

    def _mantissas(self, place: int, projection: Projection) -> Tensor:
        """Weights on the grid."""
        weight, scale = self.weights[place], self.scale(self.graph.population(projection.target))
        given = self.integer.projections[place]
        grid = host_grid(self.format) if self.graph.on_host(projection) else self.grid
        factor = scale.reshape(-1, *([1] * (weight.ndim - 1))) if scale.ndim else scale
        one = float(np.asarray(weight_factor(self.graph, projection, 1.0, self.format)))
        steps = weight * (factor * (one * 2.0**-given.exponent)) / grid.step
        steps = steps.clamp(grid.low // grid.step, grid.high // grid.step)
        return through(steps.round(), steps) * grid.step

    def _level(self, population: Population, neurons: LIF) -> Tensor:
        """The lowest membrane that fires."""
        place = self.places[population.name]
        if self.format.threshold_shift:
            mantissa = self.integer.populations[place].neurons
            assert isinstance(mantissa, LIF)
            return self._constant(firing_level(self.format, mantissa.threshold))
        level = self._constant(neurons.threshold) * self._unit(population)
        return through(level.ceil(), level)

    def _constant(self, value: Any) -> Tensor:
        return torch.as_tensor(np.array(value, np.float64)).to(self.weights[0].dtype)

    def freeze_host(self) -> None:
        """Leave alone what the host computes: weights, and the biases and scales behind them."""
        for place, projection in enumerate(self.graph.projections):
            if self.graph.on_host(projection):
                target = self.places[projection.target]
                for parameter in (
                    self.weights[place],
                    self.biases[target],
                    self.log_scales[target],
                ):
                    parameter.requires_grad_(False)

    # ---- one pass ----

    def forward(self, x: Tensor) -> Tensor:
        """Readout currents [T, B, classes] in units of the float network.

        ``x`` are encoded inputs: [B, *shape] where they are constant, else [B, T, *shape].
        """
        (output,) = self.graph.outputs
        membranes = self.membranes(x)[1][output]
        return membranes / self._unit(self.graph.population(output))

    def membranes(self, x: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What populations emit, and their membranes after the reset: [T, B, *shape]."""
        (spec,) = self.graph.fed
        constant = spec.kind == "constant"
        steps = (self.graph.timesteps or 1) if constant else x.shape[1]
        sent = {spec.name: x[None] if constant else x.transpose(0, 1)}
        for always in (i for i in self.graph.inputs if i.always_fires):
            sent[always.name] = x.new_ones((steps, len(x), *always.shape))
        membranes: dict[str, Tensor] = {}
        for group in self.graph.order:
            self._group(group, steps, len(x), sent, membranes)
        return sent, membranes

    def _group(
        self,
        group: tuple[str, ...],
        steps: int,
        samples: int,
        sent: dict[str, Tensor],
        membranes: dict[str, Tensor],
    ) -> None:
        """Run populations that form a loop, or one that forms none, over all timesteps."""
        states = {name: _State(self, self.graph.population(name), samples) for name in group}
        outside: dict[str, Tensor] = {}
        inside: list[tuple[int, Projection, Tensor]] = []
        driven: dict[str, Tensor] = {}
        for place, projection in enumerate(self.graph.projections):
            if projection.target not in group:
                continue
            weight = self._mantissas(place, projection)
            if projection.source in group:
                inside.append((place, projection, weight))
                continue
            sums = _sum(projection, weight, self.graph, sent[projection.source])
            if self.graph.on_host(projection):
                shifted = sums * 2.0 ** self.integer.projections[place].exponent
                total = through((shifted + 0.5).floor(), shifted)
                driven[projection.target] = driven.get(projection.target, 0.0) + total
                continue
            sums = _late(sums * self._worth(place), int(np.max(projection.delay)), steps)
            outside[projection.target] = outside.get(projection.target, 0.0) + sums
        emitted: dict[str, list[Tensor]] = {name: [] for name in group}
        kept: dict[str, list[Tensor]] = {name: [] for name in group}
        for step in range(steps):
            for name in group:
                arriving = _at(outside.get(name), step)
                for place, projection, weight in inside:
                    then = step - int(np.max(projection.delay))
                    if projection.target == name and 0 <= then < len(emitted[projection.source]):
                        source = emitted[projection.source][then][None]
                        some = _sum(projection, weight, self.graph, source)[0] * self._worth(place)
                        arriving = some if arriving is None else arriving + some
                fired, membrane = states[name].step(arriving, _at(driven.get(name), step))
                emitted[name].append(fired)
                kept[name].append(membrane)
        for name in group:
            sent[name], membranes[name] = torch.stack(emitted[name]), torch.stack(kept[name])

    def _worth(self, place: int) -> float:
        """Membrane units of one mantissa."""
        return float(2.0 ** (self.integer.projections[place].exponent + self.format.fraction_bits))

    # ---- back to graphs ----

    @torch.no_grad()
    def float_graph(self) -> Graph:
        """The float graph with the trained weights and biases."""
        projections = tuple(
            replace(p, synapses=with_weights(p.synapses, w.double().numpy()))
            for p, w in zip(self.graph.projections, self.weights, strict=True)
        )
        populations = tuple(
            replace(p, neurons=replace(p.neurons, bias=b.double().numpy()))
            for p, b in zip(self.graph.populations, self.biases, strict=True)
        )
        return replace(self.source, populations=populations, projections=projections)

    @torch.no_grad()
    def integer_graph(self) -> Graph:
        """The integers of this moment.

        Raises
        ------
        SnnDeployError
            SD203 if a population has left what the number format holds.
        """
        trained = self.float_graph()
        prepared = replace(trained, inputs=self.graph.inputs, number_format=self.format)
        found: dict[str, Projection] = {}
        populations = []
        for population in prepared.populations:
            quantized = self._quantized(prepared, population)
            why = misfit(prepared, quantized, self.grid, self.format)
            if why is not None:
                raise SnnDeployError(
                    "SD203", "fine-tuning has left the target's integers", where=population.name,
                    why=why, fix="lower its learning rate",
                )  # fmt: skip
            populations.append(quantized.population)
            found |= {p.name: p for p in quantized.projections}
        return replace(
            prepared,
            populations=tuple(populations),
            projections=tuple(found[p.name] for p in prepared.projections),
        )

    def _quantized(self, prepared: Graph, population: Population) -> Quantized:
        given = self.integer.population(population.name).neurons
        coarse = isinstance(given, LIF) and self.format.threshold_shift
        exponents = {
            p.name: q.exponent
            for p, q in zip(prepared.projections, self.integer.projections, strict=True)
            if p.target == population.name
        }
        exact = self._exact_scale(population).numpy()
        scale: Scale = exact.reshape(-1) if exact.ndim else float(exact)
        return at_scale(
            prepared, population, scale, self.grid, self.format,
            threshold=int(given.threshold.item()) if coarse else None,  # type: ignore[union-attr]
            exponents=exponents, clips=True,
        )  # fmt: skip


class _State:
    """One population from timestep to timestep."""

    def __init__(self, model: TrainableGraph, population: Population, samples: int) -> None:
        self.model, self.population = model, population
        self.format: NumberFormat = model.format
        neurons, place = population.neurons, model.places[population.name]
        self.unit = model._unit(population)
        bias = model.biases[place] * (self.unit * 2.0**-self.format.bias_shift)
        self.bias = through(bias.round(), bias)
        given = model.integer.populations[place].neurons
        self.decay = model._constant(given.decay)
        self.current_decay = (
            None if given.current_decay is None else model._constant(given.current_decay)
        )
        if isinstance(neurons, LIF):
            self.level = model._level(population, neurons)
            if isinstance(neurons.reset, ResetSubtract):
                amount = self.unit * float(neurons.reset.amount)
                self.amount: Tensor | None = through(amount.round(), amount)
            else:
                self.amount = None
                self.rest = float(given.reset.value)  # type: ignore[union-attr]
            self.emission = model._emission(population)
            self.width = model.log_widths[str(place)].exp()
        self.membrane = model.weights[0].new_zeros((samples, *population.shape))
        self.current = torch.zeros_like(self.membrane)

    def step(self, arriving: Tensor | None, driven: Tensor | None) -> tuple[Tensor, Tensor]:
        """Spikes and membranes of one timestep; ``driven`` are bias mantissas of the host."""
        current = torch.zeros_like(self.membrane) if arriving is None else arriving
        if self.current_decay is not None:
            current = current + self._decayed(self.current, self.current_decay)
            self.current = current
        bias = self.bias if driven is None else self.bias + driven
        u = self._decayed(self.membrane, self.decay) + current + bias * 2.0**self.format.bias_shift
        if not isinstance(self.population.neurons, LIF):
            self.membrane = u
            return u, u
        fired = self._emitted(u)
        if self.amount is None:
            self.membrane = u * (1 - fired) + self.rest * fired
        else:
            self.membrane = u - self.amount * fired
        return fired, self.membrane

    def _emitted(self, u: Tensor) -> Tensor:
        spikes = (u >= self.level).to(u.dtype)
        if not self.model.training:
            return spikes
        smooth = SMOOTH_STEPS[self.emission.smooth]((u - self.level) / self.unit, self.width)
        if self.emission.probability < 1:
            noise = torch.rand_like(u) < self.emission.probability
            spikes = torch.where(noise, spikes, smooth.detach())
        return spikes + (smooth - smooth.detach())

    def _decayed(self, state: Tensor, decay: Tensor) -> Tensor:
        """The target's decay rule, with the gradient of the plain product."""
        if self.format.decay_rule == "shift_subtract":
            share = state * 2.0**-decay
            left = state - share.floor()
            left = torch.where(left == state, state - state.sign(), left)
            return through(left, state - share)
        product = state * decay * 2.0**-self.format.decay_bits
        cut = product.trunc() if self.format.decay_rule == "multiply_truncate" else product.floor()
        return through(cut, product)


def _at(values: Tensor | None, step: int) -> Tensor | None:
    if values is None:
        return None
    return values[step if len(values) > 1 else 0]


def _late(sums: Tensor, delay: int, steps: int) -> Tensor:
    """Sums that arrive ``delay`` timesteps later; one for all timesteps stays as it is."""
    if delay == 0 or len(sums) == 1 < steps:
        return sums
    return torch.cat([torch.zeros_like(sums[:delay]), sums[: max(steps - delay, 0)]])[:steps]


def _sum(projection: Projection, weight: Tensor, graph: Graph, source: Tensor) -> Tensor:
    """Synaptic sums [T, B, *target shape] of what was sent [T, B, *source shape]."""
    shape = graph.shape_of(projection.source)
    lead = source.shape[:2]
    maps = source.reshape(-1, *as_map(shape)).to(weight.dtype)
    if projection.pool is not None:
        maps = nn.functional.avg_pool2d(
            maps, projection.pool.kernel, projection.pool.stride, divisor_override=1
        )
    synapses = projection.synapses
    target = synapses.target_shape(pooled_shape(shape, projection.pool))
    if isinstance(synapses, Dense):
        return (maps.flatten(1) @ weight.T).reshape(*lead, *target)
    assert isinstance(synapses, Conv2d)
    sums = nn.functional.conv2d(
        maps, weight, None, synapses.stride, synapses.padding, synapses.dilation, synapses.groups
    )
    return sums.reshape(*lead, *target)
