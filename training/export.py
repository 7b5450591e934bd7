"""Writes the model folder: weights, tokenizer, golden tensors and last model.json (docs/model-format.md).

    python export.py --out ../models/toybox [--sampler renoise]

Takes the newest state there is: distill.pt (and, beside it, what it was distilled from), else denoiser.pt, else untrained weights; autoencoder.pt likewise. Every file is written beside its
place and renamed, so that a reader never sees half of one. BatchNorm is folded into the convolutions here; the frames of the golden
tensors come from a literal, streaming reading of the contract, which must agree with the network that was trained.
"""
import argparse
import hashlib
import json
import os
from pathlib import Path

import torch
import torch.nn.functional as F

import spec
from autoencoder import SHAPE, Decoder
from model import Cache, DiT, TextEncoder
from safetensors import dump
from world.screen import PIXELS

CELLS = PIXELS // SHAPE["spatial_stride"]                                    # cells of a latent across


def fold(state, eps=1e-5):
    """State of autoencoder.Decoder → the contract's names with BatchNorm folded in."""
    out = {}
    for name, w in state.items():
        if name.endswith(".0.weight"):
            stem = name[:-len(".0.weight")]
            bn = {k: state[f"{stem}.1.{k}"] for k in ("weight", "bias", "running_mean", "running_var")}
            gain = bn["weight"] / (bn["running_var"] + eps).sqrt()
            out[stem + ".weight"] = w * gain[:, None, None, None]
            out[stem + ".bias"] = bn["bias"] - bn["running_mean"] * gain
    out["conv_out.weight"], out["conv_out.bias"] = state["conv_out.weight"], state["conv_out.bias"]
    return {k: v.float() for k, v in out.items()}


def rounded(state):
    """Matrices and convolutions as bfloat16, vectors as float32; → (what is stored, the same as float32 to compute with)."""
    stored = {k: v.float().bfloat16() if v.dim() > 1 and "modulation" not in k else v.float() for k, v in state.items()}
    return stored, {k: v.float() for k, v in stored.items()}


class Stream:
    """The group-decoder, one latent at a time, as the contract writes it."""

    def __init__(self, weights, mean, std, watch=None):
        self.w, self.mean, self.std, self.past, self.watch = weights, mean[:, None, None], std[:, None, None], {}, watch

    def conv(self, x, name, pad=1):
        return F.conv2d(x, self.w[name + ".weight"], self.w[name + ".bias"], padding=pad)

    def see(self, name, x):
        if self.watch is not None:
            self.watch.setdefault(name, []).append(x.abs().flatten()[::7])
        return x

    def block(self, x, name):
        self.see(name + ".in", x)
        past = self.past.get(name, torch.zeros_like(x))
        self.past[name] = x
        y = self.see(name + ".conv0", F.relu(self.conv(torch.cat([x, past], 1), name + ".conv0")))
        y = self.see(name + ".conv2", F.relu(self.conv(y, name + ".conv2")))
        return self.see(name + ".out", F.relu(self.conv(y, name + ".conv4") + x))

    def decode(self, latent):
        """latent [C, h, w] normalised → frames [4, 3, 8h, 8w]"""
        x = self.see("input", (latent * self.std + self.mean)[None])
        frames = [self.see("conv_in", F.relu(self.conv(x, "conv_in")))]
        for l, count in enumerate(SHAPE["blocks"]):
            for b in range(count):
                frames = [self.block(x, f"levels.{l}.blocks.{b}") for x in frames]
            if l < len(SHAPE["grow"]):
                ups = [self.see(f"levels.{l}.up", F.relu(self.conv(x, f"levels.{l}.up", 0))) for x in frames]
                frames = [F.pixel_shuffle(part, 2) for x in ups for part in x.chunk(SHAPE["grow"][l], 1)]
        return torch.cat([F.pixel_shuffle(self.conv(x, "conv_out"), 2) for x in frames]).clamp(0, 1)


