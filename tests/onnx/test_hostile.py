"""Files that are broken, foreign or made to harm: refused, in little time and memory."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper
from snn_deploy.exporters import ReadOptions
from snn_deploy.exporters.onnx import exporter, reader
from snn_deploy.exporters.onnx.models import ARRAYS, DIGEST, FORM, NETWORK, model

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph, InputSpec
from snn_deploy.synapses import Conv2d, SumPool
from tests.helpers.nets import integers, lif, one_layer
from tests.helpers.refusals import refused

MESSAGES = {"SD101", "SD204", "SD401", "SD402", "SD405"}


def network() -> Graph:
    spec = InputSpec(name="in", kind="constant", shape=(2, 4, 4), high=255.0, scale=1.0)
    kernel = Conv2d(integers(np.arange(-9, 9).reshape(1, 2, 3, 3)))
    neurons = lif(3000, [[[7]]], np.arange(1).reshape(1, 1, 1))
    return one_layer(kernel, spec, neurons, pool=SumPool((2, 2), (1, 1)))


GOOD = {form: model(network(), form).SerializeToString() for form in ("sequence", "step")}


def opened(path: Path) -> Graph:
    return exporter.open(path, ReadOptions()).graph


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile") / "model.onnx"


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(SnnDeployError) as caught:
        opened(path)
    assert caught.value.where is not None
    assert str(path) in caught.value.where
    return caught.value.code


@pytest.mark.parametrize("form", list(GOOD))
def test_the_good_one_is_read(path: Path, form: str) -> None:
    path.write_bytes(GOOD[form])
    opened(path)


@given(form=st.sampled_from(list(GOOD)), share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_short(path: Path, form: str, share: float) -> None:
    content = GOOD[form]
    assert refusal(path, content[: int(share * len(content))]) in MESSAGES


@given(
    form=st.sampled_from(list(GOOD)),
    share=st.floats(0, 1, exclude_max=True),
    flipped=st.integers(1, 255),
)
def test_a_byte_changed(path: Path, form: str, share: float, flipped: int) -> None:
    """Whichever it is: tensors, operators, shapes, metadata."""
    content = bytearray(GOOD[form])
    content[int(share * len(content))] ^= flipped
    assert refusal(path, bytes(content)) in MESSAGES


@given(
    form=st.sampled_from(list(GOOD)),
    share=st.floats(0, 1),
    inserted=st.binary(min_size=1, max_size=20),
)
@example(form="step", share=1.0, inserted=b"\x08\x08")  # the version, once more
@example(form="step", share=1.0, inserted=b"\xa2\x06\x01a")  # a field of no known number
def test_bytes_added(path: Path, form: str, share: float, inserted: bytes) -> None:
    place = int(share * len(GOOD[form]))
    content = GOOD[form][:place] + inserted + GOOD[form][place:]
    path.write_bytes(content)
    read = ModelProto()
    try:
        read.ParseFromString(content)
    except DecodeError:
        pass
    else:
        if read.SerializeToString(deterministic=True) == GOOD[form]:  # said twice the same
            opened(path)
            return
    assert refusal(path, content) in MESSAGES


@given(content=st.binary(max_size=300))
def test_noise(path: Path, content: bytes) -> None:
    assert refusal(path, content) in MESSAGES


# --- changed with intent --------------------------------------------------------------------------


def changed(form: str, change: Callable[[ModelProto], None]) -> bytes:
    made = ModelProto()
    made.ParseFromString(GOOD[form])
    change(made)
    return bytes(made.SerializeToString())


def tensor(made: ModelProto, name: str) -> TensorProto:
    return next(t for t in made.graph.initializer if t.name == name)


def property_of(made: ModelProto, key: str) -> Any:
    return next(p for p in made.metadata_props if p.key == key)


def edit(key: str, change: Callable[[Any], None]) -> Callable[[ModelProto], None]:
    """Change what an entry of the metadata says."""

    def edited(made: ModelProto) -> None:
        held = property_of(made, key)
        data = json.loads(held.value)
        change(data)
        held.value = json.dumps(data, sort_keys=True)

    return edited


WEIGHT = "in->p/weight"


def weight(made: ModelProto) -> None:
    held = tensor(made, WEIGHT)
    held.raw_data = bytes([held.raw_data[0] ^ 1]) + held.raw_data[1:]


def threshold(made: ModelProto) -> None:
    tensor(made, "p/threshold").raw_data = b"\x08"


def comparator(made: ModelProto) -> None:
    for node in made.graph.node:
        if node.op_type == "GreaterOrEqual":
            node.op_type = "Greater"


def name_of_an_input(made: ModelProto) -> None:
    made.graph.input[0].name = "other"


def shape_of_a_value(made: ModelProto) -> None:
    made.graph.value_info[-1].type.tensor_type.shape.dim[-1].dim_value = 5


def another_opset(made: ModelProto) -> None:
    made.opset_import[0].version = 17


def a_custom_operator(made: ModelProto) -> None:
    made.graph.node[-1].domain = "evil"


def a_function(made: ModelProto) -> None:
    made.functions.add(name="f", domain="evil")


def hash_of_another(made: ModelProto) -> None:
    property_of(made, DIGEST).value = "0" * 64


def no_form(made: ModelProto) -> None:
    property_of(made, FORM).value = "spam"


def the_other_form(made: ModelProto) -> None:
    property_of(made, FORM).value = "sequence"


def outside(made: ModelProto) -> None:
    held = tensor(made, WEIGHT)
    held.ClearField("raw_data")
    held.data_location = TensorProto.EXTERNAL
    entry = held.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"


def huge(made: ModelProto) -> None:
    del tensor(made, WEIGHT).dims[:]
    tensor(made, WEIGHT).dims.extend([1 << 40, 1 << 40])


def negative(made: ModelProto) -> None:
    tensor(made, WEIGHT).dims[0] = -1


def floats(made: ModelProto) -> None:
    tensor(made, WEIGHT).CopyFrom(numpy_helper.from_array(np.full((1, 2, 3, 3), np.nan), WEIGHT))


def values_elsewhere(made: ModelProto) -> None:
    held = tensor(made, WEIGHT)
    held.int32_data.extend(held.raw_data)
    held.ClearField("raw_data")


def text(made: ModelProto) -> None:
    held = tensor(made, WEIGHT)
    held.data_type = TensorProto.STRING


def set_shape(data: Any, *shape: int) -> None:
    data["inputs"][0]["shape"] = list(shape)


def populations(data: Any) -> None:
    data["populations"] = data["populations"] * 100_000


def nested(made: ModelProto) -> None:
    property_of(made, NETWORK).value = "[" * 100_000


def infinite(data: Any) -> None:
    data["inputs"][0]["high"] = float("inf")


CHANGES: dict[str, tuple[Callable[[ModelProto], None], str]] = {
    "a weight": (weight, "SD405"),
    "a threshold": (threshold, "SD405"),
    "the comparator": (comparator, "SD405"),
    "the name of an input": (name_of_an_input, "SD405"),
    "a shape": (shape_of_a_value, "SD405"),
    "the opset": (another_opset, "SD405"),
    "a custom operator": (a_custom_operator, "SD405"),
    "a function": (a_function, "SD405"),
    "the hash": (hash_of_another, "SD405"),
    "the form": (the_other_form, "SD405"),
    "no form": (no_form, "SD401"),
    "data in another file": (outside, "SD402"),
    "a huge tensor": (huge, "SD401"),
    "a negative extent": (negative, "SD401"),
    "weights that are not numbers": (floats, "SD401"),
    "weights in a list": (values_elsewhere, "SD401"),
    "a tensor of texts": (text, "SD401"),
    "a huge input": (edit(NETWORK, lambda d: set_shape(d, 2, 1 << 20, 1 << 20)), "SD401"),
    "an input of no size": (edit(NETWORK, lambda d: set_shape(d, 2, -4, -4)), "SD401"),
    "a shape of texts": (edit(NETWORK, lambda d: set_shape(d, "4")), "SD401"),  # type: ignore[arg-type]
    "a hundred thousand populations": (edit(NETWORK, populations), "SD401"),
    "lists in lists": (nested, "SD401"),
    "infinity": (edit(NETWORK, infinite), "SD401"),
    "no arrays": (edit(ARRAYS, list.clear), "SD401"),
    "an array of objects": (edit(ARRAYS, lambda d: d[0].update(dtype="O")), "SD401"),
    "an array of dates": (edit(ARRAYS, lambda d: d[0].update(dtype="M8[s]")), "SD401"),
    "an array too large": (edit(ARRAYS, lambda d: d.extend(d * 50_000)), "SD401"),
    "no such tensor": (edit(ARRAYS, lambda d: d[-1].update(digits=["spam"])), "SD401"),
    "a thousand digits": (
        edit(ARRAYS, lambda d: d[-1].update(digits=d[-1]["digits"] * 1000)),
        "SD401",
    ),
    "no digits": (edit(ARRAYS, lambda d: d[-1].update(digits=[])), "SD401"),
    "a step of a thousand bits": (edit(ARRAYS, lambda d: d[-1].update(step=1 << 1000)), "SD401"),
    "numbers too large": (edit(ARRAYS, lambda d: d[0].update(values=[1 << 70])), "SD401"),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_changed_with_intent(path: Path, name: str) -> None:
    change, code = CHANGES[name]
    assert refusal(path, changed("step", change)) == code


def test_the_difference_is_named(path: Path) -> None:
    for change, name in (
        (weight, DIGEST), (comparator, "node p/fired"), (shape_of_a_value, "value_info p/fired_1"),
        (name_of_an_input, "input in"),
    ):  # fmt: skip
        path.write_bytes(changed("step", change))
        with refused("SD405", name):
            opened(path)


def test_more_arrays_than_the_file_holds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_MAX_ARRAYS", 100)
    assert refusal(path, GOOD["step"]) == "SD401"


# --- not ours, not files --------------------------------------------------------------------------


def test_a_model_of_others(path: Path) -> None:
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (1,)) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", info[:1], info[1:])
    onnx.save(helper.make_model(graph), path)
    with refused("SD204", "no integer network of snn-deploy"):
        opened(path)


def test_another_way_of_writing(path: Path) -> None:
    def later(made: ModelProto) -> None:
        made.producer_version = "2"

    assert refusal(path, changed("step", later)) == "SD204"


def test_no_file(tmp_path: Path) -> None:
    for name in ("none.onnx", "none/none.onnx"):
        with refused("SD101"):
            opened(tmp_path / name)
    with refused("SD101"):
        opened(tmp_path)
    os.mkfifo(tmp_path / "pipe.onnx")
    with refused("SD101"):
        opened(tmp_path / "pipe.onnx")


# --- bombs ----------------------------------------------------------------------------------------


def field(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer that holds bytes."""
    size, head = len(content), bytearray()
    for value in (number << 3 | 2, size):
        while value > 127:
            head.append(value & 127 | 128)
            value >>= 7
        head.append(value)
    return bytes(head) + content


