"""The .cu files as nvcc compiles them for every architecture: no warning, and which instructions.

It needs no GPU. A BMMA multiplies bits on tensor cores, BGMMA does for four warps of Hopper, and an
IMMA multiplies bytes; where tensor cores have no bits nvcc would make many IMMA of a BMMA.
"""

import functools
import importlib.util
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from test_cuda import conv_chain, dense_chain, level_convs, sum_chain

from edgebnn import api
from edgebnn.checkpoint import load
from edgebnn.codegen import cuda
from edgebnn.cuda.layers import LEVELS as NAMES
from edgebnn.cuda.layers import Launch, Layer
from edgebnn.cuda.schedule import schedule
from edgebnn.ir import Network
from edgebnn.lower import lower

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "models"
LEVELS = {
    "75": "xor",
    **dict.fromkeys(("80", "86", "89", "90"), "mma"),
    "90a": "wgmma",
    **dict.fromkeys(("100", "120"), "bytes"),
}
SPILLED = 20
"""Instructions on local memory in a product by population counts: a few of about two thousand.

The compiler has 128 registers for it, so that a multiprocessor holds two blocks.
"""


def tool(name: str) -> str:
    """A program of NVIDIA's wheels."""
    spec = importlib.util.find_spec("nvidia.cu13")
    assert spec is not None, "install nvcc (make test does)"
    paths = [Path(path) / "bin" / name for path in spec.submodule_search_locations or ()]
    return str(next(path for path in paths if path.is_file()))


def compiled(network: Network, arch: str, folder: Path, *flags: str) -> dict[str, Counter[str]]:
    """How often each kernel has each instruction, compiled without a warning."""
    library = cuda.generate(schedule(network), "net")
    api.write(library, folder, force=True)
    return compiled_file(folder / "src" / "net.cu", arch, *flags)


def defined(level: str) -> tuple[str]:
    """The option of nvcc for this one of all levels."""
    return (f"-DEDGEBNN_LEVEL={NAMES.index(level)}",)


def compiled_file(source: Path, arch: str, *flags: str) -> dict[str, Counter[str]]:
    cubin = source.with_suffix(".cubin")
    command = [tool("nvcc"), "-O3", "-std=c++17", "-Werror", "all-warnings", *flags]
    command += [f"-arch=sm_{arch}", "-cubin", "-o", str(cubin), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stdout + done.stderr
    command = [tool("cuobjdump"), "-sass", str(cubin)]
    sass = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kernels: dict[str, Counter[str]] = {}
    for part in sass.split("Function : ")[1:]:
        name, _, code = part.partition("\n")
        instructions = re.findall(
            r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ +)?([A-Z]\w*)", code, re.M
        )
        kernels[name.strip()] = Counter(instructions)
    return kernels


def kernels_of(network: Network, wanted: Callable[[Layer], bool], body: str) -> set[str]:
    """Names of kernels with that body, of layers that are wanted."""
    return {
        cuda.kernel_name("net_", step.op.name, launch)
        for step in schedule(network).steps
        for launch in step.layer.launches
        if launch.body == body and wanted(step.layer)
    }


NETWORKS: dict[str, Callable[[], Network]] = {
    "dense": lambda: dense_chain(600, 64, 129, 33, planes=(1, 3, 1, 2)).network,
    "convs": lambda: conv_chain().network,
    "sums": lambda: sum_chain().network,
    "levels": lambda: level_convs().network,
    **{path.stem: lambda path=path: lower(load(path)) for path in sorted(EXAMPLES.glob("*.pt"))},
}


@pytest.mark.parametrize(
    ("name", "arch", "level"),
    [
        *(("sums", arch, "") for arch in LEVELS),
        *((name, arch, "") for name in ("dense", "convs") for arch in ("75", "80", "90a", "120")),
        *((path.stem, "90a", "") for path in EXAMPLES.glob("*.pt")),
        ("levels", "90a", ""),  # more registers than anything else needs
        *((name, arch, "popc") for name in ("dense", "convs") for arch in ("75", "90a", "120")),
        *(("dense", arch, "bytes") for arch in ("80", "90a")),
        ("dense", "80", "xor"),
    ],
)
def test_instructions(name: str, arch: str, level: str, tmp_path: Path) -> None:
    """Of a level that is asked for, or of the one that the text takes for the GPU."""
    network = NETWORKS[name]()
    kernels = compiled(network, arch, tmp_path, *(defined(level) if level else ()))
    level = level or LEVELS[arch]
    products = kernels_of(network, lambda _: True, "product")
    at_once = {"net_all_layers"} if schedule(network).at_once else set()
    by_bits = at_once if level in ("mma", "wgmma") else set()  # by mma_and, or else it counts
    counted = products if level == "popc" else set()
    warpgroup = kernels_of(network, lambda layer: bool(layer.constants["WGMMA"]), "product")
    groups = warpgroup if level == "wgmma" else set()
    assert products | at_once <= kernels.keys()
    assert products or name == "mnist_tiny"
    for kernel, instructions in kernels.items():
        assert sum(instructions.values()) > 5, kernel
        has_groups = bool(instructions["BGMMA"])
        assert has_groups == (kernel in groups), kernel
        others = kernel in products - groups
        with_bits = (others and level in ("xor", "mma", "wgmma")) or kernel in by_bits
        assert bool(instructions["BMMA"]) == with_bits, kernel
        assert bool(instructions["IMMA"]) == (others and level == "bytes"), kernel
        local = instructions["LDL"] + instructions["STL"]
        assert local <= (SPILLED if kernel in counted else 0), kernel
        if kernel in counted | (at_once - by_bits):
            assert instructions["POPC"] >= 7 * 8, kernel  # of 16 words 7 are counted, in 8 sums
    direct = kernels_of(network, lambda _: True, "direct")
    assert all(kernels[kernel]["IDP"] for kernel in direct)


