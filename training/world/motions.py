"""The motions: each gives the pose of a subject at the times t (seconds, float64 [T]) around its home (x, y).

A pose is (x, y, angle, stretch_x, stretch_y); screen pixels, y down, radians, factors of the subject's size. Motions that travel leave
the screen and come back on the other side (clip.py wraps), so each of them can go on for minutes.
"""
import numpy as np

TAU = 2 * np.pi
SPEEDS = {"slow": 0.55, "normal": 1.0, "fast": 1.7}


def saw(t, period, rest=0.18):
    """0 → 1 over the period, then quickly and smoothly back."""
    p = t / period % 1
    return np.where(p < 1 - rest, p / (1 - rest), 0.5 + 0.5 * np.cos(np.pi * (p - 1 + rest) / rest))


def pose(motion, t, x, y):
    z, one = np.zeros_like(t), np.ones_like(t)
    hop = np.abs(np.sin(TAU * t))
    if motion == "left":
        return x - 42 * t, y - 4 * hop, z, one, one
    if motion == "right":
        return x + 42 * t, y - 4 * hop, z, one, one
    if motion == "up":
        return x + z, y - 40 * t, z, one, one
    if motion == "down":
        return x + z, y + 40 * t, z, one, one
    if motion == "jump":
        p = t / 1.0 % 1
        return x + z, y - 176 * p * (1 - p), z, 1 + 0.12 * np.exp(-((p - 1) % 1) * 12), 1 - 0.16 * np.exp(-((p - 1) % 1) * 12)
    if motion == "bounce":
        p = t / 0.75 % 1
        squash = np.exp(-np.minimum(p, 1 - p) * 14)
        return x + 26 * np.sin(TAU * t / 4.5), y - 112 * p * (1 - p) + 4 * squash, z, 1 + 0.24 * squash, 1 - 0.24 * squash
    if motion == "spin":
        return x + z, y + z, TAU * t / 1.75, one, one
    if motion == "circle":
        a = TAU * t / 2.5
        return x + 29 * np.cos(a), y + 24 * np.sin(a), z, one, one
    if motion == "grow":
        s = 0.6 + 0.85 * saw(t, 2.5)
        return x + z, y + z, z, s, s
    if motion == "shrink":
        s = 1.4 - 0.85 * saw(t, 2.5)
        return x + z, y + z, z, s, s
    if motion == "float":
        return x + 9 * np.sin(TAU * t / 2.2), y - 24 * t, 0.16 * np.sin(TAU * t / 2.2), one, one
    if motion == "fall":
        return x + z, y + 64 * t, 0.5 * np.sin(TAU * t / 1.3), one, one
    if motion == "nod":
        p = np.maximum(0, np.sin(TAU * t / 0.9))
        return x + z, y + 9 * p, z, 1 + 0.05 * p, 1 - 0.16 * p
    if motion == "shake":
        return x + 9 * np.sin(TAU * t / 0.55), y + z, 0.07 * np.sin(TAU * t / 0.55), one, one
    if motion == "sway":
        a = 0.5 * np.sin(TAU * t / 1.6)
        return x + 20 * np.sin(a), y + 5 * (1 - np.cos(a)), a, one, one
    if motion == "roll":
        return x + 42 * t, y + z, TAU * t / 1.9, one, one
    if motion == "fly":
        return x + 44 * t, y - 30 * t + 3 * np.sin(TAU * t / 0.8), z, one, one
    assert motion == "stay", motion
    b = 0.025 * np.sin(TAU * t / 1.6)
    return x + z, y + z, z, 1 - b, 1 + b


MOTIONS = ["left", "right", "up", "down", "jump", "bounce", "spin", "circle", "grow", "shrink", "float", "fall", "nod", "shake", "sway",
           "roll", "fly", "stay"]
FACING = {"left": "left", "right": "right", "roll": "right", "fly": "right"}      # where a subject that has a front looks
TRAVELS = {"left", "right", "up", "down", "float", "fall", "roll", "fly"}
