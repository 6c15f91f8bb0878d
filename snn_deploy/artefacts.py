"""Exported folders: written whole, re-read in a fresh process, opened again with their hashes.

A folder holds ``model.nir`` (the canonical artefact), the files of the chip's own format,
``recorded.npz`` (a small input with what the network made of it) and ``manifest.json`` (versions,
hashes, configuration, proof figures; no paths and no times: the same input and versions give the
same bytes in any folder).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.exporters import (
    Exporter,
    Polyglot,
    ReadOptions,
    Written,
    exporter,
    exporter_of,
)
from snn_deploy.graph import LIF, Graph
from snn_deploy.hardware import Target, target
from snn_deploy.mapping import design_rules
from snn_deploy.packets import (
    Recording,
    cannot_write,
    made_up,
    read_npz,
    read_recording,
    write_atomically,
    write_npz,
)
from snn_deploy.quantization import Range, Scheme, prove_ranges, quantization_report, quantize
from snn_deploy.quantization.certificate import certificate
from snn_deploy.sim import EngineName, simulate, simulate_stream
from snn_deploy.sim.timing import pipelined, repeatable
from snn_deploy.synapses import Dense

if TYPE_CHECKING:
    from snn_deploy.nn.recipe import Recipe
    from snn_deploy.quantization.finetune import Tuned

SCHEMA = 3
MODEL, RECORDED, MANIFEST = "model.nir", "recorded.npz", "manifest.json"

# Packages whose versions can change an exported byte or figure.
_PACKAGES = ("snn-deploy", "numpy", "numba", "h5py", "nir", "torch")

# Samples of the input that is made up when a checkpoint carries no example.
_SYNTHETIC_SAMPLES, _SYNTHETIC_RATE = 4, 0.2

Step = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Artefact:
    """An exported network, opened.

    ``manifest`` is None for a single file; ``notes`` say what acts otherwise than the file reads;
    ``target`` is the chip it is for, None where a file does not say.
    """

    path: Path
    graph: Graph
    manifest: dict[str, Any] | None
    notes: tuple[str, ...] = ()
    target: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Export:
    """What an export wrote."""

    folder: Path
    files: tuple[str, ...]
    graph: Graph
    manifest: dict[str, Any]


def export(
    model: str | os.PathLike[str],
    to: Target | str,
    output: str | os.PathLike[str],
    *,
    formats: Sequence[str] | None = None,
    dialect: str = "portable",
    bits: int | None = None,
    granularity: str = "tensor",
    clipping: str | None = None,
    rounding: str = "nearest",
    calibration: str | os.PathLike[str] | None = None,
    correction: bool = False,
    finetune: str | os.PathLike[str] | None = None,
    factory: str | None = None,
    reading: ReadOptions | None = None,
    progress: Step | None = None,
) -> Export:
    """Freeze, quantize and write a trained network for a target, and prove what was written.

    A network file of others is a float network already; it is quantized as it is.

    Parameters
    ----------
    model : checkpoint written by :func:`snn_deploy.save`; with a factory, a bare state_dict; or a
        file of a float network, such as another's ``.nir``.
    to : target with a number format, by name or as a target.
    output : folder; made if need be. Files of an earlier export in it are replaced.
    formats : exporters to use; default: the target's. ``model.nir`` is always written.
    dialect : whose words ``model.nir`` is in: ``portable``, or ``sinabs``.
    bits, granularity, clipping, rounding, correction : how weights become integers; see
        :class:`snn_deploy.quantization.scheme.Scheme`.
    calibration : file of a recording for the choices that look at one.
    finetune : file of the recipe that the network was trained by: its integers are fine-tuned on
        the recipe's data; see :func:`snn_deploy.quantization.finetune.finetune`.
    factory : ``package.module:function`` that makes the module of a state_dict; see
        :mod:`snn_deploy.freezing.factory`.
    reading : what a network file leaves unsaid.
    progress : called with the name of each step.

    Raises
    ------
    SnnDeployError
        SD1xx for arguments, SD2xx where the target cannot run the network, SD4xx where something
        that must be equal is not. Nothing is left half-written.
    """

    def step(name: str) -> None:
        if progress is not None:
            progress(name)

    chip = target(to) if isinstance(to, str) else to
    scheme = Scheme.of(
        chip, bits=bits, granularity=granularity, clipping=clipping, rounding=rounding,
        correction=correction,
    )  # fmt: skip
    seen = None if calibration is None else read_recording(calibration)
    scheme.check_calibration(seen)
    recipe = None if finetune is None else _tuning_recipe(finetune, scheme, clipping, calibration)
    wanted = dict.fromkeys(["nir", *(chip.formats if formats is None else formats)])
    exporters = {name: exporter(name) for name in wanted}
    exporters["nir"] = _in_dialect(exporters["nir"], dialect)
    output = Path(output)
    if Path(model).suffix == ".pt":
        if reading is not None:
            raise SnnDeployError(
                "SD104", "a checkpoint leaves nothing unsaid", where=str(model),
                fix="leave out the options for reading another's file",
            )  # fmt: skip
        source: _Source = _Checkpoint(model, factory, step)
    else:
        if factory is not None or recipe is not None:
            raise SnnDeployError(
                "SD104", "a network file is no module that could be trained", where=str(model),
                fix="give a checkpoint, or leave out the options for training and modules",
            )  # fmt: skip
        source = _NetworkFile(model, reading, step)
    frozen = source.graph
    step(f"quantize for {chip.id}")
    if recipe is None:
        graph, tuned = quantize(frozen, chip, **asdict(scheme), calibration=seen), None
    else:
        tuned = _tuned(source.model, chip, recipe, scheme, step)
        graph, frozen = tuned.graph, tuned.float_graph
    example = source.example
    origin = "the checkpoint's example"
    if example is None:
        example, origin = _synthetic(graph), "synthetic, seed 0"
    proof = source.prove(example)
    stage = _stage(output)
    try:
        written = {}
        for name, one in exporters.items():
            step(f"write {name}")
            written[name] = one.export(graph, stage)
        trace = simulate(graph, example, engine="reference", trace=True)
        write_npz(stage / RECORDED, _recorded(example, trace.spikes, trace.output))
        configuration = _configuration(graph, written, dialect, scheme, calibration, seen)
        configuration |= source.configuration
        if recipe is not None and tuned is not None:
            configuration["finetune"] = {
                "recipe": recipe.digest(), **asdict(recipe.finetune),
                "best_epoch": tuned.best_epoch,
                "held_out_loss": tuned.losses[tuned.best_epoch],
                "held_out_score": tuned.scores[tuned.best_epoch],
            }  # fmt: skip
        manifest = _manifest(
            chip, graph, written, configuration, Path(model), stage, proof, origin, example
        )
        step("compare with the float network")
        found = quantization_report(frozen, graph, example)
        manifest["proof"]["quantization"] = asdict(found)
        write_atomically(
            stage / MANIFEST, (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode()
        )
        step("re-read and simulate in a fresh process")
        _verify_in_fresh_process(stage)
        files = (*(f for w in written.values() for f in w.files), RECORDED, MANIFEST)
        _publish(stage, output, files)
    except OSError as error:
        raise cannot_write(output, error) from None
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return Export(output, files, graph, manifest)


class _Checkpoint:
    """A trained module, which is frozen."""

    def __init__(self, model: str | os.PathLike[str], factory: str | None, step: Step) -> None:
        from snn_deploy.freezing import freeze
        from snn_deploy.freezing.factory import open_network

        self._where, self._step = str(model), step
        step("read the checkpoint")
        self._network = open_network(model, factory)
        self.model: Any = self._network.model
        self.example = self._network.example
        self.configuration: dict[str, Any] = {} if factory is None else {"factory": factory}
        step("freeze")
        self.graph = freeze(self.model, **self._network.options)

    def prove(self, example: Recording) -> dict[str, Any] | None:
        """The freeze proof."""
        from snn_deploy.freezing import prove_freeze

        self._step("freeze proof")
        proof = prove_freeze(self.model, example, **self._network.options)
        proof.require(self._where)
        figures = asdict(proof)
        del figures["decisions"]
        return figures


class _NetworkFile:
    """A float network in a file."""

    def __init__(
        self, path: str | os.PathLike[str], reading: ReadOptions | None, step: Step
    ) -> None:
        step("read the network")
        opened = open_artefact(path, reading)
        if opened.graph.number_format is not None:
            raise SnnDeployError(
                "SD104", "the network is quantized already", where=str(path),
                why="only what was trained is exported, so that all rounding is known",
                fix="export the checkpoint or the float network that it was made of",
            )  # fmt: skip
        for note in opened.notes:
            step(f"note: {note}")
        self.model: Any = None
        self.graph = opened.graph
        self.example: Recording | None = None
        said = {} if reading is None else asdict(reading)
        self.configuration = {"reading": {**said, "notes": list(opened.notes)}}

    def prove(self, example: Recording) -> dict[str, Any] | None:
        """Nothing was frozen."""
        return None


_Source = _Checkpoint | _NetworkFile


def _in_dialect(one: Exporter, dialect: str) -> Exporter:
    if not isinstance(one, Polyglot):
        raise SnnDeployError("SD104", "the installed exporter of .nir files has no dialects")
    return one.with_dialect(dialect)


def _tuning_recipe(
    path: str | os.PathLike[str],
    scheme: Scheme,
    clipping: str | None,
    calibration: str | os.PathLike[str] | None,
) -> Recipe:
    """The recipe for fine-tuning, which goes with none of the other ways to choose integers."""
    from snn_deploy.nn.recipe import read_recipe

    if clipping not in (None, "mse") or calibration is not None or scheme.calibrated:
        raise SnnDeployError(
            "SD104",
            "fine-tuning begins at `mse` and learns the rest itself",
            fix="leave out clipping, rounding, correction and calibration",
        )
    return read_recipe(path)


def _tuned(model: Any, chip: Target, recipe: Recipe, scheme: Scheme, step: Step) -> Tuned:
    from snn_deploy.nn.models import SpikingNet
    from snn_deploy.quantization.finetune import finetune

    if not isinstance(model, SpikingNet) or model.architecture != recipe.architecture:
        raise SnnDeployError(
            "SD104",
            "the recipe for fine-tuning is of another network",
            fix="give the recipe that the checkpoint was trained by",
        )

    def report(epoch: int, epochs: int, loss: float, score: float) -> None:
        judged = f"held out: loss {loss:.4f}, score {score:.2f}"
        step(f"fine-tuning: epoch {epoch} of {epochs}, {judged}")

    return finetune(
        model, chip, recipe, bits=scheme.bits, granularity=scheme.granularity, progress=report
    )


def _synthetic(graph: Graph) -> Recording:
    """A made-up input inside the declared range, for checkpoints without an example."""
    random = np.random.default_rng(0)
    spikes: dict[str, NDArray[Any]] = {}
    values: dict[str, NDArray[Any]] = {}
    for spec in graph.fed:
        found = made_up(spec, graph.timesteps or 16, _SYNTHETIC_SAMPLES, _SYNTHETIC_RATE, random)
        name = "" if len(graph.fed) == 1 else spec.name
        (spikes if spec.kind == "spikes" else values)[name] = found
    return Recording(spikes=spikes, values=values)


def _recorded(
    example: Recording,
    spikes: dict[str, NDArray[np.bool_]],
    output: dict[str, NDArray[Any]],
) -> dict[str, NDArray[Any]]:
    """The recorded input and what the network made of it, under the names of a trace."""
    expected: dict[str, NDArray[Any]] = {f"{n}.expected_spikes": s for n, s in spikes.items()}
    expected |= {f"{name}.expected_output": value for name, value in output.items()}
    return {**example.arrays(), **expected}


def _manifest(
    chip: Target,
    graph: Graph,
    written: dict[str, Written],
    configuration: dict[str, Any],
    model: Path,
    stage: Path,
    proof: dict[str, Any] | None,
    source: str,
    example: Recording,
) -> dict[str, Any]:
    ranges = prove_ranges(graph)
    return {
        "schema": SCHEMA,
        "target": chip.id,
        "configuration": configuration,
        "versions": {name: version(name) for name in _PACKAGES}
        | {"python": f"{sys.version_info.major}.{sys.version_info.minor}"},
        "model": {"sha256": sha256_of(model)},
        "artefacts": {
            name: {"sha256": sha256_of(stage / name)}
            for name in (*(f for w in written.values() for f in w.files), RECORDED)
        },
        "formats": {name: {"files": w.files, **w.facts} for name, w in written.items()},
        "timing": _timing(graph),
        "design_rules": [asdict(f) for f in design_rules(graph, chip.require_format())],
        "number_format": asdict(chip.require_format()),
        "inputs": [
            {"name": i.name, "kind": i.kind, "shape": list(i.shape), "scale": i.scale,
             "low": i.low, "high": i.high, "mean": i.mean.tolist(), "std": i.std.tolist()}
            for i in graph.inputs
        ],
        "populations": [_describe_population(graph, p.name, ranges) for p in graph.populations],
        "projections": [
            {
                "name": p.name,
                "kind": "dense" if isinstance(p.synapses, Dense) else "conv2d",
                "weights": int(p.synapses.weight.size),
                "smallest": int(p.synapses.weight.min()),
                "largest": int(p.synapses.weight.max()),
                "exponent": p.exponent,
                "computed_on_host": graph.on_host(p),
            }
            for p in graph.projections
        ],
        "proof": {"freeze": proof, "ranges": certificate(graph, ranges)},
        "recorded": {"source": source, "samples": example.samples},
        "energy_rows": {name: asdict(row) for name, row in chip.energy.items()},
    }  # fmt: skip


def _configuration(
    graph: Graph,
    written: dict[str, Written],
    dialect: str,
    scheme: Scheme,
    calibration: str | os.PathLike[str] | None,
    seen: Recording | None,
) -> dict[str, Any]:
    """What was asked for, defaults filled in."""
    looked_at = None
    if calibration is not None and seen is not None:
        looked_at = {"sha256": sha256_of(Path(calibration)), "samples": seen.samples}
    return {
        "timesteps": graph.timesteps,
        "formats": list(written),
        "dialect": dialect,
        "calibration": looked_at,
        **asdict(scheme),
    }


def _timing(graph: Graph) -> dict[str, Any]:
    """Latency on a pipelined chip, or why the network cannot be pipelined."""
    try:
        schedule = pipelined(graph)
    except SnnDeployError as error:
        return {"refused": error.message}
    return {"latency": schedule.latency, "stages": schedule.stages}


def _describe_population(graph: Graph, name: str, ranges: dict[str, Range]) -> dict[str, Any]:
    population = graph.population(name)
    neurons = population.neurons
    described: dict[str, Any] = {
        "name": name,
        "shape": list(population.shape),
        "scale": np.asarray(population.scale).reshape(-1).tolist()
        if isinstance(population.scale, np.ndarray)
        else population.scale,
        "membrane_bits_needed": ranges[name].bits,
        "decay": sorted({int(d) for d in neurons.decay.reshape(-1)}),
    }
    if isinstance(neurons, LIF):
        described["threshold"] = sorted({int(t) for t in neurons.threshold.reshape(-1)})
    else:
        described["readout"] = neurons.readout
    return described


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    try:
        digest = hashlib.sha256()
        with open(path, "rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()
    except FileNotFoundError:
        raise SnnDeployError("SD404", "a file is missing", where=str(path)) from None
    except OSError as error:
        raise SnnDeployError("SD101", "cannot read", where=str(path), why=error.strerror) from None


def _stage(output: Path) -> Path:
    """A temporary folder on the disk of the output: inside it if it exists, else beside it."""
    if output.exists() and not output.is_dir():
        raise SnnDeployError(
            "SD102", "the output is a file, not a folder", where=str(output), fix="name a folder"
        )
    try:
        parent = output if output.is_dir() else output.resolve().parent
        return Path(tempfile.mkdtemp(prefix=".partial-", dir=parent))
    except OSError as error:
        raise cannot_write(output, error) from None


def _publish(stage: Path, output: Path, files: tuple[str, ...]) -> None:
    """Move the files to their place; the manifest goes first and comes last, as the seal."""
    output.mkdir(exist_ok=True)
    try:
        earlier = set(_read_manifest(output / MANIFEST)["artefacts"])
    except SnnDeployError:  # none, or none of ours
        earlier = set()
    for name in (MANIFEST, *(earlier - set(files))):
        (output / name).unlink(missing_ok=True)
    for name in files:
        os.chmod(stage / name, 0o644)
        os.replace(stage / name, output / name)


def _verify_in_fresh_process(stage: Path) -> None:
    """Run ``snn-deploy verify`` on the staged folder in a process that shares nothing with us."""
    command = [sys.executable, "-m", "snn_deploy", "verify", str(stage), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SnnDeployError(
            "SD407",
            "what was written does not simulate as what was meant",
            why=done.stderr.strip() or f"the process ended with {done.returncode}",
            fix="this is a fault of snn-deploy: please report it with the checkpoint",
        )


def open_artefact(path: str | os.PathLike[str], reading: ReadOptions | None = None) -> Artefact:
    """Open an exported folder (hashes checked) or a single file, ours or another's.

    Parameters
    ----------
    path : folder or file of a network.
    reading : what a file leaves unsaid.

    Raises
    ------
    SnnDeployError
        SD101, SD103, SD104, SD204, SD401, SD402, SD404 or SD405.
    """
    path = Path(path)
    if not path.exists():
        raise SnnDeployError(
            "SD101", "no such file or folder", where=str(path), fix="snn-deploy export first"
        )
    options = reading or ReadOptions()
    if not path.is_dir():
        opened = exporter_of(path).open(path, options)
        return Artefact(path, opened.graph, None, opened.notes, opened.target)
    manifest = _read_manifest(path / MANIFEST)
    for name, entry in manifest["artefacts"].items():
        if sha256_of(path / name) != entry["sha256"]:
            raise SnnDeployError(
                "SD404",
                "the file is not the one that was exported",
                where=str(path / name),
                why="its SHA-256 differs from the manifest's",
                fix="export again, or copy the whole folder again",
            )
    opened = exporter("nir").open(path / MODEL, options)
    return Artefact(path, opened.graph, manifest, opened.notes, manifest["target"])


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text("utf-8"))
        names = set(manifest["artefacts"])
        known = manifest["schema"] == SCHEMA and {MODEL, RECORDED} <= names
        known = known and isinstance(manifest["target"], str)
        known = known and isinstance(manifest["proof"]["ranges"], dict)
        known = known and all(Path(name).name == name for name in names)  # nothing elsewhere
        hashed = [manifest["model"], *manifest["artefacts"].values()]
        known = known and all(isinstance(entry["sha256"], str) for entry in hashed)
    except FileNotFoundError:
        raise SnnDeployError(
            "SD404",
            "no manifest: not an exported folder, or an export that was cut off",
            where=str(path.parent),
            fix="snn-deploy export first",
        ) from None
    except OSError as error:
        raise SnnDeployError("SD101", "cannot read", where=str(path), why=error.strerror) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        known, manifest = False, {}
    if not known:
        raise SnnDeployError("SD401", "the manifest is not readable", where=str(path))
    return dict(manifest)


@dataclass(frozen=True, slots=True)
class Replay:
    """The recorded input, simulated again by every engine.

    ``latency``: timesteps by which a pipelined chip's output comes later; the same input, run as
    one stream with a delay per hop, was then the same in every window. None if hops take no time,
    or if the network's delays forbid a stream.
    """

    samples: int
    spikes: int
    engines: tuple[str, ...]
    latency: int | None


def recorded_input(artefact: Artefact) -> Recording:
    """The input that is bundled with an exported folder."""
    arrays = read_npz(artefact.path / RECORDED)
    held: dict[str, dict[str, NDArray[Any]]] = {"spikes": {}, "values": {}}
    for key, array in arrays.items():
        name, _, kind = key.rpartition(".")
        if kind in held:
            held[kind][name] = array
    return Recording(spikes=held["spikes"], values=held["values"])


def replay_recorded(artefact: Artefact) -> Replay:
    """Simulate the bundled input with every engine and compare with what was recorded.

    Raises
    ------
    SnnDeployError
        SD407 naming the population that differs, SD401 if the recording is incomplete.
    """
    path = artefact.path / RECORDED
    arrays = read_npz(path)
    recording = recorded_input(artefact)
    engines: tuple[EngineName, ...] = ("reference", "event")
    spikes = 0
    for engine in engines:
        try:
            trace = simulate(artefact.graph, recording, engine=engine, trace=True)
        except SnnDeployError as error:
            raise SnnDeployError(
                "SD401", "the recorded input does not fit the network", where=str(path),
                why=error.message,
            ) from None  # fmt: skip
        found = _recorded(Recording(), trace.spikes, trace.output)
        for name, value in found.items():
            expected = arrays.get(name)
            if expected is None or expected.shape != value.shape:
                raise SnnDeployError("SD401", f"{name} is missing or misshapen", where=str(path))
            differing = int((expected != value).sum())
            if differing:
                raise SnnDeployError(
                    "SD407",
                    f"{differing} values of {name} differ in engine {engine}",
                    where=str(path),
                )
        spikes = sum(int(s.sum()) for s in trace.spikes.values())
    return Replay(recording.samples, spikes, engines, _replay_stream(artefact, recording))


def _replay_stream(artefact: Artefact, recording: Recording) -> int | None:
    """Latency of the pipelined chip, after its windows were compared; None if that is no case."""
    graph = artefact.graph
    if graph.number_format is None or graph.number_format.hop_delay == 0:
        return None
    try:
        repeatable(graph)
    except SnnDeployError:
        return None
    differing = simulate_stream(graph, recording).difference(simulate(graph, recording, trace=True))
    if differing:
        raise SnnDeployError(
            "SD407",
            f"{differing} spikes, membranes and currents differ between pipelined and zero-delay "
            "timing",
            where=str(artefact.path),
            fix="this is a fault of snn-deploy: please report it with the folder",
        )
    return pipelined(graph).latency
