"""netx files: what Lava rejects, waits for for ever or misreads is refused, the rest is reproduced.

What Lava does with each of these files was tried with lava-nc 0.10.0 and lava-dl 0.6.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from snn_deploy.exporters import Opened
from snn_deploy.exporters.lava.reader import read, simulator_format
from snn_deploy.exporters.nir.metadata import to_data

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import LIF
from snn_deploy.packets import Recording
from snn_deploy.sim import simulate
from snn_deploy.synapses import Conv2d, Dense
from tests.helpers.netx_files import conv, dense, neuron, neurons_only, write_netx
from tests.helpers.numbers import Array

Layer = Mapping[str, Any]

WEIGHT = np.array([[4, -2], [6, -8], [1, 3]])  # 2 inputs, 3 neurons
RECURRENT = np.array([[2, 0, -2], [4, -6, 0], [0, 8, 2]])
IMAGE: dict[str, Any] = {"type": "input", "shape": (2, 4, 5)}
KERNEL = np.arange(-12, 12).reshape(3, 2, 2, 2)  # of (2, 4, 5) it makes (3, 3, 4)
FLATTEN = {"type": "flatten"}


def dense_layer(**more: Any) -> dict[str, Any]:
    return dense(WEIGHT) | more


def recurrent_layer(**more: Any) -> dict[str, Any]:
    return dense(WEIGHT, type="dense_rec", weight_rec=RECURRENT) | more


def conv_layer(**more: Any) -> dict[str, Any]:
    return conv(KERNEL, (4, 5)) | more


def without(layer: Layer, *names: str) -> dict[str, Any]:
    return {name: value for name, value in layer.items() if name not in names}


def opened(folder: Path, *layers: Layer, **options: Any) -> Opened:
    return read(write_netx(folder / "a.net", layers), **options)


def neurons_of(found: Opened, name: str = "0") -> LIF:
    neurons = found.graph.population(name).neurons
    assert isinstance(neurons, LIF)
    return neurons


# --- refused --------------------------------------------------------------------------------------


def images(**more: Any) -> list[Layer]:
    """A convolution over images."""
    return [IMAGE, conv_layer(**more)]


REFUSED: dict[str, tuple[list[Layer], str, str, str]] = {
    # layers -> code, where (behind the file's name), telling part of message and reason
    "no layers": ([], "SD401", "", "no layers"),
    "no neuron at all": ([IMAGE, FLATTEN], "SD204", "", "creates a neuron"),
    "type unknown": ([dense_layer(), {"type": "spam"}], "SD204", "layer 1", "'spam'"),
    "type unknown, first": ([{"type": "Dense"}], "SD204", "layer 0", "'Dense'"),
    "type missing": ([without(dense_layer(), "type")], "SD401", "layer 0", "without `type`"),
    "type a number": ([dense_layer(type=3)], "SD401", "layer 0", "without `type`"),
    "complex dense": ([{"type": "dense_comp"}], "SD204", "layer 0", "'dense_comp'"),
    "complex weights": (
        [dense_layer(weight={"real": WEIGHT, "imag": WEIGHT})],
        "SD204", "layer 0 (dense)", "complex",
    ),
    "second input": ([dense_layer(), IMAGE], "SD204", "layer 1 (input)", "connects nothing"),
    # shapes
    "dense without shape": (
        [without(dense_layer(), "shape")], "SD401", "layer 0 (dense)", "`shape` is missing",
    ),
    "conv without shape": (
        [IMAGE, without(conv_layer(), "shape")], "SD401", "layer 1 (conv)", "`shape` is missing",
    ),
    "neurons without shape": (
        [without(neurons_only((2,)), "shape")], "SD401", "layer 0 (input)", "`shape` is missing",
    ),
    "shape of two axes": ([dense_layer(shape=(3, 1))], "SD204", "layer 0 (dense)", "[3, 1]"),
    "shape of none": ([dense_layer(shape=3)], "SD204", "layer 0 (dense)", "shape of 3"),
    "shape of floats": ([dense_layer(shape=(3.0,))], "SD204", "layer 0 (dense)", "[3.0]"),
    "shape of nothing": ([dense_layer(shape=(0,))], "SD401", "layer 0 (dense)", "[0]"),
    "shape below nothing": ([neurons_only((-2,))], "SD401", "layer 0 (input)", "[-2]"),
    "shape of a giant": (
        [neurons_only((1, 1 << 20, 1 << 20))], "SD402", "layer 0 (input)", "67108864 neurons",
    ),
    "shape that turns over in 64 bits": (
        [dense(np.arange(-3, 3), shape=(1 << 32, 1 << 32, 1))],
        "SD402", "layer 0 (dense)", "67108864 neurons",
    ),
    "shape not the weights'": ([dense_layer(shape=(2,))], "SD204", "layer 0 (dense)", "2 neurons"),
    "shape not the convolution's": (
        images(shape=(3, 4, 5)), "SD204", "layer 1 (conv)", "not the convolution's (3, 3, 4)",
    ),
    "shape in x, y, z order": (
        images(shape=(4, 3, 3)), "SD204", "layer 1 (conv)", "not the convolution's (3, 3, 4)",
    ),
    # dense weights
    "dense without weight": (
        [without(dense_layer(), "weight")], "SD401", "layer 0 (dense)", "`weight` is missing",
    ),
    "dense without recurrent weight": (
        [without(recurrent_layer(), "weight_rec")],
        "SD401", "layer 0 (dense_rec)", "`weight_rec` is missing",
    ),
    "weights of five axes": (
        [dense_layer(weight=WEIGHT[..., None, None, None])],
        "SD204", "layer 0 (dense)", "(3, 2, 1, 1, 1)",
    ),
    "weights in a row that do not divide": (
        [dense_layer(weight=np.arange(-3, 4))], "SD204", "layer 0 (dense)", "(7,)",
    ),
    "no weights": ([dense_layer(weight=np.zeros((3, 0)))], "SD401", "layer 0 (dense)", "empty"),
    "weights of text": (
        [dense_layer(weight="spam")], "SD401", "layer 0 (dense)", "holds no numbers",
    ),
    "weights not finite": (
        [dense_layer(weight=np.where(WEIGHT > 4, np.nan, WEIGHT))],
        "SD403", "layer 0 (dense)", "`weight`",
    ),
    "weights beyond 32 bits": (
        [dense_layer(weight=np.where(WEIGHT > 4, -(1 << 63), WEIGHT))],
        "SD204", "layer 0 (dense)", "32 bits",
    ),
    "weights all zero": (
        [dense_layer(weight=0 * WEIGHT)], "SD204", "layer 0 (dense)", "all weights are zero",
    ),
    "weights cut to zero": (
        [dense_layer(weight=WEIGHT / 10)], "SD204", "layer 0 (dense)", "all weights are zero",
    ),
    "weights of which a fraction is kept": (
        [dense([[0, -64, -1]])], "SD204", "layer 0 (dense)", "fraction",
    ),
    "recurrent weights not square": (
        [recurrent_layer(weight_rec=RECURRENT[:, :2])],
        "SD204", "layer 0 (dense_rec)", "(3, 2) are not square",
    ),
    "recurrent weights of too few rows": (
        [recurrent_layer(weight_rec=RECURRENT[:2])],
        "SD204", "layer 0 (dense_rec)", "`weight_rec` of shape (2, 3)",
    ),
    "weights for another layer before": (
        [dense_layer(), dense_layer()], "SD204", "layer 1 (dense)", "(3, 2) do not fit the (3,)",
    ),
    # flatten
    "no flatten behind a map": (
        [*images(), dense(np.tile([[2, -2]], (2, 18)))],
        "SD204", "layer 2 (dense)", "without `flatten`",
    ),
    "flatten behind a vector": (
        [dense_layer(), FLATTEN, dense([[2, -2, 4]])], "SD204", "layer 2 (dense)", "three axes",
    ),
    "flatten behind a vector of biases": (
        [neurons_only((2,)), FLATTEN, dense_layer()], "SD204", "layer 2 (dense)", "three axes",
    ),
    # convolutions
    "conv without weight": (
        [IMAGE, without(conv_layer(), "weight")], "SD401", "layer 1 (conv)", "`weight` is missing",
    ),
    "conv without neuron": (
        [IMAGE, without(conv_layer(), "neuron")], "SD401", "layer 1 (conv)", "`neuron` is missing",
    ),
    "conv weights of three axes": (
        images(weight=KERNEL[..., 0]), "SD204", "layer 1 (conv)", "(3, 2, 2)",
    ),
    "conv weights of one axis": (
        images(weight=KERNEL.reshape(-1)),
        "SD204",
        "layer 1 (conv)",
        "(24,)",
    ),
    "conv kernel beyond 8 bits": (
        [IMAGE | {"shape": (1, 128, 1)}, conv(np.full((1, 1, 128, 1), 2), (128, 1))],
        "SD204",
        "layer 1 (conv)",
        "a kernel of (128, 1)",
    ),
    "conv sums beyond 32 bits": (
        [IMAGE | {"shape": (1, 1, 2)}, conv(np.array([[[[1 << 30, -(1 << 30)]]]]), (1, 2))],
        "SD204",
        "layer 1 (conv)",
        "sums of up to 2147483648",
    ),
    "conv weights of five axes": (
        images(weight=np.stack([KERNEL] * 2, -1)), "SD204", "layer 1 (conv)", "(3, 2, 2, 2, 2)",
    ),
    "conv weights beyond 32 bits": (
        images(weight=KERNEL << 30), "SD204", "layer 1 (conv)", "32 bits",
    ),
    "conv over too few channels": (
        [IMAGE | {"shape": (1, 4, 5)}, conv_layer()],
        "SD204", "layer 1 (conv)", "do not fit a source of shape (1, 4, 5)",
    ),
    "conv wider than its image": (
        [IMAGE | {"shape": (2, 1, 5)}, conv_layer()],
        "SD204", "layer 1 (conv)", "does not fit a source of shape (2, 1, 5)",
    ),
    "conv over a vector": ([dense_layer(), conv_layer()], "SD204", "layer 1 (conv)", "a vector"),
    "conv over an input without axes": (
        [{"type": "input", "shape": (40,)}, conv_layer()], "SD204", "layer 1 (conv)", "a vector",
    ),
    "conv first, without input": (
        [conv_layer()], "SD103", "layer 0 (conv)", "--input-shape C,H,W",
    ),
    "stride of nothing": (images(stride=(0, 1)), "SD401", "layer 1 (conv)", "stride of 0"),
    "dilation of nothing": (images(dilation=(1, 0)), "SD401", "layer 1 (conv)", "dilation of 0"),
    "padding below nothing": (images(padding=(0, -1)), "SD204", "layer 1 (conv)", "[0, -1]"),
    "groups of none": (images(groups=0), "SD204", "layer 1 (conv)", "0 groups"),
    "groups as an array": (images(groups=[1]), "SD204", "layer 1 (conv)", "fails on arrays"),
    "groups as a float": (images(groups=1.0), "SD204", "layer 1 (conv)", "one plain integer"),
    "groups beyond 8 bits": (
        [IMAGE | {"shape": (128, 1, 1)}, conv(np.full((128, 1, 1, 1), 2), (1, 1), groups=128)],
        "SD204", "layer 1 (conv)", "128 groups",
    ),
    # biases
    "conv biases (C, 1, 1)": (
        images(bias=np.ones((3, 1, 1))), "SD204", "layer 1 (conv)", "(3, 1, 1) do not fit",
    ),
    "conv biases (C, 1, 1), as wide as deep": (
        [IMAGE, conv_layer(padding=(0, 0), stride=(1, 2), shape=(3, 3, 2)),
         conv(np.ones((2, 3, 1, 1)), (3, 2), bias=np.ones((2, 1, 1)))],
        "SD204", "layer 2 (conv)", "(2, 1, 1) do not fit",
    ),
    "conv biases in C, H, W order": (
        images(bias=np.ones((3, 3, 4))), "SD204", "layer 1 (conv)", "W, H, C order",
    ),
    "conv bias as one number": (images(bias=3), "SD204", "layer 1 (conv)", "() do not fit"),
    "conv biases too few": (images(bias=[1, 2]), "SD204", "layer 1 (conv)", "(2,) do not fit"),
    "dense biases too many": (
        [dense_layer(bias=[1, 2, 3, 4])], "SD204", "layer 0 (dense)", "(4,) do not fit (3,)",
    ),
    "dense biases of two axes": (
        [dense_layer(bias=np.ones((3, 1)))], "SD204", "layer 0 (dense)", "(3, 1) do not fit",
    ),
    "no biases": ([dense_layer(bias=np.zeros(0))], "SD401", "layer 0 (dense)", "`bias` is empty"),
    "biases not finite": (
        [dense_layer(bias=[1, np.inf, 2])], "SD403", "layer 0 (dense)", "`bias` holds NaN",
    ),
    "input's weight not one number": (
        [neurons_only((2,)) | {"weight": [1, 2]}], "SD204", "layer 0 (input)", "one number",
    ),
    # delays
    "recurrent layer with delays": (
        [recurrent_layer(delay=2)], "SD204", "layer 0 (dense_rec)", "delays on a recurrent layer",
    ),
    "delays below nothing": (
        [dense_layer(delay=[2, -1, 0])], "SD204", "layer 0 (dense)", "negative",
    ),
    "no delays": ([dense_layer(delay=np.zeros(0))], "SD204", "layer 0 (dense)", "missing"),
    "delays too many": (
        [dense_layer(delay=[1, 2, 3, 4])], "SD204", "layer 0 (dense)", "(4,) do not fit",
    ),
    "delays of another matrix": (
        [dense_layer(delay=WEIGHT.T * 0 + 1)], "SD204", "layer 0 (dense)", "(2, 3) do not fit",
    ),
    "delays as a column": (
        [dense_layer(delay=np.ones((3, 1)))], "SD204", "layer 0 (dense)", "(3, 1) do not fit",
    ),
}  # fmt: skip

for _name in ("pool", "average", "concat", "convT", "unpool"):
    REFUSED[f"{_name}, which netx has not"] = (
        [dense_layer(), {"type": _name, "shape": (3,)}],
        "SD204",
        f"layer 1 ({_name})",
        "does not implement",
    )
for _name in ("stride", "padding", "dilation", "groups"):
    REFUSED[f"conv without {_name}"] = (
        [IMAGE, without(conv_layer(), _name)],
        "SD401",
        "layer 1 (conv)",
        f"`{_name}` is missing",
    )
for _name in ("stride", "padding", "dilation"):
    for _what, _value in {
        "of one axis": [1],
        "of three axes": [1, 1, 1],
        "of floats": [1.0, 1.0],
        "beyond 8 bits": [1, 128],
    }.items():
        REFUSED[f"{_name} {_what}"] = (
            [IMAGE, conv_layer() | {_name: _value}],
            "SD204",
            "layer 1 (conv)",
            f"`{_name}`",
        )

# Parameters of neurons, of a dense layer of three -> telling part of the message.
NEURONS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no type": (without(neuron(), "type"), "SD204", "type 'no name'"),
    "messageBits": (neuron(messageBits=8), "SD204", "messageBits"),
    "threshold of 2^25": (neuron(threshold=1 << 25), "SD204", "beyond 26 bits"),
    "threshold below -2^25": (neuron(threshold=-(1 << 25) - 1), "SD204", "beyond 26 bits"),
    "one of three thresholds of 2^25": (
        neuron(threshold=np.array([1, 2, 1 << 25])), "SD204", "beyond 26 bits",
    ),
    "iDecay of 0, unsigned": (neuron(current_decay=np.uint16(0)), "SD204", "turns over"),
    "thresholds that overflow in 16 bits": (
        neuron(threshold=np.array([512, 1, 1], np.int16)), "SD204", "512 of type int16",
    ),
    "thresholds that overflow in 8 bits": (
        neuron(threshold=np.array([4], np.uint8)), "SD204", "4 of type uint8",
    ),
}  # fmt: skip
for _type in ("SDNN", "RF", "RF_PHASE", "cuba", "", "\x1b[31m"):
    NEURONS[f"type {_type!r}"] = (neuron(type=_type), "SD204", f"{_type!r}")
for _name in ("iDecay", "vDecay", "vThMant"):
    NEURONS[f"no {_name}"] = (without(neuron(), _name), "SD401", f"`neuron/{_name}` is missing")
    for _what, _value in {
        "a float": 100.0,
        "an array of floats": np.full(3, 100, np.float32),
        "of 64 bits without sign": np.uint64(100),
        "true or false": np.bool_(True),
    }.items():
        NEURONS[f"{_name} {_what}"] = (neuron(**{_name: _value}), "SD204", "for ever")
    for _what, _value in {
        "for two of three": np.array([1, 2]),
        "of two axes": np.array([[1], [2], [3]]),
        "of nothing": np.zeros(0, int),
    }.items():
        NEURONS[f"{_name} {_what}"] = (neuron(**{_name: _value}), "SD204", f"`{_name}` of shape")
for _name in ("iDecay", "vDecay"):
    for _number in (-1, 4097, 5000):
        NEURONS[f"{_name} {_number}"] = (neuron(**{_name: _number}), "SD204", "0 to 4096 is sound")
    NEURONS[f"one of three {_name} 4097"] = (
        neuron(**{_name: np.array([4096, 4097, 0])}),
        "SD204",
        "0 to 4096 is sound",
    )
for _what, (_parameters, _code, _text) in NEURONS.items():
    REFUSED[f"neuron: {_what}"] = (
        [dense_layer(neuron=_parameters)],
        _code,
        "layer 0 (dense)",
        _text,
    )
REFUSED["input neuron of type SDNN"] = (
    [{"type": "input", "shape": (2,), "neuron": neuron(type="SDNN")}],
    "SD204",
    "layer 0 (input)",
    "'SDNN'",
)
REFUSED["conv parameters per neuron of a map"] = (
    images(neuron=neuron(threshold=np.ones((3, 3, 4), int))),
    "SD204",
    "layer 1 (conv)",
    "`vThMant` of shape (3, 3, 4)",
)
REFUSED["conv neuron of type RF"] = (
    images(neuron=neuron(type="RF")),
    "SD204",
    "layer 1 (conv)",
    "'RF'",
)


def check_refused(path: Path, code: str, place: str, text: str, **options: Any) -> None:
    """One error: its code, the file and layer, and what is told of message, reason and remedy."""
    with pytest.raises(SnnDeployError) as caught:
        read(path, **options)
    error = caught.value
    assert error.code == code
    assert error.where == f"{path}{': ' if place else ''}{place}"
    assert text in f"{error.message} {error.why} {error.fix}"
    assert "\x1b" not in str(error)


@pytest.mark.parametrize("what", REFUSED)
def test_what_lava_would_not_run_as_written_is_refused(what: str, tmp_path: Path) -> None:
    layers, code, place, text = REFUSED[what]
    check_refused(write_netx(tmp_path / "a.net", layers), code, place, text)


Edit = Callable[[h5py.File], object]

# What becomes of a good file -> code, and what is told.
EDITS: dict[str, tuple[Edit, str, str]] = {
    "a dataset among the layers": (lambda f: f.__setitem__("layer/note", 3), "SD204", "'note'"),
    "a group among the layers": (
        lambda f: f.__setitem__("layer/note/type", b"dense"), "SD204", "not numbered 0 to 1",
    ),
    "an empty group among the layers": (
        lambda f: f.create_group("layer/note"), "SD204", "no layer: 'note'",
    ),
    "a type among the layers": (
        lambda f: f.__setitem__("layer/note", np.dtype("f8")), "SD204", "no layer: 'note'",
    ),
    "an empty last layer": (lambda f: f.create_group("layer/1"), "SD204", "no layer: '1'"),
    "a gap": (lambda f: f.copy("layer/0", "layer/2"), "SD204", "['0', '2']"),
    "not from 0": (lambda f: f.move("layer/0", "layer/1"), "SD204", "not numbered 0 to 0"),
    "numbers with zeros": (lambda f: f.move("layer/0", "layer/00"), "SD204", "['00']"),
    "no layers": (lambda f: f.move("layer", "layers"), "SD401", "no group 'layer'"),
    "layers that are data": (
        lambda f: (f.move("layer", "old"), f.__setitem__("layer", [1, 2])), "SD401", "not a group",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", EDITS)
def test_members_that_confuse_netx_are_refused(what: str, tmp_path: Path) -> None:
    edit, code, text = EDITS[what]
    path = write_netx(tmp_path / "a.net", [dense_layer()])
    with h5py.File(path, "r+") as file:
        edit(file)
    check_refused(path, code, "", text)


@pytest.mark.parametrize(
    ("edit", "code", "text"),
    [
        (lambda layer: layer.create_group("neuron"), "SD204", "'no name'"),
        (lambda layer: layer.__setitem__("neuron", 3), "SD204", "'no name'"),
        (lambda layer: layer.create_group("delay"), "SD401", "`delay` holds no numbers"),
        (lambda layer: layer.__setitem__("bias", h5py.Empty("f4")), "SD401", "`bias` holds no"),
        (lambda layer: layer.__setitem__("bias", [1j, 2, 3]), "SD401", "`bias` holds no numbers"),
        (lambda layer: layer.__setitem__("neuron/type", [b"CUBA"] * 2), "SD204", "'no name'"),
    ],
)
def test_members_of_the_wrong_kind_are_refused(
    edit: Callable[[h5py.Group], object], code: str, text: str, tmp_path: Path
) -> None:
    path = write_netx(tmp_path / "a.net", [without(dense_layer(), "neuron")])
    with h5py.File(path, "r+") as file:
        edit(file["layer/0"])
    check_refused(path, code, "layer 0 (dense)", text)


@pytest.mark.parametrize(
    ("layers", "options", "code", "text"),
    [
        ([dense_layer()], {"input_bits": -1}, "SD104", "0 to 31, not -1"),
        ([dense_layer()], {"input_bits": 32}, "SD104", "0 to 31, not 32"),
        ([neurons_only((2,))], {"input_bits": 8}, "SD104", "driven by biases"),
        ([dense([[1, -1]], delay=1)], {"input_bits": 24}, "SD204", "graded input through delays"),
        ([conv_layer()], {"input_shape": (40,)}, "SD204", "a vector of 40"),
        ([conv_layer()], {"input_shape": (3, 4, 5)}, "SD204", "source of shape (3, 4, 5)"),
        (images(), {"input_shape": (2, 5, 4)}, "SD104", "(2, 4, 5), not (2, 5, 4)"),
        ([dense_layer()], {"input_shape": (2, 1, 1)}, "SD104", "(2,), not (2, 1, 1)"),
        ([neurons_only((2,))], {"input_shape": (3,)}, "SD104", "(2,), not (3,)"),
    ],
)
def test_options_that_do_not_fit(
    layers: list[Layer], options: dict[str, Any], code: str, text: str, tmp_path: Path
) -> None:
    path = write_netx(tmp_path / "a.net", layers)
    with pytest.raises(SnnDeployError) as caught:
        read(path, **options)
    assert caught.value.code == code
    assert text in f"{caught.value.message} {caught.value.why}"


# --- read: dense layers ---------------------------------------------------------------------------


def test_a_dense_layer(tmp_path: Path) -> None:
    parameters = neuron(current_decay=1096, membrane_decay=96, threshold=70)
    found = opened(tmp_path, dense_layer(bias=[5, -6, 7], neuron=parameters))
    graph, neurons = found.graph, neurons_of(found)
    assert found.notes == ()
    (spec,) = graph.inputs
    assert (spec.name, spec.kind, spec.shape) == ("input", "spikes", (2,))
    assert [(p.name, p.shape, p.scale) for p in graph.populations] == [("0", (3,), 1.0)]
    assert [(p.name, p.delay, p.exponent, p.sum_bits) for p in graph.projections] == [
        ("input->0", 0, 0, None)
    ]
    assert graph.projections[0].synapses.weight.tolist() == WEIGHT.tolist()
    # what is kept of 4096, not what is lost
    assert neurons.current_decay is not None
    assert (int(neurons.current_decay), int(neurons.decay)) == (3000, 4000)
    assert int(neurons.threshold) == 70
    assert neurons.bias.tolist() == [5, -6, 7]
    assert (graph.outputs, graph.timesteps, neurons.readout) == (("0",), None, None)
    assert graph.number_format == simulator_format()


def test_the_arithmetic_is_loihis_without_its_limits() -> None:
    form = simulator_format()
    assert (form.comparator, form.fraction_bits, form.membrane_bits) == (">", 6, 24)
    assert (form.decay_bits, form.decay_rule) == (12, "multiply_truncate")
    assert (form.current_overflow, form.membrane_overflow) == ("wrap_once", "saturate")
    assert (form.word_bits, form.hop_delay, form.delay_max) == (32, 1, 62)
    assert (form.weight_min, form.weight_max, form.weight_step) == (-(1 << 31), (1 << 31) - 1, 1)
    assert not form.threshold_per_population


def test_parameters_per_neuron(tmp_path: Path) -> None:
    parameters = neuron(
        current_decay=np.array([4096, 0, 1]),
        membrane_decay=np.array([0, 4096, 96]),
        threshold=np.array([-5, 0, (1 << 25) - 1]),
    )
    neurons = neurons_of(opened(tmp_path, dense_layer(neuron=parameters)))
    assert neurons.current_decay is not None
    assert neurons.current_decay.tolist() == [0, 4096, 4095]
    assert neurons.decay.tolist() == [4096, 0, 4000]
    assert neurons.threshold.tolist() == [-5, 0, (1 << 25) - 1]


def test_parameters_in_arrays_of_one(tmp_path: Path) -> None:
    parameters = neuron(
        current_decay=np.array([1096]), membrane_decay=np.array([96]), threshold=np.array([70])
    )
    neurons = neurons_of(opened(tmp_path, dense_layer(neuron=parameters, bias=[9])))
    assert neurons.current_decay is not None
    for value, expected in (
        (neurons.current_decay, 3000),
        (neurons.decay, 4000),
        (neurons.threshold, 70),
        (neurons.bias, 9),
    ):
        assert (value.shape, int(value)) == ((), expected)


def test_one_number_as_bias_of_a_vector(tmp_path: Path) -> None:
    bias = neurons_of(opened(tmp_path, dense_layer(bias=-9))).bias
    assert (bias.shape, int(bias)) == ((), -9)


def test_an_idecay_of_4096_is_no_memory(tmp_path: Path) -> None:
    assert neurons_of(opened(tmp_path, dense_layer())).current_decay is None


def test_the_default_neuron_integrates_its_current_and_never_fires(tmp_path: Path) -> None:
    found = opened(tmp_path, without(dense_layer(bias=[1, 0, 0]), "neuron"))
    assert found.notes[0].startswith("layer 0 (dense): a threshold out of reach")
    neurons = neurons_of(found)
    assert neurons.current_decay is not None
    assert (int(neurons.current_decay), int(neurons.decay)) == (4096, 0)
    assert int(neurons.threshold) == 131072  # 1 << 18 - 1
    trace = simulate(found.graph, Recording(spikes={"": np.ones((1, 3, 2), int)}), trace=True)
    steps = np.arange(1, 4)[:, None]
    np.testing.assert_array_equal(trace.current["0"][0], 64 * steps * [2, -2, 4])
    # the bias is added to each membrane, and not kept
    np.testing.assert_array_equal(trace.membrane["0"][0], 64 * (steps * [2, -2, 4] + [1, 0, 0]))
    assert not trace.spikes["0"].any()


@pytest.mark.parametrize("threshold", [(1 << 17) - 1, np.array([1 << 17, 1 << 20, 1 << 24])])
def test_a_threshold_out_of_reach_is_read_out_by_membranes(threshold: Any, tmp_path: Path) -> None:
    found = opened(tmp_path, dense_layer(neuron=neuron(threshold=threshold)), FLATTEN)
    assert neurons_of(found).readout == "last"
    assert found.notes == (
        "layer 0 (dense): a threshold out of reach: decisions are read from the membranes after "
        "the last timestep",
    )


def test_a_threshold_in_reach_is_read_out_by_spikes(tmp_path: Path) -> None:
    threshold = np.array([(1 << 17) - 2, 1 << 17, 1 << 17])
    last = dense_layer(neuron=neuron(threshold=threshold))
    hidden = dense(WEIGHT.T @ WEIGHT, neuron=neuron(threshold=1 << 17))
    found = opened(tmp_path, hidden, last)
    assert (neurons_of(found, "0").readout, neurons_of(found, "1").readout) == (None, None)
    assert found.notes == ()


def test_weights_in_one_row(tmp_path: Path) -> None:
    found = opened(tmp_path, dense(WEIGHT.reshape(-1), shape=(3,)))
    assert found.graph.projections[0].synapses.weight.tolist() == WEIGHT.tolist()


def test_fractions_of_weights_are_cut_toward_zero(tmp_path: Path) -> None:
    found = opened(tmp_path, dense([[253.9999, -3.5, 0.9]], bias=[-7.8]))
    assert found.graph.projections[0].synapses.weight.tolist() == [[253, -3, 0]]
    assert int(neurons_of(found).bias) == -7
    assert len(found.notes) == 1
    assert "3 of 3 weights act differently" in found.notes[0]


@pytest.mark.parametrize(
    ("weight", "acts", "note"),
    [
        ([[400, -2]], [[254, -2]], "1 of 2 weights act differently: 400 acts as 254"),
        ([[2, -300]], [[2, -256]], "1 of 2 weights act differently: -300 acts as -256"),
        ([[-64, -2]], [[-62, -2]], "1 of 2 weights act differently: -64 acts as -62"),
        ([[-16, -8]], [[-8, -8]], "1 of 2 weights act differently: -16 acts as -8"),
        ([[-256, -256]], [[0, 0]], "2 of 2 weights act differently: -256 acts as 0"),
        ([[300, 0]], [[0, 0]], "1 of 2 weights act differently: 300 acts as 0"),
    ],
)
def test_weights_that_act_otherwise_are_told(
    weight: list[list[int]], acts: list[list[int]], note: str, tmp_path: Path
) -> None:
    found = opened(tmp_path, dense(weight))
    assert found.graph.projections[0].synapses.weight.tolist() == acts
    assert found.notes == (f"layer 0 (dense): {note}",)


def test_biases_wrap_in_16_bits(tmp_path: Path) -> None:
    found = opened(tmp_path, dense_layer(bias=[32767, 32768, -40000]))
    assert neurons_of(found).bias.tolist() == [32767, -32768, 25536]
    assert found.notes == ("layer 0 (dense): 2 biases wrap around in Lava's 16 bits",)


@pytest.mark.parametrize(
    ("weight", "delay", "expected"),
    [
        (WEIGHT, 3, 3),
        (WEIGHT, 2.9, 2),
        (WEIGHT, [0, 1, 2], [[0], [1], [2]]),  # three neurons
        (WEIGHT, [4, 5], [[4, 5]]),  # two inputs
        (WEIGHT, [[0, 1], [2, 3], [4.99, 5]], [[0, 1], [2, 3], [4, 5]]),
        (RECURRENT, [1, 2, 3], [[1], [2], [3]]),  # square: per neuron
        (WEIGHT, [0.5, 0.9, 0], [[0], [0], [0]]),
    ],
)
def test_delays(weight: Array, delay: Any, expected: Any, tmp_path: Path) -> None:
    found = opened(tmp_path, dense(weight, delay=np.array(delay)))
    (projection,) = found.graph.projections
    assert np.asarray(projection.delay).tolist() == expected
    assert found.notes == ()


def test_delays_end_at_62(tmp_path: Path) -> None:
    found = opened(tmp_path, dense_layer(delay=[62, 63, 0]))
    assert np.asarray(found.graph.projections[0].delay).tolist() == [[62], [62], [0]]
    assert found.notes == ("layer 0 (dense): delays above 62 act as 62",)


def test_a_recurrent_layer(tmp_path: Path) -> None:
    found = opened(tmp_path, recurrent_layer())
    weights = {p.name: (p.synapses.weight.tolist(), p.delay) for p in found.graph.projections}
    assert weights == {"input->0": (WEIGHT.tolist(), 0), "0->0": (RECURRENT.tolist(), 1)}
    assert found.notes == ()


def test_recurrent_weights_share_the_shift_of_the_others(tmp_path: Path) -> None:
    """Lateral inhibition by a power of two loses a bit of 8, not of those it would have alone."""
    found = opened(tmp_path, dense([[64, -2]], type="dense_rec", weight_rec=[[-128]]))
    assert [p.synapses.weight.tolist() for p in found.graph.projections] == [[[64, -2]], [[-127]]]
    assert found.notes == (
        "layer 0 (dense_rec): 1 of 1 recurrent weights act differently: -128 acts as -127",
    )


def test_recurrent_weights_in_one_row(tmp_path: Path) -> None:
    layer = dense(WEIGHT.reshape(-1), shape=(3,), type="dense_rec")
    found = opened(tmp_path, layer | {"weight_rec": RECURRENT.reshape(-1)})
    assert found.graph.projections[1].synapses.weight.tolist() == RECURRENT.tolist()


# --- read: images ---------------------------------------------------------------------------------


def test_a_convolution(tmp_path: Path) -> None:
    layer = conv(KERNEL, (4, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 3))
    found = opened(tmp_path, IMAGE, layer)
    (projection,) = found.graph.projections
    synapses = projection.synapses
    assert isinstance(synapses, Conv2d)
    assert synapses.weight.tolist() == KERNEL.tolist()
    assert (synapses.stride, synapses.padding) == ((2, 1), (1, 2))
    assert (synapses.dilation, synapses.groups) == ((1, 3), 1)
    # rows: (4 + 2 - 1 - 1) // 2 + 1; columns: 5 + 4 - 3 - 1 + 1
    assert found.graph.populations[0].shape == (3, 3, 6)
    assert found.graph.inputs[0].shape == (2, 4, 5)
    assert (projection.name, projection.sum_bits) == ("input->0", None)


def test_one_number_for_both_axes(tmp_path: Path) -> None:
    layer = conv(KERNEL, (4, 5), stride=2, padding=1, dilation=2)
    synapses = opened(tmp_path, IMAGE, layer).graph.projections[0].synapses
    assert isinstance(synapses, Conv2d)
    assert (synapses.stride, synapses.padding, synapses.dilation) == ((2, 2), (1, 1), (2, 2))


def test_groups_and_a_fifth_axis(tmp_path: Path) -> None:
    weight = np.arange(1, 17).reshape(4, 1, 2, 2)
    found = opened(tmp_path, IMAGE, conv(weight, (4, 5), groups=2) | {"weight": weight[..., None]})
    synapses = found.graph.projections[0].synapses
    assert isinstance(synapses, Conv2d)
    assert (synapses.groups, synapses.weight.tolist()) == (2, weight.tolist())


def test_weights_of_a_convolution_are_not_clipped(tmp_path: Path) -> None:
    """They are used raw; a sum that can turn over in Lava's 24 bits turns over."""
    weight = np.array([[[[1 << 22, -(1 << 22) - 1]]], [[[0, -3.7]]]])
    image = IMAGE | {"shape": (1, 1, 2)}
    found = opened(tmp_path, image, conv(weight, (1, 2)))
    (projection,) = found.graph.projections
    assert projection.synapses.weight.tolist() == [[[[1 << 22, -(1 << 22) - 1]]], [[[0, -3]]]]
    assert projection.sum_bits == 24
    assert found.notes == ()
    less = weight - [[[[0, -2]]], [[[0, 0]]]]  # sums below 2^23
    assert opened(tmp_path, image, conv(less, (1, 2))).graph.projections[0].sum_bits is None


