"""The evaluation: what `turbocast generate` really outputs, seen by a judge (judges.py) and by plain measures. One row a measure, beside its goal.

    python evaluate.py --model ../models/toybox --prompts 60 --steps 4 2 --out evaluation.json
    python evaluate.py --teacher 32 --guidance 2 ...       also the teacher of --state, in PyTorch, at so many Euler steps

Prompts are of scenes that training never saw (captions.held_out), drawn with a fixed seed: one subject, default size and speed, a still camera. Clips of
the engine are Y4M files in a temporary folder. Beside every judged row stand the judge on rendered truth (it must be right), on the autoencoder's
reconstruction of that truth (ceiling), and on the clips held against each other's prompts (floor).
"""
import argparse
import functools
import json
import os
import random
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

import judges
import spec
from world import captions, clip
from world.motions import MOTIONS, TRAVELS

ROOT = Path(__file__).resolve().parent.parent
FPS, CHUNK_FRAMES = clip.FPS, clip.CHUNK * clip.FRAMES
SECONDS = judges.MOMENTS * judges.EVERY / FPS
GOALS = {"subject": ">= 0.95", "place": ">= 0.97", "motion": ">= 0.90", "magnitude": "0.8 - 1.2", "action": ">= 0.90", "psnr": ">= 31", "psnr in the box": ">= 27",
         "sharpness": "0.8 - 1.1", "seam": "<= 1.15", "drift": ">= 0.95", "change": ">= 0.90", "variety": "16"}


def scenes(count, seed=2026):
    """Held-out scenes that one can judge: one subject, nothing but its motion moves."""
    rng, out = random.Random(seed), []
    while len(out) < count:
        (scene,), _, texts = judges.script(rng, rich=0.0, hidden=True, motion=MOTIONS[len(out) % len(MOTIONS)])
        out.append((scene, texts[0]))
    return out


# -------------------------------------------------------------------------------------------------------------- clips

