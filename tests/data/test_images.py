"""Image files: of which formats, modes and depths, and those that strangers made."""

import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from distill_app.data import Samples, images, load_image
from distill_app.data.class_folders import IMAGE_SUFFIXES
from distill_app.data.images import image_of
from distill_app.data.opening import FORMATS, open_image
from distill_app.errors import DataError


def png_that_claims(width, height):
    """A PNG of some 70 bytes with any size in its header."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 10))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(60_000, 60_000), (12_000, 9_000)])
def test_decompression_bomb_is_refused_by_its_header(tmp_path, size):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_that_claims(*size))
    with pytest.raises(ValueError, match=r"bomb\.png.*pixels"):
        load_image(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_reaches_no_decoder(tmp_path, monkeypatch):
    def decoded(*_, **__):
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(images, "decode_image", decoded)
    monkeypatch.setattr(Image.Image, "load", decoded)
    path = tmp_path / "bomb.png"
    path.write_bytes(png_that_claims(100_000, 100_000))
    with pytest.raises(ValueError, match=r"bomb\.png.*pixels"):
        load_image(path)
    monkeypatch.setattr(images, "decode_image", None)  # as where torchvision has none
    with pytest.raises(ValueError, match=r"bomb\.png.*pixels"):
        load_image(path)


def test_a_fifo_or_a_device_by_the_name_of_an_image_is_refused(tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    (tmp_path / "y.jpg").symlink_to("/dev/zero")
    for name in ("x.jpg", "y.jpg"):
        with pytest.raises(OSError, match=rf"{name[0]}\.jpg is a (fifo|device), not a file"):
            load_image(tmp_path / name)


def test_links_to_images_are_followed(tmp_path):
    Image.new("RGB", (4, 4), (9, 8, 7)).save(tmp_path / "blob.png")
    (tmp_path / "x.png").symlink_to(tmp_path / "blob.png")
    assert load_image(tmp_path / "x.png")[:, 0, 0].tolist() == [9, 8, 7]


@pytest.mark.parametrize("format", ["ICO", "TGA", "PCX"])
def test_formats_off_the_list_are_refused_whatever_their_name(tmp_path, format):
    path = tmp_path / "innocent.png"
    Image.new("RGB", (16, 16)).save(path, format=format)
    with pytest.raises(ValueError, match=r"innocent\.png is not an image of the formats JPEG, PNG"):
        load_image(path)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_common_formats_are_read_as_rgb(tmp_path, format, mode):
    path = tmp_path / "image"
    Image.effect_noise((60, 40), 80).convert(mode).save(path, format=format)
    assert same_as_pillow(load_image(path), path)


MODES = {"JPEG": ["CMYK"], "PNG": ["P", "LA", "RGBA", "1"], "TIFF": ["P", "LA", "RGBA", "CMYK", "1"], "GIF": ["P", "1"]}


@pytest.mark.parametrize(("format", "mode"), [(format, mode) for format, modes in MODES.items() for mode in modes])
def test_other_modes_are_read_as_pillow_converts_them(tmp_path, format, mode):
    path = tmp_path / "image"
    noise = Image.effect_noise((60, 40), 80).convert("RGB")
    (noise.convert("L") if mode == "LA" else noise).convert(mode).save(path, format=format)
    assert same_as_pillow(load_image(path), path)


def test_every_suffix_of_the_formats_that_are_opened_is_known_and_no_other():
    opened = {suffix for suffix, format in Image.registered_extensions().items() if format in FORMATS}
    assert opened == set(IMAGE_SUFFIXES)


def test_the_first_picture_of_a_file_with_several_is_read(tmp_path):
    pictures = [Image.new("RGB", (4, 4), (level, level, level)) for level in (10, 200)]
    for name in ("moving.gif", "moving.webp", "pages.tif", "moving.png"):
        pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:])
        assert load_image(tmp_path / name).float().mean() == pytest.approx(10, abs=2)


SIXTEEN = np.array([[0, 255, 256, 4095], [32768, 40000, 65279, 65535]], dtype=np.uint16)
EIGHT = np.array([[0, 0, 1, 15], [128, 156, 254, 255]], dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_grey_images_of_sixteen_bits_keep_their_upper_eight(tmp_path, suffix):
    Image.fromarray(SIXTEEN).save(tmp_path / f"image.{suffix}")
    image = load_image(tmp_path / f"image.{suffix}")
    assert image.dtype == torch.uint8 and image.shape == (3, 2, 4)
    assert all(np.array_equal(channel, EIGHT) for channel in image.numpy())


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_what_is_white_may_be_said_of_images_that_use_a_part_of_their_range(tmp_path, suffix):
    values = np.array([[0, 1024, 4095]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"image.{suffix}")
    assert load_image(tmp_path / f"image.{suffix}", white=4095)[0].tolist() == [[0, 64, 255]]
    with pytest.raises(DataError, match=rf"image\.{suffix}: the image has values from 0 to 4095, outside"):
        load_image(tmp_path / f"image.{suffix}", white=1023)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_images_of_32_bits_are_refused_by_name_until_it_is_said_what_is_white(tmp_path, kind):
    path = tmp_path / "image.tif"
    Image.fromarray(np.array([[0, 20, 100]], dtype=kind)).save(path)
    with pytest.raises(DataError, match=r"image\.tif: the image holds .*32.*dataset\.train\.white="):
        load_image(path)
    assert load_image(path, white=100)[0].tolist() == [[0, 51, 255]]
    Image.fromarray(np.array([[-1, 50, 100]], dtype=kind)).save(path)
    with pytest.raises(DataError, match="values from -1 to 100"):
        load_image(path, white=100)


def test_an_image_that_is_not_all_numbers_is_refused(tmp_path):
    Image.fromarray(np.array([[0, np.nan]], dtype=np.float32)).save(tmp_path / "image.tif")
    with pytest.raises(DataError, match="values from nan"):
        load_image(tmp_path / "image.tif", white=1)


def sample_of(image, *transforms):
    return Samples([(image, 0)], transforms=transforms, seed=0, stage="train")[(0, 0)]["input"]


@pytest.mark.parametrize("transforms", [(), (v2.PILToTensor(), v2.RGB()), (v2.Resize((2, 4)), v2.PILToTensor())])
def test_images_of_any_data_set_are_scaled_before_the_transforms(transforms):
    image = sample_of(Image.fromarray(SIXTEEN), *transforms)
    assert image.dtype == torch.uint8 and np.array_equal(image[0], EIGHT)


def test_tensors_are_scaled_too_and_refused_where_their_range_is_not_known():
    assert np.array_equal(sample_of(torch.from_numpy(SIXTEEN)), EIGHT)
    as_they_are = torch.rand(3, 2, 2)
    assert sample_of(as_they_are).equal(as_they_are)
    for kind in (torch.int16, torch.int32, torch.int64, torch.bool):
        with pytest.raises(DataError, match=rf"image 0: the image is a tensor of {kind}.* give uint8"):
            sample_of(torch.ones(3, 2, 2, dtype=kind))
    with pytest.raises(DataError, match="image 0: the image holds 32-bit floats"):
        sample_of(Image.fromarray(np.ones((2, 2), dtype=np.float32)))


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_of_every_kind_become_eight(tmp_path, kind, channels):
    path = tmp_path / "image.png"
    pixels = np.random.default_rng(0).integers(0, 2**16, (4, 6, channels))
    path.write_bytes(sixteen_bit_png(pixels, kind=kind))
    image = load_image(path)
    colour = pixels[..., :3] if channels > 2 else pixels[..., :1].repeat(3, axis=2)
    assert image.dtype == torch.uint8 and np.array_equal(image.permute(1, 2, 0), colour >> 8)


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


DAMAGE = {
    "a flipped byte": lambda data: data[:400] + bytes([data[400] ^ 1]) + data[401:],
    "zeros at the end": lambda data: data[:400] + bytes(len(data) - 400),
    "zeros within": lambda data: data[:400] + bytes(512) + data[912:],
    "another length": lambda data: data.replace(struct.pack(">I", 300) + b"IDAT", b"\x7f\0\0\0IDAT", 1),
    "zeros from a part on": lambda data: (place := data.rindex(b"IDAT") - 4) and data[:place] + bytes(300),
    "no more parts": lambda data: data[: data.rindex(b"IDAT") - 4],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_png_is_refused_and_ends_no_process(tmp_path, damage):
    path = tmp_path / "image.png"
    Image.effect_noise((60, 40), 80).convert("RGB").save(path)
    parts = in_parts(path.read_bytes(), length=300)
    path.write_bytes(parts)
    assert load_image(path).shape == (3, 40, 60)
    path.write_bytes(DAMAGE[damage](parts))
    for load in (load_image, lambda path: image_of(path.read_bytes(), name=str(path))):
        with pytest.raises((OSError, SyntaxError)):
            load(path)
    assert open_image(path, header_only=True).size == (60, 40)


def test_a_damaged_png_is_named_with_the_part_that_is_not_as_it_was_written(tmp_path):
    path = tmp_path / "image.png"
    Image.effect_noise((60, 40), 80).save(path)
    path.write_bytes(DAMAGE["a flipped byte"](path.read_bytes()))
    with pytest.raises(OSError, match=r"image\.png is damaged: its part IDAT at byte 33 does not match its checksum"):
        load_image(path)


def test_what_comes_behind_the_pixels_of_a_png_is_no_damage(tmp_path):
    path = tmp_path / "image.png"
    Image.new("L", (4, 4), 9).save(path)
    for rest in (b"", b"\0\0\0\1tEXtxabcd", bytes(100)):
        path.write_bytes(path.read_bytes().partition(b"\0\0\0\0IEND")[0] + rest)
        assert load_image(path).unique().tolist() == [9]


def in_parts(png, *, length):
    """The same PNG with its pixels in parts of so many bytes."""
    place = png.index(b"IDAT")
    (whole,) = struct.unpack(">I", png[place - 4 : place])
    data = png[place + 4 : place + 4 + whole]
    parts = [b"IDAT" + data[start : start + length] for start in range(0, whole, length)]
    told = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts]
    return png[: place - 4] + b"".join(told) + png[place + 8 + whole :]


def palette(bits):
    """An image with a palette of so many bits, half of whose colours are transparent."""
    image = Image.effect_noise((31, 20), 80).convert("RGB").quantize(2**bits)
    return image, {"bits": bits, "transparency": bytes(2 ** (bits - 1))}


@pytest.mark.parametrize("kind", ["palette 1", "palette 2", "palette 4", "palette 8", "1", "L", "LA", "RGB", "RGBA"])
def test_a_png_has_the_pixels_that_were_saved_whatever_its_kind(tmp_path, kind):
    path = tmp_path / "image.png"
    noise = Image.effect_noise((31, 20), 80)
    image, how = palette(int(kind[-1])) if kind.startswith("palette") else (noise.convert(kind), {})
    if kind in ("L", "RGB"):  # one value stands for what is transparent
        how = {"transparency": image.getpixel((0, 0))}
    image.save(path, **how)
    assert np.array_equal(load_image(path).permute(1, 2, 0), image.convert("RGB"))


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_of_sixteen_bits_of_every_kind_what_is_white_may_be_said(tmp_path, kind, channels):
    path = tmp_path / "image.png"
    pixels = np.random.default_rng(0).integers(0, 4096, (4, 6, channels))
    path.write_bytes(sixteen_bit_png(pixels, kind=kind))
    colour = pixels[..., :3] if channels > 2 else pixels[..., :1].repeat(3, axis=2)
    expected = np.rint(colour * (255 / 4095)).astype(np.uint8)
    assert np.array_equal(load_image(path, white=4095).permute(1, 2, 0), expected)
    with pytest.raises(DataError, match=r"image\.png: the image has values from"):
        load_image(path, white=1000)


def same_as_pillow(image, path):
    assert image.dtype == torch.uint8
    return np.array_equal(image.permute(1, 2, 0).numpy(), np.array(Image.open(path).convert("RGB")))
