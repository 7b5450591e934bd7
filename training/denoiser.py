"""Stage 2, the teacher: flow matching on latents, cheap things first.

x_t = (1 - sigma) x0 + sigma n, target v = n - x0, sigma logit-normal and shifted by 3 (SD3; small grids want noise). The curriculum follows the training clock:
  pictures  single latents of random moments, 64 tokens: subjects, places, colours. Three batches of four are windows of 4x4 tokens about the
            subject instead, four times as many: attention knows distances alone, so a window is a small picture, and the subject is what is hard
  chunks    two latents at one noise level, no history: motion inside a chunk; windows as before
  history   [clean chunks | noisy chunks | noisy chunks] of --latents latents, block-causal with the window of the stream: teacher forcing (Self-Forcing,
            CausVid). Clean chunks get noise sigma_c ~ U(0, 0.15) half of the time and say so; more than the window, so that eviction is part of training.
            Of four batches two are short stretches in windows, many times as many clips: how things move and answer to controls is learnt from those.
            Half of the noise levels are those that are deployed: where the picture goes is decided above 0.9, which a logit-normal hardly draws. The share
            --action of the clips is steered, since history can be continued without a look at the controls in all others.
The loss weighs the cells of the subject four times, eight times with history. Captions, words and controls are dropped at times, for guidance and for unknown words.

    python denoiser.py --minutes 60 --pictures 0.5 --chunks 0.15
"""
import torch
from torch import nn

import spec
from bank import Bank
from model import DiT, TextEncoder
from muon import Ema, MuonAdam
from precision import autocast
from run import Run, parser

CHUNK, WINDOW = spec.STREAM["latents_per_chunk"], spec.STREAM["window_latents"]


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.text, self.dit = TextEncoder(spec.TEXT), DiT(spec.DIT)


def is_matrix(name, p):
    return p.dim() == 2 and ".blocks." in name and "embedding" not in name


def shifted(u, shift=3.0):
    return shift * u / (1 + (shift - 1) * u)


def levels(batch, count, device):
    """Noise levels [B, count]: logit-normal(0, 1), then shift 3."""
    return shifted(torch.sigmoid(torch.randn(batch, count, device=device)))


def drop(ids, control, caption=0.1, word=0.03, action=0.2):
    """Caption → lone </s>, words → <unk>, actions → none; per clip, except the words."""
    B = len(ids)
    gone = torch.rand(ids.shape, device=ids.device) < word
    ids = torch.where(gone & (ids > 2), torch.full_like(ids, 2), ids)
    null = torch.zeros_like(ids)
    null[..., 0] = 1
    ids = torch.where(torch.rand(B, 1, 1, device=ids.device) < caption, null, ids)
    return ids, control * (torch.rand(B, 1, 1, device=ids.device) >= action)


def mix(z, sigma):
    """Noisy latents and their target; sigma [B, L]."""
    n, s = torch.randn_like(z), sigma[:, :, None, None, None]
    return (1 - s) * z + s * n, n - z


