"""Does every backend compute what the model computes, and at what cost?

The one loop that runs a model on backends: torch in eval mode, the NumPy oracle, the emitted C on
targets, a board on a serial port, and a GPU. Comparisons are exact, output by output.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgebnn import reference
from edgebnn.checkpoint import Checkpoint
from edgebnn.codegen import c
from edgebnn.codegen.library import Library
from edgebnn.device import host
from edgebnn.device.build import Image, build_firmware, build_host
from edgebnn.device.elf import Footprint, footprint
from edgebnn.device.emulator import Emulator, emulator_of
from edgebnn.device.serial import Board, flashing
from edgebnn.device.wire import Info
from edgebnn.errors import EdgebnnError
from edgebnn.ir import Network, sha256
from edgebnn.nn import Input
from edgebnn.plan import plan
from edgebnn.reference import Outputs
from edgebnn.samples import device_rows
from edgebnn.targets import Target
from edgebnn.wishes import Wishes

Progress = Callable[[Target, int], None]
"""Told a target and the number of inputs done there."""
_BATCH = 500
_GPU_BATCHES = (1, 2, 16, 17, 250)  # the first ones: other kernels compute other batches


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A network, inputs (N, H * W * C) for it, and the outputs that all backends have to give."""

    network: Network
    inputs: NDArray[np.uint8]
    expected: Outputs


@dataclass(frozen=True, slots=True, eq=False)
class Backend:
    """What one backend computed, and how many of its outputs differ from torch's."""

    name: str
    outputs: Outputs
    differing: int

    def correct(self, labels: NDArray[np.int64]) -> int:
        """How many inputs it classified as labelled."""
        return int((self.outputs.classes == labels).sum())


@dataclass(frozen=True, slots=True, eq=False)
class OnTarget(Backend):
    """The emitted C on one target, and what it costs there.

    ``instructions`` are exact counts, of the first inputs, ``layer_instructions`` those of each
    layer, the mean over the same inputs; ``cycles`` and ``layer_cycles`` are a simulator's. They
    are empty, and ``stack_bytes`` None, where nothing counts them.
    ``footprint`` is None on this computer.
    """

    target: Target
    library: Library
    instructions: tuple[int, ...]
    layer_instructions: Mapping[str, int]
    cycles: tuple[int, ...]
    layer_cycles: Mapping[str, int]
    stack_bytes: int | None
    footprint: Footprint | None
    compiler: str
    flags: str

    @property
    def flash_bytes(self) -> int | None:
        """Constants and code."""
        size = self.footprint
        return None if size is None else size.constant_bytes + size.code_bytes

    @property
    def arena_bytes(self) -> int | None:
        """Static RAM."""
        return None if self.footprint is None else self.footprint.arena_bytes


@dataclass(frozen=True, slots=True, eq=False)
class OnBoard(Backend):
    """The emitted C on a board that was asked over its port, and how long it took.

    ``ticks`` are those of each input that the board's clock measured, ``seconds`` the round trips
    of all; ``retries`` requests had to be sent again.
    """

    info: Info
    ticks: tuple[int, ...]
    seconds: tuple[float, ...]
    retries: int


@dataclass(frozen=True, slots=True, eq=False)
class OnGpu(Backend):
    """:mod:`edgebnn.cuda` on a GPU, and which of its levels computed products of bits."""

    level: str


def confusion(
    classes: NDArray[np.int32], labels: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """(count, count): how many inputs of each class, a row, came out as each, a column."""
    matrix = np.zeros((count, count), np.int64)
    np.add.at(matrix, (labels, classes), 1)
    return matrix


def preprocess(pixels: NDArray[np.uint8], right_shift: int) -> NDArray[np.uint8]:
    """8-bit pixels as the network takes them: without their ``right_shift`` lowest bits."""
    return np.right_shift(pixels, np.uint8(right_shift))


def noise(network: Network, count: int, seed: int = 0) -> NDArray[np.uint8]:
    """(count, C, H, W) random inputs of the network's range, the same for a seed.

    Raises:
        EdgebnnError: they take more than 4 GB.
    """
    most = 2**32 // network.input_bytes
    if count > most:
        raise EdgebnnError(f"{count} random inputs are too many to hold; give up to {most}")
    shape = (count, network.input.channels, network.input.height, network.input.width)
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**network.input.bits, shape, dtype=np.uint8)


def samples(checkpoint: Checkpoint, network: Network) -> NDArray[np.uint8]:
    """(N, C, H, W) the inputs that a model file brings along; N is 0 where it has none."""
    shape = (network.input.channels, network.input.height, network.input.width)
    return checkpoint.samples.reshape(-1, *shape)


