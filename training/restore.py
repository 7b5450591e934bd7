"""Resume states from an exported model folder, for a machine that has only the repository:  python restore.py --state DIR [--model ../models/toybox]

Writes autoencoder.pt, latents.pt and denoiser.pt (the teacher, where the folder holds a student). Optimiser states are not in the export: the first leg warms up again. The decoder comes back with its
BatchNorm folded away (unit statistics), which is exact and can be trained on."""
import argparse
import json
import os
from pathlib import Path

import torch

import spec
from autoencoder import Decoder
from bank import load_encoder
from safetensors import load
from world import clip


def unfold(folded, eps=1e-5):
    """The contract's decoder weights → a state of autoencoder.Decoder."""
    state = Decoder().state_dict()
    for name in state:
        stem = name.rsplit(".", 2)[0]
        if name.startswith("conv_out"):
            state[name] = folded[name].float()
        elif name.endswith(".0.weight"):
            state[name] = folded[stem + ".weight"].float()
        elif name.endswith(".1.weight"):
            state[name] = torch.full_like(state[name], (1 + eps) ** 0.5)
        elif name.endswith(".1.bias"):
            state[name] = folded[stem + ".bias"].float()
    return state


@torch.no_grad()
def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--state", default=os.environ.get("TURBOCAST_STATE", "state"))
    p.add_argument("--model", default=str(Path(__file__).parent.parent / "models" / "toybox"))
    args = p.parse_args()
    folder, model = Path(args.state), Path(args.model)
    folder.mkdir(parents=True, exist_ok=True)
    name = "denoiser.pt"
    for file in ("autoencoder.pt", "latents.pt", name):
        if (folder / file).exists():
            raise SystemExit(f"{folder / file} exists: restore into an empty folder")

    def save(values, file):
        torch.save({"items": {"model": values, "ema": {"values": {k: v.clone() for k, v in values.items()}, "updates": 0}}, "step": 0, "seconds": 0.0}, folder / file)

    both = {"encoder." + k: v.float() if v.dtype.is_floating_point else v for k, v in load(model / "encoder.safetensors").items()}
    both.update({"decoder." + k: v for k, v in unfold(load(model / "vae.safetensors")).items()})
    save(both, "autoencoder.pt")
    if (model / "teacher.safetensors").exists():
        save({k: v.float() for k, v in load(model / "teacher.safetensors").items()}, name)
    else:
        save({f"{part}.{k}": v.float() for part in ("text", "dit") for k, v in load(model / f"{part}.safetensors").items()}, name)
    vae = json.loads((model / "model.json").read_text())["vae"]
    mean, std = torch.tensor(vae["latent_mean"]), torch.tensor(vae["latent_std"])
    z = load_encoder(folder, "cpu")(clip.Painter().draw(clip.batch(16, 8, 5))[0])
    torch.save({"mean": mean, "std": std, "latents": ((z - mean[:, None, None]) / std[:, None, None]).half()}, folder / "latents.pt")
    print(f"{folder}: {spec.DIT['num_layers']} layers restored from {model}")


if __name__ == "__main__":
    main()
