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

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import edgebnn.nn as bnn
from edgebnn.checkpoint import read
from edgebnn.codegen.cuda import device_source, source_of
from edgebnn.cuda import gpu as gpus
from edgebnn.cuda import matmul
from edgebnn.cuda.gpu import Gpu
from edgebnn.cuda.layers import LEVELS, Grid, Launch, Layer
from edgebnn.cuda.memory import channel_of_column, image_bytes
from edgebnn.cuda.product import plain_product, product
from edgebnn.cuda.queue import PREFIX
from edgebnn.cuda.runner import Runner
from edgebnn.cuda.schedule import schedule
from edgebnn.errors import EdgebnnError
from edgebnn.ir import Bits, Conv, Dense, Ints, Network, Threshold, infer, tensors
from edgebnn.lower import lower
from edgebnn.study.gpu_times import EventTimer, Inputs, Machine, Row, Timer, elapsed
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


@dataclass(frozen=True, slots=True)
class Bench:
    """What measures, and how: ``gpus`` are one GPU at each of its levels."""

    gpus: tuple[Gpu, ...]
    device: torch.device
    timer: Timer
    machine: Machine

    def stream(self) -> int:
        """torch's current stream, which in a capture is another one."""
        if self.device.type != "cuda":
            return 0
        return int(torch.cuda.current_stream(self.device).cuda_stream)

    def queue(self, gpu: Gpu, name: str, layer: Layer, rows: int) -> Callable[..., None]:
        """A layer by itself, on tensors."""
        queue = matmul.layer_queue(gpu, name, layer, rows)

        def run(source: Tensor, result: Tensor, weights: Tensor, limits: Tensor) -> None:
            at = source.data_ptr(), result.data_ptr(), limits.data_ptr(), weights.data_ptr()
            queue.run(*at, self.stream())

        return run


def products(bench: Bench, sizes: Sequence[int]) -> Iterator[Row]:
    """Square ones, with results as bits and as int32."""
    for n in sizes:
        sets = 2 if n > 8192 else 4 if n > 2048 else 8
        signs = [(_signs(n, bench.device), _signs(n, bench.device).t()) for _ in range(sets)]
        exact = torch._int_mm(*signs[0])
        packing, stream = bench.gpus[-1], bench.stream()
        rows = [matmul.pack_rows(a, packing, stream) for a, _ in signs]
        columns = [matmul.pack_columns(b, packing, stream) for _, b in signs]
        for gpu in reversed(bench.gpus):
            yield from _our_products(bench, gpu, n, rows, columns, exact)
        yield _naive_product(bench, n, signs, exact)
        yield _product_row(bench, n, "int8", "int32", torch._int_mm, signs)
        for how, kind in (("fp16", torch.float16), ("fp32", torch.float32)):
            given = [(a.to(kind), b.to(kind)) for a, b in signs]
            yield _product_row(bench, n, how, how, torch.matmul, given)
            del given


def _signs(n: int, device: torch.device) -> Tensor:
    return torch.randint(0, 2, (n, n), dtype=torch.int8, device=device) * 2 - 1


_BYTES = {"naive": 1 / 8, "int8": 1.0, "fp16": 2.0, "fp32": 4.0, **dict.fromkeys(LEVELS, 1 / 8)}


def _product_row(
    bench: Bench,
    n: int,
    how: str,
    output: str,
    run: Callable[..., object],
    inputs: Inputs,
    good: bool = True,
) -> Row:
    out = {"bits": 1 / 8, "int32": 4.0}.get(output, _BYTES[how])
    operations, size = 2.0 * n**3, n * n * (2 * _BYTES[how] + out)
    limit = bench.machine.limit({how: operations}, size)
    name = f"edgebnn {how}" if how in LEVELS else how if how == "naive" else f"torch {how}"
    milliseconds = bench.timer.graph(run, inputs)
    note = "" if good else "DIFFERS from int8"
    return Row("product", f"{n}^3", name, output, milliseconds, operations, limit, note)