def test_sums_of_a_convolution_that_float32_rounds_are_told(tmp_path: Path) -> None:
    image = IMAGE | {"shape": (1, 1, 1)}
    found = opened(tmp_path, image, conv(np.full((1, 1, 1, 1), 1 << 24), (1, 1)))
    assert found.graph.projections[0].sum_bits == 24
    (note,) = found.notes
    assert note.startswith("layer 1 (conv): sums may reach 16777216: exact in Lava without PyTorch")


def test_sums_of_shifted_weights_end_at_32_bits(tmp_path: Path) -> None:
    """Weights of 1 and -1 are kept shifted by 7: their sums have 25 bits."""
    for bits, expected in ((23, None), (24, 25)):
        found = opened(tmp_path, dense([[1, -1]]), input_bits=bits)
        assert found.graph.projections[0].sum_bits == expected


def test_parameters_per_channel(tmp_path: Path) -> None:
    parameters = neuron(
        current_decay=np.array([1, 2, 3]),
        membrane_decay=np.array([4, 5, 6]),
        threshold=np.array([7, 8, 9]),
    )
    neurons = neurons_of(opened(tmp_path, *images(neuron=parameters, bias=[-1, 0, 1])))
    assert neurons.current_decay is not None
    assert neurons.current_decay.tolist() == [[[4095]], [[4094]], [[4093]]]
    assert neurons.decay.tolist() == [[[4092]], [[4091]], [[4090]]]
    assert neurons.threshold.tolist() == [[[7]], [[8]], [[9]]]
    assert neurons.bias.tolist() == [[[-1]], [[0]], [[1]]]


