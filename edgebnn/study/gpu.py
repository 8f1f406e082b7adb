"""What a GPU makes of bits: products, convolutions and networks, beside torch's own, in one run.

Baselines are torch's: fp32 without TF32, fp16 and int8; and a naive kernel on bits. Every product
of ours is compared with the int8 one. :mod:`edgebnn.study.gpu_times` says how it is timed.
"""

import copy
import functools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

import edgebnn.nn as bnn
from edgebnn.checkpoint import read
from edgebnn.codegen.cuda import device_source, source_of
from edgebnn.cuda import gpu as gpus
from edgebnn.cuda import matmul
from edgebnn.cuda.layers import LEVELS, Grid, Launch, Layer
from edgebnn.cuda.product import plain_product, product
from edgebnn.cuda.queue import PREFIX
from edgebnn.cuda.runner import Runner
from edgebnn.cuda.schedule import schedule
from edgebnn.errors import EdgebnnError
from edgebnn.ir import Bits, Conv, Dense, Ints, Network, Sums, tensors
from edgebnn.lower import lower
from edgebnn.study.gpu_products import (
    Bench,
    convolution,
    convolutions,
    only_many,
    products,
    random_signs,
)
from edgebnn.study.gpu_times import EventTimer, Inputs, Machine, Row, elapsed
from edgebnn.train.networks import Style, build
from edgebnn.train.twin import float_twin

PARTS = ("product", "convolution", "network")
SIZES = (1024, 2048, 4096, 8192, 16384)
CONVOLUTIONS = ((32, 128), (16, 256), (8, 512))  # height and width, channels in and out
CONVOLUTION_BATCH = 256
NETWORKS = (  # name, notation, shape, value around convolutions
    ("MNIST 784-3x4096-10", "3x4096FC", (1, 28, 28), -1),
    ("MNIST 784-3x2048-10", "3x2048FC", (1, 28, 28), -1),
    ("CIFAR-10 of the paper", "2x128C3-MP2-2x256C3-MP2-2x512C3-MP2-2x1024FC", (3, 32, 32), 0),
)
BATCHES = (1, 16, 256, 4096)
_SPIN = 2_000_000  # cycles


