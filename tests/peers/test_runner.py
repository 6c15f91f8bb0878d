"""The runner of Lava itself: what it feeds, when, in which order of axes, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np
import pytest

from tests.helpers.lava import Lava, read
from tests.helpers.netx_files import conv, dense, neuron, neurons_only, write_netx
from tests.helpers.numbers import Array

# Lava hangs on this: three thresholds for two neurons.
HANGING = [dense([[4], [-2]], neuron=neuron(threshold=np.array([1, 2, 3])))]
PULSE = np.array([[1], [0]])


def one_neuron(**more: Any) -> list[dict[str, Any]]:
    """Loses half of its membrane in a step, gets bias 3, spikes beyond 10."""
    neurons = neuron(membrane_decay=2048, threshold=10)
    return [dense([[8, -2]], bias=np.array([3]), neuron=neurons, **more)]


def test_one_neuron_by_hand(lava: Lava) -> None:
    spikes = np.array([[1, 0], [0, 1], [1, 1]])
    out = lava.net(one_neuron(), "--steps", 6, spikes=spikes)
    # A row arrives one step later; then comes silence. All in 1/64 of a weight unit.
    current = 64 * np.array([0, 8, -2, 6, 0, 0])
    # Bias 3 from step 1 on: 3; 1.5 + 8 + 3 = 12.5 spikes; 1; 0.5 + 9; 4.75 + 3; 3.875 + 3.
    membrane = 64 * np.array([3, 0, 1, 9.5, 7.75, 6.875])
    np.testing.assert_array_equal(out["0.current"], current[:, None])
    np.testing.assert_array_equal(out["0.membrane"], membrane[:, None])
    np.testing.assert_array_equal(out["0.spikes"], np.array([0, 1, 0, 0, 0, 0], bool)[:, None])
    assert out["0.spikes"].dtype == np.bool_


def test_says_what_ran(lava: Lava) -> None:
    out = lava.net(one_neuron(), "--steps", 2, spikes=np.array([[1, 0]]))
    meta = json.loads(str(out["meta"]))
    assert meta["steps"] == 2
    assert meta["versions"]["lava-nc"] == "0.10.0"
    assert meta["versions"]["lava-dl"] == "0.6.0"
    assert 0 < meta["seconds"] < 200


def test_a_reset_clears_the_membrane(lava: Lava) -> None:
    layers = [dense([[4, -2]], neuron=neuron(membrane_decay=0, threshold=1000))]
    options = ("--steps", 8, "--reset-interval", 3, "--reset-offset", 1)
    out = lava.net(layers, *options, spikes=np.tile([1, 0], (8, 1)))
    # Layer 0 is reset where t % 3 == (1 + 1) % 3: at t = 2, 5 and 8.
    expected = 256 * np.array([0, 1, 2, 3, 1, 2, 3, 1])
    np.testing.assert_array_equal(out["0.membrane"][:, 0], expected)


def correlated(image: Array, weight: Array) -> Array:
    """Cross-correlation, stated with loops."""
    channels, rows, columns = (len(weight), *(np.array(image.shape[1:]) - weight.shape[2:] + 1))
    out = np.zeros((channels, rows, columns), np.int64)
    height, width = weight.shape[2:]
    for o, y, x in np.ndindex(*out.shape):
        out[o, y, x] = (weight[o] * image[:, y : y + height, x : x + width]).sum()
    return out


def test_axes_of_images(lava: Lava) -> None:
    rng = np.random.default_rng(3)
    weight = 2 * rng.integers(-60, 60, (3, 2, 2, 3))
    spikes = rng.integers(0, 2, (2, 2, 4, 6))
    out = lava.net([conv(weight, (4, 6))], "--steps", 3, spikes=spikes)
    assert out["0.current"].shape == (3, 3, 3, 4)
    expected = [np.zeros((3, 3, 4)), *(64 * correlated(image, weight) for image in spikes)]
    np.testing.assert_array_equal(out["0.current"], expected)


def test_images_flattened_for_dense(lava: Lava) -> None:
    image = np.zeros((1, 2, 3, 2), np.uint8)
    image[0, 1, 0, 1] = 1
    weight = np.stack([2 * np.arange(12), -2 * np.arange(12)])
    out = lava.net([dense(weight)], "--steps", 2, spikes=image)
    where = 64 * 2 * np.ravel_multi_index((1, 0, 1), (2, 3, 2))
    np.testing.assert_array_equal(out["0.current"][1], [where, -where])


def test_graded_input(lava: Lava) -> None:
    options = ("--steps", 2, "--input-message-bits", 8)
    out = lava.net([dense([[4], [-2]])], *options, spikes=np.array([[37]]))
    np.testing.assert_array_equal(out["0.current"][1], [64 * 4 * 37, -64 * 2 * 37])


def test_windows_of_bias(lava: Lava) -> None:
    layers = [
        neurons_only((2, 2, 3), membrane_decay=4096, threshold=20),
        conv(np.array([[[[4]], [[-2]]]]), (2, 3)),
    ]
    rng = np.random.default_rng(4)
    bias = rng.integers(-40, 40, (3, 2, 2, 3))
    out = lava.net(layers, "--steps", 8, "--window", 2, bias=bias)
    in_force = bias[[0, 0, 1, 1, 2, 2, 2, 2]]
    fired = in_force > 20
    np.testing.assert_array_equal(out["0.spikes"], fired)
    np.testing.assert_array_equal(out["0.membrane"], np.where(fired, 0, 64 * in_force))
    np.testing.assert_array_equal(out["0.current"], 0 * in_force)
    arrived = np.concatenate([fired[:1] & False, fired[:-1]])
    expected = 64 * (4 * arrived[:, :1] - 2 * arrived[:, 1:])
    np.testing.assert_array_equal(out["1.current"], expected)


def test_one_map_of_bias_needs_no_window(lava: Lava) -> None:
    layers = [neurons_only((3,), membrane_decay=0, threshold=1000)]
    out = lava.net(layers, "--steps", 4, bias=np.array([[1, -2, 5]]))
    steps = np.arange(1, 5)[:, None]
    np.testing.assert_array_equal(out["0.membrane"], 64 * steps * [1, -2, 5])


def run_program(lava: Lava, body: str, given: dict[str, Array], **options: Any) -> dict[str, Array]:
    """Run a program whose ``build`` has this body, with a LIF process class at hand."""
    path, fed, output = (lava.folder / name for name in ("program.py", "in.npz", "out.npz"))
    path.write_text(
        "from types import SimpleNamespace\n"
        "from lava.proc.lif.process import LIF\n"
        f"def build(steps, inputs, reset_interval, reset_offset):\n{indent(body, '    ')}"
    )
    np.savez(fed, **given)
    [line] = lava.batch([{"program": path, "input": fed, "output": output, **options}])
    assert line["ok"], line
    return read(output)


def test_a_program(lava: Lava) -> None:
    body = """\
