"""Model files: what is written comes back equal, what is broken or hostile is refused in one line.

Then the modules themselves: which networks lower, which are refused, and what each layer computes.
"""

import copy
import io
import itertools
import math
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz_files import places
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import edgebnn
import edgebnn.nn as bnn
from edgebnn import api, checkpoint, reference
from edgebnn.errors import EdgebnnError
from edgebnn.lower import lower
from edgebnn.measure import integer_scores, to_device_layout
from edgebnn.nn.norm import SCORE_LIMIT


def mlp(seed: int = 7) -> nn.Sequential:
    """16 inputs of 4 bits, 8 hidden bits, 3 classes."""
    torch.manual_seed(seed)
    hidden = (bnn.BinaryLinear(16, 8), bnn.BatchNorm(8), bnn.Sign())
    output = (bnn.BinaryLinear(8, 3), bnn.OutputNorm(3, bound=8))
    return bnn.Sequential(bnn.Input((16,), bits=4), *hidden, *output)


def convnet() -> nn.Sequential:
    """One layer of every kind."""
    torch.manual_seed(7)
    conv = (bnn.BinaryConv2d(2, 9, 3, padding=1), bnn.MaxPool2d(2), bnn.BatchNorm(9), bnn.Sign())
    depthwise = (bnn.BinaryConv2d(9, 9, (1, 3), groups=9), bnn.BatchNorm(9), bnn.Sign())
    output = (bnn.Flatten(), bnn.Dropout(0.1), nn.Identity(), bnn.BinaryLinear(54, 4))
    return bnn.Sequential(
        bnn.Input((2, 6, 8), bits=3), *conv, *depthwise, *output, bnn.OutputNorm(4, bound=54)
    )


def residual() -> nn.Sequential:
    """A shortcut, so that its file holds a graph."""
    torch.manual_seed(7)
    block = bnn.Residual(bnn.BatchNorm(4), bnn.Sign(), bnn.BinaryLinear(4, 4))
    return bnn.Sequential(bnn.Input((9,), bits=3), bnn.BinaryLinear(9, 4), block)


def estimated() -> nn.Sequential:
    """Every estimator, shifted signs and shift norms, all with values of their own."""
    torch.manual_seed(7)
    conv = (bnn.BinaryConv2d(2, 9, 3, estimator="magnitude"), bnn.MaxPool2d(2))
    first = (bnn.ShiftBatchNorm(9, eps=1e-3), bnn.Sign("swish_trained", 3.0, num_features=9))
    depthwise = (bnn.BinaryConv2d(9, 9, (1, 3), groups=9, estimator="stochastic"), nn.Identity())
    second = (bnn.BatchNorm(9), bnn.Sign("polynomial", num_features=9), bnn.Flatten())
    third = (bnn.BinaryLinear(18, 6, estimator="swish"), bnn.Sign("stochastic"))
    output = (bnn.BinaryLinear(6, 4), bnn.ShiftOutputNorm(4, bound=6, momentum=0.25))
    model = bnn.Sequential(
        bnn.Input((2, 6, 8), bits=3), *conv, *first, *depthwise, *second, *third, *output
    )
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, bnn.Sign) and module.shift is not None:
                module.shift.normal_()
        model[-1].weight.copy_(torch.tensor([0.3, -5.0, 0.0, 1.0]))
    return model


def pixels(model: nn.Module, count: int = 50) -> Tensor:
    first = next(module for module in model.modules() if isinstance(module, bnn.Input))
    rng = np.random.default_rng(3)
    return torch.from_numpy(rng.integers(0, 2**first.bits, (count, *first.shape), dtype=np.uint8))


def scores(model: nn.Module) -> np.ndarray:
    return integer_scores(model.eval(), pixels(model), lower(model))


def plain(path: Path) -> dict[str, Any]:
    """What a file holds, without its digest, so that it can be changed and written again."""
    content: dict[str, Any] = torch.load(path, weights_only=True)
    del content["sha256"]
    return content


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refusal(action: Callable[[], object]) -> str:
    """The one line with which ``action`` is refused."""
    with pytest.raises(EdgebnnError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    assert message.strip()
    return message


def defect(path: Path) -> str | None:
    """What is wrong with the handling of a damaged file; it may work, or be refused in one line."""
    try:
        api.generate(path, name="net")
    except EdgebnnError as error:
        return None if "\n" not in str(error) else f"not one line: {str(error)!r}"
    except Exception as error:
        return repr(error)
    return None


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    edgebnn.save(mlp(), path, class_names=("a", "b", "c"), test_accuracy=0.5, seed=1)
    return path


def damaged(model_file: Path, change: Callable[[dict[str, Any]], object]) -> str:
    """The refusal of a file whose content was changed."""
    content = plain(model_file)
    change(content)
    torch.save(content, model_file)
    message = refusal(lambda: edgebnn.load(model_file))
    assert str(model_file) in message
    return message


# --- files that are no model --------------------------------------------------------------------


def test_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    assert "no such file" in refusal(lambda: edgebnn.load(tmp_path / "nothing.pt"))


def test_folder_is_refused(tmp_path: Path) -> None:
    assert str(tmp_path) in refusal(lambda: edgebnn.load(tmp_path))


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.9999])
def test_file_cut_short_is_refused(kept: float, model_file: Path) -> None:
    content = model_file.read_bytes()
    model_file.write_bytes(content[: int(kept * len(content))])
    assert str(model_file) in refusal(lambda: edgebnn.load(model_file))


def test_zip_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photo.txt", "hello")
    assert "not an edgebnn model" in refusal(lambda: edgebnn.load(path))


