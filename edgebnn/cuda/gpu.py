"""A GPU: compiles CUDA C++ for it with NVRTC, and launches kernels. What it needs is the driver.

cuda-core has NVRTC and the loading of code. The launch is the driver's own: the kernels take a
struct, which :func:`cuda.core.launch` cannot give them.
"""

import functools
import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

from edgebnn.cuda.layers import LEVELS, Grid
from edgebnn.errors import EdgebnnError

WORDS = 6
"""Of 8 bytes, that ``struct run`` has: source, other, result, weights, limits and batch.

The kernel of all layers takes one for each, side by side, and then the address of its barrier.
"""
_COMPILED: dict[str, bytes] = {}


class Gpu(Protocol):
    """What the runner needs of a GPU; tests have others in its place."""

    level: int  # in edgebnn.cuda.layers.LEVELS
    multiprocessors: int
    cooperative: bool  # all blocks of a launch can be had at once

    def __hash__(self) -> int: ...

    def kernels(self, source: str, grids: dict[str, Grid]) -> dict[str, Any]:
        """The kernels of these names in ``source``, to be launched with these grids."""

    def launch(
        self,
        kernel: Any,
        grid: Grid,
        blocks: int,
        arguments: int,
        stream: int,
        *,
        cooperative: bool = False,
    ) -> None:
        """Start a kernel; ``arguments`` is the address of the address of its ``struct run``."""


def architecture(capability: tuple[int, int]) -> tuple[str, int]:
    """NVRTC's name of a GPU of this compute capability, and its level.

    Raises:
        EdgebnnError: it is too old.
    """
    major, minor = capability
    if capability < (7, 5):
        raise EdgebnnError(
            f"the GPU has compute capability {major}.{minor}; edgebnn.cuda needs 7.5 or later"
        )
    if capability == (9, 0):
        return "sm_90a", LEVELS.index("wgmma")
    best = "xor" if major == 7 else "mma" if major < 10 else "bytes"
    return f"sm_{major}{minor}", LEVELS.index(best)


def compiled(source: str, arch: str, level: int) -> bytes:
    """The cubin of ``source``, CUDA C++, for ``arch``; of a text that was compiled before, at once.

    Raises:
        EdgebnnError: cuda-core or NVRTC is missing, or NVRTC does not know the architecture.
    """
    key = hashlib.sha256(f"{arch} {level}\n{source}".encode()).hexdigest()
    if key not in _COMPILED:
        core = _core()
        options = core.ProgramOptions(
            std="c++17", arch=arch, define_macro=("EDGEBNN_LEVEL", str(level))
        )
        try:
            _COMPILED[key] = bytes(core.Program(source, "c++", options).compile("cubin").code)
        except Exception as error:
            if "DynamicLibNotFound" in type(error).__name__:
                raise EdgebnnError(
                    "edgebnn.cuda needs NVRTC: pip install 'edgebnn[cuda]'"
                ) from error
            raise EdgebnnError(f"NVRTC, for {arch}: {error}") from error
    return _COMPILED[key]


def keep_compiled(source: str, arch: str, level: int, cubin: bytes) -> None:
    """Have :func:`compiled` give ``cubin``, which another process has made."""
    key = hashlib.sha256(f"{arch} {level}\n{source}".encode()).hexdigest()
    _COMPILED[key] = cubin


@functools.cache
def _core() -> Any:
    try:
        import cuda.core
    except ImportError:
        raise EdgebnnError("edgebnn.cuda needs cuda-core: pip install 'edgebnn[cuda]'") from None
    return cuda.core


@dataclass(frozen=True, slots=True)
class _Kernel:
    name: str
    function: Any  # the driver's
    code: Any  # which has to live as long


class NvidiaGpu:
    """The GPU that torch calls ``cuda:<index>``, at its own level or a lower one.

    Raises:
        EdgebnnError: there is none, or cuda-core is missing; says what to install.
    """

    def __init__(self, index: int, level: int | None = None) -> None:
        import torch

        if not torch.cuda.is_available():
            if torch.version.cuda is None:
                raise EdgebnnError("this torch has no CUDA; install a build of torch that has")
            raise EdgebnnError("torch finds no GPU; is the driver of NVIDIA installed?")
        self.arch, best = architecture(torch.cuda.get_device_capability(index))
        self.level = best if level is None else level
        if not 0 <= self.level <= best:
            raise EdgebnnError(f"the GPU has levels 0 to {best}, not {self.level}")
        properties = torch.cuda.get_device_properties(index)
        self.multiprocessors = int(properties.multi_processor_count)
        self._index = index
        _core()
        from cuda.bindings import driver

        self._driver = driver
        attribute = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH
        status, cooperative = driver.cuDeviceGetAttribute(attribute, index)
        self._check(status, "cuDeviceGetAttribute")
        self.cooperative = bool(cooperative)
        torch.cuda.synchronize(index)  # torch's context is there

    def kernels(self, source: str, grids: dict[str, Grid]) -> dict[str, _Kernel]:
        import torch

        cubin = compiled(source, self.arch, self.level)
        found = {}
        with torch.cuda.device(self._index):
            code = _core().ObjectCode.from_cubin(cubin)
            for name, grid in grids.items():
                function = self._driver.CUfunction(int(code.get_kernel(name).handle))
                found[name] = _Kernel(name, function, code)
                if grid.shared:  # what is more than 48 KB with the static has to be asked for
                    self._allow_shared(int(function), grid.shared, name)
        return found

    def launch(
        self,
        kernel: _Kernel,
        grid: Grid,
        blocks: int,
        arguments: int,
        stream: int,
        *,
        cooperative: bool = False,
    ) -> None:
        if cooperative:
            (status,) = self._driver.cuLaunchCooperativeKernel(
                kernel.function, blocks, 1, 1, grid.threads, 1, 1, grid.shared, stream, arguments
            )
        else:
            (status,) = self._driver.cuLaunchKernel(
                kernel.function, blocks, 1, 1, grid.threads, 1, 1, grid.shared, stream, arguments, 0
            )
        if status:
            self._check(status, kernel.name)

    def _allow_shared(self, function: int, size: int, name: str) -> None:
        attribute = (
            self._driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        )
        (status,) = self._driver.cuKernelSetAttribute(
            attribute, size, self._driver.CUkernel(function), self._driver.CUdevice(self._index)
        )
        self._check(status, name)

    def _check(self, status: Any, what: str) -> None:
        if status != self._driver.CUresult.CUDA_SUCCESS:
            raise EdgebnnError(f"CUDA, {what}: {self._driver.CUresult(status).name}")


@functools.cache
def gpu(index: int, level: int | None = None) -> Gpu:
    """The GPU that torch calls ``cuda:<index>``; see :class:`NvidiaGpu`."""
    return NvidiaGpu(index, level)
