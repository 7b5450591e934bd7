"""Proves model.py against golden tensors of the original implementations:  python test_golden.py FOLDER

FOLDER holds wan-dit, wan-causal-full and umt5, each with config.json, weights.safetensors and case-N.safetensors."""
import json
import sys
from pathlib import Path

import torch

from model import Cache, DiT, TextEncoder
from safetensors import load


def error(ours, golden):
    return float((ours - golden).norm() / golden.norm())


def spec_of(config):
    spec = {"patch_size": [1, 2, 2], "freq_dim": 256, "eps": 1e-6, "rope_theta": 10000, "num_buckets": 32, "max_dist": 128}
    spec.update(config)
    spec["vocab_size"] = config.get("vocab")
    return spec


@torch.no_grad()
def check(folder):
    config, weights = json.loads((folder / "config.json").read_text()), load(folder / "weights.safetensors")
    spec, worst = spec_of(config), 0.0
    model = (TextEncoder if folder.name == "umt5" else DiT)(spec)
    model.load_state_dict(weights)
    for case in sorted(folder.glob("case-*.safetensors")):
        c = load(case)
        if folder.name == "umt5":
            mask = c["mask"].bool()
            worst = max(worst, error(model(c["ids"].long(), mask)[mask], c["hidden"][mask]))
        elif folder.name == "wan-dit":
            x = c["x"].transpose(0, 1)[None]
            v = model(x, c["timestep"].float().expand(1, x.shape[1]), c["context"][None])
            worst = max(worst, error(v[0].transpose(0, 1), c["velocity"]))
        else:
            cache, b = Cache(10 ** 6), 0
            while f"block{b}.step0.x" in c:
                for s in range(3):
                    x = c[f"block{b}.step{s}.x"].transpose(1, 2)
                    v = model(x, c[f"block{b}.step{s}.timestep"].float(), c["context"], cache=cache, start=b * x.shape[1], keep=s == 2)
                    worst = max(worst, error(v.transpose(1, 2), c[f"block{b}.step{s}.velocity"]))
                b += 1
    return worst


if __name__ == "__main__":
    results = {kind: check(Path(sys.argv[1]) / kind) for kind in ("umt5", "wan-dit", "wan-causal-full")}
    for kind, worst in results.items():
        print(f"{kind:16s} {worst:.2e}  {'ok' if worst <= 1e-4 else 'FAILED'}")
    sys.exit(0 if all(w <= 1e-4 for w in results.values()) else 1)
