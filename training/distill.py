"""Stage 3, the student: first guidance, then few steps, both by distillation with a true clean history (teacher forcing).

Guidance, the first part of the run (--guide): the student's velocity must agree with the teacher's guided one (Meng et al. 2023),
v_null + w (v_words - v_null) + w_c (v - v_words), where words has no controls and null neither words nor controls (two conditions, each with a weight of its
own: InstructPix2Pix, 3.2.1). A plain regression, settled after some hundred steps; from then on guidance costs nothing.
Few steps, the rest: causal discrete consistency distillation (Causal Forcing, stage 2). The guided student, frozen, is the teacher; per chunk a point
sigma_i of a shift-3 grid is drawn, the deployed labels more often; the teacher makes one Euler step sigma_i -> sigma_{i-1}; the student's jump to x0
from sigma_i must agree with the jump of its own average from sigma_{i-1}. The jump is f = x - sigma v, exact at sigma = 0. Afterwards sampling
is: jump, add fresh noise at the next level, jump, ... (1, 2 or 4 jumps). With guidance inside the consistency step instead, as the recipe has it, a short run
ends with a student that is hardly guided: every sweep over the grid carries guidance one point further.
Of four batches --windows * 4 are windows about the subject, of four times as many clips (denoiser.py says why); all are stretches of --short latents.

    python distill.py --minutes 15
"""
import copy
from pathlib import Path

import torch
from torch import nn

import spec
from bank import Bank
from denoiser import CHUNK, WINDOW, Model, drop, is_matrix, mix, shifted, stretch, windows
from export import newest
from muon import Ema, MuonAdam
from precision import autocast
from run import Run, parser


def grid(points, device):
    """sigma_0 = 0 .. sigma_points = 1"""
    return shifted(torch.linspace(0, 1, points + 1, device=device))


def draw(batch, count, points, device):
    """Grid indices 1..points [B, count], half of them at the deployed labels 1000, 900, 750 and 500."""
    sigma = grid(points, device)
    labels = torch.tensor([int((sigma - t / 1000).abs().argmin()) for t in spec.SCHEDULES["4"]], device=device)
    anywhere = torch.randint(1, points + 1, (batch, count), device=device)
    deployed = labels[torch.randint(0, len(labels), (batch, count), device=device)]
    return torch.where(torch.rand(batch, count, device=device) < 0.5, deployed, anywhere)