@pytest.mark.parametrize(
    "content", [None, 3, "text", [1, 2], {}, {"format": "other"}, {"weight": torch.zeros(3)}]
)
def test_other_torch_files_are_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    torch.save(content, path)
    assert "not an edgebnn model" in refusal(lambda: edgebnn.load(path))


class _Code:
    """Unpickling an instance touches ``marker``: a stand-in for whatever an attacker likes."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


@pytest.mark.parametrize("form", ["pickle", "legacy", "zip", "inside"])
def test_code_in_a_pickle_never_runs(form: str, tmp_path: Path, model_file: Path) -> None:
    marker = tmp_path / "executed"
    code = _Code(marker)
    match form:
        case "pickle":
            model_file.write_bytes(pickle.dumps(code))
        case "legacy":
            torch.save({"x": code}, model_file, _use_new_zipfile_serialization=False)
        case "zip":
            torch.save(code, model_file)
        case "inside":
            torch.save({**plain(model_file), "extra": code}, model_file)
    message = refusal(lambda: edgebnn.load(model_file))
    assert not marker.exists()
    if form in ("zip", "inside"):
        assert "code" in message


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "module.pt"
    torch.save(mlp(), path)
    assert "code or objects" in refusal(lambda: edgebnn.load(path))


# --- models that are not whole ------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 2, 99, "1", None])
def test_other_version_is_refused(version: object, model_file: Path) -> None:
    message = damaged(model_file, lambda content: content.update(version=version))
    assert f"version {version}" in message
    assert "update edgebnn" in message


def test_unknown_layer_type_is_named(model_file: Path) -> None:
    message = damaged(model_file, lambda content: content["layers"][3].update(type="Linear"))
    assert "layer '3' is of unknown type 'Linear'" in message


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("layer", "tensor"),
    [(1, "latent_weight"), (2, "weight"), (2, "running_mean"), (2, "running_var"), (5, "bias")],
)
def test_values_that_are_not_finite_are_refused(
    value: float, layer: int, tensor: str, model_file: Path
) -> None:
    def change(content: dict[str, Any]) -> None:
        content["layers"][layer]["tensors"][tensor].view(-1)[-1] = value

    message = damaged(model_file, change)
    assert f"layer '{layer}' holds NaN or infinity in '{tensor}'" in message


def test_negative_variance_is_refused(model_file: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["layers"][2]["tensors"]["running_var"][0] = -1.0

    assert "layer '2' holds a negative variance" in damaged(model_file, change)


def test_shapes_that_do_not_chain_are_refused(tmp_path: Path, model_file: Path) -> None:
    other = tmp_path / "other.pt"
    edgebnn.save(bnn.Sequential(bnn.Input((9,)), bnn.BinaryLinear(9, 3)), other)
    fitting_nothing = plain(other)["layers"][1]["tensors"]

    def change(content: dict[str, Any]) -> None:
        content["layers"][4]["config"] = {"in_features": 9, "out_features": 3}
        content["layers"][4]["tensors"] = fitting_nothing

    message = damaged(model_file, change)
    assert "layer '4' (BinaryLinear) does not take its input of shape (8,)" in message


def test_layers_out_of_order_are_refused(model_file: Path) -> None:
    message = damaged(model_file, lambda content: content["layers"].insert(1, {}))
    assert "damaged" in message
    edgebnn.save(mlp(), model_file)
    message = damaged(model_file, lambda content: content["layers"].pop(3))
    assert "layer '4' reads '3', which is no layer before it" in message


@pytest.mark.parametrize("form", ["training", "release"])
@pytest.mark.parametrize("key", ["in_features", "out_features"])
def test_huge_layer_is_refused_before_memory_is_taken(
    key: str, form: checkpoint.Form, model_file: Path
) -> None:
    edgebnn.save(mlp(), model_file, form=form)

    def change(content: dict[str, Any]) -> None:
        content["layers"][1]["config"][key] = 2**40

    message = damaged(model_file, change)
    assert str(2**40) in message or str(2**40 * 8) in message or str(2**40 * 16) in message
    assert "layer '1'" in message


def test_tensor_with_fewer_bytes_than_its_shape_is_refused(model_file: Path) -> None:
    """A tensor of stride 0 is any size in a small file; copying it would take the memory."""

    def change(content: dict[str, Any]) -> None:
        content["layers"][1]["tensors"]["latent_weight"] = torch.ones(1, 1).expand(8, 16)

    assert "layer '1'" in damaged(model_file, change)


@pytest.mark.parametrize(
    ("layer", "config"),
    [
        (0, {"shape": [16], "bits": 9}),
        (0, {"shape": [16], "bits": True}),
        (0, {"shape": [4, 4]}),
        (0, {"shape": 16}),
        (1, {"in_features": 16}),
        (1, {"in_features": 16, "out_features": 8, "bias": True}),
        (1, {"in_features": "16", "out_features": 8}),
        (1, {"in_features": 16.0, "out_features": 8}),
        (1, {"in_features": -16, "out_features": 8}),
        (1, {}),
        (2, {"num_features": 8, "eps": math.nan}),
        (2, {"num_features": 8, "eps": "small"}),
        (2, {"num_features": 8, "momentum": "fast"}),
        (2, {"num_features": 8, "momentum": math.nan}),
        (1, {"in_features": 16, "out_features": 8, "estimator": "ste"}),
        (1, {"in_features": 16, "out_features": 8, "estimator": ["identity"]}),
        (3, {"threshold": 1}),
        (3, {"estimator": "tanh"}),
        (3, {"estimator": {}}),
        (3, {"beta": math.inf}),
        (3, {"beta": True}),
        (3, {"num_features": 8}),
        (3, {"num_features": 2**60}),
        (5, {"num_features": 3, "bound": 0}),
        (5, {"num_features": 3, "bound": 2**24}),
        (5, {"num_features": 3, "bound": 8.0}),
        (1, [16, 8]),
        (1, None),
    ],
)
def test_wrong_config_is_refused_with_the_layer(
    layer: int, config: object, model_file: Path
) -> None:
    def change(content: dict[str, Any]) -> None:
        content["layers"][layer]["config"] = config

    damaged(model_file, change)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("MaxPool2d", {"kernel_size": 0}),
        ("MaxPool2d", {"kernel_size": "2"}),
        ("MaxPool2d", {"kernel_size": [2, 2], "stride": [0, 0]}),
        ("MaxPool2d", {"kernel_size": [2, 2, 2]}),
        ("MaxPool2d", {"kernel_size": 2, "padding": 1}),
        ("MaxPool2d", {"kernel_size": 2, "ceil_mode": True}),
        ("MaxPool2d", {"kernel_size": 2, "return_indices": True}),
        ("MaxPool2d", {"kernel_size": 100}),
        ("Flatten", {"start_dim": 0}),
        ("Flatten", {"start_dim": 2}),
        ("Dropout", {"p": 2.0}),
        ("Dropout", {"p": "half"}),
    ],
)
def test_wrong_config_of_a_torch_layer_is_refused(
    kind: str, config: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    edgebnn.save(convnet(), path)

    def change(content: dict[str, Any]) -> None:
        next(e for e in content["layers"] if e["type"] == kind)["config"] = config

    damaged(path, change)


@pytest.mark.parametrize(
    "bits",
    [
        torch.zeros(15, dtype=torch.uint8),
        torch.zeros(17, dtype=torch.uint8),
        torch.zeros(0, dtype=torch.uint8),
        torch.zeros((4, 4), dtype=torch.uint8),
        torch.zeros(16),
        [0] * 16,
        None,
    ],
    ids=["short", "long", "empty", "matrix", "float", "list", "none"],
)
def test_wrong_sign_bits_are_refused(bits: object, model_file: Path) -> None:
    edgebnn.save(mlp(), model_file, form="release")

    def change(content: dict[str, Any]) -> None:
        content["layers"][1]["tensors"]["sign_bits"] = bits

    damaged(model_file, change)


@pytest.mark.parametrize("key", ["form", "layers", "metadata", "training", "version"])
def test_missing_part_is_refused(key: str, model_file: Path) -> None:
    damaged(model_file, lambda content: content.pop(key))


def test_state_that_is_no_dictionary_is_refused(model_file: Path) -> None:
    damaged(model_file, lambda content: content.update(training="resume me"))


@pytest.mark.parametrize("shift", [-1, 8, 100])
def test_impossible_preprocessing_is_refused(shift: int, model_file: Path) -> None:
    damaged(model_file, lambda content: content["metadata"].update(right_shift=shift))


@pytest.mark.parametrize(
    "steps",
    [
        *("gcn", 3, {"gcn": 1}, None, ["gcn"] * 9, [""], [3], ["Resize 16"], ["resize 0016"]),
        *(["resize  16"], ["resize 99999"], ["resize -1"], ["gcn\n"], ["a */ int x; /*"], ["é"]),
        ["x" * 10**6],
    ],
    ids=lambda steps: str(steps)[:20],
)
def test_preprocessing_that_is_none_is_refused(
    steps: Any, model_file: Path, tmp_path: Path
) -> None:
    message = damaged(model_file, lambda content: content["metadata"].update(preprocessing=steps))
    assert "preprocessing" in message
    assert len(message) < 300 + len(str(tmp_path))
    refusal(lambda: edgebnn.save(mlp(), tmp_path / "new.pt", preprocessing=steps))
    assert not (tmp_path / "new.pt").exists()


def test_files_from_before_preprocessing_load(model_file: Path) -> None:
    content = plain(model_file)
    del content["metadata"]["preprocessing"]
    torch.save(content, model_file)
    assert edgebnn.read(model_file).metadata.preprocessing == ()


def test_generated_header_says_what_is_done_to_pixels(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    headers = []
    for steps, shift in (((), 0), (("resize 4", "gcn"), 0), (("resize 4",), 4)):
        edgebnn.save(mlp(), path, preprocessing=steps, right_shift=shift)
        headers.append(api.generate(path, name="net").files["src/net.h"])
    assert " * input  " not in headers[0]
    assert " * input     8-bit pixels, first put through: resize 4, then gcn\n" in headers[1]
    wanted = " * input     8-bit pixels, first put through: resize 4, then shift right by 4\n"
    assert wanted in headers[2]
    assert len(headers[1].splitlines()) == len(headers[0].splitlines()) + 2  # and by whom


@pytest.mark.parametrize("names", [("a",), tuple("abcdefgh")])
def test_class_names_must_be_as_many_as_classes(
    names: tuple[str, ...], model_file: Path, tmp_path: Path
) -> None:
    refusal(lambda: edgebnn.save(mlp(), tmp_path / "new.pt", class_names=names))
    damaged(model_file, lambda content: content["metadata"].update(class_names=list(names)))


def test_flipped_bytes_load_or_are_refused(model_file: Path) -> None:
    content = model_file.read_bytes()
    rng = np.random.default_rng(20)
    wrong = []
    for _ in range(200):
        place, mask = int(rng.integers(len(content))), int(rng.integers(1, 256))
        broken = bytearray(content)
        broken[place] ^= mask
        model_file.write_bytes(broken)
        if reason := defect(model_file):
            wrong.append(f"byte {place} ^ {mask}: {reason}")
    assert not wrong, "\n".join(wrong)


_ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**40,
    2**70,
    1.5,
    math.inf,
    math.nan,
    "",
    "x\ny",
    [],
    {},
)


@pytest.mark.parametrize(
    ("build", "each"),
    [(mlp, 6), (convnet, 2), (estimated, 2), (residual, 2)],
)
def test_odd_values_in_every_place_load_or_are_refused(
    build: Callable[[], nn.Module], each: int, tmp_path: Path
) -> None:
    """``each`` odd values a place, in turn."""
    path = tmp_path / "model.pt"
    model = build()
    edgebnn.save(model, path, class_names=("a",) * lower(model).num_classes, form="release")
    content = plain(path)
    odd_values = itertools.cycle(_ODD)
    wrong = []
    for place in places(content):
        for odd in itertools.islice(odd_values, each):
            changed = copy.deepcopy(content)
            parent = changed
            for key in place[:-1]:
                parent = parent[key]
            parent[place[-1]] = odd
            torch.save(changed, path)
            if reason := defect(path):
                wrong.append(f"{place} = {odd!r}: {reason}")
    assert not wrong, "\n".join(wrong)


def test_names_are_harmless_in_c_comments(tmp_path: Path) -> None:
    names = ("*/ int evil; /*", "two\nlines\r\n#undef all", "trigraph ??/\n\\")
    path = tmp_path / "model.pt"
    edgebnn.save(mlp(), path, class_names=names)
    assert checkpoint.read(path).metadata.class_names == names
    honest = api.generate(mlp(), name="model")
    for name, text in api.generate(path).files.items():
        for word in ("evil; /*", "\n#undef", "??/", "\\\n"):
            assert word not in text
        code = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
        assert code == re.sub(r"/\*.*?\*/", "", honest.files[name], flags=re.DOTALL)


# --- round trips --------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [mlp, convnet, estimated])
def test_both_forms_give_equal_scores_and_equal_c(
    build: Callable[[], nn.Module], tmp_path: Path
) -> None:
    model = build()
    model(pixels(model).float())  # moves the running statistics
    training, release = tmp_path / "training.pt", tmp_path / "release.pt"
    edgebnn.save(model, training)
    edgebnn.release(edgebnn.read(training), release)
    libraries = [api.generate(m, target="cortex-m4", name="n") for m in (model, training, release)]
    assert libraries[0] == libraries[1] == libraries[2]
    expected = scores(model)
    for path in (training, release):
        loaded = edgebnn.load(path)
        assert not loaded.training
        np.testing.assert_array_equal(scores(loaded), expected)


@pytest.mark.parametrize("build", [convnet, estimated])
def test_training_form_keeps_every_tensor(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    model = build()
    edgebnn.save(model, tmp_path / "model.pt")
    loaded = edgebnn.load(tmp_path / "model.pt").state_dict()
    for (name, tensor), other in zip(model.state_dict().items(), loaded.values(), strict=True):
        assert torch.equal(tensor, other), name


@pytest.mark.parametrize("form", ["training", "release"])
def test_options_come_back(form: checkpoint.Form, tmp_path: Path) -> None:
    model = estimated()
    edgebnn.save(model, tmp_path / "model.pt", form=form)
    for layer, other in zip(model, edgebnn.load(tmp_path / "model.pt"), strict=True):
        assert type(layer) is type(other)
        if hasattr(layer, "config"):
            assert repr(layer) == repr(other)
            assert layer.config() == other.config()
            assert type(layer)(**layer.config()).config() == layer.config()


def test_files_from_before_the_estimators_load(model_file: Path) -> None:
    """Such a file says nothing of a Sign, and nothing of how weights were trained."""
    expected = scores(edgebnn.load(model_file))
    content = plain(model_file)
    for entry in content["layers"]:
        if entry["type"] == "Sign":
            entry["config"] = {}
        entry["config"].pop("estimator", None)
    torch.save(content, model_file)
    loaded = edgebnn.load(model_file)
    np.testing.assert_array_equal(scores(loaded), expected)
    assert loaded[3].config() == bnn.Sign().config()
    assert loaded[1].estimator == "identity"


def test_metadata_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    known = checkpoint.Metadata(
        ("x", "y", "z"), 0.75, "digits", 4, ("resize 4", "gcn"), {"name": "r", "epochs": 3}, 11
    )
    edgebnn.save(
        mlp(),
        path,
        class_names=known.class_names,
        test_accuracy=known.test_accuracy,
        dataset=known.dataset,
        right_shift=known.right_shift,
        preprocessing=known.preprocessing,
        recipe=known.recipe,
        seed=known.seed,
    )
    assert edgebnn.read(path).metadata == known
    edgebnn.release(edgebnn.read(path), tmp_path / "release.pt")
    assert edgebnn.read(tmp_path / "release.pt").metadata == known


def test_release_is_more_than_20_times_smaller(tmp_path: Path) -> None:
    model = bnn.Sequential(
        *(bnn.Input((784,)), bnn.BinaryLinear(784, 64), bnn.BatchNorm(64), bnn.Sign()),
        *(bnn.BinaryLinear(64, 10), bnn.OutputNorm(10, bound=64)),
    )
    optimizer = torch.optim.Adam(model.parameters())
    model(pixels(model)).sum().backward()
    optimizer.step()
    training, release = tmp_path / "training.pt", tmp_path / "release.pt"
    edgebnn.save(model, training, training={"optimizer": optimizer.state_dict()})
    content = edgebnn.read(training)
    assert content.form == "training"
    assert content.training is not None
    edgebnn.release(content, release)
    small = edgebnn.read(release)
    assert (small.form, small.training) == ("release", None)
    assert training.stat().st_size > 20 * release.stat().st_size


def test_released_model_releases_again_to_the_same(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("model.pt", "once.pt", "twice.pt")]
    edgebnn.save(convnet(), paths[0])
    edgebnn.release(edgebnn.read(paths[0]), paths[1])
    edgebnn.release(edgebnn.read(paths[1]), paths[2])
    libraries = [api.generate(path, name="net") for path in paths]
    assert libraries[0] == libraries[1] == libraries[2]


@pytest.mark.parametrize("error", [RuntimeError, OSError, KeyboardInterrupt])
def test_save_that_fails_midway_leaves_the_old_file(
    error: type[BaseException], model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_below(model_file.parent)

    def fail(content: object, file: io.BufferedWriter) -> None:
        file.write(b"half a file")
        raise error("no more")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(EdgebnnError if error is OSError else error):
        edgebnn.save(convnet(), model_file)
    assert files_below(model_file.parent) == before


def test_save_where_it_cannot_write_is_refused(tmp_path: Path) -> None:
    message = refusal(lambda: edgebnn.save(mlp(), tmp_path / "no" / "folder" / "model.pt"))
    assert "cannot write" in message
    assert not list(tmp_path.iterdir())


def test_save_refuses_values_that_are_not_finite(tmp_path: Path) -> None:
    model = mlp()
    with torch.no_grad():
        model[2].bias[0] = math.nan
    assert "layer '2' (BatchNorm) holds NaN" in refusal(
        lambda: edgebnn.save(model, tmp_path / "model.pt")
    )
    assert not list(tmp_path.iterdir())


def _never_used() -> nn.Module:
    """The result of layer 'side' goes nowhere."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()
            self.side = nn.Identity()
            self.end = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            x = self.net(x)
            self.side(x)
            return self.end(x)

    return Net()


