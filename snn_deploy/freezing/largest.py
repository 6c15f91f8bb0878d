"""The rule of the largest membrane over time: how integrators are read out by their peak."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from snn_deploy.freezing import forms
from snn_deploy.freezing.forms import Form, Pattern
from snn_deploy.freezing.meaning import Meaning, placed
from snn_deploy.freezing.movement import Args, Options
from snn_deploy.freezing.refusal import UnfoldableError
from snn_deploy.freezing.tracing import Trace, Traced, name_of, plain

_NOT_MEMBRANES = UnfoldableError(
    "it takes the largest of several values",
    "pool spikes with nn.MaxPool2d; over time, take it of membranes without reset alone",
)


def largest_over_time(trace: Trace, func: Any, args: Args, options: Options) -> Any:
    """``torch.max(x, dim)`` or ``x.amax(dim)`` of the membranes of one population at timesteps."""
    given: Options = dict(zip(("input", "dim", "keepdim"), args, strict=False)) | options
    x, axis = given["input"], given.get("dim")
    if not isinstance(axis, int) or not isinstance(x, Traced):
        raise _NOT_MEMBRANES
    data = func(*plain(args), **plain(options))
    values = data if isinstance(data, torch.Tensor) else data[0]
    meaning, hidden = _largest(trace, x.meaning, axis)
    labels = meaning.labels.reshape(values.shape)
    found = Traced.of(values, Meaning(labels, meaning.forms, meaning.starts))
    if name_of(func) == "amax":
        return found
    # at which timestep it was is data, which nothing may read
    places = Traced.of(data[1], Meaning(labels, hidden, meaning.starts))
    return torch.return_types.max((found, places))


def _largest(trace: Trace, meaning: Meaning, axis: int) -> tuple[Meaning, tuple[Form, ...]]:
    """One axis less: the largest of each feature, and forms of the same shapes that are hidden."""
    moved = meaning.labels.movedim(axis, -1)
    rows = moved.reshape(-1, moved.shape[-1]).numpy()
    if (rows < 0).any():
        raise _NOT_MEMBRANES
    starts = np.array(meaning.starts)
    which = np.searchsorted(starts, rows, side="right") - 1
    local = rows - starts[which]
    if (local != local[:, :1]).any():  # other places, or other samples
        raise _NOT_MEMBRANES
    distinct, inverse = np.unique(which, axis=0, return_inverse=True)
    made, hidden = [], []
    for row in distinct:
        pattern, times = _membrane([meaning.forms[k] for k in row])
        key = ("largest", id(pattern))

        def peak(pattern: Pattern = pattern) -> Form:
            return forms.alone(replace(pattern, largest=True))

        ((largest, _),) = trace.folding.once(key, peak).terms
        made.append(Form(pattern.shape, {(largest, time): 1.0 for time in times}))
        unread = replace(pattern, hidden=True)
        hidden.append(Form(pattern.shape, {(unread, times[0]): 1.0}))
    return placed(made, inverse.reshape(-1), local[:, 0], moved.shape[:-1]), tuple(hidden)


def _membrane(found: list[Form]) -> tuple[Pattern, list[int]]:
    """The population whose membranes these are, and the timesteps."""
    patterns: list[Pattern] = []
    times: list[int] = []
    for form in found:
        single = form.single()
        if single is None or single[1] is None or single[2] != 1.0:
            raise _NOT_MEMBRANES
        pattern, time = single[0], single[1]
        if not pattern.membrane or pattern.hidden or pattern.largest:
            raise _NOT_MEMBRANES
        patterns.append(pattern)
        times.append(time)
    if any(pattern is not patterns[0] for pattern in patterns) or len(set(times)) != len(times):
        raise _NOT_MEMBRANES
    return patterns[0], times
