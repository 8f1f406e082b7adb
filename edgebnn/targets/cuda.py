"""GPUs: no CPUs, so that of all that knows targets only generate and verify know of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from edgebnn.errors import EdgebnnError


@dataclass(frozen=True, slots=True)
class Gpu:
    """What code is emitted for that no emulator runs; ``suffix`` is that of its source."""

    name: str
    title: str
    suffix: str
    doubt: str


CUDA = Gpu("cuda", "NVIDIA GPUs", "cu", "not emulated; sm_75 to sm_120, built by nvcc")


def check_options(given: Mapping[str, bool]) -> None:
    """Refuse options that are given and have no meaning on a GPU.

    Raises:
        EdgebnnError: there is one.
    """
    for option, there in given.items():
        if there:
            raise EdgebnnError(f"target '{CUDA.name}' has no {option}; leave it out")
