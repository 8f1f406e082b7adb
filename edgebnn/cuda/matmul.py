"""The product of the signs of two matrices of numbers, exact, on a GPU by tensor cores of bits."""

import functools

import torch
from torch import Tensor

from edgebnn.codegen.cuda import kernel_name, source_of
from edgebnn.cuda import gpu as gpus
from edgebnn.cuda.gpu import Gpu
from edgebnn.cuda.layers import Grid, Launch, Layer
from edgebnn.cuda.memory import IMAGES
from edgebnn.cuda.product import plain_product, wide_units
from edgebnn.cuda.queue import PREFIX, Job, Memory, Pointer, Queue
from edgebnn.errors import EdgebnnError

MOST_FEATURES = 2**23
"""The longest sum: twice as much is exact in 32 bits with room to spare."""
TYPES = {
    torch.float32: 0,
    torch.float64: 1,
    torch.float16: 2,
    torch.bfloat16: 3,
    torch.int8: 4,
    torch.int16: 5,
    torch.int32: 6,
    torch.int64: 7,
}
"""As ``templates/cuda/pack.cuh.j2`` numbers them."""


def binary_matmul(a: Tensor, b: Tensor) -> Tensor:
    """sign(a) @ sign(b), exact, with sign(0) = +1; the sign of a NaN is -1.

    On a GPU both are packed to bits first, which costs a reading of each: it is fast where both are
    large. The first call for a ``k`` and ``n`` compiles, some tenths of a second; ``m`` is free.

    Args:
        a: (m, k) of floating-point numbers or signed integers, k up to 2**23.
        b: (k, n), of the same or another such type, on the same device.

    Returns:
        (m, n) int32. There is no gradient.

    Raises:
        EdgebnnError: shapes that do not match, another type or device.
    """
    if torch.compiler.is_compiling() or type(a) is not Tensor or type(b) is not Tensor:
        product: Tensor = binary_matmul_operator(a.detach(), b.detach())
        return product
    return _product(a.detach(), b.detach())


@torch.library.custom_op("edgebnn::binary_matmul", mutates_args=(), device_types=("cpu", "cuda"))
def binary_matmul_operator(a: Tensor, b: Tensor) -> Tensor:
    """:func:`binary_matmul` for torch's dispatcher."""
    return _product(a, b)


@binary_matmul_operator.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    _check(a, b)
    return a.new_empty((a.shape[0], b.shape[1]), dtype=torch.int32)


def _product(a: Tensor, b: Tensor) -> Tensor:
    _check(a, b)
    if a.is_cuda:
        with torch.cuda.device(a.device):
            stream = torch.cuda.current_stream(a.device).cuda_stream
            return on_gpu(a, b, gpus.gpu(a.device.index), stream)
    if a.device.type != "cpu":
        raise EdgebnnError(
            f"matrices are on {a.device}; edgebnn.cuda runs on cuda and cpu, so move them there"
        )
    # float64, because torch may round float32 to less where it is told to.
    signs = [torch.where(x >= 0, 1.0, -1.0).to(torch.float64) for x in (a, b)]
    return (signs[0] @ signs[1]).to(torch.int32)


def _check(a: Tensor, b: Tensor) -> None:
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0]:
        shapes = " and ".join("x".join(map(str, x.shape)) or "a number" for x in (a, b))
        raise EdgebnnError(f"binary_matmul of {shapes}; it takes (m, k) and (k, n)")
    for x in (a, b):
        if x.dtype not in TYPES:
            name = str(x.dtype).removeprefix("torch.")
            raise EdgebnnError(f"binary_matmul of {name}; it takes floats and signed integers")
    if a.device != b.device:
        raise EdgebnnError(f"matrices are on {a.device} and {b.device}; move one to the other")
    if a.shape[1] > MOST_FEATURES:
        raise EdgebnnError(f"binary_matmul sums {a.shape[1]} numbers; it takes 2**23 at most")


def on_gpu(a: Tensor, b: Tensor, gpu: Gpu, stream: int) -> Tensor:
    """The product by kernels; for tests, ``gpu`` may be another than the tensors' own."""
    rows, features, columns = *a.shape, b.shape[1]
    result = torch.empty((rows, columns), dtype=torch.int32, device=a.device)
    if not rows or not columns or not features:
        return result.zero_()
    packed = pack_rows(a, gpu, stream)
    weights, limits = pack_columns(b, gpu, stream)
    product = _product_queue(gpu, features, columns, rows)
    product.run(packed.data_ptr(), result.data_ptr(), limits.data_ptr(), weights.data_ptr(), stream)
    return result