def _only_many(layer: Layer) -> Layer:
    """Without the kernels for few rows, which would be compiled for nothing."""
    return replace(layer, launches=(replace(layer.launches[-1], least=1),))


def _our_products(
    bench: Bench,
    gpu: Gpu,
    n: int,
    rows: Sequence[Tensor],
    columns: Sequence[tuple[Tensor, Tensor]],
    exact: Tensor,
) -> Iterator[Row]:
    how, device = LEVELS[gpu.level], bench.device
    dots = torch.empty((n, n), dtype=torch.int32, device=device)
    run = bench.queue(gpu, "dots", _only_many(plain_product(n, n, bits=False)), n)
    given = [(x, dots, *column) for x, column in zip(rows, columns, strict=True)]
    run(*given[0])
    good = torch.equal(dots, exact)
    yield _product_row(bench, n, how, "int32", run, given, good)

    layer = _only_many(plain_product(n, n, bits=True))
    tile, count = int(layer.constants["TILE"]), int(layer.constants["ONES"])
    least = torch.randint(-(n // 64) - 1, n // 64 + 1, (n,), device=device)
    order = torch.from_numpy(channel_of_column(tile)).to(device)
    in_columns = F.pad(least, (0, count - n)).reshape(-1, tile)[:, order].flatten()
    packed = torch.empty(n * n // 8, dtype=torch.uint8, device=device)
    given = []
    for x, (weights, found) in zip(rows, columns, strict=True):
        shift, ones = found[:count].long(), found[count : 2 * count]
        limits = -((shift - in_columns) // 2)  # of S, where dot = 2 S + shift
        given.append((x, packed, weights, torch.cat([limits.int(), ones])))
    run = bench.queue(gpu, "bits", layer, n)
    run(*given[0])
    good = torch.equal(_unpacked(packed, n), exact[:128] >= least)
    yield _product_row(bench, n, how, "bits", run, given, good)


def _unpacked(packed: Tensor, n: int) -> Tensor:
    """(128, n): the first rows of a result of bits."""
    first = packed[: 128 * n // 8].reshape(n // 128, 128, 16).transpose(0, 1)
    each = torch.arange(8, device=packed.device)
    return ((first.reshape(128, n // 8, 1) >> each & 1) > 0).reshape(128, n)


def _naive_layer(n: int) -> Layer:
    launch = Launch("", "naive", (Grid(n // 16, 16, 256),))
    return Layer({"FEATURES": n, "OUTPUTS": n}, (launch,), templates=("naive",))


def _naive_product(
    bench: Bench, n: int, signs: Sequence[tuple[Tensor, Tensor]], exact: Tensor
) -> Row:
    run = bench.queue(bench.gpus[0], "naive", _naive_layer(n), n)
    weights = 2 ** torch.arange(8, device=bench.device, dtype=torch.uint8)
    dots = torch.empty((n, n), dtype=torch.int32, device=bench.device)

    def packed(x: Tensor) -> Tensor:
        return ((x.reshape(-1, 8) > 0) * weights).sum(1, dtype=torch.uint8)

    given = [(packed(a), dots, packed(b.t()), dots) for a, b in signs]
    run(*given[0])
    return _product_row(bench, n, "naive", "int32", run, given, torch.equal(dots, exact))


def _convolution(size: int, channels: int) -> tuple[Conv, Bits]:
    rng = np.random.default_rng(channels)
    weights = rng.random((channels, 3, 3, channels)) < 0.5
    head = Threshold(rng.integers(-50, 50, channels).astype(np.int32))
    op = Conv("conv", "input", weights, (1, 1), (1, 1, 1, 1), 0, head)
    return op, Bits(size, size, channels)


def convolutions(bench: Bench, shapes: Sequence[tuple[int, int]], batch: int) -> Iterator[Row]:
    """3x3 with zeros around, bits in and bits out; torch's in fp32 and, channels last, in fp16."""
    for size, channels in shapes:
        for gpu in reversed(bench.gpus):
            yield from _our_convolution(bench, gpu, size, channels, batch)
        yield _torch_convolution(bench, size, channels, batch, "fp16")
        yield _torch_convolution(bench, size, channels, batch, "fp32")


def _convolution_row(
    bench: Bench,
    shape: tuple[int, int, int],
    how: str,
    output: str,
    moved: int,
    run: Callable[..., object],
    inputs: Inputs,
) -> Row:
    batch, size, channels = shape
    operations = 2.0 * batch * size * size * channels * 9 * channels
    limit = bench.machine.limit({how: operations}, moved)
    what = f"{batch} x {size}x{size}x{channels}, 3x3"
    name = f"{'edgebnn' if how in LEVELS else 'torch'} {how}"
    spent = bench.timer.graph(run, inputs)
    return Row("convolution", what, name, output, spent, operations, limit)


def _our_convolution(bench: Bench, gpu: Gpu, size: int, channels: int, batch: int) -> Iterator[Row]:
    op, source = _convolution(size, channels)
    layer, device = product(op, source), bench.device
    if LEVELS[gpu.level] == "wgmma" and not layer.constants["WGMMA"]:
        return
    assert layer.weights is not None
    assert layer.limits is not None
    weights = torch.from_numpy(layer.weights.view(np.uint8)).to(device)
    limits = torch.from_numpy(layer.limits).to(device)
    images = image_bytes(source) * batch
    result = torch.empty(image_bytes(infer(op, source)) * batch, dtype=torch.uint8, device=device)
    given = [
        (torch.randint(0, 256, (images,), device=device).byte(), result, weights, limits)
        for _ in range(4)
    ]
    run = bench.queue(gpu, "conv", layer, batch)
    shape, moved = (batch, size, channels), images + result.numel()
    yield _convolution_row(bench, shape, LEVELS[gpu.level], "bits", moved, run, given)


def _torch_convolution(bench: Bench, size: int, channels: int, batch: int, how: str) -> Row:
    kind = torch.float16 if how == "fp16" else torch.float32
    form = torch.channels_last if how == "fp16" else torch.contiguous_format

    def signs(*shape: int) -> Tensor:
        drawn = torch.randint(0, 2, shape, device=bench.device) * 2 - 1
        return drawn.to(kind).to(memory_format=form)

    weights = signs(channels, channels, 3, 3)
    given = [(signs(batch, channels, size, size), weights) for _ in range(2)]
    run = functools.partial(F.conv2d, padding=1)
    moved = 2 * given[0][0].numel() * weights.itemsize
    return _convolution_row(bench, (batch, size, channels), how, how, moved, run, given)


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
        runner = Runner(subject.network)
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
        if isinstance(source, Ints) and computes in LEVELS:
            kind, planes = (computes, source.bits) if isinstance(op, Dense) else ("dot4", 1)
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
            layer = _only_many(plain_product(n, n, bits=bits))
            found.append((source_of([(name, layer)], PREFIX), True))
        int8 = matmul.TYPES[torch.int8]
        for columns in (0, n):
            layer = matmul.pack_layer(n, columns, int8, along=True)
            found.append((source_of([("pack", layer)], PREFIX), False))
    for size, channels in case.convolutions:
        layer = product(*_convolution(size, channels))
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
    signs = [_signs(n, bench.device) for _ in range(2)]
    rows = matmul.pack_rows(signs[0], gpu, bench.stream())
    columns = matmul.pack_columns(signs[1].t(), gpu, bench.stream())
    dots = torch.empty((n, n), dtype=torch.int32, device=bench.device)
    work = bench.queue(gpu, "dots", _only_many(plain_product(n, n, bits=False)), n)
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
