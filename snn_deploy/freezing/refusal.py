"""How a rule says that something cannot be folded, before it is known which module asked for it."""

from __future__ import annotations

from typing import NoReturn

from snn_deploy.errors import SnnDeployError


class UnfoldableError(ValueError):
    """Something of a module that has no place in a graph of spikes and linear synapses.

    Parameters
    ----------
    what : a clause about the module: ``it rounds its windows up (ceil_mode)``.
    fix : what to write instead.
    """

    def __init__(self, what: str, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


def refuse(kind: str, error: ValueError, where: str, why: str | None = None) -> NoReturn:
    """Raise SD205 for the module of type ``kind`` at the path ``where``.

    A plain ValueError, as neurons of other libraries raise it, ends the sentence ``LIF ... cannot
    be frozen`` instead.
    """
    if isinstance(error, UnfoldableError):
        message, fix = f"{kind} cannot be frozen: {error.what}", error.fix
    else:
        message, fix = f"{kind} {error} cannot be frozen", None
    raise SnnDeployError("SD205", message, where=where, why=why, fix=fix) from None
