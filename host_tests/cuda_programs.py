"""Emitted .cu files of many networks as one program, for the CPU model of CUDA or for a GPU."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgebnn import api, reference
from edgebnn.codegen import cuda
from edgebnn.codegen.env import resource_dir
from edgebnn.codegen.library import Library
from edgebnn.cuda.layers import LEVELS as NAMES
from edgebnn.cuda.schedule import schedule
from edgebnn.ir import Network

LEVELS = tuple(range(len(NAMES)))
CXX = (
    *("g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),
    *("-U_FORTIFY_SOURCE", "-x", "c++"),
)
_ALIGNMENT = ("-fsanitize=alignment", "-fno-sanitize-recover=all")

_MAIN = """
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <vector>

#define CHECK(call) if ((call) != 0) { std::fprintf(stderr, "%s\\n", #call); std::exit(1); }

template <class T> struct device_array {
    T *memory = nullptr;
    explicit device_array(size_t count) { CHECK(cudaMalloc(&memory, count * sizeof(T))); }
    ~device_array() { CHECK(cudaFree(memory)); }
};

template <class Model> void run_one(int (*create)(Model **, int),
    int (*scores)(Model *, const uint8_t *, int32_t *, int, CUstream_st *),
    int (*predict)(Model *, const uint8_t *, int32_t *, int, CUstream_st *),
    void (*destroy)(Model *), size_t input_bytes, size_t classes, const char *argument)
{
    Model *model = nullptr;
    std::vector<size_t> batches;
    std::istringstream sizes(argument);

    for (size_t batch; sizes >> batch;) {
        batches.push_back(batch);
    }
    const size_t most = *std::max_element(batches.begin(), batches.end());
    std::vector<uint8_t> images(most * input_bytes);
    CHECK(std::fread(images.data(), 1, images.size(), stdin) != images.size());
    CHECK(create(&model, most));
    for (const size_t batch : batches) {
        const device_array<uint8_t> inputs(batch * input_bytes); /* of exactly that size */
        const device_array<int32_t> outputs(1 + batch * classes), best(batch);
        int32_t *const first = outputs.memory + 1; /* which stores of 16 bytes would not do for */
        std::vector<int32_t> found(batch * (classes + 1));

        CHECK(cudaMemcpy(
            inputs.memory, images.data(), batch * input_bytes, cudaMemcpyHostToDevice));
        CHECK(scores(model, inputs.memory, first, batch, nullptr));
        CHECK(predict(model, inputs.memory, best.memory, batch, nullptr));
        CHECK(cudaDeviceSynchronize());
        CHECK(cudaMemcpy(
            found.data(), first, batch * classes * 4, cudaMemcpyDeviceToHost));
        CHECK(cudaMemcpy(
            found.data() + batch * classes, best.memory, batch * 4, cudaMemcpyDeviceToHost));
        CHECK(std::fwrite(found.data(), 4, found.size(), stdout) != found.size());
    }
    destroy(model);
#ifdef EDGEBNN_CUDA_MODEL
    CHECK(cuda_model::allocations());
#endif
}
"""


def library(network: Network, name: str) -> Library:
    """``network`` as CUDA."""
    return cuda.generate(schedule(network), name)


def build(
    networks: Sequence[Network], level: int, folder: Path, *flags: str, written: bool = False
) -> Path:
    """One program of all ``networks``, for one of :data:`LEVELS`; their files may be there."""
    source = write(networks, folder, written=written)
    program = folder / "program"
    compile_program(source, program, f"-DEDGEBNN_LEVEL={level}", *_ALIGNMENT, *flags)
    return program


def write(networks: Sequence[Network], folder: Path, *, written: bool = False) -> Path:
    """The main file of a program of all ``networks``, beside their files."""
    folder.mkdir(parents=True, exist_ok=True)
    text, body = "", ""
    for number, network in enumerate(networks):
        name = f"k{number}"
        if not written:
            api.write(library(network, name), folder, force=True)
        text += f'#include "{name}.cu"\n'
        functions = [f"{name}_{f}" for f in ("create", "scores", "predict", "destroy")]
        sizes = (f"K{number}_INPUT_BYTES", f"K{number}_NUM_CLASSES", f"argv[{number + 1}]")
        body += f"    run_one({', '.join((*functions, *sizes))});\n"
    source = folder / "src" / "main.cpp"
    source.write_text(f"{text}{_MAIN}\nint main(int, char **argv)\n{{\n{body}    return 0;\n}}\n")
    return source


def compile_program(source: Path, program: Path, *flags: str) -> None:
    """Compiles a source that includes emitted .cu files against the CPU model."""
    model = resource_dir("templates") / "harness" / "cuda"
    command = [*CXX, "-DEDGEBNN_CUDA_MODEL", "-I", str(model), "-I", str(source.parent), *flags]
    done = subprocess.run(
        [*command, "-o", str(program), str(source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[:4000]


def check_equal(
    program: Path,
    networks: Sequence[Network],
    inputs: Sequence[NDArray[np.uint8]],
    batches: Sequence[Sequence[int]],
    environment: Mapping[str, str] | None = None,
    *,
    under: Sequence[str] = (),
) -> None:
    """Checks that scores and classes of the program are the oracle's.

    ``batches`` are how many images each network meets at once, one size after the other. The
    program may run ``under`` a command that leaves its output alone.
    """
    images = [x.reshape(len(x), -1)[: max(sizes)] for x, sizes in zip(inputs, batches, strict=True)]
    assert [len(x) for x in images] == [max(sizes) for sizes in batches]
    done = subprocess.run(
        [*under, str(program), *(" ".join(map(str, sizes)) for sizes in batches)],
        input=b"".join(np.ascontiguousarray(x).tobytes() for x in images),
        capture_output=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr.decode()[:4000]}"
    found = np.frombuffer(done.stdout, np.int32)
    for number, (network, x) in enumerate(zip(networks, images, strict=True)):
        expected = reference.run(network, x)
        for batch in batches[number]:
            scores, found = np.split(found, [batch * network.num_classes])
            classes, found = np.split(found, [batch])
            scores = scores.reshape(batch, -1)
            label = f"network {number}, batch {batch}"
            np.testing.assert_array_equal(scores, expected.scores[:batch], label)
            np.testing.assert_array_equal(classes, expected.classes[:batch], label)
    assert not len(found)
