"""Muon for matrices (and flattened convolutions), AdamW for the rest, in one optimiser.

Muon (Jordan et al. 2024): the momentum of a matrix is replaced by the nearest semi-orthogonal matrix, found by five Newton-Schulz steps.
The update is scaled by 0.2 sqrt(max(rows, columns)) (Liu et al. 2025, 2.2), so that both halves share one learning rate and weight decay.
"""
import torch

from precision import is_bfloat16_fast


def orthogonal(g):
    """g [rows, columns] → its approximate polar factor."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16() if is_bfloat16_fast(g.device.type) else g.float()
    flip = x.shape[0] > x.shape[1]
    x = x.t() if flip else x
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        m = x @ x.t()
        x = a * x + (b * m + c * m @ m) @ x
    return (x.t() if flip else x).to(g.dtype)


class MuonAdam(torch.optim.Optimizer):
    def __init__(self, named, is_matrix, lr, adam_ratio=0.5, momentum=0.95, betas=(0.9, 0.95), weight_decay=0.01):
        named = [(n, p) for n, p in named if p.requires_grad]
        groups = [{"params": [p for n, p in named if is_matrix(n, p)], "muon": True, "factor": 1.0},
                  {"params": [p for n, p in named if not is_matrix(n, p)], "muon": False, "factor": adam_ratio}]
        super().__init__([g for g in groups if g["params"]], dict(lr=lr, momentum=momentum, betas=betas, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, rate=1.0):
        """`rate` multiplies the learning rate of this step (the schedule)."""
        for group in self.param_groups:
            lr = group["lr"] * rate * group["factor"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                s, g = self.state[p], p.grad
                if group["muon"]:
                    m = s.setdefault("m", torch.zeros_like(p))
                    m.mul_(group["momentum"]).add_(g)
                    u = orthogonal((g + group["momentum"] * m).reshape(p.shape[0], -1)).reshape(p.shape)
                    u = u * (0.2 * max(p.shape[0], p[0].numel()) ** 0.5)
                else:
                    m, v = s.setdefault("m", torch.zeros_like(p)), s.setdefault("v", torch.zeros_like(p))
                    s["t"] = s.get("t", 0) + 1
                    b1, b2 = group["betas"]
                    m.lerp_(g, 1 - b1)
                    v.mul_(b2).addcmul_(g, g, value=1 - b2)
                    u = m / (1 - b1 ** s["t"]) / ((v / (1 - b2 ** s["t"])).sqrt() + 1e-8)
                if p.dim() > 1:
                    p.mul_(1 - lr * group["weight_decay"])
                p.add_(u, alpha=-lr)


class Ema:
    """Exponential moving average of a module's floating-point state, with the usual faster start."""

    def __init__(self, module, decay=0.999):
        self.decay, self.updates = decay, 0
        self.values = {k: v.detach().clone().float() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module):
        self.updates += 1
        d = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for k, v in module.state_dict().items():
            if v.dtype.is_floating_point:
                self.values[k].lerp_(v.float(), 1 - d)
            else:
                self.values[k].copy_(v)

    def state_dict(self):
        return {"values": self.values, "updates": self.updates}

    def load_state_dict(self, state):
        self.values, self.updates = state["values"], state["updates"]
