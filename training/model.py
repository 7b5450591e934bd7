"""The small Wan: umT5 text encoder and chunk-causal DiT, with the state-dict names and the arithmetic of the originals.

docs/model-format.md is the contract; test_golden.py proves the arithmetic against tensors of the original implementations. One set of blocks
serves three callers, which differ only in who attends to whom:
  DiT.forward           one chunk with a cache of past keys and values (inference, and bidirectional clips when there is no cache)
  DiT.teacher_forcing   [clean chunks | noisy chunks] in one pass, every noisy chunk sees the clean chunks of its window (CausVid, Self-Forcing)

Letters: B clips, N chunks, F latent frames, S tokens of a frame, T = F S tokens, H heads, D channels of a head, C width, U captions of a clip.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn


# ---------------------------------------------------------------------------------------------------------------- text encoder

class RMSNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x):
        scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)
        return x * scale.to(x.dtype) * self.weight.to(x.dtype)


def buckets(length, num_buckets, max_dist):
    """Relative-position bucket of every (query, key) pair [length, length] (T5, bidirectional)."""
    rel = torch.arange(length)[None, :] - torch.arange(length)[:, None]
    half, n = num_buckets // 2, rel.abs()
    exact = half // 2
    far = exact + (torch.log(n.clamp(min=1).float() / exact) / math.log(max_dist / exact) * (half - exact)).long()
    return (rel > 0).long() * half + torch.where(n < exact, n, far.clamp(max=half - 1))


class TextAttention(nn.Module):
    def __init__(self, dim, dim_attn, heads):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(dim, dim_attn, bias=False) for _ in range(3))
        self.o = nn.Linear(dim_attn, dim, bias=False)
        nn.init.normal_(self.q.weight, std=(dim * dim_attn / heads) ** -0.5)

    def forward(self, x, bias):
        """x [B, L, C], bias [B, H, L, L] of relative positions and padding. No 1/sqrt(D)."""
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        p = torch.softmax((q @ k.transpose(-1, -2)).float() + bias, -1).to(v.dtype)
        return self.o((p @ v).transpose(1, 2).flatten(2))


class TextFeedForward(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(dim, hidden, bias=False))
        self.fc1, self.fc2 = nn.Linear(dim, hidden, bias=False), nn.Linear(hidden, dim, bias=False)

    def forward(self, x):
        return self.fc2(self.fc1(x) * F.gelu(self.gate(x), approximate="tanh"))


class Position(nn.Module):
    def __init__(self, num_buckets, heads):
        super().__init__()
        self.embedding = nn.Embedding(num_buckets, heads)
        nn.init.normal_(self.embedding.weight, std=0.1)


class TextBlock(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(s["dim"], s["eps"]), RMSNorm(s["dim"], s["eps"])
        self.attn = TextAttention(s["dim"], s["dim_attn"], s["num_heads"])
        self.ffn = TextFeedForward(s["dim"], s["dim_ffn"])
        self.pos_embedding = Position(s["num_buckets"], s["num_heads"])

    def forward(self, x, bucket, blocked):
        bias = self.pos_embedding.embedding(bucket).permute(2, 0, 1)[None] + blocked
        x = x + self.attn(self.norm1(x), bias)
        return x + self.ffn(self.norm2(x))


class TextEncoder(nn.Module):
    """ids [B, L] → context [B, L, C], rows of padding zero."""

    def __init__(self, spec):
        super().__init__()
        self.spec = spec
        self.token_embedding = nn.Embedding(spec["vocab_size"], spec["dim"])
        self.blocks = nn.ModuleList(TextBlock(spec) for _ in range(spec["num_layers"]))
        self.norm = RMSNorm(spec["dim"], spec["eps"])

    def forward(self, ids, mask=None):
        mask = ids.ne(0) if mask is None else mask.bool()
        bucket = buckets(ids.shape[1], self.spec["num_buckets"], self.spec["max_dist"]).to(ids.device)
        blocked = torch.zeros(mask.shape, device=ids.device).masked_fill(~mask, torch.finfo(torch.float32).min)[:, None, None]
        x = self.token_embedding(ids)
        for block in self.blocks:
            x = block(x, bucket, blocked)
        return self.norm(x) * mask[..., None]


# ------------------------------------------------------------------------------------------------------------------- denoiser

def sinusoid(t, dim):
    """Timesteps t (0..1000) → [..., dim], cosines first, computed in float64."""
    a = t.double()[..., None] * 10000 ** (-torch.arange(dim // 2, dtype=torch.float64, device=t.device) / (dim // 2))
    return torch.cat([a.cos(), a.sin()], -1).float()


def rope_table(frames, height, width, head_dim, theta, device):
    """cos, sin [F * h * w, D / 2] of 3-D positions; `frames` is a list of frame indices. Axis dimensions t, h, w as in Wan."""
    d_hw = 2 * (head_dim // 6)
    angles = []
    axes = torch.meshgrid(torch.as_tensor(frames), torch.arange(height), torch.arange(width), indexing="ij")
    for position, d in zip(axes, (head_dim - 2 * d_hw, d_hw, d_hw)):
        angles.append(position.reshape(-1, 1).double() * theta ** (-torch.arange(0, d, 2, dtype=torch.float64) / d))
    a = torch.cat(angles, -1)
    return a.cos().float().to(device), a.sin().float().to(device)


def rope(x, cos, sin):
    """x [B, T, H, D], interleaved pairs."""
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[:, None].to(x.dtype), sin[:, None].to(x.dtype)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)


def attention(q, k, v):
    """[B, T, H, D] x [B, T', H, D] → [B, T, C]"""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if q.is_cuda and hasattr(F, "scaled_dot_product_attention"):
        out = F.scaled_dot_product_attention(q, k, v)
    else:                                                                    # three times as fast on a CPU at these lengths, and PyTorch 1.13
        out = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2), -1) @ v
    return out.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    def __init__(self, dim, heads, eps):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(dim, eps), RMSNorm(dim, eps)
        nn.init.zeros_(self.o.weight), nn.init.zeros_(self.o.bias)

    def qkv(self, x, context):
        q, k, v = self.norm_q(self.q(x)), self.norm_k(self.k(context)), self.v(context)
        return tuple(t.to(v.dtype).unflatten(-1, (self.heads, -1)) for t in (q, k, v))                        # [.., T, H, D] each