def test_a_map_of_biases_lies_in_w_h_c_order(tmp_path: Path) -> None:
    bias = np.arange(36).reshape(4, 3, 3)  # W, H, C
    found = neurons_of(opened(tmp_path, *images(bias=bias))).bias
    assert found.shape == (3, 3, 4)
    for c, y, x in np.ndindex(3, 3, 4):
        assert found[c, y, x] == bias[x, y, c]


def test_delays_of_a_convolution_are_ignored(tmp_path: Path) -> None:
    found = opened(tmp_path, *images(delay=[1, 0, 0]))
    assert found.graph.projections[0].delay == 0
    assert found.notes == ("layer 1 (conv): its delays are ignored, as netx ignores them",)
    assert opened(tmp_path, *images(delay=[0, 0, 0])).notes == ()


def test_flatten_is_in_c_h_w_order(tmp_path: Path) -> None:
    """Layers that create nothing in Lava have no number."""
    weight = np.arange(-36, 36).reshape(2, 36)
    found = opened(tmp_path, *images(), FLATTEN, dense(weight))
    assert [p.name for p in found.graph.projections] == ["input->0", "0->1"]
    synapses = found.graph.projections[1].synapses
    assert isinstance(synapses, Dense)
    assert synapses.weight.tolist() == weight.tolist()


