"""Clips: what happens (sampled in Python, one small record per clip) and what it looks like (drawn in torch, a batch at once).

A clip is latents x FRAMES frames at 16 fps; positions and sizes of a record are in units of the screen (screen.py); a chunk is CHUNK latents. Scenes change only at chunk boundaries, controls only at
latent boundaries. The phase of every motion is random: no clip has a privileged first frame.
"""
import math
import random

import numpy as np
import torch
import torch.nn.functional as F

from . import captions, sprites
from .motions import FACING, SPEEDS, TRAVELS, pose
from .places import SUBJECT_LIGHT, TOP, VARIANTS, HEIGHT, PERIOD, TILED, layers
from .screen import DENSITY, PIXELS, SIZE

FPS, FRAMES, CHUNK = 16, 4, 2
CONTROLS = ["steer_x", "steer_y", "pan_x", "pan_y", "zoom", "smile", "laugh", "cry", "wink", "angry", "surprised", "given"]
SUBJECT = {s["name"]: s for s in sprites.SUBJECTS}
SIZES = {"small": 36, "normal": 52, "big": 72}
MARGIN = {"small": 24, "normal": 32, "big": 40}                                    # how far outside the screen a subject turns up on the other side: whole half tokens
TOKEN, BEAT, BEATS = 16, 0.5, 12                                                   # pixels; seconds of a chunk; after so many of them every motion repeats
STEER, PAN, TILT = 64, 64, 16                                                      # pixels a second, twice: a token of 16 in a latent of 4 frames; pixels
PLAYED = 0.6                                                                       # of the steered clips
FAR = 0.5                                                                          # the far layer moves at half the speed of the near one: whole tokens in a chunk


def controls(rng, latents, face, chance=0.3):
    """[latents, 12]: nothing for most clips, otherwise one or two controls held for a while, or one that somebody plays with all the time: what happens next
    is then told by nothing else, where a control that is held could be read from the history."""
    c = np.zeros((latents, len(CONTROLS)), dtype=np.float32)
    if rng.random() > chance:
        return c
    c[:, 11] = 1
    if rng.random() < PLAYED:
        start, expressive, axis = 0, face and rng.random() < 0.3, rng.choice([0, 0, 0, 1, 1, 2, 2, 3, 4])
        while start < latents:
            end = min(latents, start + rng.randrange(1, 5))
            if expressive:
                c[start:end, 5 + rng.randrange(6)] = 1
            else:
                c[start:end, axis] = rng.choice([-1, -1, 0, 1, 1])
            start = end
        return c
    for _ in range(rng.choice([1, 1, 2])):
        start = rng.randrange(latents)
        end = min(latents, start + rng.randrange(2, 9))
        if face and rng.random() < 0.5:
            c[start:end, 5:11] = 0
            c[start:end, 5 + rng.randrange(6)] = 1
        else:
            c[start:end, rng.randrange(5)] = rng.choice([-1, 1]) * rng.choice([1, 1, 1, 0.5])
    return c


def height(scene):
    """Where a subject is at home: on the ground or in the air."""
    low = SUBJECT[scene["subjects"][0]]["home"] == "ground" or scene["motion"] in ("jump", "bounce")
    return 80 if low else 64


