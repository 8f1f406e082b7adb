"""What a run of a generated library gives, on this computer or on an emulated CPU."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebnn.errors import EdgebnnError
from edgebnn.reference import Outputs


@dataclass(frozen=True, slots=True, eq=False)
class Run(Outputs):
    """Outputs, and what was measured beside them where the runner can.

    ``instructions`` are exact counts of one ``<name>_predict`` call each, from its first
    instruction to its return, for the first inputs in order; ``each_layer_instructions`` has for
    each of them the part of each of the library's layers. ``cycles`` are the same where an emulator
    knows how long instructions take, and ``each_layer_cycles`` has the parts of the layers.
    ``stack_bytes`` is how far below the caller's stack pointer those calls wrote; None: not
    measured.
    """

    instructions: tuple[int, ...] = ()
    each_layer_instructions: tuple[tuple[int, ...], ...] = ()
    cycles: tuple[int, ...] = ()
    each_layer_cycles: tuple[tuple[int, ...], ...] = ()
    stack_bytes: int | None = None

    @property
    def layer_instructions(self) -> tuple[int, ...]:
        """Those of each layer: the mean over the same inputs, rounded down."""
        return _means(self.each_layer_instructions)

    @property
    def layer_cycles(self) -> tuple[int, ...]:
        """The same of cycles."""
        return _means(self.each_layer_cycles)


def _means(rows: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """Of each column; rounded down, so that their sum is no more than the mean of the whole."""
    return tuple(sum(column) // len(rows) for column in zip(*rows, strict=True))


def check_inputs(inputs: NDArray[np.uint8], input_bytes: int | None = None) -> None:
    """Check that ``inputs`` is uint8 of shape (N, input_bytes) with N at least 1.

    Raises:
        EdgebnnError: it is not; the message has both shapes.
    """
    width = "input_bytes" if input_bytes is None else str(input_bytes)
    fits = inputs.ndim == 2 and inputs.size > 0 and input_bytes in (None, inputs.shape[1])
    if inputs.dtype != np.uint8 or not fits:
        raise EdgebnnError(
            f"inputs are {inputs.dtype} {inputs.shape}; pass uint8 (N, {width}) with N > 0"
        )
