"""Which images are for training, validation and test: parts that a data set names, or shares by a seed. No torch."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill_app.errors import DataError
from distill_app.seeds import stable_hash
from distill_app.words import some, unknown

# Part -> what folders, columns and data sets call it, in any case.
SYNONYMS = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing", "tst"),
}
PARTS = tuple(SYNONYMS)
TEST_FRACTION = 0.2


def part_names(found: Iterable[str], splits: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Part -> the name by which a data set has it, of those that it has.

    Args:
        found: The names that there are.
        splits: Part -> name, where the config says it; None: one of its usual names.

    Raises:
        DataError: A name that there is not, two names for a part, or a part that there is not.
    """
    names, chosen = list(found), {}
    if odd := [part for part in splits or {} if part not in PARTS]:
        raise DataError(f"splits: {unknown('part', odd[0], PARTS)}")
    said = {part: name for part, name in (splits or {}).items() if name is not None}
    for part, usual in SYNONYMS.items():
        if part in said:
            if said[part] not in names:
                raise DataError(f"splits.{part}: {unknown('split', said[part], names)}")
            chosen[part] = said[part]
            continue
        fitting = [name for name in names if name.lower() in usual and name not in said.values()]
        if len(fitting) > 1:
            raise DataError(
                f"splits.{part}: {' and '.join(fitting)} could both be meant; say which: dataset.splits.{part}="
                f"{fitting[0]}"
            )
        if fitting:
            chosen[part] = fitting[0]
    return chosen


@dataclass(frozen=True)
class Division:
    """How the images of a data set fall into parts.

    Attributes:
        places: Part -> indices of its images, in the order of the data set.
        how: In words: by which names, or by which seed.
        settings: The share and the seed, where images were shared.
    """

    places: dict[str, list[int]]
    how: str
    settings: dict[str, Any]

    def record(self, names: Sequence[str]) -> dict[str, Any]:
        """What a run keeps of it: how, how many, and a hash of the names of the images of each part."""
        hashes = {
            part: hashlib.blake2b("\n".join(sorted(names[i] for i in places)).encode(), digest_size=8).hexdigest()
            for part, places in self.places.items()
        }
        counts = {part: len(places) for part, places in self.places.items()}
        return {"how": self.how, **self.settings, "images": counts, "hash": hashes}


def divided(
    of: Sequence[str] | None,
    names: Mapping[str, str],
    *,
    labels: Sequence[str],
    images: Sequence[str],
    test_fraction: float | None,
    seed: int,
) -> Division:
    """How images fall into parts: as the data set says, else shared.

    Where it names no test, its validation images are kept for the end, and where it names training images alone, these
    are shared.

    Args:
        of: The part of each image; None: the data set says nothing.
        names: Part -> its name in the data set.
        labels: Class of each image.
        images: Name of each image, such as its path below the root.
        test_fraction: As in `shared_parts`; None: a fifth.
        seed: As there.

    Raises:
        DataError: Parts, but none for training; images that cannot be shared; a share or a seed where there are parts.
    """
    there = set(of or ())
    if of is None or there == {"train"}:
        share = TEST_FRACTION if test_fraction is None else test_fraction
        return shared_parts(labels, images, test_fraction=share, seed=seed)
    if "train" not in there:
        raise DataError(
            f"splits.train: there are no images for training, but for {some(names.values())}; say which they are: "
            f"dataset.splits.train=NAME"
        )
    given = {"test_fraction": test_fraction, "split_seed": seed or None}
    for key, value in given.items():
        if value is not None:
            raise DataError(
                f"{key}: {value:g} was given, and the data say themselves what is for the test "
                f"({some(names.values())}); leave it out"
            )
    places = {part: [index for index, each in enumerate(of) if each == part] for part in PARTS if part in there}
    called = {part: names[part] for part in places}
    if "test" not in places:
        places["test"], called["test"] = places.pop("validation"), called.pop("validation")
    return Division(places, ", ".join(f"{part} is {name}" for part, name in called.items()), {})


def shared_parts(labels: Sequence[str], names: Sequence[str], *, test_fraction: float, seed: int) -> Division:
    """The same share of every class for the test, drawn by a seed and the names of the images.

    Each image has a number that its name and the seed give it, and the smallest of a class are tested: images that
    come along later do not shuffle those that were there.

    Args:
        labels: Class of each image.
        names: Name of each image, such as its path below the root.
        test_fraction: In (0, 1); at least one image of each class.
        seed: Not that of the run, so that runs of several seeds compare on the same images.

    Raises:
        DataError: A share outside of (0, 1), or a class of which no image would be left for one of both.
    """
    if not 0 < test_fraction < 1:
        raise DataError(f"test_fraction: above 0 and below 1, not {test_fraction}")
    of_class: dict[str, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        of_class[label].append(index)
    counts = {label: max(1, round(test_fraction * len(members))) for label, members in of_class.items()}
    short = [f"{label} ({len(of_class[label])})" for label, count in counts.items() if count >= len(of_class[label])]
    if short:
        raise DataError(
            f"test_fraction: too few images to keep {test_fraction:g} of each class for the test: {some(short)}; add "
            f"images, set another dataset.test_fraction, or divide the images yourself into train and test"
        )
    tested = set()
    for label, members in of_class.items():
        tested.update(sorted(members, key=lambda i: stable_hash("test", seed, names[i]))[: counts[label]])
    places = {
        "train": [index for index in range(len(labels)) if index not in tested],
        "test": sorted(tested),
    }
    how = f"{test_fraction:g} of each class for the test, by seed {seed}"
    return Division(places, how, {"test_fraction": test_fraction, "split_seed": seed})
