"""The sprite sheet as tensors.

sprites.png holds 128-pixel tiles in the order of subjects.json. Sprites are kept premultiplied and band-limited twice (for
small and for large sizes), so that the bilinear sampling of clip.py never skips pixels: the anti-aliasing is done here, once.
"""
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .screen import DENSITY

HERE = Path(__file__).parent
WORLD = json.loads((HERE / "subjects.json").read_text())
SUBJECTS = WORLD["subjects"]
NAMES = [s["name"] for s in SUBJECTS]
EXPRESSIONS = WORLD["expressions"]          # the sprites the face controls switch to, in the order of the control vector
FACES = [s["name"] for s in SUBJECTS if s["kind"] == "face"]
INNER = int(72 * DENSITY)                   # texels of a sprite's width ..
TEXTURE = INNER + 8                         # .. inside a transparent margin of 4
BANDS = (int(40 * DENSITY), INNER)          # widths in pixels up to which a band-limited copy is meant


def tile(index):
    """One sprite as float RGBA [128, 128, 4], straight alpha."""
    sheet = Image.open(HERE / "sprites.png").convert("RGBA")
    pixels, columns = WORLD["pixels"], WORLD["columns"]
    x, y = index % columns * pixels, index // columns * pixels
    return np.asarray(sheet.crop((x, y, x + pixels, y + pixels)), dtype=np.float32) / 255


def scenery(name):
    return tile(len(SUBJECTS) + WORLD["scenery"].index(name))


def textures():
    """All subjects, premultiplied: [bands, subjects, 4, TEXTURE, TEXTURE]."""
    rgba = torch.from_numpy(np.stack([tile(i) for i in range(len(SUBJECTS))])).permute(0, 3, 1, 2)
    rgba = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)
    bands = []
    for width in BANDS:
        small = F.interpolate(rgba, size=(width, width), mode="bilinear", antialias=True, align_corners=False)
        large = small if width == INNER else F.interpolate(small, size=(INNER, INNER), mode="bilinear", align_corners=False)
        bands.append(F.pad(large, [(TEXTURE - INNER) // 2] * 4))
    return torch.stack(bands)
