"""Stage 4, the decoder anew: the latent space stays as it is, and the decoder learns to show what the student makes of it.

Half of a batch are latents of the encoder with a little noise, as in stage 1. The other half are latents as the student leaves them: true ones, noised to
one of the last two levels that are deployed, taken down from there by the student's own Euler steps with a true history. They have lost what the
student loses, and carry its grid of patches; the pictures that they should have been are known. 64x64 windows about the subject, whole frames in the last fifth.
Where a latent leaves open what the picture was, the mean of the possible ones is right for the loss of stage 1, and it has no edges. So the contrast of small
squares counts too (--contrast): how much of an edge is in a square, wherever in it. --keep leaves a share of the decoder as it was.

    python decoder.py --minutes 15                      → decoder.pt, which export.py takes before the decoder of autoencoder.pt
"""
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import spec
from autoencoder import SHAPE, Decoder, loss_of, quality
from bank import Bank
from denoiser import CHUNK, WINDOW, Model, windows
from export import newest
from muon import Ema, MuonAdam
from precision import autocast
from run import Run, parser

LEVELS = [label / 1000 for label in spec.SCHEDULES["4"]]
STRIDE, FRAMES = SHAPE["spatial_stride"], SHAPE["frames_per_latent"]           # pixels of a cell, frames of a latent
SIDE = 8                                                                       # cells of a window


@torch.no_grad()
def imagined(student, batch, start):
    """Latents [B, L, C, h, w] as the student leaves them, from level `start` of LEVELS on."""
    z, _, ids, owner, control = batch
    context = student.text(ids.flatten(0, 1)).unflatten(0, (len(ids), -1))
    x = (1 - LEVELS[start]) * z + LEVELS[start] * torch.randn_like(z)
    for sigma, after in zip(LEVELS[start:], LEVELS[start + 1:] + [0.0]):
        t = torch.full(z.shape[:2], sigma * 1000, device=z.device)
        with autocast(z.device):
            x = x + (after - sigma) * student.dit.teacher_forcing(z, x, t * 0, t, context, owner, control, CHUNK, WINDOW)
    return x


def both_kinds(student, batch, start):
    """The first half as the encoder made them, but for a little noise, the rest as the student leaves them."""
    z, half = batch[0], len(batch[0]) // 2
    noise = torch.rand(half, 1, 1, 1, 1, device=z.device) * 0.12
    return torch.cat([z[:half] + noise * torch.randn_like(z[:half]), imagined(student, [part[half:] for part in batch], start)])


def cut(frames, where):
    """The windows' part of frames [B, T, 3, H, W]; where: see denoiser.windows."""
    token, side = 2 * STRIDE, SIDE * STRIDE
    y, x = (where[:, 0] // spec.TOKENS * token).tolist(), (where[:, 0] % spec.TOKENS * token).tolist()
    return torch.stack([f[..., b:b + side, a:a + side] for f, a, b in zip(frames, x, y)])


def weights(cells):
    """Loss weights [B, T, 1, H, W] of cells [B, L, h, w]: 1, in the subject's 4, mean 1."""
    w = 1 + 3 * cells.repeat_interleave(STRIDE, 2).repeat_interleave(STRIDE, 3).repeat_interleave(FRAMES, 1)[:, :, None]
    return w / w.mean()


def contrast(frames, side=4):
    """Root mean square of the differences of neighbours [B, T, 3, H / side, W / side] in squares of `side` pixels, across and down."""
    square = lambda d: F.avg_pool2d(F.pad(d, (0, frames.shape[-1] - d.shape[-1], 0, frames.shape[-2] - d.shape[-2])).pow(2).flatten(0, 1), side)
    return (square(frames.diff(dim=-1)) + square(frames.diff(dim=-2)) + 1e-5).sqrt().unflatten(0, frames.shape[:2])


def contrast_loss(out, frames, weight, side=4):
    error = (contrast(out, side) - contrast(frames, side)).abs()
    return (error * F.avg_pool2d(weight.flatten(0, 1), side).unflatten(0, weight.shape[:2])).mean()


def main():
    args = parser(__doc__, lr=1e-3, batch=16, latents=4, bank=300, fresh=0.15, rich=0.3, action=0.3, full=0.2, exam=16, contrast=2.0, keep=0.5).parse_args()
    torch.manual_seed(args.seed)
    folder = Path(args.state)
    student, decoder = Model().to(args.device), Decoder().to(args.device).to(memory_format=torch.channels_last)
    name, state = newest(folder, ["distill", "denoiser"])
    if state is not None:
        student.load_state_dict(state["items"]["ema"]["values"])
    student.eval().requires_grad_(False)
    decoder.eval()                                                              # the statistics of BatchNorm stay as they are: a small step from a finished network
    values = newest(folder, ["autoencoder"])[1]["items"]["ema"]["values"]
    decoder.load_state_dict({k[len("decoder."):]: v for k, v in values.items() if k.startswith("decoder.")})
    whole_model = nn.ModuleDict({"decoder": decoder})                           # the names that export.py knows
    optimizer, ema = MuonAdam(list(decoder.named_parameters()), lambda n, p: p.dim() == 4 and "conv_out" not in n, args.lr), Ema(whole_model, 0.99)
    run = Run("decoder", args, {"model": whole_model, "optimizer": optimizer, "ema": ema})
    bank = Bank(args.state, args.device, args.latents, args.bank, args.seed, args.rich, args.action, frames=True)
    exam_bank = Bank(args.state, args.device, args.latents, args.exam, 12345, args.rich, args.action, frames=True)
    mean, std = bank.mean[:, None, None].to(args.device), bank.std[:, None, None].to(args.device)

    def show(z):
        with autocast(args.device):
            return decoder(z * std + mean)

    exam_bank.grow(args.exam)
    *exam, truth = exam_bank.batch(args.exam)
    made = imagined(student, exam, 2)

    @torch.no_grad()
    def report(word):
        of = lambda z: "psnr %.2f  box %.2f  sharpness %.3f" % quality(show(z), truth, weights(exam[1]))
        print(f"{word} true: {of(exam[0])}   as {name} leaves them: {of(made)}", flush=True)

    report("before ")
    bank.grow(max(args.batch, args.bank // 2))
    run.restart_clock()
    checked, due = run.seconds, 0.0
    for step in run.steps():
        whole = run.progress > 1 - args.full
        due += args.batch * args.fresh / (4 if whole else 1)
        if due >= 8:
            bank.grow(int(due))
            due = 0.0
        *batch, frames = bank.batch(max(4, args.batch // 4) if whole else args.batch)
        z, cells = both_kinds(student, batch, 2 + step % 2), batch[1]
        if not whole:
            z, cells, where = windows((z, cells), SIDE)
            frames = cut(frames, where)
        out, weight = show(z), weights(cells)
        loss, pixel = loss_of(out, frames, weight)
        shape = contrast_loss(out, frames, weight)
        (loss + args.contrast * shape).backward()
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step(run.rate(30))
        for p in decoder.parameters():
            p.grad = None
        ema.update(whole_model)
        run.show(loss=loss.detach(), pixel=pixel.detach(), contrast=shape.detach())
        if run.seconds - checked > 240:
            checked = run.seconds
            report("      ")
            run.restart_clock()
    if run.progress == 1:
        for key, value in ema.values.items():
            value.lerp_(values[key].to(value), args.keep)
        run.save()
    decoder.load_state_dict({k[len("decoder."):]: v for k, v in ema.values.items()})
    report("at last")


if __name__ == "__main__":
    main()
