"""Graphs whose input is pooled: any window before dense synapses, any convolution behind it."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from snn_deploy.graph import Graph, Population, Projection
from snn_deploy.numerics import NumberFormat
from snn_deploy.packets import Recording
from snn_deploy.synapses import Conv2d, Dense, Pair, SumPool, Synapses
from tests.helpers.graphs import Case
from tests.helpers.nets import lif, spike_input

STEPS = 3


@st.composite
def pooled_cases(draw: st.DrawFn, form: NumberFormat) -> Case:
    """An image that is pooled on the way to a population, and what it is fed.

    Before a convolution the windows neither overlap nor leave a rest, as folding asks for.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def pair(least: int, most: int) -> Pair:
        return draw(st.integers(least, most)), draw(st.integers(least, most))

    groups = draw(st.integers(1, 3))
    channels = groups * draw(st.integers(1, 2))
    window, seen = pair(1, 3), pair(1, 5)
    most = 30  # so that sums of overlapping windows stay on the chip's grid
    synapses: Synapses
    if draw(st.booleans()):
        stride = pair(1, 4)
        rest = (draw(st.integers(0, stride[0] - 1)), draw(st.integers(0, stride[1] - 1)))
        outputs = draw(st.integers(1, 4))
        weight = rng.integers(-most, most, (outputs, channels * seen[0] * seen[1]))
        synapses = Dense(2 * weight)
        shape: tuple[int, ...] = (outputs,)
    else:
        stride, rest = window, (0, 0)
        padding, dilation, step = pair(0, 2), pair(1, 2), pair(1, 3)
        widest = [(n + 2 * p - 1) // d + 1 for n, p, d in zip(seen, padding, dilation, strict=True)]
        kernel = [draw(st.integers(1, min(3, k))) for k in widest]
        outputs = groups * draw(st.integers(1, 2))
        weight = rng.integers(-most, most, (outputs, channels // groups, *kernel))
        synapses = Conv2d(2 * weight, step, padding, dilation, groups)
        shape = synapses.target_shape((channels, *seen))
    weight = synapses.weight.reshape(-1)  # a view
    weight[0], weight[-1] = 2, -2 if weight.size > 1 else 2  # both signs, as netx keeps them
    height, width = (
        (n - 1) * s + k + r for n, s, k, r in zip(seen, stride, window, rest, strict=True)
    )
    neurons = lif(decay=draw(st.sampled_from((0, 3000))), threshold=draw(st.integers(0, 60)))
    graph = Graph(
        inputs=(spike_input(channels, height, width),),
        populations=(Population(name="p", shape=shape, neurons=neurons, scale=1.0),),
        projections=(
            Projection(source="in", target="p", synapses=synapses, pool=SumPool(window, stride)),
        ),
        outputs=("p",),
        timesteps=STEPS,
        number_format=form,
    )
    density = draw(st.sampled_from((0.1, 0.5, 1.0)))
    spikes = rng.random((2, STEPS, channels, height, width)) < density
    return Case(graph, Recording(spikes={"": spikes.astype(np.uint8)}), STEPS)
