"""What commands work on: a model file, lowered, and the images that it was made for."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgebnn.errors import EdgebnnError

if TYPE_CHECKING:
    from edgebnn.checkpoint import Checkpoint
    from edgebnn.ir import Network


def open_model(path: Path) -> "tuple[Checkpoint, Network]":
    """A model file and the integer network in it; an error names the file."""
    from edgebnn import checkpoint
    from edgebnn.lower import lower

    content = checkpoint.read(path)
    try:
        return content, lower(content.model)
    except EdgebnnError as error:
        raise EdgebnnError(f"{path}: {error}") from None


def class_names(content: "Checkpoint", network: "Network") -> tuple[str, ...]:
    """The names of the classes that ``network`` tells apart; their numbers where it has none."""
    from edgebnn.ir import told_apart

    count = told_apart(network.num_classes)
    return content.metadata.class_names or tuple(str(i) for i in range(count))


def read_test_set(
    content: "Checkpoint",
    network: "Network",
    dataset: str | None,
    data: Path | None,
    download: bool = False,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Preprocessed test images (N, C, H, W) and labels for a model, checked to fit it."""
    from edgebnn.data import DATASETS, load_dataset, transforms
    from edgebnn.measure import preprocess

    name = dataset or content.metadata.dataset
    if not name:
        raise EdgebnnError(
            "the model does not say what it was trained on; name a --dataset, or use --random 100"
        )
    if dataset is None and name not in DATASETS:
        raise EdgebnnError(
            f"the model was trained on your own '{name}'; name it with --dataset, "
            f"or use --random 100"
        )
    try:
        images = load_dataset(name, data, download=download)
    except EdgebnnError as error:
        if dataset is not None:
            raise
        reason = str(error).removesuffix(", or use mnist-5k")  # which the model is not for
        raise EdgebnnError(f"{reason}, or compare noise by --random 100") from None
    images = transforms.apply(images, content.metadata.preprocessing)
    pixels = images.test_images
    shape = (network.input.channels, network.input.height, network.input.width)
    if pixels.shape[1:] != shape:
        raise EdgebnnError(
            f"images of {name} are {'x'.join(map(str, pixels.shape[1:]))}, "
            f"the model takes {'x'.join(map(str, shape))} (channels x height x width)"
        )
    known = content.metadata.class_names
    if known and images.class_names != known:
        raise EdgebnnError(
            f"the classes of {name} ({', '.join(images.class_names)}) are not the model's "
            f"({', '.join(known)}); name the right --dataset, or use --random 100"
        )
    return preprocess(pixels, content.metadata.right_shift), images.test_labels
