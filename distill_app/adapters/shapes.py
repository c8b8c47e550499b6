"""Shapes that adapters are built from, and the error for those that do not fit."""

from collections.abc import Sequence

Shape = Sequence[int]


def require_map(shape: Shape, *, adapter: str, argument: str) -> None:
    """Refuses what is no map.

    Raises:
        ValueError: The shape has not four dimensions.
    """
    if len(shape) != 4:
        raise ValueError(
            f"{adapter} works on maps (B, C, H, W), got {argument}={tuple(shape)}: name a stage, such as stage3, "
            f"or use distill_app.adapters.LinearProjector for embeddings"
        )


def require_same_size(in_shape: Shape, out_shape: Shape, *, adapter: str) -> None:
    """Refuses maps of other heights and widths: levels of pyramids with another stride.

    Raises:
        ValueError: They differ.
    """
    if tuple(in_shape[2:]) != tuple(out_shape[2:]):
        raise ValueError(
            f"{adapter} brings together levels of one stride, and these have {_size(in_shape)} and {_size(out_shape)} "
            f"positions: name taps of one stride, those of a method in method.params.levels, and check the images' size"
        )


def _size(shape: Shape) -> str:
    return " x ".join(map(str, shape[2:]))
