"""<name>_prepare() is edgebnn.data.transforms, byte for byte, on every kind of CPU."""

import json
import math
import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from string import Template

import batches
import numpy as np
import pytest
import torch
from elftools.elf.elffile import ELFFile
from numpy.typing import NDArray
from test_cli import mistake, output_here
from test_contract import CROSS_TARGETS, check_compiles_clean, undefined
from test_transforms import by_definition, extremes, noise, tied
from torch import nn

import edgebnn
import edgebnn.nn as bnn
from edgebnn import api, reference
from edgebnn.codegen import c
from edgebnn.codegen.library import Library, header_path, source_path
from edgebnn.codegen.prepare import Prepare, Size, prepare_of
from edgebnn.data.transforms import apply_to_image
from edgebnn.device import build, elf, host, simavr, unicorn
from edgebnn.errors import EdgebnnError, TooLarge
from edgebnn.ir import Network
from edgebnn.lower import lower
from edgebnn.plan import plan
from edgebnn.targets import get_target

Shape = tuple[int, int, int]  # channels, height, width


def module(*shape: int, bits: int = 8) -> nn.Module:
    """Inputs and two scores."""
    size = math.prod(shape)
    torch.manual_seed(size)
    flatten = (bnn.Flatten(),) if len(shape) > 1 else ()
    return bnn.Sequential(bnn.Input(shape, bits=bits), *flatten, bnn.BinaryLinear(size, 2))


def case(image: Shape, *steps: str, shift: int = 0) -> tuple[Network, Prepare]:
    """A network for images that are put through steps, and how."""
    size = [int(step.split()[1]) for step in steps if step.startswith("resize")]
    network = lower(module(image[0], *(size * 2 or image[1:]), bits=8 - shift).eval())
    prepare = prepare_of(network, steps, shift, image)
    assert prepare is not None
    return network, prepare


def library_of(network: Network, prepare: Prepare, target: str, name: str = "n") -> Library:
    return c.generate(plan(network, get_target(target)), name, prepare=prepare)


def images_of(shape: Shape, count: int, seed: int = 1) -> NDArray[np.uint8]:
    """(N, C, H, W): extremes, noise, noise of a few values, and what lies between two values."""
    images = [*extremes(*shape), *noise(count, *shape, seed=seed)]
    images += [*(noise(count, *shape, seed=seed) // 64 + 100), *(noise(count, *shape) & 1)]
    if math.prod(shape) == 16:
        images += [image.reshape(shape) for image in tied()]
    return np.stack(images)


# --- a program that gives the bytes of an input as scores ---------------------------------------


def probe(library: Library, prepare: Prepare, name: str) -> Library:
    """Inputs are images, and scores are the bytes that the library makes of them; in place, too.

    The class is how many of them are others where the input takes the place of the image.
    """
    image_bytes, input_bytes = math.prod(prepare.image), library.input_bytes
    given = {
        "NAME": name.upper(),
        "name": name,
        "model": library.name,
        "image": image_bytes,
        "input": input_bytes,
        "most": max(image_bytes, input_bytes),
    }
    files = {
        **library.files,
        header_path(name): Template(_HEADER).substitute(given),
        source_path(name): Template(_PROBE).substitute(given),
    }
    own = library.constant_bytes, 0
    return Library(name, library.target, files, image_bytes, input_bytes, *own, ())


_HEADER = """\
#ifndef ${NAME}_H
#define ${NAME}_H
#include <stdint.h>
#define ${NAME}_INPUT_BYTES ${image}u
#define ${NAME}_NUM_CLASSES ${input}u
void ${name}_scores(const uint8_t *input, int32_t *scores);
int ${name}_predict(const uint8_t *input);
#endif
"""
_PROBE = """
#include "${name}.h"
#include "${model}.c"

void ${name}_scores(const uint8_t *input, int32_t *scores)
{
    uint8_t made[${input}];
    ${model}_prepare(input, made);
    for (unsigned i = 0u; i < ${input}u; i++) {
        scores[i] = made[i];
    }
}

int ${name}_predict(const uint8_t *input)
{
    static uint8_t made[${input}];
    static uint8_t place[${most}];
    int differing = 0;
    for (unsigned i = 0u; i < ${image}u; i++) {
        place[i] = input[i];
    }
    ${model}_prepare(input, made);
    ${model}_prepare(place, place);
    for (unsigned i = 0u; i < ${input}u; i++) {
        differing += place[i] != made[i];
    }
    return differing;
}
"""

Images = NDArray[np.uint8]  # (N, C, H, W)


def check(given: Sequence[tuple[Network, Prepare, Images]], name: str, folder: Path) -> None:
    """What a device makes of images is what the training did; all in one program."""
    target, libraries, expected = get_target(name), {}, {}
    for number, (network, prepare, pixels) in enumerate(given):
        libraries[number] = probe(
            library_of(network, prepare, name, f"n{number}"), prepare, f"k{number}"
        )
        records = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)).reshape(len(pixels), -1)
        wanted = apply_to_image(pixels, prepare.steps) >> np.uint8(prepare.right_shift)
        wanted = wanted.transpose(0, 2, 3, 1).reshape(len(pixels), -1)
        assert np.array_equal(prepare.inputs(records), wanted)
        none = np.zeros(len(pixels), np.int32)
        expected[number] = records, reference.Outputs(wanted.astype(np.int32), none)
    library, wanted = batches.program(libraries, name), batches.expected(expected)
    if target.is_host:
        outputs = host.run(build.build_host(library, folder, sanitize=True), wanted.records)
    elif name == "avr":
        machine = target.emulators[-1].machine
        image = build.build_firmware(library, target, folder, machine=machine)
        outputs = simavr.run(image, wanted.records, counted=0)
    else:
        image = build.build_firmware(library, target, folder)
        outputs = unicorn.run(image, wanted.records, counted=0)
    assert batches.differing(outputs, wanted) == []


