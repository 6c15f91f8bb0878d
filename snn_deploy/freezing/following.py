"""Follow a network once: the populations that its neurons are, and the form that it returns."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing.elementwise import floats
from snn_deploy.freezing.forms import Form, Pattern, synaptic
from snn_deploy.freezing.leaves import Call, Kind, Leaf, intercepted
from snn_deploy.freezing.meaning import SAMPLES, Meaning
from snn_deploy.freezing.neurons import FrozenNeurons, same_neurons
from snn_deploy.freezing.refusal import UnfoldableError, refuse
from snn_deploy.freezing.rules import RULES
from snn_deploy.freezing.tracing import Trace, Traced, plain, tensors_in
from snn_deploy.graph import InputSpec
from snn_deploy.synapses import Conv2d, Shape

_OVER_CURRENTS = UnfoldableError(
    "it takes the largest of currents, or of sums of spikes, which no synapse does",
    "pool the spikes behind the neurons: the largest of spikes is their OR",
)

OUTPUT = "output"  # the population that ends a graph where none of the module's does

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
    hidden: Pattern = field(init=False)

    def __post_init__(self) -> None:
        self.spikes = Pattern(shape=self.shape, source=self.name, origin=self.path)
        self.membrane = Pattern(shape=self.shape, source=self.name, membrane=True, origin=self.path)
        self.hidden = replace(self.membrane, hidden=True)

    def pattern(self, kind: Kind) -> Pattern:
        """What a tensor of these neurons is; who has no reset has no spikes in the graph."""
        if kind == "spikes":
            return self.spikes if self.frozen.spiking else self.hidden
        return self.membrane if kind == "membrane" else self.hidden


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
    _largest: dict[Any, Followed] = field(default_factory=dict)

    def intercept(
        self, leaf: Leaf, entry: str, original: Any, args: Any, options: dict[str, Any]
    ) -> Any:
        """A call of a leaf: its currents become what feeds a population, its spikes a pattern."""
        library = leaf.library
        call = library.read(leaf.module, entry, args, options)
        kept = library.kept(leaf.module)
        for name in kept:
            setattr(leaf.module, name, plain(getattr(leaf.module, name, None)))
        with torch._C.DisableTorchFunction():  # what neurons do inside is not looked at
            out = original(*plain(args), **plain(options))
        self.lend((out, [getattr(leaf.module, name) for name in kept]))
        try:
            self.check_unwritten((args, options))
            leaf.library.freeze(leaf.module)  # what cannot be frozen says so before anything else
            if not isinstance(call.current, Traced):
                call = replace(call, current=self._constant(call))
            population, first = self._resumed(leaf, call)
            self._feed(population, call, first)
            if population.frozen.spiking:
                self.emitted.append(Emitted(population.name, first, call.steps))

            def mark(kind: Kind, data: Tensor) -> Traced:
                return self._traced(
                    population.pattern(kind), population.frozen.amplitude, data, call, first
                )

            returned = library.marked(leaf.module, call, out, mark)
            for name, kind in kept.items():
                setattr(leaf.module, name, mark(kind, getattr(leaf.module, name)))
            self.lend((returned, [getattr(leaf.module, name) for name in kept]))
        except ValueError as error:
            of = type(leaf.module).__name__
            refuse(of, error, leaf.path or of)
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
        if call.state is None:
            return self._new(leaf, call), 0
        if isinstance(call.state, dict):
            found = self._handed(call)
        else:
            found = self._states[id(call.state)][1:] if id(call.state) in self._states else None
            if found is None and any(plain(one).any() for one in tensors_in(call.state)):
                raise UnfoldableError(
                    "it is given a state that is neither its own, as it was, nor zero",
                    "start with None, and hand over the state that it returned",
                )
        if found is None:
            return self._new(leaf, call), 0
        population, step = found
        if population.path != leaf.path:
            raise UnfoldableError(
                f"it goes on from the state of other neurons, {population.path}",
                "hand every module its own state",
            )
        if step != len(population.forms):
            raise UnfoldableError(
                "a state of it is used twice, or another than the latest",
                "hand over the latest state, once",
            )
        if not same_neurons(population.frozen, leaf.library.freeze(leaf.module)):
            raise UnfoldableError(
                "its decay, threshold or reset change over time",
                "keep them the same at every timestep",
            )
        return population, step

    def _handed(self, call: Call) -> tuple[Followed, int] | None:
        """The population and timestep that tensors of a state say; None if they are at rest."""
        owners: set[tuple[Followed, int] | None] = set()
        for kind, state in call.state.items():
            if isinstance(state, Traced):
                owners.add(self._owner(kind, state))
                continue
            owners.add(None)
            rest = torch.as_tensor(call.rest) if kind == "membrane" else torch.zeros(())
            state = torch.as_tensor(state).detach()
            if bool((state != rest.detach().to(state.dtype)).any()):
                raise UnfoldableError(
                    "its first state is neither its own, as it was, nor its state at rest",
                    "start without a state, and hand over the state that it returned",
                )
        if len(owners) != 1:
            raise UnfoldableError(
                "it is given a state of several neurons or timesteps",
                "hand over all of the latest state that it returned",
            )
        return owners.pop()

    def _owner(self, kind: Kind, state: Traced) -> tuple[Followed, int]:
        """The population whose state a tensor is, and the timestep that follows."""
        forms = state.meaning.forms
        items = state.meaning.items(1)
        found = {item.whole(forms) for item in items}
        in_order = [item.sample for item in items] == list(range(SAMPLES))
        index = found.pop() if len(found) == 1 else None
        single = forms[index].single() if index is not None and in_order else None
        if single is not None and single[1] is not None and single[2] == 1.0:
            for population in self.populations:
                if population.pattern(kind) is single[0]:
                    return population, single[1] + 1
        raise UnfoldableError(
            "its state is not its own, as it was", "hand over the state that it returned"
        )

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

    def _constant(self, call: Call) -> Traced:
        """What a leaf is fed that does not come from the input: the same for all samples.

        Such as zeros at the first timestep, in place of spikes that come one step later.
        """
        current = torch.as_tensor(call.current)
        lead = 2 if call.sequence else 1
        by_step = current if call.sequence else current[None]
        if current.ndim <= lead or by_step.shape[1] != SAMPLES or (by_step != by_step[:, :1]).any():
            raise UnfoldableError(
                "it is fed by a constant that differs between samples",
                "feed it from the input, or with the same constant for all samples",
            )
        shape = as_population(tuple(current.shape[lead:]))
        forms = [self.folding.constant(floats(one[0]).reshape(shape), shape) for one in by_step]
        meaning = Meaning.of(forms, (len(forms), SAMPLES), tuple(current.shape[lead:]))
        labels = meaning.labels.reshape(current.shape)
        return Traced.of(current, Meaning(labels, meaning.forms, meaning.starts))

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
            raise UnfoldableError(
                "what feeds it was rearranged, or joined from several parts",
                "feed neurons with the currents of one layer, or with sums of such; join spikes",
            )
        if [item.sample for item in items] != list(range(SAMPLES)):
            raise UnfoldableError(
                "what feeds it mixes the samples of a batch", "treat every sample by itself"
            )
        return meaning.forms[found.pop()]  # type: ignore[index]

    def _feed(self, population: Followed, call: Call, first: int) -> None:
        for step in range(call.steps):
            form = self._form(call, step)
            one_for_all = call.sequence and call.steps > 1 and call.current.shape[0] == 1
            if one_for_all and any(time is not None for _, time in form.terms):
                raise UnfoldableError(
                    "it runs through several timesteps with the current of one",
                    "give a current [T, B, ...], or one that is the same at all timesteps",
                )
            if form.shape != population.shape:
                raise UnfoldableError(
                    f"it is fed by {form.shape} after {population.shape}",
                    "let the same neurons get the same shape at every timestep",
                )
            if len(population.forms) != first + step:
                raise UnfoldableError(
                    "its timesteps do not follow each other", "hand over its latest state"
                )
            population.forms.append(form)

    def _traced(
        self, pattern: Pattern, amplitude: float, data: Tensor, call: Call, first: int
    ) -> Traced:
        """A tensor of all timesteps of a call, or of the last of them."""
        every = call.sequence and data.ndim == call.current.ndim
        times = range(first, first + call.steps) if every else [first + call.steps - 1]
        weight = amplitude if pattern.own_values else 1.0
        forms = [Form(pattern.shape, {(pattern, time): weight}) for time in times]
        lead = (call.steps, SAMPLES) if every else (SAMPLES,)
        meaning = Meaning.of(forms, lead, pattern.shape)
        # some libraries make float32 spikes of float64 membranes
        return Traced.of(
            plain(data).double(),
            Meaning(meaning.labels.reshape(data.shape), meaning.forms, meaning.starts),
        )

    def largest(self, form: Form, window: Conv2d) -> Form:
        """Spikes of a population that fires where any spike of a window does."""
        single = form.single()
        if single is None:
            raise _OVER_CURRENTS
        pattern, time, weight = single
        binary = pattern.own_values and not pattern.values and pattern.pool is None
        if not binary or weight <= 0:
            raise _OVER_CURRENTS
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
    """A network followed: its populations in order, its calls in order, and what it returns."""

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
    trace = Following(RULES, naming=naming, taken={spec.name, OUTPUT})
    x = _example(spec, steps, time_first)
    with (
        torch.no_grad(),
        _doubles(),
        intercepted(model, trace.intercept),  # clears the states, which are no parameters
        trace.running(model),
    ):
        try:
            out = model(x)
        except SnnDeployError:
            raise
        except Exception as error:
            raise SnnDeployError(
                "SD205",
                f"{type(model).__name__} fails on an input of shape {tuple(x.shape)} ({spec.kind})",
                where=trace.where or None,
                why=f"{type(error).__name__}: {error}",
                fix="say what it is fed: its shape, and whether time comes first",
            ) from error
        out = out[0] if isinstance(out, tuple) else out
        output = _returned(trace, model, out)
    neurons = [p for p in trace.populations if not p.pooled]
    lengths = {len(p.forms) for p in neurons}
    if not lengths and steps is not None:
        lengths = {steps}  # a linear network
    if not lengths:
        raise SnnDeployError(
            "SD205",
            f"{type(model).__name__} cannot be frozen: no neurons that are known ran in it",
            fix="use snn_deploy.nn.neurons.LIF or CLIF, or neurons of a supported library",
        )
    if len(lengths) != 1:
        shortest = min(neurons, key=lambda p: len(p.forms))
        raise SnnDeployError(
            "SD205",
            f"neurons that run for {min(lengths)} timesteps where others run for {max(lengths)} "
            "cannot be frozen",
            where=shortest.path,
            fix="run all neurons at every timestep",
        )
    return Result(tuple(trace.populations), tuple(trace.emitted), output, lengths.pop())


def _returned(trace: Trace, model: nn.Module, out: Any) -> Form:
    """The form that a network returns, for every sample."""
    if not isinstance(out, Traced) or out.ndim != 2 or len(out) != SAMPLES:
        raise SnnDeployError(
            "SD205",
            f"{type(model).__name__} cannot be frozen: it must return what it decides by, one "
            "tensor [B, classes]",
            fix="return spike counts, or the mean or sum of the last currents over time",
        )
    try:
        trace.check_unwritten(out)
        items = out.meaning.items(1)
    except UnfoldableError as error:
        refuse(type(model).__name__, error, trace.where)
    found = {item.whole(out.meaning.forms) for item in items}
    if None in found or len(found) != 1 or [i.sample for i in items] != list(range(SAMPLES)):
        raise SnnDeployError(
            "SD205",
            f"{type(model).__name__} cannot be frozen: what it returns is put together from parts",
            fix="return spike counts, or the mean or sum of the last currents over time",
        )
    return out.meaning.forms[found.pop()]  # type: ignore[index]


def _example(spec: InputSpec, steps: int | None, time_first: bool) -> Traced:
    """A made-up input and its meaning."""
    random = np.random.default_rng(0)
    pattern = Pattern(
        shape=as_population(spec.shape), source=spec.name, values=spec.kind != "spikes"
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


def as_population(shape: Shape) -> Shape:
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
