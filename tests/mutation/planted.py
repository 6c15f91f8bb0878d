"""Plant wrong rules in the arithmetic, one at a time, and see that the tests notice each.

    python -m tests.mutation.planted [NUMBER ...]

Each rule is planted in a copy of the project; a part of the suite that needs neither torch nor Lava
must fail on it. Ends with 1 if one goes unnoticed, or if a rule's place is no longer found.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Quick tests first: the first failure ends a run.
TESTS = (
    "tests/test_numerics.py",
    "tests/golden",
    "tests/test_timing.py",
    "tests/test_lava_encoding.py",
    "tests/test_lava_reader.py",
    "tests/sim",
    "tests/property",
    "tests/test_mapping.py",
    "tests/test_lava_writer.py",
    "tests/quantization/test_ranges.py",
    "tests/test_divergence.py",
)


@dataclass(frozen=True)
class Fault:
    """A wrong rule: where it stands, what is right, and what is planted."""

    name: str
    file: str
    right: str
    wrong: str


NUMERICS = "snn_deploy/numerics.py"
REFERENCE = "snn_deploy/sim/reference.py"
KERNELS = "snn_deploy/sim/kernels.py"
TABLES = "snn_deploy/sim/tables.py"
GATHER = "snn_deploy/sim/gather.py"
PANELS = "snn_deploy/sim/panels.py"
DEPTHWISE = "snn_deploy/sim/depthwise.py"
SWEEP = "snn_deploy/sim/sweep.py"
BATCH = "snn_deploy/sim/batch.py"
LANES = "snn_deploy/sim/lanes.py"
NEURONS = "snn_deploy/sim/neurons.py"
TIMING = "snn_deploy/sim/timing.py"
PLAN = "snn_deploy/sim/plan.py"
ENCODING = "exporters/lava/encoding.py"
READER = "exporters/lava/reader.py"
WRITER = "exporters/lava/writer.py"
POOLING = "snn_deploy/mapping/pooling.py"
RELAYS = "snn_deploy/mapping/relays.py"
RANGES = "snn_deploy/quantization/ranges.py"
LEDGER = "snn_deploy/sim/ledger.py"
DIVERGENCE = "snn_deploy/sim/divergence.py"

FAULTS = (
    Fault("decay floors", NUMERICS, "return np.where(value < 0, -product, product)",
          "return value * decay >> bits"),
    Fault("decay rounds to nearest", NUMERICS, "product = np.abs(value) * decay >> bits",
          "product = np.abs(value) * decay + (1 << (bits - 1)) >> bits"),
    Fault("floor truncates", NUMERICS, "return np.asarray(value * decay >> bits)",
          "return np.asarray(np.fix(value * decay / 2**bits), np.int64)"),
    Fault("shift leaves small values", NUMERICS,
          "return np.where(left == value, value - np.sign(value), left)", "return left"),
    Fault("wrap saturates", NUMERICS,
          'return wrap(value, bits) if rule == "wrap" else wrap_once(value, bits)',
          'return saturate(value, bits) if rule == "wrap" else wrap_once(value, bits)'),
    Fault("wrap once wraps fully", NUMERICS,
          "return np.where(value <= -half, value + 2 * half, turned)", "return wrap(value, bits)"),
    Fault("upper edge turns", NUMERICS, "np.where(value > half,", "np.where(value >= half,"),
    Fault("lower edge stays", NUMERICS, "np.where(value <= -half,", "np.where(value < -half,"),
    Fault("saturation is not symmetric", NUMERICS, "np.clip(value, -largest, largest)",
          "np.clip(value, -largest - 1, largest)"),
    Fault(">= for >", NUMERICS, 'above = membrane - threshold - (comparator == ">")',
          "above = membrane - threshold"),
    Fault("one spike too many", NUMERICS, "np.clip(above // amount + 1, 0, most)",
          "np.clip(above // amount + 1, 0, most + 1)"),
    Fault("host rounds down", NUMERICS, "return (value + (1 << (bits - 1))) >> bits",
          "return value >> bits"),
    Fault("bias into the current", REFERENCE,
          "            synaptic = arithmetic.limit_current(arriving)\n",
          "            arriving = arriving + arithmetic.bias(neurons.bias)\n"
          "            synaptic = arithmetic.limit_current(arriving)\n"),
    Fault("current is reset by a spike", REFERENCE, "            current[name][:, step] = synaptic\n",
          "            current[name][:, step] = np.where(fired > 0, 0, synaptic)\n"),
    Fault("reset forgets the current", REFERENCE,
          "if neurons.current_decay is not None and not silent:",
          "if neurons.current_decay is not None and step:"),
    Fault("threshold is not shifted", REFERENCE,
          "neurons.threshold.astype(np.int64) << self.format.threshold_shift",
          "neurons.threshold.astype(np.int64)"),
    Fault("word does not wrap", REFERENCE, "word = numerics.wrap(current, self.format.word_bits)",
          "word = current"),
    Fault("sum does not wrap", REFERENCE, "total = numerics.wrap(total, projection.sum_bits)",
          "total = total"),
    Fault("exponent is forgotten", REFERENCE,
          "total << (projection.exponent + self.format.fraction_bits)",
          "total << self.format.fraction_bits"),
    Fault("membrane wraps like the current", REFERENCE, "self.format.membrane_overflow,",
          "self.format.current_overflow,"),
    Fault("delay off by one", REFERENCE, "        then = step - delay\n",
          "        then = step - delay - 1\n"),
    Fault("delays of synapses off by one", REFERENCE, "source[:, step - value])",
          "source[:, step - value + (value > 0)])"),
    Fault("reset subtracts once", REFERENCE, "after - fired * neurons.reset.amount",
          "after - (fired > 0) * neurons.reset.amount"),
    Fault("kernel compares late", KERNELS, "if above > 0:", "if above >= 0:"),
    Fault("kernel decays downward", KERNELS, "return -kept if value < 0 else kept", "return (value * decay) >> bits"),
    Fault("kernel clears a step late", KERNELS, "before = 0 if cleared else", "before = 0 if resets[max(step - 1, 0)] else"),
    Fault("kernel keeps the current over a reset", KERNELS, "if remembers and not cleared:", "if remembers:"),
    Fault("kernel adds the bias unshifted", KERNELS, "(mantissa << bias_shift)", "mantissa"),
    Fault("kernel's window is the first", KERNELS, "host[sample, windows[step], pixel, channel]", "host[sample, 0, pixel, channel]"),
    Fault("kernel stops at int32", KERNELS, "value = (value << spare) >> spare\n", "value = value\n"),
    Fault("event forgets the order of axes", TABLES, "order = np.arange(weight.shape[1]).reshape(channels, height * width).T.reshape(-1)", "order = np.arange(weight.shape[1])"),
    Fault("lists lose their last input", GATHER, "used_after = builder.add(used, builder.sub(end, begin))", "used_after = builder.add(used, builder.sub(builder.sub(end, begin), ir.Constant(I64, 1)))"),
    Fault("rows flush too late", GATHER, "ROWS_PER_FLUSH = 256", "ROWS_PER_FLUSH = 260"),
    Fault("padding is a row", GATHER, "rows[used + padding] = zero_row << doublings", "rows[used + padding] = 0"),
    Fault("delay is ignored", SWEEP, "sent = step + ahead - told.delay", "sent = step + ahead"),
    Fault("delay of depthwise synapses is ignored", SWEEP, "words, sample, step - told.delay, all_steps", "words, sample, step, all_steps"),
    Fault("silent inputs are added", GATHER, "-factor if silent[which] else factor", "factor"),
    Fault("silent inputs count as events", GATHER, "events += fan_in[kind] - (used - start)", "events += used - start"),
    Fault("excess is lost", GATHER, "builder.sub(builder.zext(sums, wide), excess)", "builder.zext(sums, wide)"),
    Fault("kinds of pixels run together", PANELS, "[np.cumsum(changes) - 1]", "[np.cumsum(changes) * 0]"),
    Fault("tiles overlap", SWEEP, "stop = told.pixels * (part + 1) // parts", "stop = told.pixels * (part + 1) // parts + (part + 1 < parts)"),
    Fault("constant input of the first window", SWEEP, "told.constant_windows + windows[step + ahead]", "told.constant_windows"),
    Fault("state of another sample", LANES, "states[here % states.shape[0]]", "states[0]"),
    Fault("what is on its way is forgotten", BATCH, "before.get(name, silence)", "silence"),
    Fault("a continued run begins anew", BATCH, "if memory is None or not memory.states:", "if True:"),
    Fault("weights are too wide", PANELS, "high < 1 << 7", "high <= 1 << 7"),
    Fault("bound forgets pools", PANELS, "int(sums) * most_uses(starts, taps)", "int(sums)"),
    Fault("runs cross targets", PANELS, "begins[starts[:-1][np.diff(starts) > 0]] = True", "begins[:1] = True"),
    Fault("depthwise counts pixels", DEPTHWISE, "events += ones(bits)", "events += bits != 0"),
    Fault("lanes compare late", LANES, 'fires = after.compared(">", load(threshold, at))', 'fires = after.compared(">=", load(threshold, at))'),
    Fault("lanes decay downward", LANES, "(down + one).where(builder.and_(negative, inexact), down)", "down"),
    Fault("lanes cut what is exact", LANES, "builder.and_(negative, inexact)", "negative"),
    Fault("lanes turn at the upper edge", LANES, 'wrapped.compared(">", half)', 'wrapped.compared(">=", half)'),
    Fault("lanes stay at the lower edge", LANES, 'wrapped.compared("<=", zero - half)', 'wrapped.compared("<", zero - half)'),
    Fault("lanes beyond the channels count", LANES, "mask = builder.select(ends, value[\"valid\"], everyone)", "mask = everyone"),
    Fault("lanes keep the current over a reset", LANES, "load(memory, state_at) & clear", "load(memory, state_at)"),
    Fault("lanes clear a step late", LANES, "np.int32(0) if clears[now] else", "np.int32(0) if clears[max(now - 1, 0)] else"),
    Fault("lanes' window is the first", LANES, "window = min(windows[now], drive.shape[1] - 1)", "window = 0"),
    Fault("growth forgets the drive", NEURONS, "(arriving + largest_drive + reset + 1)", "(arriving + reset + 1)"),
    Fault("growth forgets the steps", NEURONS, "return min(steps, -(", "return min(2, -("),
    Fault("wide words wrap in 32 bits", NEURONS, "wraps = form.word_bits <= 32", "wraps = form.word_bits <= 64"),
    Fault("recurrence takes a hop more", TIMING, "own = projection.shortest_delay if joined else 0", "own = 0"),
    Fault("delays count as hops", TIMING, "own = projection.shortest_delay if joined else 0", "own = projection.shortest_delay"),
    Fault("inputs arrive at once", TIMING, "            return hop\n", "            return 0\n"),
    Fault("resets ignore the stage", PLAN, "begin = timed.stages[name] if offset is None", "begin = 0 if offset is None"),
    Fault("offset from the stage", PLAN, "offset + timed.index(name)", "offset + timed.stages[name]"),
    Fault("window changes at zero", PLAN, "(time - begin) // interval", "time // interval"),
    Fault("netx: one-sided minimum", ENCODING, "scale = 256 / -least", "scale = 255 / -least"),
    Fault("netx: zero is excitatory", ENCODING, "mixed = least < 0 <= most", "mixed = least < 0 < most"),
    Fault("netx: weights are not cut", ENCODING, "return sign * (magnitude >> cut << cut)", "return sign * magnitude"),
    Fault("netx: delays per input first", READER, "if delay.shape == (rows,):", "if delay.shape == (rows,) and rows != columns:"),
    Fault("netx: maps in C, H, W", READER, "np.ascontiguousarray(wrapped.transpose(2, 1, 0))", "wrapped.reshape(shape)"),
    Fault("netx: biases do not wrap", READER, "wrapped = wrap(bias, _BIAS_BITS)", "wrapped = bias"),
    Fault("netx: decay is what is kept", WRITER, 'WHOLE - neurons.decay, threshold', 'neurons.decay, threshold'),
    Fault("pool: stride is not multiplied", POOLING, "window * conv.stride)", "np.array(conv.stride))"),
    Fault("pool: dense windows overlap wrongly", POOLING, "+= pooled", "= pooled"),
    Fault("relays skip a stage", RELAYS, "while behind < stage - number_format.hop_delay:", "while behind < stage - 2 * number_format.hop_delay:"),
    Fault("ranges: the current has no memory", RANGES, "next_high = kept(current_high, neurons.current_decay) + high_in", "next_high = high_in"),
    Fault("diff: a neuron's own flip is forgotten", DIVERGENCE, "found[:, 1:] |= flips[name][:, :-1]", "pass"),
    Fault("diff: a flip is forgotten after its step", DIVERGENCE, "np.logical_or.accumulate(found, axis=1)", "found"),
    Fault("diff: flips take the shortest delay", DIVERGENCE, "for delay in np.unique(delays):", "for delay in np.unique(delays)[:1]:"),
    Fault("diff: spikes arrive early", LEDGER, "late[:, delay:] = sums[:, : max(steps - delay, 0)]", "late[:, : steps - delay] = sums[:, delay:]"),
    Fault("diff: > fires at the threshold", LEDGER, "firing_level(form, threshold.astype(np.int64))", "threshold.astype(np.int64) << form.threshold_shift"),
)  # fmt: skip


def planted(fault: Fault, folder: Path) -> None:
    """A copy of the project in ``folder`` with one fault."""
    package = folder / "snn_deploy"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "snn_deploy", package, ignore=ignore)
    for name in ("exporters", "hw_profiles"):  # as they are installed
        shutil.copytree(ROOT / name, package / name, ignore=ignore)
        (folder / name).symlink_to(package / name)
    for name in ("tests", "examples", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", folder)
    path = folder / fault.file
    text = path.read_text()
    if text.count(fault.right) < 1:
        raise SystemExit(f"{fault.name}: its place in {fault.file} is not found")
    path.write_text(text.replace(fault.right, fault.wrong, 1))


def tested(fault: Fault | None) -> tuple[int, str]:
    """Exit code of the tests with a fault, and what they say last."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        planted(fault or Fault("none", NUMERICS, "import", "import"), folder)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *TESTS],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": name, "NUMBA_CACHE_DIR": str(folder / "numba")},
            capture_output=True,
            text=True,
            check=False,
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return done.returncode, (lines or done.stdout.splitlines() or [done.stderr])[-1]


def main(numbers: list[int]) -> int:
    """Plant all faults, or those of these numbers; the first run has none and must pass."""
    code, said = tested(None)
    if code != 0:
        print(f"the tests do not pass as they are: {said}")
        return 1
    missed = 0
    for number, fault in enumerate(FAULTS):
        if numbers and number not in numbers:
            continue
        start = time.monotonic()
        code, said = tested(fault)
        found = code == 1  # tests failed; anything else says nothing of the fault
        missed += not found
        word = "noticed" if found else "MISSED "
        print(
            f"{number:3} {word} {time.monotonic() - start:5.0f} s  {fault.name}: {said[:90]}",
            flush=True,
        )
    print(f"{missed} of {len(numbers or FAULTS)} planted faults were missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main([int(argument) for argument in sys.argv[1:]]))
