"""The judge: a small network that says what a clip shows. It has seen rendered clips alone, never an autoencoder's or a student's output.

From MOMENTS frames at 8 a second (every second frame of the video) it reads the subject, the place with its time of day, the motion, and in
every frame the subject's pose: where it is, how wide and high, how it is turned. A frame goes through a convolutional trunk; a learnt heat map says where
the subject is, and what is pooled there names it and tells its pose. Convolutions over time name the motion from the poses alone. They learn it last (the
part of the time after --names), from what the finished trunk reads in rendered clips and, many times as many, from true poses made as uncertain as that.
Training pictures are softened, tinted and made noisy by chance, so that the judge answers to what is shown and not to how crisp it is.

    python judges.py --minutes 60             → judge.pt, and how often it is right on rendered clips that it never saw
"""
import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from precision import autocast
from run import Run, parser
from world import captions, clip, sprites
from world.motions import MOTIONS
from world.places import VARIANTS

MOMENTS, EVERY = 24, 2                                                       # three seconds, at 8 frames a second
SUBJECTS = sprites.NAMES
POSE = 6                                                                     # x, y, width, height (half a screen is 1), sine and cosine of the angle
HEADS = {"subject": SUBJECTS, "place": [f"{p}/{t}" for p, t in VARIANTS], "motion": MOTIONS}


def layer(i, o, stride=2):
    return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())


class Judge(nn.Module):
    def __init__(self, width=96):
        super().__init__()
        self.trunk = nn.Sequential(layer(3, 24), layer(24, 48), layer(48, 64), layer(64, width, 1), layer(width, width, 1))       # [.., 16, 16]
        self.heat, self.pose = nn.Conv2d(width, 1, 1), nn.Linear(width, POSE)
        self.subject, self.place = nn.Linear(width, len(SUBJECTS)), nn.Linear(width, len(VARIANTS))
        self.time = nn.Sequential(nn.Conv1d(POSE, 128, 5, padding=2), nn.ReLU(), nn.Conv1d(128, 128, 5, padding=2), nn.ReLU(),
                                  nn.Conv1d(128, 128, 5, padding=2), nn.ReLU())
        self.motion = nn.Linear(256, len(MOTIONS))
        grid = (torch.arange(16) + 0.5) / 8 - 1
        self.register_buffer("grid", torch.stack(torch.meshgrid(grid, grid, indexing="ij")[::-1]).flatten(1), persistent=False)   # x, y [2, 256]

    def see(self, frames):
        """frames [B, T, 3, H, W] in [0, 1], looked at as 128x128 → subject [B, T, ..] and place [B, T, ..] logits, track [B, T, POSE]."""
        B, T = frames.shape[:2]
        if frames.shape[-1] != 128:
            frames = F.interpolate(frames.flatten(0, 1), size=(128, 128), mode="area").unflatten(0, (B, T))
        f = self.trunk(frames.flatten(0, 1).contiguous(memory_format=torch.channels_last) * 2 - 1).float().flatten(2)       # [BT, W, 256]
        where = torch.softmax(self.heat(f.unflatten(2, (16, 16))).flatten(1), -1)                                            # [BT, 256]
        there = (f * where[:, None]).sum(-1)
        rough = (self.grid[None] * where[:, None]).sum(-1)
        fine = self.pose(there)
        track = torch.cat([rough + 0.1 * fine[:, :2], fine[:, 2:]], -1).unflatten(0, (B, T))
        return {"subject": self.subject(there).unflatten(0, (B, T)), "place": self.place(f.mean(-1)).unflatten(0, (B, T)), "track": track}

    def follow(self, track):
        """Poses over time [B, T, POSE] → motion logits [B, ..]; where on the screen it happens says nothing of it."""
        m = self.time((track - track.mean(1, keepdim=True)).transpose(1, 2) * 4)
        return self.motion(torch.cat([m.mean(-1), m.amax(-1)], -1))

    def forward(self, frames):
        out = self.see(frames)
        return dict(out, motion=self.follow(out["track"]))


def judged(record):
    """A record at every second frame: what the judge sees of it. Needs one scene from the beginning to the end."""
    a = slice(None, None, EVERY)
    return dict(record, sprite=record["sprite"][:, a], flip=record["flip"][:, a], variant=record["variant"][a], body=record["body"][:, a], camera=record["camera"][a])


