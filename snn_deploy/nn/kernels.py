"""Compiled recurrences: one pass over memory forward, one backward, for all timesteps of a block.

The plain statement is :func:`snn_deploy.nn.recurrence.plain`; tests hold both together. Sequences
are [T, B, M]: M neurons, of which each task takes a block small enough for its state to stay in the
first-level cache; the innermost loops run over neurons, so that the compiler vectorises them (for
which exp, tanh and arctan are written out here, and a division by zero is no exception). Parameters
are floats, or arrays [M]. Kernels are built per combination of rules, compiled at first use and
kept on disk.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from snn_deploy.nn.noise import MULTIPLIER_1, MULTIPLIER_2

BLOCK = 1024

_CLIP, _TRIANGULAR, _SIGMOID, _TANH, _ARCTAN, _DSPIKE = range(6)
_M1, _M2 = np.uint32(MULTIPLIER_1), np.uint32(MULTIPLIER_2)


def _at(parameter: Any, index: int) -> Any:
    """A parameter of one neuron."""
    raise NotImplementedError


@overload(_at, inline="always")
def _at_overload(parameter: Any, index: int) -> Any:
    def of_array(parameter: Any, index: int) -> Any:
        return parameter[index]

    def of_all(parameter: Any, index: int) -> Any:
        return parameter

    return of_array if isinstance(parameter, types.Array) else of_all


@njit(inline="always")
def _mix(word: Any) -> Any:
    word ^= word >> np.uint32(16)
    word = np.uint32(word * _M1)
    word ^= word >> np.uint32(15)
    word = np.uint32(word * _M2)
    word ^= word >> np.uint32(16)
    return word


def _constants(number: Any) -> tuple[Any, ...]:
    """Constants of the elementary functions in the precision of a number, as numba types it.

    Its type, the integer of its size, bits of the mantissa, bias of the exponent, the least
    argument whose exponential is normal, 1.5 * 2^mantissa, 1 / ln 2, ln 2 in two parts of which
    multiples of the first are exact, and coefficients, highest power first: of
    (exp(r) - 1 - r) / r^2, by Taylor, and of arctan(sqrt(w)) / sqrt(w).
    """
    single = number == types.float32
    real: Any = np.float32 if single else np.float64
    whole: Any = np.int32 if single else np.int64
    mantissa, bias, least = (23, 127, -87.0) if single else (52, 1023, -708.0)
    log2 = (0.693359375, -2.12194440e-4) if single else (0.6931471803691238, 1.9082149292705877e-10)
    taylor = (1 / math.factorial(k) for k in range(7 if single else 13, 1, -1))
    arctan = _ARCTAN_SINGLE if single else _ARCTAN_DOUBLE
    numbers = (real(x) for x in (least, 1.5 * 2**mantissa, 1 / math.log(2), *log2))
    polynomials = (tuple(real(x) for x in one) for one in (taylor, arctan))
    return real, whole, whole(mantissa), whole(bias), *numbers, *polynomials


# Interpolated at the nodes of Chebyshev on [0, tan(pi/8)^2]; relative errors 7e-10 and 2e-18.
_ARCTAN_SINGLE = (
    -0.060251340577938475, 0.10569374852754466, -0.14239471786265404, 0.19998179755664824,
    -0.33333306832133325, 1.0,
)  # fmt: skip
_ARCTAN_DOUBLE = (
    -0.01777836122978856, 0.03793880034690282, -0.0503398315502301, 0.058466104640076795,
    -0.06662911996321502, 0.07692041527500194, -0.09090896575778991, 0.11111110736007936,
    -0.14285714279052536, 0.1999999999993869, -0.33333333333333115, 1.0,
)  # fmt: skip


@njit
def _polynomial(z: Any, coefficients: Any) -> Any:
    value = coefficients[0]
    for k in range(1, len(coefficients)):
        value = value * z + coefficients[k]
    return value


def _powers(z: Any) -> Any:
    """For z <= 0: a power of two, and what is missing from it to exp(z)."""
    raise NotImplementedError


@overload(_powers, inline="always")
def _powers_overload(z: Any) -> Any:
    real, whole, mantissa, bias, least, magic, per_log2, high, low, taylor, _ = _constants(z)

    def of_number(z: Any) -> Any:
        bounded = max(z, least)
        shifted = real(bounded * per_log2 + magic)  # leaves no bits after the point ...
        n = shifted - magic
        r = (bounded - n * high) - n * low
        # ... so that its last bits are n, and become the exponent of 2**n
        scale = whole(whole(shifted.view(whole) + bias) << mantissa).view(real)
        return scale, scale * (r + r * r * _polynomial(r, taylor))

    return of_number


@njit(inline="always")
def _exp(z: Any) -> Any:
    """exp(z) for z <= 0."""
    scale, rest = _powers(z)
    return scale + rest


@njit(inline="always")
def _tanh(z: Any, one: Any) -> Any:
    scale, rest = _powers(-(one + one) * abs(z))
    e = rest + (scale - one)  # exp(-2 |z|) - 1, to the last bits near 0 too
    magnitude = -e / (one + one + e)
    return magnitude if z >= one - one else -magnitude


def _arctan(z: Any) -> Any:
    raise NotImplementedError


@overload(_arctan, inline="always")
def _arctan_overload(z: Any) -> Any:
    real, *_, coefficients = _constants(z)
    one, zero = real(1), real(0)
    first, second = real(math.sqrt(2) - 1), real(math.sqrt(2) + 1)  # tan of pi/8 and 3 pi/8
    eighth, quarter = real(math.pi / 4), real(math.pi / 2)

    def of_number(z: Any) -> Any:
        a = abs(z)
        # arctan(a) = pi/4 + arctan((a - 1) / (a + 1)) = pi/2 + arctan(-1 / a)
        up, down, start = a, one, zero
        if a > first:
            up, down, start = a - one, a + one, eighth
        if a > second:
            up, down, start = -one, a, quarter
        x = up / down
        value = start + x * _polynomial(x * x, coefficients)
        return value if z >= zero else -value

    return of_number


@njit(inline="always")
def _height(kind: int, x: Any, width: Any, one: Any) -> Any:
    """H(x); see :mod:`snn_deploy.nn.smooth`."""
    half = one / (one + one)
    z = x / width
    if kind == _CLIP:
        return min(max(z + half, one - one), one)
    if kind == _TRIANGULAR:
        z = min(max(z, -one), one)
        return half + z - half * z * abs(z)
    if kind == _SIGMOID:
        # the form that does not overflow on either side
        e = _exp(-abs(z))
        return (one if z >= one - one else e) / (one + e)
    if kind == _TANH:
        return half * _tanh(z, one) + half
    if kind == _ARCTAN:
        return _arctan(z * (math.pi * half)) / (one * math.pi) + half
    z = min(max(x, -half), half)
    return _tanh(z / width, one) / ((one + one) * _tanh(half / width, one)) + half


@njit(inline="always")
def _slopes(kind: int, x: Any, width: Any, one: Any) -> Any:
    """dH/dx and dH/dwidth."""
    zero, two = one - one, one + one
    half = one / two
    inverse = one / width
    z = x * inverse
    if kind == _DSPIKE:
        inside = abs(x) <= half
        edge, here = _tanh(half * inverse, one), _tanh(z, one)
        sharp = (one - here * here) / (two * edge)
        slope = sharp * inverse if inside else zero
        # divided one after the other: the square of a small edge is 0 in float32
        by_temperature = x * sharp - here / edge * (one - edge * edge) / (two * two * edge)
        return slope, -by_temperature * inverse * inverse if inside else zero
    if kind == _CLIP:
        # the same sum as in H, so that edges fall alike
        place = x / width + half
        relative = one if zero <= place <= one else zero
    elif kind == _TRIANGULAR:
        relative = max(zero, one - abs(z))
    elif kind == _SIGMOID:
        e = _exp(-abs(z))
        relative = e / ((one + e) * (one + e))
    elif kind == _TANH:
        e = _exp(-two * abs(z))
        relative = two * e / ((one + e) * (one + e))
    else:
        scaled = z * (math.pi * half)
        relative = half / (one + scaled * scaled)
    slope = relative * inverse
    return slope, -z * slope


@cache
def forward_kernel(kind: int, noisy: bool, shared: bool, soft: bool, filtered: bool) -> Any:
    """The forward recurrence of one combination of rules.

    noisy: elements take the spike with a probability, else H; shared: one mask for all timesteps;
    soft: reset by subtraction; filtered: the synaptic current has a memory.
    """

    @njit(cache=True, nogil=True, error_model="numpy")
    def forward(
        first: int,  # blocks of this task: first..last
        last: int,
        steps: int,
        at: int,  # timestep of the first row
        c: Any,  # [T, B, M], or [1, B, M] where it is the same at all timesteps
        v: Any,  # [B, M], membrane after the reset, before and after these steps
        i: Any,  # [B, M], synaptic current, as v
        u: Any,  # [T, B, M] out: membrane before the reset
        s: Any,  # [T, B, M] out: what is emitted
        currents: Any,  # [T, B, M] out: synaptic current, if filtered
        theta: Any,
        decay: Any,
        alpha: Any,
        amount: Any,
        width: Any,
        below: Any,
        key0: Any,
        key1: Any,
    ) -> None:
        one = c.dtype.type(1)
        zero = c.dtype.type(0)
        samples, neurons = v.shape
        for block in range(first, last):
            start = block * BLOCK
            n = min(BLOCK, neurons - start)
            for b in range(samples):
                vb, ib = v[b, start : start + n], i[b, start : start + n]
                for t in range(steps):
                    cb = c[t if c.shape[0] > 1 else 0, b, start : start + n]
                    ub, sb = u[t, b, start : start + n], s[t, b, start : start + n]
                    step = np.uint32(0) if shared else np.uint32(at + t)
                    at_step = _mix(np.uint32(step ^ key0))
                    base = np.uint32(b * neurons + start)
                    if filtered:
                        kept = currents[t, b, start : start + n]
                        for k in range(n):
                            ib[k] = _at(alpha, start + k) * ib[k] + cb[k]
                            kept[k] = ib[k]
                        cb = ib
                    for k in range(n):
                        membrane = _at(decay, start + k) * vb[k] + cb[k]
                        x = membrane - _at(theta, start + k)
                        emitted = one if x >= zero else zero
                        if noisy:
                            smooth = _height(kind, x, _at(width, start + k), one)
                            word = np.uint32(base + np.uint32(k))
                            word = _mix(np.uint32(_mix(np.uint32(word ^ at_step)) ^ key1))
                            emitted = emitted if word < below else smooth
                        ub[k] = membrane
                        sb[k] = emitted
                        if soft:
                            vb[k] = membrane - _at(amount, start + k) * emitted
                        else:
                            vb[k] = membrane * (one - emitted)

    return forward


@cache
def backward_kernel(
    kind: int, soft: bool, filtered: bool, constant: bool, by_width: bool, by_rest: bool
) -> Any:
    """The backward recurrence of one combination of rules.

    constant: one current for all timesteps, its gradient is the sum over them; by_width, by_rest:
    whether gradients by the width, and by threshold, decays and reset amount, are wanted.
    """

    @njit(cache=True, nogil=True, error_model="numpy")
    def backward(
        first: int,
        last: int,
        steps: int,
        gs: Any,  # [T, B, M], gradient by what is emitted
        u: Any,
        s: Any,
        v0: Any,  # [B, M], state before the first step
        i0: Any,
        currents: Any,
        gv: Any,  # [B, M], gradient by the state after the last step; out: before the first
        gi: Any,
        gc: Any,  # [T or 1, B, M] out
        sums: Any,  # float64 [5, M or blocks] out: by theta, decay, alpha, amount, width
        per_neuron: bool,
        theta: Any,
        decay: Any,
        alpha: Any,
        amount: Any,
        width: Any,
    ) -> None:
        one = u.dtype.type(1)
        samples, neurons = v0.shape
        local = np.zeros((5, BLOCK), u.dtype)
        total_c = np.zeros(BLOCK, u.dtype)
        for block in range(first, last):
            start = block * BLOCK
            n = min(BLOCK, neurons - start)
            for b in range(samples):
                gvb, gib = gv[b, start : start + n], gi[b, start : start + n]
                if by_width or by_rest:
                    local[:] = u.dtype.type(0)
                if constant:
                    total_c[:] = u.dtype.type(0)
                for t in range(steps - 1, -1, -1):
                    gcb = gc[0 if constant else t, b, start : start + n]
                    gsb = gs[t, b, start : start + n]
                    ub, sb = u[t, b, start : start + n], s[t, b, start : start + n]
                    # the state before this step, as far as it is needed
                    earlier = max(t - 1, 0)
                    u1, s1 = u[earlier, b, start : start + n], s[earlier, b, start : start + n]
                    v1 = v0[b, start : start + n]
                    i1 = i0[b, start : start + n]
                    if filtered and t > 0:
                        i1 = currents[t - 1, b, start : start + n]
                    for k in range(n):
                        m = start + k
                        x = ub[k] - _at(theta, m)
                        slope, by_w = _slopes(kind, x, _at(width, m), one)
                        if soft:
                            emitted = gsb[k] - gvb[k] * _at(amount, m)
                            membrane = gvb[k] + emitted * slope
                        else:
                            emitted = gsb[k] - gvb[k] * ub[k]
                            membrane = gvb[k] * (one - sb[k]) + emitted * slope
                        current = membrane + gib[k] if filtered else membrane
                        if by_width:
                            local[4, k] += emitted * by_w
                        if by_rest:
                            local[0, k] -= emitted * slope
                            before = v1[k]
                            if t > 0:
                                if soft:
                                    before = u1[k] - _at(amount, m) * s1[k]
                                else:
                                    before = u1[k] * (one - s1[k])
                            local[1, k] += membrane * before
                            if filtered:
                                local[2, k] += current * i1[k]
                            if soft:
                                local[3, k] -= gvb[k] * sb[k]
                        if constant:
                            total_c[k] += current
                        else:
                            gcb[k] = current
                        if filtered:
                            gib[k] = _at(alpha, m) * current
                        gvb[k] = _at(decay, m) * membrane
                if constant:
                    gc[0, b, start : start + n] = total_c[:n]
                for which in range(5):
                    wanted = by_width if which == 4 else by_rest
                    if wanted and per_neuron:
                        for k in range(n):
                            sums[which, start + k] += local[which, k]
                    elif wanted:
                        half = BLOCK  # halves fold onto each other, which vectorises
                        while half > 8:
                            half //= 2
                            for k in range(half):
                                local[which, k] += local[which, half + k]
                        total = 0.0
                        for k in range(8):
                            total += local[which, k]
                        sums[which, block] += total

    return backward