def read_y4m(path):
    """→ frames uint8 [T, 3, H, W] (BT.709, limited range, 4:2:0)."""
    data = path.read_bytes()
    end = data.index(b"\n")
    fields = {f[:1]: f[1:] for f in data[:end].split(b" ")[1:]}
    w, h = int(fields[b"W"]), int(fields[b"H"])
    frame = len(b"FRAME\n") + w * h * 3 // 2
    raw = np.frombuffer(data[end + 1:], np.uint8).reshape(-1, frame)[:, len(b"FRAME\n"):]
    y = (raw[:, :w * h].reshape(-1, h, w).astype(np.float32) - 16) / 219
    chroma = (raw[:, w * h:].reshape(-1, 2, h // 2, w // 2).astype(np.float32) - 128) / 224
    cb, cr = (chroma[:, i].repeat(2, 1).repeat(2, 2) for i in range(2))
    rgb = np.stack([y + 1.5748 * cr, y - 0.1873 * cb - 0.4681 * cr, y + 1.8556 * cb], 1)
    return torch.from_numpy((rgb.clip(0, 1) * 255).round().astype(np.uint8))


class Engine:
    """`turbocast generate` of this repository, one process a clip."""

    def __init__(self, args, folder):
        self.args, self.folder, self.count = args, Path(folder), 0
        (self.folder / "evaluation.yaml").write_text(f"engine:\n  models_dir: {json.dumps(str(Path(args.model).resolve().parent))}\n")

    def clip(self, prompt, steps, seconds=SECONDS, seed=1, *flags):
        """→ frames uint8 [T, 3, H, W]"""
        self.count += 1
        out = self.folder / f"{self.count}.y4m"
        command = ["node", str(ROOT / "bin" / "turbocast.mjs"), "generate", prompt, "--model", Path(self.args.model).name, "--config", str(self.folder / "evaluation.yaml"),
                   "--profile", self.args.profile, "--steps", str(steps), "--seconds", str(seconds), "--seed", str(seed), "--out", str(out), *map(str, flags)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command[2:])}: {done.stderr}")
        frames = read_y4m(out)
        out.unlink()
        return frames


@functools.lru_cache(maxsize=1)
def painter():
    """Places take seconds to lay out: once is enough."""
    return clip.Painter()


def rendered(scene, text, seed):
    """The truth: the same scene as the world draws it → frames uint8 [T, 3, H, W], box [T, 4]."""
    latents = judges.MOMENTS * judges.EVERY // clip.FRAMES
    record = clip.sample(random.Random(seed), latents, 0.0, ([scene], [0], [text] * (latents // clip.CHUNK)))
    frames, box = painter().draw([record])
    return (frames[0].clamp(0, 1) * 255).round().byte(), box[0, :, 0]


def reconstructed(frames, folder):
    """Frames through the autoencoder of the resume state → uint8."""
    from bank import load_encoder
    from sheet import decoder_of
    stats = torch.load(folder / "latents.pt", map_location="cpu")
    with torch.no_grad():
        raw = load_encoder(folder, "cpu")(frames.float() / 255)
        out = decoder_of(folder)((raw - stats["mean"][:, None, None]) / stats["std"][:, None, None])
    return (out.clamp(0, 1) * 255).round().byte()


def taught(args, folder, texts):
    """The teacher's clips by many Euler steps with guidance → frames uint8 [B, T, 3, H, W]"""
    from denoiser import Model
    from sheet import decoder_of, generate
    model = Model().eval()
    model.load_state_dict(torch.load(folder / "denoiser.pt", map_location="cpu")["items"]["ema"]["values"])
    chunks = int(SECONDS * FPS) // CHUNK_FRAMES
    decode = decoder_of(folder)
    parts = [decode(generate(model, texts[i:i + 8], chunks, args.teacher, "euler", args.guidance, seed=i)) for i in range(0, len(texts), 8)]
    return (torch.cat(parts).clamp(0, 1) * 255).round().byte()


# ----------------------------------------------------------------------------------------------------------- measures

def judge_clips(judge, clips):
    return judges.look(judge, torch.stack([c[::judges.EVERY][:judges.MOMENTS] for c in clips]))


def share(said, targets, key):
    return float((said[key] == torch.tensor([t[key] for t in targets])).float().mean())


def travel(track):
    """Mean distance of the subject's middle from frame to frame, in pixels; jumps to the other side of the screen do not count. [B, T, 3] → [B]"""
    step = track[..., :2].diff(dim=1).norm(dim=-1) * clip.SIZE / 2
    step = torch.where(step > 20, torch.full_like(step, float("nan")), step)
    return step.nanmean(1)


def gradient(frames):
    f = frames.float()
    return float(f.diff(dim=-1).abs().mean() + f.diff(dim=-2).abs().mean())


def seam(clips):
    """Frame differences at chunk borders against those inside chunks."""
    d = torch.stack([c.float().diff(dim=0).abs().mean((1, 2, 3)) for c in clips])                        # [B, T - 1]
    border = (torch.arange(1, d.shape[1] + 1) % CHUNK_FRAMES) == 0
    return float(d[:, border].mean() / d[:, ~border].mean())


def displacement(judge, frames):
    """How far the subject moved in the last two chunks, x and y in pixels (jumps to the other side of the screen do not count)."""
    said = judges.look(judge, frames[-2 * CHUNK_FRAMES:][None])
    step = said["track"][0, :, :2].diff(dim=0) * clip.SIZE / 2
    return step[step.norm(dim=-1) < 20].sum(0)


def shift(before, after, reach=12, bands=8):
    """Horizontal shift of the picture between two frames [3, H, W], + when it moves right: what fits best in every band of rows (near and far things move
    at different speeds), weighed by how much better it fits than no shift. Right on all 25 places as they are drawn, with noise on them."""
    w = before.shape[-1]
    a, b = (x.float().unflatten(1, (bands, -1)) for x in (before, after))                               # [3, bands, H / bands, W]
    errors = torch.stack([(a[..., reach:-reach] - b[..., reach + s:w - reach + s]).abs().mean((0, 2, 3)) for s in range(-reach, reach + 1)])
    gain = errors[reach] - errors.min(0).values                                                         # [bands] in levels
    return float(((errors.argmin(0) - reach) * gain).sum() / gain.sum().clamp(min=1.0))


def action_row(judge, engine, steps, count):
    """Steering by the tracker, panning by the shift of the background: does it move the right way within two chunks after the action?"""
    right, rng = [], random.Random(77)
    for n in range(count):
        name, sign = ("steer_x", "steer_y", "pan_x")[n // 2 % 3], (-1, 1)[n % 2]
        _, _, texts = judges.script(rng, rich=0.0, motion="stay")
        start = 1.0
        frames = engine.clip(texts[0], steps, start + 2 * CHUNK_FRAMES / FPS, n, "--action", start, f"{name}={sign}")
        if name == "pan_x":                                                  # the camera goes right, the picture left
            right.append(-sign * sum(shift(frames[i], frames[i + 2]) for i in range(len(frames) - 2 * CHUNK_FRAMES, len(frames) - 2, 2)) > 4)
        else:
            right.append(float(displacement(judge, frames)["xy".index(name[-1])]) * sign > 4)
    return sum(right) / len(right)


def change_row(judge, engine, steps, count):
    """Prompt changes at two seconds; judged on the clip that begins two chunks later."""
    right, rng = [], random.Random(78)
    for n in range(count):
        (first,), _, (before, *_) = judges.script(rng, rich=0.0, hidden=False)
        new = {"subjects": rng.choice(captions.SUBJECTS)["name"]} if n % 2 else {"motion": rng.choice([m for m in MOTIONS if m != first["motion"]])}
        second = dict(first, **({"subjects": [new["subjects"]]} if n % 2 else new))
        at = 2.0 + 2 * CHUNK_FRAMES / FPS
        frames = engine.clip(before, steps, at + SECONDS, n, "--at", 2.0, captions.caption(rng, second))
        said = judge_clips(judge, [frames[int(at * FPS):]])
        key = "subject" if n % 2 else "motion"
        right.append(int(said[key][0]) == judges.truth(second)[key])
    return sum(right) / len(right)


def drift_row(judge, engine, steps, count):
    """Subject accuracy in minute three against that of the first ten seconds."""
    early, late = [], []
    for n, (scene, text) in enumerate(scenes(count, 3)):
        frames = engine.clip(text, steps, 180, n)
        want = judges.truth(scene)["subject"]
        for part, into in ((frames[:10 * FPS], early), (frames[120 * FPS:], late)):
            parts = part[:len(part) // 48 * 48].unflatten(0, (-1, 48))
            into.extend((judge_clips(judge, list(parts))["subject"] == want).tolist())
    return sum(late) / len(late) / max(1e-6, sum(early) / len(early))


def variety_row(engine, steps, seeds):
    """Distinct pictures over the seeds of one prompt: those that differ from every earlier one by more than 4 levels in the mean."""
    pictures = []
    for seed in range(seeds):
        picture = engine.clip("a fox jumps in the snow", steps, 1, seed)[8].float()
        if all(float((picture - other).abs().mean()) > 4 for other in pictures):
            pictures.append(picture)
    return len(pictures)


def autoencoder_rows(folder, count):
    from autoencoder import validate, Encoder, Decoder
    values = torch.load(folder / "autoencoder.pt", map_location="cpu")["items"]["ema"]["values"]
    decoder = torch.load(folder / "decoder.pt", map_location="cpu")["items"]["ema"]["values"] if (folder / "decoder.pt").exists() else values
    parts = []
    for prefix, net, state in (("encoder.", Encoder(spec.DIT["in_dim"]), values), ("decoder.", Decoder(), decoder)):
        net.load_state_dict({k[len(prefix):]: v for k, v in state.items() if k.startswith(prefix)})
        parts.append(net)
    whole, box, _ = validate(painter(), *parts, "cpu", count)
    return whole, box


# --------------------------------------------------------------------------------------------------------------- main

def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--state", default=os.environ.get("TURBOCAST_STATE", "state"), help="folder with judge.pt and, for the ceiling, autoencoder.pt and latents.pt")
    p.add_argument("--model", default=str(ROOT / "models" / "toybox"))
    p.add_argument("--profile", default="cpu-int8")
    p.add_argument("--steps", type=int, nargs="*", default=[4, 2], help="none: only what needs no engine")
    p.add_argument("--prompts", type=int, default=54)
    p.add_argument("--others", type=int, default=16, help="clips for the action and change rows")
    p.add_argument("--minutes", type=int, default=4, help="prompts that run for three minutes each; 0: no drift row")
    p.add_argument("--seeds", type=int, default=16, help="seeds of the variety row")
    p.add_argument("--teacher", type=int, default=0, help="Euler steps of the teacher; 0: not beside")
    p.add_argument("--guidance", type=float, default=2.0)
    p.add_argument("--out", default="evaluation.json")
    args = p.parse_args()
    folder = Path(args.state)
    judge = judges.load(folder)
    wanted = scenes(args.prompts)
    targets = [judges.truth(scene) for scene, _ in wanted]
    drawn = [rendered(scene, text, n)[0] for n, (scene, text) in enumerate(wanted)]
    table = {"goal": GOALS}

    def judged(clips, reference=None):
        said = judge_clips(judge, clips)
        row = {key: share(said, targets, key) for key in judges.HEADS}
        moving = [n for n, (scene, _) in enumerate(wanted) if scene["motion"] in TRAVELS or scene["motion"] in ("jump", "bounce", "circle", "sway", "shake")]
        if reference is not None:
            row["magnitude"] = float((travel(said["track"])[moving] / travel(reference["track"])[moving]).nanmedian())
            row["sharpness"] = sum(map(gradient, clips)) / sum(map(gradient, drawn))
            row["seam"] = seam(clips)
        return row, said

    table["rendered truth"], reference = judged(drawn)
    table["rendered truth"]["seam"] = seam(drawn)
    table["autoencoder"], _ = judged(list(reconstructed(torch.stack(drawn), folder)), reference)
    table["autoencoder"]["psnr"], table["autoencoder"]["psnr in the box"] = autoencoder_rows(folder, min(16, args.prompts))
    if args.teacher:
        table[f"teacher, {args.teacher} steps"], _ = judged(list(taught(args, folder, [text for _, text in wanted])), reference)
    with tempfile.TemporaryDirectory() as temporary:
        engine = Engine(args, temporary)
        for steps in args.steps:
            clips = [engine.clip(text, steps, seed=n) for n, (_, text) in enumerate(wanted)]
            row, said = judged(clips, reference)
            shuffled = targets[7:] + targets[:7]
            table[f"{steps} steps, shuffled prompts"] = {key: share(said, shuffled, key) for key in judges.HEADS}
            if args.others:
                row["action"] = action_row(judge, engine, steps, args.others)
                row["change"] = change_row(judge, engine, steps, args.others)
            row["variety"] = variety_row(engine, steps, args.seeds)
            if args.minutes:
                row["drift"] = drift_row(judge, engine, steps, args.minutes)
            table[f"{steps} steps"] = row
            print(json.dumps({f"{steps} steps": row}), flush=True)
    Path(args.out).write_text(json.dumps(table, indent=1) + "\n")
    columns = [c for c in table if c != "goal"]
    print("| | goal | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 2))
    for name, goal in GOALS.items():
        cells = [f"{table[c][name]:.3f}".rstrip("0").rstrip(".") if name in table[c] else "" for c in columns]
        print(f"| {name} | {goal} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
