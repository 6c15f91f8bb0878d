"""Verification: what was exported is whole, and decides as the trained network did."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from snn_deploy.artefacts import (
    Artefact,
    Replay,
    open_artefact,
    recorded_input,
    replay_recorded,
    sha256_of,
)
from snn_deploy.errors import SnnDeployError
from snn_deploy.exporters.lava.peer import LavaCheck, verify_in_lava
from snn_deploy.graph import Graph
from snn_deploy.packets import Recording, read_recording
from snn_deploy.quantization.certificate import check_certificate
from snn_deploy.sim import simulate_batches

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Parity:
    """The trained network against the exported one, on one recording.

    Accuracies in percent, None without labels; ``drop`` in percentage points, positive if the
    exported network is worse. ``engine_differences`` counts spikes, membranes and counts in which
    the engines differ; ``freeze_*`` are those of :class:`snn_deploy.freezing.FreezeProof`.
    """

    samples: int
    trained_accuracy: float | None
    exported_accuracy: float | None
    drop: float | None
    decisions_changed: tuple[int, ...]
    freeze_slots: int
    freeze_flips: int
    freeze_ties: int
    freeze_violations: int
    engine_differences: int


@dataclass(frozen=True, slots=True)
class Verification:
    """Outcome of :func:`verify`; ``failed_gate`` says which gate failed, None if none."""

    replay: Replay
    parity: Parity | None
    lava: LavaCheck | None
    failed_gate: str | None


def verify(
    exported: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    recording: str | os.PathLike[str] | Recording | None = None,
    max_accuracy_drop: float | None = None,
    against: str | None = None,
    lava_python: str | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Verify an exported folder.

    Always: every artefact's hash, the tensors against the integer network, the bundled input
    simulated again by every engine, and the certificate of the range proof. With a model and a
    recording: the freeze proof and the engines' equality over the whole recording, and the
    accuracies. Against ``lava``: the chip's own file run in Intel's Lava, every spike, current and
    membrane compared.

    Parameters
    ----------
    exported : folder written by ``export``.
    model : the checkpoint it was exported from.
    recording : labelled inputs, or their file.
    max_accuracy_drop : gate, in percentage points.
    against : ``lava``, on the recording if there is one, else on the bundled input.
    lava_python : Python that has Lava; default: this one.
    progress : called with (what, samples done, samples in all).

    Raises
    ------
    SnnDeployError
        SD1xx for arguments, SD4xx where things that must be equal are not. A failed gate does not
        raise: it is named in the result.
    """
    if against not in (None, "lava"):
        raise SnnDeployError("SD105", f"no simulator {against!r}", fix="choose `lava`")
    if lava_python is not None and against is None:
        raise SnnDeployError("SD104", "a Python of Lava is of no use here", fix="--with lava")
    if (model is None) != (recording is None) and (model is not None or against is None):
        raise SnnDeployError(
            "SD104", "a comparison needs both the model and an input", fix="--model M --input I"
        )
    if max_accuracy_drop is not None and model is None:
        raise SnnDeployError(
            "SD104", "an accuracy drop needs a model to compare with", fix="--model M --input I"
        )
    if max_accuracy_drop is not None and not math.isfinite(max_accuracy_drop):
        raise SnnDeployError("SD104", f"an accuracy drop of {max_accuracy_drop} is no gate")
    artefact = open_artefact(exported)
    if artefact.manifest is None:
        raise SnnDeployError(
            "SD104", "verify needs an exported folder, not a single file", where=str(exported)
        )
    replay = replay_recorded(artefact)
    check_certificate(artefact.graph, artefact.manifest["proof"]["ranges"])
    if recording is not None and not isinstance(recording, Recording):
        recording = read_recording(recording)
    lava = None
    if against is not None:
        lava = _verify_in_lava(artefact, recording, lava_python, progress)
    if model is None or recording is None:
        return Verification(replay, None, lava, None)
    if _digest_of_model(model) != artefact.manifest["model"]["sha256"]:
        raise SnnDeployError(
            "SD404",
            "the folder was exported from another checkpoint",
            where=str(model),
            fix="give the checkpoint it was exported from, or export this one",
        )
    if max_accuracy_drop is not None and recording.labels is None:
        raise SnnDeployError("SD103", "an accuracy drop needs `labels` in the recording")
    parity = _compare(artefact, model, recording, progress)
    failed = None
    if max_accuracy_drop is not None:
        # accuracies are multiples of 1/samples: a difference below 1e-9 is a rounding error
        drop = parity.drop if parity.drop is not None else 0.0
        if drop > max_accuracy_drop + 1e-9:
            failed = f"accuracy dropped by {drop:.2f} points, {max_accuracy_drop:g} are allowed"
    return Verification(replay, parity, lava, failed)