CASES: list[tuple[Shape, tuple[str, ...], int]] = [
    ((1, 1, 1), ("gcn",), 0),
    ((1, 1, 1), ("resize 1", "gcn"), 3),
    ((3, 1, 1), ("resize 1",), 0),
    ((1, 1, 2), ("gcn",), 0),
    ((1, 4, 4), ("gcn",), 0),
    ((1, 8, 8), ("resize 4", "gcn"), 4),
    ((1, 5, 7), ("gcn",), 0),
    ((3, 9, 7), ("resize 5", "gcn"), 0),
    ((1, 9, 7), ("resize 7",), 0),
    ((1, 7, 11), ("resize 1",), 1),
    ((2, 6, 9), ("resize 3",), 0),
    ((1, 28, 28), ("resize 16",), 0),
    ((1, 28, 28), ("gcn",), 0),
    ((3, 12, 10), ("gcn", "gcn"), 7),
    ((1, 3, 5), (), 5),
]
IDS = [f"{'x'.join(map(str, one[0]))} {' '.join(one[1])} {one[2]}" for one in CASES]


@pytest.mark.parametrize("target", ["host", *CROSS_TARGETS])
def test_is_what_the_training_did(target: str, tmp_path: Path) -> None:
    given = []
    for shape, steps, shift in CASES:
        images = images_of(shape, 400 if target == "host" else 30)
        given.append((*case(shape, *steps, shift=shift), images[:: 5 if target == "avr" else 1]))
    check(given, target, tmp_path)


@pytest.mark.parametrize("name", [name for name in CROSS_TARGETS if name != "avr"])
def test_stack_is_what_the_header_says(name: str, tmp_path: Path) -> None:
    target = get_target(name)
    for steps, most in ((("resize 5", "gcn"), 600), (("resize 5",), 100)):
        network, prepare = case((3, 9, 7), *steps)
        library = probe(library_of(network, prepare, name), prepare, "probe")
        image = build.build_firmware(library, target, tmp_path / f"{most}")
        records = images_of((3, 9, 7), 3).transpose(0, 2, 3, 1).reshape(-1, 189)
        run = unicorn.run(image, np.ascontiguousarray(records), counted=1)
        assert run.stack_bytes < most


@pytest.mark.parametrize("channels", [1, 3])
def test_all_sizes(channels: int, tmp_path: Path) -> None:
    """Of images of odd sizes, to all smaller ones."""
    for side in (1, 3, 7, 10, 13):
        shape = (channels, side, side + channels - 1)
        images = images_of(shape, 50)
        sizes = range(1, side + 1)
        given = [(*case(shape, f"resize {size}", "gcn"), images) for size in sizes]
        check(given, "host", tmp_path / str(side))


