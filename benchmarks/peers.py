"""This package beside anomalib and lightly: whole commands, how memory grows, and a step of pretraining.

    make bench-peers                       # in an environment of its own, .bench/peers
    python benchmarks/peers.py --rounds 5  # where anomalib (2.6 or newer) and lightly are installed beside this package

All have the same images of 256 px, batches of 32, the same ResNet-18 with the same random weights, and one thread. A
round runs each command once, in turns, each as a process of its own; figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from ccd_lightning.data.synthetic import synthesize
from ccd_lightning.models.networks import create_network
from ccd_lightning.modules.ccd import CCD

SIZE = 256
PEER = str(Path(__file__).with_name("anomalib_run.py").absolute())
PARTS = ("start", "step", "padim", "neighbours", "memory")
FOLDER = Path(".bench/peers-work").absolute()
WEIGHTS = FOLDER / "resnet18.pt"


class Took(NamedTuple):
    """What a process took: wall-clock seconds, CPU seconds with its children's, peak MiB, and what it printed."""

    wall: float
    cpu: float
    peak: float
    said: str


def process(words: Sequence[str]) -> Took:
    """Runs a Python process in FOLDER."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    # GNU time would not say the peak of this process alone: ru_maxrss of children is that of the largest so far.
    watched = (
        "import runpy, sys; sys.argv = sys.argv[1:]; code = 0\ntry: runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    watched += "\nexcept SystemExit as end: code = end.code\nprint(open('/proc/self/status').read()); sys.exit(code)"
    done = subprocess.run(
        [sys.executable, "-c", watched, *words], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{words}: exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = int(re.findall(r"VmHWM:\s+(\d+)", done.stdout)[-1]) / 1024
    return Took(time.perf_counter() - start, cpu, peak, done.stdout)


def ours(detector: str, root: Path, options: Sequence[str] = (), fit_only: bool = False) -> list[Took]:
    """`ccd fit` and `ccd test`, with pictures and report, as a user runs them."""
    words = ["fit", "--config", f"{detector}_folder", "--data.root", str(root), "--data.size", str(SIZE)]
    words += ["--model.encoder.weights", str(WEIGHTS), "--model.encoder.name", "resnet18", *options]
    (FOLDER / "ccd.py").write_text("import sys\nfrom ccd_lightning.cli import main\nsys.exit(main(sys.argv[1:]))\n")
    took = [process(["ccd.py", *words, "--trainer.logger.init_args.name", detector])]
    return took if fit_only else [*took, process(["ccd.py", "test", "--ckpt_path", f"runs/{detector}"])]


def theirs(detector: str, root: Path, fit_only: bool = False) -> list[Took]:
    """Anomalib's fit and test in one process, with its pictures."""
    return [process([PEER, str(root), str(WEIGHTS), detector, "fit" if fit_only else "test"])]


def image_auroc(took: Sequence[Took]) -> float:
    """What the last process said."""
    if match := re.search(r"AUROC ([\d.]+)", took[-1].said):
        return float(match[1])
    metrics = json.loads(
        (FOLDER / "runs").joinpath(re.findall(r"runs/(\w+/\w+)", took[-1].said)[-1], "metrics.json").read_text()
    )
    return float(metrics["metrics"]["image/auroc"])


