"""Fits that are killed at random moments and resumed: do they end with the same weights? Prints one table.

    python benchmarks/kills.py --kills 30 --model ccd neighbours padim igd

Each kind of model is fitted once without a break. Then it is started again and again, each time killed by SIGKILL after
a random time within that of the whole fit, and resumed by the command that a user would give, until it is through.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from ccd_lightning.checkpoints import read_checkpoint

DATA = ["--data.size=64", "--data.train=12", "--data.test_good=5", "--data.test_abnormal=6", "--data.num_workers=0"]
CCD = ["--config", "ccd_synthetic", *DATA, "--data.batch_size=4", "--data.views.size=32", "--data.views.patch_size=16"]
IGD = [
    *("--config", "igd_synthetic", *DATA, "--data.batch_size=4", "--trainer.max_epochs=6", "--model.latent_size=16"),
    *("--model.training.estimate_every=2", "--model.global_scale.size=64", "--model.global_scale.width=8"),
    *("--model.local_scale.width=8", "--model.local_scale.windows_per_image=2", "--model.local_encoder.weights=null"),
]
FITS = {
    "ccd": [*CCD, "--trainer.max_epochs=8"],
    "neighbours": ["--config", "neighbours_synthetic", *DATA, "--data.batch_size=4", "--model.encoder.weights=null"],
    "padim": ["--config", "padim_synthetic", *DATA, "--data.batch_size=4", "--model.encoder.weights=null"],
    "igd": [*IGD, "--model.encoder.weights=null"],
}
OFTEN = "--trainer.check_val_every_n_epoch=1"


def start(model: str, name: str) -> subprocess.Popen[bytes]:
    """Starts or resumes a fit."""
    words = ["fit", *FITS[model], OFTEN, f"--trainer.logger.init_args.name={name}", "--ckpt_path", "last"]
    with Path(f"{name}.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "ccd_lightning", *words], stdout=log, stderr=log)


def result(name: str) -> dict[str, torch.Tensor]:
    """The weights that a fit of this name ended with, in its finished run."""
    run = next(record.parent for record in sorted(Path("runs", name).glob("version_*/run.json")))
    files = [run / "checkpoints" / file for file in ("last.ckpt", "best.ckpt")]
    state: dict[str, torch.Tensor] = read_checkpoint(next(file for file in files if file.is_file()))["state_dict"]
    return state


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether all tensors are bit-identical."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def killed(model: str, name: str, seconds: float, chance: random.Random, most: int) -> tuple[int, int, float]:
    """Starts a fit and kills it, until it is through or was killed often enough; then lets it end.

    Returns:
        How often it was killed, the last exit code, and how long a whole fit takes now: the time of this one if it
        ended before it was killed once, because a machine's load changes.
    """
    kills, begun = 0, time.monotonic()
    while True:
        process = start(model, name)
        if kills < most:
            try:
                process.wait(chance.uniform(0.3, 1) * seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                kills += 1
        code = process.wait()
        if code != -signal.SIGKILL:
            return kills, code, seconds if kills else time.monotonic() - begun


def run(models: list[str], kills: int, seed: int, each: int) -> None:
    """Fits and kills in the working directory, and prints the table."""
    print(f"{'model':12} {'whole fit (s)':>14} {'fits':>5} {'kills':>6} {'ended':>6} {'weights equal':>14}", flush=True)
    for model in models:
        chance = random.Random(f"{seed} {model}")
        begun = time.monotonic()
        if start(model, f"{model}_whole").wait():
            raise SystemExit(Path(f"{model}_whole.log").read_text(encoding="utf-8"))
        seconds, whole = time.monotonic() - begun, result(f"{model}_whole")
        done = ended = equal = fits = 0
        while done < kills:
            name = f"{model}_{fits}"
            count, code, seconds = killed(model, name, seconds, chance, min(each, kills - done))
            done, fits, ended = done + count, fits + 1, ended + (code == 0)
            equal += code == 0 and same(whole, result(name))
        print(f"{model:12} {seconds:14.0f} {fits:5} {done:6} {ended:6} {equal:14}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="of each model; default: 30")
    parser.add_argument("--each", type=int, default=3, help="of one fit, at most; default: 3")
    parser.add_argument("--model", nargs="+", choices=tuple(FITS), default=list(FITS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        run(arguments.model, arguments.kills, arguments.seed, arguments.each)
        os.chdir("/")
