"""Checkpoints: a network's architecture as data beside its weights; nothing in them is executed."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snn_deploy.errors import SnnDeployError
from snn_deploy.nn.architecture import parse
from snn_deploy.nn.models import SpikingNet
from snn_deploy.packets import Recording, write_atomically

_EXAMPLE_DTYPES = (torch.float32, torch.float64, torch.uint8, torch.int64, torch.bool)

FORMAT = "snn-deploy checkpoint 1"


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A network, and a few inputs that an export bundles as its recorded example (or None)."""

    model: SpikingNet
    example: Recording | None


def save(model: SpikingNet, path: str | os.PathLike[str], example: Recording | None = None) -> None:
    """Write a network to ``path``, whole or not at all.

    Parameters
    ----------
    model : the network.
    path : usually ``*.pt``.
    example : a few samples of real input, bundled by :func:`snn_deploy.export`.

    Raises
    ------
    SnnDeployError
        SD102 if the file cannot be written.
    """
    content: dict[str, Any] = {
        "format": FORMAT,
        "architecture": json.dumps(model.architecture.to_data()),
        "state": {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()},
    }
    if example is not None:
        content["example"] = {k: torch.from_numpy(v.copy()) for k, v in example.arrays().items()}
    write_atomically(path, to_bytes(content))


def load(path: str | os.PathLike[str]) -> SpikingNet:
    """Read a network, in evaluation mode, on the CPU. See :func:`load_checkpoint`."""
    return load_checkpoint(path).model


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a network and its example.

    Raises
    ------
    SnnDeployError
        SD101 (not there), SD401 (truncated or not a checkpoint), SD402 (content that is not plain
        data), SD403 (weights that are not finite).
    """
    where = str(path)
    content = read_data(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise SnnDeployError(
            "SD401",
            "not a checkpoint of snn-deploy",
            where=where,
            why="it lacks the architecture that snn_deploy.save stores beside the weights",
            fix="write it with snn_deploy.save(model, path)",
        )
    state, text = content.get("state"), content.get("architecture")
    if not isinstance(state, dict) or not isinstance(text, str):
        raise _corrupt(where, "architecture or weights are missing")
    try:
        architecture = parse(json.loads(text), where)
        with torch.device("meta"):  # no memory is spent before the file has shown its weights
            wanted = SpikingNet(architecture).state_dict()
    except SnnDeployError as error:
        raise SnnDeployError(
            "SD401", error.message, where=where, why="the checkpoint describes no network"
        ) from None
    except (ValueError, RecursionError, RuntimeError) as error:
        raise _corrupt(where, f"the architecture is not readable: {_reason(error)}") from None
    example = content.get("example")
    tensors = [*state.values(), *(example.values() if isinstance(example, dict) else [])]
    held = sum(v.nbytes for v in tensors if _is_plain(v))
    if held > Path(path).stat().st_size or not all(map(_is_plain, tensors)):
        raise _corrupt(where, "it holds something other than plain tensors of its own")
    for name in sorted(wanted.keys() | {str(key) for key in state}):
        mine, theirs = wanted.get(name), state.get(name)
        if (
            mine is None
            or theirs is None
            or (mine.shape, mine.dtype) != (theirs.shape, theirs.dtype)
        ):
            raise _corrupt(where, f"weights of {name} do not fit the architecture")
        if not torch.isfinite(theirs).all():
            raise SnnDeployError(
                "SD403",
                f"weights of {name} hold NaN or infinity",
                where=where,
                fix="restore an earlier checkpoint, or train again with a lower learning rate",
            )
    model = SpikingNet(architecture)
    model.load_state_dict(state)
    return Checkpoint(model.eval(), _example(example, where))


def _is_plain(value: Any) -> bool:
    """Whether a value is a dense tensor in memory, whose size is that of the bytes read for it."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.requires_grad
        and not value.is_quantized
        and value.is_contiguous()
    )


def to_bytes(content: dict[str, Any]) -> bytes:
    """Plain data and tensors as the bytes of a ``.pt`` file."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def read_data(path: str | os.PathLike[str]) -> Any:
    """Plain data and tensors of a ``.pt`` file: never code, never more than the file holds.

    Raises
    ------
    SnnDeployError
        SD101, SD401 or SD402.
    """
    where = str(path)
    try:
        size = Path(path).stat().st_size
        with zipfile.ZipFile(path) as archive:
            if any(m.compress_type != zipfile.ZIP_STORED for m in archive.infolist()):
                raise SnnDeployError(
                    "SD402", "a compressed checkpoint, which torch never writes", where=where
                )
            if sum(m.file_size for m in archive.infolist()) > size:
                raise _corrupt(where, "it claims to hold more than it does")
            if archive.testzip() is not None:
                raise _corrupt(where, "its content does not match its checksums")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, NotADirectoryError):
        raise SnnDeployError("SD101", "no such file", where=where) from None
    except IsADirectoryError:
        raise SnnDeployError("SD101", "this is a folder, not a checkpoint", where=where) from None
    except PermissionError:
        raise SnnDeployError("SD101", "no permission to read", where=where) from None
    except pickle.UnpicklingError as error:
        raise SnnDeployError(
            "SD402",
            "the checkpoint holds something other than tensors and plain data",
            where=where,
            why=_reason(error),
            fix="nothing in it was run; save it again with snn_deploy.save(model, path)",
        ) from None
    except SnnDeployError:
        raise
    except Exception as error:  # zipfile and torch raise many kinds on a broken file
        if _is_pickle(path):
            raise SnnDeployError(
                "SD402",
                "a bare pickle, which is never loaded",
                where=where,
                fix="save the network with snn_deploy.save(model, path)",
            ) from None
        raise _corrupt(where, _reason(error)) from None


def _reason(error: Exception) -> str:
    """The sentence of an error that says what was found, in one line."""
    text = " ".join(str(error).split())
    for mark in ("WeightsUnpickler error: ", "Unsupported "):
        if mark in text:
            text = text.split(mark, 1)[1] if mark.startswith("Weights") else text
    return text.split(". ")[0][:200] or type(error).__name__


def _is_pickle(path: str | os.PathLike[str]) -> bool:
    with open(path, "rb") as stream:
        return stream.read(1) == b"\x80"


def _corrupt(where: str, why: str) -> SnnDeployError:
    return SnnDeployError(
        "SD401",
        "not a readable checkpoint",
        where=where,
        why=why,
        fix="copy or download it again, or save it again with snn_deploy.save(model, path)",
    )


def _example(data: Any, where: str) -> Recording | None:
    if data is None:
        return None
    if not isinstance(data, dict) or not all(v.dtype in _EXAMPLE_DTYPES for v in data.values()):
        raise _corrupt(where, "the example is not readable")
    arrays = {k: v.numpy() for k, v in data.items()}
    labels = arrays.pop("labels", None)
    return Recording(
        spikes={"": arrays["spikes"]} if "spikes" in arrays else {},
        values={"": arrays["values"]} if "values" in arrays else {},
        labels=labels,
    )
