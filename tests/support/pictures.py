"""Pictures made by hand for tests."""

import struct
import zlib

import numpy as np
from PIL import Image


def png(width, height, bits, colours, *rows):
    """A PNG from packed rows of samples (PNG specification, 5.2 and 9.2)."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


CELLS = """
name: cells
description: Cells in pictures.
modality: picture
channels: [grey]
labels:
  - {name: cell, values: [1]}
prepare:
  spacing_mm: [1, 1, 1]
  intensity: {kind: range}
patch: {size: [32, 32]}
network: {kind: unet, widths: [8, 16], norm: batch}
loss: {kind: bce}
augment: none
train: {epochs: 3, steps_per_epoch: 20, batch_size: 4, learning_rate: 0.01, seed: 1}
"""


def cells(count, seed=0, shape=(48, 64)):
    """Pictures of bright cells and their masks: uint8 (rows, columns) each, with 0 and 1 in the masks."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    for _ in range(count):
        mask = np.zeros(shape, np.uint8)
        for _ in range(6):
            middle, radius = random.uniform(4, np.array(shape) - 4), random.uniform(3, 7)
            mask |= ((rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < radius**2).astype(np.uint8)
        image = 60 + 120 * mask + random.normal(0, 15, shape)
        yield image.clip(0, 255).astype(np.uint8), mask


def cell_folder(folder, count=6, suffix=".png", top=255):
    """A folder ``images`` and a folder ``masks`` of such pictures."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number, (image, mask) in enumerate(cells(count)):
        Image.fromarray(image).save(folder / "images" / f"c{number}{suffix}")
        Image.fromarray(mask * np.uint8(top)).save(folder / "masks" / f"c{number}.png")
    return folder
