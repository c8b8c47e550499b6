"""Makes the images that come with the package: distill_app/data/bundled/{digits,fashion_mini}.npz.

    pip install --target outputs/sklearn scikit-learn
    PYTHONPATH=outputs/sklearn python -m scripts.make.bundled_data

Fashion-MNIST comes from Debian's package dataset-fashion-mnist, the digits from scikit-learn. The arrays
depend on nothing else, so running this again changes no image.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from ..output import require_folder
from .fashion_mnist import read_idx, unpack_package

BUNDLED = Path(__file__).resolve().parents[2] / "distill_app" / "data" / "bundled"
DIGITS_TRAIN = 1200
FASHION_PER_CLASS = {"train": 500, "test": 200}


def make_digits() -> dict[str, np.ndarray]:
    """1200 training and 597 test digits, drawn at random: the file is ordered by writer.

    RandomState and not default_rng: numpy promises that its stream stays as it is.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        sys.exit("scikit-learn is needed; the two lines at the top of this script install and use it")
    digits = load_digits()
    order = np.random.RandomState(0).permutation(len(digits.target))
    images = np.rint(digits.images * 255 / 16).astype(np.uint8)
    labels = digits.target.astype(np.uint8)
    train, test = np.split(order, [DIGITS_TRAIN])
    return {
        "train_images": images[train],
        "train_labels": labels[train],
        "test_images": images[test],
        "test_labels": labels[test],
    }


def make_fashion_mini(deb: Path | None) -> dict[str, np.ndarray]:
    """The first 500 training and 200 test images of each class, in the order of the original files."""
    arrays = {}
    with tempfile.TemporaryDirectory() as folder:
        source = unpack_package(Path(folder), deb=deb)
        for split, prefix in {"train": "train", "test": "t10k"}.items():
            images = read_idx(source / f"{prefix}-images-idx3-ubyte.gz")
            labels = read_idx(source / f"{prefix}-labels-idx1-ubyte.gz")
            count = FASHION_PER_CLASS[split]
            chosen = np.sort(np.concatenate([np.flatnonzero(labels == label)[:count] for label in range(10)]))
            arrays |= {f"{split}_images": images[chosen], f"{split}_labels": labels[chosen]}
    return arrays


def main() -> None:
    """Writes both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=BUNDLED, help="where to (default: the package)")
    parser.add_argument("--fashion-deb", type=Path, help="the Debian package, if it is already here")
    args = parser.parse_args()
    require_folder(parser, args.out)
    made = {"digits": make_digits(), "fashion_mini": make_fashion_mini(args.fashion_deb)}
    for name, arrays in made.items():
        path = args.out / f"{name}.npz"
        np.savez_compressed(path, **arrays)
        shapes = ", ".join(f"{key} {array.shape}" for key, array in arrays.items())
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {shapes}")


if __name__ == "__main__":
    main()