def test_flatten_waits_for_the_next_dense_layer(tmp_path: Path) -> None:
    second = conv(np.ones((1, 3, 3, 4), int), (3, 4))
    found = opened(tmp_path, *images(), FLATTEN, second, dense([[2]]))
    assert [p.shape for p in found.graph.populations] == [(3, 3, 4), (1, 1, 1), (1,)]


def test_flatten_before_the_first_synapses_does_nothing(tmp_path: Path) -> None:
    for layers in ([FLATTEN, dense_layer()], [IMAGE, FLATTEN, dense_layer()]):
        found = opened(tmp_path, *layers, dense(RECURRENT))
        assert found.graph.inputs[0].shape == (2,)
        assert [p.shape for p in found.graph.populations] == [(3,), (3,)]


def test_a_vector_may_have_three_axes(tmp_path: Path) -> None:
    found = opened(tmp_path, dense_layer(shape=(3, 1, 1)), dense(RECURRENT))
    assert [p.shape for p in found.graph.populations] == [(3,), (3,)]


# --- read: inputs ---------------------------------------------------------------------------------


def test_the_shape_of_the_input_may_be_given(tmp_path: Path) -> None:
    given = opened(tmp_path, conv_layer(), input_shape=(2, 4, 5)).graph
    said = opened(tmp_path, *images()).graph
    assert to_data(given)[0] == to_data(said)[0]
    assert given.inputs[0].shape == (2, 4, 5)