def _colliding_names() -> nn.Module:
    """Layers 'a.0' and 'a_0'."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.input = bnn.Input((16,), bits=4)
            self.a = nn.Sequential(bnn.BinaryLinear(16, 16))
            self.norm = bnn.BatchNorm(16)
            self.sign = bnn.Sign()
            self.a_0 = bnn.BinaryLinear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            return self.a_0(self.sign(self.norm(self.a(self.input(x)))))

    return Net()


def _names_of_sequential() -> nn.Module:
    """Names that are fine for a layer of one's own module, and methods of Sequential."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.insert = bnn.Input((16,), bits=4)
            self.append = bnn.BinaryLinear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.append(self.insert(x))

    return Net()


@pytest.mark.parametrize(
    "build",
    [
        _never_used,
        _colliding_names,
        _names_of_sequential,
        lambda: mlp().double(),
        lambda: mlp().to(torch.bfloat16),
    ],
    ids=["unused", "colliding", "sequential", "double", "bfloat16"],
)
def test_what_saves_loads_again(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    """Or is refused when it is saved, not when it is too late."""
    model = build()
    path = tmp_path / "model.pt"
    try:
        edgebnn.save(model, path)
    except EdgebnnError:
        assert not path.exists()
        return
    np.testing.assert_array_equal(scores(edgebnn.load(path)), scores(model))


# --- a user's own modules -----------------------------------------------------------------------


class OwnForward(nn.Module):
    """Blocks in blocks and a flatten that is no layer, in each of torch's spellings."""

    def __init__(self, flatten: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.input = bnn.Input((2, 6, 6), bits=5)
        norm = nn.Sequential(bnn.BatchNorm(7), bnn.Sign())
        self.features = nn.Sequential(bnn.BinaryConv2d(2, 7, 3), bnn.MaxPool2d(2), norm)
        self.classifier = nn.ModuleDict({"dense": bnn.BinaryLinear(28, 3)})
        self.norm = bnn.OutputNorm(3, bound=28)
        self.flatten = flatten

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(self.input(x))
        return self.norm(self.classifier["dense"](self.flatten(x)))


FLATTENS: dict[str, Callable[[Tensor], Tensor]] = {
    "torch.flatten(x, 1)": lambda x: torch.flatten(x, 1),
    "torch.flatten(x, start_dim=1)": lambda x: torch.flatten(x, start_dim=1),
    "x.flatten(1)": lambda x: x.flatten(1),
    "x.flatten(start_dim=1)": lambda x: x.flatten(start_dim=1),
}


@pytest.mark.parametrize("spelling", FLATTENS)
def test_own_module_saves_loads_and_lowers_equal(spelling: str, tmp_path: Path) -> None:
    model = OwnForward(FLATTENS[spelling])
    model(pixels(model).float())
    network = lower(model)
    expected = scores(model)
    outputs = reference.run(network, to_device_layout(pixels(model).numpy()))
    np.testing.assert_array_equal(outputs.scores, expected)
    for form in ("training", "release"):
        edgebnn.save(model, tmp_path / "model.pt", form=form)
        loaded = edgebnn.load(tmp_path / "model.pt")
        np.testing.assert_array_equal(scores(loaded), expected)
        assert api.generate(loaded) == api.generate(model)


def test_lowering_leaves_the_model_as_it_was() -> None:
    model = mlp().train()
    before = copy.deepcopy(model.state_dict())
    lower(model)
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


# --- networks that are refused ------------------------------------------------------------------

IMAGE = (bnn.Input((1, 8, 8)),)
FLAT = (bnn.Input((16,)),)
HIDDEN = (bnn.BinaryLinear(16, 8), bnn.BatchNorm(8), bnn.Sign())


def shifted_sign(*shifts: float) -> bnn.Sign:
    """For 8 channels, whose shifts repeat."""
    layer = bnn.Sign(num_features=8)
    with torch.no_grad():
        layer.shift.copy_(torch.tensor((shifts * 8)[:8]))
    return layer


@pytest.mark.parametrize(
    ("layers", "name", "kind", "reason"),
    [
        ((*FLAT, nn.Linear(16, 3)), "1", "Linear", "use edgebnn.nn.BinaryLinear"),
        ((*IMAGE, nn.Conv2d(1, 3, 3)), "1", "Conv2d", "use edgebnn.nn.BinaryConv2d"),
        (
            (*IMAGE, bnn.BinaryConv2d(1, 4, 3), nn.BatchNorm2d(4)),
            "2",
            "BatchNorm2d",
            "use edgebnn.nn.BatchNorm",
        ),
        ((*FLAT, *HIDDEN[:2], nn.Tanh()), "3", "Tanh", "use edgebnn.nn.Sign"),
        ((*FLAT, *HIDDEN[:1], nn.ReLU()), "2", "ReLU", "leave out the ReLU before them"),
        ((*IMAGE, nn.AvgPool2d(2)), "1", "AvgPool2d", "use edgebnn.nn.MaxPool2d"),
        ((*IMAGE, nn.LayerNorm(8)), "1", "LayerNorm", "supported layers: Input"),
        ((*IMAGE, nn.MaxPool2d(3, padding=1)), "1", "MaxPool2d", "padding"),
        ((*IMAGE, nn.MaxPool2d(3, ceil_mode=True)), "1", "MaxPool2d", "ceil_mode"),
        ((*IMAGE, nn.Flatten(2)), "1", "Flatten", "everything but the batch"),
        (
            (*IMAGE, bnn.BinaryConv2d(1, 4, 3), bnn.BinaryConv2d(4, 4, 3)),
            "2",
            "BinaryConv2d",
            "its input is not binary; put edgebnn.nn.Sign() before it",
        ),
        (
            (*FLAT, bnn.BinaryLinear(16, 8), bnn.BatchNorm(8), bnn.BinaryLinear(8, 3)),
            "3",
            "BinaryLinear",
            "its input is not binary",
        ),
        (
            (*IMAGE, bnn.BinaryConv2d(1, 2, 3), bnn.MaxPool2d(2), bnn.Flatten(), bnn.BatchNorm(18)),
            "4",
            "BatchNorm",
            "treats max-pooled values one by one after Flatten; put it before Flatten",
        ),
        (
            (*FLAT, bnn.BinaryLinear(16, 8), bnn.OutputNorm(8), bnn.Sign(), bnn.BinaryLinear(8, 3)),
            "3",
            "Sign",
            "use BatchNorm inside the network",
        ),
        (
            (*FLAT, bnn.BinaryLinear(16, 8), bnn.OutputNorm(8), bnn.BatchNorm(8)),
            "3",
            "BatchNorm",
            "OutputNorm, which must end the network",
        ),
        (
            (*FLAT, *HIDDEN[:2], bnn.Sign(num_features=7), bnn.BinaryLinear(8, 3)),
            "3",
            "Sign",
            "num_features is 7",
        ),
        (
            (
                *(*IMAGE, bnn.BinaryConv2d(1, 2, 3), bnn.BatchNorm(2), bnn.Flatten()),
                bnn.Sign(num_features=72),
            ),
            "4",
            "Sign",
            "treats what a BatchNorm gives one by one after Flatten; put it before Flatten",
        ),
        (
            (*FLAT, *HIDDEN, shifted_sign(0.5, 1.0), bnn.BinaryLinear(8, 3)),
            "4",
            "Sign",
            "follows another Sign",
        ),
        ((*FLAT, *HIDDEN, shifted_sign(-1.0, 1.0 - 2**-24), bnn.BinaryLinear(8, 3)), "", "", ""),
        (
            (*FLAT, *HIDDEN, shifted_sign(0.0, -1.0 - 2**-23), bnn.BinaryLinear(8, 3)),
            "4",
            "Sign",
            "follows another Sign",
        ),
        (
            (*FLAT, bnn.BinaryLinear(16, 8), bnn.ShiftOutputNorm(8), bnn.Sign()),
            "3",
            "Sign",
            "use BatchNorm inside the network",
        ),
        (
            (*FLAT, *HIDDEN, bnn.BinaryLinear(8, 3), bnn.ShiftBatchNorm(3)),
            "5",
            "ShiftBatchNorm",
            "use a single edgebnn.nn.OutputNorm",
        ),
        (
            (*FLAT, bnn.BinaryLinear(16, 3), bnn.ShiftOutputNorm(3, bound=4079)),
            "2",
            "ShiftOutputNorm",
            "bound=4080",
        ),
        ((*FLAT, *HIDDEN), "3", "Sign", "ends the network: scores must come from"),
        ((*FLAT,), "0", "Input", "ends the network: scores must come from"),
        (
            (*FLAT, *HIDDEN, bnn.BinaryLinear(8, 3), bnn.BatchNorm(3)),
            "5",
            "BatchNorm",
            "use a single edgebnn.nn.OutputNorm",
        ),
        ((*FLAT, *HIDDEN, bnn.BatchNorm(8), bnn.Sign()), "4", "BatchNorm", "before the Sign"),
        (
            (*IMAGE, bnn.BinaryConv2d(1, 3, 7), bnn.MaxPool2d(2), bnn.Flatten()),
            "3",
            "Flatten",
            "scores cannot be max-pooled",
        ),
        ((*IMAGE, bnn.BinaryConv2d(1, 3, 7)), "1", "BinaryConv2d", "2x2 scores a class"),
        ((*IMAGE, bnn.BinaryConv2d(1, 1, 8)), "", "", ""),  # this one is fine
        (
            (*FLAT, bnn.BatchNorm(16), bnn.BinaryLinear(16, 3)),
            "2",
            "BinaryLinear",
            "neither raw integers nor binary",
        ),
        (
            (bnn.Input((65794,)), bnn.BinaryLinear(65794, 1)),
            "1",
            "BinaryLinear",
            f"its sums reach {65794 * 255}, and float32 is exact only below 2**24",
        ),
        ((bnn.Input((65793,)), bnn.BinaryLinear(65793, 1)), "", "", ""),  # 2**24 - 1 is fine
        (
            (*FLAT, bnn.BinaryLinear(16, 3), bnn.OutputNorm(3, bound=4079)),
            "2",
            "OutputNorm",
            "bound=4080",
        ),
        ((*FLAT, bnn.BinaryLinear(16, 3), bnn.OutputNorm(3, bound=4080)), "", "", ""),
        (
            (*IMAGE, bnn.BinaryConv2d(1, 4, 3, padding=1, pad_value=-1)),
            "1",
            "BinaryConv2d",
            "pads integers with -1 or +1; use pad_value=0",
        ),
        (
            (bnn.Input((2, 3, 3)), bnn.BinaryConv2d(2, 2, 3, groups=2)),
            "1",
            "BinaryConv2d",
            "depthwise layer cannot give the scores",
        ),
        (
            (*FLAT, *HIDDEN, bnn.Input((8,)), bnn.BinaryLinear(8, 3)),
            "4",
            "Input",
            "",
        ),
    ],
)
def test_unsupported_network_names_layer_and_reason(
    layers: tuple[nn.Module, ...], name: str, kind: str, reason: str
) -> None:
    model = bnn.Sequential(*layers)
    if not name:
        lower(model)
        return
    message = refusal(lambda: lower(model))
    assert f"layer '{name}'" in message
    assert kind in message
    assert reason in message


class Function(nn.Module):
    """The layers in ``layers``, put together by ``function``."""

    def __init__(self, function: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input = bnn.Input((16,))
        self.dense = bnn.BinaryLinear(16, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.input(x)
        return self.dense(y)


def _input() -> dict[str, nn.Module]:
    return {"input": bnn.Input((16,)), "a": bnn.BinaryLinear(16, 16), "sign": bnn.Sign()}


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (
            Function(
                lambda m, x: (lambda y: m.a(y) * m.b(y))(m.input(x)), **_input(), b=bnn.Sign()
            ),
            "operation 'mul' (mul) is not supported",
        ),
        (
            Function(lambda m, x: m.a(m.sign(m.a(m.input(x)))), **_input()),
            "layer 'a' is used twice",
        ),
        (Function(lambda m, x: m.a(x), **_input()), "must begin with edgebnn.nn.Input"),
        (Function(lambda m, x: m.a(m.input(x / 255)), **_input()), "is not supported"),
        (Function(lambda m, x: F.gelu(m.a(m.input(x))), **_input()), "operation 'gelu'"),
        (Function(lambda m, x: m.input(x).flatten(), **_input()), "operation 'flatten'"),
        (
            Function(lambda m, x: m.a(x) if x.sum() > 0 else x, **_input()),
            "cannot be traced by torch.fx",
        ),
        (Function(lambda m, x: (m.a(m.input(x)), x), **_input()), "result of its last layer"),
        (Function(lambda m, x: x), "result of its last layer"),
        (bnn.Sequential(), "result of its last layer"),
        (bnn.Sequential(bnn.BinaryLinear(16, 3)), "must begin with edgebnn.nn.Input"),
        (TwoInputs(), "more than one input"),
        (Function(lambda m, x: (m.input(x), m.a(x))[1], **_input()), "layer 'a'"),
    ],
    ids=[
        "two branches",
        "layer used twice",
        "input not used",
        "division first",
        "function",
        "flatten of the batch too",
        "data-dependent",
        "two results",
        "nothing",
        "empty",
        "without Input",
        "two inputs",
        "past Input",
    ],
)
@pytest.mark.parametrize("use", ["lower", "save"])
def test_unsupported_forward_is_refused(
    model: nn.Module, reason: str, use: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    message = refusal(lambda: lower(model) if use == "lower" else edgebnn.save(model, path))
    assert reason in message
    assert not path.exists()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38])
def test_norms_without_a_fixed_point_are_refused(value: float) -> None:
    model = mlp()
    with torch.no_grad():
        model[5].weight[1] = value
    assert "layer '5' (OutputNorm)" in refusal(lambda: lower(model))


# --- OutputNorm and BatchNorm -------------------------------------------------------------------

_weights = st.one_of(
    st.just(0.0), st.floats(-1e6, 1e6, width=32), st.floats(-(2.0**-100), 2.0**-100, width=32)
)
_variances = st.one_of(st.just(0.0), st.floats(0.0, 1e9, width=32))


@st.composite
def output_norms(draw: st.DrawFn) -> bnn.OutputNorm:
    classes = draw(st.integers(1, 4))
    norm = bnn.OutputNorm(classes, bound=draw(st.integers(1, 2**24 - 1))).eval()
    values = {
        norm.weight: _weights,
        norm.bias: _weights,
        norm.running_mean: st.floats(-1e7, 1e7, width=32),
        norm.running_var: _variances,
    }
    with torch.no_grad():
        for tensor, drawn in values.items():
            tensor.copy_(torch.tensor(draw(st.lists(drawn, min_size=classes, max_size=classes))))
    return norm


@given(output_norms(), st.data())
@settings(deadline=None)
def test_output_norm_fits_32_bits_and_is_exact(norm: bnn.OutputNorm, data: st.DataObject) -> None:
    factor, offset, fraction_bits = norm.fixed_point()
    exact = [(int(f), int(o)) for f, o in zip(factor, offset, strict=True)]
    for f, o in exact:
        assert abs(f) * norm.bound + abs(o) <= SCORE_LIMIT
    drawn = data.draw(st.lists(st.integers(-norm.bound, norm.bound), min_size=1, max_size=5))
    x = torch.tensor([*drawn, norm.bound, -norm.bound]).unsqueeze(1).repeat(1, len(exact))
    with torch.no_grad():
        logits = norm(x.float())
    for row, dot in zip(logits.tolist(), x[:, 0].tolist(), strict=True):
        wanted = [f * dot + o for f, o in exact]
        assert [value * 2.0**fraction_bits for value in row] == wanted


@given(output_norms())
@settings(deadline=None)
def test_output_norm_uses_the_bits_it_has(norm: bnn.OutputNorm) -> None:
    """The largest score takes 31 bits but for rounding, unless the norm is next to nothing."""
    factor, offset, fraction_bits = norm.fixed_point()
    reach = int((factor.abs() * norm.bound + offset.abs()).max())
    if reach and fraction_bits < 62:
        assert 2 * (reach + norm.bound + 1) >= SCORE_LIMIT


def test_output_norm_is_near_the_norm_it_stands_for() -> None:
    torch.manual_seed(3)
    norm = bnn.OutputNorm(10, bound=256)
    norm(30 * torch.randn(64, 10).round())
    x = torch.randint(-256, 257, (100, 10)).float()
    norm.eval()
    wanted = F.batch_norm(
        x.double(),
        norm.running_mean.double(),
        norm.running_var.double(),
        norm.weight.double(),
        norm.bias.double(),
        eps=norm.eps,
    )
    torch.testing.assert_close(norm(x), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(32, 6), (8, 6, 5, 4)])