class _Cast(nn.Module):
    """In place of Input: integers as the twin computes."""

    def __init__(self, kind: torch.dtype) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.kind)


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A network to measure, and the module whose float twin it is compared with."""

    name: str
    module: nn.Module
    network: Network
    shape: tuple[int, ...]  # of an image, as the module takes it


def paper_networks() -> list[Subject]:
    """Those of :data:`NETWORKS`, with random weights, thresholds that matter and both slopes."""
    found = []
    for name, notation, shape, pad_value in NETWORKS:
        torch.manual_seed(0)
        module = build(notation, shape, 10, Style(pad_value=pad_value)).eval()
        with torch.no_grad():
            for norm in module.modules():
                if isinstance(norm, bnn.BatchNorm):
                    assert norm.running_mean is not None
                    norm.running_mean.normal_(0.0, 10.0)
                    norm.weight.normal_()
                    norm.bias.normal_(0.0, 0.1)
        found.append(Subject(name, module, lower(module), shape))
    return found


def networks(
    bench: Bench, subjects: Sequence[Subject], batches: Sequence[int], *, compiled: bool
) -> Iterator[Row]:
    """Whole networks on uint8 images, ours and their float twins."""
    for subject in subjects:
        runner, chain = Runner(subject.network), Runner(subject.network, persistent=False)
        at_once = schedule(subject.network).at_once
        forms = {
            "fp16": _twin(subject.module, torch.float16, bench.device),
            "fp32": _twin(subject.module, torch.float32, bench.device),
        }
        level = LEVELS[bench.gpus[-1].level]
        for batch in batches:
            given = [(_images(subject, batch, bench.device),) for _ in range(4)]
            row = functools.partial(_network_row, bench, subject, batch, given)
            yield row("edgebnn", "graph", "int32", runner, level)
            yield row("edgebnn", "eager", "int32", runner, level)
            if at_once is not None and batch <= (at_once.most or batch):
                yield row("edgebnn chain", "graph", "int32", chain, level)
                yield row("edgebnn chain", "eager", "int32", chain, level)
            for how, twin in forms.items():
                yield row(f"torch {how}", "graph", how, twin, how)
                yield row(f"torch {how}", "eager", how, twin, how)
                if compiled:
                    torch._dynamo.reset()
                    step = torch.compile(twin)
                    yield row(f"torch {how}", "compiled, graph", how, step, how)


def _network_row(
    bench: Bench,
    subject: Subject,
    batch: int,
    inputs: Inputs,
    how: str,
    way: str,
    output: str,
    run: Callable[..., object],
    computes: str,
) -> Row:
    timed = bench.timer.eager if way == "eager" else bench.timer.graph
    with torch.inference_mode():
        milliseconds = timed(run, inputs)
    plain, by_kind = _operations(subject.network, computes)
    work = {kind: batch * count for kind, count in by_kind.items()}
    limit = bench.machine.limit(work, batch * subject.network.input_bytes)
    what = f"{subject.name}, batch {batch}"
    return Row("network", what, f"{how}, {way}", output, milliseconds, batch * plain, limit)


def _operations(network: Network, computes: str) -> tuple[float, dict[str, float]]:
    """Of an image: two a weight and pixel, and what they are for what ``computes``."""
    shapes, plain = tensors(network), 0.0
    work: dict[str, float] = {}
    for op in network.ops:
        if not isinstance(op, Dense | Conv):
            continue
        source, result = shapes[op.source], shapes[op.name]
        pixels = getattr(result, "height", 1) * getattr(result, "width", 1)
        count = 2.0 * op.weights.size * pixels
        plain += count
        kind, planes = computes, 1
        if computes in LEVELS:
            match source:
                case Sums():  # a few, which are added one by one
                    continue
                case Ints():
                    kind, planes = (computes, source.bits) if isinstance(op, Dense) else ("dot4", 1)
                case Bits():
                    planes = source.planes
        if kind == "wgmma" and isinstance(op, Conv) and op.weights.shape[1:3] != (1, 1):
            kind = "mma"
        work[kind] = work.get(kind, 0.0) + planes * count
    return plain, work


def _twin(module: nn.Module, kind: torch.dtype, device: torch.device) -> nn.Module:
    twin = float_twin(copy.deepcopy(module))
    for name, part in list(twin.named_modules()):
        if isinstance(part, bnn.Input):
            parent, _, child = name.rpartition(".")
            setattr(twin.get_submodule(parent), child, _Cast(kind))
    twin = twin.eval().to(device, kind)
    if kind == torch.float16 and any(isinstance(part, nn.Conv2d) for part in twin.modules()):
        twin = twin.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return twin


def _images(subject: Subject, batch: int, device: torch.device) -> Tensor:
    top = 2**subject.network.input.bits
    images = torch.randint(0, top, (batch, *subject.shape), device=device).to(torch.uint8)
    if images.dim() == 4:
        images = images.to(memory_format=torch.channels_last)
    return images


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """What to measure; ``seconds`` a measurement."""

    sizes: tuple[int, ...]
    convolutions: tuple[tuple[int, int], ...]
    subjects: tuple[Subject, ...]
    batches: tuple[int, ...]
    seconds: float


def case(parts: Sequence[str], models: Sequence[Path], *, quick: bool) -> Case:
    """All of ``parts``, from :data:`PARTS`, and the networks of model files.

    Raises:
        EdgebnnError: this machine has no GPU, or a file cannot be used; says why.
    """
    if torch.version.cuda is None:
        raise EdgebnnError("this torch has no CUDA; install a build of torch that has")
    _in_another_process(_find_gpu)
    subjects = paper_networks() if "network" in parts else []
    for path in models:
        module = read(path).model.eval()
        first = next(part for part in module.modules() if isinstance(part, bnn.Input))
        subjects.append(Subject(path.stem, module, lower(module), first.shape))
    return Case(
        sizes=() if "product" not in parts else (1024, 4096, 8192) if quick else SIZES,
        convolutions=CONVOLUTIONS if "convolution" in parts else (),
        subjects=tuple(subjects),
        batches=(1, 256, 4096) if quick else BATCHES,
        seconds=0.06 if quick else 0.2,
    )


def prepare(case: Case) -> Bench:
    """Compile what ``case`` needs, by all cores, and measure the GPU's clock.

    This process must not have used the GPU before.
    """
    _compile_ahead(_sources(case))
    return open_bench(case.seconds)


def run(bench: Bench, case: Case, *, compiled: bool) -> Iterator[Row]:
    """All measurements of ``case``, as they come."""
    yield from products(bench, case.sizes)
    yield from convolutions(bench, case.convolutions, CONVOLUTION_BATCH)
    yield from networks(bench, case.subjects, case.batches, compiled=compiled)


def _sources(case: Case) -> list[tuple[str, bool]]:
    """What is going to be compiled, and whether for each level or for the highest alone."""
    found = []
    for n in case.sizes:
        for name, bits in (("dots", False), ("bits", True)):
            layer = only_many(plain_product(n, n, bits=bits))
            found.append((source_of([(name, layer)], PREFIX), True))
        int8 = matmul.TYPES[torch.int8]
        for columns, bits in ((0, False), (n, False), (n, True)):
            layer = matmul.pack_layer(n, columns, int8, along=True, bits=bits)
            found.append((source_of([("pack", layer)], PREFIX), False))
    for size, channels in case.convolutions:
        layer = product(*convolution(size, channels))
        found.append((source_of([("conv", layer)], PREFIX), True))
    return found + [
        (device_source(schedule(each.network), PREFIX), False) for each in case.subjects
    ]


def _compile_ahead(texts: Sequence[tuple[str, bool]]) -> None:
    arch, best = _in_another_process(_find_gpu)
    jobs = [
        (text, arch, level)
        for text, every in texts
        for level in (range(best + 1) if every else (best,))
    ]
    if not jobs:
        return
    workers = min(len(jobs), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
        cubins = pool.map(gpus.compiled, *zip(*jobs, strict=True))
        for (text, _, level), cubin in zip(jobs, cubins, strict=True):
            gpus.keep_compiled(text, arch, level, cubin)


def _find_gpu() -> tuple[str, int]:
    """The first GPU's architecture and level."""
    if not torch.cuda.is_available():
        raise EdgebnnError("torch finds no GPU; is the driver of NVIDIA installed?")
    return gpus.architecture(torch.cuda.get_device_capability(0))


