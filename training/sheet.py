"""Contact sheets: prompts down, time across, made by the PyTorch model through the same recursion as the engine.

    python sheet.py --out sheet.png --stage denoiser --sampler euler --steps 12 --guidance 2       the teacher
    python sheet.py --out sheet.png --stage distill --sampler renoise --steps 4                     the student
    python sheet.py --out sheet.png --reconstruct 1                                                   truth above reconstruction
"""
import argparse
import os
import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import spec
from autoencoder import SHAPE, Decoder
from bank import load_encoder
from denoiser import Model, shifted
from export import CELLS, fold, newest, Stream
from model import Cache
from world import clip

PROMPTS = ["a fox jumps in the snow", "a cat goes to the left on the beach", "a car drives to the right on the road", "a smiling face nods in the room",
           "a rocket flies away in space", "a balloon floats up over the city at sunset", "a penguin spins in the desert", "a banana bounces in the meadow",
           "a crying face shakes in the forest at night", "an octopus circles under the sea", "an elephant grows in the meadow at sunset", "a star falls in the city at night"]


def timesteps(count):
    """Noise levels of a schedule: 4, 2 and 1 as deployed, else `count` points of the shift-3 grid."""
    return [t / 1000 for t in spec.SCHEDULES[str(count)]] if str(count) in spec.SCHEDULES else [float(shifted(torch.tensor(1 - i / count))) for i in range(count)]


@torch.no_grad()
def generate(model, prompts, chunks, steps, sampler, guidance=1.0, device="cpu", seed=0, control=None, n=spec.STREAM["latents_per_chunk"]):
    """→ latents [B, chunks * 2, C, h, w], chunk by chunk with a cache; prompts: one per row, or a list of lists (one per chunk)."""
    g = torch.Generator().manual_seed(seed)
    B, C = len(prompts), spec.DIT["in_dim"]
    texts = [[p] * chunks if isinstance(p, str) else p for p in prompts]
    null = model.text(torch.tensor([[1] + [0] * (spec.TEXT["text_len"] - 1)] * B, device=device))
    cache, blank, out = Cache(spec.STREAM["window_latents"]), Cache(spec.STREAM["window_latents"]), []
    for i in range(chunks):
        context = model.text(torch.tensor([spec.TOKENIZER.encode(t[i]) for t in texts], device=device))
        c = torch.zeros(B, n, spec.DIT["control_dim"], device=device) if control is None else control[:, i * n:(i + 1) * n].to(device)
        noise = lambda: torch.randn(B, n, C, CELLS, CELLS, generator=g).to(device)

        def denoise(x, sigma):
            t = torch.full((B, n), sigma * 1000, device=device)
            v = model.dit(x, t, context, c, cache=cache, start=i * n)
            if guidance != 1:
                u = model.dit(x, t, null, c * 0, cache=blank, start=i * n)
                v = u + guidance * (v - u)
            return v

        x, levels = noise(), timesteps(steps)
        for sigma, after in zip(levels, levels[1:] + [0.0]):
            v = denoise(x, sigma)
            if sampler == "euler":
                x = x + (after - sigma) * v
            else:
                x = x - sigma * v
                x = (1 - after) * x + after * noise() if after > 0 else x
        zero = torch.zeros(B, n, device=device)
        model.dit(x, zero, context, c, cache=cache, start=i * n, keep=True)
        if guidance != 1:
            model.dit(x, zero, null, c * 0, cache=blank, start=i * n, keep=True)
        out.append(x)
    return torch.cat(out, 1)


def decoder_of(folder):
    values = newest(folder, ["decoder", "autoencoder"])[1]["items"]["ema"]["values"]
    weights = fold({k[len("decoder."):]: v for k, v in values.items() if k.startswith("decoder.")})
    bank = folder / "latents.pt"
    stats = torch.load(bank, map_location="cpu") if bank.exists() else {"mean": torch.zeros(spec.DIT["in_dim"]), "std": torch.ones(spec.DIT["in_dim"])}
    return lambda z: torch.stack([torch.cat([s.decode(x) for x in row]) for s, row in ((Stream(weights, stats["mean"], stats["std"]), row) for row in z.cpu())])


def montage(frames, path, columns=10):
    """frames [B, T, 3, h, w] → PNG with `columns` moments of each row."""
    index = np.linspace(0, frames.shape[1] - 1, columns).round().astype(int)
    f = frames[:, index].clamp(0, 1)
    picture = f.permute(0, 3, 1, 4, 2).reshape(f.shape[0] * f.shape[3], -1, 3)
    Image.fromarray((picture.numpy() * 255).astype(np.uint8)).save(path)


@torch.no_grad()
def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--state", default=os.environ.get("TURBOCAST_STATE", "state"))
    p.add_argument("--out", default="sheet.png")
    p.add_argument("--stage", default="denoiser")
    p.add_argument("--sampler", default="euler")
    p.add_argument("--steps", type=int, default=12)
    p.add_argument("--guidance", type=float, default=1.0)
    p.add_argument("--chunks", type=int, default=4)
    p.add_argument("--columns", type=int, default=10)
    p.add_argument("--rows", type=int, default=12)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="cpu")
    p.add_argument("--reconstruct", type=int, default=0)
    p.add_argument("--pictures", type=int, default=0, help="single latents, so many seeds across instead of time")
    args = p.parse_args()
    folder = Path(args.state)
    decode = decoder_of(folder)
    if args.reconstruct:
        frames, _ = clip.Painter().draw(clip.batch(args.rows // 2, 4, args.seed))
        raw = load_encoder(folder, "cpu")(frames)
        stats = torch.load(folder / "latents.pt") if (folder / "latents.pt").exists() else None
        z = (raw - stats["mean"][:, None, None]) / stats["std"][:, None, None] if stats else raw
        montage(torch.stack([frames, decode(z)], 1).flatten(0, 1), args.out, args.columns)
        return
    model = Model().to(args.device).eval()
    model.load_state_dict(torch.load(folder / f"{args.stage}.pt", map_location=args.device)["items"]["ema"]["values"])
    if args.pictures:
        z = generate(model, [q for q in PROMPTS[:args.rows] for _ in range(args.pictures)], 1, args.steps, args.sampler, args.guidance, args.device, args.seed, n=1)
        montage(decode(z)[:, 2].unflatten(0, (-1, args.pictures)), args.out, args.pictures)
        return
    z = generate(model, PROMPTS[:args.rows], args.chunks, args.steps, args.sampler, args.guidance, args.device, args.seed)
    montage(decode(z), args.out, args.columns)


if __name__ == "__main__":
    main()
