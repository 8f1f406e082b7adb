"""The same oracle against the C on every emulated CPU, in Unicorn and in QEMU."""

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import batches
import numpy as np
import pytest
from networks import random_inputs, random_model
from numpy.typing import NDArray
from test_equality import FIRST_SHIFT_SEED, check_scores_shift, device_inputs

from edgebnn import kernels, measure, reference
from edgebnn.checkpoint import read
from edgebnn.codegen import c
from edgebnn.codegen.library import Library, source_path
from edgebnn.device import build, elf, host, qemu, simavr, unicorn
from edgebnn.errors import TooLarge
from edgebnn.ir import Network
from edgebnn.lower import lower
from edgebnn.plan import plan
from edgebnn.targets import TARGETS, Target, get_target
from edgebnn.targets.base import Qemu, Simavr, Unicorn

NETWORKS, FIRST_SEED = 100, 1000
CHUNK = 25
#: These have the code of the Cortex-M4 or of the Cortex-M0, so half of the networks do.
ALIKE = ("cortex-m0plus", "cortex-m3", "cortex-m7", "cortex-m33")
EMULATED = [target for target in TARGETS.values() if target.emulators]
IN_BATCHES = [one for one in EMULATED if not isinstance(one.emulators[0], Simavr)]


@functools.cache
def lowered(seed: int) -> tuple[Network, NDArray[np.uint8]]:
    model = random_model(seed, shift_norms=seed >= FIRST_SHIFT_SEED)
    return lower(model), device_inputs(random_inputs(model, 12, seed))


def batch(seeds: Sequence[int], target: Target) -> tuple[Library, batches.Expected]:
    """The networks of ``seeds`` in one library, and what the oracle makes of their inputs."""
    return batches.of_networks({seed: lowered(seed) for seed in seeds}, target)


