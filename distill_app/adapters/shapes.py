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
