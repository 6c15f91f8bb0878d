"""How a network is quantized: the choices that are the user's, in one value, and what they mean.

A target's number format says what its weights can be; a scheme says which part of that is used
(``bits``) and how numbers are put on it. It is written into the manifest as it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from snn_deploy.errors import SnnDeployError
from snn_deploy.hardware import Target
from snn_deploy.numerics import NumberFormat
from snn_deploy.packets import Recording

Granularity = Literal["tensor", "channel"]
Clipping = Literal["max", "mse", "percentile"]
Rounding = Literal["nearest", "learned"]

FEWEST_BITS, MOST_BITS = 2, 16
DEFAULT_BITS = 8
MSE_BITS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How weights become integers; :meth:`of` checks one against a target.

    Attributes
    ----------
    bits : width of a weight, sign included, in steps of the target's grid.
    granularity : one scale per population (``tensor``) or per output channel (``channel``; a
        readout whose channels are compared with each other keeps one).
    clipping : the scale makes room for the largest weight (``max``), for all but the largest
        thousandth (``percentile``), or is the one whose currents err least (``mse``).
    rounding : to ``nearest``, or up and down so that the currents on a calibration recording err
        least (``learned``).
    correction : biases and, where a target has them per neuron, thresholds make up for the mean
        error on the calibration recording.
    """

    bits: int
    granularity: Granularity = "tensor"
    clipping: Clipping = "max"
    rounding: Rounding = "nearest"
    correction: bool = False

    @staticmethod
    def of(
        chip: Target,
        *,
        bits: int | None = None,
        granularity: str = "tensor",
        clipping: str | None = None,
        rounding: str = "nearest",
        correction: bool = False,
    ) -> Scheme:
        """The scheme for a target.

        ``bits`` None: 8, or all that the target has if those are fewer. ``clipping`` None: ``mse``
        for up to 5 bits, where a large weight costs all others their precision, else ``max``.

        Raises
        ------
        SnnDeployError
            SD104 for an unknown word or a width that is none; SD201 or SD202 for what the target
            does not have.
        """
        number_format = chip.require_format()
        own = weight_bits(number_format)
        width = min(DEFAULT_BITS, own) if bits is None else bits
        if clipping is None:
            clipping = "mse" if width <= MSE_BITS else "max"
        for name, value, known in (
            ("granularity", granularity, Granularity),
            ("clipping", clipping, Clipping),
            ("rounding", rounding, Rounding),
        ):
            words = get_args(known)
            if value not in words:
                raise SnnDeployError(
                    "SD104", f"no {name} {value!r}", fix=f"choose one of: {', '.join(words)}"
                )
        if not FEWEST_BITS <= width <= MOST_BITS:
            raise SnnDeployError(
                "SD104",
                f"weights of {width} bits",
                fix=f"choose {FEWEST_BITS} to {MOST_BITS} bits, sign included",
            )
        if width > own:
            raise SnnDeployError(
                "SD202",
                f"{chip.id} has weights of {own} bits, not {width}",
                fix=f"choose at most {own} bits, or the target `generic`",
            )
        if granularity == "channel" and number_format.threshold_per_population:
            raise SnnDeployError(
                "SD202",
                f"{chip.id} has one threshold per population: its channels share a scale",
                fix="choose granularity `tensor`, or the target `generic`",
            )
        return Scheme(
            bits=width,
            granularity=granularity,  # type: ignore[arg-type]
            clipping=clipping,  # type: ignore[arg-type]
            rounding=rounding,  # type: ignore[arg-type]
            correction=correction,
        )

    @property
    def calibrated(self) -> bool:
        """Whether a calibration recording is needed."""
        return self.correction or self.rounding == "learned"

    def check_calibration(self, calibration: Recording | None) -> None:
        """Raise SD104 if a calibration recording is missing, or given and of no use."""
        if self.calibrated and calibration is None:
            what = "learned rounding" if self.rounding == "learned" else "a correction"
            raise SnnDeployError(
                "SD104", f"{what} needs a calibration recording", fix="give one (--calibration)"
            )
        if calibration is not None and not self.calibrated and self.clipping != "mse":
            raise SnnDeployError(
                "SD104",
                "a calibration recording is of no use here",
                why="only `mse` clipping, learned rounding and correction look at it",
                fix="leave it out, or choose one of these",
            )


@dataclass(frozen=True, slots=True)
class Grid:
    """The mantissas that weights may take: multiples of ``step`` from ``low`` to ``high``."""

    low: int
    high: int
    step: int


def weight_bits(number_format: NumberFormat) -> int:
    """Width of a target's weights in steps of its grid, sign included (Loihi 2: 8)."""
    return (number_format.weight_max // number_format.weight_step).bit_length() + 1


def weight_grid(number_format: NumberFormat, bits: int) -> Grid:
    """The grid of ``bits``: symmetric around zero, or the target's own where it is just as wide."""
    step = number_format.weight_step
    if bits == weight_bits(number_format):
        low, high = -number_format.weight_min // step, number_format.weight_max // step
        return Grid(-low * step, high * step, step)
    most = step * ((1 << (bits - 1)) - 1)
    return Grid(-most, most, step)
