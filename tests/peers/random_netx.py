"""Random netx files as strangers write them: every layer, parameter and quirk that Lava runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.netx_files import conv, dense, neuron, write_netx
from tests.helpers.numbers import Array


@dataclass(frozen=True)
class Case:
    """A file, what it is fed, and how it is run."""

    path: Path
    key: str  # "spikes" or "bias"
    fed: Array
    steps: int
    reset_interval: int | None
    reset_offset: int
    input_bits: int
    input_shape: tuple[int, int, int] | None  # C, H, W, where the file does not say

    def job(self, folder: Path) -> dict[str, Any]:
        """What the runner is asked to do."""
        given, output = (self.path.with_suffix(s) for s in (".in.npz", ".out.npz"))
        np.savez(given, **{self.key: self.fed})
        job: dict[str, Any] = {
            "net": self.path,
            "input": given,
            "output": output,
            "steps": self.steps,
            "input_message_bits": self.input_bits,
        }
        if self.reset_interval is not None:
            job |= {"reset_interval": self.reset_interval, "reset_offset": self.reset_offset}
        if self.input_shape is not None:
            job["input_shape"] = self.input_shape[::-1]
        return job


class Builder:
    """Draws one file."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.layers: list[dict[str, Any]] = []

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def one_of(self, *choices: Any) -> Any:
        return choices[self.rng.integers(len(choices))]

    def weights(self, shape: tuple[int, ...]) -> Array:
        """Both signs, one sign, odd, powers of two, beyond the range, with fractions, sparse."""
        low, high = self.one_of(
            (-64, 64), (-64, 64), (-20, 30), (-256, 255), (0, 200), (-200, 0), (-400, 400)
        )
        weight = self.rng.integers(low, high + 1, shape).astype(np.float64)
        if self.chance(0.15):
            weight = np.sign(weight) * 2.0 ** self.rng.integers(0, 9, shape)
        if self.chance(0.2):
            weight *= self.rng.random(shape) < 0.5
        if self.chance(0.15):
            weight += 0.9 * self.rng.random(shape) * np.sign(weight)
        if not np.trunc(weight).any():  # netx fails on nothing but zeros
            weight.flat[0] = 3
        if weight.max() <= 0 < np.abs(weight).max():  # what Lava keeps a fraction of is refused
            weight.flat[0] = 1
        return weight.astype(self.one_of(np.float32, np.float64, np.int32))

    def parameters(self, size: int) -> dict[str, Any]:
        def spread(low: int, high: int) -> Any:
            if self.chance(0.25):
                return self.rng.integers(low, high + 1, size)
            return int(self.rng.integers(low, high + 1))

        current = self.one_of(4096, 4096, spread(0, 4096), spread(0, 500))
        membrane = self.one_of(0, 4096, spread(0, 4096), spread(0, 500))
        threshold = self.one_of(spread(1, 300), spread(1, 300), spread(-5, 5), spread(0, 2000))
        return neuron(current_decay=current, membrane_decay=membrane, threshold=threshold)

    def bias(self, shape: tuple[int, ...]) -> dict[str, Any]:
        if not self.chance(0.4):
            return {}
        extent = self.one_of(20, 20, 100, 40000)
        size = shape[:1]
        if len(shape) == 3 and self.chance(0.5) and shape[::-1] != shape[:1]:
            size = shape[::-1]
        elif len(shape) == 1 and self.chance(0.2):
            size = (1,)
        return {"bias": self.rng.integers(-extent, extent + 1, size)}

    def add_conv(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        channels = shape[0]
        groups = self.one_of(*[g for g in (1, 1, 2, 3) if channels % g == 0])
        out = groups * int(self.rng.integers(1, 4))
        kernel, stride, padding, dilation = [], [], [], []
        for size in shape[1:]:
            pad, spread = int(self.rng.integers(0, 3)), int(self.rng.integers(1, 3))
            most = (size + 2 * pad - 1) // spread + 1
            kernel.append(int(self.rng.integers(1, min(3, most) + 1)))
            stride.append(int(self.rng.integers(1, 3)))
            padding.append(pad)
            dilation.append(spread)
        weight = self.weights((out, channels // groups, *kernel))
        if self.chance(0.1):  # convolutions are not clipped
            weight = weight * 3000
        made = conv(
            weight, shape[1:], stride=stride, padding=padding, dilation=dilation, groups=groups
        )
        if self.chance(0.2):
            made["weight"] = weight[..., None]
        result = tuple(int(n) for n in made["shape"])
        self.layers.append(made | {"neuron": self.parameters(out)} | self.bias(result))
        return result[0], result[1], result[2]

    def add_dense(self, size: int, *, last: bool) -> int:
        out = int(self.rng.integers(1, 9))
        weight = self.weights((out, size))
        layer = dense(weight.reshape(-1) if self.chance(0.15) else weight, shape=(out,))
        layer["neuron"] = self.parameters(out)
        if last and self.chance(0.3):
            del layer["neuron"]
        elif self.chance(0.25):
            layer |= {"type": "dense_rec", "weight_rec": self.weights((out, out))}
            layer["weight"] = weight
        elif self.chance(0.4):
            scale = self.one_of(4, 4, 70)
            shape = self.one_of((), (out,), (size,), (out, size))
            layer["delay"] = self.rng.random(shape) * scale
        self.layers.append(layer | self.bias((out,)))
        return out

    def case(self, folder: Path, name: str) -> Case:
        steps = int(self.rng.integers(8, 30))
        image = (int(self.rng.integers(1, 4)), *(int(n) for n in self.rng.integers(3, 8, 2)))
        shape: tuple[int, ...] = self.one_of(image, image, (int(self.rng.integers(2, 20)),))
        key, bits = self.one_of(("spikes", 0), ("spikes", 0), ("spikes", 8), ("bias", 0))
        input_shape = None
        if key == "bias":
            given = {"type": "input", "shape": shape, "neuron": self.parameters(shape[0])}
            self.layers.append(given | self.one_of({}, {"weight": [76], "bias": [64]}))
        elif len(shape) == 3:
            if self.chance(0.5):
                self.layers.append({"type": "input", "shape": shape})
            else:
                input_shape = shape
        before: tuple[int, ...] = shape
        depth = int(self.rng.integers(1, 4))
        for index in range(depth):
            if len(before) == 3 and self.chance(0.7):
                before = self.add_conv((before[0], before[1], before[2]))
                if self.chance(0.15) and index < depth - 1:
                    self.layers.append({"type": "flatten"})  # waits for the next dense layer
                    before = (int(np.prod(before)),)
            else:
                first = all(layer["type"] == "input" and "neuron" not in layer
                            for layer in self.layers)  # fmt: skip
                if len(before) == 3 and not first:
                    self.layers.append({"type": "flatten"})
                if first:
                    shape, input_shape = (int(np.prod(shape)),), None
                before = (self.add_dense(int(np.prod(before)), last=index == depth - 1),)
        if key == "bias":
            fed = self.rng.integers(-300, 300, (1, *shape))
        elif bits:
            fed = self.rng.integers(-255, 256, (steps - 2, *shape))
            fed *= self.rng.random(fed.shape) < 0.4
        else:
            fed = (self.rng.random((steps - 2, *shape)) < self.one_of(0.1, 0.4, 0.8)).astype(int)
        interval = None if self.chance(0.4) else int(self.rng.integers(2, 9))
        return Case(
            path=write_netx(folder / f"{name}.net", self.layers),
            key=key,
            fed=fed,
            steps=steps,
            reset_interval=interval,
            reset_offset=int(self.rng.integers(0, 4)),
            input_bits=bits,
            input_shape=None if input_shape is None else (*input_shape,),  # type: ignore[arg-type]
        )
