"""Products and convolutions of bits on a GPU, beside torch's own and a naive kernel's."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from edgebnn.cuda import matmul
from edgebnn.cuda.gpu import Gpu
from edgebnn.cuda.layers import LEVELS, Grid, Launch, Layer
from edgebnn.cuda.memory import channel_of_column, image_bytes
from edgebnn.cuda.product import plain_product, product
from edgebnn.ir import Bits, Conv, Threshold, infer
from edgebnn.study.gpu_times import Inputs, Machine, Row, Timer


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
        signs = [
            (random_signs(n, bench.device), random_signs(n, bench.device).t()) for _ in range(sets)
        ]
        exact = torch._int_mm(*signs[0])
        packing, stream = bench.gpus[-1], bench.stream()
        rows = [matmul.pack_rows(a, packing, stream) for a, _ in signs]
        columns, of_bits = (
            [matmul.pack_columns(b, packing, stream, bits=bits) for _, b in signs]
            for bits in (False, True)
        )
        for gpu in reversed(bench.gpus):
            yield _product_of_numbers(bench, gpu, n, rows, columns, exact)
            yield _product_of_bits(bench, gpu, n, rows, of_bits, exact)
        yield _naive_product(bench, n, signs, exact)
        yield _product_row(bench, n, "int8", "int32", torch._int_mm, signs)
        for how, kind in (("fp16", torch.float16), ("fp32", torch.float32)):
            given = [(a.to(kind), b.to(kind)) for a, b in signs]
            yield _product_row(bench, n, how, how, torch.matmul, given)
            del given


def random_signs(n: int, device: torch.device) -> Tensor:
    """(n, n) int8 of +1 and -1."""
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


def only_many(layer: Layer) -> Layer:
    """Without the kernels for few rows, which would be compiled for nothing."""
    return replace(layer, launches=(replace(layer.launches[-1], least=1),))


def _product_of_numbers(
    bench: Bench,
    gpu: Gpu,
    n: int,
    rows: Sequence[Tensor],
    columns: Sequence[tuple[Tensor, Tensor]],
    exact: Tensor,
) -> Row:
    dots = torch.empty((n, n), dtype=torch.int32, device=bench.device)
    run = bench.queue(gpu, "dots", only_many(plain_product(n, n, bits=False)), n)
    given = [(x, dots, *column) for x, column in zip(rows, columns, strict=True)]
    run(*given[0])
    good = torch.equal(dots, exact)
    return _product_row(bench, n, LEVELS[gpu.level], "int32", run, given, good)


def _product_of_bits(
    bench: Bench,
    gpu: Gpu,
    n: int,
    rows: Sequence[Tensor],
    columns: Sequence[tuple[Tensor, Tensor]],
    exact: Tensor,
) -> Row:
    device = bench.device
    layer = only_many(plain_product(n, n, bits=True))
    tile, count = int(layer.constants["TILE"]), int(layer.constants["ONES"])
    least = torch.randint(-(n // 64) - 1, n // 64 + 1, (n,), device=device)
    order = torch.from_numpy(channel_of_column(tile, bits=True)).to(device)
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
    return _product_row(bench, n, LEVELS[gpu.level], "bits", run, given, good)


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


def convolution(size: int, channels: int) -> tuple[Conv, Bits]:
    """3x3 with zeros around, and its source."""
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
    op, source = convolution(size, channels)
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