def loss_of(student, target, teacher, batch, points, guidance, history):
    """guidance: the weights of words and controls, with which the student learns to be guided; with None it learns to jump. → (loss, plain squared error)"""
    z, cells, ids, owner, control, *where = batch
    B, L = z.shape[:2]
    chunk = min(CHUNK, L)
    ids, control = drop(ids, control, caption=0.0)
    if not owner.any():
        ids = ids[:, :1]
    null = torch.zeros_like(ids)
    null[..., 0] = 1
    sigma_grid = grid(points, z.device)
    versions = 2 if history else 1
    i = draw(B, versions * L // chunk, points, z.device).repeat_interleave(chunk, 1)
    now, before = sigma_grid[i], sigma_grid[i - 1]
    noisy, _ = mix(z.repeat(1, versions, 1, 1, 1), now)
    clean = sigma_c = None
    if history:
        sigma_c = torch.rand(B, 1, device=z.device).mul(0.15) * (torch.rand(B, 1, device=z.device) < 0.5) * torch.ones(B, L, device=z.device)
        clean = mix(z, sigma_c)[0]
    wide = lambda s: s[:, :, None, None, None]

    def velocity(model, x, sigma, words, control=control, rows=slice(None)):
        context = model.text(words[rows].flatten(0, 1)).unflatten(0, (len(x[rows]), -1))
        past = (None, None) if clean is None else (clean[rows], sigma_c[rows] * 1000)
        return model.dit.teacher_forcing(past[0], x[rows], past[1], sigma[rows] * 1000, context, owner[rows], control[rows], chunk, WINDOW, *(part[rows] for part in where))

    weight = 1 + 3 * cells.repeat(1, versions, 1, 1)[:, :, None]
    weight = weight / weight.mean()
    with torch.no_grad():
        v = velocity(teacher, noisy, now, ids)
    if guidance is not None:
        with torch.no_grad():
            u, told = velocity(teacher, noisy, now, null, control * 0), control.flatten(1).any(1)
            spoken = v.clone()                                                  # by the words alone: the same where there are no controls
            if told.any():
                spoken[told] = velocity(teacher, noisy, now, ids, control * 0, told)
        aim = u + guidance[0] * (spoken - u) + guidance[1] * (v - spoken)
        error = (velocity(student, noisy, now, ids) - aim) ** 2
        return (error * weight).mean(), error.mean()
    with torch.no_grad():
        nearer = noisy + wide(before - now) * v
        aim = nearer - wide(before) * velocity(target, nearer, before, ids)
    x0 = noisy - wide(now) * velocity(student, noisy, now, ids)
    error = (x0 - aim) ** 2
    c = 0.03
    return (((error + c * c).sqrt() - c) * weight).mean(), error.mean()


class Guided:
    """What the student was when it had learnt guidance: the teacher of the second part. Nothing before."""

    def __init__(self):
        self.values = None

    def state_dict(self):
        return {"values": self.values}

    def load_state_dict(self, state):
        self.values = state["values"]


def main():
    args = parser(__doc__, lr=5e-4, batch=32, latents=10, short=6, windows=0.5, bank=1500, fresh=0.1, points=24, guidance=3.0, control_guidance=3.0, guide=0.4, decay=0.3, teacher="denoiser", rich=1.0, action=0.3).parse_args()
    torch.manual_seed(args.seed)
    teacher = Model().to(args.device)
    teacher.load_state_dict(newest(Path(args.state), [args.teacher])[1]["items"]["ema"]["values"])
    teacher.requires_grad_(False)
    student, target = copy.deepcopy(teacher).requires_grad_(True), copy.deepcopy(teacher)
    optimizer = MuonAdam(list(student.named_parameters()), is_matrix, args.lr, 0.3)
    ema = Ema(student, 0.99)
    guided = Guided()
    run = Run("distill", args, {"student": student, "optimizer": optimizer, "ema": ema, "guided": guided})
    if guided.values is not None:
        teacher.load_state_dict(guided.values)
    short = min(args.short, args.latents)
    count = max(2, args.batch // short)                                         # clips of a step
    bank = Bank(args.state, args.device, args.latents, max(count, args.bank // args.latents), args.seed, args.rich, args.action)
    bank.keep()
    bank.grow(max(0, max(count, bank.size // 2) - len(bank.rows)))
    print(f"--- distill: {short} latents, batches of {count}", flush=True)
    run.restart_clock()
    due = 0.0
    for step in run.steps():
        if guided.values is None and run.progress >= args.guide:
            guided.values = {k: v.clone() for k, v in ema.values.items()}
            teacher.load_state_dict(guided.values)
            print("--- guided; now few steps", flush=True)
        due += count * args.fresh
        if due >= 4:
            bank.grow(int(due), 32)
            due = 0.0
        with torch.no_grad():
            for p, v in target.named_parameters():
                v.copy_(ema.values[p])
        narrow = step % 4 < args.windows * 4                                    # windows about the subject of four times as many clips
        batch = stretch(bank.batch(count * 4 if narrow else count), short)
        with autocast(args.device):
            loss, plain = loss_of(student, target, teacher, windows(batch, 8) if narrow else batch, args.points, (args.guidance, args.control_guidance) if guided.values is None else None, short > CHUNK)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step(run.rate(30, args.decay))
        for p in student.parameters():
            p.grad = None
        ema.update(student)
        run.show(**{("guidance" if guided.values is None else "jump") + (" window" if narrow else ""): plain.detach()})
    bank.save()


if __name__ == "__main__":
    main()