RUNS = [
    pytest.param(target, FIRST_SEED + start, id=f"{target.name}-{FIRST_SEED + start}")
    for target in IN_BATCHES
    for start in range(0, NETWORKS // 2 if target.name in ALIKE else NETWORKS, CHUNK)
]


@pytest.mark.parametrize(("target", "start"), RUNS)
def test_random_networks(target: Target, start: int, tmp_path: Path) -> None:
    """In each emulator that the target has, but for the micro:bit, which has no room for them."""
    library, wanted = batch(range(start, start + CHUNK), target)
    emulators = [one for one in target.emulators if one.machine.name != "microbit"]
    assert emulators
    for machine in dict.fromkeys(one.machine for one in emulators):
        image = build.build_firmware(library, target, tmp_path, machine=machine)
        assert elf.undefined_symbols(image.model_object) == ()
        for one in emulators:
            if one.machine == machine:
                run = unicorn.run if isinstance(one, Unicorn) else qemu.run
                outputs = run(image, wanted.records, counted=1)
                assert batches.differing(outputs, wanted) == [], one.title


@pytest.mark.parametrize("target_name", ["cortex-m4", "rv32imc"])
def test_models_share_scratch_memory(target_name: str, tmp_path: Path) -> None:
    """Two in one image, taking turns: linked, their scratch is as large as the larger one's."""
    target, seeds = get_target(target_name), (1001, 1004)
    library, wanted = batch(seeds, target)
    arenas = [c.generate(plan(lowered(seed)[0], target), "net").arena_bytes for seed in seeds]
    assert min(arenas) > 0
    source = "".join(f"#define K{seed}_ARENA shared\n" for seed in seeds)
    source += f"#include <stdint.h>\nuint32_t shared[{max(arenas) // 4}];\n"
    path = source_path(library.name)
    shared = replace(library, files={**library.files, path: source + library.files[path]})
    turns = wanted.of(np.random.default_rng(0).permutation(len(wanted.numbers)))
    assert (np.diff(turns.numbers) != 0).sum() > 6
    image = build.build_firmware(shared, target, tmp_path)
    assert elf.footprint(image.path).arena_bytes == max(arenas)
    assert batches.differing(unicorn.run(image, turns.records, counted=1), turns) == []
    assert batches.differing(qemu.run(image, turns.records), turns) == []


def check_in_qemu(network: Network, inputs: NDArray[np.uint8], target: Target, to: Path) -> Library:
    """Checks oracle = C in QEMU, for one network; the library that ran."""
    library = c.generate(plan(network, target), "net")
    machine = build.machine_of(target, Qemu)
    image = build.build_firmware(library, target, to, machine=machine)
    outputs = qemu.run(image, inputs)
    assert measure.differing(outputs, reference.run(network, inputs)) == 0
    return library


@pytest.mark.parametrize("start", range(FIRST_SEED, FIRST_SEED + NETWORKS // 2, CHUNK))
def test_random_networks_on_avr(start: int, tmp_path: Path) -> None:
    """One program each, on the ATmega328P where it fits, else on the same CPU with more memory."""
    target = get_target("avr")
    ran: Counter[str] = Counter()
    for seed in range(start, start + CHUNK):
        network, inputs = lowered(seed)
        library = c.generate(plan(network, target), "net")
        for one in target.emulators:
            try:
                image = build.build_firmware(library, target, tmp_path, machine=one.machine)
            except TooLarge:
                continue
            break
        assert elf.undefined_symbols(image.model_object) == ()
        outputs = simavr.run(image, inputs, counted=1)
        assert measure.differing(outputs, reference.run(network, inputs)) == 0, seed
        assert outputs.cycles
        assert 0 < sum(outputs.layer_cycles) < outputs.cycles[0]
        ran[image.machine.name] += 1
    assert ran["atmega328p"] > CHUNK // 2
    assert ran.total() == CHUNK


def test_random_networks_on_a_micro_bit(tmp_path: Path) -> None:
    for seed in range(FIRST_SEED, FIRST_SEED + 10):
        check_in_qemu(*lowered(seed), get_target("cortex-m0"), tmp_path / str(seed))


def test_shift_norm_networks(tmp_path: Path) -> None:
    """Of the networks that test_equality runs in torch and on this computer the first ones.

    On these CPUs, test_kernels has every kernel of scores in every form of them.
    """
    target, seeds = get_target("cortex-m4"), range(FIRST_SHIFT_SEED, FIRST_SHIFT_SEED + CHUNK)
    library, wanted = batch(seeds, target)
    image = build.build_firmware(library, target, tmp_path)
    assert batches.differing(unicorn.run(image, wanted.records, counted=1), wanted) == []
    for seed in seeds:
        network, _ = lowered(seed)
        check_scores_shift(network, c.generate(plan(network, target), "net"))


TOO_LARGE = ("fashion_conv", "fashion_mlp")  # for an ATmega328P


def trial_of(example_model: Path) -> measure.Trial:
    model = read(example_model).model
    network = lower(model)
    return measure.trial(model, network, measure.noise(network, 8))


def test_example_models_on_this_computer(example_model: Path, tmp_path: Path) -> None:
    """What the repository ships: torch = oracle = C under sanitizers."""
    trial = trial_of(example_model)
    assert measure.run_reference(trial).differing == 0
    library = c.generate(plan(trial.network, get_target("host")), "net")
    built = build.build_host(library, tmp_path, sanitize=True)
    assert measure.differing(host.run(built, trial.inputs), trial.expected) == 0


@pytest.mark.parametrize("target", EMULATED, ids=lambda target: target.name)
def test_example_models(example_model: Path, target: Target, tmp_path: Path) -> None:
    """The same on the emulated CPUs."""
    trial = trial_of(example_model)
    if target.name == "avr" and example_model.stem in TOO_LARGE:
        with pytest.raises(TooLarge, match="does not fit avr"):
            next(measure.run_on(trial, [target], tmp_path, counted=1))
        target = replace(target, emulators=target.emulators[1:])
    (chip,) = measure.run_on(trial, [target], tmp_path, counted=1)
    assert chip.differing == 0


@pytest.mark.parametrize("first_layer", ["auto", "bit-planes"])
@pytest.mark.parametrize("target_name", ["cortex-m0", "cortex-m4", "cortex-m7", "rv32imc"])
def test_example_models_on_whole_machines(
    example_model: Path, target_name: str, first_layer: str, tmp_path: Path
) -> None:
    """The same in QEMU, from reset to exit, and each way to compute the first layer in Unicorn."""
    target = get_target(target_name)
    network = lower(read(example_model).model)
    inputs = measure.to_device_layout(measure.noise(network, 8))
    expected = reference.run(network, inputs)
    prefer = kernels.first_layer_ways(first_layer)
    library = c.generate(plan(network, target, prefer), "net")
    runs = []
    machines = [build.machine_of(target, settings) for settings in (Unicorn, Qemu)]
    for emulator, machine in zip((unicorn, qemu), machines, strict=True):
        if not runs or machine != machines[0]:
            image = build.build_firmware(library, target, tmp_path, machine=machine)
        runs.append(emulator.run(image, inputs, counted=2))
        assert measure.differing(runs[-1], expected) == 0
    # Some of these calls are longer than SysTick's 24 bits.
    assert runs[0].instructions == runs[1].instructions
    assert runs[0].stack_bytes == runs[1].stack_bytes


def test_instruction_count_is_repeatable(tmp_path: Path) -> None:
    """Counts are facts about the code: two runs give the same."""
    target = get_target("cortex-m4")
    model = random_model(7)
    inputs = device_inputs(random_inputs(model, 4, 7))
    library = c.generate(plan(lower(model), target), "net")
    firmware = build.build_firmware(library, target, tmp_path)
    runs = [unicorn.run(firmware, inputs, counted=4) for _ in range(2)]
    assert runs[0].instructions == runs[1].instructions
    assert runs[0].stack_bytes == runs[1].stack_bytes > 0
