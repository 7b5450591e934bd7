"""Stage 1, the autoencoder: four frames of 128x128 become one latent of 24 channels on 16x16, and back.

The decoder is the `group-decoder` of docs/model-format.md: residual blocks that also see their own input one frame earlier (MemBlock of
TAEHV), so that a stream decodes latent by latent with one feature map of memory per block. BatchNorm follows every convolution in training
and is folded on export. The encoder sees its four frames alone and is thrown away after training.

Loss: squared error + Charbonnier, heavier inside the subject's box, then (from a tenth of the run on) + spatial gradient difference + temporal
difference. Measured: with the gradient difference from the start the network stays at a constant picture (16 dB after 400 steps instead of
17 dB after 60); a linear path beside the encoder (768 pixels of a cell straight to its latent) is worth another 2 dB early on. The latent is normalised by an affine-free
BatchNorm (unit scale without a KL term) and gets noise sigma ~ U(0, 0.12) before it is decoded: the denoiser will not be perfect.
Cost per latent at 128x128: encoder 0.87 GMAC, decoder 1.63 GMAC.

    python autoencoder.py --minutes 40                  64x64 crops around the subject, then whole frames for the last fifth
"""
import random

import torch
import torch.nn.functional as F
from torch import nn

from muon import Ema, MuonAdam
from precision import autocast
from run import Run, parser
from world import clip

SHAPE = {"latent_channels": 24, "spatial_stride": 8, "frames_per_latent": 4, "widths": [128, 64, 32], "blocks": [2, 2, 1], "grow": [2, 2]}
LIMIT = 3.5


def conv(i, o, k=3):
    """Convolution + BatchNorm, folded into one convolution on export."""
    return nn.Sequential(nn.Conv2d(i, o, k, padding=k // 2, bias=False), nn.BatchNorm2d(o, momentum=0.02))


class Block(nn.Module):
    """A residual block; with memory it also reads its input one frame earlier."""

    def __init__(self, width, memory):
        super().__init__()
        self.memory = memory
        self.conv0, self.conv2, self.conv4 = conv(width * (2 if memory else 1), width), conv(width, width), conv(width, width)
        nn.init.constant_(self.conv4[1].weight, 0.3)

    def forward(self, x, clips):
        """x [clips * T, C, H, W], frames of a clip in order."""
        y = x
        if self.memory:
            t = x.unflatten(0, (clips, -1))
            past = torch.cat([torch.zeros_like(t[:, :1]), t[:, :-1]], 1).flatten(0, 1)
            y = torch.cat([x, past], 1).contiguous(memory_format=torch.channels_last)
        return F.relu(self.conv4(F.relu(self.conv2(F.relu(self.conv0(y))))) + x)


class Level(nn.Module):
    def __init__(self, width, blocks, up):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, True) for _ in range(blocks))
        self.up = conv(width, up, 1) if up else None


class Decoder(nn.Module):
    """Latents [B, L, C, h, w] → frames [B, 4 L, 3, 8 h, 8 w] (not clamped)."""

    def __init__(self, shape=SHAPE):
        super().__init__()
        widths, grow = shape["widths"], shape["grow"]
        ups = [grow[l] * 4 * widths[l + 1] for l in range(len(grow))] + [0]
        self.grow = grow
        self.conv_in = conv(shape["latent_channels"], widths[0])
        self.levels = nn.ModuleList(Level(w, n, up) for w, n, up in zip(widths, shape["blocks"], ups))
        self.conv_out = nn.Conv2d(widths[-1], 12, 3, padding=1)
        nn.init.constant_(self.conv_out.bias, 0.5)

    def forward(self, z):
        B = z.shape[0]
        x = F.relu(self.conv_in(z.flatten(0, 1).contiguous(memory_format=torch.channels_last)))
        for l, level in enumerate(self.levels):
            for block in level.blocks:
                x = block(x, B)
            if level.up is not None:
                x = F.relu(level.up(x))
                x = x.unflatten(1, (self.grow[l], -1)).flatten(0, 1)         # frames outermost in the channels
                x = F.pixel_shuffle(x, 2).contiguous(memory_format=torch.channels_last)
        return F.pixel_shuffle(self.conv_out(x).float(), 2).unflatten(0, (B, -1))