@pytest.mark.parametrize("shape", [(3, 128, 170), (1, 256, 256)])
def test_the_most_that_is_normalized(shape: Shape, tmp_path: Path) -> None:
    """Squares come near 64 bits; the oracle has Python's integers."""
    pixels = np.concatenate([extremes(*shape), noise(2, *shape)])
    check([(*case(shape, "gcn"), pixels)], "host", tmp_path)
    for one, done in zip(pixels, apply_to_image(pixels, ("gcn",)), strict=True):
        assert done.ravel().tolist() == by_definition(one)


def test_a_large_image_is_resized(tmp_path: Path) -> None:
    """Sums come near 32 bits: 2047 x 4093 pixels of 255, whose sizes share no factor with 2."""
    pixels = np.full((2, 1, 2047, 4093), 255, np.uint8)
    pixels[1, :, ::2] = 0
    check([(*case((1, 2047, 4093), "resize 2"), pixels)], "host", tmp_path)


# --- the contract of the emitted C --------------------------------------------------------------


def preparing(target: str, folder: Path) -> Path:
    """A file with the code of all cases."""
    text = ""
    for number, (shape, steps, shift) in enumerate(CASES):
        name = f"n{number}"
        api.write(library_of(*case(shape, *steps, shift=shift), target, name), folder, force=True)
        text += f'#include "{name}.c"\n'
    source = folder / source_path("all")
    source.write_text(text, encoding="utf-8")
    return source


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_compiles_clean_as_c99_and_cpp17(compiler: str, tmp_path: Path) -> None:
    check_compiles_clean(preparing("host", tmp_path), compiler)


@pytest.mark.parametrize("target", CROSS_TARGETS)
def test_needs_nothing_from_outside(target: str, tmp_path: Path) -> None:
    source = preparing(target, tmp_path)
    freestanding = [["-ffreestanding"]] + ([[]] if target.startswith("cortex") else [])
    for level, flags in product(("-Os", "-O2", "-O3"), freestanding):
        assert undefined(source, target, level, *flags) == ""


def test_only_one_name_more_is_public_and_no_constant(tmp_path: Path) -> None:
    network, prepare = case((1, 8, 8), "resize 4", "gcn", shift=1)
    for name in ("cortex-m0", "rv32ec"):
        library, target = library_of(network, prepare, name), get_target(name)
        image = build.build_firmware(library, target, tmp_path / name)
        with image.model_object.open("rb") as file:
            symbols = list(ELFFile(file).get_section_by_name(".symtab").iter_symbols())
        public = {s.name for s in symbols if s["st_info"]["bind"] == "STB_GLOBAL"}
        assert public == {"n_predict", "n_scores", "n_best", "n_prepare"}
        assert all(s.name.startswith("n_") for s in symbols if s["st_info"]["type"] == "STT_FUNC")
        assert elf.footprint(image.path).constant_bytes <= library.constant_bytes


def test_header_says_how_an_image_lies() -> None:
    network, prepare = case((3, 9, 7), "resize 5", "gcn", shift=2)
    header = library_of(network, prepare, "host").files[header_path("n")]
    for name, value in (("BYTES", 189), ("HEIGHT", 9), ("WIDTH", 7), ("CHANNELS", 3)):
        assert f"#define N_IMAGE_{name} {value}u\n" in header
    assert " * Integers alone, below 600 bytes of stack; re-entrant.\n" in header
    assert " * resize 5, then gcn, then shift right by 2.\n" in header
    plain = c.generate(plan(network, get_target("host")), "n").files
    assert "prepare" not in plain[header_path("n")] + plain[source_path("n")]
    other = library_of(network, case((3, 9, 8), "resize 5", "gcn", shift=2)[1], "host")
    numbers = {
        re.findall("INTERFACE (.*)", text)[0]
        for text in (header, plain[header_path("n")], other.files[header_path("n")])
    }
    assert len(numbers) == 3


# --- models with steps --------------------------------------------------------------------------