def windows(batch, side, rng=torch):
    """A window of side x side cells of every clip, near the subject if there is one, at a token's corner: z and cells become [.., side, side].
    The tokens of the screen that it shows [B, side / 2 * side / 2] come last."""
    z, cells, *rest = batch
    B, _, _, h, w = z.shape
    seen = cells.sum(1)                                                                 # [B, h, w]
    total = seen.sum((1, 2)).clamp(min=1e-6)
    index = []
    for length, across in ((h, seen.sum(2)), (w, seen.sum(1))):                         # rows, then columns
        middle = (across * torch.arange(length, device=z.device)).sum(1) / total + 0.5
        middle = torch.where(total > 0.5, middle, rng.rand(B, device=z.device) * length)
        corner = (middle - side / 2 + (rng.rand(B, device=z.device) - 0.5) * side * 0.7) / 2
        corner = corner.round().clamp(0, (length - side) // 2).long() * 2
        index.append(corner[:, None] + torch.arange(side, device=z.device))             # [B, side]
    b, y, x = torch.arange(B, device=z.device)[:, None, None], index[0][:, :, None], index[1][:, None, :]
    z = z.permute(0, 3, 4, 1, 2)[b, y, x].permute(0, 3, 4, 1, 2)
    across = cells.shape[-1] // 2
    where = (index[0][:, ::2, None] // 2 * across + index[1][:, None, ::2] // 2).flatten(1)
    return (z, cells.permute(0, 2, 3, 1)[b, y, x].permute(0, 3, 1, 2), *rest, where)


def stretch(batch, latents):
    """The same stretch of every clip, at a chunk boundary."""
    z, cells, ids, owner, control = batch
    a = int(torch.randint(0, (z.shape[1] - latents) // CHUNK + 1, (1,))) * CHUNK
    part = slice(a, a + latents)
    return z[:, part], cells[:, part], ids, owner[:, part], control[:, part]


def examination(args, latents, count=64):
    """A batch of clips that is the same in every run."""
    count = count * CHUNK // latents
    bank = Bank(args.state, args.device, latents, count, 4711, args.rich, args.action)
    bank.grow(count)
    return bank.batch(count)


@torch.no_grad()
def validate(model, values, batch):
    """Velocity loss of the averaged weights in the subject's cells and elsewhere at three noise levels; of more latents than a chunk with history, and then
    in the subject's cells without the controls too, at the first level: how much the network listens to them."""
    training = {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict({k: v.to(training[k].dtype) for k, v in values.items()})
    z, cells, ids, owner, control = batch
    inside, out = cells[:, :, None].expand_as(z), []
    clean, chunk = (z, CHUNK) if z.shape[1] > CHUNK else (None, z.shape[1])
    for sigma, told in [(0.9, 1), (0.75, 1), (0.5, 1)] + ([] if clean is None else [(0.9, 0)]):
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(3)).to(z.device)
        context = model.text(ids.flatten(0, 1)).unflatten(0, (len(ids), -1))
        t = torch.full(z.shape[:2], sigma, device=z.device)
        with autocast(z.device):
            v = model.dit.teacher_forcing(clean, (1 - sigma) * z + sigma * noise, t * 0, t * 1000, context, owner, control * told, chunk, WINDOW)
        error = (v - (noise - z)) ** 2
        out.append(("" if told else "no controls ") + "%.3f/%.3f" % (float((error * inside).sum() / inside.sum()), float((error * (1 - inside)).sum() / (1 - inside).sum())))
    model.load_state_dict(training)
    return "  ".join(out)


def deployed(sigma):
    """Half of the noise levels [B, N] become one of those that the stream is sampled at."""
    labels = torch.tensor(spec.SCHEDULES["4"], device=sigma.device) / 1000
    return torch.where(torch.rand_like(sigma) < 0.5, labels[torch.randint(0, len(labels), sigma.shape, device=sigma.device)], sigma)


def loss_of(model, batch, history):
    z, cells, ids, owner, control, *where = batch
    B, L = z.shape[:2]
    ids, control = drop(ids, control)
    if not owner.any():
        ids = ids[:, :1]
    context = model.text(ids.flatten(0, 1)).unflatten(0, (B, -1))                       # [B, U, text_len, text_dim]
    chunk = min(CHUNK, L)
    clean = sigma_c = None
    versions = 2 if history else 1
    sigma = levels(B, versions * L // chunk, z.device)
    if history:
        sigma = deployed(sigma)
        sigma_c = torch.rand(B, 1, device=z.device).mul(0.15) * (torch.rand(B, 1, device=z.device) < 0.5) * torch.ones(B, L, device=z.device)
        clean = mix(z, sigma_c)[0]
    sigma = sigma.repeat_interleave(chunk, 1)
    noisy, target = mix(z.repeat(1, versions, 1, 1, 1), sigma)
    v = model.dit.teacher_forcing(clean, noisy, None if clean is None else sigma_c * 1000, sigma * 1000, context, owner, control, chunk, WINDOW, *where)
    weight = 1 + (7 if history else 3) * cells.repeat(1, versions, 1, 1)[:, :, None]
    error = (v - target) ** 2
    return (error * weight / weight.mean()).mean(), error.mean()


def main():
    args = parser(__doc__, lr=5e-3, batch=48, pictures=0.5, chunks=0.15, bank=3000, fresh=0.15, decay=0.3, rich=1.0, latents=12, windows=0.75, action=0.5).parse_args()
    torch.manual_seed(args.seed)
    model = Model().to(args.device)
    optimizer, ema = MuonAdam(list(model.named_parameters()), is_matrix, args.lr, 0.3), Ema(model, 0.995)
    run = Run("denoiser", args, {"model": model, "optimizer": optimizer, "ema": ema})
    bank, stage, due, checked, exam = None, None, 0.0, run.seconds, None
    for step in run.steps():
        now = "pictures" if run.progress < args.pictures else "chunks" if run.progress < args.pictures + args.chunks else "history"
        if now != stage:
            stage, latents = now, {"pictures": 1, "chunks": CHUNK, "history": args.latents}[now]
            count = max(2, args.batch // {"pictures": 1, "chunks": 2, "history": 12}[now])
            size = max(count, args.bank // {"pictures": 1, "chunks": 2, "history": 8}[now])
            bank = Bank(args.state, args.device, latents, size, args.seed + step, args.rich, args.action if now == "history" else 0.3 * args.rich)
            if stage == "history":
                bank.keep()
            bank.grow(max(0, max(count, size // 3) - len(bank.rows)))
            print(f"--- {stage}: {latents} latents, batches of {count}, bank of {size}", flush=True)
            exam = None
            run.restart_clock()
        narrow = step % 4 < args.windows * (2 if stage == "history" else 4)
        due += count * args.fresh
        if due >= 8:
            bank.grow(int(due), 32)
            due = 0.0
        if narrow and stage == "history":                                   # as many tokens: short stretches of many clips, where things stay in the window
            short = min(3 * CHUNK, latents)
            batch = windows(stretch(bank.batch(count * 4 * latents // short), short), 8)
        else:
            batch = windows(bank.batch(count * 4), 8) if narrow else bank.batch(count)
        with autocast(args.device):
            loss, plain = loss_of(model, batch, stage == "history")
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(run.rate(100 if run.first == 0 else 20, args.decay))
        for p in model.parameters():
            p.grad = None
        if step % 2 == 0:
            ema.update(model)
        run.show(**{"window" if narrow else "whole": plain.detach()})
        if run.seconds - checked > 300:
            checked = run.seconds
            exam = exam or examination(args, max(CHUNK, latents))
            print("       subject/rest at 0.9, 0.75, 0.5:  " + validate(model, ema.values, exam), flush=True)
            bank.save()
            run.restart_clock()
    if bank is not None:
        bank.save()


if __name__ == "__main__":
    main()
