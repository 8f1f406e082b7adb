"""model.pt: tensors and plain data, never code.

A file has one of two forms. The *training* form holds latent weights and, if training goes on, the
state of optimizer and random generators. The *release* form holds the signs, eight to a byte, and
the norms: about 32 times smaller, and enough for everything but further training. Both hold a
digest of all else in them; files from before it load without one.
"""

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from edgebnn import archive
from edgebnn.data.columns import Column
from edgebnn.data.dataset import Origin
from edgebnn.errors import EdgebnnError
from edgebnn.files import replacing
from edgebnn.ir import told_apart
from edgebnn.nn import Input
from edgebnn.nn.graph import check_shapes
from edgebnn.nn.record import Form, connect
from edgebnn.nn.trace import trace
from edgebnn.proof import prove
from edgebnn.samples import pack, unpack
from edgebnn.wording import counted

FORMAT = "edgebnn model"
VERSION = 1
_DAMAGE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)
_STEP = re.compile(r"[a-z]{1,20}( [1-9][0-9]{0,3})?")
_MOST_STEPS = 8
_PARTS = {"format", "version", "form", "layers", "metadata", "samples", "training"}
Plain = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is known of a model beside its layers.

    ``test_accuracy`` is a fraction, ``right_shift`` the number of low bits that preprocessing
    drops from an 8-bit pixel, after the ``preprocessing`` steps of
    :mod:`edgebnn.data.transforms`. ``image`` is (channels, height, width) of the images before
    them; None where nobody said it. ``origin`` tells the
    data of the training and of the accuracy from others of the name ``dataset``. ``columns`` make
    bytes of the numbers of a table, before ``preprocessing``; none where there is nothing to do.
    """

    class_names: tuple[str, ...] = ()
    test_accuracy: float | None = None
    dataset: str = ""
    right_shift: int = 0
    preprocessing: tuple[str, ...] = ()
    recipe: Mapping[str, Plain] = field(default_factory=dict)
    seed: int | None = None
    origin: Origin = field(default_factory=Origin)
    columns: tuple[Column, ...] = ()
    image: tuple[int, int, int] | None = None

    @property
    def set_name(self) -> str:
        """The data set's name, with its checksum where others may have the name too."""
        own = self.origin.path and f" (sha256 {self.origin.sha256[:12]}...)"
        return f"{self.dataset}{own}"

    @property
    def input_steps(self) -> tuple[str, ...]:
        """All that is done to 8-bit pixels, in order, before they are the network's input."""
        shift = (f"shift right by {self.right_shift}",) if self.right_shift else ()
        return (*self.preprocessing, *shift)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model file, read. ``training`` is the resumable state, None where there is none.

    ``samples`` are inputs (N, *shape) as ``model`` takes them; where there are none N is 0.
    """

    model: nn.Module
    metadata: Metadata
    form: Form
    training: dict[str, Any] | None
    samples: NDArray[np.uint8]

    @property
    def zero_point(self) -> int:
        """The input that stands for 0."""
        return _input(self.model).zero_point


def _input(model: nn.Module) -> Input:
    return next(m for m in model.modules() if isinstance(m, Input))


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    class_names: Sequence[str] = (),
    test_accuracy: float | None = None,
    dataset: str = "",
    right_shift: int = 0,
    preprocessing: Sequence[str] = (),
    recipe: Mapping[str, Plain] | None = None,
    seed: int | None = None,
    origin: Origin | None = None,
    columns: Sequence[Column] = (),
    image: Sequence[int] | None = None,
    training: dict[str, Any] | None = None,
    samples: object = None,
    form: Form = "training",
) -> None:
    """Write ``model`` to ``path``, whole or not at all.

    What is written is compared with what ``model`` computes (see :mod:`edgebnn.proof`) first.

    Args:
        model: any module of layers that edgebnn knows (see :mod:`edgebnn.nn`), in either mode. A
            Softmax or LogSoftmax at its end is left out: the file's model gives the scores.
        class_names: one a class; of a single score two, the second where it is at least 0.
        image: channels, height and width of the images before ``preprocessing``.
        training: resumable state, tensors and plain data only; dropped in release form.
        samples: (N, *shape) a few typical inputs, as ``model`` takes them; the first ones are kept
            (see :mod:`edgebnn.samples`).

    Raises:
        EdgebnnError: a layer is not supported, shapes do not chain, a value is not finite, or the
            file would not compute what the model does.
    """
    metadata = {
        "class_names": [str(name) for name in class_names],
        "test_accuracy": _accuracy(_plain("test_accuracy", test_accuracy)),
        "dataset": str(dataset),
        "right_shift": _plain("right_shift", right_shift),
        "preprocessing": list(_steps(preprocessing)),
        "recipe": {str(key): _plain(f"recipe's {key}", v) for key, v in (recipe or {}).items()},
        "seed": _plain("seed", seed),
        "origin": dataclasses.asdict(origin or Origin()),
        "columns": [list(dataclasses.astuple(column)) for column in columns],
        "image": None if image is None else list(_image(image)),
    }
    proof = prove(model, form=form)
    _check_metadata(proof.network.num_classes, class_names, right_shift)
    _check_columns(model, columns)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "form": form,
        "layers": proof.layers,
        "metadata": metadata,
        "training": training if form == "training" else None,
    }
    if samples is not None:
        first = proof.layers[0]["config"]
        content["samples"] = pack(samples, tuple(first["shape"]), first["bits"])
    content["sha256"] = archive.digest(content)
    with replacing(Path(path)) as file:
        archive.write(content, file)


def _plain(what: str, value: object) -> Plain | None:
    """``value`` as a type that a model file can hold: NumPy's scalars and paths become Python's."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if value is None or isinstance(value, Plain):
        return value
    raise EdgebnnError(f"{what} is a {type(value).__name__}; give a number, a text or nothing")