def saved(folder: Path, model: nn.Module, steps: Sequence[str], **more: object) -> Path:
    edgebnn.save(model, folder / "n.pt", preprocessing=steps, **more)  # type: ignore[arg-type]
    return folder / "n.pt"


def test_a_model_remembers_its_images(tmp_path: Path) -> None:
    steps = ("resize 4", "gcn")
    path = saved(tmp_path, module(1, 4, 4), steps, image=(1, 9, 8))
    assert edgebnn.read(path).metadata.image == (1, 9, 8)
    edgebnn.release(edgebnn.read(path), tmp_path / "release.pt")
    assert edgebnn.read(tmp_path / "release.pt").metadata.image == (1, 9, 8)
    output_here(tmp_path, "generate", "n.pt", "-o", "out")
    header = (tmp_path / "out" / header_path("n")).read_text()
    assert " * input     8-bit pixels, first put through: resize 4, then gcn\n" in header
    assert " *           (n_prepare() does that)\n" in header
    assert "#define N_IMAGE_HEIGHT 9u\n#define N_IMAGE_WIDTH 8u\n" in header
    output_here(tmp_path, "generate", "n.pt", "-o", "out", "--force", "--image", "20x30")
    header = (tmp_path / "out" / header_path("n")).read_text()
    assert "#define N_IMAGE_HEIGHT 30u\n#define N_IMAGE_WIDTH 20u\n" in header


def test_a_file_that_does_not_know_them(tmp_path: Path) -> None:
    """Then the C is as before, and says how to have more; what resizes nothing needs no size."""
    path = saved(tmp_path, module(1, 4, 4), ("resize 4",))
    library = edgebnn.generate(path)
    assert "n_prepare(" not in library.files[source_path("n")]
    assert "--image WIDTHxHEIGHT emits n_prepare() for it" in library.files[header_path("n")]
    assert "n_prepare(" in edgebnn.generate(path, image=(7, 9)).files[source_path("n")]
    path = saved(tmp_path, module(1, 4, 4), ("gcn",), right_shift=0)
    assert "n_prepare(" in edgebnn.generate(path).files[source_path("n")]
    library = edgebnn.generate(path, prepare=False)
    assert "n_prepare(const" not in "".join(library.files.values())


@pytest.mark.parametrize("image", [(1, 2), (1, 2, 3, 4), (0, 4, 4), (1.0, 4, 4), "abc", (1, 2, -3)])
def test_an_image_that_is_none(image: object, tmp_path: Path) -> None:
    with pytest.raises(EdgebnnError, match="give its channels, height and width"):
        saved(tmp_path, module(1, 4, 4), ("resize 4",), image=image)


@pytest.mark.parametrize("image", [5, [1, 2], [1, 2, "3"], "abc", [1, 1e9, 4], {"a": 1}, [0, 1, 1]])
def test_a_damaged_image_is_one_line(image: object, tmp_path: Path) -> None:
    path = saved(tmp_path, module(1, 4, 4), ("resize 4",), image=(1, 8, 8))
    content = torch.load(path, weights_only=True)
    del content["sha256"]
    content["metadata"]["image"] = image
    torch.save(content, path)
    with pytest.raises(EdgebnnError) as caught:
        edgebnn.read(path)
    assert "\n" not in str(caught.value)
    content["metadata"]["image"] = [3, 2**30, 2**30]  # of no network, which generate says
    torch.save(content, path)
    with pytest.raises(EdgebnnError, match="resized images are 3x4x4, the model takes 1x4x4"):
        edgebnn.generate(path)


def test_info_shows_the_size_of_images(tmp_path: Path) -> None:
    saved(tmp_path, module(1, 4, 4), ("resize 4",), image=(1, 9, 8))
    text = output_here(tmp_path, "info", "n.pt")
    assert re.search(r"preprocessing of 8-bit pixels +│ +resize 4 ", text)
    assert re.search(r"images before it +│ +9 x 8 x 1 ", text)
    found = json.loads(output_here(tmp_path, "info", "n.pt", "--json"))
    assert found["image"] == {"height": 9, "width": 8, "channels": 1}
    saved(tmp_path, module(1, 4, 4), ("resize 4",))
    assert "images before it" not in output_here(tmp_path, "info", "n.pt")
    assert json.loads(output_here(tmp_path, "info", "n.pt", "--json"))["image"] is None


