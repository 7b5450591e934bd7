"""The bank: clips as latents, drawn and encoded once and used several times.

Rendering and encoding cost about as much as a training step on the same latents, so a ring buffer keeps the newest clips; every training step adds a
few and draws its batch from all. On a CPU it costs more than that, so the clips of a run lie beside its state (clips-N.pt, N latents each) and the
next run begins with them, if they were drawn from this world and encoded by this encoder. Latents are kept as float16, already normalised per
channel; mean and std are measured once, on the first clips, and belong to the model from then on (latents.pt).
"""
import hashlib
import random
from pathlib import Path

import torch

import spec
from autoencoder import Encoder
from precision import autocast
from world import clip

LENGTH = 16                    # latents of a whole clip; what is trained on is a random stretch of it


def load_encoder(folder, device):
    values = torch.load(Path(folder) / "autoencoder.pt", map_location="cpu")["items"]["ema"]["values"]
    encoder = Encoder(spec.DIT["in_dim"])
    encoder.load_state_dict({k[len("encoder."):]: v for k, v in values.items() if k.startswith("encoder.")})
    return encoder.eval().to(device).to(memory_format=torch.channels_last)


def origin_of(encoder, *settings):
    """What clips depend on: the sources of the world, the encoder's weights and the settings they were drawn with."""
    digest = hashlib.sha256(repr(settings).encode())
    for path in sorted((Path(__file__).parent / "world").glob("*.py")):
        digest.update(path.read_bytes())
    for value in encoder.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class Bank:
    def __init__(self, folder, device, latents, size, seed, rich=1.0, action=None, frames=False):
        self.device, self.latents, self.size, self.rich, self.action, self.frames = device, latents, size, rich, action, frames
        self.rng, self.painter, self.encoder = random.Random(seed), clip.Painter(device), load_encoder(folder, device)
        self.rows, self.at, self.made = [], 0, 0
        path = Path(folder) / "latents.pt"
        if not path.exists():
            raw = torch.cat([self.encode(self.records(16, 4))[0].float() for _ in range(4)])                 # [64, 4, C, h, w]
            self.mean, self.std = raw.mean((0, 1, 3, 4)), raw.std((0, 1, 3, 4))
            z = (self.encode(self.records(16, 8))[0] - self.mean[:, None, None]) / self.std[:, None, None]
            part = path.with_suffix(".part")
            torch.save({"mean": self.mean.cpu(), "std": self.std.cpu(), "latents": z.half().cpu()}, part)
            part.rename(path)
        state = torch.load(path, map_location=device)
        self.mean, self.std = state["mean"], state["std"]
        self.kept, self.origin = Path(folder) / f"clips-{latents}.pt", None

    def keep(self):
        """Begins with the clips of the last run, as many as there is room for, and remembers to save() those of this one."""
        self.origin = origin_of(self.encoder, self.latents, self.rich, self.action)
        if self.kept.exists():
            state = torch.load(self.kept, map_location="cpu")
            if state["origin"] == self.origin:
                self.rows = state["rows"][-self.size:]
                self.at = len(self.rows)
                print(f"{len(self.rows)} clips of the last run", flush=True)

    def save(self):
        """The clips, oldest first; nothing without keep()."""
        if self.origin is not None:
            start = self.at % self.size if len(self.rows) == self.size else 0
            part = self.kept.with_suffix(".part")
            torch.save({"origin": self.origin, "rows": self.rows[start:] + self.rows[:start]}, part)
            part.rename(self.kept)

    def records(self, count, latents):
        """Random stretches; longer ones start at a chunk boundary, half of them where the clip does, as every stream begins."""
        out = []
        for _ in range(count):
            start = self.rng.randint(0, LENGTH - latents) // clip.CHUNK * clip.CHUNK if latents > 1 else self.rng.randrange(LENGTH)
            start *= latents == 1 or self.rng.random() < 0.5
            out.append(clip.cut(clip.sample(self.rng, LENGTH, self.rich, action=self.action), start, latents))
        return out

    @torch.no_grad()
    def encode(self, records):
        frames, box = self.painter.draw(records)
        with autocast(self.device):
            z = self.encoder(frames)
        return z.float(), clip.cells(box, z.shape[1]), frames

    def grow(self, count, group=16):
        for a in range(0, count, group):
            records = self.records(min(group, count - a), self.latents)
            z, cells, frames = self.encode(records)
            z = ((z - self.mean[:, None, None]) / self.std[:, None, None]).half()
            for i, r in enumerate(records):
                texts = list(dict.fromkeys(r["texts"]))
                ids = [spec.TOKENIZER.encode(t) for t in (texts + texts[-1:])[:2]]
                row = {"z": z[i].clone(), "cells": cells[i].bool(), "ids": torch.tensor(ids), "owner": torch.tensor([texts.index(t) for t in r["texts"]]),
                       "control": torch.from_numpy(r["control"])}
                if self.frames:
                    row["frames"] = (frames[i] * 255).round().byte().cpu()
                if len(self.rows) < self.size:
                    self.rows.append(row)
                else:
                    self.rows[self.at % self.size] = row
                self.at += 1

    def batch(self, count):
        """z [B, L, C, h, w], cells [B, L, h, w], ids [B, 2, text_len], owner [B, L], control [B, L, 12] and, if it keeps them, frames [B, 4 L, 3, H, W]"""
        rows = self.rng.sample(self.rows, count) if count <= len(self.rows) else self.rng.choices(self.rows, k=count)
        stack = lambda key: torch.stack([r[key] for r in rows]).to(self.device)
        return stack("z").float(), stack("cells").float(), stack("ids"), stack("owner"), stack("control").float(), *([stack("frames").float() / 255] if self.frames else [])
