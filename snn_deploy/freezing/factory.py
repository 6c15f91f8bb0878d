"""Networks to freeze, from files: a checkpoint of ours, or bare weights and who makes their module.

A factory is a function without arguments, named ``package.module:function``. It returns a module
whose architecture is known (:class:`snn_deploy.nn.models.SpikingNet`), or a module and the options
of :func:`snn_deploy.freeze` for it::

    def network():
        spec = InputSpec(name="input", kind="spikes", shape=(700,))
        return Net(), {"spec": spec, "timesteps": 100}
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from dataclasses import dataclass, field
from typing import Any, NoReturn

from torch import Tensor, nn

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import InputSpec
from snn_deploy.nn.checkpoint import load_checkpoint, read_data
from snn_deploy.nn.models import SpikingNet
from snn_deploy.packets import Recording

_OPTIONS = ("spec", "timesteps", "time_first", "fold_normalisation")
_RETURNS = (
    'return a module and the options of freeze for it: Net(), {"spec": InputSpec(name="input", '
    'kind="spikes", shape=(700,)), "timesteps": 100}'
)


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A trained network as it was read.

    Attributes
    ----------
    model : in evaluation.
    options : how :func:`snn_deploy.freeze` is called on it.
    example : inputs that came with it.
    """

    model: nn.Module
    options: dict[str, Any] = field(default_factory=dict)
    example: Recording | None = None


def open_network(path: str | os.PathLike[str], factory: str | None = None) -> Source:
    """Read a checkpoint written by :func:`snn_deploy.save`, or weights for a factory's module.

    Parameters
    ----------
    path : of the checkpoint; with a factory, of a state_dict. Never code: nothing but tensors is
        loaded.
    factory : ``package.module:function``, looked for as Python looks for modules, and in the
        present folder. It is code, and is run.

    Raises
    ------
    SnnDeployError
        As ``load_checkpoint``; SD105 for a factory that is not found, SD104 for one that fails or
        returns something else, and for weights that do not fit its module.
    """
    if factory is None:
        checkpoint = load_checkpoint(path)
        return Source(checkpoint.model, example=checkpoint.example)
    state = read_data(path)
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    ):
        raise SnnDeployError(
            "SD104",
            "this is no state_dict: names with tensors, and nothing else",
            where=str(path),
            fix="save it with torch.save(model.state_dict(), path); a checkpoint of "
            "snn_deploy.save needs no factory",
        )
    model, options = _made(factory)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        lines = [" ".join(line.split()) for line in str(error).splitlines()[1:]]
        raise SnnDeployError(
            "SD104",
            f"the weights do not fit the module that {factory} makes",
            where=str(path),
            why=" ".join(lines)[:500],
            fix="let the factory make the module that was trained, with the same options",
        ) from None
    return Source(model.eval(), options)


def _made(factory: str) -> tuple[nn.Module, dict[str, Any]]:
    """What a factory returns, checked."""
    make = _found(factory)
    try:
        made = make()
    except SnnDeployError:
        raise
    except Exception as error:  # whatever a user's code raises
        _failed(factory, "fails", error)
    model, options = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
    if not isinstance(model, nn.Module) or not isinstance(options, dict):
        _misfit(factory, f"returns {type(made).__name__}, not a module, or a module and options")
    unknown = sorted(set(map(str, options)) - set(_OPTIONS))
    if unknown:
        _misfit(factory, f"returns options that freeze does not have: {', '.join(unknown)}")
    if not isinstance(model, SpikingNet) and not isinstance(options.get("spec"), InputSpec):
        _misfit(factory, "does not say what its module is fed: an InputSpec as option `spec`")
    return model, options


def _found(factory: str) -> Any:
    """The function of this name."""
    name, _, attribute = factory.partition(":")
    if not attribute or not all(part.isidentifier() for part in f"{name}.{attribute}".split(".")):
        raise SnnDeployError(
            "SD104", f"{factory!r} names no factory", fix="write package.module:function"
        )
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise SnnDeployError(
                "SD105",
                f"there is no module {error.name}",
                where=factory,
                fix="run in the folder that holds it, or install it",
            ) from None
        _failed(factory, "cannot be imported", error)
    except Exception as error:  # whatever a user's code raises
        _failed(factory, "cannot be imported", error)
    finally:
        sys.path.remove(here)
    make = getattr(module, attribute, None)
    if not callable(make):
        names = [n for n, _ in inspect.getmembers(module, inspect.isfunction)][:8]
        raise SnnDeployError(
            "SD105",
            f"there is no function {attribute} in {name}",
            where=factory,
            fix=f"functions there: {', '.join(names)}" if names else "name a function",
        )
    return make


def _failed(factory: str, how: str, error: Exception) -> NoReturn:
    raise SnnDeployError(
        "SD104", f"the factory {how}", where=factory, why=f"{type(error).__name__}: {error}",
        fix="call it in Python: it takes no arguments",
    ) from error  # fmt: skip


def _misfit(factory: str, what: str) -> NoReturn:
    raise SnnDeployError("SD104", f"the factory {what}", where=factory, fix=_RETURNS)