def _in_another_process(call: Callable[[], tuple[str, int]]) -> tuple[str, int]:
    """This one is to fork, and so must not use the GPU yet."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as one:
        return one.submit(call).result()


def open_bench(seconds: float) -> Bench:
    """For the first GPU, whose clock it measures."""
    best = gpus.gpu(0)
    device = torch.device("cuda", 0)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    bench = Bench(
        tuple(gpus.gpu(0, level) for level in range(best.level + 1)),
        device,
        EventTimer(seconds),
        _machine(device),
    )
    return replace(bench, machine=replace(bench.machine, clock=_clock(bench)))


def _machine(device: torch.device) -> Machine:
    from cuda.bindings import driver

    def attribute(name: str) -> int:
        kind = getattr(driver.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(driver.cuDeviceGetAttribute(kind, 0)[1])

    most = 1000.0 * attribute("CLOCK_RATE")
    width, memory = attribute("GLOBAL_MEMORY_BUS_WIDTH"), attribute("MEMORY_CLOCK_RATE")
    version = int(driver.cuDriverGetVersion()[1])
    return Machine(
        name=torch.cuda.get_device_name(device),
        capability=torch.cuda.get_device_capability(device),
        multiprocessors=torch.cuda.get_device_properties(device).multi_processor_count,
        most_clock=most,
        clock=most,
        bytes_a_second=2 * 1000.0 * memory * width / 8,
        torch=torch.__version__,
        driver=f"for CUDA {version // 1000}.{version % 1000 // 10}",
    )


def _clock(bench: Bench) -> float:
    """Hz, right after half a second of products by all that the GPU has."""
    n, gpu = 8192, bench.gpus[-1]
    signs = [random_signs(n, bench.device) for _ in range(2)]
    rows = matmul.pack_rows(signs[0], gpu, bench.stream())
    columns = matmul.pack_columns(signs[1].t(), gpu, bench.stream())
    dots = torch.empty((n, n), dtype=torch.int32, device=bench.device)
    work = bench.queue(gpu, "dots", only_many(plain_product(n, n, bits=False)), n)
    layer = Layer({"CYCLES": _SPIN}, (Launch("", "spin", (Grid(1, 1, 32),)),), templates=("spin",))
    spin = bench.queue(gpu, "spin", layer, 1)
    passed = torch.zeros(1, dtype=torch.int64, device=bench.device)
    spin(rows, passed, dots, dots)
    began, milliseconds = time.perf_counter(), 1.0
    while time.perf_counter() - began < 0.5:
        for _ in range(50):
            work(rows, dots, *columns)
        milliseconds = elapsed(lambda: spin(rows, passed, dots, dots))
    return 1000 * int(passed) / milliseconds
