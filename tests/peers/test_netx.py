"""Random networks in Lava: spikes, current and membrane of every layer, at every timestep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from snn_deploy.exporters import ReadOptions
from snn_deploy.exporters.lava import netx
from snn_deploy.exporters.lava.program import Program
from snn_deploy.exporters.lava.writer import chain as to_chain

from snn_deploy import SnnDeployError, open_artefact, simulate
from snn_deploy.graph import Graph
from snn_deploy.mapping import HostLayer
from snn_deploy.packets import Recording
from snn_deploy.sim import EngineName, Trace, simulate_stream
from snn_deploy.sim.timing import pipelined, repeatable
from tests.helpers.lava import RANDOM_NETS, Lava, read
from tests.helpers.numbers import Array
from tests.helpers.random_graphs import chain, network
from tests.peers.random_netx import Builder

ENGINES: tuple[EngineName, ...] = ("reference", "event")


def differences(trace: Trace, names: dict[str, str], recorded: dict[str, Array]) -> dict[str, int]:
    """Differing values by array; ``names``: population in the trace -> population in Lava."""
    found = {}
    for name, theirs in names.items():
        for part, values in (
            ("spikes", trace.spikes),
            ("current", trace.current),
            ("membrane", trace.membrane),
        ):
            expected = recorded[f"{theirs}.{part}"]
            mine = values[name][0] if name in values else np.zeros_like(expected)
            assert mine.shape == expected.shape, f"{name}.{part}"
            found[f"{name}.{part}"] = int((mine != expected).sum())
    return found


def recording(graph: Graph, fed: Array) -> Recording:
    (spec,) = graph.inputs
    return Recording(spikes={"": fed}) if spec.kind == "spikes" else Recording(values={"": fed})


def test_random_files_of_strangers(tmp_path: Path) -> None:
    cases = [Builder(seed).case(tmp_path, f"net{seed}") for seed in range(RANDOM_NETS)]
    lines = Lava.found(tmp_path).batch([case.job(tmp_path) for case in cases])
    values = 0
    for seed, (case, line) in enumerate(zip(cases, lines, strict=True)):
        assert line["ok"], (seed, line["error"])
        recorded = read(case.path.with_suffix(".out.npz"))
        graph = open_artefact(
            case.path,
            ReadOptions(input_bits=case.input_bits, input_shape=case.input_shape),
        ).graph
        options: dict[str, Any] = {"steps": case.steps, "timing": "pipelined", "trace": True}
        if case.reset_interval is not None:
            options |= {"reset_interval": case.reset_interval, "reset_offset": case.reset_offset}
        for engine in ENGINES:
            trace = simulate(graph, recording(graph, case.fed), engine=engine, **options)
            found = differences(trace, {p.name: p.name for p in graph.populations}, recorded)
            assert not any(found.values()), (seed, engine, found)
        values += sum(a.size for name, a in recorded.items() if name != "meta")
    print(f"{len(cases)} files, {values} values, 0 differ")


def fed_to_lava(chip: Graph, host: HostLayer | None, given: Recording) -> tuple[str, Array]:
    """What Lava is fed: biases that the host computed, or spikes or payloads of one sample."""
    if host is not None:
        return "bias", host.biases(given)
    (spec,) = chip.inputs
    held = given.spikes if spec.kind == "spikes" else given.values
    return "spikes" if spec.kind == "spikes" else spec.name, spec.encode(held[""])


@pytest.mark.parametrize("form", ["netx", "program"])
def test_random_graphs_that_we_write(form: str, tmp_path: Path) -> None:
    """Raw timesteps of one sample, and the windows of all samples in a stream with resets."""
    jobs, checks = [], []
    relays = 0
    for seed in range(RANDOM_NETS):
        graph, given = chain(seed) if form == "netx" else network(seed)
        path = tmp_path / f"net{seed}{'.net' if form == 'netx' else '.py'}"
        if form == "netx":
            netx.write(graph, path)
            said = to_chain(graph)
            chip, host, bits = said.graph, said.host, said.input_bits
            names = {name: str(index) for index, name in enumerate(said.names)}
        else:
            program = Program(graph)
            program.write(path)
            chip, host, bits = program.graph, program.host, 0
            names = {p.name: p.name for p in chip.populations}
            relays += len(program.relays)
        schedule = pipelined(chip)
        key, fed = fed_to_lava(chip, host, given)
        steps, samples = graph.timesteps or 0, len(fed)
        stream = True
        try:
            repeatable(chip)
        except SnnDeployError:
            stream = False
        length = samples * steps + schedule.latency if stream else steps + schedule.latency
        if host is None:
            fed = fed.reshape(-1, *fed.shape[2:]) if stream else fed[0]
        elif not stream:
            fed = fed[:1]
        if form == "program" and host is None:
            key = chip.inputs[0].name
        elif key not in ("bias", "spikes"):
            key = "spikes"
        into, out = (tmp_path / f"net{seed}.{s}.npz" for s in ("in", "out"))
        np.savez(into, **{key: fed})
        job: dict[str, Any] = {
            ("net" if form == "netx" else "program"): path,
            "input": into,
            "output": out,
            "steps": length,
        }
        if form == "netx":
            job["input_message_bits"] = bits
        if stream:
            job["reset_interval"] = steps
            if form == "netx":
                job["reset_offset"] = min(schedule.stages.values())
        if host is not None:
            job["window"] = steps
        jobs.append(job)
        checks.append((graph, chip, host, given, stream, length, names, out))
    values = 0
    lines = Lava.found(tmp_path).batch(jobs)
    for seed, (line, check) in enumerate(zip(lines, checks, strict=True)):
        graph, chip, host, given, stream, length, names, out = check
        assert line["ok"], (seed, line["error"])
        recorded = read(out)
        inputs = given if host is None else Recording(values={"": host.biases(given)})
        if not stream:
            one = inputs.head(1)
            options: dict[str, Any] = {"timing": "pipelined", "steps": length, "trace": True}
            for engine in ENGINES:
                found = differences(simulate(chip, one, engine=engine, **options), names, recorded)
                assert not any(found.values()), (seed, engine, found)
        else:
            schedule, steps = pipelined(chip), graph.timesteps or 0
            expected = simulate(graph, given, trace=True)
            plain = simulate(chip, inputs, trace=True)
            assert simulate_stream(chip, inputs).difference(plain) == 0
            for name, array in expected.spikes.items():  # the lowered graph spikes as ours did
                assert (plain.spikes[name] == array).all(), (seed, name)
            for name, array in expected.output.items():
                assert (plain.output[name] == array).all(), (seed, name)
            for name, theirs in names.items():
                stage = schedule.stages[name]
                for part, traced in (
                    ("spikes", plain.spikes),
                    ("current", plain.current),
                    ("membrane", plain.membrane),
                ):
                    raw = recorded[f"{theirs}.{part}"]
                    window = raw[stage : len(raw) - schedule.latency + stage]
                    window = window.reshape(-1, steps, *raw.shape[1:])
                    mine = traced.get(name, np.zeros_like(window))
                    assert (window == mine).all(), (seed, name, part)
        values += sum(a.size for name, a in recorded.items() if name != "meta")
    print(f"{len(jobs)} graphs as {form}, {values} values, {relays} relays, 0 differ")