def recorded(checkpoint: Checkpoint, network: Network) -> NDArray[np.uint8]:
    """(N, H * W * C) :func:`samples`, as a device reads them."""
    return device_rows(checkpoint.samples, network.input.channels)


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


def integer_scores(model: nn.Module, images: torch.Tensor, network: Network) -> NDArray[np.int64]:
    """The scores that torch itself computes for ``images``, as the integers they are."""
    with torch.no_grad():
        logits = model(images).double().cpu().numpy()
    scaled = logits * 2.0**network.scores.fraction_bits
    scores = scaled.astype(np.int64)
    if not np.array_equal(scores, scaled):
        raise EdgebnnError("the model's outputs are not integer scores; is it in eval mode?")
    return np.asarray(scores)


def run_torch(
    model: nn.Module,
    network: Network,
    images: NDArray[np.uint8],
    progress: Callable[[int], None] | None = None,
) -> Outputs:
    """The model itself, in eval mode on the CPU; images are (N, C, H, W).

    ``progress`` is told how many are done, here and below.

    Raises:
        EdgebnnError: a score does not fit 32 bits.
    """
    model = model.cpu().eval()
    shape = next(m for m in model.modules() if isinstance(m, Input)).shape  # (features,) if flat
    parts = []
    for start in range(0, len(images), _BATCH):
        batch = torch.from_numpy(np.ascontiguousarray(images[start : start + _BATCH]))
        batch = batch.reshape(len(batch), *shape)
        parts.append(integer_scores(model, batch, network).reshape(len(batch), -1))
        if progress is not None:
            progress(start + len(batch))
    exact = np.concatenate(parts)
    scores = exact.astype(np.int32)
    if not np.array_equal(scores, exact):
        raise EdgebnnError("torch's scores do not fit 32 bits; the model cannot be verified")
    return Outputs(scores, reference.best(scores))


def trial(
    model: nn.Module,
    network: Network,
    images: NDArray[np.uint8],
    progress: Callable[[int], None] | None = None,
) -> Trial:
    """``network``, lowered from ``model``, on ``images`` (N, C, H, W); torch says what to expect.

    Raises:
        EdgebnnError: as :func:`run_torch`.
    """
    return Trial(network, to_device_layout(images), run_torch(model, network, images, progress))


def run_reference(given: Trial, progress: Callable[[int], None] | None = None) -> Backend:
    """The NumPy oracle."""
    parts = []
    for start in range(0, len(given.inputs), _BATCH):
        parts.append(reference.run(given.network, given.inputs[start : start + _BATCH]))
        if progress is not None:
            progress(min(start + _BATCH, len(given.inputs)))
    outputs = Outputs(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.classes for part in parts]),
    )
    return Backend("reference (NumPy)", outputs, differing(outputs, given.expected))


def runner_of(target: Target) -> Emulator:
    """What runs the programs of ``target``: this computer, or the emulator that measures most.

    Raises:
        EdgebnnError: nothing does.
    """
    return host if target.is_host else emulator_of(target)


def run_on(
    given: Trial,
    targets: Sequence[Target],
    folder: Path,
    *,
    prefer: tuple[str, ...] = (),
    wishes: Wishes = Wishes(),  # noqa: B008 - frozen
    samples: NDArray[np.uint8] | None = None,
    counted: int,
    optimize: str = "-O2",
    progress: Progress | None = None,
) -> Iterator[OnTarget]:
    """Emit, compile and run the network on each of ``targets``, below ``folder``.

    Args:
        prefer, wishes, samples: as :func:`edgebnn.plan.plan` takes them.
        counted: so many inputs have their instructions or cycles counted, where something can.
        optimize: the compiler's option.

    Raises:
        EdgebnnError: a target has no kernel, compiler or emulator, or its run fails.
        TooLarge: it has no room for the network.
    """
    for target in targets:
        library = c.generate(
            plan(given.network, target, prefer, wishes=wishes, samples=samples), "model"
        )
        image = _build(library, target, folder / target.name, optimize)

        def advance(done: int, target: Target = target) -> None:
            if progress is not None:
                progress(target, done)

        run = runner_of(target).run(image, given.inputs, counted=counted, progress=advance)
        yield OnTarget(
            name=_title(image),
            outputs=run,
            differing=differing(run, given.expected),
            target=target,
            library=library,
            instructions=run.instructions,
            layer_instructions=_by_layer(library, run.layer_instructions),
            cycles=run.cycles,
            layer_cycles=_by_layer(library, run.layer_cycles),
            stack_bytes=run.stack_bytes,
            footprint=None if target.is_host else footprint(image.path),
            compiler=image.compiler.version,
            flags=" ".join(image.flags),
        )


