"""The processes that train together, their device, their memory and their random numbers.

Everything random follows from ``(seed, epoch, rank)`` alone, so that a resumed run needs no saved
generator and ends with the same bits as one that was never interrupted, on the same machine with
the same number of threads.
"""

import ctypes
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.distributed as dist
from torch import Tensor

from edgebnn.errors import EdgebnnError
from edgebnn.nn.trace import first_line

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class Process:
    """This process among those that train together."""

    rank: int
    count: int
    device: torch.device


@contextmanager
def processes(device: Device) -> Iterator[Process]:
    """Joins the group that torchrun's environment describes, if any, and leaves it at the end."""
    kind = device_kind(device)
    count = _number("WORLD_SIZE", 1)
    if count == 1:
        yield Process(0, 1, torch.device(kind))
        return
    index = _number("LOCAL_RANK", 0)
    if kind == "cuda" and index >= torch.cuda.device_count():
        raise EdgebnnError(
            f"{torch.cuda.device_count()} CUDA devices for more processes; "
            "give --nproc-per-node that many, or --device cpu"
        )
    here = torch.device(kind, index) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(here)
    try:
        dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    except (ValueError, RuntimeError) as error:
        raise EdgebnnError(
            f"cannot join the {count} processes of WORLD_SIZE ({first_line(error)}); "
            "start them by torchrun, or unset it"
        ) from None
    try:
        yield Process(dist.get_rank(), dist.get_world_size(), here)
    finally:
        dist.destroy_process_group()


def device_kind(device: str) -> str:
    """ "cpu" or "cuda", for "auto" too.

    Raises:
        EdgebnnError: there is no such device.
    """
    if device not in get_args(Device):
        raise EdgebnnError(f"unknown device '{device}'; pick one of: {', '.join(get_args(Device))}")
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise EdgebnnError("torch sees no CUDA device; use --device cpu")
    return "cuda" if has_cuda and device != "cpu" else "cpu"


def _number(variable: str, least: int) -> int:
    """A variable that torchrun sets; ``least`` where it has not."""
    text = os.environ.get(variable, str(least))
    if not (text.isascii() and text.isdecimal()) or int(text) < least:
        raise EdgebnnError(
            f"{variable} is '{text}', and torchrun sets a number from {least} on; unset it, or "
            "start the processes by torchrun"
        )
    return int(text)


@contextmanager
def own_generators(device: torch.device) -> Iterator[None]:
    """Leaves torch's global generators as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def stream(*parts: int | str) -> int:
    """A generator seed that belongs to ``parts`` alone."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def permutation(count: int, *parts: int | str) -> Tensor:
    """``range(count)`` in an order that belongs to ``parts`` alone."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(stream(*parts)))


def keep_memory() -> None:
    """Have glibc keep freed memory instead of giving it back to the system after each step.

    A convolution's step frees and asks again for tens of megabytes; the page faults of that take
    longer than the arithmetic. See ``mallopt(3)``; nothing happens where there is no glibc.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018  (another libc may have another mallopt)
        trim_threshold, top_pad, mmap_max = -1, -2, -4
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 2**26)
