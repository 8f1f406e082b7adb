"""The user's own table in a ``.csv``: a row an example, numbers, and a column of labels.

Commas, semicolons or tabs separate; with the latter two, 1,5 is a number as well as 1.5. The first
row is a header where it names a column ``label``, ``class`` or ``target``, or has no number in it.
The label is the column of that name, else the last one; the class names are what it holds.
"""

import codecs
import csv
import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgebnn.data.columns import Column, as_bytes
from edgebnn.data.dataset import Dataset, Origin, checked, split_by_seed
from edgebnn.data.decode import why
from edgebnn.data.labels import number_classes
from edgebnn.errors import EdgebnnError
from edgebnn.wording import counted

SUFFIXES = frozenset((".csv", ".tsv"))
_LABELS = ("label", "class", "target")


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    names: tuple[str, ...]  # of the columns of ``numbers``; "" where there is no header
    numbers: NDArray[np.float64]
    labels: NDArray[np.int64] | NDArray[np.str_]
    label: str  # their column, in words


def load_csv(path: Path, known: Sequence[Column] | None = None, split_seed: int = 0) -> Dataset:
    """The table in ``path``, of which a fifth of each class, drawn by ``split_seed``, tests.

    Args:
        known: as :func:`edgebnn.data.columns.as_bytes`.

    Raises:
        EdgebnnError: it is not what the head of this module says; names ``path`` and the line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EdgebnnError(f"cannot read {path}: {error.strerror or error}") from None
    table = _parse(path, _text(path, content))
    (numbers,), classes = number_classes(path, [table.labels], None)
    source = f"{path}, whose labels are in {table.label}"
    parts = split_by_seed(source, table.numbers, numbers, classes, split_seed)
    images, columns = as_bytes(path, [part[0] for part in parts], table.names, known)
    dataset = checked(path.stem, path, (images[0], parts[0][1]), (images[1], parts[1][1]), classes)
    origin = Origin(str(path.resolve()), hashlib.sha256(content).hexdigest(), split_seed)
    return replace(dataset, origin=origin, columns=columns)


def _text(path: Path, content: bytes) -> str:
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise EdgebnnError(f"{path}: line {line} is not UTF-8; save it as CSV UTF-8") from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise EdgebnnError(f"{path}: line {line} has a zero byte in it; save it as CSV again")
    return text


def _parse(path: Path, text: str) -> _Table:
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(",;\t", key=first.count)
    comma = separator != ","  # may be that of a decimal
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header: list[str] = []
    place, width = -1, 0
    numbers: list[NDArray[np.float64]] = []
    labels: list[str] = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if not width:
                width, place = len(cells), len(cells) - 1
                if _is_header(cells, comma):
                    header, place = cells, _label_place(path, cells)
                    continue
            if len(cells) != width:
                raise EdgebnnError(
                    f"{path}: line {reader.line_num} has {counted(len(cells), 'column')}, the "
                    f"first one {width}; make all rows of one length"
                )
            labels.append(cells.pop(place))
            numbers.append(_numbers(path, reader.line_num, cells, header, place, comma))
            if not labels[-1]:
                raise EdgebnnError(f"{path}: line {reader.line_num} has no label; give it one")
    except csv.Error as error:
        raise EdgebnnError(f"{path}: line {reader.line_num} is no CSV ({why(error)})") from None
    if not numbers:
        raise EdgebnnError(f"{path} has no rows; give numbers and a label in each")
    if width < 2:
        raise EdgebnnError(f"{path} has one column; give numbers and a label, separated by commas")
    title = header[place] if header else ""
    names = header[:place] + header[place + 1 :] if header else [""] * (width - 1)
    if strange := [name for name in names if not name.isprintable()]:
        raise EdgebnnError(f"{path}: column name {strange[0]!a} cannot be printed; change it")
    label = f"column {title!a:.40}" if title else "the last column"
    return _Table(tuple(names), np.stack(numbers), _labels(path, label, labels, comma), label)


def _is_header(cells: Sequence[str], comma: bool) -> bool:
    return any(cell.lower() in _LABELS for cell in cells) or all(
        _number(cell, comma) is None for cell in cells
    )


def _label_place(path: Path, header: Sequence[str]) -> int:
    places = [place for place, name in enumerate(header) if name.lower() in _LABELS]
    if len(places) > 1:
        one, other = (header[place] for place in places[:2])
        raise EdgebnnError(f"{path} has a column '{one}' and another '{other}'; keep one")
    return places[0] if places else len(header) - 1


def _number(cell: str, comma: bool) -> float | None:
    try:
        return float(cell.replace(",", ".", 1) if comma else cell)
    except ValueError:
        return None


def _numbers(
    path: Path, line: int, cells: Sequence[str], header: Sequence[str], label: int, comma: bool
) -> NDArray[np.float64]:
    """A row without its label; what is no number is named by its line and column."""
    values = [_number(cell, comma) for cell in cells]
    for number, (cell, value) in enumerate(zip(cells, values, strict=True)):
        if value is None or not math.isfinite(value):
            place = number + (number >= label)
            column = f"{header[place]!a:.40}" if header else f"{place + 1}"
            raise EdgebnnError(
                f"{path}: line {line}, column {column} is {f'{cell!a:.40}' if cell else 'empty'}; "
                "give a number, or remove the row or the column"
            )
    return np.array(values, dtype=np.float64)


def _labels(
    path: Path, label: str, texts: Sequence[str], comma: bool
) -> NDArray[np.int64] | NDArray[np.str_]:
    """Whole numbers where all are; else texts. Fractions are no classes."""
    values = [_number(text, comma) for text in texts]
    if any(value is None for value in values):
        return np.array(texts, dtype=np.str_)
    for text, value in zip(texts, values, strict=True):
        assert value is not None
        if not (math.isfinite(value) and value == math.floor(value) and abs(value) < 2**53):
            raise EdgebnnError(
                f"{path}: the labels, {label}, have {text!a:.20} among them, which is no class; "
                "call the right column 'label'"
            )
    return np.array(values, dtype=np.float64).astype(np.int64)