class Block(nn.Module):
    def __init__(self, s):
        super().__init__()
        dim, self.eps = s["dim"], s["eps"]
        self.self_attn, self.cross_attn = Attention(dim, s["num_heads"], s["eps"]), Attention(dim, s["num_heads"], s["eps"])
        self.norm3 = nn.LayerNorm(dim, eps=s["eps"])
        self.ffn = nn.Sequential(nn.Linear(dim, s["ffn_dim"]), nn.GELU(approximate="tanh"), nn.Linear(s["ffn_dim"], dim))
        self.modulation = nn.Parameter(torch.zeros(1, 6, dim))
        with torch.no_grad():
            self.modulation[:, 2] = self.modulation[:, 5] = 1.0              # open gates; the outputs start at zero instead
        nn.init.zeros_(self.ffn[2].weight), nn.init.zeros_(self.ffn[2].bias)

    def forward(self, x, e0, attend, cross):
        """x [B, F, S, C]; e0 [B, F, 6, C]; attend(q, k, v) and cross(module, z) say who sees whom."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation + e0).to(x.dtype)[:, :, :, None].unbind(2)   # [B, F, 1, C] each
        norm = lambda y: F.layer_norm(y, y.shape[-1:], eps=self.eps).to(x.dtype)
        h = norm(x) * (1 + scale1) + shift1
        y = attend(*self.self_attn.qkv(h.flatten(1, 2), h.flatten(1, 2)))
        x = x + self.self_attn.o(y).unflatten(1, x.shape[1:3]) * gate1
        x = x + cross(self.cross_attn, self.norm3(x.float()).to(x.dtype))
        h = norm(x) * (1 + scale2) + shift2
        return x + self.ffn(h) * gate2


class Head(nn.Module):
    def __init__(self, dim, out, eps):
        super().__init__()
        self.head, self.eps = nn.Linear(dim, out), eps
        self.modulation = nn.Parameter(torch.zeros(1, 2, dim))
        nn.init.zeros_(self.head.weight), nn.init.zeros_(self.head.bias)

    def forward(self, x, e):
        x = x.float()
        shift, scale = (self.modulation + e[:, :, None])[:, :, :, None].unbind(2)
        return self.head(F.layer_norm(x, x.shape[-1:], eps=self.eps) * (1 + scale) + shift)


class DiT(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.spec = spec
        dim, patch = spec["dim"], tuple(spec["patch_size"])
        self.patch_embedding = nn.Conv3d(spec["in_dim"], dim, patch, patch)
        self.text_embedding = nn.Sequential(nn.Linear(spec["text_dim"], dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim))
        self.time_embedding = nn.Sequential(nn.Linear(spec["freq_dim"], dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        nn.init.zeros_(self.time_projection[1].weight), nn.init.zeros_(self.time_projection[1].bias)
        if spec.get("control_dim"):
            self.control_embedding = nn.Sequential(nn.Linear(spec["control_dim"], dim), nn.SiLU(), nn.Linear(dim, dim))
        if spec.get("pooled_text"):
            self.pooled_embedding = nn.Linear(spec["text_dim"], dim)
        if spec.get("position_grid"):                                        # where a token is on the screen; rotary positions tell distances alone
            self.position_embedding = nn.Parameter(torch.zeros(spec["position_grid"][0] * spec["position_grid"][1], dim))
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec["num_layers"]))
        self.head = Head(dim, spec["out_dim"] * math.prod(patch), spec["eps"])

    # ---- pieces

    def tokens(self, x, where=None):
        """x [B, F, C, h, w] → [B, F, S, dim]; features of a patch in the order (c, kh, kw), as the 3-D convolution has them. where [B, S]: tokens of the
        grid that a window shows; without it x is the whole screen."""
        B, F_, C, h, w = x.shape
        _, ph, pw = self.spec["patch_size"]
        x = x.reshape(B, F_, C, h // ph, ph, w // pw, pw).permute(0, 1, 3, 5, 2, 4, 6).reshape(B, F_, (h // ph) * (w // pw), -1)
        x = F.linear(x, self.patch_embedding.weight.flatten(1), self.patch_embedding.bias)               # the stream keeps its type: bf16 under autocast
        if not self.spec.get("position_grid"):
            return x
        p = self.position_embedding if where is None else self.position_embedding[where][:, None]        # [S, dim] or [B, 1, S, dim]
        return x + p.to(x.dtype)

    def pixels(self, x, h, w):
        """[B, F, S, ph * pw * c] (channel last) → [B, F, c, h, w]"""
        B, F_ = x.shape[:2]
        _, ph, pw = self.spec["patch_size"]
        return x.reshape(B, F_, h // ph, w // pw, ph, pw, -1).permute(0, 1, 6, 2, 4, 3, 5).reshape(B, F_, -1, h, w)

    def embed(self, t, context, control, owner=None):
        """t [B, F], context [B, U, L, text_dim], control [B, F, 12] or None, owner [B, F] → e [B, F, dim], e0 [B, F, 6, dim]."""
        e = self.time_embedding(sinusoid(t, self.spec["freq_dim"]))
        if self.spec.get("control_dim") and control is not None:
            e = e + self.control_embedding(control)
        if self.spec.get("pooled_text"):
            real = context.abs().sum(-1, keepdim=True).ne(0).float()
            pooled = self.pooled_embedding((context * real).sum(2) / real.sum(2).clamp(min=1))          # [B, U, dim]
            e = e + (pooled[:, :1] if owner is None else torch.gather(pooled, 1, owner[..., None].expand(-1, -1, pooled.shape[-1])))
        e = e.float()
        return e, self.time_projection(e).float().unflatten(-1, (6, -1))

    # ---- callers

    def forward(self, x, t, context, control=None, cache=None, start=0, keep=False):
        """One chunk. x [B, F, C, h, w], t [B, F], context [B, L, text_dim] → velocity as x.

        cache: a Cache of past keys and values, read always, extended by this chunk when keep is True. start: index of the first frame."""
        B, F_, _, h, w = x.shape
        s = self.spec
        e, e0 = self.embed(t, context[:, None], control)
        ctx = self.text_embedding(context)
        cos, sin = rope_table(range(start, start + F_), h // s["patch_size"][1], w // s["patch_size"][2], s["dim"] // s["num_heads"], s["rope_theta"], x.device)
        x = self.tokens(x)

        def cross(module, z):
            q, k, v = module.qkv(z.flatten(1, 2), ctx)
            return module.o(attention(q, k, v)).unflatten(1, z.shape[1:3])

        for n, block in enumerate(self.blocks):
            def attend(q, k, v):
                q, k = rope(q, cos, sin), rope(k, cos, sin)
                if cache is not None:
                    k, v = cache.join(n, k, v, F_, keep)
                return attention(q, k, v)
            x = block(x, e0, attend, cross)
        return self.pixels(self.head(x, e), h, w).float()

    def teacher_forcing(self, clean, noisy, t_clean, t_noisy, context, owner, control, chunk, window, where=None):
        """Velocity of every noisy chunk given the clean chunks before it in the window.

        clean [B, F, C, h, w], noisy [B, R F, C, h, w]: R noisy versions of the same clip, which share the clean keys; t_* as those; context [B, U, L, text_dim];
        owner [B, F] which caption a frame has; control [B, F, 12]; where: see tokens. Without clean (None, R = 1) every chunk stands alone: one pass over F / chunk chunks."""
        both = clean is not None
        B, _, _, h, w = noisy.shape
        F_ = clean.shape[1] if both else noisy.shape[1]
        R = noisy.shape[1] // F_
        s, N = self.spec, F_ // chunk
        x = self.tokens(torch.cat([clean, noisy], 1) if both else noisy, where)
        each = (lambda a: torch.cat([a] * (1 + R), 1)) if both else (lambda a: a)
        t = torch.cat([t_clean, t_noisy], 1) if both else t_noisy
        e, e0 = self.embed(t, context, each(control) if control is not None else None, each(owner))
        ctx = self.text_embedding(context)                                   # [B, U, L, dim]
        U, S, past = ctx.shape[1], x.shape[2], window // chunk - 1
        cos, sin = rope_table(list(range(F_)) * (1 + R if both else 1), h // s["patch_size"][1], w // s["patch_size"][2], s["dim"] // s["num_heads"], s["rope_theta"], x.device)
        pick = each(owner)[:, ::chunk]                                       # [B, chunks of all versions]

        def cross(module, z):
            parts = z.reshape(B, -1, chunk * S, z.shape[-1])                 # [B, M, chunk * S, dim]
            q, k, v = module.qkv(parts, ctx)
            if U > 1:
                k, v = (torch.gather(y, 1, pick[:, :, None, None, None].expand(-1, -1, *y.shape[2:])) for y in (k, v))
            else:
                k, v = (y.expand(-1, parts.shape[1], -1, -1, -1) for y in (k, v))
            y = attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1))
            return module.o(y).reshape(z.shape)

        def attend(q, k, v):
            q, k = rope(q, cos, sin), rope(k, cos, sin)
            step, half, out = chunk * S, F_ * S, []
            if not both:
                fold = lambda y: y.reshape(B * N, step, *y.shape[2:])
                return attention(fold(q), fold(k), fold(v)).reshape(B, half, -1)
            for i in range(N):                                               # clean chunk i sees clean chunks i - past .. i
                a, b = max(0, i - past) * step, (i + 1) * step
                out.append(attention(q[:, i * step:b], k[:, a:b], v[:, a:b]))
            for m in range(R * N):                                           # noisy chunk i sees clean chunks i - past .. i - 1 and itself
                i = m % N
                a, b, c, d = max(0, i - past) * step, i * step, half + m * step, half + (m + 1) * step
                out.append(attention(q[:, c:d], torch.cat([k[:, a:b], k[:, c:d]], 1), torch.cat([v[:, a:b], v[:, c:d]], 1)))
            return torch.cat(out, 1)

        for block in self.blocks:
            x = block(x, e0, attend, cross)
        if both:
            x, e = x[:, F_:], e[:, F_:]
        return self.pixels(self.head(x, e), h, w).float()


class Cache:
    """Roped keys and values of the last frames, per layer; `window` latents including the chunk in work."""

    def __init__(self, window):
        self.window, self.layers, self.frames = window, {}, {}

    def join(self, n, k, v, frames, keep):
        past = self.layers.get(n)
        if past is not None:
            per_frame = k.shape[1] // frames
            room = (self.window - frames) * per_frame
            pk, pv = (y[:, max(0, y.shape[1] - room):] for y in past)
            k, v = torch.cat([pk, k], 1), torch.cat([pv, v], 1)
        if keep:
            self.layers[n] = (k, v)
        return k, v
