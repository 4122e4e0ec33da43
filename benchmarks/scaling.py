"""Several processes: what they cost beside one, and that they give the same.

    python benchmarks/scaling.py --images 400

Fits of PaDiM on synthetic images of 256 px by one process, by two, and by two "nodes" of one process each that torchrun
joins over the loopback device; weak scaling, with twice the images for two; and two fits at once beside one, in seconds
of the clock, one thread a process. `ccd predict` on many files beside decoding and the bare forward pass, in CPU time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from ccd_lightning import load
from ccd_lightning.data.images import read_image
from ccd_lightning.data.synthetic import synthesize
from ccd_lightning.modules.padim import PaDiM

FOLDER, SIZE, BATCH = Path(".bench/scaling").absolute(), 256, 32
DISTINCT, BARE = 160, 640  # images behind the files to predict, and how many of them the bare passes see
CCD = [sys.executable, "-m", "ccd_lightning"]


def seconds(*commands: list[str]) -> float:
    """How long commands take that run at the same time."""

    def run(words: list[str]) -> None:
        done = subprocess.run(words, cwd=FOLDER, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr[-3000:]}")

    start = time.perf_counter()
    with ThreadPoolExecutor(len(commands)) as pool:
        list(pool.map(run, commands))
    return time.perf_counter() - start


def images(count: int) -> Path:
    """A folder with so many normal images."""
    root = FOLDER / f"images_{count}"
    if not root.exists():
        synthesize(root, "colonoscopy", size=SIZE, train=count, test_good=10, test_abnormal=9)
    return root


def fit(name: str, count: int, *words: str) -> list[str]:
    """The words of a fit after `ccd`."""
    own = ["--data.root", str(images(count)), "--data.size", str(SIZE), "--model.encoder.weights", "null"]
    named = [
        "--trainer.logger.init_args.name",
        name,
        "--model.encoder.name",
        "resnet18",
        "--trainer.accelerator",
        "cpu",
    ]
    return ["fit", "--config", "padim_folder", *own, *named, *words]


def torchrun(words: list[str], node: int) -> list[str]:
    """One of two nodes of one process each."""
    joined = ["--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(node)]
    joined += ["--master-addr", "127.0.0.1", "--master-port", "29517"]
    return [sys.executable, "-m", "torch.distributed.run", *joined, "-m", "ccd_lightning", *words]


def threshold(name: str) -> float:
    """Of a run that was fitted."""
    return float(load(FOLDER / "runs" / name).threshold)


def processes(count: int) -> None:
    """One process, two, two nodes, and twice the images."""
    nodes = ["--trainer.num_nodes", "2", "--trainer.devices", "1", "--trainer.strategy", "ddp"]
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    half = ["--data.batch_size", str(BATCH // 2)]
    start = seconds([*CCD, "fit", "--help"])
    rows = {
        "1 process": seconds([*CCD, *fit("one", count)]),
        "2 processes": seconds([*CCD, *fit("two", count, *two, *half)]),
        "2 nodes by torchrun": seconds(*(torchrun(fit("nodes", count, *nodes, *half), node) for node in (0, 1))),
        "2 processes, twice the images": seconds([*CCD, *fit("weak", 2 * count, *two)]),
    }
    names = ("one", "two", "nodes", "weak")
    print(f"`ccd fit --help`, which all begin with: {start:.0f} s\n")
    print(f"| PaDiM on {count} images | s | of 1 process | threshold |")
    print("| --- | --- | --- | --- |")
    for (what, spent), name in zip(rows.items(), names, strict=True):
        print(f"| {what} | {spent:.0f} | {spent / rows['1 process']:.2f} | {threshold(name):.6f} |", flush=True)


def side_by_side(count: int) -> None:
    """Two fits at once beside one, with as many threads as there are cores for each."""
    threads = os.environ.pop("OMP_NUM_THREADS", None)
    one = seconds([*CCD, *fit("alone", count)])
    both = seconds([*CCD, *fit("left", count)], [*CCD, *fit("right", count)])
    print(f"\nTwo fits at once take {both / one:.2f} times as long as one.")
    if threads:
        os.environ["OMP_NUM_THREADS"] = threads


def predict(count: int) -> tuple[float, float]:
    """CPU seconds and peak MiB of `ccd predict` without overlays for so many files."""
    folder, files = FOLDER / f"files_{count}", good(images(DISTINCT))
    folder.mkdir(exist_ok=True)
    for number in range(count):
        if not (link := folder / f"{number:05}.png").exists():
            link.hardlink_to(files[number % len(files)])
    words = [*CCD, "predict", "--ckpt_path", str(FOLDER / "runs/one"), "--overlays", "false", "--images", str(folder)]
    child = subprocess.Popen(words, cwd=FOLDER, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(words)}: status {status}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def good(root: Path) -> list[Path]:
    """The normal training images of a set."""
    return sorted((root / "train/good").glob("*.png"))


def predictions(count: int) -> None:
    """`ccd predict` beside decoding and the encoder's forward pass, both without its start."""
    (start, few), (whole, many) = predict(BATCH), predict(count + BATCH)
    detector = load(FOLDER / "runs/one")
    assert isinstance(detector, PaDiM)
    assert detector.preprocessing
    files, spent = sorted((FOLDER / f"files_{count + BATCH}").iterdir()), []
    for first in range(0, min(count, BARE), BATCH):
        begun = time.process_time()
        with torch.no_grad():
            pixels = [read_image(file, detector.preprocessing) for file in files[first : first + BATCH]]
            batch = torch.stack([torch.from_numpy(one.copy()) for one in pixels]).permute(0, 3, 1, 2).float() / 255
            detector.encoder.maps(batch, detector.features.layers)
        spent.append((time.process_time() - begun) / len(pixels))
    bare = statistics.median(spent) * count
    ratio = bare / (whole - start)
    print(f"\n`ccd predict` of {count} files without overlays: {ratio:.2f} times the images/s of decoding and forward")
    print(f"pass; peak memory {many:.0f} MiB, of {BATCH} files {few:.0f} MiB.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--files", type=int, default=10_000, help="that `ccd predict` scores")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    processes(options.images)
    side_by_side(options.images)
    predictions(options.files)
