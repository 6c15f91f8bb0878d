"""The papers' architectures as data: ``[model] name = "resnet18"`` in a recipe.

Each function returns the ``layers`` of an architecture. Where the sources differ or are silent, the
docstring says what was taken; ASGL, LSG and Dspike are the papers of that name, TET is Deng et al.
2022. Convolutions are 3x3 with padding 1 and without bias, each with batch normalisation and LIF
behind it, unless something else is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Layers = list[dict[str, Any]]

_LIF: dict[str, Any] = {"type": "lif"}
_POOL: dict[str, Any] = {"type": "avgpool", "kernel": 2}
_FLATTEN: dict[str, Any] = {"type": "flatten"}


def _batchnorm(norm: str, alpha: float = 1.0) -> dict[str, Any]:
    return {"type": "batchnorm", "kind": norm, "alpha": alpha if norm == "td" else 1.0}


def _conv(channels: int, norm: str, stride: int = 1) -> Layers:
    """Convolution, batch normalisation and neurons."""
    conv = {"type": "conv", "channels": channels, "kernel": 3, "stride": stride, "padding": 1}
    return [conv, _batchnorm(norm), _LIF]


def _linear(features: int, bias: bool = True) -> dict[str, Any]:
    return {"type": "linear", "features": features, "bias": bias}


def _vgg(plan: list[int | str], head: Layers, norm: str) -> Layers:
    """Convolutions of so many channels, with pools ("AP") between them."""
    layers: Layers = []
    for entry in plan:
        layers += [_POOL] if isinstance(entry, str) else _conv(entry, norm)
    return [*layers, *head]


# tdBN gives both ways of a residual block half of the variance.
_BRANCH = 1 / math.sqrt(2)


def _block(channels: int, stride: int, shortcut: str, norm: str) -> Layers:
    """A basic block of two convolutions; its shortcut is identity, ``strided`` or ``pooled``."""
    way: Layers = []
    if shortcut == "strided":
        way = [{"type": "conv", "channels": channels, "kernel": 1, "stride": stride}]
    elif shortcut == "pooled":
        way = [_POOL] * (stride == 2) + [{"type": "conv", "channels": channels, "kernel": 1}]
    if way:
        way = [*way, _batchnorm(norm, _BRANCH)]
    second = {"type": "conv", "channels": channels, "kernel": 3, "padding": 1}
    layers = [*_conv(channels, norm, stride), second, _batchnorm(norm, _BRANCH)]
    return [{"type": "residual", "layers": layers, "shortcut": way}, _LIF]


def _resnet(
    stem: Layers, stages: list[tuple[int, int, int]], last: int, shortcut: str, norm: str
) -> Layers:
    """Stages of (channels, blocks, stride of the first block) behind a stem."""
    layers = list(stem)
    before: int = stem[-3]["channels"]
    for channels, blocks, first in stages:
        for number in range(blocks):
            stride = first if number == 0 else 1
            changes = stride != 1 or channels != before
            layers += _block(channels, stride, shortcut if changes else "identity", norm)
            before = channels
    return [*layers, {"type": "avgpool", "kernel": last}, _FLATTEN]


def cifarnet(classes: int = 10, norm: str = "plain") -> Layers:
    """128, 256, AP, 512, AP, 1024, 512, then 1024 and 512 features (Wu et al. 2019); 32x32x3.

    The papers behind this project do not give the head; this is the one of the net's own paper,
    with a linear readout in place of voting.
    """
    head = [_FLATTEN, _linear(1024), _LIF, _linear(512), _LIF, _linear(classes)]
    return _vgg([128, 256, "AP", 512, "AP", 1024, 512], head, norm)


def resnet18(classes: int = 10, norm: str = "plain") -> Layers:
    """The released code's ResNet-18, the net of ASGL's logs; 32x32x3, 555.42 M MAC.

    3x3 stem of 64; 64, 128, 256, 512 channels, two basic blocks each, strides 1, 2, 2, 2; identity
    shortcuts, or 1x1 convolution of stride 2 with batch normalisation.
    """
    stages = [(64, 2, 1), (128, 2, 2), (256, 2, 2), (512, 2, 2)]
    return [*_resnet(_conv(64, norm), stages, 4, "strided", norm), _linear(classes)]


def resnet18_stem3(classes: int = 10, norm: str = "td") -> Layers:
    """Dspike's "modified ResNet-18": a stem of three convolutions; 32x32x3, 187.37 M MAC.

    The paper prints neither widths nor strides of the stem; 64, 64, 64 with stride 2 in the third
    match its 187 M MAC. Shortcuts are average pooling and 1x1 convolution.
    """
    stem = [*_conv(64, norm), *_conv(64, norm), *_conv(64, norm, stride=2)]
    stages = [(64, 2, 1), (128, 2, 2), (256, 2, 2), (512, 2, 2)]
    return [*_resnet(stem, stages, 2, "pooled", norm), _linear(classes)]


def resnet19(classes: int = 10, norm: str = "td", stem: int = 128) -> Layers:
    """TdBN's ResNet-19; 32x32x3, 2285.37 M MAC (2216.5 with TET's stem of 64).

    Stem of 128; 128 x 3, 256 x 3, 512 x 2 basic blocks, strides 1, 2, 2; 1x1 convolution shortcuts;
    global pooling, 256 features, readout without bias.
    """
    stages = [(128, 3, 1), (256, 3, 2), (512, 2, 2)]
    body = _resnet(_conv(stem, norm), stages, 8, "strided", norm)
    return [*body, _linear(256, bias=False), _LIF, _linear(classes, bias=False)]


def resnet19_stem64(classes: int = 10, norm: str = "td") -> Layers:
    """:func:`resnet19` with the stem of TET's code."""
    return resnet19(classes, norm, stem=64)


