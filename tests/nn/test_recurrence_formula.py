"""The recurrence against itself in plain Python: values, and derivatives in forward mode.

Nothing here is shared with what is tested: the noise is hashed in integers, smooth steps and their
derivatives are closed forms, and derivatives are carried along with the values, not back.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from snn_deploy.nn.recurrence import Emission, Parameters, State, plain, run
from tests.nn.test_noise import takes_the_spike
from tests.nn.test_recurrence import CASES, IDS, SEED, Case, Setting, outcome, setting
from tests.nn.test_smooth import STATEMENTS

STEPS, AT = 4, 3


class Dual(NamedTuple):
    """A value, and its derivative along one direction."""

    value: float
    slope: float

    def __add__(self, other: Any) -> Dual:
        return Dual(self.value + other.value, self.slope + other.slope)

    def __sub__(self, other: Dual) -> Dual:
        return Dual(self.value - other.value, self.slope - other.slope)

    def __mul__(self, other: Any) -> Dual:
        slope = self.slope * other.value + self.value * other.slope
        return Dual(self.value * other.value, slope)


def emit(emission: Emission, x: Dual, width: Dual, timestep: int, index: int) -> Dual:
    """Eq. 10: the spike or H, by chance; the derivative of H either way."""
    stated = STATEMENTS[emission.smooth]
    slope = stated.slope(x.value, width.value) * x.slope
    slope += stated.by_width(x.value, width.value) * width.slope
    step = 0 if emission.shared else timestep
    if takes_the_spike(SEED, step, index, emission.probability):
        return Dual(1.0 if x.value >= 0 else 0.0, slope)
    return Dual(stated.height(x.value, width.value), slope)


def by_hand(given: Setting, directions: dict[str, Tensor]) -> dict[str, list[list[Dual]]]:
    """What comes out, and its derivative along the directions; neurons are a vector."""

    def dual(name: str, *index: int) -> Dual:
        value, along = leaves[name], directions.get(name)
        at = index if value.ndim == len(index) else index[value.ndim - len(index) :][: value.ndim]
        at = tuple(k if extent > 1 else 0 for k, extent in zip(at, value.shape, strict=True))
        return Dual(value[at].item(), 0.0 if along is None else along[at].item())

    leaves = {name: value.detach() for name, value in given.leaves().items()}
    emission, one = given.emission, Dual(1.0, 0.0)
    samples, neurons = given.c.shape[1:]
    spikes = [[Dual(0.0, 0.0)] * samples * neurons for _ in range(STEPS)]
    # in the order of `outcome`
    ends: dict[str, list[Dual]] = {"membrane": [], "last": [], "current": []}
    for b in range(samples):
        v = [dual("membrane before", b, n) for n in range(neurons)]
        i, s = [one] * neurons, [one] * neurons
        if "alpha" in leaves:
            i = [dual("current before", b, n) for n in range(neurons)]
        if "recurrent" in leaves:
            s = [dual("spikes before", b, n) for n in range(neurons)]
        for t in range(STEPS):
            before = list(s)
            for n in range(neurons):
                fed = dual("c", t, b, n)
                if "recurrent" in leaves:
                    for k in range(neurons):
                        fed = fed + dual("recurrent", n, k) * before[k]
                if "alpha" in leaves:
                    i[n] = fed = dual("alpha", n) * i[n] + fed
                u = dual("decay", n) * v[n] + fed
                x = u - dual("theta", n)
                s[n] = emit(emission, x, dual("width", n), AT + t, b * neurons + n)
                if "amount" in leaves:
                    v[n] = u - dual("amount", n) * s[n]
                else:
                    v[n] = u * (one - s[n])
                spikes[t][b * neurons + n] = s[n]
        ends["membrane"] += v
        ends["current"] += i
        ends["last"] += s
    if "alpha" not in leaves:
        del ends["current"]
    return {"spikes": spikes, **{name: [row] for name, row in ends.items()}}


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_values_and_derivatives_are_those_of_plain_python(case: Case, recurrent: bool) -> None:
    """With any probability: gradients are H's for spikes too, along and through the reset."""
    given = setting(case, (5,), recurrent=recurrent)
    out, gradients = outcome(run, given, STEPS, AT)
    torch.manual_seed(1)
    for name in [*gradients, "all"]:
        along = {
            other: torch.randn_like(gradient)
            for other, gradient in gradients.items()
            if name in (other, "all")
        }
        expected = by_hand(given, along)
        slope = 0.0
        for number, (key, rows) in enumerate(expected.items(), 1):
            values = torch.tensor([one.value for row in rows for one in row], dtype=torch.float64)
            slopes = torch.tensor([one.slope for row in rows for one in row], dtype=torch.float64)
            assert torch.allclose(out[key].flatten(), values, rtol=1e-12, atol=1e-12), key
            # of the weighted sum that `outcome` differentiates
            weights = torch.cos(torch.arange(len(values)) * number).double()
            slope += (weights * (1 + 2 / 3 * values) * slopes).sum().item()
        found = sum((gradients[other] * along[other]).sum().item() for other in along)
        assert found == pytest.approx(slope, rel=1e-9, abs=1e-9), name


# Multiples of 1/8: sums are exact, and many membranes are exactly at the threshold.
EIGHTHS = st.integers(-16, 16).map(lambda n: n / 8) | st.just(-0.0)
ANY = EIGHTHS | st.floats(-3, 3, allow_subnormal=False)