@pytest.mark.parametrize("layers", [images(), [neurons_only((2, 4, 5))]])
def test_the_shape_may_be_given_where_it_is_known(layers: list[Layer], tmp_path: Path) -> None:
    assert opened(tmp_path, *layers, input_shape=(2, 4, 5)).graph.inputs[0].shape == (2, 4, 5)


@pytest.mark.parametrize("layers", [[dense_layer()], images()])
def test_graded_input(layers: list[Layer], tmp_path: Path) -> None:
    (spec,) = opened(tmp_path, *layers, input_bits=8).graph.inputs
    assert (spec.name, spec.kind, spec.scale) == ("input", "graded", 1.0)
    assert (spec.low, spec.high) == (-255, 255)
    values = np.full(spec.shape, -37)
    np.testing.assert_array_equal(spec.encode(values), values)


def test_an_input_layer_of_neurons_is_driven_by_biases(tmp_path: Path) -> None:
    layer = neurons_only((2, 1, 2), current_decay=4096, membrane_decay=2048, threshold=9)
    found = opened(tmp_path, layer | {"weight": [76], "bias": 64})
    (spec,) = found.graph.inputs
    assert (spec.kind, spec.shape, spec.scale) == ("constant", (2, 1, 2), 1.0)
    assert (spec.low, spec.high) == (-32768, 32767)
    assert found.notes == (
        "layer 0 (input): `weight` 76 is for the caller to apply",
        "layer 0 (input): `bias` 64 is for the caller to apply",
    )
    given = np.array([[[[3, -4]], [[6, 10]]]])
    trace = simulate(found.graph, Recording(values={"": given}), steps=3, trace=True)
    # bias, then half of the membrane and bias; 6 + 3 = 9 is not more than 9, 4.5 + 6 is
    expected = 64 * np.array([[3, -4, 6, 0], [4.5, -6, 9, 0], [5.25, -7, 0, 0]])
    np.testing.assert_array_equal(trace.membrane["0"].reshape(3, 4), expected)
    fired = [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 1, 1]]
    np.testing.assert_array_equal(trace.spikes["0"].reshape(3, 4), np.array(fired, bool))


