"""The judge: a small network that says what a clip shows. It has seen rendered clips alone, never an autoencoder's or a student's output.

From MOMENTS frames at 8 a second (every second frame of the video) it reads the subject, the place with its time of day, the motion, and in
every frame where the subject is and how large. A frame goes through a convolutional trunk; a learnt heat map says where the subject is, and what is
pooled there names it; positions, sizes and features over time go through convolutions over time, which name the motion. Training pictures
are softened, tinted and made noisy by chance, so that the judge answers to what is shown and not to how crisp it is.

    python judges.py --minutes 12             → judge.pt, and how often it is right on rendered clips that it never saw
"""
import random

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
HEADS = {"subject": SUBJECTS, "place": [f"{p}/{t}" for p, t in VARIANTS], "motion": MOTIONS}


def layer(i, o, stride=2):
    return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())


class Judge(nn.Module):
    def __init__(self, width=96):
        super().__init__()
        self.trunk = nn.Sequential(layer(3, 24), layer(24, 48), layer(48, 64), layer(64, width, 1), layer(width, width, 1))       # [.., 16, 16]
        self.heat, self.box = nn.Conv2d(width, 1, 1), nn.Linear(width, 3)
        self.subject, self.place = nn.Linear(width, len(SUBJECTS)), nn.Linear(width, len(VARIANTS))
        self.time = nn.Sequential(nn.Conv1d(width + 3, 128, 5, padding=2), nn.ReLU(), nn.Conv1d(128, 128, 5, padding=2), nn.ReLU(),
                                  nn.Conv1d(128, 128, 5, padding=2), nn.ReLU())
        self.motion = nn.Linear(256, len(MOTIONS))
        grid = (torch.arange(16) + 0.5) / 8 - 1
        self.register_buffer("grid", torch.stack(torch.meshgrid(grid, grid, indexing="ij")[::-1]).flatten(1), persistent=False)   # x, y [2, 256]

    def forward(self, frames):
        """frames [B, T, 3, H, W] in [0, 1], looked at as 128x128 → subject [B, T, ..], place [B, T, ..], motion [B, ..] logits; track [B, T, 3]: x, y, size of -1 .. 1."""
        B, T = frames.shape[:2]
        if frames.shape[-1] != 128:
            frames = F.interpolate(frames.flatten(0, 1), size=(128, 128), mode="area").unflatten(0, (B, T))
        f = self.trunk(frames.flatten(0, 1).contiguous(memory_format=torch.channels_last) * 2 - 1).float().flatten(2)       # [BT, W, 256]
        where = torch.softmax(self.heat(f.unflatten(2, (16, 16))).flatten(1), -1)                                            # [BT, 256]
        there = (f * where[:, None]).sum(-1)
        rough = (self.grid[None] * where[:, None]).sum(-1)
        fine = self.box(there)
        track = torch.cat([rough + 0.1 * fine[:, :2], fine[:, 2:]], -1).unflatten(0, (B, T))
        seen = torch.cat([there.unflatten(0, (B, T)), track * 4], -1)
        m = self.time(seen.transpose(1, 2))
        return {"subject": self.subject(there).unflatten(0, (B, T)), "place": self.place(f.mean(-1)).unflatten(0, (B, T)),
                "motion": self.motion(torch.cat([m.mean(-1), m.amax(-1)], -1)), "track": track}


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