@st.composite
def drawn(draw: st.DrawFn, cases: list[Case]) -> Setting:
    """One of these cases with currents, parameters and states of any kind."""
    case = draw(st.sampled_from(cases))

    def tensor(elements: st.SearchStrategy[float], *shape: int) -> Tensor:
        number = int(torch.Size(shape).numel())
        values = draw(st.lists(elements, min_size=number, max_size=number))
        return torch.tensor(values, dtype=torch.float64).reshape(shape).requires_grad_()

    samples, neurons = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    each = (neurons,) if case.per_neuron else ()
    decays = st.sampled_from([0.0, 0.25, 0.5, 0.75]) | st.floats(0, 0.999)
    positive = st.sampled_from([0.25, 0.5, 1.0, 2.0]) | st.floats(0.05, 4)
    return Setting(
        tensor(ANY, 1 if case.constant else STEPS, samples, neurons),
        Parameters(
            theta=tensor(positive, *each),
            decay=tensor(decays, *each),
            width=tensor(positive, *each),
            alpha=tensor(decays, *each) if case.filtered else None,
            amount=tensor(positive, *each) if case.soft else None,
        ),
        Emission(case.smooth, case.probability, case.shared),
        State(*(tensor(EIGHTHS, samples, neurons) for _ in range(3))),
    )


@given(given_=drawn(CASES))
def test_fused_is_plain_for_any_values(given_: Setting) -> None:
    """On edges of windows and of the threshold too."""
    out, gradients = outcome(run, given_)
    expected_out, expected_gradients = outcome(plain, given_)
    for name, value in expected_out.items():
        torch.testing.assert_close(out[name], value, rtol=1e-12, atol=1e-12, msg=name)
    for name, value in expected_gradients.items():
        # a narrow step is steep, and its slope is passed on from step to step
        scale = max(1.0, value.abs().max().item())
        torch.testing.assert_close(gradients[name], value, rtol=1e-9, atol=1e-9 * scale, msg=name)


@given(given_=drawn([case for case in CASES if case.probability == 1.0]))
def test_spikes_and_states_in_evaluation_are_plain_to_the_bit(given_: Setting) -> None:
    rules = STEPS, given_.parameters, given_.emission, SEED, given_.state, AT
    with torch.no_grad():
        (found, after), (expected, state) = run(given_.c, *rules), plain(given_.c, *rules)
    assert torch.equal(found, expected)
    for one, other in zip(after, state, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["spikes", "membrane", "current", "last"])
@pytest.mark.parametrize("recurrent", [False, True])
def test_a_loss_may_use_any_one_output(name: str, recurrent: bool) -> None:
    given = setting(CASES[5], (5,), recurrent=recurrent)
    found = []
    for which in (run, plain):
        s, after = which(given.c, STEPS, given.parameters, given.emission, SEED, given.state, AT)
        out = {
            "spikes": s, "membrane": after.membrane, "current": after.current, "last": after.spikes
        }  # fmt: skip
        loss = (out[name] ** 2).sum()
        found.append(torch.autograd.grad(loss, list(given.leaves().values()), allow_unused=True))
    for leaf, one, other in zip(given.leaves(), *found, strict=True):
        expected = torch.zeros_like(one) if other is None else other  # plain knows no path
        torch.testing.assert_close(one, expected, rtol=1e-9, atol=1e-9, msg=leaf)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("case", [CASES[0], CASES[5]])
def test_a_gradient_does_not_depend_on_which_others_are_asked_for(
    case: Case, recurrent: bool
) -> None:
    given = setting(case, (5,), recurrent=recurrent)
    _, together = outcome(run, given, STEPS, AT)
    detached = [value.detach() for value in given.state]
    for name in together:
        alone = {
            other: value.detach().requires_grad_(other == name)
            for other, value in given.leaves().items()
        }
        before = (alone.get(f"{which} before") for which in ("membrane", "current", "spikes"))
        state = State(
            *(kept if one is None else one for one, kept in zip(before, detached, strict=True))
        )
        parameters: Any = {key: alone.get(key) for key in Parameters.__slots__}
        one = Setting(alone["c"], Parameters(**parameters), given.emission, state)
        _, gradients = outcome(run, one, STEPS, AT)
        assert list(gradients) == [name]
        assert torch.equal(gradients[name], together[name]), name


def test_a_second_backward_pass_makes_the_same_gradients() -> None:
    given = setting(CASES[5], (5,), recurrent=True)
    s, after = run(given.c, STEPS, given.parameters, given.emission, SEED, given.state, AT)
    loss = (s**2).sum() + after.membrane.sum() + after.current.sum()
    leaves = list(given.leaves().values())
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(loss, leaves), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("recurrent", [False, True])
def test_gradients_that_are_handed_in_are_left_alone(recurrent: bool) -> None:
    """The backward pass carries some of them from step to step: copies of them."""
    given = setting(CASES[5], (5,), recurrent=recurrent)
    s, after = run(given.c, STEPS, given.parameters, given.emission, SEED, given.state, AT)
    outputs = (s, after.membrane, after.current)
    handed = [torch.cos(torch.arange(out.numel())).reshape(out.shape).double() for out in outputs]
    before = [gradient.clone() for gradient in handed]
    torch.autograd.grad(outputs, list(given.leaves().values()), handed)
    for one, other in zip(handed, before, strict=True):
        assert torch.equal(one, other)


def test_mixed_precision_does_not_reach_into_the_recurrence() -> None:
    """Recurrent weights take no bfloat16, neither forward nor in our own backward pass."""
    given = setting(CASES[0], (5,), recurrent=True, dtype=torch.float32)
    plainly, _ = outcome(plain, given)
    out, gradients = outcome(run, given)
    with torch.autocast("cpu", torch.bfloat16):
        mixed_plainly, _ = outcome(plain, given)
        mixed, mixed_gradients = outcome(run, given)
    pairs = ((plainly, mixed_plainly), (out, mixed), (gradients, mixed_gradients))
    for expected, found in pairs:
        for name, value in expected.items():
            assert found[name].dtype == torch.float32
            assert torch.equal(found[name], value), name