def test_one_neuron_by_hand(tmp_path: Path) -> None:
    """The numbers of tests/peers/test_runner.py, which Lava gives."""
    parameters = neuron(membrane_decay=2048, threshold=10)
    found = opened(tmp_path, dense([[8, -2]], bias=[3], neuron=parameters))
    spikes = np.array([[1, 0], [0, 1], [1, 1]])
    trace = simulate(
        found.graph, Recording(spikes={"": spikes}), timing="pipelined", steps=6, trace=True
    )
    np.testing.assert_array_equal(trace.current["0"].ravel(), 64 * np.array([0, 8, -2, 6, 0, 0]))
    membrane = 64 * np.array([3, 0, 1, 9.5, 7.75, 6.875])
    np.testing.assert_array_equal(trace.membrane["0"].ravel(), membrane)
    assert trace.spikes["0"].ravel().tolist() == [False, True, False, False, False, False]


# --- read: the same in other words ----------------------------------------------------------------


def same(one: Opened, other: Opened) -> bool:
    (text, arrays), (other_text, other_arrays) = to_data(one.graph), to_data(other.graph)
    same_arrays = len(arrays) == len(other_arrays) and all(
        np.array_equal(a, b) and a.dtype == b.dtype
        for a, b in zip(arrays, other_arrays, strict=True)
    )
    return text == other_text and one.notes == other.notes and same_arrays


