"""The places: every place at every time of day as two layers, drawn once with Pillow at three times the size.

A layer is periodic in x (PERIOD units) and covers y from -TOP to HEIGHT-TOP in units of the screen (screen.py). The far layer
is opaque and moves slowly with the camera, the near layer is premultiplied RGBA and moves with it: that is the parallax.
"""
import random

import numpy as np
import torch
from PIL import Image, ImageDraw

from .screen import DENSITY
from .sprites import scenery

PERIOD, TOP, HEIGHT, TILED = 256, 32, 192, 448
PLACES = ["beach", "city", "forest", "snow", "desert", "ocean", "space", "meadow", "room", "road"]
TIMES = {"ocean": ["day"], "space": ["day"], "room": ["day", "night"]}
VARIANTS = [(place, time) for place in PLACES for time in TIMES.get(place, ["day", "sunset", "night"])]
SKY = {"day": ((92, 172, 246), (206, 236, 255)), "sunset": ((92, 62, 140), (255, 158, 82)), "night": ((8, 10, 40), (40, 54, 104))}
LIGHT = {"day": (1, 1, 1), "sunset": (1.0, 0.76, 0.66), "night": (0.46, 0.52, 0.74)}
SUBJECT_LIGHT = {"day": (1, 1, 1), "sunset": (1.0, 0.9, 0.82), "night": (0.74, 0.78, 0.94)}
REDUCE = 3 if DENSITY == 1 else 2           # drawn so many times finer than shown, against jagged edges
SCALE = int(DENSITY * REDUCE)
ROWS, COLUMNS = int(HEIGHT * DENSITY), int(PERIOD * DENSITY)


class Canvas:
    """A periodic drawing surface in screen coordinates: whatever crosses the right edge comes back on the left."""

    def __init__(self, background=(0, 0, 0, 0)):
        self.image = Image.new("RGBA", (PERIOD * SCALE, HEIGHT * SCALE), background)
        self.draw = ImageDraw.Draw(self.image)

    def points(self, xy, shift):
        return [((x + shift) * SCALE, (y + TOP) * SCALE) for x, y in xy]

    def polygon(self, xy, color):
        for shift in (-PERIOD, 0, PERIOD):
            self.draw.polygon(self.points(xy, shift), fill=color)

    def box(self, x0, y0, x1, y1, color):
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], color)

    def disc(self, x, y, rx, ry, color):
        for shift in (-PERIOD, 0, PERIOD):
            (x0, y0), (x1, y1) = self.points([(x - rx, y - ry), (x + rx, y + ry)], shift)
            self.draw.ellipse((x0, y0, x1, y1), fill=color)

    def hills(self, base, waves, color, bottom=HEIGHT - TOP):
        """Everything under base + a sum of (amplitude, cycles, phase) waves."""
        xs = np.arange(0, PERIOD + 1, 2)
        ys = base + sum(a * np.sin(2 * np.pi * k * xs / PERIOD + p) for a, k, p in waves)
        self.polygon([(0, bottom), *zip(xs.tolist(), ys.tolist()), (PERIOD, bottom)], color)

    def stamp(self, name, x, y, size, fade=1.0):
        """A scenery sprite with the middle of its foot at (x, y)."""
        tile = scenery(name).copy()
        tile[..., 3] *= fade
        sprite = Image.fromarray((tile * 255).astype(np.uint8)).resize((size * SCALE, size * SCALE), Image.LANCZOS)
        for shift in (-PERIOD, 0, PERIOD):
            (px, py), = self.points([(x - size / 2, y - size)], shift)
            self.image.alpha_composite(sprite, (int(px), int(py))) if px >= 0 and px + size * SCALE <= PERIOD * SCALE else \
                self.image.paste(sprite, (int(px), int(py)), sprite)

    def array(self):
        """[ROWS, COLUMNS, 4] premultiplied, reduced to the pixels of the screen."""
        a = np.asarray(self.image, dtype=np.float32) / 255
        a[..., :3] *= a[..., 3:]
        return a.reshape(ROWS, REDUCE, COLUMNS, REDUCE, 4).mean((1, 3))


def gradient(top, bottom, horizon):
    """A sky [ROWS, COLUMNS, 3] from top to bottom colour, constant under the horizon."""
    t = np.clip((np.arange(ROWS) / DENSITY - TOP + 20) / (horizon + 20), 0, 1)[:, None, None]
    return np.broadcast_to((np.array(top) * (1 - t) + np.array(bottom) * t) / 255, (ROWS, COLUMNS, 3)).astype(np.float32)


def stars(canvas, rng, count, low):
    for _ in range(count):
        r = rng.choice([0.5, 0.7, 0.7, 1.1])
        canvas.disc(rng.uniform(0, PERIOD), rng.uniform(-TOP, low), r, r, (255, 255, 230, 230))


