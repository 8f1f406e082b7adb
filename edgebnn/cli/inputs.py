"""What commands work on: a model file, lowered, and the images that it was made for."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgebnn.errors import EdgebnnError
from edgebnn.wording import counted, kind

if TYPE_CHECKING:
    from edgebnn.checkpoint import Checkpoint, Metadata
    from edgebnn.data import Dataset
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


class TestSet(NamedTuple):
    """Preprocessed inputs (N, C, H, W), their labels, and whether a model's accuracy is of them."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    own: bool


def read_test_set(
    content: "Checkpoint",
    network: "Network",
    dataset: str | None,
    data: Path | None,
    download: bool = False,
) -> TestSet:
    """The test images of ``dataset``, or of what the model was trained on, checked to fit it."""
    from edgebnn.data import transforms
    from edgebnn.measure import preprocess

    images = _load(content.metadata, dataset, data, download)
    name = dataset or images.name
    images = transforms.apply(images, content.metadata.preprocessing)
    pixels = images.test_images
    shape = (network.input.channels, network.input.height, network.input.width)
    if network.input.height == network.input.width == 1 and pixels[0].size == shape[0]:
        pixels = pixels.reshape(len(pixels), *shape)  # a flat network, as torch flattens
    if pixels.shape[1] == 1 and shape[0] == 3 and pixels.shape[2:] == shape[1:]:
        pixels = np.repeat(pixels, 3, axis=1)  # grey images for a network of colour ones
    if pixels.shape[1:] != shape:
        raise EdgebnnError(
            f"{kind(pixels.shape[1:])}s of {name} are {'x'.join(map(str, pixels.shape[1:]))}, "
            f"the model takes {'x'.join(map(str, shape))} (channels x height x width)"
        )
    known = content.metadata.class_names
    if known and images.class_names != known:
        raise EdgebnnError(
            f"the classes of {name} ({', '.join(images.class_names)}) are not the model's "
            f"({', '.join(known)}); name the right --dataset, or use --random 100"
        )
    origin = content.metadata.origin
    own = dataset is None or bool(origin.path and origin.sha256 == images.origin.sha256)
    return TestSet(preprocess(pixels, content.metadata.right_shift), images.test_labels, own)


def _load(known: "Metadata", dataset: str | None, data: Path | None, download: bool) -> "Dataset":
    """The data set named, or else the very one that a model was trained on.

    Raises:
        EdgebnnError: that one is not where it was, is another by now, or was never told apart.
    """
    from edgebnn.data import DATASETS, load_dataset
    from edgebnn.data.decode import ManySizes
    from edgebnn.data.transforms import first_size

    origin = known.origin
    seed, size = origin.split_seed or 0, first_size(known.preprocessing)
    if dataset is not None:
        none = EdgebnnError(
            f"the model takes {counted(len(known.columns), 'column')} of numbers, and {dataset} "
            "has none; name a table with --dataset"
        )
        try:
            found = load_dataset(
                dataset,
                data,
                download=download,
                split_seed=seed,
                columns=known.columns,
                image_size=size,
            )
        except ManySizes as error:
            if known.columns:
                raise none from None
            raise EdgebnnError(
                f"{error.what}, and the model takes images of one size and resizes none; make them "
                "one size, or name others with --dataset"
            ) from None
        if found.columns != known.columns:
            raise none
        return found
    if not known.dataset:
        raise EdgebnnError(
            "the model does not say what it was trained on; name a --dataset, or use --random 100"
        )
    if origin.path:
        if not Path(origin.path).exists():
            raise EdgebnnError(
                f"the model was trained on your own {origin.path}, which is not there; name it "
                "where it is by --dataset PATH, or use --random 100"
            )
        found = load_dataset(origin.path, split_seed=seed, columns=known.columns, image_size=size)
    elif known.dataset in DATASETS:
        try:
            found = load_dataset(known.dataset, data, download=download)
        except EdgebnnError as error:
            reason = str(error).removesuffix(", or use mnist-5k")  # which the model is not for
            raise EdgebnnError(f"{reason}, or compare noise by --random 100") from None
    else:
        raise EdgebnnError(
            f"the model was trained on your own '{known.dataset}'; name it by --dataset PATH, "
            f"or use --random 100"
        )
    if origin.sha256 and found.origin.sha256 != origin.sha256:
        where = origin.path or f"the {known.dataset} found here"
        raise EdgebnnError(
            f"{where} is not what the model was trained on: sha256 {found.origin.sha256[:12]}..., "
            f"not {origin.sha256[:12]}...; name the right one by --dataset PATH, or use "
            "--random 100"
        )
    return found
