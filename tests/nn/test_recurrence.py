"""The fused recurrence against the plain one, and its gradients against finite differences."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from snn_deploy.nn import kernels, recurrence
from snn_deploy.nn.recurrence import Emission, Parameters, State, plain, run

SEED = 987_654_321_987_654_321
Recurrence = Callable[..., tuple[Tensor, State]]


class Case(NamedTuple):
    """One combination of rules."""

    smooth: str
    probability: float
    shared: bool
    soft: bool
    filtered: bool
    per_neuron: bool
    constant: bool


# Every pair of rules is here at least once. Kernels are compiled for each line: keep it short.
CASES = [
    Case("clip", 0.6, False, False, False, False, False),
    Case("clip", 1.0, False, True, True, True, True),
    Case("triangular", 0.6, True, True, False, True, False),
    Case("triangular", 1.0, False, False, True, False, False),
    Case("sigmoid", 0.0, False, False, False, False, False),
    Case("sigmoid", 0.6, True, True, True, False, False),
    Case("tanh", 0.0, False, True, True, True, False),
    Case("tanh", 0.6, False, False, False, True, True),
    Case("arctan", 0.0, True, False, True, False, False),
    Case("arctan", 1.0, False, True, False, False, False),
    Case("dspike", 0.6, True, False, False, True, False),
    Case("dspike", 0.6, False, True, True, False, True),
]
IDS = ["-".join(map(str, case)) for case in CASES]


class Setting(NamedTuple):
    """What goes into one run."""

    c: Tensor
    parameters: Parameters
    emission: Emission
    state: State

    def leaves(self) -> dict[str, Tensor]:
        """Everything a gradient is asked for, by name."""
        p = self.parameters
        named = {
            "c": self.c,
            "theta": p.theta,
            "decay": p.decay,
            "width": p.width,
            "alpha": p.alpha,
            "amount": p.amount,
            "recurrent": p.recurrent,
            "membrane before": self.state.membrane,
            "current before": self.state.current if p.alpha is not None else None,
            "spikes before": self.state.spikes if p.recurrent is not None else None,
        }
        return {name: value for name, value in named.items() if value is not None}


def setting(
    case: Case,
    neurons: tuple[int, ...],
    *,
    recurrent: bool = False,
    constant: bool | None = None,
    steps: int = 4,
    samples: int = 3,
    dtype: torch.dtype = torch.float64,
) -> Setting:
    generator = torch.Generator().manual_seed(0)

    def between(low: float, high: float, shape: tuple[int, ...]) -> Tensor:
        values = torch.rand(shape, generator=generator, dtype=torch.float64) * (high - low) + low
        return values.to(dtype).requires_grad_()

    def parameter() -> Tensor:
        return between(0.4, 0.9, neurons if case.per_neuron else ())

    once = case.constant if constant is None else constant
    return Setting(
        between(-1.5, 2.0, (1 if once else steps, samples, *neurons)),
        Parameters(
            theta=parameter(),
            decay=parameter(),
            width=parameter(),
            alpha=parameter() if case.filtered else None,
            amount=parameter() if case.soft else None,
            recurrent=between(-1, 1, (*neurons, *neurons)) if recurrent else None,
        ),
        Emission(case.smooth, case.probability, case.shared),
        State(*(between(0, 1, (samples, *neurons)) for _ in range(3))),
    )


def outcome(
    which: Recurrence, given: Setting, steps: int = 4, at: int = 3
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What comes out, and the gradients of a weighted sum of all of it."""
    s, after = which(given.c, steps, given.parameters, given.emission, SEED, given.state, at)
    out = {"spikes": s, "membrane": after.membrane, "last": after.spikes}
    if given.parameters.alpha is not None:
        out["current"] = after.current
    loss = torch.zeros((), dtype=s.dtype)
    for number, value in enumerate(out.values(), 1):
        weights = torch.cos(torch.arange(value.numel()) * number).to(s.dtype)
        loss = loss + ((value.flatten() + value.flatten() ** 2 / 3) * weights).sum()
    leaves = {name: value for name, value in given.leaves().items() if value.requires_grad}
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return (
        {name: value.detach() for name, value in out.items()},
        dict(zip(leaves, gradients, strict=True)),
    )


