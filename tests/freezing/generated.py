"""Random modules as users write them: loops over time or whole sequences, of every piece."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from snn_deploy.graph import InputSpec
from tests.freezing.modules import clif, lif, over_time, run_in

Draw = st.DrawFn
Shape = tuple[int, ...]


class Times(nn.Module):
    """Amplitudes, one or per channel."""

    def __init__(self, factor: Any) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Joined(nn.Module):
    """Channels of several ways from the same spikes."""

    def __init__(self, *ways: nn.Module) -> None:
        super().__init__()
        self.ways = nn.ModuleList(ways)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([way(x) for way in self.ways], dim=1)


class Block(nn.Module):
    """Synapses and neurons, with a shortcut to their currents, or to their spikes (SEW)."""

    def __init__(
        self, synapses: nn.Module, neurons: nn.Module, shortcut: nn.Module | None, sew: bool
    ) -> None:
        super().__init__()
        self.synapses, self.neurons, self.shortcut, self.sew = synapses, neurons, shortcut, sew

    def current(self, x: Tensor, whole: bool) -> Tensor:
        apply = over_time if whole else (lambda module, one: module(one))
        current = apply(self.synapses, x)
        return current if self.shortcut is None else current + apply(self.shortcut, x)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.neurons(self.current(x, True))
        return spikes + x if self.sew else spikes

    def step(self, x: Tensor, state: Any, more: Any = 0) -> tuple[Tensor, Any]:
        spikes, state = self.neurons.step(self.current(x, False) + more, state)
        return (spikes + x if self.sew else spikes), state


class Net(nn.Module):
    """Blocks and a readout; ``back`` feeds spikes of the last block back to it, in a loop."""

    def __init__(
        self,
        blocks: list[Block],
        readout: nn.Module,
        how: str,
        steps: int,
        constant: bool,
        sequence: bool,
        back: nn.Module | None,
    ) -> None:
        super().__init__()
        self.blocks, self.readout, self.back = nn.ModuleList(blocks), readout, back
        self.how, self.steps, self.constant, self.sequence = how, steps, constant, sequence

    def forward(self, x: Tensor) -> Tensor:
        if self.sequence:
            x = x[None].expand(self.steps, *x.shape) if self.constant else x.transpose(0, 1)
            for block in self.blocks:
                x = block(x)
            return self._read(over_time(self.readout, x))
        states: list[Any] = [None] * len(self.blocks)
        before: Any = None
        out = []
        for t in range(self.steps):
            z = x if self.constant else x[:, t]
            for k, block in enumerate(self.blocks):
                more: Any = 0
                if self.back is not None and k == len(self.blocks) - 1 and before is not None:
                    more = self.back(before)
                z, states[k] = block.step(z, states[k], more)
            before = z
            out.append(self.readout(z))
        return self._read(torch.stack(out))

    def _read(self, out: Tensor) -> Tensor:
        if self.how == "last":
            return out[-1]
        return out.mean(0) if self.how == "mean" else out.sum(0)


class Votes(nn.Module):
    """Every class is the mean of some spikes."""

    def __init__(self, group: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool1d(group)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x.flatten(1)[:, None]).squeeze(1)


def _neurons(draw: Draw, shape: Shape, filtered: str) -> nn.Module:
    if filtered == "clif":
        return clif()
    learned = draw(st.sampled_from(("no", "no", "layer", "channel", "neuron")))
    grain: dict[str, Shape] = {"channel": (shape[0], *([1] * (len(shape) - 1))), "neuron": shape}
    dense = len(shape) == 1 and draw(st.integers(0, 4)) == 0
    return lif(
        draw(st.sampled_from((0.3, 0.5, 1.0))),
        draw(st.sampled_from((0.25, 0.5, 0.9))),
        reset=draw(st.sampled_from(("zero", "zero", "subtract"))),
        current_decay=0.6 if filtered == "lif" else 0.0,
        learn_decay=learned != "no",
        learn_threshold=draw(st.booleans()),
        emit=draw(st.sampled_from(("spike", "spike", "threshold"))),
        shape=grain.get(learned, ()),
        recurrent=shape[0] if dense else 0,
    )


def _through(module: nn.Module, shape: Shape) -> Shape:
    module.eval()
    with torch.no_grad():
        found = tuple(module(torch.zeros(1, *shape)).shape[1:])
    module.train()
    return found


def _before(draw: Draw, shape: Shape, first: bool, values: bool) -> list[nn.Module]:
    """What comes between spikes and a convolution."""
    kinds = ["nothing", "nothing", "nothing", "average", "dropout"]
    if not values:
        kinds += ["factor", "joined"]
    if not first and min(shape[1:]) >= 4:
        kinds += ["largest", "overlapping", "factors"]
    kind = draw(st.sampled_from(kinds))
    if kind == "average" and min(shape[1:]) >= 4:
        return [nn.AvgPool2d(draw(st.sampled_from((2, 3))))]
    if kind == "largest":
        return [nn.MaxPool2d(2)]
    if kind == "overlapping":
        return [nn.MaxPool2d(3, 2, padding=1)]
    if kind == "dropout":
        return [nn.Dropout2d(0.3)]
    if kind == "factor":
        return [Times(draw(st.sampled_from((0.5, 0.75, 2.0))))]
    if kind == "factors":
        values_ = torch.linspace(0.5, 1.5, shape[0]).reshape(-1, 1, 1)
        return [Times(values_), nn.AvgPool2d(2)]
    if kind == "joined":
        return [Joined(nn.Identity(), Times(0.5))]
    return []


def _conv_block(draw: Draw, shape: Shape, first: bool, values: bool) -> tuple[Block, Shape]:
    filtered = draw(st.sampled_from(("no", "no", "no", "lif", "clif")))
    filtered = "lif" if values and filtered == "clif" else filtered
    before = _before(draw, shape, first, values)
    seen = _through(nn.Sequential(*before), shape)
    kernel = draw(st.sampled_from((1, 3, 3))) if min(seen[1:]) >= 3 else 1
    stride = draw(st.sampled_from((1, 1, 2)))
    groups = seen[0] if draw(st.integers(0, 5)) == 0 else 1
    channels = seen[0] * 2 if groups > 1 else draw(st.integers(2, 5))
    conv = nn.Conv2d(
        seen[0], channels, kernel, stride, kernel // 2, bias=draw(st.booleans()),
        groups=groups,
    )  # fmt: skip
    after: list[nn.Module] = [conv]
    if draw(st.integers(0, 3)) > 0:
        after.append(nn.BatchNorm2d(channels))
    target = _through(nn.Sequential(*before, *after), shape)
    if min(target[1:]) >= 4 and draw(st.integers(0, 5)) == 0:
        after.append(nn.AvgPool2d(2))
        target = _through(nn.Sequential(*before, *after), shape)
    shortcut = None if first else _shortcut(draw, shape, target)
    neurons = _neurons(draw, target, filtered)
    sew = not first and target == shape and draw(st.booleans())
    return Block(nn.Sequential(*before, *after), neurons, shortcut, sew), target


def _shortcut(draw: Draw, shape: Shape, target: Shape) -> nn.Module | None:
    if draw(st.booleans()):
        return None
    if shape == target:
        return nn.Identity()
    for stride in (1, 2):
        way = nn.Sequential(
            nn.Conv2d(shape[0], target[0], 1, stride, bias=False), nn.BatchNorm2d(target[0])
        )
        if _through(way, shape) == target:
            return way
    return None


def _dense_block(draw: Draw, shape: Shape, values: bool) -> tuple[Block, Shape]:
    filtered = draw(st.sampled_from(("no", "no", "no", "lif", "clif")))
    filtered = "lif" if values and filtered == "clif" else filtered
    size = draw(st.integers(4, 9))
    features = int(torch.Size(shape).numel())
    layers: list[nn.Module] = [nn.Flatten()] if len(shape) > 1 else []
    layers.append(nn.Linear(features, size, bias=draw(st.booleans())))
    if draw(st.booleans()):
        layers.append(nn.BatchNorm1d(size))
    neurons = _neurons(draw, (size,), filtered)
    return Block(nn.Sequential(*layers), neurons, None, False), (size,)


@st.composite
def user_modules(draw: Draw) -> tuple[nn.Module, InputSpec, int]:
    """A module in evaluation with batch statistics run in, its input, and its timesteps."""
    steps = draw(st.integers(1, 5))
    constant = draw(st.booleans())
    shape: Shape = (draw(st.integers(3, 6)),)
    if draw(st.integers(0, 3)) > 0:
        shape = (draw(st.integers(1, 3)), draw(st.integers(5, 8)), draw(st.integers(5, 8)))
    spec = InputSpec(
        name="input", kind="constant" if constant else "spikes", shape=shape,
        low=-1.0 if constant else 0.0,
    )  # fmt: skip
    torch.manual_seed(0)  # initial weights, replaced below
    blocks: list[Block] = []
    if len(shape) == 3:
        for k in range(draw(st.integers(1, 3))):
            block, shape = _conv_block(draw, shape, k == 0, constant and k == 0)
            blocks.append(block)
    for _ in range(draw(st.integers(1 if not blocks else 0, 2))):
        block, shape = _dense_block(draw, shape, constant and not blocks)
        blocks.append(block)
    features = int(torch.Size(shape).numel())
    readout: nn.Module = nn.Sequential(nn.Flatten(), nn.Linear(features, 3))
    kind = draw(st.sampled_from(("linear", "linear", "votes", "counts")))
    last = blocks[-1]
    if kind == "votes":
        readout = Votes(max(1, features // 3))
    elif kind == "counts":
        readout = nn.Flatten()
    how = draw(st.sampled_from(("mean", "sum", "last") if kind == "linear" else ("mean", "sum")))
    sequence = draw(st.booleans())
    back = None
    if not sequence and len(shape) == 1 and draw(st.booleans()):
        free = isinstance(last.synapses[-1], nn.Linear) and last.synapses[-1].bias is None
        back = nn.Linear(features, features, bias=False) if free or not last.sew else None
    net = Net(blocks, readout, how, steps, constant, sequence, back)
    return run_in(net, spec, steps, draw(st.integers(0, 2**16))), spec, steps
