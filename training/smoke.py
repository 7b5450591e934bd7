"""Two steps of every stage at tiny sizes on a CPU; exit code 1 on any failure or NaN:  python smoke.py

Also checks that the doubled sequence of teacher forcing gives what the cache gives, past the first eviction."""
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

HERE = Path(__file__).parent


def stage(state, script, *flags):
    print("·", script, *flags, flush=True)
    subprocess.run([sys.executable, str(HERE / script), "--state", state, *flags], check=True, cwd=HERE)


def check_cache():
    """teacher_forcing == forward with a window cache."""
    import spec
    from model import Cache, DiT
    torch.manual_seed(0)
    dit = DiT(dict(spec.DIT, dim=48, ffn_dim=64, num_heads=2, num_layers=2))
    for w in dit.parameters():
        torch.nn.init.normal_(w, std=0.1)
    B, F, n, C = 2, 12, 2, spec.DIT["in_dim"]
    clean, noisy = torch.randn(B, F, C, 8, 8), torch.randn(B, F, C, 8, 8)
    t = torch.rand(B, F // n).repeat_interleave(n, 1) * 1000
    context, control = torch.randn(B, 1, 5, spec.DIT["text_dim"]), torch.randn(B, F, spec.DIT["control_dim"])
    with torch.no_grad():
        versions, times = torch.cat([torch.randn_like(noisy), noisy], 1), torch.cat([t.flip(1), t], 1)
        want = dit.teacher_forcing(clean, versions, torch.zeros(B, F), times, context, torch.zeros(B, F, dtype=torch.long), control, n, 8)[:, F:]
        cache = Cache(8)
        for i in range(F // n):
            part = slice(i * n, i * n + n)
            v = dit(noisy[:, part], t[:, part], context[:, 0], control[:, part], cache=cache, start=i * n)
            assert (v - want[:, part]).norm() < 1e-4 * want.norm(), f"chunk {i} differs"
            dit(clean[:, part], torch.zeros(B, n), context[:, 0], control[:, part], cache=cache, start=i * n, keep=True)
    print("· teacher forcing = cache", flush=True)


if __name__ == "__main__":
    check_cache()
    with tempfile.TemporaryDirectory() as state:
        stage(state, "autoencoder.py", "--steps", "2", "--batch", "4", "--device", "cpu")
        stage(state, "autoencoder.py", "--steps", "2", "--batch", "4", "--device", "cpu", "--decoder-only", "1")
        for share in (("1.0", "0.0"), ("0.0", "1.0"), ("0.0", "0.0")):
            stage(state, "denoiser.py", "--steps", "2", "--batch", "16", "--bank", "16", "--device", "cpu", "--pictures", share[0], "--chunks", share[1])
        for guide in ("1.0", "0.0"):
            stage(state, "distill.py", "--steps", "2", "--batch", "8", "--latents", "4", "--bank", "8", "--device", "cpu", "--guide", guide)
        stage(state, "judges.py", "--steps", "2", "--batch", "4", "--exam", "4", "--device", "cpu")
        stage(state, "judges.py", "--steps", "2", "--names", "0", "--drafts", "64", "--exam", "4", "--device", "cpu")
        stage(state, "evaluate.py", "--prompts", "1", "--others", "0", "--minutes", "0", "--teacher", "1", "--steps", "--out", state + "/evaluation.json")
        stage(state, "export.py", "--out", state + "/toybox")
        stage(state, "sheet.py", "--rows", "2", "--chunks", "2", "--stage", "distill", "--steps", "2", "--sampler", "renoise", "--out", state + "/sheet.png")
        stage(state + "/again", "restore.py", "--model", state + "/toybox")
        stage(state + "/again", "leg.py", "--out", state + "/leg", "--minutes", "0.02", "--small")
        assert (Path(state) / "leg" / "toybox" / "model.json").exists() and (Path(state) / "leg" / "sheet.png").exists()
        assert (Path(state) / "toybox" / "model.json").exists()
    print("smoke: ok")
