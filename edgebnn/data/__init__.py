"""Data sets as uint8 arrays in memory, and what is done to their images before a network sees them.

Nothing here needs torch. See :mod:`edgebnn.data.sets` for the sets and where their files are
looked for, :mod:`edgebnn.data.transforms` for the preprocessing.
"""

from edgebnn.data.columns import Column
from edgebnn.data.dataset import (
    Dataset,
    Images,
    Labels,
    Origin,
    Progress,
    fingerprint,
    identified,
    quantize,
)
from edgebnn.data.decode import read_image
from edgebnn.data.sets import DATASETS, load_dataset
from edgebnn.data.sources import cache_dir

__all__ = [
    "DATASETS",
    "Column",
    "Dataset",
    "Images",
    "Labels",
    "Origin",
    "Progress",
    "cache_dir",
    "fingerprint",
    "identified",
    "load_dataset",
    "quantize",
    "read_image",
]
