"""Functions and methods of tensors that stand for layers, as torch.fx meets them in a forward."""

import enum
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgebnn.errors import EdgebnnError
from edgebnn.nn.constants import Bias, Scale
from edgebnn.nn.functional import sign
from edgebnn.nn.layers import Add, Sign

FIX = (
    "build the model of layers and of +, flatten, max_pool1d, max_pool2d, sign, relu, clamp and "
    "products and sums with constants alone"
)


class Batch(enum.Enum):
    """What is known of sizes: that of a whole tensor, and the number of inputs in it."""

    SHAPE = enum.auto()
    SIZE = enum.auto()


@dataclass(frozen=True, slots=True)
class Value:
    """The result of the layer of this name; "" is the model's input."""

    layer: str


#: What an operation gives: a value that was there before, a constant, or layers that follow each
#: other and, last, what the first of them reads.
Meaning = Value | Batch | Tensor | int | float | tuple[Any, ...]


def _flatten(input: Value, start_dim: int = 0, end_dim: int = -1) -> Meaning:
    if start_dim != 1 or end_dim != -1:
        raise EdgebnnError("flatten everything but the batch: x.flatten(1)")
    return nn.Flatten(), (input,)


def _reshape(input: Value, *shape: Any) -> Meaning:
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
    match tuple(sizes):
        case (Batch.SIZE, int()) | (-1, int()) if sizes[1] == -1 or sizes[1] > 0:
            if tuple(sizes) != (-1, -1):
                return nn.Flatten(), (input,)
    raise EdgebnnError("flatten everything but the batch: x.flatten(1)")


def _size(input: Value, dim: int | None = None) -> Meaning:
    if dim is None:
        return Batch.SHAPE
    if dim == 0:
        return Batch.SIZE
    raise EdgebnnError("take the number of inputs alone: x.size(0)")


def _attribute(input: Value, name: str) -> Meaning:
    if name == "shape":
        return Batch.SHAPE
    raise EdgebnnError(FIX)


def _item(input: Any, index: Any) -> Meaning:
    if input is Batch.SHAPE and index == 0:
        return Batch.SIZE
    raise EdgebnnError(FIX)


def _add(input: Any, other: Any, *, alpha: int = 1) -> Meaning:
    if alpha != 1:
        raise EdgebnnError("add the results of two layers, or a constant, without a factor")
    values = tuple(part for part in (input, other) if isinstance(part, Value))
    if len(values) == 2:
        return Add(), values
    if not values:
        raise EdgebnnError(FIX)
    constant = other if isinstance(input, Value) else input
    if isinstance(constant, int) and constant == 0:  # how sum() begins
        return values[0]
    return _with(Bias, constant), (_given(values[0]),)


def _subtract(input: Any, other: Any, *, alpha: int = 1) -> Meaning:
    match input, other:
        case (Value(), Value()):
            raise EdgebnnError("subtract constants alone; a layer learns the sign of its weights")
        case (Value() as value, Tensor() | int() | float()) if alpha == 1:
            return _with(Bias, -other), (_given(value),)
        case (constant, Value() as value) if alpha == 1:
            return Scale(-1.0), _with(Bias, constant), (_given(value),)
    raise EdgebnnError(FIX)


def _multiply(input: Any, other: Any) -> Meaning:
    match input, other:
        case (Value(), Value()):
            raise EdgebnnError("multiply by constants alone, as in x * 0.5 or x * self.factor")
        case (Value() as value, constant) | (constant, Value() as value):
            return _with(Scale, constant), (_given(value),)
    raise EdgebnnError(FIX)


def _divide(input: Any, other: Any) -> Meaning:
    _given(input)
    if isinstance(other, int | float) and other and math.isfinite(other):
        fraction, exponent = math.frexp(abs(other))
        if fraction == 0.5 and -100 < exponent < 100:  # then the product is the same to the bit
            return Scale(1.0 / other), (input,)
    raise EdgebnnError("multiply by the inverse: how a quotient is rounded differs between devices")


def _negate(input: Value) -> Meaning:
    return Scale(-1.0), (_given(input),)


def _given(value: Any) -> Value:
    """``value``, if it is the result of a layer."""
    if not isinstance(value, Value):
        raise EdgebnnError(FIX)
    if not value.layer:
        raise EdgebnnError(
            "it comes before Input, which takes integers; the first norm scales them"
        )
    return value


def _with(kind: type[Scale] | type[Bias], constant: Any) -> nn.Module:
    """The layer that multiplies by a constant, or adds it, as torch would in float32."""
    if not isinstance(constant, Tensor):
        if type(constant) not in (int, float):
            raise EdgebnnError(FIX)
        return _built(kind, constant)
    if constant.dtype in (torch.float64, torch.int64, torch.int32) or constant.is_complex():
        raise EdgebnnError(f"its constant is {constant.dtype}; make it float32")
    module = _built(kind, shape=tuple(constant.shape))
    return _holding(module, "value", constant)


