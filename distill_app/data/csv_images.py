"""Images in files that a table names, with a class each."""

from collections.abc import Mapping, Sequence

from distill_app.data.folders import FileImages
from distill_app.data.opening import MAX_PIXELS
from distill_app.data.tables import table_listing


class CsvImages(FileImages):
    """Images that a CSV file names, a row each, with its path, its class and, if need be, its part.

    Args:
        file: In UTF-8; its first row names the columns.
        split: `train` or `test`. Without a column of parts, each class is shared.
        root: what paths are relative to; None: the folder of the file.
        columns: image, label, split -> name of the column, where that is none of the usual ones.
        splits: part -> what the column of parts calls it, where that is none of the usual names.
        classes: names in the order of their labels; None: sorted.
        test_fraction: the share of each class that is tested, where it is shared; None: 0.2.
        split_seed: what draws it.
        max_pixels: images with more are refused.
        white: as of `FileImages`.
        upright: turn images as their EXIF data say.

    Raises:
        DataError: There is no such file or column, a row says too little, or an image is not there.
        OSError: A file that cannot be read.
    """

    def __init__(
        self,
        file: str,
        *,
        split: str,
        root: str | None = None,
        columns: Mapping[str, str | None] | None = None,
        splits: Mapping[str, str | None] | None = None,
        classes: Sequence[str] | None = None,
        test_fraction: float | None = None,
        split_seed: int = 0,
        max_pixels: int = MAX_PIXELS,
        white: float | None = None,
        upright: bool = False,
    ) -> None:
        listing = table_listing(
            file,
            root=root,
            columns=columns,
            splits=splits,
            classes=classes,
            test_fraction=test_fraction,
            split_seed=split_seed,
        )
        super().__init__(listing, split, max_pixels=max_pixels, white=white, upright=upright)