def test_what_is_looked_for_can_be_seen(tmp_path: Path) -> None:
    """Emulated products of bits and local memory are found where they are."""
    network = dense_chain(257).network
    kernels = compiled(network, "100", tmp_path, *defined("mma"))
    assert kernels["net_op0"]["IMMA"]
    source = tmp_path / "src" / "net.cu"
    text = source.read_text()
    source.write_text(re.sub(r"bounds__\(.*\) net_op0\(", "bounds__(1024) net_op0(", text))
    kernels = compiled_file(source, "80")
    assert kernels["net_op0"]["STL"] + kernels["net_op0"]["LDL"] > 0


@pytest.mark.parametrize(
    ("arch", "level", "message"),
    [
        ("75", "bytes", "EDGEBNN_LEVEL 2 and 3 are for sm_80 and later"),
        ("75", "mma", "EDGEBNN_LEVEL 2 and 3 are for sm_80 and later"),
        ("90", "wgmma", "EDGEBNN_LEVEL 4 is for sm_90a"),
    ],
)
def test_a_level_that_the_gpu_lacks(arch: str, level: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=message):
        compiled(dense_chain(33).network, arch, tmp_path, *defined(level))


MAIN = """
#include <stdio.h>

#include "net.h"

int main(void)
{
    net *model = NULL;
    const int status = net_create(&model, 5);

    printf("%d %s\\n", (status == 0) == (model != NULL), net_message(status));
    net_destroy(model);
    return 0;
}
"""


def test_links_with_the_runtime_of_cuda(tmp_path: Path) -> None:
    """For two kinds of GPU in one object, called from C; without any GPU, create says why."""
    api.write(cuda.generate(schedule(dense_chain(200, 64).network), "net"), tmp_path)
    folder = tmp_path / "src"
    (folder / "main.c").write_text(MAIN)
    command = [tool("nvcc"), "-O3", "-std=c++17", "-Werror", "all-warnings"]
    command += ["-Xcompiler", "-Wall,-Wextra,-Werror"]
    for arch in ("80", "90a"):
        command += ["-gencode", f"arch=compute_{arch},code=sm_{arch}"]
    run = functools.partial(subprocess.run, cwd=folder, check=True, capture_output=True, text=True)
    run([*command, "-c", "net.cu", "-o", "net.o"])
    run(["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-c", "main.c"])
    runtime = Path(tool("nvcc")).parent.parent / "lib" / "libcudart_static.a"
    run(["g++", "main.o", "net.o", str(runtime), "-ldl", "-lpthread", "-lrt", "-o", "main"])
    consistent, message = run(["./main"]).stdout.strip().split(" ", 1)
    assert (consistent, bool(message)) == ("1", True)
    symbols = run(["nm", "--defined-only", "--extern-only", "net.o"]).stdout.split("\n")
    public = {line.split()[-1] for line in symbols if " T " in line}
    assert {name for name in public if "device_stub" not in name} == {
        *(f"net_{name}" for name in ("create", "scores", "predict", "destroy", "message")),
        *(cuda.kernel_name("net_", *one) for one in _launches(dense_chain(200, 64).network)),
        *("net_all_layers", "net_best", "net_level"),
    }


def test_a_level_that_is_asked_for_compiles_for_the_host_too(tmp_path: Path) -> None:
    """Where no GPU's code is made nothing says whose it would be."""
    api.write(cuda.generate(schedule(dense_chain(200, 64).network), "net"), tmp_path)
    command = [tool("nvcc"), "-std=c++17", "-Werror", "all-warnings", *defined("wgmma")]
    command += ["-gencode", "arch=compute_90a,code=sm_90a", "-c", "net.cu", "-o", "net.o"]
    done = subprocess.run(command, cwd=tmp_path / "src", capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def _launches(network: Network) -> list[tuple[str, Launch]]:
    return [
        (step.op.name, launch) for step in schedule(network).steps for launch in step.layer.launches
    ]