def run_board(given: Trial, board: Board, progress: Callable[[int], None] | None = None) -> OnBoard:
    """Ask an open ``board`` for the scores of every input; ``progress`` is told how many are done.

    Raises:
        EdgebnnError: the board runs another network, or cannot be asked.
    """
    info, before = board.info(), board.retries
    check_board(given.network, info, board.port)
    replies = []
    for done, values in enumerate(given.inputs, 1):
        replies.append(board.scores(values))
        if progress is not None:
            progress(done)
    outputs = Outputs(
        np.stack([reply.scores for reply in replies]),
        np.array([reply.best for reply in replies], np.int32),
    )
    return OnBoard(
        name=f"{info.target} on {board.port}",
        outputs=outputs,
        differing=differing(outputs, given.expected),
        info=info,
        ticks=tuple(reply.ticks for reply in replies if reply.ticks is not None),
        seconds=tuple(reply.seconds for reply in replies),
        retries=board.retries - before,
    )


def gpu_device() -> torch.device:
    """The first GPU, if :mod:`edgebnn.cuda` can run there.

    Raises:
        EdgebnnError: it cannot; says what is needed.
    """
    from edgebnn.cuda.gpu import gpu

    try:
        gpu(0)
    except EdgebnnError as error:
        raise EdgebnnError(f"target 'cuda' runs on a GPU of NVIDIA, and {error}") from None
    return torch.device("cuda", 0)


def run_gpu(
    given: Trial, device: torch.device, progress: Callable[[int], None] | None = None
) -> OnGpu:
    """:class:`edgebnn.cuda.Runner` on ``device``, batches of one image and of few among others.

    Raises:
        EdgebnnError: the network has no kernels for GPUs, or they cannot be compiled.
    """
    from edgebnn.cuda.gpu import gpu
    from edgebnn.cuda.layers import LEVELS
    from edgebnn.cuda.runner import Runner

    runner, shape = Runner(given.network), given.network.input
    pixels = torch.from_numpy(given.inputs).view(-1, shape.height, shape.width, shape.channels)
    images = pixels.permute(0, 3, 1, 2)
    parts, start, sizes = [], 0, iter(_GPU_BATCHES)
    while start < len(images):
        batch = images[start : start + next(sizes, _BATCH)].to(device)
        scores, classes = runner(batch).cpu().numpy(), runner.predict(batch).cpu().numpy()
        parts.append(Outputs(scores, classes.astype(np.int32)))
        start += len(batch)
        if progress is not None:
            progress(start)
    outputs = Outputs(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.classes for part in parts]),
    )
    return OnGpu(
        name=f"edgebnn.cuda on {torch.cuda.get_device_name(device)}",
        outputs=outputs,
        differing=differing(outputs, given.expected),
        level=LEVELS[gpu(device.index).level],
    )


def check_board(network: Network, info: Info, port: str, model: str = "MODEL") -> None:
    """Check that what a board says of itself is ``network``, which the file ``model`` holds.

    Raises:
        EdgebnnError: it is not; says how to flash the right one.
    """
    own = sha256(network)
    if info.sha256 != own:
        raise EdgebnnError(
            f"{port}: the board runs another model, {info.name} (sha256 {info.sha256[:12]}...), "
            f"not {model} (sha256 {own[:12]}...); flash it: {flashing(model)}"
        )
    said = (info.input_bytes, info.num_classes, info.input_max, info.fraction_bits)
    shape = (network.input_bytes, network.num_classes, 2**network.input.bits - 1)
    if said != (*shape, network.scores.fraction_bits):
        raise EdgebnnError(
            f"{port}: the board says that it runs {model}, but with other sizes; flash it again: "
            f"{flashing(model)}"
        )


def _by_layer(library: Library, counts: tuple[int, ...]) -> Mapping[str, int]:
    names = [name.removeprefix(f"{library.name}_") for name in library.layers]
    return dict(zip(names, counts, strict=False))


def _build(library: Library, target: Target, folder: Path, optimize: str) -> Image:
    if target.is_host:
        return build_host(library, folder, optimize=optimize)
    return build_firmware(library, target, folder, optimize=optimize)


def _title(image: Image) -> str:
    if image.target.is_host:
        return f"host C ({image.compiler.version})"
    return f"emulated {image.target.cpu.name}"
