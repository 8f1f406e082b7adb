"""The user's own labels, numbers or texts, as classes 0, 1, 2, ... with names."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebnn.data.dataset import Labels, check_names
from edgebnn.errors import EdgebnnError


def number_classes(
    source: object, parts: Sequence[NDArray[Any]], names: Sequence[str] | None
) -> tuple[list[Labels], tuple[str, ...]]:
    """Labels as numbers of classes, and the names of the classes.

    Without ``names``, the classes are the labels that there are in the first part, in their
    order, and are called as they are: labels 0, 1, 3 are three classes. With ``names``, labels are
    places in them, or the names themselves.

    Args:
        parts: labels to train on, and those to test on where there are some; ``(N,)`` or
            ``(N, 1)``, whole numbers or texts.

    Raises:
        EdgebnnError: they are neither, a class is not to be trained on, or a label is no class.
    """
    if names is not None and len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise EdgebnnError(f"{source}: two classes are called '{twice}'; rename one")
    check_names(source, names or ())
    titles = ("training", "test")[: len(parts)]
    flat = [_flat(source, title, part) for title, part in zip(titles, parts, strict=True)]
    texts = [part.dtype.kind == "U" for part in flat]
    if len(set(texts)) > 1:
        raise EdgebnnError(f"{source}: some labels are numbers and some texts; give one kind")
    if names is None:
        values = np.unique(flat[0])
        found: tuple[str, ...] = tuple(str(value) for value in values.tolist())
        check_names(source, found)
    elif texts[0]:
        values, found = np.array(names), tuple(names)
    else:
        values, found = np.arange(len(names)), tuple(names)
    order = np.argsort(values, kind="stable")
    numbers = []
    for title, part in zip(titles, flat, strict=True):
        places = np.searchsorted(values, part, sorter=order).clip(0, max(len(values) - 1, 0))
        strange = part if not len(values) else part[values[order[places]] != part]
        if strange.size and names is None:
            raise EdgebnnError(
                f"{source}: a {title} label is {strange[0]}, which no training label is"
            )
        if strange.size:
            range_ = f"are 0 to {len(found) - 1}" if not texts[0] else f"are {', '.join(found)}"
            raise EdgebnnError(
                f"{source}: a {title} label is {strange[0]}; with {len(found)} classes labels "
                f"{range_}"
            )
        numbers.append(order[places].astype(np.int64) if part.size else np.zeros(0, np.int64))
    empty = set(range(len(found))) - set(numbers[0].tolist())
    if empty and flat[0].size:
        raise EdgebnnError(
            f"{source}: class '{found[min(empty)]}' has nothing to train on; "
            "remove its name and number the others without a gap"
        )
    return numbers, found


def _flat(source: object, title: str, labels: NDArray[Any]) -> NDArray[Any]:
    """(N,) int64 or text."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2:
        raise EdgebnnError(
            f"{source}: {title} labels have shape {labels.shape}; give (N,), "
            "which is labels.argmax(1) where they are one-hot"
        )
    if labels.ndim != 1 or labels.dtype.kind not in "biufUS":
        raise EdgebnnError(
            f"{source}: {title} labels are {labels.dtype} of shape {labels.shape}; "
            "give whole numbers or texts of shape (N,)"
        )
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8")
    if labels.dtype.kind == "U":
        return labels
    # Unequal in itself where it is NaN, cut where it is a fraction or beyond int64.
    with np.errstate(invalid="ignore"):
        whole = labels.astype(np.int64)
    if strange := labels[whole != labels].tolist():
        raise EdgebnnError(
            f"{source}: {title} labels are {labels.dtype}, one of them {strange[0]}; "
            "give whole numbers or texts"
        )
    return whole