def small_net(types: Callable[[str], str] = lambda name: "i8") -> list[Layer]:
    """Every dataset of numbers there is, in small numbers; ``types``: its name -> its type."""

    def as_type(layer: Layer) -> dict[str, Any]:
        return {
            name: as_type(value)
            if isinstance(value, Mapping)
            else value
            if isinstance(value, str)
            else np.asarray(value).astype(types(name))
            for name, value in layer.items()
        }

    parameters = neuron(current_decay=100, membrane_decay=96, threshold=70)
    several = neuron(current_decay=100, membrane_decay=[96, 4, 0], threshold=[1, 1, 0])
    return [
        as_type(layer)
        for layer in (
            {"type": "input", "shape": (1, 3, 4)},
            conv(np.arange(1, 9).reshape(2, 1, 2, 2), (3, 4), bias=[3, 4], neuron=parameters),
            FLATTEN,
            dense(np.arange(1, 37).reshape(3, 12), bias=[1, 2, 3], delay=[1, 2, 3])
            | {"neuron": several},
            recurrent_layer(weight=RECURRENT + 6, weight_rec=RECURRENT + 6),
        )
    ]


FLOATS = {"weight", "weight_rec", "bias", "delay"}


@pytest.mark.parametrize(
    "dtype", ["i1", "u1", "i2", "u2", "u4", ">i2", ">i4", ">u4", ">i8", "f2", ">f4", "f8"]
)
def test_numbers_of_any_type(dtype: str, tmp_path: Path) -> None:
    """Thresholds and decays of floats, or shifted beyond a narrow type, are refused elsewhere."""
    expected = opened(tmp_path, *small_net())

    def types(name: str) -> str:
        wide = name in ("iDecay", "vDecay") and dtype in ("i1", "u1")
        return "i8" if wide or ("f" in dtype and name not in FLOATS) else dtype

    assert same(opened(tmp_path, *small_net(types)), expected)