def test_batch_norm_is_torchs(shape: tuple[int, ...]) -> None:
    torch.manual_seed(4)
    ours, theirs = bnn.BatchNorm(6), (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(6)
    theirs.eps = ours.eps
    with torch.no_grad():
        for tensor in (ours.weight, ours.bias):
            tensor.normal_()
        theirs.weight.copy_(ours.weight)
        theirs.bias.copy_(ours.bias)
    for _ in range(3):
        x = 20 * torch.randn(shape)
        assert torch.equal(ours(x), theirs(x))
    for (name, value), other in zip(
        ours.state_dict().items(), theirs.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name
    x = 20 * torch.randn(shape)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


# --- sign, loss, clipping -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_sign_and_its_gradient(dtype: torch.dtype) -> None:
    one = torch.ones((), dtype=dtype)
    above, below = torch.nextafter(one, 2 * one), torch.nextafter(one, 0 * one)
    tiny = torch.nextafter(0 * one, one)
    points = [-math.inf, -2.0, -above, -1.0, -below, -0.5, -tiny, -0.0]
    x = torch.tensor([float(p) for p in points], dtype=dtype)
    x = torch.cat([x, -x]).requires_grad_(True)
    y = bnn.sign(x)
    assert y.dtype == dtype
    assert y.tolist() == [-1.0] * 7 + [1.0] * 9
    y.backward(torch.full_like(y, 3.0))
    assert x.grad is not None
    assert x.grad.tolist() == 2 * [0.0, 0.0, 0.0, 3.0, 3.0, 3.0, 3.0, 3.0]


def test_weights_are_binarized_with_an_unchanged_gradient() -> None:
    layer = bnn.BinaryLinear(4, 1)
    with torch.no_grad():
        layer.latent_weight.copy_(torch.tensor([[-0.0, 0.3, -1.0, 1.0]]))
    y = layer(torch.tensor([[1.0, 2.0, 4.0, 8.0]]))
    assert y.item() == 1.0 + 2.0 - 4.0 + 8.0
    y.sum().backward()
    assert layer.latent_weight.grad is not None
    assert layer.latent_weight.grad.tolist() == [[1.0, 2.0, 4.0, 8.0]]


def test_square_hinge_is_its_formula() -> None:
    torch.manual_seed(5)
    logits = (2 * torch.randn(7, 4)).double().requires_grad_(True)
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    total = 0.0
    for n in range(7):
        for c in range(4):
            target = 1.0 if labels[n] == c else -1.0
            total += max(0.0, 1.0 - target * float(logits.detach()[n, c])) ** 2
    assert bnn.square_hinge(logits, labels).item() == pytest.approx(total / 28, rel=1e-12)
    assert torch.autograd.gradcheck(lambda z: bnn.square_hinge(z, labels), logits)


def test_clip_latent_touches_latent_weights_alone() -> None:
    model = convnet()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(3 * torch.randn(parameter.shape))
    before = copy.deepcopy(model.state_dict())
    bnn.clip_latent_(model)
    for name, value in model.state_dict().items():
        wanted = before[name].clamp(-1, 1) if name.endswith("latent_weight") else before[name]
        assert torch.equal(value, wanted), name
