"""Run a network from torch: on a GPU by kernels made for it, on the CPU by the oracle.

The integers are the same on both, and the oracle's. What runs on a GPU is compiled by NVRTC when a
network first meets it, and started on torch's current stream in torch's memory, so that it can be
captured in a ``torch.cuda.graph``, after one call. In ``torch.compile`` it is one operator,
``edgebnn::network_scores``.
"""

import contextlib
import functools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor, nn

from edgebnn import reference
from edgebnn.checkpoint import read
from edgebnn.codegen.cuda import device_source, kernel_name
from edgebnn.cuda import gpu as gpus
from edgebnn.cuda.gpu import Gpu
from edgebnn.cuda.layers import Grid
from edgebnn.cuda.memory import IMAGES
from edgebnn.cuda.queue import PREFIX, AtOnce, Job, Memory, Pointer, Queue
from edgebnn.cuda.schedule import Place, Schedule, Step, schedule
from edgebnn.errors import EdgebnnError
from edgebnn.ir import Network, sha256
from edgebnn.proof import prove

_ALIGNED = 256  # bytes, of tables
_MOST_BYTES = 2**30  # between layers; larger batches are cut
_BARRIERS = 4096  # of grids
_BARRIER_BYTES = 32  # so that they do not lie in one sector of the GPU's memory


def load(
    model: "str | os.PathLike[str] | nn.Module | Network",
    level: int | None = None,
    *,
    persistent: bool = True,
) -> "Runner":
    """A model to run on batches.

    What a module or a file computes is compared with its network (see :mod:`edgebnn.proof`) first.

    Args:
        model: path of a model file, a module in either mode, or a network.
        level: at most so much of a GPU is used, by its place in
            :data:`edgebnn.cuda.layers.LEVELS`; all by default.
        persistent: one kernel for all layers where :mod:`edgebnn.cuda.persistent` has it; else, and
            without, a kernel or more a layer.

    Raises:
        EdgebnnError: the file or the model cannot be used; says why.
    """
    if isinstance(model, Network):
        return Runner(model, level, persistent=persistent)
    module = model if isinstance(model, nn.Module) else read(Path(model)).model
    return Runner(prove(module).network, level, persistent=persistent)


class Runner:
    """A network to call on images.

    Attributes:
        network: what it runs.
        fraction_bits: binary places of a score.
    """

    def __init__(
        self, network: Network, level: int | None = None, *, persistent: bool = True
    ) -> None:
        key = sha256(network) if level is None else f"{sha256(network)} {level}"
        key = key if persistent else f"{key} chain"
        self._key = key
        self._loaded = _LOADED.get(key) or _Loaded(network, level, persistent)
        _LOADED[key] = self._loaded
        self.network = network
        self.fraction_bits = network.scores.fraction_bits

    def __call__(self, images: Tensor) -> Tensor:
        """Scores (N, classes) int32, on the images' device.

        Args:
            images: (N, channels, height, width) uint8, below 2**bits; signals are (N, channels,
                samples). Of a flat network, and where there is one channel, (N, features) too.
                Memory format channels_last saves a copy. On a GPU the range is not looked at
                while a graph is captured.

        Raises:
            EdgebnnError: images of the wrong size, type or range.
        """
        if torch.compiler.is_compiling() or type(images) is not Tensor:
            scores: Tensor = network_scores(images, self._key)
            return scores
        return _run(images, self._loaded)  # an operator of torch costs as much as a small network

    def predict(self, images: Tensor) -> Tensor:
        """The class (N,) of each image, int64: the first of the best scores.

        Of a single score, 1 where it is at least 0, else 0.
        """
        scores = self(images)
        if scores.shape[1] == 1:
            return (scores[:, 0] >= 0).long()
        return scores.argmax(dim=1)

    def prepare(self, device: "torch.device | str | int" = "cuda") -> None:
        """Compile for a GPU and bring the weights there, which the first call does otherwise.

        Raises:
            EdgebnnError: there is no such GPU, or something is not installed; says what.
        """
        chosen = torch.device(device)
        if chosen.type == "cuda":
            self._loaded.on(chosen)


