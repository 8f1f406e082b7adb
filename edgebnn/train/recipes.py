"""Recipes: a network and how to train it, each a small TOML file.

Those that come with edgebnn are in ``edgebnn/recipes/``; a user's own are given by path.
A file's keys are the attributes of :class:`Recipe`; what it leaves out has the default.
"""

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from edgebnn.errors import EdgebnnError
from edgebnn.train import networks
from edgebnn.train.augment import Augmentation
from edgebnn.wording import kind

_FOLDER = Path(__file__).resolve().parents[1] / "recipes"


@dataclass(frozen=True, slots=True)
class Recipe:
    """A network and how to train it; the defaults are what trains binarized networks best here.

    Attributes:
        name: as given on the command line.
        summary: one line on the network.
        network: its layers; see :mod:`edgebnn.train.networks`.
        one_score: tells two classes apart by the sign of one score, not by the better of two.
        binary: False trains the float twin, with ReLU; for comparisons, nothing is saved.
        sign: gradient of the activations: ste, stochastic, swish, swish_trained or polynomial.
        sign_beta: steepness of the swish estimators.
        learned_shift: a trainable shift a channel before each sign.
        levels: thresholds of each activation, 1, 3 or 7: 1, 2 or 3 bits.
        level_spacing: from one threshold to the next; 0 for 0.6 of three and 0.3 of seven.
        head: "sign", or "integer": the last layer reads the sums of the last convolution.
        weights: gradient of the weights: identity, stochastic, magnitude or swish.
        norm: "batch" or "shift", of hidden layers; the last is an ordinary one, as published.
        pad_value: around hidden convolutions: -1, 0 or 1, times the levels.
        dropout_input: probability of dropping an input.
        dropout_hidden: probability of dropping a hidden bit.
        epochs: passes over the training images.
        batch_size: images a step, over all processes.
        optimizer: adam, sgd, shift-adamax, or bop (for the signs, with adam for the rest).
        adamax_beta2: how much of the largest gradient shift-adamax keeps a step, as published. In
            runs of a few epochs 0.99 is better: one large gradient slows a weight for fewer steps.
        learning_rate: at the first step.
        glorot_rates: scale each layer's rate by the paper's 1 / sqrt(1.5 / (fan in + fan out)).
        schedule: cosine (to 0), exponential (to ``final_rate``), halving or constant.
        final_rate: of an exponential schedule, at its end.
        halve_every: epochs between the steps of a halving schedule.
        loss: square_hinge or cross_entropy.
        regularizer: none, or BNN+'s r1 or r2 on the latent weights.
        regularization: its weight in the loss.
        stages: 2 trains the first half of the epochs with real weights and binary activations.
        teacher: network of a float teacher that is trained first; "" for none.
        teacher_epochs: for how long.
        distillation: weight of the teacher's part of the loss, 0 to 1.
        temperature: of the distillation.
        input_bits: 1 to 8; images lose their ``8 - input_bits`` lowest bits.
        zero_point: the input that stands for 0: 128 for signed values, given as ``value + 128``.
        image_size: pixels that images are resized to, outside the network; 0 leaves them.
        whiten: "none", "gcn" or "zca"; outside the network too.
        augment_shift: pixels.
        augment_flip: left and right.
        augment_rotate: degrees.
        augment_scale: a fraction.
        precision: float32 or bfloat16, of the arithmetic in training; the network is the same.
    """

    name: str
    summary: str
    network: str
    one_score: bool = False
    binary: bool = True
    sign: str = "ste"
    sign_beta: float = 5.0
    learned_shift: bool = False
    levels: int = 1
    level_spacing: float = 0.0
    head: str = "sign"
    weights: str = "identity"
    norm: str = "batch"
    pad_value: int = -1
    dropout_input: float = 0.0
    dropout_hidden: float = 0.0
    epochs: int = 20
    batch_size: int = 128
    optimizer: str = "adam"
    adamax_beta2: float = 1 - 2**-10
    learning_rate: float = 1e-2
    glorot_rates: bool = False
    schedule: str = "cosine"
    final_rate: float = 1e-5
    halve_every: int = 20
    loss: str = "square_hinge"
    regularizer: str = "none"
    regularization: float = 1e-4
    stages: int = 1
    teacher: str = ""
    teacher_epochs: int = 10
    distillation: float = 0.5
    temperature: float = 4.0
    input_bits: int = 8
    zero_point: int = 0
    image_size: int = 0
    whiten: str = "none"
    augment_shift: int = 0
    augment_flip: bool = False
    augment_rotate: float = 0.0
    augment_scale: float = 0.0
    precision: str = "float32"

    def __post_init__(self) -> None:
        for key, allowed in _CHOICES.items():
            value = getattr(self, key)
            if value not in allowed:
                options = ", ".join(map(str, allowed))
                raise EdgebnnError(f"recipe '{self.name}': {key} is {value!r}; pick of: {options}")
        for key, (least, most) in _RANGES.items():
            value = getattr(self, key)
            if not least <= value <= most:
                raise EdgebnnError(
                    f"recipe '{self.name}': {key} is {value}; give {_figure(least)} to "
                    f"{_figure(most)}"
                )
        if self.zero_point >= 2**self.input_bits:
            raise EdgebnnError(
                f"recipe '{self.name}': zero_point is {self.zero_point}; an input of "
                f"{self.input_bits} bits is 0 to {2**self.input_bits - 1}"
            )
        if self.level_spacing and self.levels == 1:
            raise EdgebnnError(
                f"recipe '{self.name}': level_spacing is between thresholds, of which there is one "
                f"with levels = 1; set levels = 3"
            )
        networks.parse(self.network)
        if self.teacher:
            networks.parse(self.teacher)

    @property
    def preprocessing(self) -> tuple[str, ...]:
        """Steps of :mod:`edgebnn.data.transforms`, done to images outside the network."""
        resize = (f"resize {self.image_size}",) if self.image_size else ()
        return resize if self.whiten == "none" else (*resize, self.whiten)

    @property
    def augmentation(self) -> Augmentation:
        return Augmentation(
            self.augment_shift,
            self.augment_flip,
            self.augment_rotate,
            self.augment_scale,
            self.zero_point,
        )

    @property
    def style(self) -> networks.Style:
        return networks.Style(
            sign=self.sign,
            sign_beta=self.sign_beta,
            learned_shift=self.learned_shift,
            levels=self.levels,
            level_spacing=self.level_spacing,
            head=self.head,
            weights=self.weights,
            norm=self.norm,
            pad_value=self.pad_value,
            dropout_input=self.dropout_input,
            dropout_hidden=self.dropout_hidden,
            bits=self.input_bits,
            zero_point=self.zero_point,
        )

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """The binarized network for images of ``shape``, with fresh latent weights."""
        if self.one_score:
            if classes != 2:
                raise EdgebnnError(
                    f"recipe '{self.name}': one score tells two classes apart, the data have "
                    f"{classes}; set one_score = false"
                )
            classes = 1
        return networks.build(self.network, shape, classes, self.style)

    def changed(self, settings: Mapping[str, Any], name: str | None = None) -> "Recipe":
        """This recipe with other values for some attributes.

        Raises:
            EdgebnnError: no such attribute, or a value that it cannot have.
        """
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return from_mapping({**values, **settings, "name": name or self.name}, self.name)

    def plain(self) -> dict[str, str | int | float | bool]:
        """All that differs from the defaults, as a model file stores it."""
        return {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.default is dataclasses.MISSING or getattr(self, f.name) != f.default
        }