def pack_rows(a: Tensor, gpu: Gpu, stream: int) -> Tensor:
    """The bits of (m, k), as a product reads its rows."""
    rows, features = a.shape
    a, along = _laid(a, along=1)
    size = _filled(rows) * wide_units(features).count * 16
    packed = torch.empty(size, dtype=torch.uint8, device=a.device)
    queue = _pack_queue(gpu, features, 0, TYPES[a.dtype], along, rows, False)
    queue.run(a.data_ptr(), packed.data_ptr(), 0, 0, stream)
    return packed


def pack_columns(b: Tensor, gpu: Gpu, stream: int, *, bits: bool = False) -> tuple[Tensor, Tensor]:
    """The bits of (k, n), as a product reads its weights, and limits for its dots.

    With ``bits`` columns are in the order for results of bits.
    """
    features, columns = b.shape
    constants = plain_product(features, columns, bits=False).constants
    b, along = _laid(b, along=0)
    size = constants["COLUMNS"] * constants["TILE"] * constants["CHUNKS"] * 16
    weights = torch.empty(size, dtype=torch.uint8, device=b.device)
    limits = torch.zeros(constants["KINDS"], dtype=torch.int32, device=b.device)
    queue = _pack_queue(gpu, features, columns, TYPES[b.dtype], along, columns, bits)
    queue.run(b.data_ptr(), weights.data_ptr(), limits.data_ptr(), 0, stream)
    return weights, limits


def _laid(x: Tensor, along: int) -> tuple[Tensor, bool]:
    """``x`` without gaps, and whether what lies side by side is dimension ``along``."""
    for each in (x, x.t()):
        if each.is_contiguous():
            return x, each is x if along == 1 else each is not x
    return x.contiguous(), along == 1


def _filled(rows: int) -> int:
    return -(-rows // IMAGES) * IMAGES


@functools.lru_cache(256)
def _product_queue(gpu: Gpu, features: int, columns: int, rows: int) -> Queue:
    layer = plain_product(features, columns, bits=False)
    return layer_queue(gpu, "product", layer, rows)


@functools.lru_cache(256)
def _pack_queue(
    gpu: Gpu, features: int, columns: int, kind: int, along: bool, lines: int, bits: bool
) -> Queue:
    layer = pack_layer(features, columns, kind, along, bits=bits)
    return layer_queue(gpu, "pack", layer, lines)


def pack_layer(features: int, columns: int, kind: int, along: bool, *, bits: bool = False) -> Layer:
    """Packing of rows, or of ``columns`` if there are any; limits lie between layers.

    ``kind`` is a value of :data:`TYPES`; ``along`` says that the numbers of a row or of a column
    lie side by side. ``bits`` as in :func:`pack_columns`.
    """
    units = wide_units(features).count
    per_line = Grid(-(-units // 8), 8, 256)
    across = Grid(1, 256, 256, units)  # a warp has 32 lines and a chunk
    constants: dict[str, int | bool] = {
        "FEATURES": features,
        "UNITS": units,
        "TYPE": kind,
        "ALONG": along,
        "WEIGHTS": columns > 0,
    }
    if columns:
        product = plain_product(features, columns, bits=False).constants
        constants |= {key: product[key] for key in ("TILE", "ONES", "FACTORS")}
        constants["RESULT_PLANES"] = int(bits)
    return Layer(constants, (Launch("", "pack", (per_line if along else across,)),))


def layer_queue(gpu: Gpu, name: str, layer: Layer, rows: int) -> Queue:
    """A layer by itself: weights lie where tables do, and limits between layers."""
    named = {kernel_name(PREFIX, name, launch): launch.grid(gpu.level) for launch in layer.launches}
    kernels = _compiled(gpu, source_of([(name, layer)], PREFIX), tuple(named.items()))
    jobs = [
        Job(
            kernel=kernels[kernel],
            launch=launch,
            source=Pointer(Memory.SOURCE),
            other=Pointer(),
            result=Pointer(Memory.RESULT),
            weights=Pointer(Memory.TABLES),
            limits=Pointer(Memory.BETWEEN),
        )
        for kernel, launch in zip(named, layer.launches, strict=True)
    ]
    return Queue(gpu, jobs, rows, _filled(rows))


@functools.lru_cache(256)
def _compiled(gpu: Gpu, source: str, grids: tuple[tuple[str, Grid], ...]) -> dict[str, object]:
    return gpu.kernels(source, dict(grids))