class _Loaded:
    """A network, and its kernels and tables on the GPUs that have met it."""

    def __init__(self, network: Network, level: int | None, persistent: bool) -> None:
        self.network = network
        self._level = level
        self._persistent = persistent
        self._there: dict[int, _OnGpu] = {}

    @functools.cached_property
    def _schedule(self) -> Schedule:
        return schedule(self.network)

    def on(self, device: torch.device) -> "_OnGpu":
        index = device.index
        if index is None:
            index = torch.cuda.current_device() if torch.cuda.is_available() else 0
        if index not in self._there:
            chosen = gpus.gpu(index, self._level)
            if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
                raise EdgebnnError(
                    "call the runner once, or its prepare(), before a graph's capture"
                )
            self._there[index] = _OnGpu(
                self._schedule, chosen, torch.device("cuda", index), persistent=self._persistent
            )
        return self._there[index]


class _OnGpu:
    """A network on one GPU."""

    def __init__(
        self, plan: Schedule, gpu: Gpu, device: torch.device, *, persistent: bool = True
    ) -> None:
        self._plan = plan
        self._gpu = gpu
        self._jobs, self._at_once, tables = _jobs(plan, gpu)
        if not (persistent and gpu.cooperative):
            self._at_once = None
        self._tables = torch.from_numpy(tables).to(device)
        size = 0 if self._at_once is None else _BARRIERS * _BARRIER_BYTES
        self._barriers = torch.zeros(size, dtype=torch.uint8, device=device)
        self._unused = iter(range(0, size, _BARRIER_BYTES))
        self._of_stream: dict[int, int] = {}
        a_batch = max(plan.image_bytes, 1)
        cut = min(_MOST_BYTES // a_batch, plan.most_images) // IMAGES * IMAGES
        self._most = max(cut, IMAGES)
        self._queue: Callable[[int, bool], Queue] = functools.lru_cache(64)(self._make_queue)

    def scores(self, images: Tensor, stream: int) -> Tensor:
        """Of images (N, height, width, channels), contiguous."""
        count, classes = len(images), self._plan.network.num_classes
        scores = torch.empty((count, classes), dtype=torch.int32, device=images.device)
        size = self._plan.image_bytes * _filled(min(count, self._most))
        between = torch.empty(size, dtype=torch.uint8, device=images.device)
        for first in range(0, count, self._most):
            batch = min(count - first, self._most)
            barrier = self._barrier(batch, stream)
            self._queue(batch, barrier is not None).run(
                images.data_ptr() + first * self._plan.network.input_bytes,
                scores.data_ptr() + first * classes * scores.itemsize,
                between.data_ptr(),
                self._tables.data_ptr(),
                stream,
                barrier or 0,
            )
        return scores

    def _barrier(self, batch: int, stream: int) -> int | None:
        """The address of a barrier for all layers at once, or None: a chain of kernels it is.

        Launches that may run at the same time need one each. Those of a stream never do. A graph
        runs on whatever stream, so that what is captured keeps its own for good.
        """
        if self._at_once is None or batch > (self._at_once.launch.most or batch):
            return None
        captured = self._tables.is_cuda and torch.cuda.is_current_stream_capturing()
        place = None if captured else self._of_stream.get(stream)
        if place is None:
            place = next(self._unused, None)
            if place is None:
                return None
            if not captured:
                self._of_stream[stream] = place
        return self._barriers.data_ptr() + place

    def _make_queue(self, batch: int, at_once: bool) -> Queue:
        chosen = self._at_once if at_once else None
        return Queue(self._gpu, self._jobs, batch, _filled(batch), chosen)


def _filled(batch: int) -> int:
    return -(-batch // IMAGES) * IMAGES


def _jobs(
    plan: Schedule, gpu: Gpu
) -> "tuple[list[Job], AtOnce | None, np.ndarray[Any, np.dtype[np.uint8]]]":
    """The kernels of all steps, that of all steps at once, and the bytes of all tables."""
    grids: dict[str, Grid] = {}
    tables = bytearray()

    def table(values: "np.ndarray[Any, Any] | None") -> Pointer:
        if values is None:
            return Pointer()
        tables.extend(bytes(-len(tables) % _ALIGNED))
        pointer = Pointer(Memory.TABLES, fixed=len(tables))
        tables.extend(values.tobytes())
        return pointer

    for step in plan.steps:
        for launch in step.layer.launches:
            grids[kernel_name(PREFIX, step.op.name, launch)] = launch.grid(gpu.level)
    whole = plan.at_once
    if whole is not None:
        grids[kernel_name(PREFIX, "", whole)] = whole.grid(gpu.level)
    kernels = gpu.kernels(device_source(plan, PREFIX), grids)
    jobs, layers = [], []
    for step in plan.steps:
        weights, limits = table(step.layer.weights), table(step.layer.limits)
        source, other, result, scratch = _pointers(step)
        jobs += [
            Job(
                kernels[kernel_name(PREFIX, step.op.name, launch)],
                launch,
                scratch if launch.reads_scratch else source,
                other,
                scratch if launch.writes_scratch else result,
                weights,
                limits,
            )
            for launch in step.layer.launches
        ]
        layers.append(replace(jobs[-1], source=source))
    at_once = None
    if whole is not None:
        at_once = AtOnce(kernels[kernel_name(PREFIX, "", whole)], whole, tuple(layers))
    return jobs, at_once, np.frombuffer(tables or bytearray(1), np.uint8)


def _pointers(step: Step) -> tuple[Pointer, Pointer, Pointer, Pointer]:
    """Of source, other, result and scratch."""

    def at(place: Place, outside: Memory) -> Pointer:
        return Pointer(outside) if place is None else Pointer(Memory.BETWEEN, place)

    source, *others = (at(place, Memory.SOURCE) for place in step.source_places)
    result, scratch = at(step.result_place, Memory.RESULT), at(step.scratch_place, Memory.NONE)
    return source, others[0] if others else Pointer(), result, scratch


def _run(images: Tensor, loaded: _Loaded) -> Tensor:
    network = loaded.network
    _check(images, network)
    if images.is_cuda:
        there = loaded.on(images.device)
        with _on_device(images.device):
            _check_range(images, network)
            stream = torch.cuda.current_stream(images.device).cuda_stream
            return there.scores(_channels_last(images, network), stream)
    if images.device.type != "cpu":
        raise EdgebnnError(
            f"images are on {images.device}; edgebnn.cuda runs on cuda and cpu, so move them there"
        )
    pixels = _channels_last(images, network).numpy()
    return torch.from_numpy(reference.run(network, pixels).scores)


def _on_device(device: torch.device) -> contextlib.AbstractContextManager[object]:
    if torch.cuda.current_device() == device.index:
        return contextlib.nullcontext()
    return torch.cuda.device(device)


def _check(images: Tensor, network: Network) -> None:
    """Type and shape; the values are another matter."""
    shape = network.input
    if images.dtype != torch.uint8:
        raise EdgebnnError(f"images must be uint8, not {str(images.dtype).removeprefix('torch.')}")
    whole, pixels = (shape.channels, shape.height, shape.width), shape.height * shape.width
    known: list[tuple[int, ...]] = [whole]
    if shape.width == 1:
        known.append(whole[:2])
    if shape.channels == 1 or pixels == 1:
        known.append((network.input_bytes,))
    if images.dim() < 2 or tuple(images.shape[1:]) not in known:
        wanted = f"{shape.channels} (features)"
        if shape.width == 1 and pixels > 1:
            wanted = f"{shape.channels}x{shape.height} (channels, samples)"
        elif pixels > 1:
            wanted = f"{'x'.join(map(str, whole))} (channels, height, width)"
        raise EdgebnnError(
            f"images are {'x'.join(map(str, images.shape[1:]))}, the network takes {wanted}"
        )


def _check_range(images: Tensor, network: Network) -> None:
    limit = 2**network.input.bits - 1
    if limit == 255 or not images.numel() or torch.cuda.is_current_stream_capturing():
        return
    largest = int(images.max())
    if largest > limit:
        raise EdgebnnError(
            f"an input is {largest}, the network takes 0 to {limit}; "
            f"shift 8-bit pixels right by {8 - network.input.bits}"
        )


def _channels_last(images: Tensor, network: Network) -> Tensor:
    """(N, height, width, channels), contiguous."""
    shape = network.input
    if images.dim() > 2:
        images = images.movedim(1, -1)
    return images.contiguous().view(-1, shape.height, shape.width, shape.channels)


_LOADED: WeakValueDictionary[str, _Loaded] = WeakValueDictionary()
"""By key, for the operator, to which torch gives no objects."""


def _find(key: str) -> _Loaded:
    loaded = _LOADED.get(key)
    if loaded is None:
        raise EdgebnnError("the network's runner is gone; keep it, or load the model again")
    return loaded


@torch.library.custom_op("edgebnn::network_scores", mutates_args=(), device_types=("cpu", "cuda"))
def network_scores(images: Tensor, key: str) -> Tensor:
    """Scores (N, classes) int32 of the network that a :class:`Runner` has under ``key``."""
    return _run(images, _find(key))


@network_scores.register_fake
def _(images: Tensor, key: str) -> Tensor:
    network = _find(key).network
    _check(images, network)
    return images.new_empty((images.shape[0], network.num_classes), dtype=torch.int32)