def track(rng, index, count, scenes, starts, steer, frames):
    """The path of subject `index` of `count` through all scenes: pose [frames, 5] and its size."""
    first = scenes[0]
    size = SIZES[first["size"]] * (1 if count == 1 else 0.8)
    x = rng.choice(range(48, 81, TOKEN)) if count == 1 else (32, 96)[index]
    phase = BEAT * rng.randrange(BEATS)
    out = np.zeros((frames, 5))
    drift = np.cumsum(steer, 0) * STEER / FPS                                     # [frames, 2] pixels
    travel = SIZE + 2 * MARGIN[first["size"]]
    for n, scene in enumerate(scenes):
        begin, end = starts[n], starts[n + 1] if n + 1 < len(scenes) else frames
        t = (np.arange(begin, end) / FPS) * SPEEDS[scene["speed"]] + phase
        if n > 0 and begin > 0:                                                    # the next motion happens where the last one ended
            x = min(96, max(32, round(((out[begin - 1, 0] - drift[begin - 1, 0] + MARGIN[first["size"]]) % travel - MARGIN[first["size"]]) / TOKEN) * TOKEN))
        y = height(scene)
        vx, vy = TRAVELS.get(scene["motion"], (0, 0))                              # travels start from home, whatever their phase is
        p = np.stack(pose(scene["motion"], t, x - vx * t[0], y - vy * t[0]), 1)
        if n > 0 and begin > 0:                                                    # and the subject glides from where it was
            gap = out[begin - 1] - p[0]
            gap[:2] = (gap[:2] - drift[begin - 1] + travel / 2) % travel - travel / 2
            gap[2] = (gap[2] + math.pi) % (2 * math.pi) - math.pi
            p += gap * np.exp(-(np.arange(end - begin)[:, None] + 1) / FPS / 0.2)
        p[:, :2] += drift[begin:end]
        out[begin:end] = p
    margin = MARGIN[first["size"]]
    out[:, :2] = (out[:, :2] + margin) % travel - margin
    return out, size