def _accuracy(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and 0.0 <= value <= 1.0:
        return float(value)
    raise EdgebnnError(f"test_accuracy is {value!r}; give a fraction, as 0.9875 for 98.75 %")


def load(path: str | os.PathLike[str]) -> nn.Module:
    """The model in ``path``, in eval mode. Raises EdgebnnError as :func:`read` does."""
    return read(path).model.eval()


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Everything in ``path``. No code in the file is ever run.

    Raises:
        EdgebnnError: one line that says what is wrong with the file.
    """
    path = Path(path)
    content = archive.read(path)
    try:
        return _parse(content)
    except EdgebnnError as error:
        raise EdgebnnError(f"{path}: {error}") from None
    except _DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EdgebnnError(f"{path}: damaged edgebnn model ({reason})") from None


def _parse(content: Any) -> Checkpoint:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise EdgebnnError("not an edgebnn model; `edgebnn.save(model, path)` makes one")
    if content["version"] != VERSION:
        raise EdgebnnError(
            f"format version {content['version']}, this edgebnn reads {VERSION}; "
            f"update edgebnn or save the model again"
        )
    sealed = {key: value for key, value in content.items() if key != "sha256"}
    if "sha256" in content and content["sha256"] != archive.digest(sealed):
        raise EdgebnnError("damaged, its content is not what was saved; copy or train it again")
    for key in sealed.keys() - _PARTS:
        raise EdgebnnError(f"holds {key!r:.60}, which this edgebnn does not know; update edgebnn")
    form = content["form"]
    if form not in ("training", "release"):
        raise EdgebnnError(f"unknown form '{form}'")
    model = connect(content["layers"])
    metadata = _metadata(content["metadata"])
    classes = math.prod(check_shapes(trace(model)))
    _check_metadata(classes, metadata.class_names, metadata.right_shift)
    _check_columns(model, metadata.columns)
    training = content["training"]
    if not (training is None or isinstance(training, dict)):
        raise EdgebnnError("its state of training is damaged; train it again")
    first = _input(model)
    samples = np.zeros((0, *first.shape), np.uint8)
    if "samples" in content:
        samples = unpack(content["samples"], first.shape, first.bits)
    return Checkpoint(model, metadata, form, training, samples)


def _check_metadata(classes: int, class_names: Sequence[str], right_shift: int) -> None:
    wanted = told_apart(classes)
    if class_names and len(class_names) != wanted:
        one = ", which one score tells apart; give two" if classes == 1 else ""
        raise EdgebnnError(f"{counted(len(class_names), 'class name')} for {wanted} classes{one}")
    if not 0 <= right_shift < 8:
        raise EdgebnnError(f"right_shift is {right_shift}; pixels have 8 bits, so give 0 to 7")


def _check_columns(model: nn.Module, columns: Sequence[Column]) -> None:
    inputs = [math.prod(m.shape) for m in model.modules() if isinstance(m, Input)]
    if columns and [len(columns)] != inputs:
        raise EdgebnnError(
            f"{counted(len(columns), 'column')} for {counted(inputs[0], 'input')}; give one for "
            "each"
        )


def _steps(steps: object) -> tuple[str, ...]:
    """``steps`` if they look like preprocessing; which there are, edgebnn.data knows."""
    if not isinstance(steps, list | tuple) or len(steps) > _MOST_STEPS:
        raise EdgebnnError(f"preprocessing is no list of up to {_MOST_STEPS} steps")
    for step in steps:
        if not isinstance(step, str) or not _STEP.fullmatch(step):
            raise EdgebnnError(
                f"preprocessing step {step!r:.60} is none; write it as in 'resize 16'"
            )
    return tuple(steps)


def _metadata(content: Mapping[str, Any]) -> Metadata:
    accuracy = content["test_accuracy"]
    seed = content["seed"]
    recipe = {str(k): v for k, v in content["recipe"].items() if isinstance(v, Plain)}
    return Metadata(
        class_names=tuple(str(name) for name in content["class_names"]),
        test_accuracy=_accuracy(accuracy),
        dataset=str(content["dataset"]),
        right_shift=int(content["right_shift"]),
        preprocessing=_steps(content.get("preprocessing", ())),
        recipe=recipe,
        seed=None if seed is None else int(seed),
        origin=_origin(content.get("origin", {})),
        columns=tuple(Column(*column) for column in content.get("columns", ())),
        image=None if content.get("image") is None else _image(content["image"]),
    )


def _image(shape: Sequence[int]) -> tuple[int, int, int]:
    """``shape`` as channels, height and width; whether they fit the network, generate says."""
    sizes = [int(size) for size in shape if isinstance(size, int | np.integer)]
    if len(sizes) != len(shape) or len(sizes) != 3 or not all(0 < size < 2**31 for size in sizes):
        raise EdgebnnError(f"image is {shape!r:.60}; give its channels, height and width")
    return sizes[0], sizes[1], sizes[2]


def _origin(content: Mapping[str, Any]) -> Origin:
    seed = content.get("split_seed")
    return Origin(
        path=str(content.get("path", "")),
        sha256=str(content.get("sha256", "")),
        split_seed=None if seed is None else int(seed),
    )
