"""What there is in a data set, image by image: sizes, modes, damage, and which images are there twice. No torch."""

import hashlib
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from PIL import Image

from distill_app.data.hub import HubListing
from distill_app.data.listing import Listing
from distill_app.data.opening import open_bytes, open_image
from distill_app.data.parts import PARTS
from distill_app.errors import DataError
from distill_app.words import some

SHOWN = 5
_UNEVEN = 10  # times as many images of the largest class as of the smallest
_BAD = (OSError, ValueError, SyntaxError, RuntimeError, EOFError, DataError)


@dataclass(frozen=True)
class Seen:
    """One image of a data set.

    Attributes:
        name: Of its file, or its row.
        part: train, validation or test.
        label: Position of its class.
        size: Width and height in pixels; None where it cannot be read, as `mode` and `digest`.
        mode: How its pixels are stored, as Pillow calls it.
        digest: Of its pixels: the same image in another file has the same.
        problem: Why it cannot be read.
    """

    name: str
    part: str
    label: int
    size: tuple[int, int] | None = None
    mode: str | None = None
    digest: str | None = None
    problem: str | None = None


def look(
    listing: Listing | HubListing, parts: Sequence[str], *, white: Mapping[str, Any] | None = None
) -> Iterator[Seen]:
    """Reads every image of own data, from the first pixel to the last.

    Args:
        listing: The images.
        parts: Of each image.
        white: Part -> the value that becomes 255, where the config says it.
    """
    if isinstance(listing, Listing):
        names = listing.names
        opening: list[Callable[[], Image.Image]] = [partial(open_image, path) for path, _ in listing.files]
    else:
        names = [f"row {row} of {table}" for table, row in listing.rows]
        opening = [partial(_of_row, listing, table, row) for table, row in listing.rows]
    for opened, name, part, label in zip(opening, names, parts, listing.labels, strict=True):
        yield seen(partial(_shown, opened, (white or {}).get(part)), name=name, part=part, label=label)


def _shown(opened: Callable[[], Image.Image], white: float | None) -> Image.Image:
    """The image, refused where a run would refuse to make 8 bits a channel of it."""
    image = opened()
    if white is not None or image.mode == "F" or image.mode.startswith("I"):
        from distill_app.data.images import eight_bits  # torch takes seconds, and few images are so deep

        try:
            eight_bits(image, white=white, name="")
        except DataError as error:
            image.close()
            raise DataError(str(error).removeprefix(": ")) from error
    return image


def _of_row(listing: HubListing, table: str, row: int) -> Image.Image:
    stored = listing.tables[table][row][listing.image]
    if not stored:
        raise ValueError("it has no image")
    return open_image(stored["path"]) if stored["bytes"] is None else open_bytes(stored["bytes"], name="it")