def write(path, data):
    part = path.with_suffix(path.suffix + ".part")
    part.write_bytes(data)
    os.replace(part, path)
    return {"file": path.name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def newest(folder, names):
    for name in names:
        if (folder / f"{name}.pt").exists():
            return name, torch.load(folder / f"{name}.pt", map_location="cpu")
    return None, None


@torch.no_grad()
def golden(text, dit, stream, prompt, latents):
    """Inputs and outputs for the tests of the graphs: prompt, four clean passes and one step on a window that has evicted, three latents."""
    g = torch.Generator().manual_seed(7)
    ids = torch.tensor([spec.TOKENIZER.encode(prompt)])
    context = text(ids)
    out = {"text.ids": ids[0].int(), "text.context": context[0]}
    cache = Cache(spec.STREAM["window_latents"])
    last = spec.STREAM["window_latents"] // spec.STREAM["latents_per_chunk"]
    for i in range(last + 1):
        final = i == last
        x = torch.randn(1, 2, spec.DIT["in_dim"], CELLS, CELLS, generator=g) if final or latents is None else latents[None, 2 * i:2 * i + 2].float()
        t = torch.full((1, 2), 750.0 if final else 0.0)
        control = torch.zeros(1, 2, spec.DIT["control_dim"])
        control[..., 0], control[..., 11] = (1.0, 1.0) if final else (0.0, 0.0)
        v = dit(x, t, context, control, cache=cache, start=2 * i, keep=not final)
        name = "dit.step" if final else f"dit.past.{i}"
        out.update({f"{name}.x": x[0].transpose(0, 1).contiguous(), f"{name}.timestep": t[0], f"{name}.control": control[0]})
    out["dit.step.velocity"] = v[0].transpose(0, 1).contiguous()
    z = torch.randn(3, spec.DIT["in_dim"], CELLS, CELLS, generator=g) if latents is None else latents[:3].float()
    frames = torch.cat([stream.decode(x) for x in z])
    index = [0, 6, 11]
    out.update({"decoder.latents": z.transpose(0, 1).contiguous(), "decoder.frame_index": torch.tensor(index, dtype=torch.int32), "decoder.frames": frames[index]})
    return out


@torch.no_grad()
def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--state", default=os.environ.get("TURBOCAST_STATE", "state"))
    p.add_argument("--out", default=str(Path(__file__).parent.parent / "models" / "toybox"))
    p.add_argument("--sampler", default=None, help="renoise or euler; default: renoise for a student of few steps")
    p.add_argument("--stages", nargs="*", default=["distill", "denoiser"], help="whose weights to take, first found")
    args = p.parse_args()
    torch.manual_seed(0)
    folder, out = Path(args.state), Path(args.out)
    out.mkdir(parents=True, exist_ok=True)

    _, auto = newest(folder, ["decoder", "autoencoder"])
    if auto:
        plain = {k[len("decoder."):]: v for k, v in auto["items"]["ema"]["values"].items() if k.startswith("decoder.")}
    else:
        plain = Decoder().state_dict()
    vae_stored, vae = rounded(fold(plain))
    bank = torch.load(folder / "latents.pt", map_location="cpu") if (folder / "latents.pt").exists() else None
    mean, std = (bank["mean"], bank["std"]) if bank else (torch.zeros(spec.DIT["in_dim"]), torch.ones(spec.DIT["in_dim"]))
    stage, state = newest(folder, args.stages)
    text, dit = TextEncoder(spec.TEXT), DiT(spec.DIT)
    if state:
        values = state["items"]["ema"]["values"]
        for name, module in (("text", text), ("dit", dit)):
            module.load_state_dict({k[len(name) + 1:]: v for k, v in values.items() if k.startswith(name + ".")})
    else:
        for w in dit.parameters():                                           # untrained outputs are zero: nothing to test a graph with
            if float(w.abs().max()) == 0:
                torch.nn.init.normal_(w, std=0.02)
    files, weights = {}, {}
    for name, module in (("text", text), ("dit", dit)):
        state_dict = module.state_dict()
        weights[name], compute = rounded(state_dict)
        module.load_state_dict(compute)
        module.eval()

    example = bank["latents"][0] if bank else None
    ranges = {}
    if auto:
        watch = {}
        for clip in (bank["latents"][:48] if bank else []):
            stream = Stream(vae, mean, std, watch)
            for z in clip[:4].float():
                stream.decode(z)
        for name, parts in watch.items():
            values = torch.cat(parts)
            ranges[name] = round(float(values.kthvalue(max(1, int(len(values) * 0.9999))).values), 4)
        check = Decoder()
        check.load_state_dict({k: v for k, v in plain.items()})
        check.eval()
        z = torch.randn(3, spec.DIT["in_dim"], CELLS, CELLS) if bank is None else example[:3].float()
        raw = z * std[:, None, None] + mean[:, None, None]
        stream = Stream(fold(plain), mean, std)
        gap = float((check(raw[None])[0].clamp(0, 1) - torch.cat([stream.decode(x) for x in z])).abs().max())
        assert gap < 1e-3, f"folded streaming decoder differs from the trained one by {gap}"
    tensors = golden(text, dit, Stream(vae, mean, std), spec.EXAMPLES[0], example)

    tokenizer = {"kind": "words", "lowercase": True, "pad": 0, "end": 1, "unknown": 2, "words": spec.TOKENIZER.words, "aliases": spec.TOKENIZER.aliases}
    files["text"] = write(out / "text.safetensors", dump(weights["text"]))
    files["dit"] = write(out / "dit.safetensors", dump(weights["dit"]))
    files["vae"] = write(out / "vae.safetensors", dump(vae_stored))
    if auto:                                                                 # not for the engine: what restore.py needs to go on training
        values = newest(folder, ["autoencoder"])[1]["items"]["ema"]["values"]
        encoder = {k[len("encoder."):]: v for k, v in values.items() if k.startswith("encoder.")}
        write(out / "encoder.safetensors", dump({k: v.bfloat16() if v.dim() == 4 else v.float() for k, v in encoder.items()}))
    _, teacher = newest(folder, ["denoiser"]) if stage == "distill" else (None, None)
    if teacher:                                                              # likewise: a student has guidance in it, and is no teacher for the next
        values = teacher["items"]["ema"]["values"]
        write(out / "teacher.safetensors", dump(rounded(values)[0]))
    files["tokenizer"] = write(out / "tokenizer.json", (json.dumps(tokenizer, indent=0) + "\n").encode())
    write(out / "golden.safetensors", dump(tensors))
    controls = [{"name": n, "index": i, "min": -1 if i < 5 else 0, "max": 1, "default": 0, "label": spec.LABELS[n]} for i, n in enumerate(spec.CONTROLS[:-1])]
    has_jumped = stage == "distill" and state["items"]["guided"]["values"] is not None
    sampler = args.sampler or ("renoise" if has_jumped else "euler")
    model = {
        "format": 1, "name": "toybox", "title": "a small world of emoji that move: 54 subjects, 18 motions, 10 places", "license": "Apache-2.0",
        "fps": 16, "width": PIXELS, "height": PIXELS, "sizes": [[PIXELS, PIXELS]], "text": spec.TEXT, "dit": spec.DIT,
        "vae": {"kind": "group-decoder", **SHAPE, "latent_mean": [round(float(x), 6) for x in mean], "latent_std": [round(float(x), 6) for x in std], "int8_ranges": ranges},
        "stream": spec.STREAM, "schedules": spec.SCHEDULES, "default_steps": 4, "sampler": sampler, "controls": controls,
        "control_present_index": len(spec.CONTROLS) - 1, "examples": spec.EXAMPLES, "files": files}
    write(out / "model.json", (json.dumps(model, indent=2) + "\n").encode())
    total = sum(f["bytes"] for f in files.values())
    print(f"{out}: {stage or 'untrained'} weights, autoencoder {'trained' if auto else 'untrained'}, sampler {sampler}, {total / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