def in_turns(works: dict[str, Callable[[], list[Took]]], rounds: int) -> dict[str, list[list[Took]]]:
    """Each work once a round."""
    found: dict[str, list[list[Took]]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            found[name].append(work())
    return found


def compare(title: str, works: dict[str, Callable[[], list[Took]]], rounds: int) -> None:
    """Prints a row a work, the last of which is the peer."""
    found = in_turns(works, rounds)
    cpu, wall = (
        {
            name: statistics.median(sum(getattr(one, unit) for one in took) for took in turns)
            for name, turns in found.items()
        }
        for unit in ("cpu", "wall")
    )
    peer = list(works)[-1]
    for name, turns in found.items():
        ratio = f"{cpu[peer] / cpu[name]:.2f} ({wall[peer] / wall[name]:.2f})"
        print(f"| {title} | {name} | {cpu[name]:.0f} | {ratio} | {image_auroc(turns[0]):.3f} |", flush=True)


def images(train: int, test: int) -> Path:
    """A set of its own for each number of images."""
    root = FOLDER / f"set_{train}_{test}"
    if not root.exists():
        synthesize(root, "colonoscopy", size=SIZE, train=train, test_good=test // 2, test_abnormal=test - test // 2)
    print(f"\n{train} training images, {test} test images\n")
    print("| what | by | CPU seconds | times as fast as the peer: CPU (clock) | image AUROC |")
    print("| --- | --- | --- | --- | --- |")
    return root


def padim(rounds: int, train: int, test: int) -> None:
    """PaDiM's fit and test with pictures."""
    root = images(train, test)
    published = ["--model.features.positions", "0", "--model.features.window", "1", "--model.top", "0"]
    published += ["--model.features.normalise", "false", "--model.shrinkage", "false"]
    works = {
        "ccd, defaults": lambda: ours("padim", root),
        "ccd, as published": lambda: ours("padim", root, published),
        "anomalib": lambda: theirs("padim", root),
    }
    compare("PaDiM, fit and test with pictures", works, rounds)


def neighbours(rounds: int, train: int, test: int) -> None:
    """The same of a memory bank. The peer's coreset takes minutes for a hundred images: --train 50 is enough to see."""
    root = images(train, test)
    works = {
        "ccd, defaults": lambda: ours("neighbours", root),
        "anomalib, coreset of 0.1": lambda: theirs("patchcore", root),
    }
    compare("Neighbours and PatchCore, fit and test with pictures", works, rounds)


def memory(few: int, many: int) -> None:
    """How the peak memory of a fit grows with the number of images."""
    print("\n| peak memory of a PaDiM fit | images | MiB | growth an image |\n| --- | --- | --- | --- |")
    kept = ["--data.cache_dir", str(FOLDER / "cache")]
    works: dict[str, Callable[[Path], list[Took]]] = {
        "ccd": lambda root: ours("padim", root, fit_only=True),
        "ccd with --data.cache_dir": lambda root: ours("padim", root, kept, fit_only=True),
        "anomalib": lambda root: theirs("padim", root, fit_only=True),
    }
    for name, work in works.items():
        peaks = []
        for count in (few, many):
            root = FOLDER / f"set_{count}"
            if not root.exists():
                synthesize(root, "colonoscopy", size=SIZE, train=count, test_good=1, test_abnormal=3)
            peaks.append(work(root)[0].peak)
        growth = (peaks[1] - peaks[0]) / (many - few)
        print(f"| {name} | {few}, {many} | {peaks[0]:.0f}, {peaks[1]:.0f} | {growth:.3f} MiB |", flush=True)


def start_up(rounds: int) -> None:
    """CPU seconds before anything begins."""
    # Not its command line, which does not start beside jsonargparse 4.40 or newer: what any script of it imports.
    imports = ("data import Folder", "engine import Engine", "models import Padim")
    (FOLDER / "help.py").write_text("\n".join(f"from anomalib.{one}" for one in imports))
    (FOLDER / "ccd.py").write_text("import sys\nfrom ccd_lightning.cli import main\nsys.exit(main(sys.argv[1:]))\n")
    works = {"ccd": lambda: [process(["ccd.py", "fit", "--help"])], "anomalib": lambda: [process(["help.py"])]}
    found = in_turns(works, rounds)
    ours_cpu, peer_cpu = (statistics.median(turn[0].cpu for turn in turns) for turns in found.values())
    print(
        f"`ccd fit --help`: {ours_cpu:.1f} s of CPU; importing anomalib's Folder, Engine and Padim: {peer_cpu:.1f} s;",
        end="",
    )
    print(f" ratio {ours_cpu / peer_cpu:.2f}\n")


def pretraining(rounds: int) -> None:
    """A step of CCD and one of lightly's SimCLR, both forward and backward, for each view of 64 px."""
    from lightly.loss import NTXentLoss  # type: ignore[import-not-found]
    from lightly.models.modules import SimCLRProjectionHead  # type: ignore[import-not-found]

    torch.set_num_threads(1)
    module, network = CCD(position_weight=0.0), create_network("resnet18").train()
    head, loss = SimCLRProjectionHead(512, 512, 128), NTXentLoss(temperature=0.2)
    views = torch.rand(16, 2, 4, 3, 64, 64)  # of 16 images, two of each of four distributions
    batch = {"views": views, "augmentation": torch.arange(4).expand(16, -1)}
    pairs = views.movedim(1, 0).flatten(1, 2)  # (2, 64, 3, 64, 64)

    def own() -> None:
        module.total(module.losses(batch)).backward()

    def peer() -> None:
        loss(*(head(network(part)) for part in pairs)).backward()

    spent: dict[str, list[float]] = {"own": [], "peer": []}
    for _ in range(rounds):
        for name, work in (("own", own), ("peer", peer)):
            start = time.process_time()
            work()
            spent[name].append(time.process_time() - start)
    ours_cpu, peer_cpu = (statistics.median(times) for times in spent.values())
    print(f"A step of CCD on 128 views of 64 px takes {ours_cpu / peer_cpu:.2f} times one of lightly's SimCLR.\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--train", type=int, default=200)
    parser.add_argument("--test", type=int, default=120)
    parser.add_argument("--many", type=int, default=1000, help="images of the second fit whose memory is measured")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    FOLDER.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.save(create_network("resnet18").state_dict(), WEIGHTS)
    if "start" in options.parts:
        start_up(options.rounds)
    if "step" in options.parts:
        pretraining(options.rounds)
    if "padim" in options.parts:
        padim(options.rounds, options.train, options.test)
    if "neighbours" in options.parts:
        neighbours(options.rounds, options.train, options.test)
    if "memory" in options.parts:
        memory(200, options.many)