def seen(opened: Callable[[], Image.Image], *, name: str, part: str, label: int) -> Seen:
    """One image, read as a whole.

    Args:
        opened: A function that opens it with Pillow.
        name: As of `Seen`.
        part: As there.
        label: As there.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata that is odd, and no matter
            with opened() as image:
                image.load()
                hasher = hashlib.blake2b(f"{image.mode} {image.size};".encode(), digest_size=8)
                hasher.update(image.tobytes())
                return Seen(name, part, label, image.size, image.mode, hasher.hexdigest())
    except _BAD as error:
        return Seen(name, part, label, problem=(str(error).splitlines() or [type(error).__name__])[0])


@dataclass
class Inspection:
    """What was seen of a data set.

    Attributes:
        classes: Names, in the order of their labels.
        counts: Part -> number of images of each class.
        sizes: (width, height) -> how many.
        modes: Mode -> how many.
        unreadable: Images that cannot be read.
        twice: Images with the same pixels, in groups.
    """

    classes: list[str]
    counts: dict[str, list[int]] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    unreadable: list[Seen] = field(default_factory=list)
    twice: list[list[Seen]] = field(default_factory=list)

    @classmethod
    def of(cls, images: Iterable[Seen], classes: Sequence[str]) -> "Inspection":
        """Sums up what was seen."""
        found, alike = cls(list(classes)), defaultdict(list)
        for image in images:
            row = found.counts.setdefault(image.part, [0] * len(found.classes))
            row[image.label] += 1
            if image.problem is not None or image.size is None:
                found.unreadable.append(image)
                continue
            found.sizes[image.size] += 1
            found.modes[str(image.mode)] += 1
            alike[image.digest].append(image)
        found.counts = {part: found.counts[part] for part in PARTS if part in found.counts}
        found.twice = [group for group in alike.values() if len(group) > 1]
        return found

    @property
    def across(self) -> list[list[Seen]]:
        """Groups of images with the same pixels that are in several parts."""
        return [group for group in self.twice if len({image.part for image in group}) > 1]

    @property
    def contradicting(self) -> list[list[Seen]]:
        """Groups of images with the same pixels that are of several classes."""
        return [group for group in self.twice if len({image.label for image in group}) > 1]

    @property
    def imbalance(self) -> float:
        """How many times as many training images the largest class has as the smallest; infinite if that has none."""
        counts = self.counts.get("train") or [0]
        return max(counts) / min(counts) if min(counts) else float("inf")

    def wrong(self) -> list[str]:
        """What has to be mended before figures mean anything."""
        found = []
        if self.unreadable:
            alike: dict[str | None, list[str]] = defaultdict(list)
            for image in self.unreadable:
                alike[image.problem].append(image.name)
            told = some((f"{some(names)} ({problem})" for problem, names in alike.items()), limit=SHOWN)
            found.append(f"{_images(self.unreadable)} cannot be read: {told}")
        if self.across:
            told = _told(self.across)
            found.append(f"{_images(self.across)} in several parts, so that what is tested was seen: {told}")
        if self.contradicting:
            found.append(f"{_images(self.contradicting)} of several classes: {_told(self.contradicting)}")
        if empty := [self.classes[label] for label, count in enumerate(self.counts.get("train", [])) if not count]:
            found.append(f"no training image of {some(empty, limit=SHOWN)}")
        return found

    def notes(self, *, image_size: int | None) -> list[str]:
        """What may be as it should be, and is worth a look.

        Args:
            image_size: Of the images that networks get.
        """
        found = []
        within = [group for group in self.twice if group not in self.across and group not in self.contradicting]
        if within:
            found.append(f"{_images(within)} more than once in a part: {_told(within)}")
        if _UNEVEN <= self.imbalance < float("inf"):
            found.append(
                f"the largest class has {self.imbalance:.0f} times as many training images as the smallest: look at "
                f"figures by class (distill evaluate RUN --full), or weigh them (dataset.sampler)"
            )
        short = self.median_side
        if image_size is not None and short is not None and 2 * short < image_size:
            size = max(32, 32 * round(short / 32))
            found.append(
                f"half of the images are {short} px or less on their shorter side and are enlarged to {image_size}: "
                f"dataset.image_size={size} trains {(image_size / size) ** 2:.0f} times as fast"
            )
        return found

    @property
    def median_side(self) -> int | None:
        """The median of the shorter sides."""
        sides = sorted(min(size) for size, count in self.sizes.items() for _ in range(count))
        return sides[len(sides) // 2] if sides else None

    def plain(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "classes": self.classes,
            "counts": self.counts,
            "sizes": {f"{width}x{height}": count for (width, height), count in self.sizes.most_common()},
            "modes": dict(self.modes.most_common()),
            "imbalance": self.imbalance if self.imbalance != float("inf") else None,
            "unreadable": [{"name": image.name, "problem": image.problem} for image in self.unreadable],
            "duplicates": [
                [{"name": each.name, "part": each.part, "class": self.classes[each.label]} for each in group]
                for group in self.twice
            ],
        }


def _images(which: Sequence[Any]) -> str:
    return f"{len(which)} image{'s' if len(which) > 1 else ''}"


def _told(groups: Sequence[Sequence[Seen]]) -> str:
    return some((" = ".join(f"{image.part} {image.name}" for image in group[:3]) for group in groups), limit=SHOWN)