def sky_lights(canvas, time, rng, horizon):
    if time == "day":
        for x, y in ((40, 14), (150, 26), (215, 6)):
            for dx, r in ((-9, 5), (0, 8), (9, 6)):
                canvas.disc(x + dx, y - r / 3, r * 1.3, r, (255, 255, 255, 200))
    elif time == "sunset":
        for x in (64, 192):
            canvas.disc(x, horizon - 6, 17, 17, (255, 226, 130, 255))
    else:
        stars(canvas, rng, 60, horizon - 8)
        canvas.disc(200, 18, 11, 11, (250, 244, 210, 255))
        canvas.disc(204, 15, 9, 9, (14, 17, 50, 255))


def draw(place, time):
    """(far [ROWS, COLUMNS, 3], near [ROWS, COLUMNS, 4]) before the light of the hour; `lit` is drawn after it."""
    rng = random.Random(f"{place}")
    far, near, lit = Canvas(), Canvas(), Canvas()
    sky, horizon = SKY[time], 84
    if place == "beach":
        far.box(0, 74, PERIOD, 160, (38, 144, 196, 255))
        for y in range(78, 104, 6):
            for x in range(0, PERIOD, 32):
                far.box(x + y * 5 % 32, y, x + y * 5 % 32 + 14, y + 1.2, (150, 214, 236, 255))
        near.hills(100, [(3, 2, 0.4), (1.5, 5, 1)], (240, 250, 250, 255))
        near.hills(103, [(3, 2, 0.4), (1.5, 5, 1)], (244, 214, 150, 255))
        near.hills(118, [(2, 3, 2)], (232, 196, 126, 255))
        near.stamp("palm-tree", 36, 112, 62), near.stamp("palm-tree", 166, 110, 52)
    elif place == "city":
        sky = {"day": ((126, 176, 226), (222, 230, 240))}.get(time, sky)
        for i, x in enumerate(range(0, PERIOD, 32)):
            far.box(x, 46 - 9 * (i * 5 % 4), x + 27, 160, (134, 146, 172, 255))
        for i, x in enumerate((4, 50, 92, 140, 182, 222)):
            w, top = (38, 34, 40, 34, 32, 30)[i], (34, 58, 46, 26, 60, 42)[i]
            near.box(x, top, x + w, 106, [(176, 92, 78, 255), (92, 108, 140, 255), (196, 160, 112, 255)][i % 3])
            for wy in range(top + 5, 98, 11):
                for wx in range(x + 4, x + w - 6, 10):
                    glow = time == "night" and rng.random() < 0.7
                    (lit if glow else near).box(wx, wy, wx + 5, wy + 6, (255, 222, 120, 255) if glow else (206, 228, 240, 255))
        near.box(0, 104, PERIOD, 112, (178, 178, 182, 255)), near.box(0, 112, PERIOD, 160, (86, 88, 98, 255))
        for x in range(0, PERIOD, 32):
            near.box(x, 124, x + 16, 127, (236, 232, 200, 255))
    elif place == "forest":
        sky = {"day": ((150, 206, 190), (214, 240, 206))}.get(time, sky)
        for x in range(0, PERIOD, 16):
            far.polygon([(x - 12, 92), (x + 8, 18 + x * 7 % 26), (x + 28, 92)], (74, 138, 104, 255))
        far.box(0, 90, PERIOD, 160, (74, 138, 104, 255))
        near.hills(100, [(2, 3, 0)], (74, 128, 58, 255)), near.hills(112, [(2, 4, 1)], (96, 152, 66, 255))
        for x, y, s in ((20, 104, 72), (78, 102, 56), (128, 106, 80), (186, 103, 60), (232, 105, 74)):
            near.stamp("evergreen-tree", x, y, s)
        near.stamp("mushroom", 54, 116, 14), near.stamp("mushroom", 160, 118, 12)
    elif place == "snow":
        sky = {"day": ((146, 196, 238), (232, 242, 252))}.get(time, sky)
        for x, s in ((30, 84), (112, 100), (196, 90)):
            far.stamp("snow-capped-mountain", x, 92, s)
        far.box(0, 88, PERIOD, 160, (206, 222, 240, 255))
        near.hills(98, [(4, 2, 1)], (246, 250, 255, 255)), near.hills(114, [(3, 3, 0)], (226, 236, 250, 255))
        near.stamp("evergreen-tree", 12, 106, 36), near.stamp("evergreen-tree", 204, 104, 30)
        for _ in range(46):
            near.disc(rng.uniform(0, PERIOD), rng.uniform(-TOP, 96), 1.3, 1.3, (255, 255, 255, 235))
    elif place == "desert":
        sky = {"day": ((118, 192, 238), (252, 234, 196))}.get(time, sky)
        far.hills(78, [(8, 2, 0), (4, 3, 1)], (222, 150, 92, 255))
        near.hills(96, [(5, 1, 2), (3, 3, 0)], (238, 190, 116, 255)), near.hills(113, [(4, 2, 4)], (224, 168, 94, 255))
        near.stamp("cactus", 26, 106, 46), near.stamp("cactus", 150, 102, 34), near.stamp("rock", 214, 112, 24)
    elif place == "ocean":
        sky, horizon = ((38, 156, 214), (8, 58, 128)), 130
        for x in (20, 100, 170, 236):
            far.polygon([(x, -TOP), (x + 16, -TOP), (x - 14, 130), (x - 44, 130)], (120, 208, 240, 60))
        far.hills(104, [(5, 2, 0)], (22, 84, 140, 255))
        near.hills(116, [(3, 2, 1)], (196, 178, 128, 255))
        near.stamp("coral", 30, 124, 36), near.stamp("coral", 196, 126, 42), near.stamp("rock", 112, 126, 26)
        for _ in range(14):
            r = rng.uniform(1, 3)
            near.disc(rng.uniform(0, PERIOD), rng.uniform(-10, 100), r, r, (190, 234, 250, 150))
    elif place == "space":
        sky, horizon = ((12, 6, 34), (38, 18, 74)), 120
        for x, y, r, color in ((50, 50, 46, (96, 40, 130, 70)), (180, 80, 52, (40, 60, 150, 70))):
            far.disc(x, y, r, r * 0.6, color)
        stars(far, rng, 110, 158)
        near.stamp("ringed-planet", 44, 52, 50), near.stamp("full-moon", 184, 118, 34)
        stars(near, rng, 30, 158)
    elif place == "meadow":
        far.hills(76, [(7, 2, 0), (3, 3, 2)], (122, 190, 96, 255))
        near.hills(94, [(4, 1, 1)], (104, 184, 70, 255)), near.hills(112, [(3, 2, 3)], (84, 162, 56, 255))
        near.stamp("deciduous-tree", 30, 102, 54), near.stamp("deciduous-tree", 176, 98, 40)
        for i, x in enumerate((8, 66, 98, 130, 208, 238)):
            near.stamp(("tulip", "blossom")[i % 2], x, 122 - i * 5 % 9, 15)
    elif place == "room":
        sky = {"day": ((246, 226, 190), (240, 214, 176)), "night": ((104, 92, 110), (96, 80, 98))}[time]
        for x in range(0, PERIOD, 32):
            far.box(x, -TOP, x + 14, 100, (255, 240, 214, 70))
        for x, name, y, s in ((30, "window", 62, 44), (110, "framed-picture", 52, 34), (200, "window", 62, 44)):
            far.stamp(name, x, y, s)
        near.box(0, 98, PERIOD, 102, (150, 98, 62, 255)), near.box(0, 102, PERIOD, 160, (196, 138, 88, 255))
        for y in (110, 120, 132):
            near.box(0, y, PERIOD, y + 1.2, (160, 108, 66, 255))
        near.stamp("couch-and-lamp", 60, 108, 54), near.stamp("potted-plant", 150, 108, 34), near.stamp("couch-and-lamp", 214, 108, 54)
    elif place == "road":
        far.hills(74, [(6, 2, 1)], (150, 186, 120, 255)), far.box(0, 86, PERIOD, 160, (150, 186, 120, 255))
        far.stamp("house", 60, 90, 34), far.stamp("hut", 180, 88, 30), far.stamp("deciduous-tree", 120, 88, 30)
        near.box(0, 94, PERIOD, 160, (112, 172, 84, 255)), near.box(0, 100, PERIOD, 128, (92, 94, 104, 255))
        near.box(0, 100, PERIOD, 102, (230, 230, 224, 255)), near.box(0, 126, PERIOD, 128, (230, 230, 224, 255))
        for x in range(0, PERIOD, 32):
            near.box(x, 113, x + 18, 116, (250, 214, 80, 255))
    light = np.array(LIGHT[time] if place not in ("room",) else (0.55, 0.52, 0.66) if time == "night" else (1, 1, 1), dtype=np.float32)
    back = Canvas()
    if place not in ("ocean", "space", "room"):
        sky_lights(back, time, rng, horizon)
    out = gradient(*sky, horizon)
    for layer, tint in ((back.array(), 1), (far.array(), light)):
        out = out * (1 - layer[..., 3:]) + layer[..., :3] * tint
    front, glow = near.array(), lit.array()
    front[..., :3] *= light
    front = front * (1 - glow[..., 3:]) + glow
    return out, front


def layers():
    """far [variants, 3, ROWS, TILED * DENSITY] and near [variants, 4, ..], tiled to the right so that sampling never wraps."""
    def tiled(a):
        a = np.concatenate([a, a], 1)[:, :int(TILED * DENSITY)]
        return torch.from_numpy(np.ascontiguousarray(a)).permute(2, 0, 1)
    drawn = [draw(*variant) for variant in VARIANTS]
    return torch.stack([tiled(far) for far, _ in drawn]), torch.stack([tiled(near) for _, near in drawn])
