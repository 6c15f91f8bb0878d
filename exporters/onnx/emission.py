"""Operators as they are written down: what depends on the timestep, and what is worked out once.

Values are named ``PLACE/WHAT``; networks have no ``/`` in their names, so that nothing collides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper
from snn_deploy.exporters.onnx.stored import Stored

INT64 = TensorProto.INT64
INT32 = TensorProto.INT32
UINT8 = TensorProto.UINT8


class Emitter:
    """Collects operators. An operator is one of ``once`` where all that it depends on is fixed."""

    def __init__(self) -> None:
        self.once: list[NodeProto] = []
        self.step: list[NodeProto] = []
        self.stored = Stored()
        self.varying: set[str] = set()
        self._taken: dict[str, int] = {}

    def add(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Add an operator; returns the name of its output, which has a number where need be."""
        count = self._taken.get(name, 0)
        self._taken[name] = count + 1
        output = f"{name}_{count}" if count else name
        made = helper.make_node(kind, inputs, [output], name=output, **attributes)
        if self.varying.isdisjoint(inputs):
            self.once.append(made)
        else:
            self.varying.add(output)
            self.step.append(made)
        return output

    def constant(self, value: int | tuple[int, ...], kind: int = INT64) -> str:
        """A constant, or a short list of them. Integers of 64 bits turn over."""
        array = np.asarray(value, object)
        if kind == INT64:
            array = np.asarray((array + (1 << 63)) % (1 << 64) - (1 << 63), object)
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        text = str(array.tolist()).replace(" ", "")
        return self.stored.tensor(f"constant/{dtype.name}_{text}", array.astype(dtype))

    def cast(self, value: str, kind: int, name: str) -> str:
        """The same integers in another type."""
        return self.add("Cast", [value], name, to=kind)

    def scaled(self, value: str, factor: int, name: str) -> str:
        """A multiple of an int64 value."""
        return value if factor == 1 else self.add("Mul", [value, self.constant(factor)], name)

    def reshaped(self, value: str, shape: tuple[int, ...], name: str) -> str:
        """Another shape behind the batch axis."""
        return self.add("Reshape", [value, self.constant((0, *shape))], name)

    def total(self, values: list[str], name: str) -> str:
        """The sum of one or more values."""
        found = values[0]
        for value in values[1:]:
            found = self.add("Add", [found, value], name)
        return found