def script(rng, rich=0.5, hidden=None, **fixed):
    """One scene with one subject, from the beginning to the end: what captions.script gives."""
    hidden = rng.random() < 0.1 if hidden is None else hidden
    while True:
        s = captions.scene(rng, rich, hidden, **fixed)
        if len(s["subjects"]) == 1:
            return [s], [0], [captions.caption(rng, s)] * (MOMENTS * EVERY // clip.FRAMES // clip.CHUNK)


def truth(scene):
    """What the judge should say of a scene."""
    return {"subject": SUBJECTS.index(scene["subjects"][0]), "place": VARIANTS.index((scene["place"], scene["time"])), "motion": MOTIONS.index(scene["motion"])}


def draft(rng, rich):
    """What will be seen of one scene, not drawn yet."""
    record = judged(clip.sample(rng, MOMENTS * EVERY // clip.FRAMES, rich, script(rng, rich)))
    return dict(record, control=record["control"] * 0)


def poses(records):
    """The true tracks [B, T, POSE] and whether the middle is on the screen [B, T]."""
    stack = lambda key: torch.from_numpy(np.stack([r[key] for r in records]))
    x, y, angle, wide, high = stack("body")[:, 0].unbind(-1)                     # [B, T] each
    scale, half = stack("camera")[..., 2] / (clip.SIZE / 2), clip.SIZE / 2
    size = stack("size")[:, :1] * scale
    track = torch.stack([(x - half) * scale, (y - half) * scale, wide * size, high * size, angle.sin(), angle.cos()], -1).float()
    return track, (track[..., :2].abs() < 0.95).all(-1)


def targets_of(records):
    return {k: torch.tensor([truth(r["scenes"][0])[k] for r in records]) for k in HEADS}


def sample(painter, rng, count, rich=0.5):
    """count rendered clips → frames uint8 [B, T, 3, H, W], targets, track [B, T, POSE], seen [B, T] (the middle is on the screen)."""
    records = [draft(rng, rich) for _ in range(count)]
    return ((painter.draw(records)[0].clamp(0, 1) * 255).round().byte(), targets_of(records), *poses(records))


def roughen(frames, rng):
    """Softer, tinted, noisier, by chance and per clip; frames [B, T, 3, H, W] in [0, 1]."""
    B = len(frames)
    pick = lambda p: (torch.rand(B, 1, 1, 1, 1, device=frames.device) < p).float()
    small = F.interpolate(F.avg_pool2d(frames.flatten(0, 1), 2), scale_factor=2, mode="bilinear", align_corners=False).unflatten(0, (B, -1))
    frames = torch.lerp(frames, small, pick(0.5) * torch.rand(B, 1, 1, 1, 1, device=frames.device))
    frames = frames * (1 + pick(0.5) * 0.1 * torch.randn(B, 1, 3, 1, 1, device=frames.device))
    return (frames + pick(0.5) * 0.04 * torch.randn_like(frames)).clamp(0, 1)


def stills(frames, track, seen, moments):
    """Some frames of every clip instead of all, by chance: the same cost shows many times more clips. [B, T, ..] → [B, moments, ..]"""
    index = torch.rand(seen.shape, device=seen.device).argsort(1)[:, :moments]
    row = torch.arange(len(seen), device=seen.device)[:, None]
    return frames[row, index], track[row, index], seen[row, index]


def loss_of(out, targets, track, seen):
    """Of names and tracks."""
    frames = seen.float()
    named = F.cross_entropy(out["subject"].flatten(0, 1), targets["subject"][:, None].expand(seen.shape).flatten(), reduction="none").unflatten(0, seen.shape)
    placed = F.cross_entropy(out["place"].flatten(0, 1), targets["place"][:, None].expand(seen.shape).flatten())
    weight = torch.tensor([2.0, 2, 1, 1, 0.5, 0.5], device=track.device)
    followed = ((out["track"] - track).abs() * weight).sum(-1)
    return ((named + followed) * frames).sum() / frames.sum() + placed


def verdict(out):
    """Logits → indices [B]: what most of the frames say, and the motion where clips were followed."""
    said = {key: out[key].softmax(-1).mean(1).argmax(-1) for key in ("subject", "place")}
    return dict(said, motion=out["motion"].argmax(-1)) if "motion" in out else said


@torch.no_grad()
def look(judge, frames, group=8):
    """What the judge says of clips [B, T, 3, H, W] in [0, 1] or uint8, T = MOMENTS."""
    judge.eval()
    parts = []
    for some in frames.split(group):
        some = some.float() / 255 if some.dtype == torch.uint8 else some
        out = judge(some.to(judge.grid.device))
        parts.append(dict({k: v.cpu() for k, v in verdict(out).items()}, track=out["track"].cpu(), frames=out["subject"].cpu()))
    return {k: torch.cat([p[k] for p in parts]) for k in parts[0]}


def load(folder, device="cpu"):
    judge = Judge().to(device)
    judge.load_state_dict(torch.load(f"{folder}/judge.pt", map_location=device)["items"]["model"])
    return judge.eval()


def exam(judge, painter, clips=200, rich=0.5):
    """How often the judge is right on rendered clips that it never saw: {"subject": 0.99, ..}, and the mean error of the middle in pixels.
    rich: see clip.sample; 0 for plain scenes, as evaluate.py asks about."""
    frames, targets, track, seen = sample(painter, random.Random(987654321), clips, rich)
    said = look(judge, frames)
    right = {k: float((said[k] == targets[k]).float().mean()) for k in HEADS}
    off = ((said["track"] - track.cpu())[..., :2].norm(dim=-1) * seen.cpu()).sum() / seen.sum()
    return right, float(off) * clip.SIZE / 2, said, targets


def learn_names(judge, optimizer, rows, count, rate, device, rng):
    """One step of the trunk on some frames of many clips."""
    some = rng.sample(rows, min(count, len(rows)))
    stack = lambda pick: torch.stack([pick(r) for r in some]).to(device)
    targets = {k: stack(lambda r: r[1][k]) for k in HEADS}
    frames, track, seen = stills(stack(lambda r: r[0]), stack(lambda r: r[2]), stack(lambda r: r[3]), 4)
    with autocast(device):
        out = judge.see(roughen(frames.float() / 255, rng))
    loss = loss_of({k: v.float() for k, v in out.items()}, targets, track, seen)
    descend(judge, optimizer, loss, rate)
    return {"loss": loss.detach(), **{k: (v == targets[k]).float().mean() for k, v in verdict(out).items()}}


def uncertain(track, seen):
    """True poses as the trunk might read them: a little off, now and then lost, and anything when the subject is off the screen; symmetric subjects have no angle."""
    rand = lambda *shape: torch.rand(shape, device=track.device)
    B, T, _ = track.shape
    off = torch.tensor([0.03, 0.03, 0.05, 0.05, 0.2, 0.2], device=track.device) * rand(B, 1, 1) * 2
    out = track + off * torch.randn_like(track)
    turned = torch.where(rand(B, 1, 1) < 0.2, torch.zeros_like(out[..., 4:]), out[..., 4:] * (0.5 + 0.5 * rand(B, 1, 1)))
    out = torch.cat([out[..., :4], turned], -1)
    lost = ~seen | (rand(B, T) < 0.03)
    return torch.where(lost[..., None], out.mean(1, keepdim=True) + 0.5 * torch.randn_like(out), out)


def learn_motions(judge, optimizer, read, drafts, rate, device, rng):
    """One step of what follows over time: half of the tracks read by the finished trunk, half true ones."""
    some, others = rng.sample(read, min(128, len(read))), rng.sample(drafts, min(128, len(drafts)))
    track, seen = (torch.stack([d[i] for d in others]).to(device) for i in (0, 1))
    both = torch.cat([torch.stack([r[0] for r in some]).to(device), uncertain(track, seen)])
    target = torch.tensor([r[1] for r in some] + [d[2] for d in others], device=device)
    said = judge.follow(both)
    descend(judge, optimizer, F.cross_entropy(said, target, label_smoothing=0.05), rate)
    right = (said.argmax(-1) == target).float()
    return {"motion": right[:len(some)].mean(), "motion of true poses": right[len(some):].mean()}


def descend(judge, optimizer, loss, rate):
    for group in optimizer.param_groups:
        group["lr"] = rate
    for p in judge.parameters():
        p.grad = None
    loss.backward()
    nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
    optimizer.step()


@torch.no_grad()
def read_by(judge, made, device, rng):
    """Rendered clips as the trunk reads them: [(track [T, POSE], motion)]"""
    judge.eval()
    track = judge.see(roughen(made[0].to(device).float() / 255, rng))["track"].float().cpu()
    judge.train()
    return list(zip(track, made[1]["motion"].tolist()))


def main():
    args = parser(__doc__, lr=2e-3, batch=72, bank=900, fresh=0.05, exam=200, names=0.85, clips=3000, drafts=20000).parse_args()
    torch.manual_seed(args.seed)
    rng, painter = random.Random(args.seed), clip.Painter(args.device)
    judge = Judge().to(args.device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(judge.parameters(), args.lr, weight_decay=0.02)
    run = Run("judge", args, {"model": judge, "optimizer": optimizer})
    rows, read, drafts, due = [], [], [], 0.0
    fall = lambda at, end: min(1.0, 0.02 + 1.96 * (1 - at / end))            # to zero over the second half
    for step in run.steps():
        if run.progress < args.names:
            due += args.batch * (args.fresh if len(rows) >= args.bank // 3 else 1)
            if due >= 8 or not rows:                                         # clips are drawn once and looked at a few times, never alike
                count = max(8, int(due))
                frames, targets, track, seen = sample(painter, rng, count)
                rows += [(frames[i], {k: v[i] for k, v in targets.items()}, track[i], seen[i]) for i in range(count)]
                rows, due = rows[-args.bank:], 0.0
            run.show(**learn_names(judge, optimizer, rows, args.batch, args.lr * fall(run.progress, args.names), args.device, rng))
            continue
        rows = []
        if len(read) < args.clips and step % 4 == 0 or not read:
            read += read_by(judge, sample(painter, rng, 8), args.device, rng)
        if len(drafts) < args.drafts:
            records = [draft(rng, 0.5) for _ in range(64)]
            drafts += zip(*poses(records), targets_of(records)["motion"].tolist())
        run.show(**learn_motions(judge, optimizer, read, drafts, args.lr * fall(run.progress - args.names, 1 - args.names), args.device, rng))
    for what, rich in (("plain", 0.0), ("all kinds", 0.5)):
        right, off, *_ = exam(judge, painter, args.exam, rich)
        print(f"on unseen rendered clips, {what}: " + "  ".join(f"{k} {v:.3f}" for k, v in right.items()) + f"  middle {off:.1f} px off", flush=True)


if __name__ == "__main__":
    main()
