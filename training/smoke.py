"""Two steps of every stage at tiny sizes on a CPU; exit code 1 on any failure or NaN:  python smoke.py

Also checks that the doubled sequence of teacher forcing gives what the cache gives, past the first eviction, that controls are guided apart from words, and that the
world keeps step with latents and chunks."""
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
    dit = DiT(dict(spec.DIT, dim=48, ffn_dim=64, num_heads=2, num_layers=2, position_grid=[4, 4]))
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


def check_guidance():
    """Weights of one say what the teacher says; a control weight of none leaves the controls out, and nothing else."""
    import spec
    from denoiser import Model
    from distill import loss_of
    torch.manual_seed(0)
    model = Model().requires_grad_(False)
    for w in model.dit.parameters():
        torch.nn.init.normal_(w, std=0.05)
    B, L, C = 12, 4, spec.DIT["in_dim"]
    ids = torch.tensor([spec.TOKENIZER.encode("a cat jumps in the snow")]).expand(B, 1, -1)
    still = torch.zeros(B, L, spec.DIT["control_dim"])
    error = lambda control, *guidance: float(loss_of(model, model, model, (torch.randn(B, L, C, 16, 16), torch.zeros(B, L, 16, 16), ids, torch.zeros(B, L, dtype=torch.long), control), 24, guidance, True)[1])
    for value, expected in ((error(still + 1, 1, 1), False), (error(still, 1, 0), False), (error(still + 1, 1, 0), True)):
        assert (value > 1e-6) == expected, f"guidance: {value}"
    print("· guidance of words and controls", flush=True)


def repeats(motion, chunks):
    """Whether the motion does after so many chunks what it did before, but for how far it travelled and for whole turns."""
    import numpy as np
    from world.clip import BEAT, FPS
    from world.motions import TRAVELS, pose
    t, (vx, vy) = np.arange(0, 6, 1 / FPS), TRAVELS.get(motion, (0, 0))
    x, y, angle, *stretch = pose(motion, t + chunks * BEAT, 0, 0)
    later = x - vx * chunks * BEAT, y - vy * chunks * BEAT, np.cos(angle), np.sin(angle), *stretch
    x, y, angle, *stretch = pose(motion, t, 0, 0)
    return np.allclose(later, (x, y, np.cos(angle), np.sin(angle), *stretch))


def check_world():
    """Motions repeat after whole chunks, travels and controls move by whole tokens: what world/motions.py promises."""
    import random

    import numpy as np
    from world import captions, clip
    from world.motions import MOTIONS, TRAVELS
    for motion in MOTIONS:
        assert any(repeats(motion, chunks) for chunks in (1, 2, 3, 4)), f"{motion} does not repeat"
    assert all(v * clip.BEAT % (clip.TOKEN / 2) == 0 for travel in TRAVELS.values() for v in travel)
    scene = captions.scene(random.Random(1), 0.0, motion="stay")
    across = clip.SIZE + 2 * clip.MARGIN["normal"]
    for control, path in (("steer_x", lambda r: r["body"][0, :, 0]), ("pan_x", lambda r: r["camera"][:, 0])):
        seen = 0
        for n in range(60):
            r = clip.sample(random.Random(n), 8, 0.0, ([scene], [0], [""] * 4), action=1.0)
            held = np.abs(r["control"][1:, clip.CONTROLS.index(control)]) == 1
            steps = np.abs(np.diff(path(r)[clip.FRAMES - 1::clip.FRAMES])).round(3)[held]
            assert set(steps) <= {clip.TOKEN, across - clip.TOKEN}, f"{control} moves by {set(steps)}"           # or it comes back on the other side
            seen += len(steps)
        assert seen > 20, control
    print("· the world keeps step", flush=True)


if __name__ == "__main__":
    check_cache()
    check_guidance()
    check_world()
    with tempfile.TemporaryDirectory() as state:
        stage(state, "autoencoder.py", "--steps", "2", "--batch", "4", "--device", "cpu")
        for share in (("1.0", "0.0"), ("0.0", "1.0"), ("0.0", "0.0")):
            stage(state, "denoiser.py", "--steps", "2", "--batch", "16", "--bank", "16", "--device", "cpu", "--pictures", share[0], "--chunks", share[1])
        for guide in ("1.0", "0.0"):
            stage(state, "distill.py", "--steps", "2", "--batch", "8", "--latents", "4", "--bank", "8", "--device", "cpu", "--guide", guide, "--action", "1")
        stage(state, "decoder.py", "--minutes", "0.001", "--batch", "4", "--bank", "8", "--exam", "2", "--device", "cpu")
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
