"""Model files beside published networks: error rate against weight bytes and against work.

What is compared is not alike in one thing, and every table and plot says so: ours are instructions
that an emulator counts, theirs are whatever their file says, on their chip.
"""

import dataclasses
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from edgebnn.errors import EdgebnnError

FORMAT, VERSION = "edgebnn frontier", 1


@dataclass(frozen=True, slots=True)
class Model:
    """A model file, measured; ``inputs`` says what its instructions were counted on."""

    name: str
    recipe: str
    seed: int | None
    test_accuracy: float  # a fraction
    constant_bytes: int
    instructions: int  # the mean
    least: int
    most: int
    inputs: str


@dataclass(frozen=True, slots=True)
class PublishedPoint:
    """A network as its authors report it; ``accuracy`` in percent."""

    network: str
    accuracy: float
    bytes: int
    cycles: int


@dataclass(frozen=True, slots=True)
class Published:
    """A points file: ``costs`` is the unit of ``cycles``, as an axis shows it."""

    label: str
    source: str
    dataset: str
    costs: str
    points: tuple[PublishedPoint, ...]


@dataclass(frozen=True, slots=True)
class Frontier:
    """All that a table or a plot needs."""

    title: str
    dataset: str
    target: str
    compiler: str
    models: tuple[Model, ...]
    published: tuple[Published, ...]

    def to_json(self) -> str:
        content = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: object) -> Self:
        """Raises EdgebnnError where ``text``, the content of file ``where``, is none."""
        try:
            content = json.loads(text)
            if content.pop("format") != FORMAT or content.pop("version") != VERSION:
                raise ValueError("another format")
            models = tuple(Model(**model) for model in content.pop("models"))
            published = tuple(
                published_from(one, f"{where}, published {number}")
                for number, one in enumerate(content.pop("published"), 1)
            )
            return cls(**content, models=models, published=published)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise EdgebnnError(f"{where} is no frontier of this edgebnn; make it again") from None


def read_points(path: Path) -> Published:
    """A points file.

    Raises:
        EdgebnnError: it cannot be read, is not TOML, or a key is missing or of the wrong kind.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EdgebnnError(f"cannot read {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise EdgebnnError(f"{path} is not TOML: {error}") from None
    return published_from(content, str(path))


def published_from(content: Mapping[str, Any], where: str) -> Published:
    """The same from plain values; ``where`` is what errors name."""
    texts = {key: _of(content, key, str, where) for key in ("label", "source", "dataset", "costs")}
    points = []
    for number, point in enumerate(_of(content, "points", list, where), 1):
        here = f"{where}, point {number}"
        if not isinstance(point, dict):
            raise EdgebnnError(f"{here} is no table; write [[points]]")
        accuracy = float(_of(point, "accuracy", (int, float), here))
        size, cycles = (_of(point, key, int, here) for key in ("bytes", "cycles"))
        if not 0.0 < accuracy < 100.0 or size < 1 or cycles < 1:
            raise EdgebnnError(f"{here}: accuracy is above 0 and below 100 %, the rest above 0")
        points.append(PublishedPoint(_of(point, "network", str, here), accuracy, size, cycles))
    return Published(**texts, points=tuple(points))


def _of(content: Mapping[str, Any], key: str, kind: Any, where: str) -> Any:
    value = content.get(key)
    if not isinstance(value, kind) or isinstance(value, bool) or value == "" or value == []:
        raise EdgebnnError(f"{where} has no usable '{key}'; see docs/frontier_ch32v002.toml")
    return value


def check_datasets(models: Mapping[str, str], published: Sequence[Published]) -> str:
    """The one data set of all models, by name, and all points.

    Raises:
        EdgebnnError: error rates on different data sets cannot stand in one plot.
    """
    found = {**models, **{f"'{one.label}'": one.dataset for one in published}}
    first, dataset = next(iter(found.items()))
    for name, other in found.items():
        if other != dataset:
            raise EdgebnnError(
                f"{name} is on {other or 'an unknown data set'}, {first} on "
                f"{dataset or 'an unknown one'}; compare error rates on one data set"
            )
    return dataset


def check_accuracy(name: object, accuracy: float | None) -> float:
    """``accuracy`` of model ``name``, which a logarithmic axis must be able to show."""
    if accuracy is None or math.isnan(accuracy):
        raise EdgebnnError(f"{name} records no test accuracy; save it with test_accuracy=")
    if accuracy >= 1.0:
        raise EdgebnnError(f"{name} makes no error, which a logarithmic axis cannot show")
    return accuracy
