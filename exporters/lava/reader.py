"""From a netx ``.net`` file to the graph that Lava makes of it.

Populations are named by their number among the layers that create a process in Lava: ``0``, ``1``,
and so on. The graph's number format is Loihi's arithmetic without Loihi's limits, as Lava's
simulator computes it; everything that Lava makes otherwise than the file says is in ``notes``.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from snn_deploy.exporters import Opened
from snn_deploy.exporters.lava.encoding import effective_weights
from snn_deploy.exporters.lava.netx_file import (
    DELAY_MAX,
    MOST_8_BITS,
    NEVER_FIRES,
    WHOLE,
    Layer,
    read_layers,
)

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import (
    LIF,
    Graph,
    InputSpec,
    Population,
    Projection,
)
from snn_deploy.hardware import target
from snn_deploy.numerics import NumberFormat, wrap
from snn_deploy.synapses import Conv2d, Dense, Shape, one_to_one

Array = NDArray[Any]

INPUT = "input"
CHIP = "loihi2"

# Lava's neurons (lava/proc/lif/models.py) have int16 bias mantissas.
_BIAS_BITS = 16
# Lava shifts thresholds left by 6 in int32, arrays of them in the type that the file has.
_THRESHOLD_SHIFT = 6
_THRESHOLD_END = 1 << 25
# A convolution's sum is kept in 24 bits before it is shifted (lava/proc/conv/models.py).
_CONVOLUTION_SUM_BITS = 24


def simulator_format() -> NumberFormat:
    """The arithmetic of Lava's ``fixed_pt`` processes: Loihi's registers without its limits."""
    return replace(
        target(CHIP).require_format(),
        weight_min=-(1 << 31),
        weight_max=(1 << 31) - 1,
        weight_step=1,
        threshold_bits=25,
        threshold_per_population=False,
        bias_bits=_BIAS_BITS,
        input_bits=31,
    )


def read(path: Path, *, input_bits: int = 0, input_shape: Shape | None = None) -> Opened:
    """Read a netx file.

    Parameters
    ----------
    path : the file.
    input_bits : 0: the input is spikes; else integers of up to so many bits per timestep, which
        multiply the weights (netx' ``input_message_bits``).
    input_shape : (C, H, W) of the input of a file that begins with a convolution and does not say.

    Raises
    ------
    SnnDeployError
        SD101, SD401, SD402, SD403 for the file, SD204 for what Lava rejects, hangs on or silently
        misreads, SD103 where the input's shape does not follow.
    """
    return _Builder(path, input_bits, input_shape).build()


class _Builder:
    """Walks the layers as netx does, and keeps what the graph needs."""

    def __init__(self, path: Path, input_bits: int, input_shape: Shape | None) -> None:
        if not 0 <= input_bits <= 31:
            raise SnnDeployError("SD104", f"input bits must be 0 to 31, not {input_bits}")
        self.path, self.input_bits, self.given_shape = path, input_bits, input_shape
        self.layers = read_layers(path)
        self.notes: list[str] = []
        self.inputs: list[InputSpec] = []
        self.populations: list[Population] = []
        self.projections: list[Projection] = []
        self.flatten_next = False
        self.last = self.layers[0]  # of those that have neurons, when all are read
        self.image: Shape | None = None  # what an `input` layer without neuron says

    def build(self) -> Opened:
        for layer in self.layers:
            if layer.kind == "input":
                self._input(layer)
            elif layer.kind == "flatten":
                self.flatten_next = True
            elif layer.kind == "conv":
                self._convolution(layer)
            else:
                self._dense(layer)
        if not self.populations:
            raise SnnDeployError(
                "SD204", "no layer of the file creates a neuron", where=str(self.path)
            )
        (spec,) = self.inputs
        if self.given_shape not in (None, spec.shape):
            raise SnnDeployError(
                "SD104",
                f"the file's input has the shape {spec.shape}, not {self.given_shape}",
                where=str(self.path),
                fix="leave out the input's shape",
            )
        self._read_out_membrane()
        graph = Graph(
            inputs=tuple(self.inputs),
            populations=tuple(self.populations),
            projections=tuple(self.projections),
            outputs=(self.populations[-1].name,),
            number_format=simulator_format(),
        )
        return Opened(graph, tuple(self.notes), CHIP)

    def _note(self, layer: Layer, text: str) -> None:
        self.notes.append(f"layer {layer.index} ({layer.kind}): {text}")

    def _input(self, layer: Layer) -> None:
        if layer.index > 0:
            raise layer.refuse(
                "an `input` layer after the first", why="netx connects nothing to it"
            )
        if not layer.has_neuron:
            self.image = layer.shape() if "shape" in layer.data else None
            return
        shape = layer.shape()
        if self.input_bits:
            raise SnnDeployError(
                "SD104", "the file's input layer is driven by biases, not by graded spikes",
                where=layer.where, fix="leave out the input bits",
            )  # fmt: skip
        for name in ("weight", "bias"):
            value = layer.cast(name)
            if value is None:
                continue
            if value.size != 1:
                raise layer.refuse(
                    f"`{name}` of shape {value.shape} in an input layer",
                    why="netx takes one number",
                )
            self._note(layer, f"`{name}` {value.item()} is for the caller to apply")
        limit = 1 << (_BIAS_BITS - 1)
        self.inputs.append(
            InputSpec(
                name=INPUT, kind="constant", shape=shape, low=-limit, high=limit - 1, scale=1.0
            )
        )
        handed_on = Projection(source=INPUT, target="0", synapses=one_to_one(shape))
        self._add(layer, shape, [handed_on], None)

    def _source(self, layer: Layer, shape: Shape) -> str:
        """Name of what feeds the next layer; the input comes into being when it is first needed."""
        if self.populations:
            return self.populations[-1].name
        if self.input_bits:
            most = float((1 << self.input_bits) - 1)
            spec = InputSpec(
                name=INPUT, kind="graded", shape=shape, low=-most, high=most, scale=1.0
            )
        else:
            spec = InputSpec(name=INPUT, kind="spikes", shape=shape)
        self.inputs.append(spec)
        return INPUT

    def _convolution(self, layer: Layer) -> None:
        weight = layer.cast("weight")
        if weight is None:
            raise layer.refuse("`weight` is missing", code="SD401")
        if weight.ndim == 5 and weight.shape[4] == 1:
            weight = weight[..., 0]
        if weight.ndim != 4:
            raise layer.refuse(f"weights of shape {weight.shape}: (O, I/groups, kH, kW) is needed")
        if max(weight.shape[2:]) > MOST_8_BITS:
            raise layer.refuse(f"a kernel of {weight.shape[2:]}", why="Lava keeps it in 8 bits")
        if not layer.has_neuron:
            raise layer.refuse("`neuron` is missing", why="netx needs it", code="SD401")
        seen = self.populations[-1].shape if self.populations else self.image
        if seen is None:
            seen = self.given_shape
        if seen is None:
            raise SnnDeployError(
                "SD103",
                "the file begins with a convolution and does not say the shape of its input",
                where=layer.where,
                fix="give the input's shape: --input-shape C,H,W",
            )
        if len(seen) != 3:
            raise layer.refuse(f"a convolution over a vector of {seen[0]}")
        synapses = Conv2d(
            weight,
            stride=layer.pair("stride"),
            padding=layer.pair("padding"),
            dilation=layer.pair("dilation"),
            groups=layer.groups(),
        )
        for name in ("stride", "dilation"):
            if min(layer.pair(name)) < 1:
                raise layer.refuse(f"a {name} of 0", code="SD401")
        try:
            shape = synapses.target_shape(seen)
        except SnnDeployError as error:
            raise layer.refuse(error.message, why="Lava rejects the file") from None
        if layer.shape() != shape:
            raise layer.refuse(
                f"the shape {layer.shape()} is not the convolution's {shape}",
                why="Lava rejects the file",
            )
        delay = layer.numbers("delay")
        if delay is not None and delay.any():
            self._note(layer, "its delays are ignored, as netx ignores them")
        projection = Projection(
            source=self._source(layer, seen),
            target=str(len(self.populations)),
            synapses=synapses,
            sum_bits=self._convolution_sum_bits(layer, weight),
        )
        self._add(layer, shape, [projection], layer.cast("bias"))

    def _dense(self, layer: Layer) -> None:
        size = math.prod(layer.shape())
        weight, recurrent = self._dense_weights(layer, size)
        before = self.populations[-1].shape if self.populations else None
        if before is not None:
            if len(before) == 3 and not self.flatten_next:
                raise layer.refuse(
                    "a dense layer behind a map, without `flatten`", why="Lava rejects the file"
                )
            if len(before) == 1 and self.flatten_next:
                raise layer.refuse(
                    "`flatten` behind a vector", why="Lava rejects the file: it wants three axes"
                )
            if weight.shape[1] != int(np.prod(before)):
                raise layer.refuse(
                    f"weights of shape {weight.shape} do not fit the {before} before"
                )
        self.flatten_next = False
        effective = effective_weights(weight, recurrent, where=layer.where)
        for note in effective.notes:
            self._note(layer, note)
        name = str(len(self.populations))
        bits = 32 - effective.shift
        projections = [
            Projection(
                source=self._source(layer, (weight.shape[1],)),
                target=name,
                synapses=Dense(effective.weight),
                delay=self._delay(layer, weight),
                sum_bits=self._sum_bits(effective.weight, bits),
            )
        ]
        if projections[0].sum_bits is not None and effective.shift > 6 and "delay" in layer.data:
            raise layer.refuse(
                "graded input through delays, whose sums may leave 32 bits",
                why="Lava wraps each product of such weights, not their sum",
            )
        if effective.recurrent is not None:
            loop = Projection(
                source=name, target=name, synapses=Dense(effective.recurrent), delay=1
            )
            projections.append(loop)
        self._add(layer, (size,), projections, layer.cast("bias"))

    def _dense_weights(self, layer: Layer, size: int) -> tuple[Array, Array | None]:
        """(N_out, N_in) weights and recurrent weights, as the file has them."""
        if any(name.startswith("weight/") for name in layer.data):
            raise layer.refuse("complex weights", why="resonate-and-fire layers are not supported")
        names = ["weight"] + (["weight_rec"] if layer.kind == "dense_rec" else [])
        found = []
        one_axis = False
        for name in names:
            value = layer.needed(name)
            if value.size == 0:
                raise layer.refuse(f"`{name}` is empty", code="SD401")
            one_axis = value.ndim == 1 if name == "weight" else one_axis
            if one_axis and value.size % size == 0:
                value = value.reshape(size, -1)
            if value.ndim != 2 or len(value) != size:
                raise layer.refuse(f"`{name}` of shape {value.shape} does not fit {size} neurons")
            found.append(value)
        recurrent = found[1] if len(found) == 2 else None
        if recurrent is not None and recurrent.shape[1] != size:
            raise layer.refuse(f"recurrent weights of shape {recurrent.shape} are not square")
        return found[0], recurrent

    def _delay(self, layer: Layer, weight: Array) -> int | NDArray[np.int64]:
        """Delays of dense synapses, as netx spreads, cuts and clips them."""
        value = layer.numbers("delay")
        if value is None:
            return 0
        if layer.kind == "dense_rec":
            raise layer.refuse(
                "delays on a recurrent layer",
                why="netx forgets the exponent of such weights, or fails",
            )
        if value.size == 0 or value.min() < 0:
            raise layer.refuse("delays that are negative or missing")
        delay = np.trunc(np.minimum(value, DELAY_MAX)).astype(np.int64)
        if value.max() > DELAY_MAX:
            self._note(layer, f"delays above {DELAY_MAX} act as {DELAY_MAX}")
        rows, columns = weight.shape
        if delay.ndim == 0:
            return int(delay)
        if delay.shape == (rows,):  # a square matrix: per output neuron, as netx decides
            return delay.reshape(rows, 1)
        if delay.shape == (columns,):
            return delay.reshape(1, columns)
        if delay.shape == weight.shape:
            return delay
        raise layer.refuse(f"delays of shape {delay.shape} do not fit weights of {weight.shape}")

    def _sum_bits(self, weight: Array, bits: int) -> int | None:
        """The register of a synaptic sum, None if no input of the declared kind can overflow it."""
        return bits if self._largest_sum(weight) >= 1 << (bits - 1) else None

    def _largest_sum(self, weight: Array) -> int:
        """No synaptic sum exceeds this, whatever the input of the declared kind."""
        first = not self.populations
        most = (1 << self.input_bits) - 1 if first and self.input_bits else 1
        wide = np.abs(weight.astype(np.int64)).reshape(len(weight), -1)
        return int(wide.sum(axis=1).max()) * most

    def _convolution_sum_bits(self, layer: Layer, weight: Array) -> int | None:
        """The register of a convolution's sum, where Lava's sum itself is exact."""
        largest = self._largest_sum(weight)
        if largest >= 1 << 31:
            raise layer.refuse(
                f"sums of up to {largest}",
                why="Lava sums convolutions in floating point; beyond 32 bits the result depends "
                "on the machine",
            )
        if largest >= 1 << 24:
            self._note(
                layer,
                f"sums may reach {largest}: exact in Lava without PyTorch, rounded by Lava's "
                "float32 where PyTorch is installed",
            )
        return self._sum_bits(weight, _CONVOLUTION_SUM_BITS)

    def _add(
        self, layer: Layer, shape: Shape, projections: list[Projection], bias: Array | None
    ) -> None:
        """Append the population of a layer, and what feeds it."""
        neurons = self._neurons(layer, shape, bias)
        name = str(len(self.populations))
        self.populations.append(Population(name=name, shape=shape, neurons=neurons, scale=1.0))
        self.projections += projections
        self.last = layer

    def _neurons(self, layer: Layer, shape: Shape, bias: Array | None) -> LIF:
        if "neuron/messageBits" in layer.data:
            raise layer.refuse("`messageBits`", why="Lava fails at run time on files that have it")
        if layer.has_neuron:
            kind = layer.data.get("neuron/type")
            if kind not in ("CUBA", "LOIHI"):
                said = kind[:40] if isinstance(kind, str) else "no name"
                raise layer.refuse(f"neurons of type {said!r}: CUBA and LOIHI are supported")
            current_decay = WHOLE - self._decay(layer, "iDecay", shape)
            decay = WHOLE - self._decay(layer, "vDecay", shape)
            threshold = self._threshold(layer, shape)
        else:  # netx' default: integrates in the current, and never fires
            current_decay, decay = np.array(WHOLE), np.array(0)
            threshold = np.array(1 << 17)
        return LIF(
            decay=decay,
            current_decay=current_decay if current_decay.any() else None,
            threshold=threshold,
            bias=self._bias(layer, shape, bias),
        )

    def _parameter(self, layer: Layer, name: str, shape: Shape) -> NDArray[np.int64]:
        """One integer, or one per neuron of a vector or per channel of a map."""
        value = layer.needed(f"neuron/{name}")
        if value.dtype.kind not in "iu" or value.dtype == np.uint64:
            raise layer.refuse(
                f"`{name}` is of type {value.dtype}",
                why="a process of Lava dies on it, and the others wait for it for ever",
            )
        if value.size == 1 and value.ndim <= 1:
            return np.asarray(value, np.int64).reshape(())
        if value.shape != shape[:1]:
            raise layer.refuse(f"`{name}` of shape {value.shape} does not fit {shape}")
        return value.astype(np.int64).reshape(-1, *([1] * (len(shape) - 1)))

    def _threshold(self, layer: Layer, shape: Shape) -> NDArray[np.int64]:
        threshold = self._parameter(layer, "vThMant", shape)
        if not -_THRESHOLD_END <= threshold.min() <= threshold.max() < _THRESHOLD_END:
            raise layer.refuse("a threshold beyond 26 bits", why="Lava's shift overflows")
        written = layer.needed("neuron/vThMant")
        held = np.iinfo(written.dtype)
        shifted = threshold << _THRESHOLD_SHIFT
        if written.ndim and not held.min <= shifted.min() <= shifted.max() <= held.max:
            raise layer.refuse(
                f"thresholds up to {threshold.max()} of type {written.dtype}",
                why=f"Lava shifts them left by {_THRESHOLD_SHIFT} in this type, and they overflow",
            )
        return threshold

    def _decay(self, layer: Layer, name: str, shape: Shape) -> NDArray[np.int64]:
        value = self._parameter(layer, name, shape)
        if value.min() < 0 or value.max() > WHOLE:
            raise layer.refuse(f"`{name}` from {value.min()} to {value.max()}: 0 to 4096 is sound")
        unsigned = np.asarray(layer.data[f"neuron/{name}"]).dtype.kind == "u"
        if unsigned and name == "iDecay" and value.min() == 0:
            raise layer.refuse(
                "an `iDecay` of 0 of an unsigned type", why="netx subtracts one, and it turns over"
            )
        return value

    def _bias(self, layer: Layer, shape: Shape, bias: Array | None) -> NDArray[np.int64]:
        if bias is None:
            return np.zeros((), np.int64)
        wrapped = wrap(bias, _BIAS_BITS)
        count = int((wrapped != bias).sum())
        if count:
            self._note(layer, f"{count} biases wrap around in Lava's {_BIAS_BITS} bits")
        if len(shape) == 1:
            if bias.shape == (1,) or bias.shape == ():
                return wrapped.reshape(())
            if bias.shape == shape:
                return wrapped
        elif bias.shape == shape[::-1]:  # a full map lies in Lava's order: W, H, C
            return np.ascontiguousarray(wrapped.transpose(2, 1, 0))
        elif bias.shape == shape[:1]:
            return wrapped.reshape(-1, 1, 1)
        raise layer.refuse(
            f"biases of shape {bias.shape} do not fit {shape}",
            why="Lava takes one per neuron or channel, or a map in W, H, C order",
        )

    def _read_out_membrane(self) -> None:
        """Read a last layer whose threshold is out of reach from its membranes, not its spikes."""
        last = self.populations[-1]
        if isinstance(last.neurons, LIF) and last.neurons.threshold.min() >= NEVER_FIRES:
            neurons = replace(last.neurons, readout="last")
            self.populations[-1] = replace(last, neurons=neurons)
            self._note(
                self.last,
                "a threshold out of reach: decisions are read from the membranes after the last "
                "timestep",
            )
