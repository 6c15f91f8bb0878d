"""Dense weights as they act, against Lava's own functions on random matrices of every class."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from snn_deploy.exporters.lava.encoding import effective_weights

from snn_deploy.errors import SnnDeployError
from tests.helpers.lava import Lava, read
from tests.helpers.numbers import Array

MATRICES = int(os.environ.get("SNN_DEPLOY_PEER_MATRICES", "4000"))
FUZZ = Path(__file__).with_name("encoding_fuzz.py")

Draw = Callable[[np.random.Generator, tuple[int, int]], Array]


def between(low: int, high: int) -> Draw:
    return lambda rng, shape: rng.integers(low, high, shape, endpoint=True)


def power(sign: int) -> Draw:
    """Powers of two; of both signs if ``sign`` is zero."""

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        signs = rng.choice([-1, 1], shape) if sign == 0 else np.full(shape, sign)
        return signs << rng.integers(0, 10, shape)

    return draw


CLASSES: dict[str, Draw] = {
    "within the range": between(-256, 254),
    "small": between(-20, 20),
    "beyond the range": between(-400, 400),
    "no negative": between(0, 255),
    "no negative, too large": between(0, 300),
    "no positive": between(-256, 0),
    "no positive, too large": between(-300, 0),
    "negative": between(-256, -1),
    "few values": between(-3, 1),
    "powers of two": power(0),
    "positive powers of two": power(1),
    "negative powers of two": power(-1),
    "huge": between(-(1 << 31) + 1, (1 << 31) - 1),
    "huge, negative": between(-(1 << 31) + 1, 0),
    "zero": between(0, 0),
}


def matrix(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[str, Array]:
    """A class of weights, and a matrix of it: some sparse, of multiples, or with fractions."""
    name = str(rng.choice(list(CLASSES)))
    weight = CLASSES[name](rng, shape).astype(np.float64)
    if rng.random() < 0.2:
        weight *= rng.random(shape) < 0.6
    if rng.random() < 0.2 and "huge" not in name:
        weight *= 1 << rng.integers(0, 6)
    if rng.random() < 0.2:
        weight += rng.uniform(-0.999, 0.999, shape)
        weight = np.clip(weight, -(2.0**31) + 1, 2.0**31 - 1)
    return name, weight


def drawn() -> tuple[dict[str, Array], Counter[str]]:
    """All matrices by name, w0, r0, w1, ..., and how many there are of each class."""
    rng = np.random.default_rng(20241)
    matrices: dict[str, Array] = {}
    classes: Counter[str] = Counter()
    for index in range(MATRICES):
        outputs, inputs = (int(n) for n in rng.integers(1, 7, 2))
        name, matrices[f"w{index}"] = matrix(rng, (outputs, inputs))
        if rng.random() < 0.4:
            other, matrices[f"r{index}"] = matrix(rng, (outputs, outputs))
            name = "recurrent: " + ("same class" if other == name else "different classes")
        classes[name] += 1
    return matrices, classes


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Array], dict[str, Array]]:
    """The matrices, and what Lava makes of them."""
    folder = tmp_path_factory.mktemp("encoding")
    lava = Lava.found(folder)
    matrices, classes = drawn()
    source, target = folder / "matrices.npz", folder / "acts.npz"
    np.savez(source, **matrices)  # type: ignore[arg-type]
    done = subprocess.run(
        [lava.python, str(FUZZ), str(source), str(target)],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    print(f"{MATRICES} matrices: {dict(classes)}")
    return matrices, read(target)


def test_weights_act_as_in_lava(
    answers: tuple[dict[str, Array], dict[str, Array]],
) -> None:
    matrices, lava = answers
    outcomes: Counter[str] = Counter()
    wrong = []
    for index in range(MATRICES):
        outcome = compare(index, matrices, lava)
        outcomes[outcome] += 1
        if outcome.startswith("differs"):
            wrong.append((index, outcome, matrices[f"w{index}"], matrices.get(f"r{index}")))
    print(dict(outcomes))
    assert not wrong, wrong[:3]
    kinds = {"unchanged", "changed", "all zero", "fractions"}
    assert MATRICES < 1000 or kinds == outcomes.keys(), "a class of outcomes was not drawn"


def compare(index: int, matrices: dict[str, Array], lava: dict[str, Array]) -> str:
    """How matrices come out; begins with "differs" where we are not of one mind with Lava."""
    names = [name for name in (f"w{index}", f"r{index}") if name in matrices]
    failed = f"failed{index}" in lava
    # Of what is kept, less than one weight unit makes a spike's effect depend on the others'.
    fractions = not failed and any(
        lava[f"{name}.shift"] > 0
        and (lava[f"{name}.kept"].astype(np.int64) % (1 << lava[f"{name}.shift"])).any()
        for name in names
    )
    try:
        found = effective_weights(*(matrices[name] for name in names))
    except SnnDeployError as error:
        if failed:
            return "all zero" if "zero" in error.message else "differs: refused for another reason"
        return "fractions" if fractions and "fraction" in error.message else "differs: refused"
    if failed or fractions:
        return "differs: not refused"
    changed = False
    for name, acts in zip(names, (found.weight, found.recurrent), strict=False):
        assert acts is not None
        if not np.array_equal(acts, lava[f"{name}.each"]):
            return "differs: weights"
        if not np.array_equal(acts.sum(axis=1), lava[f"{name}.all"]):
            return "differs: sums"
        if found.shift != lava[f"{name}.shift"]:
            return "differs: shift"
        changed |= not np.array_equal(acts, matrices[name])
    if changed != bool(found.notes):
        return "differs: notes"
    return "changed" if changed else "unchanged"