def sample(rng, latents, rich=1.0, script=None, action=None):
    """One clip as a record of arrays over frames (T) or latents (L). `rich` scales how often there is more than one subject doing one thing;
    `script` says what happens (captions.script), else it is drawn; `action` is how often it is steered, else 0.3 rich."""
    scenes, starts, texts = script or captions.script(rng, latents // CHUNK if latents >= CHUNK else 1, rich)
    frames = latents * FRAMES
    starts = [s * CHUNK * FRAMES for s in starts]
    face = SUBJECT[scenes[0]["subjects"][0]]["kind"] == "face"
    control = controls(rng, latents, face, 0.3 * rich if action is None else action)
    at = np.repeat(control, FRAMES, 0)                                             # [T, 12]
    count = len(scenes[0]["subjects"])
    sprite = np.zeros((2, latents), np.int64)
    flip = np.zeros((2, latents), np.float32)
    body = np.zeros((2, frames, 5), np.float32)
    size = np.zeros(2, np.float32)
    variant = np.zeros(latents, np.int64)
    which = np.zeros(latents, np.int64)
    camera = np.zeros((frames, 3), np.float32)                                     # what the words ask of the camera: pan x, pan y, zoom
    for n, scene in enumerate(scenes):
        span = slice(starts[n] // FRAMES, starts[n + 1] // FRAMES if n + 1 < len(scenes) else latents)
        variant[span] = VARIANTS.index((scene["place"], scene["time"]))
        which[span] = n
        camera[span.start * FRAMES:span.stop * FRAMES] = captions.CAMERA[scene["camera"]]
        for k, name in enumerate(scene["subjects"]):
            sprite[k, span] = sprites.NAMES.index(name)
            front = SUBJECT[name]["faces"]
            flip[k, span] = float(front != "none" and FACING.get(scene["motion"], front) != front)
    for k in range(count):
        body[k], size[k] = track(rng, k, count, scenes, starts, at[:, :2], frames)
    if face:                                                                       # expression controls swap the sprite
        strength, choice = control[:, 5:11].max(1), control[:, 5:11].argmax(1)
        for k in range(count):
            for l in np.nonzero(strength > 0.5)[0]:
                sprite[k, l] = sprites.NAMES.index(sprites.EXPRESSIONS[choice[l]])
    drive = np.clip(camera + at[:, 2:5], -1, 1)
    pan = np.cumsum(drive[:, 0]) * PAN / FPS + rng.randrange(0, PERIOD, 4)        # camera x runs on for ever
    tilt, zoom = np.zeros(frames), np.ones(frames)
    a, b = 0.0, 1.0
    for f in range(frames):                                                        # camera y and zoom go to a bounded target
        a += (drive[f, 1] * TILT - a) * 0.16
        b += (1.45 ** drive[f, 2] - b) * 0.14
        tilt[f], zoom[f] = a, b
    return {"sprite": sprite, "flip": flip, "body": body, "size": size, "count": count, "variant": variant, "camera":
            np.stack([pan, tilt, zoom], 1).astype(np.float32), "control": control, "texts": texts, "which": which, "scenes": scenes}


class Painter:
    """Holds sprites and places on a device and draws batches of records."""

    def __init__(self, device="cpu"):
        self.sprites = sprites.textures().to(device)                               # [bands, subjects, 4, TEXTURE, TEXTURE]
        self.far, self.near = (x.to(device) for x in layers())
        light = torch.tensor([SUBJECT_LIGHT[time] if place != "room" or time == "day" else (0.8, 0.78, 0.88) for place, time in VARIANTS])
        self.light, self.device = light.to(device), device

    def draw(self, records, crop=None, origin=None):
        """records → (frames [B, T, 3, h, w] in [0, 1], box [B, T, 2, 4] of x0 y0 x1 y1 in screen pixels).

        crop: side of a square window, whose corner is origin [B, 2]; without it the whole screen."""
        stack = lambda key: torch.from_numpy(np.stack([r[key] for r in records])).to(self.device)
        camera, variant = stack("camera"), stack("variant")                        # [B, T, 3], [B, L]
        B, T, _ = camera.shape
        side = crop or PIXELS
        origin = torch.zeros(B, 2, device=self.device) if origin is None else origin.to(self.device).float() / DENSITY
        ramp = (torch.arange(side, device=self.device) + 0.5) / DENSITY
        zoom = camera[:, :, 2, None]
        sx = (origin[:, None, :1] + ramp - SIZE / 2) / zoom + SIZE / 2             # [B, T, side] scene coordinates of the pixels
        sy = (origin[:, None, 1:] + ramp - SIZE / 2) / zoom + SIZE / 2
        frames = self.places(sx, sy, camera, variant.repeat_interleave(FRAMES, 1))
        body, size = stack("body"), stack("size")                                  # [B, 2, T, 5], [B, 2]
        sprite, flip = stack("sprite"), stack("flip")                              # [B, 2, L]
        count = torch.tensor([r["count"] for r in records], device=self.device)
        for k in range(2):
            rows = torch.nonzero(count > k)[:, 0]
            if len(rows):
                frames[rows] = self.subject(frames[rows], sx[rows], sy[rows], body[rows, k], size[rows, k], sprite[rows, k], flip[rows, k], variant[rows])
        half = size[:, :, None] * body[..., 3:].amax(-1) * 0.55                    # [B, 2, T]
        box = torch.stack([body[..., 0] - half, body[..., 1] - half, body[..., 0] + half, body[..., 1] + half], -1)
        box = ((box - SIZE / 2) * camera[:, None, :, 2, None] + SIZE / 2) * DENSITY
        box[:, 1][count < 2] = -1000.0
        return frames, box.permute(0, 2, 1, 3)

    def places(self, sx, sy, camera, variant):
        """The background [B, T, 3, side, side]: every place of the batch is sampled once, for all frames that show it."""
        B, T, side = sx.shape
        out = torch.empty(B * T, 3, side, side, device=self.device)
        sx, sy = sx.reshape(B * T, side), sy.reshape(B * T, side)
        pan, tilt, variant = camera[..., 0].reshape(-1), camera[..., 1].reshape(-1), variant.reshape(-1)
        for v in variant.unique():
            rows = torch.nonzero(variant == v)[:, 0]
            n, picture = len(rows), None
            for layer, depth in ((self.far, FAR), (self.near, 1.0)):
                shift = (pan[rows] * depth) % PERIOD
                x = sx[rows] + 22 + shift[:, None]                                 # 22: room for zooming out to the left
                y = sy[rows] + TOP + (tilt[rows] * (0.5 + 0.5 * depth))[:, None]
                grid = torch.stack([(x * 2 / TILED - 1)[:, None, :].expand(n, side, side), (y * 2 / HEIGHT - 1)[:, :, None].expand(n, side, side)], -1)
                got = F.grid_sample(layer[v:v + 1], grid.reshape(1, n * side, side, 2), padding_mode="border", align_corners=False)
                got = got[0].reshape(-1, n, side, side).transpose(0, 1)            # [n, 3 or 4, side, side]
                picture = got if picture is None else picture * (1 - got[:, 3:]) + got[:, :3]
            out[rows] = picture
        return out.reshape(B, T, 3, side, side)

    def subject(self, frames, sx, sy, body, size, sprite, flip, variant):
        """Lays one subject over the frames of n clips."""
        n, T, side = sx.shape
        L = T // FRAMES
        small = (size[:, None] * body[..., 3:].amax((-1, -2))[:, None] < sprites.BANDS[0] / DENSITY + 4).long()           # [n, 1]
        texture = self.sprites[1 - small.expand(n, L), sprite].reshape(n * L, 4, sprites.TEXTURE, sprites.TEXTURE)
        texture = torch.cat([texture[:, :3] * self.light[variant.reshape(-1)][:, :, None, None], texture[:, 3:]], 1)
        x, y, angle, wide, high = body.unbind(-1)                                  # [n, T] each
        dx, dy = sx - x[..., None], sy - y[..., None]                              # [n, T, side]
        cos, sin = angle.cos()[..., None, None], angle.sin()[..., None, None]
        mirror = (1 - 2 * flip).repeat_interleave(FRAMES, 1)
        scale = 2 * sprites.INNER / sprites.TEXTURE / size[:, None]
        u = (dx[:, :, None, :] * cos + dy[..., None] * sin) * (scale * mirror / wide)[..., None, None]
        v = (dy[..., None] * cos - dx[:, :, None, :] * sin) * (scale / high)[..., None, None]
        grid = torch.stack([u, v], -1).reshape(n * L, FRAMES * side, side, 2)
        got = F.grid_sample(texture, grid, padding_mode="zeros", align_corners=False)
        got = got.reshape(n, L, 4, FRAMES, side, side).transpose(2, 3).reshape(n, T, 4, side, side)
        return frames * (1 - got[:, :, 3:]) + got[:, :, :3]


def cells(box, latents, grid=PIXELS // 8):
    """Which latent cells the subjects touch: box [B, T, 2, 4] → float [B, L, grid, grid]."""
    step = PIXELS / grid
    low = torch.arange(grid, device=box.device) * step
    b = box.reshape(box.shape[0], latents, -1, 4, 1)
    x = (low + step > b[..., 0, :]) & (low < b[..., 2, :])
    y = (low + step > b[..., 1, :]) & (low < b[..., 3, :])
    return (y[..., :, None] & x[..., None, :]).any(2).float()


def batch(count, latents, seed, rich=1.0):
    """Records of `count` clips of one seed."""
    rng = random.Random(seed)
    return [sample(rng, latents, rich) for _ in range(count)]


def cut(record, start, latents):
    """The stretch of a record from latent `start` on."""
    a, b = slice(start, start + latents), slice(start * FRAMES, (start + latents) * FRAMES)
    out = dict(record, control=record["control"][a], variant=record["variant"][a], which=record["which"][a], camera=record["camera"][b])
    out["sprite"], out["flip"], out["body"] = record["sprite"][:, a], record["flip"][:, a], record["body"][:, b]
    out["texts"] = [record["texts"][l // CHUNK] for l in range(start, start + latents)]          # one per latent from here on
    return out
