"""Puts the full Fashion-MNIST, from a Debian package, where torchvision's FashionMNIST(root) reads it.

    python -m scripts.make.fashion_mnist data/fashion_mnist

Needs apt-get and dpkg, but neither root nor an installation: the package is only unpacked. The files have to
be uncompressed: Debian packed them anew, so torchvision would take the .gz for broken and download its own.
"""

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from ..output import require_folder

PACKAGE = "dataset-fashion-mnist"
FILES = {
    "train-images-idx3-ubyte": (60000, 28, 28),
    "train-labels-idx1-ubyte": (60000,),
    "t10k-images-idx3-ubyte": (10000, 28, 28),
    "t10k-labels-idx1-ubyte": (10000,),
}


def unpack_package(folder: Path, *, deb: Path | None = None) -> Path:
    """Unpacks the Debian package below `folder`, fetched if not given, and returns where its files are."""
    for program in ("dpkg",) if deb else ("dpkg", "apt-get"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is not there; on another system than Debian let torchvision download the data")
    if deb is None:
        fetched = subprocess.run(["apt-get", "download", "-q", PACKAGE], cwd=folder)
        found = sorted(folder.glob(f"{PACKAGE}_*.deb"))
        if fetched.returncode or not found:
            sys.exit(f"apt-get download {PACKAGE} failed; run `sudo apt-get update` and try again")
        deb = found[0]
    subprocess.run(["dpkg", "-x", str(deb), str(folder / "unpacked")], check=True)
    return folder / "unpacked" / "usr" / "share" / "datasets" / "fashion-mnist"


def read_idx(path: Path) -> np.ndarray:
    """Reads a compressed IDX file of bytes and compares its header with what it should hold."""
    shape = FILES[path.name.removesuffix(".gz")]
    size = int(np.prod(shape))
    with gzip.open(path) as file:
        header = np.frombuffer(file.read(4 + 4 * len(shape)), dtype=">u4")
        pixels = file.read(size + 1)
    expected = (0x0800 + len(shape), *shape)
    if tuple(header.tolist()) != expected or len(pixels) != size:
        sys.exit(f"{path} is not the Fashion-MNIST file it should be")
    return np.frombuffer(pixels, dtype=np.uint8).reshape(shape)


def write_idx(path: Path, array: np.ndarray) -> None:
    """Writes an uncompressed IDX file of bytes, by rename, so that an interrupted run leaves no half file."""
    header = np.array([0x0800 + array.ndim, *array.shape], dtype=">u4").tobytes()
    part = path.with_suffix(".part")
    part.write_bytes(header + array.tobytes())
    os.replace(part, path)


def main() -> None:
    """Unpacks the package in a temporary folder and writes the four files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="the data set's dataset.root, for example data/fashion_mnist")
    parser.add_argument("--deb", type=Path, help="the Debian package, if it is already here")
    args = parser.parse_args()
    raw = args.root / "FashionMNIST" / "raw"
    if all((raw / name).is_file() for name in FILES):
        print(f"{raw} is complete")
        return
    require_folder(parser, raw)
    with tempfile.TemporaryDirectory() as folder:
        source = unpack_package(Path(folder), deb=args.deb)
        for name in FILES:
            write_idx(raw / name, read_idx(source / f"{name}.gz"))
    print(f"wrote {', '.join(FILES)} to {raw}")


if __name__ == "__main__":
    main()
