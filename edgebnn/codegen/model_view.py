"""What a header says of its model: one view for the C and the CUDA that compute it."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from edgebnn import ir
from edgebnn._version import __version__
from edgebnn.codegen.names import comment_text
from edgebnn.data.columns import Column
from edgebnn.ir import Network


@dataclass(frozen=True, slots=True)
class ModelView:
    """Where a model comes from, its inputs and its scores: comments and macros of a header."""

    version: str  # of edgebnn
    sha256: str
    digest: str  # how that begins
    interface: str  # a number that header and source have to share
    accuracy: str
    input_steps: str  # "" where pixels are inputs as they are
    steps_by: str  # who does them; "" where nothing is said
    columns: tuple[str, ...]  # lines of a macro, where numbers are to be made bytes
    classes: tuple[str, ...]
    input_bytes: int
    input_shape: str
    input_height: int
    input_width: int
    input_channels: int
    input_max: int
    zero_point: int  # the input that stands for 0
    num_classes: int
    fraction_bits: int
    outcome: str  # "10 classes"
    scores: str  # what they are, and which class they stand for


def model_view(
    network: Network,
    built_for: str,
    *,
    class_names: tuple[str, ...],
    test_accuracy: float | None,
    input_steps: tuple[str, ...],
    steps_by: str,
    zero_point: int,
    columns: Sequence[Column],
) -> ModelView:
    """The view of ``network``; arguments are those of :func:`edgebnn.codegen.c.generate`.

    Args:
        built_for: target, memory and what else header and source have to share.
        steps_by: who does ``input_steps``; "" to say nothing.
    """
    accuracy = "not recorded"
    if test_accuracy is not None:
        accuracy = f"{100.0 * test_accuracy:.2f} % (test set, recorded when the model was saved)"
    shape, sha256 = network.input, ir.sha256(network)
    one_score = network.num_classes == 1
    return ModelView(
        version=__version__,
        sha256=sha256,
        digest=f"{sha256[:12]}...",
        interface=f"0x{zlib.crc32(f'{__version__} {sha256} {built_for}'.encode()):08X}",
        accuracy=accuracy,
        input_steps=", then ".join(comment_text(step) for step in input_steps),
        steps_by=steps_by,
        columns=_column_lines(columns),
        classes=tuple(comment_text(text) for text in class_names),
        input_bytes=network.input_bytes,
        input_shape=f"{shape.height} x {shape.width} x {shape.channels}",
        input_height=shape.height,
        input_width=shape.width,
        input_channels=shape.channels,
        input_max=2**shape.bits - 1,
        zero_point=zero_point,
        num_classes=network.num_classes,
        fraction_bits=network.scores.fraction_bits,
        outcome="one score, which tells two classes apart"
        if one_score
        else f"{network.num_classes} classes",
        scores=_scores(one_score, network.scores.fraction_bits),
    )


def _scores(one: bool, fraction_bits: int) -> str:
    kind = "an integer" if one else "integers"
    if fraction_bits > 0:
        kind = f"{'a logit' if one else 'logits'} in fixed point with {fraction_bits} fraction bits"
    return f"{kind}; {'at least 0 is class 1' if one else 'the largest is the class'}"


def _column_lines(columns: Sequence[Column]) -> tuple[str, ...]:
    """``COLUMN(shift, low, high, factor)`` for each, with place and name, as lines of a macro."""
    lines = [
        f"COLUMN({one.shift}, {one.low}, {one.high}, {one.factor}u)"
        f" /* {comment_text(f'{place} {one.name}'.rstrip())} */"
        for place, one in enumerate(columns)
    ]
    return tuple(f"{line} \\" for line in lines[:-1]) + tuple(lines[-1:])