@pytest.mark.parametrize(("steps", "there"), [(("gcn",), True), ((), False)])
def test_a_project_says_who_prepares(steps: tuple[str, ...], there: bool, tmp_path: Path) -> None:
    path = saved(tmp_path, module(1, 4, 4), steps, right_shift=0)
    files = edgebnn.generate(path, target="native", project=True).files
    assert ("images calls n_prepare()" in files["include/edgebnn_model.h"]) == there


def test_whitening_is_not_for_a_device(tmp_path: Path) -> None:
    saved(tmp_path, module(3, 4, 4), ("resize 4", "zca"), image=(3, 8, 8))
    text = mistake(tmp_path, "generate", "n.pt", "-o", "out")
    assert "a matrix of 48x48 floats of the training images, and not in the model" in text
    assert "--no-prepare" in text
    assert not (tmp_path / "out").exists()
    output_here(tmp_path, "generate", "n.pt", "-o", "out", "--no-prepare")
    header = (tmp_path / "out" / header_path("n")).read_text()
    assert "(that takes the training images; it is for you to do)\n" in header
    assert "n_prepare" not in header


@pytest.mark.parametrize(
    ("shape", "steps", "image", "size", "reason"),
    [
        ((1, 4, 4), ("gcn", "resize 4"), (1, 8, 8), None, "can resize first and once alone, not"),
        ((1, 4, 4), ("resize 6", "resize 4"), (1, 8, 8), None, "resize first and once alone, not"),
        ((1, 4, 4), ("blur",), None, None, "unknown preprocessing 'blur'"),
        ((1, 4, 4), ("gcn",), None, (4, 4), "images are not resized; leave out --image"),
        ((1, 4, 4), (), None, (4, 4), "takes images as they are; leave out --image"),
        ((1, 4, 4), ("resize 4",), None, (3, 9), "cannot resize 9x3 images to 4x4"),
        ((1, 4, 4), ("resize 3",), (1, 8, 8), None, "images are 1x3x3, the model takes 1x4x4"),
        ((3, 4, 4), ("resize 4",), (1, 8, 8), None, "images are 1x4x4, the model takes 3x4x4"),
        ((48,), ("resize 4",), (3, 8, 8), None, "the 3 channels of an image one after the other"),
        ((16,), ("resize 3",), None, (8, 8), "images are 1x3x3, the model takes 16x1x1"),
        ((1, 4, 4), ("resize 4",), (1, 9001, 9003), None, "images do not fit 32 bits"),
        ((1, 256, 257), ("gcn",), None, None, "gcn of more than 65536 inputs is not for a device"),
    ],
)
def test_what_a_device_does_not_do_is_one_line(
    shape: tuple[int, ...],
    steps: tuple[str, ...],
    image: Shape | None,
    size: tuple[int, int] | None,
    reason: str,
) -> None:
    network = lower(module(*shape).eval())
    with pytest.raises(EdgebnnError) as caught:
        prepare_of(network, steps, 0, image, None if size is None else Size(*size))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_flat_network_of_grey_images(tmp_path: Path) -> None:
    network = lower(module(16).eval())
    prepare = prepare_of(network, ("resize 4",), 0, size=Size(9, 7))
    assert prepare is not None
    check([(network, prepare, images_of((1, 9, 7), 50))], "host", tmp_path)


def test_an_avr_has_no_room_for_a_large_image() -> None:
    network, prepare = case((1, 200, 200), "resize 4")
    with pytest.raises(TooLarge, match="the image has 40000 bytes, and the CPU no array beyond"):
        library_of(network, prepare, "avr")


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    saved(tmp_path, module(1, 4, 4), ("resize 4",))
    for text in ("28", "0x4", "ax4", "4x", "4x4x4", "123456x4", "٣x4"):
        message = mistake(tmp_path, "generate", "n.pt", "-o", "out", "--image", text)
        assert "give WIDTHxHEIGHT" in message
    arguments = ("--image", "8x8", "--no-prepare")
    assert "leave out --image" in mistake(tmp_path, "generate", "n.pt", "-o", "out", *arguments)