class Plain(nn.Module):
    """Encoder block: two convolutions."""

    def __init__(self, width):
        super().__init__()
        self.conv0, self.conv2 = conv(width, width), conv(width, width)

    def forward(self, x):
        return F.relu(self.conv2(F.relu(self.conv0(x))) + x)


class Encoder(nn.Module):
    """Frames [B, 4 L, 3, H, W] → latents [B, L, C, H/8, W/8] of about unit scale. Each group of four frames is encoded alone."""

    def __init__(self, channels=24):
        super().__init__()
        self.stem, self.at64 = conv(12, 32), Plain(32)
        self.down1, self.at32 = conv(256, 64, 1), nn.Sequential(Plain(64), Plain(64))
        self.down2, self.at16 = conv(512, 128, 1), nn.Sequential(Plain(128), Plain(128))
        self.head = nn.Conv2d(128, channels, 3, padding=1)
        self.linear = nn.Conv2d(768, channels, 1)
        self.unit = nn.BatchNorm2d(channels, affine=False, momentum=0.02)

    def forward(self, frames):
        B = frames.shape[0]
        last = dict(memory_format=torch.channels_last)
        frames = frames.flatten(0, 1) * 2 - 1                                # [B * 4 L, 3, H, W]
        cell = F.pixel_unshuffle(frames, 8).unflatten(0, (-1, 4)).flatten(1, 2)
        x = F.pixel_unshuffle(frames, 2).contiguous(**last)
        x = self.at64(F.relu(self.stem(x)))
        for down, body in ((self.down1, self.at32), (self.down2, self.at16)):
            x = F.pixel_unshuffle(x, 2).unflatten(0, (-1, 2)).flatten(1, 2)  # two frames and 2x2 pixels into channels
            x = body(F.relu(down(x.contiguous(**last))))
        z = self.unit((self.head(x) + self.linear(cell)).float()).unflatten(0, (B, -1))
        return z if self.training else z.clamp(-LIMIT, LIMIT)                # rare outliers, which the picture does not miss but a denoiser would


def weight_map(box, origin, side):
    """Loss weights [B, T, 1, side, side]: 1 outside the subject's box, 4 inside, mean 1."""
    ramp = torch.arange(side, device=box.device) + 0.5
    b = box[..., None] - torch.stack([origin[:, :1], origin[:, 1:]] * 2, -1).reshape(-1, 1, 1, 4, 1).to(box)
    inside = ((b[..., 1, :] < ramp) & (ramp < b[..., 3, :]))[..., :, None] & ((b[..., 0, :] < ramp) & (ramp < b[..., 2, :]))[..., None, :]
    w = 1 + 3 * inside.any(2).float()[:, :, None]
    return w / w.mean()


def loss_of(out, frames, weight, edges=1.0):
    """Weighted loss; `edges` is the share of the difference terms."""
    d = out - frames
    pixel = ((d * d + 1e-6).sqrt() * weight).mean() + 10 * (d * d * weight).mean()
    gradient = (d.diff(dim=-1).abs() * weight[..., 1:]).mean() + (d.diff(dim=-2).abs() * weight[..., 1:, :]).mean()
    time = (d.diff(dim=1).abs() * weight[:, 1:]).mean()
    return pixel + edges * (0.4 * gradient + 0.2 * time), pixel


def sample(painter, rng, count, latents, crop):
    """Random clips → frames, weights. Three of four crops hold the subject's middle."""
    records = [clip.sample(rng, latents) for _ in range(count)]
    limit = clip.PIXELS - (crop or clip.PIXELS)
    origin = torch.tensor([[rng.randint(0, limit), rng.randint(0, limit)] for _ in records])
    for i, r in enumerate(records):
        if crop and rng.random() < 0.75:
            for a in range(2):
                origin[i, a] = int(min(limit, max(0, r["body"][0, latents * 2, a] * clip.DENSITY - crop / 2 + rng.uniform(-16, 16))))
    frames, box = painter.draw(records, crop, origin)
    return frames, weight_map(box, origin.to(box.device), crop or clip.PIXELS)


