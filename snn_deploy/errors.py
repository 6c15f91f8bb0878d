"""The one error class of the package, the codes it may carry, and the exit codes they map to.

A user never needs a traceback: every failure that a file, a flag or a network can cause is raised
as :class:`SnnDeployError`, whose parts say where it happened, why, and what mends it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the command line."""

    OK = 0
    GATE = 1
    USAGE = 2
    UNSUPPORTED = 3
    INTEGRITY = 4
    INTERNAL = 5
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Code:
    """What one error code stands for, and how a program that meets it exits."""

    title: str
    exit: Exit


CODES: dict[str, Code] = {
    # 1xx: what was asked for
    "SD101": Code("file not found or not readable", Exit.USAGE),
    "SD102": Code("output cannot be written", Exit.USAGE),
    "SD103": Code("input does not fit the network", Exit.USAGE),
    "SD104": Code("invalid recipe or configuration", Exit.USAGE),
    "SD105": Code("unknown name", Exit.USAGE),
    "SD106": Code("input value outside the declared range", Exit.USAGE),
    "SD107": Code("optional package missing", Exit.USAGE),
    "SD108": Code("networks cannot be compared", Exit.USAGE),
    # 2xx: what a target cannot do
    "SD201": Code("target has no number format", Exit.UNSUPPORTED),
    "SD202": Code("not expressible in the target's number format", Exit.UNSUPPORTED),
    "SD203": Code("range cannot be proved", Exit.UNSUPPORTED),
    "SD204": Code("not expressible in the file format", Exit.UNSUPPORTED),
    "SD205": Code("module cannot be frozen", Exit.UNSUPPORTED),
    "SD206": Code("energy has no published figure", Exit.UNSUPPORTED),
    "SD207": Code("timing not possible", Exit.UNSUPPORTED),
    "SD208": Code("does not fit on the chip", Exit.UNSUPPORTED),
    "SD209": Code("limits of the chip are not known", Exit.UNSUPPORTED),
    # 3xx: gates
    "SD301": Code("accuracy gate failed", Exit.GATE),
    "SD302": Code("energy gate failed", Exit.GATE),
    # 4xx: integrity
    "SD401": Code("file is corrupt", Exit.INTEGRITY),
    "SD402": Code("file is unsafe", Exit.INTEGRITY),
    "SD403": Code("numbers are not finite", Exit.INTEGRITY),
    "SD404": Code("file differs from its manifest", Exit.INTEGRITY),
    "SD405": Code("tensors disagree with the integer network", Exit.INTEGRITY),
    "SD406": Code("freeze proof failed", Exit.INTEGRITY),
    "SD407": Code("simulations differ", Exit.INTEGRITY),
    "SD408": Code("graph is malformed", Exit.INTEGRITY),
    "SD409": Code("range proof does not hold", Exit.INTEGRITY),
    # 5xx: ourselves
    "SD500": Code("internal error", Exit.INTERNAL),
}


class SnnDeployError(Exception):
    """A failure with a code, a place, a reason and a mend.

    Parameters
    ----------
    code : one of :data:`CODES`.
    message : one line, what went wrong.
    where : file, layer or argument it concerns.
    why : the reason, when the message does not say it.
    fix : what to do about it.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        where: str | None = None,
        why: str | None = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.where = where
        self.why = why
        self.fix = fix

    @property
    def exit(self) -> Exit:
        """The exit code a program ends with on this error."""
        return CODES[self.code].exit

    def __str__(self) -> str:
        lines = [f"error[{self.code}]: {self.message}"]
        if self.where:
            lines.append(f"  --> {self.where}")
        if self.why:
            lines.append(f"  = why: {self.why}")
        if self.fix:
            lines.append(f"  = fix: {self.fix}")
        return "\n".join(lines)
