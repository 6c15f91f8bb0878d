"""What torch functions do to meanings: the table of rules, and of what is refused by name.

Each rule takes the running trace, the function and its arguments. An :class:`UnfoldableError` names
what cannot be folded; it becomes SD205 with the path and type of the module. Functions without a
rule are refused.
"""

from __future__ import annotations

from typing import Any, NoReturn

from snn_deploy.freezing.elementwise import add, batch_norm, multiply, negate
from snn_deploy.freezing.largest import largest_over_time
from snn_deploy.freezing.movement import (
    Args,
    Options,
    copied,
    copy_into,
    in_place,
    iterate,
    move,
    query,
    set_item,
    shape_as,
    unchanged,
)
from snn_deploy.freezing.pools import adaptive_pool, average_pool, max_pool, reduce
from snn_deploy.freezing.refusal import UnfoldableError
from snn_deploy.freezing.tracing import Rule, Trace
from snn_deploy.freezing.weighing import addmm, convolution, linear, matmul


def _refusing(what: str, fix: str) -> Rule:
    def rule(trace: Trace, func: Any, args: Args, options: Options) -> NoReturn:
        raise UnfoldableError(what, fix)

    return rule


def _table(*groups: tuple[str, Rule]) -> dict[str, Rule]:
    return {name: rule for names, rule in groups for name in names.split()}


_KNOWN_NEURONS = (
    "let a neuron that is known make the spikes: snn_deploy.nn.neurons.LIF or CLIF, or one of a "
    "supported library"
)

RULES: dict[str, Rule] = _table(
    (
        "shape size dim ndim device dtype is_cuda numel nelement __len__ is_contiguous stride "
        "layout get_device is_floating_point is_complex requires_grad zeros_like ones_like "
        "new_zeros new_ones empty_like new_empty new_full full_like new_tensor __repr__ is_sparse "
        "is_quantized is_mkldnn is_mps is_leaf grad_fn storage_offset names __hash__ itemsize "
        "element_size is_meta is_nested is_inference _version",
        query,
    ),
    (
        "view reshape flatten unflatten permute transpose t T mT movedim moveaxis swapaxes squeeze "
        "unsqueeze expand repeat repeat_interleave stack cat concat concatenate unbind split chunk "
        "tensor_split narrow select index_select __getitem__ tile flip roll contiguous swapdims "
        "ravel broadcast_to",
        move,
    ),
    ("expand_as view_as reshape_as", shape_as),
    ("__iter__", iterate),
    (
        "dropout dropout1d dropout2d dropout3d feature_dropout alpha_dropout "
        "feature_alpha_dropout detach float double to type cpu cuda data requires_grad_ type_as",
        unchanged,
    ),
    ("clone __deepcopy__", copied),
    ("add __add__ __radd__ sub subtract __sub__ __rsub__ rsub", add),
    ("mul multiply __mul__ __rmul__ div divide true_divide __truediv__", multiply),
    ("neg __neg__ negative", negate),
    ("batch_norm", batch_norm),
    ("linear", linear),
    ("matmul __matmul__ mm", matmul),
    ("addmm", addmm),
    ("conv1d conv2d", convolution),
    ("avg_pool1d avg_pool2d", average_pool),
    ("adaptive_avg_pool1d adaptive_avg_pool2d", adaptive_pool),
    ("max_pool1d max_pool2d", max_pool),
    ("mean sum", reduce),
    ("max amax", largest_over_time),
    ("add_ sub_ __iadd__ __isub__", in_place(add)),
    ("mul_ div_ __imul__ __itruediv__", in_place(multiply)),
    ("__setitem__", set_item),
    ("copy_", copy_into),
    (
        "__bool__ item tolist numpy __array__ __int__ __float__ __index__ __contains__ any all "
        "equal allclose isclose isnan isinf isfinite count_nonzero nonzero unique",
        _refusing(
            "what it does depends on its data",
            "a graph does the same for every input: move the decision out of forward",
        ),
    ),
    (
        "relu relu_ relu6 sigmoid tanh softmax log_softmax leaky_relu gelu elu selu silu hardtanh "
        "hardsigmoid softplus clamp clip clamp_ exp log abs sqrt pow __pow__ square erf prelu",
        _refusing(
            "it leaves a smooth function of spikes or currents in evaluation, where a chip has "
            "only spikes",
            "use it in training alone, or replace it by neurons; apply softmax to what the module "
            "returns",
        ),
    ),
    (
        "pad",
        _refusing(
            "it pads by itself, or with other values than zeros",
            "use the padding of the convolution, with padding_mode='zeros'",
        ),
    ),
    (
        "layer_norm group_norm instance_norm rms_norm local_response_norm normalize norm std var",
        _refusing(
            "it normalises by its own data, which differ for every input",
            "use batch normalisation, whose running statistics are folded into weights",
        ),
    ),
    (
        "index_put_ fill_ zero_ index_copy_ index_add_ scatter scatter_ masked_fill masked_fill_",
        _refusing(
            "it writes into a tensor in place", "gather results in a list and torch.stack them"
        ),
    ),
    (
        "gt ge lt le eq ne __gt__ __ge__ __lt__ __le__ __eq__ __ne__ greater_equal greater less "
        "where heaviside sign logical_and logical_or __and__ __or__",
        _refusing("it compares currents with a threshold by itself", _KNOWN_NEURONS),
    ),
    (
        "half bfloat16 int long bool byte short char round floor ceil trunc",
        _refusing(
            "it converts its numbers to another type than float32 or float64, or rounds them",
            "keep spikes and currents in float32; quantize() makes integers",
        ),
    ),
    (
        "maximum min amin minimum topk argmax argmin median sort max_pool3d "
        "adaptive_max_pool1d adaptive_max_pool2d",
        _refusing(
            "it takes a largest or smallest value",
            "return counts or currents, of which the largest decides; pool spikes by nn.MaxPool2d",
        ),
    ),
)
