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
    """What one error code stands for; docs/errors.md is made of these.

    An error has a reason and a mend of its own where it knows them; these are the usual ones.

    Parameters
    ----------
    title : what went wrong, in a few words.
    exit : how a program that meets it exits.
    why : why it is refused.
    fix : what mends it as a rule.
    """

    title: str
    exit: Exit
    why: str
    fix: str


CODES: dict[str, Code] = {
    # 1xx: what was asked for
    "SD101": Code(
        "file not found or not readable",
        Exit.USAGE,
        "The path leads nowhere, to the wrong kind of thing (a folder where a file is needed), or "
        "to what the system does not let this user read.",
        "Check the path and its permissions; a data set must first be where the recipe says it is.",
    ),
    "SD102": Code(
        "output cannot be written",
        Exit.USAGE,
        "The folder is missing, read-only or full, the name is taken by something else, or another "
        "process is at the same run. What stood there before is still there, unchanged.",
        "Name an output in a folder that exists, that may be written to, and has room.",
    ),
    "SD103": Code(
        "input does not fit the network",
        Exit.USAGE,
        "Arrays of the recording are missing, or have another shape, type or number of timesteps "
        "than the network takes.",
        "Reshape the recording to what the message says is wanted, or use the network that it was "
        "made for.",
    ),
    "SD104": Code(
        "invalid recipe or configuration",
        Exit.USAGE,
        "A key, a value or an option is unknown, out of range, missing, or contradicts another.",
        "Change what the message names; of a recipe it says the line.",
    ),
    "SD105": Code(
        "unknown name",
        Exit.USAGE,
        "No target, profile, convention, engine, dialect, function or type of file has this name.",
        "Choose one of the names that the message lists; `snn-deploy targets` lists all targets.",
    ),
    "SD106": Code(
        "input value outside the declared range",
        Exit.USAGE,
        "The range proof holds for inputs within the range that the network declares: a value "
        "beyond it could overflow a register.",
        "Clip the recording, or declare the wider range and export again.",
    ),
    "SD107": Code(
        "optional package missing",
        Exit.USAGE,
        "This part of snn-deploy needs a package that a plain installation does not bring.",
        "Install the extra that the message names, such as `pip install 'snn-deploy[train]'`.",
    ),
    "SD108": Code(
        "networks cannot be compared",
        Exit.USAGE,
        "The two have other populations or another number of timesteps, so that nothing says which "
        "spike of one answers to which of the other.",
        "Compare two stages of one network.",
    ),
    # 2xx: what a target cannot do
    "SD201": Code(
        "target has no number format",
        Exit.UNSUPPORTED,
        "The name is that of a profile for energy or placement: how its chip computes is not known "
        "to the bit, and nothing exact could be exported.",
        "Export to a target with a number format: `loihi2` or `generic`.",
    ),
    "SD202": Code(
        "not expressible in the target's number format",
        Exit.UNSUPPORTED,
        "A weight, threshold, bias, delay or kind of neuron has no place in the registers of the "
        "target, and rounding it away would change what the network computes.",
        "Train with what the target has (the message names the limit), or choose `generic`.",
    ),
    "SD203": Code(
        "range cannot be proved",
        Exit.UNSUPPORTED,
        "Some input that the network allows could drive a current or membrane out of its register.",
        "Lower the weights or the fan-in of the population, or declare a narrower input range.",
    ),
    "SD204": Code(
        "not expressible in the file format",
        Exit.UNSUPPORTED,
        "The format has no word for a part of this network, or a file says something that "
        "snn-deploy does not run exactly.",
        "Choose another format or dialect, or train with a layer that the format has.",
    ),
    "SD205": Code(
        "module cannot be frozen",
        Exit.UNSUPPORTED,
        "The torch module does something that no network of populations and synapses does; the "
        "message names the layer or operation.",
        "Replace it as the message says; docs/freezing.md lists what is followed.",
    ),
    "SD206": Code(
        "energy has no published figure",
        Exit.UNSUPPORTED,
        "The profile has no figure for what was asked of it, and none is made up.",
        "Name a host profile or a proxy that has the figure, or read the counts alone.",
    ),
    "SD207": Code(
        "timing not possible",
        Exit.UNSUPPORTED,
        "With one timestep per hop, spikes would come too late for a loop, or would survive a "
        "reset in a delay: the result would not be that of the trained network.",
        "Train with longer delays in the loop, run every sample by itself, or simulate with "
        "`--timing zero-delay`.",
    ),
    "SD208": Code(
        "does not fit on the chip",
        Exit.UNSUPPORTED,
        "A limit that nothing gets around is passed; the message has both numbers.",
        "Make the layer smaller, or choose a larger chip; `snn-deploy check` lists all breaches.",
    ),
    "SD209": Code(
        "limits of the chip are not known",
        Exit.UNSUPPORTED,
        "No published limits of this chip are in its profile, so that nothing can be checked.",
        "Name a target with limits, or a profile of your own that states them.",
    ),
    # 3xx: gates
    "SD301": Code(
        "accuracy gate failed",
        Exit.GATE,
        "The deployed network is less accurate than the trained one by more than was allowed. The "
        "report is written.",
        "Allow a larger drop, or quantize with more bits, calibration or fine-tuning.",
    ),
    "SD302": Code(
        "energy gate failed",
        Exit.GATE,
        "The nominal total is above the limit, or a synaptic operation has no figure, so that the "
        "total is not known. The report is written.",
        "Raise the limit, lower the activity, or name a profile with the figure.",
    ),
    # 4xx: integrity
    "SD401": Code(
        "file is corrupt",
        Exit.INTEGRITY,
        "The file is cut off, damaged, or of another kind than its name says.",
        "Copy it again, or write it again with what made it.",
    ),
    "SD402": Code(
        "file is unsafe",
        Exit.INTEGRITY,
        "The file holds pickled objects, points to other files, or unpacks to more than its "
        "bounds allow. Nothing in it was run.",
        "Save plain arrays, or the network with `snn_deploy.save(model, path)`.",
    ),
    "SD403": Code(
        "numbers are not finite",
        Exit.INTEGRITY,
        "NaN or infinity stands among the weights, parameters or inputs; integers have neither.",
        "Go back to an earlier checkpoint, lower the learning rate, or clean the recording.",
    ),
    "SD404": Code(
        "file differs from its manifest",
        Exit.INTEGRITY,
        "A file of an exported folder is missing or has another hash than when it was exported, or "
        "the folder comes from another checkpoint.",
        "Export again, or copy the whole folder again.",
    ),
    "SD405": Code(
        "tensors disagree with the integer network",
        Exit.INTEGRITY,
        "A file carries the network twice, for other tools and as exact integers; the two differ.",
        "Export again; do not edit an exported file.",
    ),
    "SD406": Code(
        "freeze proof failed",
        Exit.INTEGRITY,
        "The frozen graph and the torch module differ in spikes that no rounding explains.",
        "Let the module's result depend on its input alone; if it does, please report it.",
    ),
    "SD407": Code(
        "simulations differ",
        Exit.INTEGRITY,
        "Two computations that must agree to the bit (engines, timings, a file and what it was "
        "written from, Lava) do not.",
        "Please report it with the folder: it is a fault of snn-deploy or of the other simulator.",
    ),
    "SD408": Code(
        "graph is malformed",
        Exit.INTEGRITY,
        "Shapes, types or names of the graph contradict each other.",
        "Mend what the message names where the graph is made, or export the file again.",
    ),
    "SD409": Code(
        "range proof does not hold",
        Exit.INTEGRITY,
        "The certificate in the manifest does not prove what it says of the network in the folder.",
        "Export again.",
    ),
    # 5xx: ourselves
    "SD500": Code(
        "internal error",
        Exit.INTERNAL,
        "Something happened that should not, or memory ran out.",
        "Please report it with the output of `--debug`; give fewer samples if memory ran out.",
    ),
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
