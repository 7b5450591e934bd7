"""What every training stage shares: where its state lies, its clock, its log line and its checkpoint.

A run is resumable at any moment: state (weights, optimiser, EMA, clock) is written to <state>/<name>.pt every few minutes and on SIGTERM,
so a stage can be trained in short legs on different machines. The learning rate follows the *training* clock (seconds spent in steps,
pauses not counted), so that a budget in minutes means the same on a busy machine.
"""
import argparse
import os
import signal
import sys
import time
from pathlib import Path

import torch


def parser(doc, **defaults):
    p = argparse.ArgumentParser(description=doc.splitlines()[0])
    p.add_argument("--state", default=os.environ.get("TURBOCAST_STATE", "state"), help="folder of resume states")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--minutes", type=float, default=60, help="training time of the whole stage, over all legs")
    p.add_argument("--leg", type=float, default=1e9, help="minutes after which this leg stops (resume with the same command)")
    p.add_argument("--steps", type=int, default=10 ** 9, help="stop after this many steps of this leg")
    p.add_argument("--seed", type=int, default=int(time.time()))
    for name, value in defaults.items():
        p.add_argument("--" + name.replace("_", "-"), type=type(value), default=value)
    return p


class Run:
    """name.pt, name.pid and the clock of one stage. `items` maps names to things with state_dict()."""

    def __init__(self, name, args, items, save_every=180):
        self.args, self.items, self.save_every = args, items, save_every
        self.folder = Path(args.state)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path, self.pid = self.folder / f"{name}.pt", self.folder / f"{name}.pid"
        self.step, self.seconds, self.begun, self.stop = 0, 0.0, time.time(), False
        self.mark = self.saved = self.shown = time.time()
        self.sums, self.count = {}, 0
        if self.path.exists():
            state = torch.load(self.path, map_location=args.device)
            for key, item in items.items():
                if key in state["items"]:
                    item.load_state_dict(state["items"][key])
            for item in items.values():                                      # the flag decides, not what the last leg had
                for group in getattr(item, "param_groups", []):
                    group["lr"] = args.lr
            self.step, self.seconds = state["step"], state["seconds"]
            print(f"resumed {name} at step {self.step}, {self.seconds / 60:.1f} min", flush=True)
        self.first = self.step
        self.pid.write_text(str(os.getpid()))
        signal.signal(signal.SIGTERM, self.halt)

    def halt(self, *_):
        self.stop = True

    def restart_clock(self):
        """Call after work that is not a training step."""
        self.mark = self.shown = time.time()

    @property
    def progress(self):
        return min(1.0, self.seconds / 60 / self.args.minutes)

    def rate(self, warm=200, decay=0.3):
        """Warm-up in steps of this leg, then constant, then linear to 2 % over the last `decay` of the budget."""
        return min(1.0, (self.step - self.first + 1) / warm) * min(1.0, 0.02 + 0.98 * (1 - self.progress) / decay)

    def steps(self):
        """Yields step numbers until the budget, the leg or the steps are used up; then saves."""
        while not self.stop and self.progress < 1 and self.step - self.first < self.args.steps and time.time() - self.begun < self.args.leg * 60:
            yield self.step
            now = time.time()
            self.seconds += min(now - self.mark, 20.0)
            self.mark, self.step = now, self.step + 1
            if now - self.saved > self.save_every:
                self.save()
        self.save()
        self.pid.unlink() if self.pid.exists() else None

    def save(self):
        part = self.path.with_suffix(".part")
        torch.save({"items": {k: v.state_dict() for k, v in self.items.items()}, "step": self.step, "seconds": self.seconds}, part)
        part.rename(self.path)
        self.saved = time.time()

    def show(self, every=30, **values):
        """Averages values between log lines (one line every so many seconds); a NaN ends the run with an error."""
        for key, value in values.items():
            value = float(value)
            if not value == value:
                sys.exit(f"step {self.step}: {key} is NaN")
            total, count = self.sums.get(key, (0.0, 0))
            self.sums[key] = (total + value, count + 1)
        self.count += 1
        if time.time() - self.shown > every:
            each = (time.time() - self.shown) / self.count
            text = "  ".join(f"{k} {v / n:.4f}" for k, (v, n) in self.sums.items())
            print(f"{self.seconds / 60:6.1f} min  step {self.step:6d}  {text}  {each:.2f} s/step", flush=True)
            self.sums, self.count, self.shown = {}, 0, time.time()
