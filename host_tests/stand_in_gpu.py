"""A stand-in for a GPU, which runs kernels on the CPU by the model of CUDA and notes launches."""

import ctypes
import functools
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from edgebnn.codegen.env import resource_dir
from edgebnn.cuda.gpu import WORDS
from edgebnn.cuda.layers import Grid

_START = """
extern "C" int start_{name}(
    unsigned blocks, unsigned threads, size_t shared, void **arguments, bool cooperative)
{{
    cudaError_t status = cudaFuncSetAttribute(
        {name}, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);

    const auto launch = cooperative ? cudaLaunchCooperativeKernel<{argument}>
                                    : cudaLaunchKernel<{argument}>;

    return status ? status
        : launch({name}, dim3(blocks), dim3(threads), arguments, shared, nullptr);
}}
"""


@functools.cache
def _compiled(source: str, names: tuple[str, ...], level: int) -> ctypes.CDLL:
    """A library that starts kernels of ``source``; what packs is the same at every level."""
    with tempfile.TemporaryDirectory() as folder:
        file, library = Path(folder) / "kernels.cpp", Path(folder) / "kernels.so"
        starts = "".join(
            _START.format(name=name, argument="runs" if name.endswith("all_layers") else "run")
            for name in names
        )
        file.write_text(
            f'#include "cuda_runtime.h"\n{source}\nusing namespace edgebnn_cuda;\n{starts}'
        )
        include = str(resource_dir("templates") / "harness" / "cuda")
        flags = ("-std=c++17", "-O1", "-w", "-U_FORTIFY_SOURCE", "-fno-gnu-unique")
        defined = ("-DEDGEBNN_CUDA_MODEL", f"-DEDGEBNN_LEVEL={level}", "-I", include)
        made = ("-fPIC", "-shared", "-o", str(library))
        done = subprocess.run(
            ["g++", *flags, *defined, *made, str(file)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[:4000]
        return ctypes.CDLL(str(library))


@dataclass(frozen=True)
class Launched:
    """What a GPU was told: six words of arguments among it, of the first layer where it is all."""

    name: str
    grid: Grid
    blocks: int
    arguments: tuple[int, ...]
    stream: int
    cooperative: bool = False
    barrier: int = 0  # its address


@dataclass(eq=False)
class ModelGpu:
    """Compiles kernels for the CPU and runs them there, at once; memory is the CPU's."""

    level: int
    multiprocessors: int = 3
    cooperative: bool = True
    runs: bool = True  # else it only notes
    launched: list[Launched] = field(default_factory=list)

    def kernels(self, source: str, grids: dict[str, Grid]) -> dict[str, object]:
        if not self.runs:
            return {name: (name, None) for name in grids}
        loaded = _compiled(source, tuple(grids), self.level if "EDGEBNN_LEVEL" in source else 0)
        return {name: (name, getattr(loaded, f"start_{name}")) for name in grids}

    def launch(
        self,
        kernel: object,
        grid: Grid,
        blocks: int,
        arguments: int,
        stream: int,
        *,
        cooperative: bool = False,
    ) -> None:
        name, start = kernel  # type: ignore[misc]
        words = ctypes.cast(arguments, ctypes.POINTER(ctypes.POINTER(ctypes.c_int64)))[0]
        row = 0
        while cooperative and words[row + WORDS - 1] != 0:  # the batch: of a layer
            row += WORDS
        barrier = words[row] if cooperative else 0
        given = tuple(words[:WORDS])
        self.launched.append(Launched(name, grid, blocks, given, stream, cooperative, barrier))
        if start is not None:
            status = start(
                ctypes.c_uint(blocks),
                ctypes.c_uint(grid.threads),
                ctypes.c_size_t(grid.shared),
                ctypes.c_void_p(arguments),
                ctypes.c_bool(cooperative),
            )
            assert status == 0, f"{name}: CUDA error {status}"
