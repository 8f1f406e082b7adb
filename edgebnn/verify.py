"""Does every backend compute what the model computes? Exact comparison, output by output."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgebnn import reference
from edgebnn.codegen.library import Library
from edgebnn.device import build, elf, host
from edgebnn.device.emulator import emulator_of
from edgebnn.device.toolchain import find_compiler
from edgebnn.errors import EdgebnnError
from edgebnn.ir import Network
from edgebnn.lower import integer_scores
from edgebnn.reference import Outputs
from edgebnn.targets import Target

Progress = Callable[[int], None]
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Backend:
    """What one backend computed, and how many of its outputs differ from torch's."""

    name: str
    outputs: Outputs
    differing: int

    def correct(self, labels: NDArray[np.int64]) -> int:
        """How many inputs it classified as labelled."""
        return int((self.outputs.classes == labels).sum())


@dataclass(frozen=True, slots=True)
class OnChip:
    """An emulated run: the backend's outputs and what they cost."""

    backend: Backend
    instructions: tuple[int, ...]  # exact, of the first inputs
    stack_bytes: int | None
    footprint: elf.Footprint
    compiler: str
    flags: str


def preprocess(pixels: NDArray[np.uint8], right_shift: int) -> NDArray[np.uint8]:
    """8-bit pixels as the network takes them: without their ``right_shift`` lowest bits."""
    return np.right_shift(pixels, np.uint8(right_shift))


def noise(network: Network, count: int, seed: int = 0) -> NDArray[np.uint8]:
    """(count, C, H, W) random inputs of the network's range, the same for a seed."""
    shape = (count, network.input.channels, network.input.height, network.input.width)
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**network.input.bits, shape, dtype=np.uint8)


def to_device_layout(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, C, H, W) -> (N, H * W * C): the order in which the device reads an input."""
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1)).reshape(len(images), -1)


def differing(a: Outputs, b: Outputs) -> int:
    """Inputs for which any score, or the class, is not the same."""
    same = (a.scores == b.scores).all(axis=1) & (a.classes == b.classes)
    return int((~same).sum())


def check_accuracy(recorded: float | None, correct: int, count: int) -> None:
    """Check that a model's recorded accuracy is ``correct`` of ``count``, or a rounding of that.

    Args:
        recorded: a fraction, rounded to four decimals or more; None: nothing to check.

    Raises:
        EdgebnnError: it is another one.
    """
    measured = correct / count
    if recorded is None or any(round(measured, n) == recorded for n in range(4, 18)):
        return
    raise EdgebnnError(
        f"all outputs are equal, but {correct} of {count} test inputs are classified as labelled, "
        f"{100 * measured:.2f} %, and the model file says {100 * recorded:.2f} %: it was measured "
        f"on other data, on other inputs than the integers of Input, or rounded too far; save the "
        f"model with test_accuracy={measured!r}"
    )


def run_torch(model: nn.Module, network: Network, images: NDArray[np.uint8]) -> Outputs:
    """The model itself, in eval mode on the CPU; images are (N, C, H, W) or (N, features)."""
    model = model.cpu().eval()
    parts = []
    for start in range(0, len(images), _BATCH):
        batch = torch.from_numpy(np.ascontiguousarray(images[start : start + _BATCH]))
        parts.append(integer_scores(model, batch, network).reshape(len(batch), -1))
    exact = np.concatenate(parts)
    scores = exact.astype(np.int32)
    if not np.array_equal(scores, exact):
        raise EdgebnnError("torch's scores do not fit 32 bits; the model cannot be verified")
    return Outputs(scores, scores.argmax(axis=1).astype(np.int32))


def run_reference(network: Network, inputs: NDArray[np.uint8], expected: Outputs) -> Backend:
    """The NumPy oracle."""
    outputs = reference.run(network, inputs)
    return Backend("reference (NumPy)", outputs, differing(outputs, expected))


def run_host(
    library: Library, inputs: NDArray[np.uint8], expected: Outputs, folder: Path, target: Target
) -> Backend:
    """The emitted C, built by this computer's compiler."""
    compiler = find_compiler(target)
    outputs = host.run(build.build_host(library, folder, compiler=compiler), inputs)
    return Backend(f"host C ({compiler.version})", outputs, differing(outputs, expected))


def run_emulated(
    library: Library,
    inputs: NDArray[np.uint8],
    expected: Outputs,
    folder: Path,
    target: Target,
    *,
    counted: int,
    optimize: str = "-O2",
    progress: Progress | None = None,
) -> OnChip:
    """The emitted C, cross-compiled and run on an emulated CPU."""
    image = build.build_firmware(library, target, folder, optimize=optimize)
    result = emulator_of(target).run(image, inputs, counted=counted, progress=progress)
    backend = Backend(
        f"emulated {target.cpu.name}",
        result,
        differing(result, expected),
    )
    return OnChip(
        backend,
        result.instructions,
        result.stack_bytes,
        elf.footprint(image.path),
        image.compiler.version,
        " ".join(image.flags),
    )
