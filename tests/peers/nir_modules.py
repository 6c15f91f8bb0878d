"""Networks made of other libraries' own modules: one use of a library each.

Decays and thresholds are binary fractions, so that membranes meet thresholds exactly and a reader's
comparator shows. The libraries live in an environment of their own (``make peers``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.helpers.foreign import imported

Random = np.random.Generator

snn = imported("snntorch")
sj_neuron = imported("spikingjelly.activation_based.neuron")
sj_layer = imported("spikingjelly.activation_based.layer")
norse = imported("norse.torch")
sl = imported("sinabs.layers")
sinabs_activation = imported("sinabs.activation")
rockpool = imported("rockpool.nn.modules")
rockpool_combinators = imported("rockpool.nn.combinators")

BATCH, STEPS = 3, 48
INPUTS, HIDDEN, CLASSES = 6, 8, 4
IMAGE = (2, 6, 6)


@dataclass(frozen=True, slots=True, eq=False)
class Net:
    """A module of a library, how it is fed, and what its file must be read as.

    Attributes
    ----------
    model : the module.
    reset : what a spike does: ``zero`` (to the file's v_reset) or ``subtract``.
    shape : of one timestep's input.
    dt : the module's timestep, in seconds; None: the file counts in timesteps.
    dialect : whose reading gives the module back, if not the library's plain one.
    options : of the library's export function.
    lost : what the module does and the file does not say.
    """

    model: Any
    reset: str
    shape: tuple[int, ...] = (INPUTS,)
    dt: float | None = 1e-4
    dialect: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    lost: tuple[str, ...] = ()


# ---- snnTorch: every parameter as long as the layer, or the file cannot be written ----


def _each(shape: int | tuple[int, ...], *values: float) -> Callable[[Random], Tensor]:
    size = (shape,) if isinstance(shape, int) else shape
    return lambda random: torch.from_numpy(random.choice(values, size).astype(np.float32))


def _same(shape: int | tuple[int, ...], value: float) -> Tensor:
    return torch.full((shape,) if isinstance(shape, int) else shape, value)


def _leaky(random: Random, shape: int | tuple[int, ...], **options: Any) -> Any:
    beta = _each(shape, 0.5, 0.75)(random)
    return snn.Leaky(beta=beta, threshold=_same(shape, 1.0), init_hidden=True, **options)


def _two_leaky(random: Random, **options: Any) -> nn.Module:
    return nn.Sequential(
        nn.Linear(INPUTS, HIDDEN), _leaky(random, HIDDEN, **options),
        nn.Linear(HIDDEN, CLASSES), _leaky(random, CLASSES, **options),
    )  # fmt: skip


def _synaptic(random: Random, shape: int, **options: Any) -> Any:
    alpha, beta = (_each(shape, 0.5, 0.75)(random) for _ in range(2))
    return snn.Synaptic(
        alpha=alpha, beta=beta, threshold=_same(shape, 2.0), init_hidden=True, **options
    )


def _two_synaptic(random: Random, bias: bool, **options: Any) -> nn.Module:
    return nn.Sequential(
        nn.Linear(INPUTS, HIDDEN, bias=bias), _synaptic(random, HIDDEN, **options),
        nn.Linear(HIDDEN, CLASSES, bias=bias), _synaptic(random, CLASSES, **options),
    )  # fmt: skip


def _recurrent(random: Random, name: str, one_to_one: bool, **options: Any) -> nn.Module:
    recurrence: dict[str, Any] = {"all_to_all": True, "linear_features": HIDDEN}
    if one_to_one:
        recurrence = {"all_to_all": False, "V": _each(HIDDEN, -1.0, -0.5, 0.25)(random)}
    decays = [0.5] * (1 + (name == "RSynaptic"))
    rest = {"init_hidden": True, "reset_mechanism": "subtract"} | options
    return nn.Sequential(
        nn.Linear(INPUTS, HIDDEN), getattr(snn, name)(*decays, **recurrence, **rest),
        nn.Linear(HIDDEN, CLASSES), _leaky(random, CLASSES, **options),
    )  # fmt: skip


def _snntorch_conv(random: Random) -> nn.Module:
    channels, height, width = IMAGE
    shape = (3, height, width)
    return nn.Sequential(
        nn.Conv2d(channels, 3, 3, padding=1), _leaky(random, shape, reset_mechanism="zero"),
        nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(3 * (height // 2) * (width // 2), CLASSES),
        _leaky(random, CLASSES, reset_mechanism="zero"),
    )  # fmt: skip


DELAYED = "reset one step late: it subtracts the threshold after the decay"
WITHIN_ONE = "reset in its own step (exact as long as membranes stay below twice the threshold)"


# ---- Norse: no scalar parameters, and no batch axis where a convolution needs a shape ----


def _norse_neuron(kind: str, shape: int | tuple[int, ...], dt: float, **values: float) -> Any:
    parameters = {name: _same(shape, value) for name, value in values.items()}
    cell = getattr(norse, f"{kind}Cell")
    return cell(p=getattr(norse, f"{kind}Parameters")(**parameters), dt=dt)


def _two_boxes(dt: float, gain: float, **values: float) -> Any:
    values = {"tau_mem_inv": gain / dt, "v_leak": 0.0, "v_th": 1.0, "v_reset": 0.0} | values
    return norse.SequentialState(
        nn.Linear(INPUTS, HIDDEN), _norse_neuron("LIFBox", HIDDEN, dt, **values),
        nn.Linear(HIDDEN, CLASSES), _norse_neuron("LIFBox", CLASSES, dt, **values),
    )  # fmt: skip


def _norse_current(random: Random) -> Any:
    rates = {"tau_syn_inv": 250.0, "tau_mem_inv": 500.0}
    rest = {"v_leak": 0.0, "v_th": 1.0, "v_reset": 0.0}
    return norse.SequentialState(
        nn.Linear(INPUTS, HIDDEN), _norse_neuron("LIF", HIDDEN, 1e-3, **rates, **rest),
        nn.Linear(HIDDEN, CLASSES),
        _norse_neuron("LIBox", CLASSES, 1e-3, tau_mem_inv=500.0, v_leak=0.0),
    )  # fmt: skip


def _norse_if() -> Any:
    return norse.SequentialState(
        nn.Linear(INPUTS, HIDDEN), _norse_neuron("IAF", HIDDEN, 1e-3, v_th=1.0, v_reset=0.0),
        nn.Linear(HIDDEN, CLASSES), _norse_neuron("IAF", CLASSES, 1e-3, v_th=1.5, v_reset=0.0),
    )  # fmt: skip


def _norse_conv(random: Random) -> Any:
    channels, height, width = IMAGE
    values = {"tau_mem_inv": 500.0, "v_leak": 0.0, "v_th": 1.0, "v_reset": 0.0}
    first = (3, height, width)
    second = (CLASSES, (height - 3) // 2 + 1, (width - 3) // 2 + 1)
    return norse.SequentialState(
        nn.Conv2d(channels, 3, 3, padding=1), _norse_neuron("LIFBox", first, 1e-3, **values),
        nn.Conv2d(3, CLASSES, 3, stride=2), _norse_neuron("LIFBox", second, 1e-3, **values),
    )  # fmt: skip


# ---- SpikingJelly ----


def _jelly(*neurons: Any, bias: bool = True) -> nn.Module:
    first, second = neurons
    return nn.Sequential(
        sj_layer.Linear(INPUTS, HIDDEN, bias=bias), first,
        sj_layer.Linear(HIDDEN, CLASSES, bias=bias), second,
    )  # fmt: skip


def _jelly_conv(random: Random) -> nn.Module:
    channels, height, width = IMAGE
    return nn.Sequential(
        sj_layer.Conv2d(channels, 3, 3, padding=1, bias=False), sj_neuron.IFNode(),
        sj_layer.AvgPool2d(2), sj_layer.Flatten(),
        sj_layer.Linear(3 * (height // 2) * (width // 2), CLASSES), sj_neuron.LIFNode(2.0),
    )  # fmt: skip


class JellyResidual(nn.Module):
    """A shortcut past one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = sj_layer.Linear(INPUTS, HIDDEN), sj_neuron.LIFNode(2.0)
        self.fc2, self.lif2 = sj_layer.Linear(HIDDEN, HIDDEN), sj_neuron.LIFNode(2.0)
        self.fc3, self.lif3 = sj_layer.Linear(HIDDEN, CLASSES), sj_neuron.LIFNode(4.0)

    def forward(self, x: Tensor) -> Tensor:
        first = self.lif1(self.fc1(x))
        return self.lif3(self.fc3(self.lif2(self.fc2(first) + first)))  # type: ignore[no-any-return]


# ---- sinabs: the Squeeze layers, which leave no time in the shapes ----


def _half_life() -> float:
    """The tau whose float32 decay exp(-1/tau) is 1/2 exactly, in torch and in numpy."""
    tau = np.float32(1 / np.log(2))
    for ulps in (0, 1, -1, 2, -2):
        near = np.float32(tau + ulps * np.spacing(tau))
        in_torch = float(torch.exp(-1.0 / torch.tensor(near)))
        in_numpy = float(np.float32(np.exp(-1 / np.float64(near))))
        if in_torch == in_numpy == 0.5:
            return float(near)
    raise AssertionError("no float32 tau has a decay of one half")


def _sinabs_lif(shape: int, **options: Any) -> Any:
    values = {"norm_input": False} | options
    return sl.LIFSqueeze(
        batch_size=BATCH, tau_mem=_same(shape, _half_life()), spike_threshold=_same(shape, 1.0),
        **values,
    )  # fmt: skip


def _sinabs_if(**options: Any) -> Any:
    return sl.IAFSqueeze(batch_size=BATCH, spike_threshold=torch.tensor(1.0), **options)


def _two_sinabs(first: Any, second: Any) -> nn.Module:
    return nn.Sequential(
        nn.Linear(INPUTS, HIDDEN), first, nn.Linear(HIDDEN, CLASSES, bias=False), second
    )


def _sinabs_conv(random: Random) -> nn.Module:
    channels, height, width = IMAGE
    return nn.Sequential(
        nn.Conv2d(channels, 3, 3, padding=1, bias=False), _sinabs_if(),
        sl.SumPool2d(2), nn.Flatten(),
        nn.Linear(3 * (height // 2) * (width // 2), CLASSES), _sinabs_if(),
    )  # fmt: skip


ONE_SPIKE = "at most one spike in a timestep"
FLOOR = "membranes below min_v_mem = -1 are raised to it after the reset"


# ---- rockpool ----


def _rockpool_lif(shape: int, **options: Any) -> Any:
    return rockpool.LIFTorch(
        shape, leak_mode="decays", alpha=_same(shape, 0.5), beta=_same(shape, 0.5)[:, None],
        dt=1e-3, **options,
    )  # fmt: skip


def _rockpool_tau() -> float:
    """The time constant that rockpool itself gives to a decay of one half."""
    return float(_rockpool_lif(1).tau_mem.detach())


def _two_rockpool(first: Any, second: Any, bias: bool) -> Any:
    return rockpool_combinators.Sequential(
        rockpool.LinearTorch((INPUTS, HIDDEN), has_bias=bias), first,
        rockpool.LinearTorch((HIDDEN, CLASSES), has_bias=bias), second,
    )  # fmt: skip


def _rockpool_synapse() -> Any:
    made = rockpool.ExpSynTorch(CLASSES, tau=_same(CLASSES, _rockpool_tau()), dt=1e-3)
    made.tau.requires_grad_(False)  # its exporter hands the parameter over, which h5py refuses
    return made


Make = Callable[[Random], Net]
KINDS: dict[str, dict[str, Make]] = {
    "snntorch": {
        "leaky-zero": lambda r: Net(_two_leaky(r, reset_mechanism="zero"), "zero"),
        "leaky-subtract": lambda r: Net(_two_leaky(r), "subtract", lost=(DELAYED,)),
        "leaky-subtract-at-once": lambda r: Net(
            _two_leaky(r, reset_delay=False), "subtract", lost=(WITHIN_ONE,)),
        "synaptic-subtract": lambda r: Net(
            _two_synaptic(r, bias=False), "subtract", lost=(DELAYED,)),
        "synaptic-zero-at-once": lambda r: Net(
            _two_synaptic(r, bias=True, reset_mechanism="zero", reset_delay=False), "zero"),
        "rleaky-zero-at-once": lambda r: Net(
            _recurrent(r, "RLeaky", False, reset_mechanism="zero", reset_delay=False), "zero"),
        "rleaky-one-to-one": lambda r: Net(
            _recurrent(r, "RLeaky", True), "subtract", lost=(DELAYED,)),
        "rsynaptic-subtract": lambda r: Net(
            _recurrent(r, "RSynaptic", False), "subtract", lost=(DELAYED,)),
        "conv": lambda r: Net(_snntorch_conv(r), "zero", IMAGE),
    },
    "spikingjelly": {
        "lif": lambda r: Net(_jelly(sj_neuron.LIFNode(2.0), sj_neuron.LIFNode(4.0)), "zero"),
        "lif-to-a-value": lambda r: Net(
            _jelly(sj_neuron.LIFNode(2.0, decay_input=False, v_reset=-0.25),
                   sj_neuron.LIFNode(4.0, v_reset=0.25)), "zero"),
        "if": lambda r: Net(_jelly(sj_neuron.IFNode(), sj_neuron.IFNode(v_reset=-0.5)), "zero"),
        "plif": lambda r: Net(
            _jelly(sj_neuron.ParametricLIFNode(2.0),
                   sj_neuron.ParametricLIFNode(2.0, decay_input=False)), "zero"),
        "cuba": lambda r: Net(
            _jelly(sj_neuron.CUBALIFNode(0.5, 0.75, v_threshold=1.0, v_reset=0.0),
                   sj_neuron.CUBALIFNode(0.75, 0.5, v_threshold=1.0, v_reset=0.0), bias=False),
            "zero"),
        "cuba-with-bias": lambda r: Net(
            _jelly(sj_neuron.CUBALIFNode(0.5, 0.5, v_threshold=1.0, v_reset=0.0),
                   sj_neuron.CUBALIFNode(0.5, 0.5, v_threshold=1.0, v_reset=-0.25)), "zero"),
        "residual": lambda r: Net(JellyResidual(), "zero"),
        "conv": lambda r: Net(_jelly_conv(r), "zero", IMAGE),
    },
    "norse": {
        "box": lambda r: Net(_two_boxes(1e-3, 0.5), "zero", dt=1e-3),
        "box-of-0.1-ms": lambda r: Net(
            _two_boxes(1e-4, 0.25), "zero", dt=1e-4, options={"dt": 1e-4}),
        "box-with-leak": lambda r: Net(
            _two_boxes(1e-3, 0.5, v_leak=0.25, v_th=1.25), "zero", dt=1e-3),
        "box-to-a-value": lambda r: Net(
            _two_boxes(1e-3, 0.5, v_reset=-0.25), "zero", dt=1e-3,
            lost=("v_reset = -0.25, written as 0",)),
        "current": lambda r: Net(
            _norse_current(r), "zero", dt=1e-3,
            lost=("w_in: the input enters the current in full",)),
        "if": lambda r: Net(_norse_if(), "zero", dt=1e-3),
        "conv": lambda r: Net(_norse_conv(r), "zero", IMAGE, dt=1e-3),
    },
    "sinabs": {
        "if": lambda r: Net(_two_sinabs(_sinabs_if(), _sinabs_if()), "subtract", dt=None),
        "if-with-floor": lambda r: Net(
            _two_sinabs(_sinabs_if(min_v_mem=-1.0), _sinabs_if(min_v_mem=-1.0)), "subtract",
            dt=None, lost=(FLOOR,)),
        "lif": lambda r: Net(
            _two_sinabs(_sinabs_lif(HIDDEN), _sinabs_lif(CLASSES)), "subtract", dt=None),
        "lif-of-normed-input": lambda r: Net(
            _two_sinabs(*(_sinabs_lif(n, norm_input=True) for n in (HIDDEN, CLASSES))), "subtract",
            dt=None, dialect="sinabs-norm", lost=("norm_input",)),
        "lif-single-reset": lambda r: Net(
            _two_sinabs(*(_sinabs_lif(n, spike_fn=sinabs_activation.SingleSpike,
                                      reset_fn=sinabs_activation.MembraneReset())
                          for n in (HIDDEN, CLASSES))), "zero", dt=None, lost=(ONE_SPIKE,)),
        "membranes": lambda r: Net(
            _two_sinabs(_sinabs_lif(HIDDEN),
                        sl.ExpLeakSqueeze(batch_size=BATCH, tau_mem=_same(CLASSES, _half_life()))),
            "subtract", dt=None),
        "conv": lambda r: Net(_sinabs_conv(r), "subtract", IMAGE, dt=None),
    },
    "rockpool": {
        "lif": lambda r: Net(
            _two_rockpool(_rockpool_lif(HIDDEN), _rockpool_lif(CLASSES), False), "subtract",
            dt=1e-3),
        "lif-with-bias": lambda r: Net(
            _two_rockpool(_rockpool_lif(HIDDEN), _rockpool_lif(CLASSES), True), "subtract",
            dt=1e-3),
        "no-current": lambda r: Net(
            _two_rockpool(*(rockpool.LIFNeuronTorch(n, tau_mem=_same(n, _rockpool_tau()), dt=1e-3)
                            for n in (HIDDEN, CLASSES)), True), "subtract", dt=1e-3),
        "membranes": lambda r: Net(
            _two_rockpool(_rockpool_lif(HIDDEN), _rockpool_synapse(), False), "subtract",
            dt=1e-3),
    },
}  # fmt: skip
