"""The CPU model of CUDA in templates/harness/cuda: its primitives, and what it refuses to run."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from edgebnn.codegen.env import resource_dir

MODEL = resource_dir("templates") / "harness" / "cuda"
FLAGS = ("-std=c++17", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-U_FORTIFY_SOURCE")
SANITIZERS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
COMPILERS = {"g++": ("g++",), "clang++": ("clang++",), "sanitizers": ("g++", *SANITIZERS)}

WORDS = ("words", "shuffles", "matrices", "mma_and", "mma_bytes", "mma_xor")
WITH_WAITS = ("reverse", *(f"copy_{n}" for n in (4, 8, 16)), "bulk")
GROUPS = tuple(f"group_{columns}" for columns in (64, 128, 256))
EQUAL = (*WORDS, "leftovers", "halves", *WITH_WAITS, *GROUPS, "grid")
UNSYNCED = (*WITH_WAITS, *GROUPS, "grid")

REFUSED = {
    "deadlock": r"deadlock in block 0: every thread waits\n  threads 0 to 31 have ended\n"
    r"  threads 32 to 63 are in named_barrier at \S+:\d+\n"
    r"  threads 64 to 127 are in __syncthreads at \S+:\d+\n",
    "divergent": r"thread 16 of block 0: __ballot_sync, but other lanes of warp 0 are in",
    "two_lines": r"__syncthreads, but other lanes of warp 0 are in __syncthreads at",
    "part_of_a_warp": r"knows the mask 0xFFFFFFFF only, not 0x0000ffff",
    "ended_lane": r"mma_and needs 32 lanes, of warp 0 only 0xffffff7f are left",
    "small_warp": r"mma_and needs 32 lanes, of warp 0 only 0x0000ffff are left",
    "shuffle_from_ended": r"lane 0 shuffles from lane 7, which has ended",
    "counts_differ": r"barrier 2: warp 1 waits for 128 threads, others for 64",
    "count_of_lanes": r"named_barrier\(2, 16\): 16 barriers, of multiples of 32 threads",
    "matrix_beyond": r"load_matrix: 16 bytes at offset 256 are not in the 256 bytes of shared",
    "matrix_misaligned": r"load_matrix: address \S+ is not a multiple of 16",
    "copy_beyond": r"copy_async: 16 bytes at offset 256 are not in the 256 bytes of shared memory",
    "copy_from_misaligned": r"copy_async: address \S+ is not a multiple of 8",
    "uninitialised": r"barrier_wait: the barrier is not initialised",
    "overwritten": r"barrier_wait: the barrier was overwritten",
    "initialised_twice": r"barrier_init: the barrier is initialised already",
    "arrivals": r"barrier_arrive: more arrivals in a phase than the 2 expected",
    "never_completes": r"deadlock in block 0.*\n  threads 0 to 31 are in barrier_wait",
    "bulk_size": r"copy_bulk: 24 bytes are not a multiple of 16",
    "bulk_unfenced": r"copy_bulk: no barrier_fence\(\) since barrier_init\(\)",
    "bulk_in_flight": r"copy_bulk: block 0 ended before it arrived",
    "group_unfenced": r"group_mma: no group_fence\(\) between a use of the sums and this",
    "group_released_early": r"group_mma: its shared memory changed before group_wait\(\)",
    "group_sums_early": r"group_mma: its sums were written before group_wait\(\)",
    "group_no_wait": r"group_mma: the kernel ends without a group_wait\(\) for it",
    "group_beyond": r"group_mma: 16 bytes at offset 4096 are not in the 4096 bytes of shared",
    "group_of_three": r"group_mma: warp 0 is in no warpgroup of 128 threads",
    "group_differs": r"group_mma: warps 0 and 3 issued different ones",
    "descriptor": r"matrix_descriptor: leading 8 and stride 256 have to be multiples of 16",
    "alone": r"load_acquire: that other blocks run as well is sure in a cooperative launch alone",
    "together_for_ever": r"thread 33 of block [01]: deadlock: every block waits for another, this"
    r" one in load_acquire",
    "together_deadlock": r"deadlock in block 1: every thread waits\n"
    r"  threads 0 to 31 are in __syncthreads at \S+:\d+\n"
    r"  threads 32 to 63 are in named_barrier at ",
    "copy_to_host_memory": r"cudaMemcpy: 256 bytes .* do not lie where the kind 1 says",
    "free_of_host_memory": r"cudaFree: \S+ is not from cudaMalloc, or was freed before",
}
TOUCHED = {  # what no function of the model sees, but the guards around memory do
    "read_beyond": r"thread 0 of block 0: access at offset 256 of 256 bytes of shared memory",
    "write_before": r"thread 0 of block 0: access at offset -1 of 32768 bytes of shared memory",
    "no_shared": r"access at offset 0 of 0 bytes of shared memory",
    "null": r"thread 0 of block 0: segmentation fault at",
    "stack": r"thread 0 of block 0: more than \d+ bytes of stack",
    "red_zone": r"cudaFree: byte 256 of an allocation of 256 was written",
}


def compiled(folder: Path, name: str, compiler: tuple[str, ...]) -> Path:
    source = Path(__file__).with_name(f"cuda_{name}.cu")
    command = [*compiler, *FLAGS, f"-I{MODEL}", "-x", "c++", str(source), "-o", str(folder / name)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return folder / name


def run(program: Path, case: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """``settings``: of the model, such as ``seed=5``."""
    environment = {f"EDGEBNN_CUDA_{name.upper()}": str(value) for name, value in settings.items()}
    environment["ASAN_OPTIONS"] = "detect_leaks=0"  # fails in containers that forbid ptrace
    return subprocess.run(
        [program, case],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=dict(os.environ) | environment,
    )


def printed(program: Path, case: str, **settings: object) -> str:
    result = run(program, case, **settings)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.strip()


@pytest.fixture(scope="module", params=COMPILERS)
def primitives(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("primitives")
    return compiled(folder, "primitives", COMPILERS[request.param])


@pytest.fixture(scope="module")
def misuse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("misuse"), "misuse", COMPILERS["g++"])


@pytest.fixture(scope="module")
def sanitized_misuse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("misuse"), "misuse", COMPILERS["sanitizers"])


@pytest.mark.parametrize("case", EQUAL)
def test_primitive_equals_plain_arithmetic(primitives: Path, case: str) -> None:
    for seed in (0, 1, 2):
        assert printed(primitives, case, seed=seed) == "equal"


@pytest.mark.parametrize("case", UNSYNCED)
def test_missing_wait_gives_another_result(primitives: Path, case: str) -> None:
    for seed in (0, 1, 2):
        assert printed(primitives, f"{case}_unsynced", seed=seed) == "different"


def test_multiprocessors_are_as_set(misuse: Path) -> None:
    assert printed(misuse, "limits", multiprocessors=132).split(";")[0] == "232448 9.0 132"
    assert printed(misuse, "limits", capability=75).split(";")[0] == "65536 7.5 3"


def test_launch_that_asks_for_too_much_is_an_error(misuse: Path) -> None:
    # 1024 threads and 48 KiB; one thread more; no block; a grid of two rows; a byte more; the
    # attribute, a byte too much and as it may be; a launch with that.
    assert printed(misuse, "limits").split(";")[1] == " 0 9 9 9 1 1 0 0"


def test_blocks_together_are_no_more_than_multiprocessors(misuse: Path) -> None:
    assert printed(misuse, "limits").split(";")[2] == " 0 720"
    assert printed(misuse, "limits", cooperative=0).split(";")[2] == " 720 720"


def test_nth_call_fails(misuse: Path) -> None:
    invalid = "invalid argument; 1; 2"  # cudaGetLastError says so too; two allocations left
    assert [printed(misuse, "calls", fail="any", fail_at=n) for n in range(1, 9)] == [
        "first cudaMalloc: out of memory; 1; 0",
        "second cudaMalloc: out of memory; 1; 1",
        f"cudaMemset: {invalid}",
        f"first cudaMemcpy: {invalid}",
        f"second cudaMemcpy: {invalid}",
        f"cudaLaunchKernel: {invalid}",
        f"cudaStreamSynchronize: {invalid}",
        "no call failed; 0",
    ]
    assert printed(misuse, "calls", fail="cudaMemcpy", fail_at=2).startswith("second cudaMemcpy:")
    assert printed(misuse, "calls") == "no call failed; 0"


@pytest.mark.parametrize("case", [*REFUSED, *TOUCHED])
def test_misuse_aborts_and_says_why(misuse: Path, case: str) -> None:
    result = run(misuse, case)
    assert result.returncode < 0
    assert re.search(f"^cuda model: .*{(REFUSED | TOUCHED)[case]}", result.stderr), result.stderr
    assert "no error" not in result.stdout


@pytest.mark.parametrize("case", TOUCHED)
def test_sanitizer_sees_what_the_guards_see(sanitized_misuse: Path, case: str) -> None:
    result = run(sanitized_misuse, case)
    assert result.returncode != 0
    assert "AddressSanitizer" in result.stderr or "runtime error:" in result.stderr, result.stderr


def test_every_misuse_is_tested() -> None:
    source = Path(__file__).with_name("cuda_misuse.cu").read_text()
    cases = set(re.findall(r'\{"(\w+)", \d+', source)) | set(re.findall(r'name, "(\w+)"', source))
    assert cases == {*REFUSED, *TOUCHED, "calls", "limits"}


def test_capability_lacks_what_came_later(misuse: Path) -> None:
    result = run(misuse, "calls", capability=75)
    assert "mma_and needs compute capability 80, this device has 75" in result.stderr
    result = run(misuse, "group_no_wait", capability=100)
    assert "group_mma: only compute capability 9.0 has it" in result.stderr