def _built(kind: Callable[..., nn.Module], *values: Any, **more: Any) -> nn.Module:
    try:
        return kind(*values, **more)
    except (ValueError, AssertionError) as error:
        raise EdgebnnError(str(error) or FIX) from None


def _holding(module: nn.Module, name: str, values: Tensor) -> nn.Module:
    """``module`` with ``values`` as its parameter ``name``, in float32."""
    module.load_state_dict({name: values.to(torch.float32, copy=True)}, assign=True)
    return module


def _relu(input: Value, inplace: bool = False) -> Meaning:
    return nn.ReLU(), (input,)


def _relu6(input: Value, inplace: bool = False) -> Meaning:
    return nn.ReLU6(), (input,)


def _hardtanh(
    input: Value, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Meaning:
    return _built(nn.Hardtanh, min_val, max_val), (input,)


def _clamp(input: Value, min: float | None = None, max: float | None = None) -> Meaning:
    low, high = -math.inf if min is None else min, math.inf if max is None else max
    if not (isinstance(low, int | float) and isinstance(high, int | float) and low < high):
        raise EdgebnnError("clamp between two numbers, the lower one first")
    return nn.Hardtanh(float(low), float(high)), (input,)


def _leaky_relu(input: Value, negative_slope: float = 0.01, inplace: bool = False) -> Meaning:
    return nn.LeakyReLU(negative_slope), (input,)


def _prelu(input: Value, weight: Any) -> Meaning:
    if not isinstance(weight, Tensor):
        raise EdgebnnError(FIX)
    return _holding(nn.PReLU(weight.numel()), "weight", weight.reshape(-1)), (input,)


def _softmax(
    input: Value, dim: int | None = None, _stacklevel: int = 3, dtype: None = None
) -> Meaning:
    if dtype is not None:
        raise EdgebnnError("leave out its dtype")
    return nn.Softmax(dim), (input,)


def _log_softmax(
    input: Value, dim: int | None = None, _stacklevel: int = 3, dtype: None = None
) -> Meaning:
    if dtype is not None:
        raise EdgebnnError("leave out its dtype")
    return nn.LogSoftmax(dim), (input,)


def _max_pool(kind: type[nn.MaxPool1d] | type[nn.MaxPool2d]) -> Callable[..., Meaning]:
    def meaning(
        input: Value,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Meaning:
        # An empty stride is torch's other way to say that it is the kernel's size.
        pool = kind(kernel_size, stride or None, padding, dilation, return_indices, ceil_mode)
        return pool, (input,)

    return meaning


def _dropout(input: Value, p: float = 0.5, training: bool = True, inplace: bool = False) -> Meaning:
    if training:
        raise EdgebnnError("it drops values in eval mode too; give it training=self.training")
    return nn.Dropout(p), (input,)


def _sign(x: Value) -> Meaning:
    return Sign(), (x,)


def _same(input: Value) -> Meaning:
    return input


OPERATIONS: Mapping[Any, Callable[..., Meaning]] = {
    torch.flatten: _flatten,
    "flatten": _flatten,
    torch.reshape: _reshape,
    "reshape": _reshape,
    "view": _reshape,
    "size": _size,
    getattr: _attribute,
    operator.getitem: _item,
    operator.add: _add,
    torch.add: _add,
    "add": _add,
    operator.sub: _subtract,
    torch.sub: _subtract,
    "sub": _subtract,
    operator.mul: _multiply,
    torch.mul: _multiply,
    "mul": _multiply,
    operator.truediv: _divide,
    torch.div: _divide,
    "div": _divide,
    operator.neg: _negate,
    torch.neg: _negate,
    "neg": _negate,
    F.relu: _relu,
    torch.relu: _relu,
    "relu": _relu,
    F.relu6: _relu6,
    F.hardtanh: _hardtanh,
    torch.clamp: _clamp,
    "clamp": _clamp,
    F.leaky_relu: _leaky_relu,
    F.prelu: _prelu,
    "prelu": _prelu,
    F.softmax: _softmax,
    torch.softmax: _softmax,
    "softmax": _softmax,
    F.log_softmax: _log_softmax,
    torch.log_softmax: _log_softmax,
    "log_softmax": _log_softmax,
    F.max_pool1d: _max_pool(nn.MaxPool1d),
    torch.max_pool1d: _max_pool(nn.MaxPool1d),
    F.max_pool2d: _max_pool(nn.MaxPool2d),
    torch.max_pool2d: _max_pool(nn.MaxPool2d),
    F.dropout: _dropout,
    sign: _sign,
    "contiguous": _same,
}


# --- tracing ------------------------------------------------------------------------------------
