"""Neurons of the dense engine: the norm's rules restated for tensors, in 32 bits where they fit.

Where :mod:`snn_deploy.sim.dense_proof` finds that no number on the way leaves 32 bits, neurons are
stepped in int32, else in int64; and what cannot leave its register is not brought back into it.
States are tensors [samples, height, width, channels].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snn_deploy.graph import LIF, Population, ResetSubtract
from snn_deploy.numerics import NumberFormat, OverflowRule, firing_level
from snn_deploy.sim.dense_proof import Proof
from snn_deploy.synapses import as_map

Array = NDArray[Any]


class Neurons:
    """Some samples of one population; ``membrane`` and ``current`` are those after the last step.

    ``changed``, int32 [samples]: neurons whose membrane the last step changed, or that fired.
    """

    def __init__(
        self,
        form: NumberFormat,
        population: Population,
        proof: Proof,
        samples: int,
        device: torch.device,
    ) -> None:
        self.format, self.population, self.proof, self.device = form, population, proof, device
        self.dtype = integers_of(proof)
        channels, height, width = as_map(population.shape)
        silence = torch.zeros((samples, height, width, channels), dtype=self.dtype, device=device)
        self.membrane, self.current, self._before = silence, silence.clone(), silence.clone()
        self.changed = torch.zeros(samples, dtype=torch.int32, device=device)
        neurons = population.neurons
        self._decay = self._field(neurons.decay)
        memory = neurons.current_decay
        self._current_decay = None if memory is None else self._field(memory)
        bias = neurons.bias.astype(np.int64) << form.bias_shift
        self._bias = self._parameter(bias) if bias.any() else None
        self._level: Tensor | None = None
        if isinstance(neurons, LIF):
            level = firing_level(form, neurons.threshold.astype(np.int64))
            self._level = self._parameter(level)

    def _parameter(self, value: Array) -> Tensor:
        """[height, width, channels], [channels], or one for all."""
        wide = value.astype(np.int64)
        if wide.size == 1:
            wide = wide.reshape(())
        elif wide.size == self.population.shape[0]:
            wide = wide.reshape(-1)
        else:
            spread = np.broadcast_to(wide, self.population.shape)
            wide = spread.reshape(as_map(self.population.shape)).transpose(1, 2, 0)
        return torch.from_numpy(np.ascontiguousarray(wide)).to(self.device, self.dtype)

    def _field(self, decay: Array) -> Decay:
        return Decay(self.format, decay, self.proof, self._parameter)

    def silence(self) -> None:
        """Clear all states."""
        self.membrane.zero_()
        self.current.zero_()

    def step(self, arriving: Tensor | None, host: Tensor | None, spikes: Tensor) -> None:
        """Advance by a timestep.

        ``arriving`` (may be overwritten) are synaptic sums and ``host`` sums of the host, both in
        membrane units and in the proof's type; the numbers of ``spikes``, uint8, are written.
        """
        form = self.format
        if self._current_decay is not None:
            kept = self._current_decay.left(self.current, torch.empty_like(self.current))
            arriving = kept if arriving is None else kept.add_(arriving)
        if arriving is None:
            self.current.zero_()
        else:
            self.current = arriving
            if self.proof.current:
                self.current = self._limited(arriving, form.current_overflow)
        before, after = self.membrane, self._before
        after = self._decay.left(before, after).add_(self.current)
        for more in (self._bias, host):
            if more is not None:
                after.add_(more)
        if self.proof.membrane:
            after = self._limited(after, form.membrane_overflow)
        if self._level is None:
            spikes.zero_()
        else:
            self._fire(after, self._level, spikes)
        self.membrane, self._before = after, before
        fired = spikes.view(torch.bool) if self.population.max_spikes == 1 else spikes > 0
        changed = torch.ne(after, before).logical_or_(fired)
        self.changed = changed.flatten(1).sum(1, dtype=torch.int32)

    def _fire(self, membrane: Tensor, level: Tensor, spikes: Tensor) -> None:
        """Write the spikes, reset the membranes."""
        neurons, most = self.population.neurons, self.population.max_spikes
        assert isinstance(neurons, LIF)
        subtracts = isinstance(neurons.reset, ResetSubtract)
        amount = int(neurons.reset.amount if subtracts else neurons.reset.value)  # type: ignore[union-attr]
        above = membrane - level
        if most > 1:
            fired = torch.div(above, amount, rounding_mode="floor").add_(1).clamp_(0, most)
        else:  # the sign, -1 or 0: several times faster than to compare
            quiet = above.bitwise_right_shift_(8 * above.element_size() - 1)
            if not subtracts:
                membrane.bitwise_and_(quiet)
            fired = quiet.add_(1)
        spikes.copy_(fired)
        if amount:
            membrane.add_(fired, alpha=-amount if subtracts else amount)

    def _limited(self, value: Tensor, rule: OverflowRule) -> Tensor:
        """The word that adds up, then the register; ``value`` may be overwritten."""
        bits = self.format.membrane_bits
        value = wrapped(value, self.format.word_bits)
        if rule == "wrap":
            return wrapped(value, bits)
        half = 1 << (bits - 1)
        if rule == "saturate":
            return value.clamp_(1 - half, half - 1)
        turns = (value <= -half).view(torch.int8) - (value > half).view(torch.int8)
        return value.add_(turns, alpha=2 * half)


class Decay:
    """What a timestep leaves of a state, by the format's rule.

    ``decay`` holds the fields; ``parameter`` makes a tensor of such.
    """

    def __init__(
        self,
        form: NumberFormat,
        decay: Array,
        proof: Proof,
        parameter: Callable[[Array], Tensor],
    ) -> None:
        self.rule, self.bits, self.split = form.decay_rule, 0, False
        field = decay.astype(np.int64)
        if self.rule != "shift_subtract":
            # twos that all fields and the divisor share change no quotient
            common = int(np.bitwise_or.reduce(field, axis=None)) | 1 << form.decay_bits
            shared = (common & -common).bit_length() - 1
            self.bits, field = form.decay_bits - shared, field >> shared
            self.split = proof.narrow and proof.largest * int(field.max()) >= 1 << 31
        self.field = parameter(field)

    def left(self, state: Tensor, out: Tensor) -> Tensor:
        """Of ``state``, written to ``out``."""
        if self.rule == "shift_subtract":
            left = torch.sub(state, state >> self.field, out=out)
            return left.sub_(state.sign().mul_(left == state))
        mask = (1 << self.bits) - 1
        if self.split:  # state = high * 2**bits + low
            low = (state & mask).mul_(self.field)
            high = torch.bitwise_right_shift(state, self.bits, out=out).mul_(self.field)
            return high.add_(self._quotient(low, state, mask))
        return self._quotient(torch.mul(state, self.field, out=out), state, mask)

    def _quotient(self, product: Tensor, state: Tensor, mask: int) -> Tensor:
        """``product / 2**bits`` in place: downward, or toward zero where ``state`` is negative."""
        if self.bits == 0:
            return product
        if self.rule == "multiply_truncate":
            sign = state >> (8 * state.element_size() - 1)
            product.add_(sign.bitwise_and_(mask))
        return product.bitwise_right_shift_(self.bits)


def integers_of(proof: Proof) -> torch.dtype:
    """The type of a population's states."""
    return torch.int32 if proof.narrow else torch.int64


def wrapped(value: Tensor, bits: int) -> Tensor:
    """The lower bits of a value, in place, as a signed number."""
    spare = value.element_size() * 8 - bits
    return value if spare <= 0 else value.bitwise_left_shift_(spare).bitwise_right_shift_(spare)