assert (steps, reset_interval, reset_offset) == (3, 7, None)
lif = LIF(shape=(2, 3, 1), du=4095, dv=4096, vth=9, bias_mant=inputs["b"], bias_exp=6)
return SimpleNamespace(run_process=lif, populations={"only": lif}, biased=None)
"""
    bias = np.arange(6).reshape(2, 3, 1) * 3
    out = run_program(lava, body, {"b": bias}, steps=3, reset_interval=7)
    upright = bias.transpose(2, 1, 0)
    np.testing.assert_array_equal(out["only.spikes"], np.stack([upright > 9] * 3))
    expected = np.where(upright > 9, 0, 64 * upright)
    np.testing.assert_array_equal(out["only.membrane"], np.stack([expected] * 3))


def test_a_program_driven_by_bias(lava: Lava) -> None:
    body = """\
lif = LIF(shape=(2, 3, 1), du=4095, dv=4096, vth=1000, bias_exp=6)
return SimpleNamespace(run_process=lif, populations={"only": lif}, biased=lif)
"""
    bias = np.arange(12).reshape(2, 1, 3, 2)
    out = run_program(lava, body, {"bias": bias}, steps=4, window=3)
    np.testing.assert_array_equal(out["only.membrane"], 64 * bias[[0, 0, 0, 1]])


@pytest.mark.parametrize("name", ["vThMant", "vDecay", "iDecay"])
def test_refuses_what_lava_hangs_on(lava: Lava, name: str) -> None:
    layers = [dense([[4], [-2]], neuron=neuron(**{name: 9.0}))]
    network = write_netx(lava.folder / "float.net", layers)
    np.savez(lava.folder / "in.npz", spikes=PULSE)
    done = lava.call("net", network, lava.folder / "in.npz", lava.folder / "out.npz", "--steps", 2)
    assert done.returncode == 1
    assert done.stderr == f"error: /layer/0/neuron/{name} is float64, not an integer\n"
    assert not (lava.folder / "out.npz").exists()


@pytest.mark.parametrize(
    ("layers", "given", "text"),
    [
        ([dense([[4], [-2]])], {"bias": PULSE}, "begins with synapses"),
        ([neurons_only((1,))], {"spikes": PULSE}, "begins with neurons"),
        ([neurons_only((1,))], {"bias": PULSE}, "2 maps of bias need a window"),
        ([dense([[4], [-2]])], {"spikes": 1.0 * PULSE}, "must be integers"),
        ([dense([[4], [-2]])], {"spikes": np.eye(3, dtype=int)}, "the net takes"),
        ([{"type": "pool", "shape": (1,)}], {"spikes": PULSE}, "NotImplementedError"),
    ],
)
def test_refuses_input_that_does_not_fit(
    lava: Lava, layers: list[dict[str, Any]], given: dict[str, Array], text: str
) -> None:
    network = write_netx(lava.folder / "a.net", layers)
    np.savez(lava.folder / "in.npz", **given)
    done = lava.call("net", network, lava.folder / "in.npz", lava.folder / "out.npz", "--steps", 2)
    assert done.returncode == 1
    assert text in done.stderr
    assert done.stderr.count("\n") == 1


def hanging_program(lava: Lava) -> Path:
    """A program that builds for ever, after starting another process and saying who they are."""
    path = lava.folder / "program.py"
    path.write_text(
        "import multiprocessing, os, pathlib, time\n"
        "def build(steps, inputs, reset_interval, reset_offset):\n"
        "    other = multiprocessing.Process(target=time.sleep, args=(1000,))\n"
        "    other.start()\n"
        f"    part = pathlib.Path({str(lava.folder / 'part')!r})\n"
        "    part.write_text(f'{os.getpid()} {other.pid}')\n"
        f"    part.rename({str(lava.folder / 'pids')!r})\n"
        "    time.sleep(1000)\n"
    )
    np.savez(lava.folder / "in.npz", nothing=0)
    return path


def wait_until_gone(pids: list[int]) -> None:
    """Wait until processes are gone, or only wait to be collected."""
    deadline = time.monotonic() + 20
    while any(running(pid) for pid in pids):
        assert time.monotonic() < deadline, f"of {pids}, some still run"
        time.sleep(0.05)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_timeout_ends_everything(lava: Lava) -> None:
    program = hanging_program(lava)
    files = (program, lava.folder / "in.npz", lava.folder / "out.npz")
    done = lava.call("program", *files, "--steps", 1, "--timeout", 2)
    assert done.returncode == 1
    assert done.stderr == "error: did not end in 2 s, and was ended\n"
    wait_until_gone([int(pid) for pid in (lava.folder / "pids").read_text().split()])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_runner(lava: Lava, number: signal.Signals) -> None:
    program = hanging_program(lava)
    files = (program, lava.folder / "in.npz", lava.folder / "out.npz")
    scratch = lava.folder / "scratch"
    scratch.mkdir()
    runner = subprocess.Popen(
        lava.command("program", *files, "--steps", 1),
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    deadline = time.monotonic() + 60
    while not (lava.folder / "pids").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(runner.pid, number)
    assert runner.wait(30) != 0
    wait_until_gone([int(pid) for pid in (lava.folder / "pids").read_text().split()])
    assert not list(scratch.iterdir())


def test_a_batch_goes_on_after_a_failure(lava: Lava) -> None:
    np.savez(lava.folder / "in.npz", spikes=PULSE)
    good = write_netx(lava.folder / "good.net", [dense([[4], [-2]])])
    hanging = write_netx(lava.folder / "hanging.net", HANGING)
    common = {"input": lava.folder / "in.npz", "steps": 3, "timeout": 60}
    jobs = [
        {"net": hanging, "output": lava.folder / "hanging.npz", **common},
        {"net": good, "output": lava.folder / "good.npz", **common},
        {"net": lava.folder / "missing.net", "output": lava.folder / "missing.npz", **common},
        {"net": good},
    ]
    lines = lava.batch(jobs)
    assert [line["index"] for line in lines] == [0, 1, 2, 3]
    assert [line["ok"] for line in lines] == [False, True, False, False]
    # What was raised in one of Lava's processes is noticed long before the time is up.
    assert "ValueError" in lines[0]["error"]
    assert lines[0]["seconds"] < 30
    assert "no such file" in lines[2]["error"]
    assert "a job needs" in lines[3]["error"]
    np.testing.assert_array_equal(read(lava.folder / "good.npz")["0.current"][1], [256, -128])
