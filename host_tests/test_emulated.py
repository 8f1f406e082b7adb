"""The same oracle against the C on emulated Cortex-M CPUs, in Unicorn and in QEMU."""

from pathlib import Path

import numpy as np
import pytest
from networks import random_inputs, random_model
from test_equality import FIRST_SHIFT_SEED, SHIFT_NETWORKS, check_scores_shift, device_inputs
from torch import nn

from edgebnn import kernels, measure, reference
from edgebnn.checkpoint import read
from edgebnn.codegen import c
from edgebnn.codegen.library import Library
from edgebnn.device import build, host, qemu, unicorn
from edgebnn.lower import lower
from edgebnn.plan import plan
from edgebnn.targets import Target, get_target

NETWORKS = 60
CHUNK = 10
TARGETS = ("cortex-m0", "cortex-m4", "cortex-m7")


def check_emulated(model: nn.Module, seed: int, target: Target, folder: Path) -> Library:
    """Checks oracle = C in both emulators for one network; the library that ran."""
    inputs = device_inputs(random_inputs(model, 12, seed))
    network = lower(model)
    expected = reference.run(network, inputs)
    library = c.generate(plan(network, target), "net")
    firmware = build.build_firmware(library, target, folder)
    runs = {"Unicorn": unicorn.run(firmware, inputs, counted=1), "QEMU": qemu.run(firmware, inputs)}
    for engine, outputs in runs.items():
        where = f"{engine}, network {seed}"
        np.testing.assert_array_equal(outputs.scores, expected.scores, where)
        np.testing.assert_array_equal(outputs.classes, expected.classes, where)
    return library


@pytest.mark.parametrize("target_name", TARGETS)
@pytest.mark.parametrize("start", range(0, NETWORKS, CHUNK))
def test_random_networks(start: int, target_name: str, tmp_path: Path) -> None:
    for seed in range(1000 + start, 1000 + start + CHUNK):
        check_emulated(random_model(seed), seed, get_target(target_name), tmp_path / str(seed))


@pytest.mark.parametrize("start", range(0, SHIFT_NETWORKS // 4, CHUNK))
def test_shift_norm_networks(start: int, tmp_path: Path) -> None:
    """Of the networks that test_equality runs in torch and on this computer the first ones.

    On these CPUs, test_kernels has every kernel of scores in every form of them.
    """
    for seed in range(FIRST_SHIFT_SEED + start, FIRST_SHIFT_SEED + start + CHUNK):
        model = random_model(seed, shift_norms=True)
        library = check_emulated(model, seed, get_target("cortex-m4"), tmp_path / str(seed))
        check_scores_shift(lower(model), library)


@pytest.mark.parametrize("target_name", TARGETS)
def test_example_models(example_model: Path, target_name: str, tmp_path: Path) -> None:
    """What the repository ships: torch = oracle = C under sanitizers = C on the emulated CPU."""
    checkpoint = read(example_model)
    network = lower(checkpoint.model)
    pixels = measure.noise(network, 8)
    trial = measure.trial(checkpoint.model, network, pixels)
    assert measure.run_reference(trial).differing == 0
    library = c.generate(plan(network, get_target("host")), "net")
    built = build.build_host(library, tmp_path / "host", sanitize=True)
    assert measure.differing(host.run(built, trial.inputs), trial.expected) == 0
    (chip,) = measure.run_on(trial, [get_target(target_name)], tmp_path, counted=1)
    assert chip.differing == 0


@pytest.mark.parametrize("first_layer", ["auto", "bit-planes"])
@pytest.mark.parametrize("target_name", TARGETS)
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
    firmware = build.build_firmware(library, target, tmp_path)
    assert measure.differing(qemu.run(firmware, inputs), expected) == 0
    assert measure.differing(unicorn.run(firmware, inputs, counted=1), expected) == 0


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