_CHOICES: Mapping[str, tuple[Any, ...]] = {
    "sign": ("ste", "stochastic", "swish", "swish_trained", "polynomial"),
    "levels": (1, 3, 7),
    "head": ("sign", "integer"),
    "weights": ("identity", "stochastic", "magnitude", "swish"),
    "norm": ("batch", "shift"),
    "pad_value": (-1, 0, 1),
    "optimizer": ("adam", "sgd", "shift-adamax", "bop"),
    "schedule": ("cosine", "exponential", "halving", "constant"),
    "loss": ("square_hinge", "cross_entropy"),
    "regularizer": ("none", "r1", "r2"),
    "stages": (1, 2),
    "whiten": ("none", "gcn", "zca"),
    "precision": ("float32", "bfloat16"),
}
_RANGES: Mapping[str, tuple[float, float]] = {
    "sign_beta": (0.01, 1000),
    "level_spacing": (0, 1000),
    "dropout_input": (0, 0.99),
    "dropout_hidden": (0, 0.99),
    "epochs": (1, 1e6),
    "batch_size": (2, 1e6),
    "adamax_beta2": (0, 0.999999),
    "learning_rate": (1e-9, 1e3),
    "final_rate": (1e-12, 1e3),
    "halve_every": (1, 1e6),
    "regularization": (0, 1e3),
    "teacher_epochs": (1, 1e6),
    "distillation": (0, 1),
    "temperature": (0.01, 1000),
    "input_bits": (1, 8),
    "zero_point": (0, 255),
    "image_size": (0, 4096),
    "augment_shift": (0, 64),
    "augment_rotate": (0, 180),
    "augment_scale": (0, 0.9),
}


