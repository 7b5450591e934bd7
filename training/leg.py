"""One leg of everything on one machine: where the last one ended, for so many minutes, to an exported model folder and its contact sheet.

    python leg.py --minutes 9 --out OUT                      → OUT/toybox, OUT/sheet.png, OUT/leg.log

For a machine that is rented for minutes and has nothing but the repository: without a state the committed weights are restored first. A stage that fails
says so and the leg goes on with what there is; exit code 1 when the model folder could not be written. The shares are of the minutes left
after set-up; the batches are those of a GPU with 80 GB where there is one.
"""
import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).parent
# Shares of the time. The teacher is what the student can be at most; guidance settles after some hundred steps.
SHARES = {"denoiser": 0.65, "distill": 0.15, "decoder": 0.2}
LARGE = {"denoiser": ["--batch", "1024", "--bank", "12000", "--lr", "5e-3"], "distill": ["--batch", "512", "--bank", "6000"], "decoder": ["--batch", "256", "--bank", "2000"]}
SMALL = {"denoiser": ["--batch", "16", "--bank", "16", "--steps", "2"], "distill": ["--batch", "8", "--bank", "8", "--steps", "2"], "decoder": ["--batch", "4", "--bank", "8", "--exam", "2", "--steps", "2"]}
FLAGS = {
    "denoiser": ["denoiser.py", "--pictures", "0.3", "--chunks", "0.1", "--rich", "0.4", "--latents", "10"],
    "distill": ["distill.py", "--guide", "1.1", "--guidance", "4", "--control-guidance", "7", "--rich", "0.4"],
    "decoder": ["decoder.py"],
}


def clock(folder, name):
    """Minutes that a stage has had."""
    path = folder / f"{name}.pt"
    return torch.load(path, map_location="cpu")["seconds"] / 60 if path.exists() else 0.0


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--state", default=os.environ.get("TURBOCAST_STATE", "state"))
    p.add_argument("--out", required=True)
    p.add_argument("--minutes", type=float, default=9)
    p.add_argument("--stages", nargs="+", choices=list(SHARES), default=list(SHARES))
    p.add_argument("--small", action="store_true", help="two steps of tiny batches: a try of it all")
    args = p.parse_args()
    folder, out, begun = Path(args.state).resolve(), Path(args.out).resolve(), time.time()
    out.mkdir(parents=True, exist_ok=True)
    log = (out / "leg.log").open("a")

    def run(*command):
        print("·", *command, f"({(time.time() - begun) / 60:.1f} min)", file=log, flush=True)
        code = subprocess.run([sys.executable, "-u", *command], cwd=HERE, stdout=log, stderr=subprocess.STDOUT).returncode
        if code != 0:
            print(f"{command[0]} failed with {code}: see {out / 'leg.log'}", flush=True)
        return code == 0

    if not (folder / "denoiser.pt").exists():
        run("restore.py", "--state", str(folder))
    left = args.minutes - (time.time() - begun) / 60
    total = sum(SHARES[s] for s in args.stages)
    for stage in args.stages:
        minutes = max(0.01, left * SHARES[stage] / total)
        script, *flags = FLAGS[stage]
        sizes = SMALL[stage] if args.small else LARGE[stage] if torch.cuda.is_available() else []
        if stage == "distill" and (folder / "distill.pt").exists():                       # the student of an older teacher
            (folder / "distill.pt").rename(folder / "distill-before.pt")
        before = clock(folder, stage)
        # The schedule of a stage is over its whole clock: an old clock would leave the curriculum and the warm part behind, so a leg has one of its own.
        if before > 0:
            state = torch.load(folder / f"{stage}.pt", map_location="cpu")
            torch.save(dict(state, seconds=0.0), folder / f"{stage}.pt")
        run(script, "--state", str(folder), "--minutes", f"{minutes:.3f}", "--leg", f"{minutes * 1.5 + 1:.3f}", *flags, *sizes)
    done = run("export.py", "--state", str(folder), "--out", str(out / "toybox"))
    run("sheet.py", "--state", str(folder), "--stage", "distill" if (folder / "distill.pt").exists() else "denoiser", "--steps", "4", "--chunks", "6", "--columns", "8", "--out", str(out / "sheet.png"))
    print(f"{out}: {(time.time() - begun) / 60:.1f} min", flush=True)
    sys.exit(0 if done else 1)


if __name__ == "__main__":
    main()