def test_thresholds_of_a_narrow_type(tmp_path: Path) -> None:
    """One number Lava shifts as it should, and arrays as far as their type reaches."""
    for threshold in (np.int8(127), np.array([511, -512, 0], np.int16)):
        neurons = neurons_of(opened(tmp_path, dense_layer(neuron=neuron(threshold=threshold))))
        assert neurons.threshold.tolist() == threshold.tolist()


def test_packed_and_chunked_data(tmp_path: Path) -> None:
    expected = opened(tmp_path, *small_net())
    path = write_netx(tmp_path / "b.net", small_net())
    with h5py.File(path, "r+") as file:
        for name in ("1/weight", "3/weight", "3/bias", "4/weight_rec", "4/neuron/iDecay"):
            value = file[f"layer/{name}"][()]
            del file[f"layer/{name}"]
            if value.ndim:
                options = {"compression": "gzip", "shuffle": True, "fletcher32": True}
                chunks = (1,) * value.ndim
                file.create_dataset(f"layer/{name}", data=value, chunks=chunks, **options)
            else:
                file[f"layer/{name}"] = value
    assert same(read(path), expected)


@pytest.mark.parametrize(
    "text",
    [
        b"dense",
        np.array([b"dense"], "S10"),
        np.array([b"dense"], "S5"),
        np.array(b"dense", "S20"),
        "dense",
        np.array(["dense"], object),
    ],
)
def test_type_as_one_text(text: Any, tmp_path: Path) -> None:
    path = write_netx(tmp_path / "a.net", [dense_layer()])
    with h5py.File(path, "r+") as file:
        del file["layer/0/type"]
        file["layer/0/type"] = text
    assert same(read(path), opened(tmp_path, dense_layer()))


def test_loihi_is_another_word_for_cuba(tmp_path: Path) -> None:
    other = dense_layer(neuron=neuron(type="LOIHI"))
    assert same(opened(tmp_path, other), opened(tmp_path, dense_layer()))


def test_what_netx_never_reads(tmp_path: Path) -> None:
    """Attributes, what is beside the layers, and fields that lava-dl writes and ignores."""
    more = neuron(
        refDelay=3, gradedSpike=1, theta=9.5, tauRho=1.5, scaleRho=2.5, wgtExp=3, weight_exp=2
    )
    layer = dense_layer(
        neuron=more, inFeatures=7, outFeatures=7, simulation={"Ts": 1, "tSample": 9}
    )
    path = write_netx(tmp_path / "a.net", [layer])
    with h5py.File(path, "r+") as file:
        file["simulation/Ts"] = 1
        file["note"] = "ours"
        file["layer"].attrs["note"] = 1
        file["layer/0"].attrs["note"] = "ours"
        file["layer/0/weight"].attrs["scale"] = 0.5
        file["elsewhere"] = h5py.ExternalLink("/etc/passwd", "/")
    found = read(path)
    assert same(found, opened(tmp_path, dense_layer()))
