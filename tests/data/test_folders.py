"""Files from strangers, and data that is not there."""

import dataclasses
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from distill_app.config.schema import DatasetConf
from distill_app.data import ImageFolder, load_image, missing_data


def png_that_claims(width, height):
    """A PNG of some 70 bytes with any size in its header."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 10))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def image_folder(root, classes=("a", "b")):
    for name in classes:
        (root / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (1, 2, 3)).save(root / name / "0.png")
    return root


def conf(root, *, target="distill_app.data.ImageFolder", num_classes=2):
    return DatasetConf(
        name="mine",
        num_classes=num_classes,
        image_size=8,
        root=str(root),
        get="make data",
        train={"_target_": target, "root": "${..root}/train"},
        test={"_target_": target, "root": "${..root}/val"},
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(60_000, 60_000), (12_000, 9_000)])
def test_decompression_bomb_is_refused_by_its_header(tmp_path, size):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_that_claims(*size))
    with pytest.raises(ValueError, match=r"bomb\.png.*pixels"):
        load_image(path)


def test_pixel_limit_can_be_lowered(tmp_path):
    root = image_folder(tmp_path)
    with pytest.raises(ValueError, match="8 x 8 pixels; at most 63"):
        ImageFolder(str(root), max_pixels=63)[0]
    assert ImageFolder(str(root), max_pixels=64)[0][0].shape == (3, 8, 8)


@pytest.mark.parametrize("format", ["TIFF", "GIF", "ICO"])
def test_formats_off_the_list_are_refused_whatever_their_name(tmp_path, format):
    path = tmp_path / "innocent.png"
    Image.new("RGB", (16, 16)).save(path, format=format)
    with pytest.raises(ValueError, match=r"innocent\.png is not an image of the formats JPEG, PNG"):
        load_image(path)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "PPM"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_common_formats_are_read_as_rgb(tmp_path, format, mode):
    path = tmp_path / "image"
    Image.effect_noise((60, 40), 80).convert(mode).save(path, format=format)
    assert same_as_pillow(load_image(path), path)


@pytest.mark.parametrize(("format", "mode"), [("JPEG", "CMYK"), ("PNG", "P"), ("PNG", "RGBA"), ("PNG", "1")])
def test_other_modes_are_read_as_pillow_converts_them(tmp_path, format, mode):
    path = tmp_path / "image"
    Image.effect_noise((60, 40), 80).convert("RGB").convert(mode).save(path, format=format)
    assert same_as_pillow(load_image(path), path)


def test_sixteen_bits_become_eight(tmp_path):
    Image.fromarray(np.arange(24, dtype=np.uint16).reshape(4, 6)).save(tmp_path / "image.png")
    assert same_as_pillow(load_image(tmp_path / "image.png"), tmp_path / "image.png")


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_of_every_kind_become_eight(tmp_path, kind, channels):
    path = tmp_path / "image.png"
    path.write_bytes(sixteen_bit_png(np.random.default_rng(0).integers(0, 2**16, (4, 6, channels)), kind=kind))
    image = load_image(path)
    assert image.dtype == torch.uint8 and image.shape == (3, 4, 6)


def sixteen_bit_png(pixels, *, kind):
    """A PNG of one of the colour types that have 16 bits a channel."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_truncated_images_are_errors_that_name_no_pixel(tmp_path, format):
    path = tmp_path / "image"
    Image.effect_noise((60, 40), 80).convert("RGB").save(path, format=format)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises((OSError, RuntimeError)):
        load_image(path)


def same_as_pillow(image, path):
    assert image.dtype == torch.uint8
    return np.array_equal(image.permute(1, 2, 0).numpy(), np.array(Image.open(path).convert("RGB")))


def test_image_folder_names_the_empty_class_folder(tmp_path):
    image_folder(tmp_path)
    (tmp_path / "c").mkdir()
    with pytest.raises(FileNotFoundError, match=f"no image in the class folder {tmp_path}/c"):
        ImageFolder(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        ImageFolder(str(tmp_path / "nowhere"))


def test_complete_data_has_no_problems(tmp_path):
    image_folder(tmp_path / "train")
    image_folder(tmp_path / "val")
    assert missing_data(conf(tmp_path)) == []
    assert missing_data(OmegaConf.structured(conf(tmp_path))) == []
    assert missing_data(dataclasses.replace(conf(tmp_path), root=None, train=None, test=None)) == []


def test_missing_root_says_the_key_the_path_and_how_to_get_it(tmp_path):
    [problem] = missing_data(conf(tmp_path / "none"), key="method.stages.distill.data")
    assert problem.startswith(f"method.stages.distill.data.root: {tmp_path}/none is not there")
    assert problem.endswith("to get the data: make data")


def test_each_bad_folder_is_one_message(tmp_path):
    image_folder(tmp_path / "train")
    for number in range(5):
        (tmp_path / "train" / f"empty{number}" / "deeper").mkdir(parents=True)
    (tmp_path / "val").mkdir()
    train, test = missing_data(conf(tmp_path))
    assert train.startswith("dataset.train.root: no image in the class folders") and "and 2 more" in train
    assert test.startswith(f"dataset.test.root: {tmp_path}/val has no class folders")


def test_images_may_lie_deeper_in_a_class_folder(tmp_path):
    image_folder(tmp_path / "train" / "a")
    image_folder(tmp_path / "val" / "a")
    assert missing_data(conf(tmp_path)) == []


def test_classes_that_would_shift_the_labels_are_found(tmp_path):
    image_folder(tmp_path / "train", "abc")
    image_folder(tmp_path / "val", "abd")
    assert "set dataset.num_classes=3" in missing_data(conf(tmp_path))[0]
    assert "differ in the class folders c, d" in missing_data(conf(tmp_path, num_classes=3))[0]


def test_root_without_the_files_torchvision_reads_is_found(tmp_path):
    [problem] = missing_data(conf(tmp_path, target="torchvision.datasets.CIFAR10"))
    assert "has no cifar-10-batches-py" in problem and "make data" in problem


def test_presence_is_told_without_torch():
    code = "import sys; from distill_app.data import missing_data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