def hold_together(given: Setting, steps: int = 4) -> None:
    out, gradients = outcome(run, given, steps)
    expected_out, expected_gradients = outcome(plain, given, steps)
    for name, value in expected_out.items():
        torch.testing.assert_close(out[name], value, rtol=1e-12, atol=1e-12, msg=name)
    for name, value in expected_gradients.items():
        torch.testing.assert_close(gradients[name], value, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_fused_is_plain_for_maps(case: Case) -> None:
    hold_together(setting(case, (3, 2, 2)))


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_fused_is_plain_with_recurrent_weights(case: Case, constant: bool) -> None:
    hold_together(setting(case, (5,), recurrent=True, constant=constant))


@pytest.mark.parametrize("neurons", [1, 1023, 1024, 1025, 2500])
@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[6], CASES[11]])
def test_fused_is_plain_around_the_size_of_a_block(case: Case, neurons: int) -> None:
    assert kernels.BLOCK == 1024
    for samples in (1, 2):
        hold_together(setting(case, (neurons,), samples=samples))


@pytest.mark.parametrize("case", [CASES[0], CASES[1]])
def test_fused_is_plain_for_a_single_step(case: Case) -> None:
    hold_together(setting(case, (4,), steps=1), steps=1)
    hold_together(setting(case, (4,), steps=1, recurrent=True), steps=1)


def test_parameters_of_any_shape_that_broadcasts_are_mixed() -> None:
    """One per layer, per channel and per neuron, in one recurrence."""
    given = setting(CASES[1], (3, 2, 2))
    parameters = Parameters(
        theta=torch.tensor(0.5, dtype=torch.float64, requires_grad=True),
        decay=torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64).reshape(3, 1, 1).requires_grad_(),
        width=given.parameters.width,
        alpha=torch.tensor([0.7], dtype=torch.float64, requires_grad=True),
        amount=torch.tensor([0.2, 0.4], dtype=torch.float64).reshape(1, 2, 1).requires_grad_(),
    )
    hold_together(given._replace(parameters=parameters))


def test_parameters_in_another_dtype_than_the_current() -> None:
    given = setting(CASES[0], (7,), dtype=torch.float32)
    doubles = Parameters(
        theta=torch.tensor(0.5, dtype=torch.float64, requires_grad=True),
        decay=torch.tensor(0.75, dtype=torch.float64, requires_grad=True),
        width=torch.tensor(1.0, requires_grad=True),
    )
    out, gradients = outcome(run, given._replace(parameters=doubles))
    assert out["spikes"].dtype == out["membrane"].dtype == torch.float32
    assert gradients["theta"].dtype == torch.float64
    assert gradients["width"].dtype == torch.float32


def test_only_the_gradients_asked_for_are_made() -> None:
    given = setting(CASES[0], (6,))
    fixed = Parameters(
        theta=given.parameters.theta.detach(),
        decay=given.parameters.decay.detach(),
        width=given.parameters.width.detach(),
    )
    found = []
    for parameters in (fixed, given.parameters):
        s, _ = run(given.c, 4, parameters, given.emission, SEED)
        found.append(torch.autograd.grad((s**2).sum(), given.c)[0])
    assert torch.equal(*found)