_KINDS: Mapping[type, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a text",
}


def _figure(value: float) -> str:
    """1e6 -> "1 000 000", 1e-9 -> "1e-09"."""
    return f"{int(value):,}".replace(",", " ") if value == int(value) else f"{value:g}"


def from_mapping(settings: Mapping[str, Any], where: str) -> Recipe:
    """A recipe from plain values, checked key by key.

    Raises:
        EdgebnnError: an unknown key, a missing one, or a value of the wrong type.
    """
    known = {f.name: f for f in dataclasses.fields(Recipe)}
    values = {}
    for key, value in settings.items():
        if key not in known:
            raise EdgebnnError(f"recipe '{where}': unknown setting '{key}'{_nearest(key, known)}")
        wanted: Any = known[key].type
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is not wanted:
            raise EdgebnnError(f"recipe '{where}': {key} is {value!r}; give {_KINDS[wanted]}")
        values[key] = value
    for key, item in known.items():
        if item.default is dataclasses.MISSING and key not in values:
            raise EdgebnnError(f"recipe '{where}' does not say its {key}")
    return Recipe(**values)


def _nearest(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, list(known), 1)
    return f"; do you mean {close[0]}?" if close else f"; there are: {', '.join(known)}"


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file; its name is the file's stem.

    Raises:
        EdgebnnError: the file cannot be read, is not TOML, or is no recipe.
    """
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EdgebnnError(f"cannot read {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise EdgebnnError(f"{path} is not TOML: {error}") from None
    return from_mapping({"summary": "", **settings, "name": path.stem}, path.stem)


def parse_setting(text: str) -> tuple[str, Any]:
    """``key=value`` with a TOML value, or a bare word, which is a string.

    Raises:
        EdgebnnError: there is no ``=``, or no value.
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key or not value:
        raise EdgebnnError(f"'{text}' is no setting; write key=value, as in epochs=40")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def recipe_names() -> list[str]:
    """The recipes that come with edgebnn, by name, 8k before 16k."""
    names = (path.stem for path in _FOLDER.glob("*.toml"))
    return sorted(names, key=lambda name: re.sub(r"\d+", lambda digits: digits[0].zfill(9), name))


def first_recipe(shape: tuple[int, int, int], image_size: int = 0) -> str:
    """Name of the recipe to begin with on inputs of ``shape`` = (channels, height, width).

    ``image_size``, where it is given, is what images are resized to. Rows of numbers, and signals
    and images that are too small to be pooled as often as it takes, have dense layers.
    """
    if kind(shape) == "signal":
        return "signal-2k" if shape[1] >= 16 else "mlp-32k"
    return "conv-4k" if min(shape[1:]) >= 16 and not 0 < image_size < 16 else "mlp-32k"


def get_recipe(name_or_path: str) -> Recipe:
    """The recipe of that name, or in that ``.toml`` file.

    Raises:
        EdgebnnError: no such recipe; the message says which is near.
    """
    if name_or_path.endswith(".toml"):
        return read_recipe(Path(name_or_path))
    names = recipe_names()
    if name_or_path not in names:
        close = difflib.get_close_matches(name_or_path, names, 1)
        near = f"do you mean {close[0]}? " if close else ""
        raise EdgebnnError(
            f"unknown recipe '{name_or_path}'; {near}edgebnn recipes lists all, "
            "or give a .toml file"
        )
    return read_recipe(_FOLDER / f"{name_or_path}.toml")