def sample(painter, rng, count, rich=0.5):
    """count rendered clips → frames uint8 [B, T, 3, H, W], targets, track [B, T, 3], seen [B, T] (the middle is on the screen)."""
    records = [judged(clip.sample(rng, MOMENTS * EVERY // clip.FRAMES, rich, script(rng, rich))) for _ in range(count)]
    for r in records:
        r["control"] = r["control"] * 0
    frames, box = painter.draw(records)
    box = box[:, :, 0] / (clip.PIXELS / 2) - 1                                   # [B, T, 4]
    track = torch.stack([(box[..., 0] + box[..., 2]) / 2, (box[..., 1] + box[..., 3]) / 2, (box[..., 2] - box[..., 0]) / 2], -1)
    targets = {k: torch.tensor([truth(r["scenes"][0])[k] for r in records]) for k in HEADS}
    return (frames.clamp(0, 1) * 255).round().byte(), targets, track, (track[..., :2].abs() < 0.95).all(-1)


def roughen(frames, rng):
    """Softer, tinted, noisier, by chance and per clip; frames [B, T, 3, H, W] in [0, 1]."""
    B = len(frames)
    pick = lambda p: (torch.rand(B, 1, 1, 1, 1, device=frames.device) < p).float()
    small = F.interpolate(F.avg_pool2d(frames.flatten(0, 1), 2), scale_factor=2, mode="bilinear", align_corners=False).unflatten(0, (B, -1))
    frames = torch.lerp(frames, small, pick(0.5) * torch.rand(B, 1, 1, 1, 1, device=frames.device))
    frames = frames * (1 + pick(0.5) * 0.1 * torch.randn(B, 1, 3, 1, 1, device=frames.device))
    return (frames + pick(0.5) * 0.04 * torch.randn_like(frames)).clamp(0, 1)


def loss_of(out, targets, track, seen):
    frames = seen.float()
    named = F.cross_entropy(out["subject"].flatten(0, 1), targets["subject"][:, None].expand(seen.shape).flatten(), reduction="none").unflatten(0, seen.shape)
    placed = F.cross_entropy(out["place"].flatten(0, 1), targets["place"][:, None].expand(seen.shape).flatten())
    moved = F.cross_entropy(out["motion"], targets["motion"], label_smoothing=0.05)
    followed = ((out["track"] - track).abs().sum(-1) * frames).sum() / frames.sum()
    return (named * frames).sum() / frames.sum() + placed + moved + 2 * followed


def verdict(out):
    """Logits → indices [B]: what most of the frames say, and the motion."""
    return {"subject": out["subject"].softmax(-1).mean(1).argmax(-1), "place": out["place"].softmax(-1).mean(1).argmax(-1), "motion": out["motion"].argmax(-1)}


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


def exam(judge, painter, clips=200):
    """How often the judge is right on rendered clips that it never saw: {"subject": 0.99, ..}, and the mean error of the middle in pixels."""
    frames, targets, track, seen = sample(painter, random.Random(987654321), clips)
    said = look(judge, frames)
    right = {k: float((said[k] == targets[k]).float().mean()) for k in HEADS}
    off = ((said["track"] - track.cpu())[..., :2].norm(dim=-1) * seen.cpu()).sum() / seen.sum()
    return right, float(off) * clip.SIZE / 2, said, targets


def main():
    args = parser(__doc__, lr=2e-3, batch=12, bank=600, fresh=0.25, exam=200).parse_args()
    torch.manual_seed(args.seed)
    rng, painter = random.Random(args.seed), clip.Painter(args.device)
    judge = Judge().to(args.device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(judge.parameters(), args.lr, weight_decay=0.02)
    run = Run("judge", args, {"model": judge, "optimizer": optimizer})
    rows, due = [], 0.0
    for step in run.steps():
        due += max(args.batch * args.fresh, args.batch * 2 if len(rows) < args.batch * 4 else 0)
        if due >= 8:                                                         # clips are drawn once and looked at a few times, never alike
            made = sample(painter, rng, int(due))
            rows += [(made[0][i], {k: v[i] for k, v in made[1].items()}, made[2][i], made[3][i]) for i in range(int(due))]
            rows, due = rows[-args.bank:], 0.0
        some = rng.sample(rows, min(args.batch, len(rows)))
        stack = lambda pick: torch.stack([pick(r) for r in some]).to(args.device)
        targets = {k: stack(lambda r: r[1][k]) for k in HEADS}
        with autocast(args.device):
            out = judge(roughen(stack(lambda r: r[0]).float() / 255, rng))
        loss = loss_of({k: v.float() for k, v in out.items()}, targets, stack(lambda r: r[2]), stack(lambda r: r[3]))
        for group in optimizer.param_groups:
            group["lr"] = args.lr * run.rate(100, 0.5)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
        optimizer.step()
        run.show(loss=loss.detach(), **{k: (verdict(out)[k] == targets[k]).float().mean() for k in HEADS})
    right, off, *_ = exam(judge, painter, args.exam)
    print("on unseen rendered clips: " + "  ".join(f"{k} {v:.3f}" for k, v in right.items()) + f"  middle {off:.1f} px off", flush=True)


if __name__ == "__main__":
    main()