def vggsnn(classes: int = 10, norm: str = "plain") -> Layers:
    """VGGSNN (TET, and the released code's VGGSNN2): 48x48x2 events, FC 4608-10."""
    plan: list[int | str] = [64, 128, "AP", 256, 256, "AP", 512, 512, "AP", 512, 512, "AP"]
    return _vgg(plan, [_FLATTEN, _linear(classes)], norm)


def vgg13(classes: int = 10, norm: str = "plain") -> Layers:
    """The released code's VGG-13: 32x32x3, global pooling, one linear layer."""
    plan: list[int | str] = [64, 64, "AP", 128, 128, "AP", 256, 256, "AP", 512, 512, 512, "AP", 512]
    head = [_POOL, _FLATTEN, _linear(classes)]
    return _vgg(plan, head, norm)


def _wide_head(classes: int) -> Layers:
    return [_FLATTEN, _linear(4096), _LIF, _linear(4096), _LIF, _linear(classes)]


def vgg16(classes: int = 10, norm: str = "plain") -> Layers:
    """VGG-16 with four pools and the head 2048-4096-4096; 32x32x3."""
    plan: list[int | str] = [64, 64, "AP", 128, 128, "AP", *[256] * 3, "AP", *[512] * 3, "AP"]
    return _vgg([*plan, *[512] * 3], _wide_head(classes), norm)


def vgg19(classes: int = 10, norm: str = "plain") -> Layers:
    """VGG-19 with four pools and the head 2048-4096-4096; 32x32x3."""
    plan: list[int | str] = [64, 64, "AP", 128, 128, "AP", *[256] * 4, "AP", *[512] * 4, "AP"]
    return _vgg([*plan, *[512] * 4], _wide_head(classes), norm)


def shd(classes: int = 20, norm: str = "plain") -> Layers:
    """700-240-20, the hidden layer recurrent (240x240), no biases: 230,400 weights."""
    del norm
    hidden = {"type": "lif", "recurrent": True}
    return [_linear(240, bias=False), hidden, _linear(classes, bias=False)]


def medlydb(classes: int = 10, norm: str = "plain") -> Layers:
    """384-700-10 of C-LIF neurons, no biases: 275,800 weights."""
    del norm
    return [_linear(700, bias=False), {"type": "clif"}, _linear(classes, bias=False)]


def gesture(classes: int = 11, norm: str = "plain") -> Layers:
    """DVS-Gesture's net of eight layers: MP4-64C3-128C3-AP2-128C3-AP2-256FC-11 on 128x128x2.

    ASGL gives no list; this is He et al. 2020's, which counts pools as layers. The first pooling is
    the reader's (``[data] scale = 4``), the input here is 32x32x2.
    """
    body = [*_conv(64, norm), *_conv(128, norm), _POOL, *_conv(128, norm), _POOL]
    return [*body, _FLATTEN, _linear(256), _LIF, _linear(classes)]


def autoencoder(classes: int = 784, norm: str = "plain") -> Layers:
    """784-128-64-32-64-128-784 on 28x28x1, no biases: 221,184 weights (ASGL, section 5.3).

    Encoding, readout and loss are unstated: here direct current, mean current, mean squared error.
    """
    del norm
    layers: Layers = [_FLATTEN]
    for features in (128, 64, 32, 64, 128):
        layers += [_linear(features, bias=False), _LIF]
    return [*layers, _linear(classes, bias=False)]


ZOO: dict[str, Callable[..., Layers]] = {
    "cifarnet": cifarnet,
    "resnet18": resnet18,
    "resnet18-stem3": resnet18_stem3,
    "resnet19": resnet19,
    "resnet19-stem64": resnet19_stem64,
    "vggsnn": vggsnn,
    "vgg13": vgg13,
    "vgg16": vgg16,
    "vgg19": vgg19,
    "shd": shd,
    "medlydb": medlydb,
    "gesture": gesture,
    "autoencoder": autoencoder,
}
