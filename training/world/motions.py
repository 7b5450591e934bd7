"""The motions: each gives the pose of a subject at the times t (seconds, float64 [T]) around its home (x, y).

A pose is (x, y, angle, stretch_x, stretch_y); screen pixels, y down, radians, factors of the subject's size. Motions that travel leave
the screen and come back on the other side (clip.py wraps), so each of them can go on for minutes.

All of them keep step with the latents, as a sprite machine does: what travels moves by whole tokens of 16 pixels from chunk to chunk (32 pixels a second, or 16 or
64), and what repeats does so after 0.5, 1, 1.5 or 2 seconds, whole chunks. A small network sees the same few pictures again and again instead of a new
one at every fraction of a pixel, and can go on with a motion by copying what it showed a moment ago.
"""
import numpy as np

TAU = 2 * np.pi
STEP = 32                                                                          # pixels a second: a token of 16 in a chunk of half a second
TRAVELS = {"left": (-STEP, 0), "right": (STEP, 0), "up": (0, -STEP), "down": (0, STEP), "float": (0, -STEP / 2), "fall": (0, 2 * STEP), "roll": (STEP, 0),
           "fly": (STEP, -STEP)}                                                   # x, y; pixels a second
SPEEDS = {"slow": 0.5, "normal": 1.0, "fast": 2.0}


def saw(t, period, rest=0.18):
    """0 → 1 over the period, then quickly and smoothly back."""
    p = t / period % 1
    return np.where(p < 1 - rest, p / (1 - rest), 0.5 + 0.5 * np.cos(np.pi * (p - 1 + rest) / rest))


def pose(motion, t, x, y):
    z, one = np.zeros_like(t), np.ones_like(t)
    vx, vy = TRAVELS.get(motion, (0, 0))
    x, y = x + vx * t, y + vy * t
    hop = np.abs(np.sin(TAU * t))
    if motion in ("left", "right"):
        return x, y - 4 * hop, z, one, one
    if motion in ("up", "down"):
        return x, y, z, one, one
    if motion == "jump":
        p = t / 1.0 % 1
        return x, y - 176 * p * (1 - p), z, 1 + 0.12 * np.exp(-((p - 1) % 1) * 12), 1 - 0.16 * np.exp(-((p - 1) % 1) * 12)
    if motion == "bounce":
        p = t / 0.75 % 1
        squash = np.exp(-np.minimum(p, 1 - p) * 14)
        return x + 12 * np.sin(TAU * t / 1.5), y - 112 * p * (1 - p) + 4 * squash, z, 1 + 0.24 * squash, 1 - 0.24 * squash
    if motion == "spin":
        return x, y, TAU * t / 1.5, one, one
    if motion == "circle":
        a = TAU * t / 2
        return x + 26 * np.cos(a), y + 22 * np.sin(a), z, one, one
    if motion == "grow":
        s = 0.6 + 0.85 * saw(t, 2)
        return x, y, z, s, s
    if motion == "shrink":
        s = 1.4 - 0.85 * saw(t, 2)
        return x, y, z, s, s
    if motion == "float":
        return x + 9 * np.sin(TAU * t / 2), y, 0.16 * np.sin(TAU * t / 2), one, one
    if motion == "fall":
        return x, y, 0.5 * np.sin(TAU * t), one, one
    if motion == "nod":
        p = np.maximum(0, np.sin(TAU * t))
        return x, y + 9 * p, z, 1 + 0.05 * p, 1 - 0.16 * p
    if motion == "shake":
        return x + 9 * np.sin(TAU * t / 0.5), y, 0.07 * np.sin(TAU * t / 0.5), one, one
    if motion == "sway":
        a = 0.5 * np.sin(TAU * t / 1.5)
        return x + 20 * np.sin(a), y + 5 * (1 - np.cos(a)), a, one, one
    if motion == "roll":
        return x, y, TAU * t / 1.5, one, one
    if motion == "fly":
        return x, y + 3 * np.sin(TAU * t), z, one, one
    assert motion == "stay", motion
    b = 0.025 * np.sin(TAU * t)
    return x, y, z, 1 - b, 1 + b


MOTIONS = ["left", "right", "up", "down", "jump", "bounce", "spin", "circle", "grow", "shrink", "float", "fall", "nod", "shake", "sway",
           "roll", "fly", "stay"]
FACING = {"left": "left", "right": "right", "roll": "right", "fly": "right"}      # where a subject that has a front looks
