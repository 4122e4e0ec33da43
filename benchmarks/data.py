"""Reading data sets: checking, tables of a million rows, cached epochs.

    python benchmarks/data.py                  # 20,000 JPEG files of 576 x 720: 2 GB of disk, some minutes
    python benchmarks/data.py --images 2000

Each figure is a ratio within one run, or has its bound beside it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from ccd_lightning.data.checking import check
from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.images import read_image
from ccd_lightning.data.layouts import scan_folder
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.data.synthetic import render

BASES = 12  # different scenes; each file is one of them, shifted, with noise of its own
ROWS = 1_000_000


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def write_part(folder: Path, indices: range) -> None:
    """Writes some of the files; every fifth is a test image."""
    scenes = [
        np.asarray(
            Image.fromarray(render("colonoscopy", "good", np.random.default_rng(base), 360).image).resize((720, 576))
        )
        for base in range(BASES)
    ]
    for index in indices:
        rng = np.random.default_rng(index)
        shifted = np.roll(scenes[index % BASES], tuple(rng.integers(0, 500, 2)), (0, 1))
        noisy = shifted.astype(np.int16) + rng.integers(-6, 7, (576, 720, 1), dtype=np.int16)
        path = folder / ("test" if index % 5 == 0 else "train") / "good" / f"{index:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def checking(folder: Path) -> None:
    """All of `ccd data check` against decoding the same files, with as many threads."""
    manifest = scan_folder(folder)
    paths = [row.path for row in manifest.rows]

    def decode(path: Path) -> None:
        with Image.open(path) as image:
            image.load()

    def bare() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(decode, paths))

    check(scan_folder(folder))  # once, so that both find the files in memory
    alone, checked = seconds(bare), seconds(lambda: check(manifest))
    print(
        f"| ccd data check, {len(paths)} JPEG files | {alone / checked:.2f} times"
        f" | bare parallel decoding, {len(paths) / alone:.0f} images/s |"
    )


def cached_epochs(folder: Path) -> None:
    """Images a second of the loader, with its array, against decoding each time: CPU time of one process."""

    def cpu(run: Callable[[], object]) -> float:
        start = time.process_time()
        run()
        return time.process_time() - start

    data = AnomalyDataModule(str(folder), batch_size=32, validation=0.1, check_leaks=False)
    data.setup("fit")
    paths = [row.path for row in data.datasets["train"].rows]
    decoding = cpu(lambda: [read_image(path, Preprocessing(256)) for path in paths[:400]]) / min(400, len(paths))
    loading = min(cpu(lambda: deque(data.train_dataloader(), maxlen=0)) for _ in range(3)) / len(paths)
    print(
        f"| loader on decoded images, 256 px | {decoding / loading:.1f} times"
        f" | decoding JPEG each time, {1 / decoding:.0f} images/s |"
    )


def table() -> None:
    """Time and memory of reading and checking a manifest of a million rows, without opening images."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        lines = ["path,split,kind,mask,group"]
        for patient in range(ROWS // 1000):
            (root / f"p{patient}").mkdir()
            split = "test" if patient % 5 == 0 else "train"
            kind = "polyp" if patient % 10 == 0 else "good"
            lines += [f"p{patient}/frame_{index:04d}.jpg,{split},{kind},,patient{patient}" for index in range(1000)]
        (root / "table.csv").write_text("\n".join(lines))
        (root / "p0/frame_0000.jpg").touch()  # by which the folder of the paths is found
        # The listing of folders is replaced: a million files would have to be made.
        code = (
            "import os, resource, time; from pathlib import Path\n"
            "names = [f'frame_{index:04d}.jpg' for index in range(1000)]; os.listdir = lambda folder: names\n"
            "from ccd_lightning.data.checking import check; from ccd_lightning.data.recognition import read_layout\n"
            f"start = time.perf_counter(); manifest, _ = read_layout(Path({str(root / 'table.csv')!r}))\n"
            "found = check(manifest, read=False); spent = time.perf_counter() - start\n"
            "assert not found.findings and len(manifest.rows) == 1_000_000\n"
            "print(spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    spent, memory = map(float, done.stdout.split())
    print(f"| manifest of {ROWS:,} rows, read and checked | {spent:.1f} s, {memory:.0f} MiB | bounds: 15 s, 1024 MiB |")


def main() -> None:
    """Measures all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    count = parser.parse_args().images
    print(f"{os.cpu_count()} cores\n\n| what | measured | against |\n| --- | --- | --- |")
    table()
    with tempfile.TemporaryDirectory() as folder:
        workers = os.cpu_count() or 1
        with ProcessPoolExecutor(workers) as pool:
            list(
                pool.map(write_part, [Path(folder)] * workers, [range(part, count, workers) for part in range(workers)])
            )
        checking(Path(folder))
        for path in sorted((Path(folder) / "train/good").iterdir())[1000:]:
            path.unlink()
        cached_epochs(Path(folder))


if __name__ == "__main__":
    main()
