"""One kernel for all layers of a network of dense ones: where it is used is decided here.

A chain of kernels takes about 2.5 microseconds a layer, however small a batch is. The kernel of all
layers has its blocks wait for each other instead, at a barrier of the grid, so that all of them
have to be on the GPU at once: at most one a multiprocessor, started by a cooperative launch, which
waits until there is room for all and refuses what never has. ``templates/cuda/persistent.cuh.j2``
has what it computes.
"""

from collections.abc import Sequence

from edgebnn.cuda.layers import Grid, Launch, Layer
from edgebnn.cuda.product import FEW
from edgebnn.ir import INPUT, Dense, Network, Raw

PLANE_BYTES = 24 * 1024
"""Of shared memory, for a batch's integers as planes of bits; partial sums take 20 KB of the 48."""
_MOST_LAYERS = 64  # whose arguments are less than the 4 KB that a kernel may have
_THREADS = 256
_COLUMNS = 32  # of a group, which a block has


def persistent(network: Network, layers: Sequence[Layer]) -> Launch | None:
    """The launch for all ``layers`` of ``network`` at once; ``most`` says up to which batch.

    There is none unless the network is a chain of dense layers, which read bits behind the first
    one, and an image fits.
    """
    names = (INPUT, *(op.name for op in network.ops))
    chain = all(
        isinstance(op, Dense) and op.source == name and not isinstance(op.head, Raw)
        for op, name in zip(network.ops, names, strict=False)
    )
    if not chain or not 0 < len(layers) <= _MOST_LAYERS:
        return None
    images = min(FEW, PLANE_BYTES // plane_bytes(layers[0]))
    if images == 0:
        return None
    groups = max(
        layer.constants["COLUMNS"] * layer.constants["TILE"] // _COLUMNS for layer in layers
    )
    grid = Grid(1, FEW, _THREADS, groups, resident=True)
    return Launch("all_layers", "persistent", (grid,), most=images)


def plane_bytes(first: Layer) -> int:
    """Those of an image's integers, which the ``first`` layer takes."""
    return first.constants["PLANES"] * first.constants["UNITS"] * 16