def _verify_in_lava(
    artefact: Artefact,
    recording: Recording | None,
    python: str | None,
    progress: Progress | None,
) -> LavaCheck:
    found = verify_in_lava(
        artefact.path,
        artefact.graph,
        recorded_input(artefact) if recording is None else recording,
        python=python,
        progress=None if progress is None else lambda done, of: progress("Lava", done, of),
    )
    differing = {name: count for name, count in found.differing.items() if count}
    if differing:
        raise SnnDeployError(
            "SD407",
            f"{sum(differing.values())} of {found.values} values differ in Lava: "
            + ", ".join(f"{count} in {name}" for name, count in differing.items()),
            where=str(artefact.path / found.file),
            fix="this is a fault of snn-deploy: please report it with the folder",
        )
    return found


def _digest_of_model(model: str | os.PathLike[str]) -> str:
    if not Path(model).is_file():
        raise SnnDeployError("SD101", "no such file", where=str(model))
    return sha256_of(Path(model))


def _compare(
    artefact: Artefact,
    model: str | os.PathLike[str],
    recording: Recording,
    progress: Progress | None,
) -> Parity:
    from snn_deploy.freezing import prove_freeze
    from snn_deploy.nn.checkpoint import load

    def report(what: str) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, of: progress(what, done, of)

    proof = prove_freeze(load(model), recording, progress=report("freeze proof"))
    proof.require(str(model))
    differences, decisions = compare_engines(
        artefact.graph, recording, progress=report("reference against event")
    )
    if differences:
        raise SnnDeployError(
            "SD407",
            f"the engines differ in {differences} spikes, membranes or counts",
            where=str(artefact.path),
            fix="this is a fault of snn-deploy: please report it with the folder",
        )
    labels = recording.labels
    trained = None if labels is None else 100 * float((proof.decisions == labels).mean())
    exported = None if labels is None else 100 * float((decisions == labels).mean())
    return Parity(
        samples=len(decisions),
        trained_accuracy=trained,
        exported_accuracy=exported,
        drop=None if trained is None or exported is None else trained - exported,
        decisions_changed=tuple(int(i) for i in np.flatnonzero(decisions != proof.decisions)),
        freeze_slots=proof.slots,
        freeze_flips=sum(proof.flips.values()),
        freeze_ties=proof.ties,
        freeze_violations=proof.violations,
        engine_differences=differences,
    )


def compare_engines(
    graph: Graph, recording: Recording, *, progress: Callable[[int, int], None] | None = None
) -> tuple[int, np.ndarray]:
    """Run both engines over a recording.

    Returns
    -------
    differences : spikes, membranes, currents, readouts and counts that differ.
    decisions : int64 [samples], of the event engine.
    """
    differences = 0
    decisions = []
    reference = simulate_batches(graph, recording, engine="reference", trace=True)
    told = None if progress is None else lambda run: progress(run.samples, run.of_samples)
    event = simulate_batches(graph, recording, engine="event", trace=True, progress=told)
    for one, other in zip(reference, event, strict=True):
        for part in ("spikes", "membrane", "current", "output"):
            mine, theirs = getattr(one, part), getattr(other, part)
            differences += len(mine.keys() ^ theirs.keys())
            differences += sum(int((mine[n] != theirs[n]).sum()) for n in mine.keys() & theirs)
        differences += one.record.difference(other.record)
        decisions.append(other.decisions())
    return differences, np.concatenate(decisions)
