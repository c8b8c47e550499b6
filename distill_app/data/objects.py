"""Records of images with objects in them, and what may be wrong with them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from distill_app.errors import ConfigError

INVALID = ("raise", "skip")
MOST_ID = 10_000  # of a category, where labels are ids
_TOLD = 8  # records that are told one by one


@dataclass
class ObjectRecord:
    """One object as its data set describes it.

    Attributes:
        label: From 1 on.
        box: x1, y1, x2, y2 in pixels.
        area: In pixels.
        crowd: Whether it stands for many that were not told apart; of those none is learnt, and none missed.
        shape: What its mask is made of: run lengths, or polygons; None where nobody asked for it.
        points: Of K keypoints x, y and visibility (0 not labelled, 1 hidden, 2 visible), flat.
    """

    label: int
    box: tuple[float, float, float, float]
    area: float
    crowd: bool = False
    shape: Any = None
    points: Sequence[float] | None = None


@dataclass
class ImageRecord:
    """One image: its file, its height and width in pixels, and its objects."""

    file: str
    size: tuple[int, int]
    objects: list[ObjectRecord] = field(default_factory=list)


class Faults:
    """What is wrong with the records of a data set: an error, or left out and counted."""

    def __init__(self, policy: str):
        if policy not in INVALID:
            raise ValueError(f"invalid: {policy!r} is not one of {', '.join(INVALID)}")
        self.policy = policy
        self.texts: list[str] = []

    def add(self, text: str) -> None:
        """A record that is wrong; the message begins with its name."""
        self.texts.append(text)

    def settle(self, *, source: str) -> list[str]:
        """Notes on what was left out.

        Args:
            source: The file that the records are of.

        Raises:
            ConfigError: There is something wrong, and nobody said to leave it out.
        """
        if not self.texts:
            return []
        shown, more = self.texts[:_TOLD], len(self.texts) - _TOLD
        if self.policy == "raise":
            rest = [f"{source}: and {more} more records are wrong"] if more > 0 else []
            remedy = "; mend the file, or leave such records out: invalid=skip"
            raise ConfigError([f"{source}: {text}{remedy}" for text in shown] + rest)
        rest = [f"and {more} more"] if more > 0 else []
        return [f"{source}: {len(self.texts)} records are wrong and left out: {'; '.join([*shown[:3], *rest])}"]