def bombs() -> dict[str, bytes]:
    graph, node, attribute, initializer = 7, 1, 5, 5
    deep = b""
    for _ in range(100_000):  # a graph in an attribute of an operator of a graph
        deep = field(1, field(5, field(6, deep)))
        if len(deep) > 1 << 16:
            break
    return {
        "operators": field(graph, field(node, b"") * 20_000_000),
        "attributes": field(graph, field(node, field(attribute, b"") * 20_000_000)),
        "metadata": field(14, b"") * 20_000_000,
        "packed numbers": field(graph, field(initializer, field(7, b"\0" * 40_000_000))),
        "packed floats": field(graph, field(initializer, field(4, b"\0" * 40_000_000))),
        "extents": field(graph, field(initializer, b"\x08\x01" * 20_000_000)),
        "nested": field(graph, deep),
    }


LIMITED = """
import resource, sys, time
from pathlib import Path
from snn_deploy.errors import SnnDeployError
from snn_deploy.exporters import ReadOptions
from snn_deploy.exporters.onnx import exporter, reader
import snn_deploy.exporters.onnx.reader
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in sys.argv[1:]:
    start = time.process_time()
    try:
        exporter.open(Path(name), ReadOptions())
        code = "opened"
    except SnnDeployError as error:
        code = error.code
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(code, time.process_time() - start, more // 1024, name)
"""


def test_bombs_cost_little(tmp_path: Path) -> None:
    """Files of 40 to 80 MB are refused in seconds; no more memory is used than to hold them."""
    names = []
    for name, content in bombs().items():
        names.append(tmp_path / f"{name}.onnx")
        names[-1].write_bytes(content)
    with open(tmp_path / "sparse.onnx", "wb") as stream:
        stream.truncate(1 << 40)
    names.append(tmp_path / "sparse.onnx")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, names)], capture_output=True, text=True,
        timeout=120, check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)),
    )  # fmt: skip
    lines = [line.split(maxsplit=3) for line in done.stdout.splitlines()]
    assert len(lines) == len(names)
    for code, seconds, mebibytes, name in lines:
        assert code == ("SD402" if "nested" not in name else code), name
        assert code in ("SD401", "SD402"), name
        assert float(seconds) < 10, name
        assert int(mebibytes) < 100, name
