"""Follow a network once: the populations that its neurons are, and the form that it returns."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing.forms import Form, Pattern, synaptic
from snn_deploy.freezing.leaves import Call, Leaf, intercepted
from snn_deploy.freezing.neurons import FrozenNeurons
from snn_deploy.freezing.rules import RULES
from snn_deploy.freezing.tracing import SAMPLES, Meaning, Trace, Traced, plain
from snn_deploy.graph import InputSpec
from snn_deploy.synapses import Conv2d, Shape

Naming = Callable[[str, Form], str]


@dataclass(slots=True, eq=False)
class Followed:
    """A population as it was met: its neurons, and the form that fed it at every timestep."""

    name: str
    path: str
    shape: Shape
    frozen: FrozenNeurons
    forms: list[Form] = field(default_factory=list)
    pooled: bool = False  # a maximum over spikes, not neurons of the module
    spikes: Pattern = field(init=False)
    membrane: Pattern = field(init=False)

    def __post_init__(self) -> None:
        self.spikes = Pattern(shape=self.shape, source=self.name, origin=self.path)
        self.membrane = Pattern(shape=self.shape, source=self.name, membrane=True, origin=self.path)


@dataclass(frozen=True, slots=True)
class Emitted:
    """Spikes that one call of a leaf returned: timesteps first .. first + steps of a population."""

    population: str
    first: int
    steps: int


@dataclass(slots=True, eq=False)
class Following(Trace):
    """The trace of a network with its populations, in the order in which they were met."""

    naming: Naming = lambda path, form: path
    populations: list[Followed] = field(default_factory=list)
    emitted: list[Emitted] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    _states: dict[int, tuple[Any, Followed, int]] = field(default_factory=dict)
    _kept: dict[int, Followed] = field(default_factory=dict)
    _largest: dict[Any, Followed] = field(default_factory=dict)

    def intercept(
        self, leaf: Leaf, entry: str, original: Any, args: Any, options: dict[str, Any]
    ) -> Any:
        """A call of a leaf: its currents become what feeds a population, its spikes a pattern."""
        library = leaf.library
        call = library.read(leaf.module, entry, args, options)
        out = original(*plain(args), **plain(options))
        try:
            if not isinstance(call.current, Traced):
                raise ValueError("fed by a constant, not by the input,")  # noqa: TRY301
            population, first = self._resumed(leaf, call)
            self._feed(population, call, first)
            if library.keeps_state(leaf.module):
                self._kept[id(leaf.module)] = population
            spikes = library.spikes(entry, out)
            if population.frozen.spiking:
                self.emitted.append(Emitted(population.name, first, call.steps))
            traced = self._traced(population.spikes, spikes, call, first)
            membrane = library.membrane(leaf.module, entry, out)
            if membrane is not None:
                membrane = self._traced(population.membrane, membrane, call, first)
            returned = library.returned(entry, out, traced, membrane)
        except ValueError as error:
            kind = type(leaf.module).__name__
            raise SnnDeployError(
                "SD205", f"{kind} {error} cannot be frozen", where=leaf.path or kind
            ) from None
        if not call.sequence:
            self._remember(out, returned, population, first + 1)
        return returned

    def _remember(self, out: Any, returned: Any, population: Followed, step: int) -> None:
        """Know the population again by whatever state is handed over next time."""
        parts = returned if isinstance(returned, tuple) else (returned,)
        for part in (returned, *parts):
            self._states[id(part)] = (part, population, step)

    def _resumed(self, leaf: Leaf, call: Call) -> tuple[Followed, int]:
        """The population of a call, and its first timestep: a new one where the state starts."""
        if leaf.library.keeps_state(leaf.module) and id(leaf.module) in self._kept:
            population = self._kept[id(leaf.module)]
            return population, len(population.forms)
        if call.state is not None:
            states = call.state if isinstance(call.state, tuple) else (call.state,)
            known = [
                self._states[id(s)][1:] for s in (call.state, *states) if id(s) in self._states
            ]
            known += [self._owner(s) for s in states if isinstance(s, Traced)]
            if known:
                population, step = known[0]
                if step != len(population.forms):
                    raise ValueError("whose state is used twice")
                return population, step
            if any(isinstance(s, Tensor) and bool(plain(s).any()) for s in states):
                raise ValueError("whose first state is not zero")
        return self._new(leaf, call), 0

    def _owner(self, state: Traced) -> tuple[Followed, int]:
        """The population whose membrane a tensor is, and the timestep that follows."""
        for form in state.meaning.forms:
            single = form.single()
            if single is not None and single[0].membrane and single[1] is not None:
                owner = next(p for p in self.populations if p.name == single[0].source)
                return owner, single[1] + 1
        raise ValueError("whose state is not its own")

    def _new(self, leaf: Leaf, call: Call) -> Followed:
        form = self._form(call, 0)
        frozen = leaf.library.freeze(leaf.module)
        name = self._free(self.naming(leaf.path, form))
        population = Followed(name, leaf.path, form.shape, frozen)
        self.populations.append(population)
        return population

    def _free(self, wanted: str) -> str:
        """A name that no other has, of letters that a graph allows."""
        clean = "".join(c if c.isalnum() or c in "_.-" else "_" for c in wanted) or "neurons"
        name, n = clean, 1
        while name in self.taken:
            n += 1
            name = f"{clean}_{n}"
        self.taken.add(name)
        return name

    def _form(self, call: Call, step: int) -> Form:
        """What feeds a leaf at the given timestep of a call."""
        assert isinstance(call.current, Traced)
        meaning = call.current.meaning
        lead = 2 if call.sequence else 1
        items = meaning.items(lead)
        if call.sequence:
            length = call.current.shape[0]
            index = step if length > 1 else 0
            items = items[index * SAMPLES : (index + 1) * SAMPLES]
        found = {item.whole(meaning.forms) for item in items}
        if None in found or len(found) != 1:
            raise ValueError("whose input was rearranged or joined")
        if [item.sample for item in items] != list(range(SAMPLES)):
            raise ValueError("whose input mixes the samples of a batch")
        return meaning.forms[found.pop()]  # type: ignore[index]

    def _feed(self, population: Followed, call: Call, first: int) -> None:
        for step in range(call.steps):
            form = self._form(call, step)
            if call.sequence and call.steps > 1 and call.current.shape[0] == 1:
                if any(time is not None for _, time in form.terms):
                    raise ValueError("fed by one timestep where it runs through several")
            if form.shape != population.shape:
                raise ValueError(f"fed by {form.shape} after {population.shape}")
            if len(population.forms) != first + step:
                raise ValueError("whose timesteps do not follow each other")
            population.forms.append(form)

    def _traced(self, pattern: Pattern, data: Tensor, call: Call, first: int) -> Traced:
        forms = [Form(pattern.shape, {(pattern, first + k): 1.0}) for k in range(call.steps)]
        lead = (call.steps, SAMPLES) if call.sequence else (SAMPLES,)
        meaning = Meaning.of(forms, lead, pattern.shape)
        return Traced.of(
            data, Meaning(meaning.labels.reshape(data.shape), meaning.forms, meaning.starts)
        )

    def largest(self, form: Form, window: Conv2d) -> Form:
        """Spikes of a population that fires where any spike of a window does."""
        single = form.single()
        if single is None:
            raise ValueError("over currents, before neurons: pool the spikes behind them instead;")
        pattern, time, weight = single
        binary = pattern.own_values and not pattern.values and pattern.pool is None
        if not binary or weight <= 0:
            raise ValueError("over currents, before neurons: pool the spikes behind them instead;")
        key = (id(pattern), window.weight.shape, window.stride, window.padding, window.dilation)
        if key not in self._largest:
            (((fed, _), _),) = synaptic(pattern, window, "maxpool", self.where).terms.items()
            population = Followed(
                self._free(f"maxpool{len(self._largest) + 1}"), self.where, fed.shape,
                FrozenNeurons.any_spike(), pooled=True,
            )  # fmt: skip
            population.forms.append(Form(fed.shape, {(fed, 0): 1.0}))
            self._largest[key] = population
            self.populations.append(population)
        return Form(self._largest[key].shape, {(self._largest[key].spikes, time): weight})


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """A network followed: populations in order, spikes in the order of their calls, what it returns."""

    populations: tuple[Followed, ...]
    emitted: tuple[Emitted, ...]
    output: Form
    steps: int


def follow(
    model: nn.Module, spec: InputSpec, steps: int | None, time_first: bool, naming: Naming
) -> Result:
    """Run a network in evaluation, in float64, on a made-up input, and write down what it means.

    Parameters
    ----------
    model : a copy that is ours, in float64.
    spec : its input.
    steps : timesteps of a spikes input; of a constant one the network decides.
    time_first : spikes come as [T, B, ...] instead of [B, T, ...].
    naming : a population's name, from the path of its module and the form that feeds it first.
    """
    trace = Following(RULES, naming=naming, taken={spec.name})
    x = _example(spec, steps, time_first)
    with (
        torch.no_grad(),
        _doubles(),
        trace.running(model),
        intercepted(model, trace.intercept),
    ):
        try:
            out = model(x)
        except SnnDeployError:
            raise
        except Exception as error:
            raise SnnDeployError(
                "SD205",
                f"{type(model).__name__} fails on an input of shape {tuple(x.shape)} ({spec.kind})",
                where=trace.where,
                why=f"{type(error).__name__}: {error}",
                fix="say what it is fed: its shape, and whether time comes first",
            ) from error
        out = out[0] if isinstance(out, tuple) else out
        output = _returned(trace, model, out)
    neurons = [p for p in trace.populations if not p.pooled]
    lengths = {len(p.forms) for p in neurons} or {steps}
    if None in lengths:
        raise SnnDeployError("SD205", f"{type(model).__name__} has no neurons that are known")
    if len(lengths) != 1:
        shortest = min(neurons, key=lambda p: len(p.forms))
        raise SnnDeployError(
            "SD205",
            f"neurons that run for {min(lengths)} timesteps where others run for {max(lengths)} "
            "cannot be frozen",
            where=shortest.path,
        )
    return Result(tuple(trace.populations), tuple(trace.emitted), output, lengths.pop())


def _returned(trace: Trace, model: nn.Module, out: Any) -> Form:
    """The form that a network returns, for every sample."""
    if not isinstance(out, Traced) or out.ndim != 2 or len(out) != SAMPLES:
        raise SnnDeployError(
            "SD205",
            f"{type(model).__name__} must return what it decides by: one tensor [B, classes]",
            fix="return spike counts, or the mean or sum of the last currents over time",
        )
    items = out.meaning.items(1)
    found = {item.whole(out.meaning.forms) for item in items}
    if None in found or len(found) != 1 or [i.sample for i in items] != list(range(SAMPLES)):
        raise SnnDeployError(
            "SD205", f"what {type(model).__name__} returns is put together from several parts"
        )
    return out.meaning.forms[found.pop()]  # type: ignore[index]


def _example(spec: InputSpec, steps: int | None, time_first: bool) -> Traced:
    """A made-up input and its meaning."""
    random = np.random.default_rng(0)
    pattern = Pattern(
        shape=_as_population(spec.shape), source=spec.name, values=spec.kind != "spikes"
    )
    if spec.kind == "constant":
        values = random.uniform(spec.low, spec.high, (SAMPLES, *spec.shape))
        meaning = Meaning.of([Form(pattern.shape, {(pattern, None): 1.0})], (SAMPLES,), spec.shape)
        return Traced.of(torch.from_numpy(values), meaning)
    assert steps is not None
    forms = [Form(pattern.shape, {(pattern, k): 1.0}) for k in range(steps)]
    lead = (steps, SAMPLES) if time_first else (SAMPLES, steps)
    values = random.uniform(spec.low, spec.high, (*lead, *spec.shape))
    if spec.kind == "spikes":
        values = (random.random(values.shape) < 0.3).astype(np.float64)
    meaning = Meaning.of(forms, (steps, SAMPLES), spec.shape)
    if not time_first:
        meaning = Meaning(meaning.labels.transpose(0, 1), meaning.forms, meaning.starts)
    return Traced.of(torch.from_numpy(values), meaning)


def _as_population(shape: Shape) -> Shape:
    """(N,), (C, 1, L) or (C, H, W)."""
    return (shape[0], 1, shape[1]) if len(shape) == 2 else shape


@contextmanager
def _doubles() -> Any:
    """Tensors that the network makes on its way are float64, as its parameters are."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
