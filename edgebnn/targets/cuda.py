"""GPUs: no CPU, so that of all that knows targets only what writes code knows of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """What code is emitted for that no command runs; ``suffix`` is that of its source."""

    name: str
    title: str
    suffix: str
    doubt: str


CUDA = Gpu("cuda", "NVIDIA GPUs", "cu", "not emulated; sm_75 to sm_120, built by nvcc")