def quality(out, frames, weight):
    """PSNR of whole frames [B, T, 3, H, W] and where the weight [B, T, 1, H, W] is that of the subject, and the gradient energy against the truth."""
    out = out.clamp(0, 1)
    e, inside = (out - frames) ** 2, (weight > weight.mean(dim=(2, 3, 4), keepdim=True)).float().expand_as(frames)
    psnr = lambda mse: float(-10 * torch.log10(mse))
    sharp = out.diff(dim=-1).abs().mean() / frames.diff(dim=-1).abs().mean()
    return psnr(e.mean()), psnr((e * inside).sum() / inside.sum()), float(sharp)


@torch.no_grad()
def validate(painter, encoder, decoder, device, clips=16):
    """The quality of fixed unseen clips."""
    encoder.eval(), decoder.eval()
    frames, weight = sample(painter, random.Random(12345), clips, 4, None)
    with autocast(device):
        out = decoder(encoder(frames))
    encoder.train(), decoder.train()
    return quality(out, frames, weight)


@torch.no_grad()
def calibrate(both, values, painter, device, batches=8, clips=24):
    """Averaged weights with BatchNorm statistics measured anew, on whole frames and many clips at once (the small batches of training differ from
    the population, and averaged statistics do not belong to averaged weights). Returns the state."""
    net = nn.ModuleDict({"encoder": Encoder(SHAPE["latent_channels"]), "decoder": Decoder()}).to(device).to(memory_format=torch.channels_last)
    net.load_state_dict(values)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.reset_running_stats()
            m.momentum = None                                                # None: plain average over the batches
    rng = random.Random(99)
    for _ in range(batches):
        frames, _ = sample(painter, rng, clips, 2, None)
        with autocast(device):
            net["decoder"](net["encoder"](frames))
    return {k: v.clone() for k, v in net.state_dict().items()}


def main():
    args = parser(__doc__, lr=5e-3, batch=24, compile=0, full=0.2).parse_args()
    torch.manual_seed(args.seed)
    rng, painter = random.Random(args.seed), clip.Painter(args.device)
    encoder, decoder = Encoder(SHAPE["latent_channels"]).to(args.device), Decoder().to(args.device)
    both = nn.ModuleDict({"encoder": encoder, "decoder": decoder}).to(memory_format=torch.channels_last)
    named = list(both.named_parameters())
    matrix = lambda n, p: p.dim() == 4 and not any(k in n for k in ("conv_out", "stem", "linear"))
    optimizer, ema = MuonAdam(named, matrix, args.lr), Ema(both, 0.998)
    run = Run("autoencoder", args, {"model": both, "optimizer": optimizer, "ema": ema})
    encode, decode = (torch.compile(encoder), torch.compile(decoder)) if args.compile else (encoder, decoder)
    checked = run.seconds
    for step in run.steps():
        whole = run.progress > 1 - args.full
        frames, weight = sample(painter, rng, max(2, args.batch // 4) if whole else args.batch, 2, None if whole else 64)
        with autocast(args.device):
            z = encode(frames)
            noise = torch.rand(len(z), 1, 1, 1, 1, device=z.device) * 0.12
            out = decode(z + noise * torch.randn_like(z))
        loss, pixel = loss_of(out, frames, weight, min(1.0, max(0.0, run.progress * 10 - 1)))
        loss = loss + 1e-3 * F.relu(z.abs() - 3).mean()
        loss.backward()
        nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
        optimizer.step(run.rate(100))
        for p in both.parameters():
            p.grad = None
        if step % 4 == 0:
            ema.update(both)
        run.show(loss=loss.detach(), pixel=pixel.detach())
        if run.seconds - checked > 240:
            checked = run.seconds
            print("       psnr %.2f  box %.2f  sharpness %.3f" % validate(painter, encoder, decoder, args.device), flush=True)
    if run.progress == 1:                                                    # the stage is complete: what the others load is calibrated
        values = calibrate(both, ema.values, painter, args.device, 8 if args.steps > 10 else 1, 24 if args.steps > 10 else 2)
        ema.values = {k: v.float() for k, v in values.items()}
        run.save()
        both.load_state_dict(ema.values)
        print("calibrated: psnr %.2f  box %.2f  sharpness %.3f" % validate(painter, encoder, decoder, args.device), flush=True)


if __name__ == "__main__":
    main()