@pytest.mark.parametrize("case", [CASES[0], CASES[1]])
def test_single_precision_is_double_within_rounding(case: Case) -> None:
    """Elements where float32 and float64 fall on different sides of a threshold are few: none."""
    single = setting(case, (1030,), dtype=torch.float32)
    double = Setting(
        single.c.detach().double().requires_grad_(),
        Parameters(
            **{
                name: None if value is None else value.detach().double().requires_grad_()
                for name in Parameters.__slots__
                for value in [getattr(single.parameters, name)]
            }
        ),
        single.emission,
        State(*(value.detach().double().requires_grad_() for value in single.state)),
    )
    out, gradients = outcome(run, single)
    expected_out, expected_gradients = outcome(plain, double)
    for name, value in expected_out.items():
        torch.testing.assert_close(out[name].double(), value, rtol=1e-5, atol=1e-5, msg=name)
    for name, value in expected_gradients.items():
        scale = value.abs().max().item()
        torch.testing.assert_close(
            gradients[name].double(), value, rtol=1e-4, atol=1e-5 * scale, msg=name
        )


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("case", [CASES[0], CASES[1]])
def test_results_do_not_depend_on_the_threads(
    case: Case, threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit by bit, gradients of parameters shared by all neurons too."""
    given = setting(case, (2500,), samples=16)
    shares: list[int] = []
    original = recurrence._in_blocks

    def counted(layout: tuple[int, int], values: int, work: Callable[[int, int], None]) -> None:
        def noted(first: int, last: int) -> None:
            shares.append(last - first)
            work(first, last)

        original(layout, values, noted)

    monkeypatch.setattr(recurrence, "_in_blocks", counted)
    found = []
    for number in (1, 2, 3):
        threads(number)
        shares.clear()
        found.append(outcome(run, given))
        assert len(shares) == 2 * min(number, 2)  # forward and backward; enough values for two
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert all(torch.equal(one[name], two[name]) for name in one)


def test_steps_in_two_calls_are_steps_in_one() -> None:
    """State, and the number of the first timestep, are all that has to be carried over."""
    for case, recurrent in itertools.product((CASES[0], CASES[5]), (False, True)):
        given = setting(case, (6,), recurrent=recurrent)
        rules = given.parameters, given.emission, SEED
        whole, after = run(given.c, 4, *rules, given.state, 10)
        first, between = run(given.c[:1], 1, *rules, given.state, 10)
        second, last = run(given.c[1:], 3, *rules, between, 11)
        assert torch.equal(torch.cat([first, second]), whole)
        assert torch.equal(last.membrane, after.membrane)
        assert torch.equal(last.spikes, after.spikes)
        assert torch.equal(last.current, after.current)


def test_inputs_are_left_alone() -> None:
    given = setting(CASES[1], (6,))
    before = [value.detach().clone() for value in given.leaves().values()]
    outcome(run, given)
    for value, old in zip(given.leaves().values(), before, strict=True):
        assert torch.equal(value, old)


def test_without_a_state_all_is_silent() -> None:
    given = setting(CASES[1], (6,))
    zeros = State(*(torch.zeros(3, 6, dtype=torch.float64) for _ in range(3)))
    rules = given.parameters, given.emission, SEED
    assert torch.equal(run(given.c, 4, *rules)[0], run(given.c, 4, *rules, zeros)[0])


@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[11]])
def test_channels_last_stays_so_and_changes_nothing(case: Case) -> None:
    """Without noise, which goes by the place in memory."""
    given = setting(case._replace(probability=1.0), (3, 2, 4))
    last = given.c.detach().permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    assert not last.is_contiguous()
    expected = outcome(plain, given)
    for which in (run, plain):
        found = outcome(which, given._replace(c=last.requires_grad_()))
        for values, wanted in zip(found, expected, strict=True):
            for name, value in wanted.items():
                torch.testing.assert_close(values[name], value, rtol=1e-9, atol=1e-9, msg=name)
    spikes, state = run(last, 4, given.parameters, given.emission, SEED, given.state)
    assert spikes[0].is_contiguous(memory_format=torch.channels_last)
    assert state.membrane.is_contiguous(memory_format=torch.channels_last)


def test_channels_last_has_its_noise_by_place_in_memory() -> None:
    given = setting(CASES[0], (3, 2, 4))
    moved = given.c.detach().permute(0, 1, 3, 4, 2).contiguous()
    half, whole = (torch.tensor(value, dtype=torch.float64) for value in (0.5, 1.0))
    one = Parameters(theta=half, decay=half, width=whole)
    emission = given.emission
    assert 0 < emission.probability < 1
    expected, after = plain(moved, 4, one, emission, SEED, recurrence.silence(moved))
    found, state = run(moved.permute(0, 1, 4, 2, 3), 4, one, emission, SEED)
    torch.testing.assert_close(found.permute(0, 1, 3, 4, 2), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state.membrane.permute(0, 2, 3, 1), after.membrane)


@pytest.mark.parametrize("layout", ["transposed", "expanded", "sliced"])
def test_tensors_need_not_be_contiguous(layout: str) -> None:
    given = setting(CASES[0], (6,), samples=6)
    c = given.c.detach()
    held = {
        "transposed": c.transpose(1, 2),
        "expanded": c[:, :1].expand(4, 6, 6),
        "sliced": torch.cat([c, c], 1)[:, ::2],
    }[layout].requires_grad_()
    assert not held.is_contiguous()
    state = State(*(value.T for value in given.state))
    hold_together(given._replace(c=held, state=state))


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("case", [CASES[4], CASES[6], CASES[8]], ids=["sigmoid", "tanh", "arctan"])
def test_an_analog_net_is_its_own_derivative(case: Case, recurrent: bool) -> None:
    """With probability 0 the forward pass is smooth: gradients are its finite differences."""
    assert case.probability == 0
    given = setting(case, (3,), recurrent=recurrent, samples=2)
    names = list(given.leaves())

    def forward(*values: Tensor) -> tuple[Tensor, ...]:
        by_name = dict(zip(names, values, strict=True))
        parameters = Parameters(**{key: by_name.get(key) for key in Parameters.__slots__})
        state = State(
            by_name["membrane before"],
            by_name.get("current before", given.state.current.detach()),
            by_name.get("spikes before", given.state.spikes.detach()),
        )
        s, after = run(by_name["c"], 4, parameters, given.emission, SEED, state)
        return (s, after.membrane, after.current) if case.filtered else (s, after.membrane)

    assert torch.autograd.gradcheck(forward, tuple(given.leaves().values()), eps=1e-6, atol=1e-7)


@pytest.mark.parametrize(("currents", "steps"), [(3, 5), (3, 2), (0, 3), (1, 0), (0, 0)])
def test_currents_that_do_not_fit_the_timesteps_are_refused(currents: int, steps: int) -> None:
    """Kernels would read beyond them."""
    given = setting(CASES[0], (3,))
    c = torch.zeros(currents, 2, 3)
    with pytest.raises(ValueError, match=f"{currents} currents for {steps} timesteps"):
        run(c, steps, given.parameters, given.emission, SEED)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_currents_of_another_dtype_are_refused(dtype: torch.dtype) -> None:
    given = setting(CASES[0], (3,))
    with pytest.raises(ValueError, match=f"not {dtype}"):
        run(torch.zeros(4, 2, 3, dtype=dtype), 4, given.parameters, given.emission, SEED)


def test_an_empty_batch_stays_empty() -> None:
    for case in (CASES[0], CASES[1]):
        given = setting(case, (3,), samples=0)
        s, after = run(given.c, 4, given.parameters, given.emission, SEED)
        s.sum().backward()
        assert s.shape == (4, 0, 3)
        assert after.membrane.shape == (0, 3)
        assert given.parameters.theta.grad is not None
        assert not given.parameters.theta.grad.any()


def test_a_second_derivative_is_refused() -> None:
    given = setting(CASES[0], (3,))
    s, _ = run(given.c, 4, given.parameters, given.emission, SEED)
    (first,) = torch.autograd.grad((s**2).sum(), given.c, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        first.sum().backward()
