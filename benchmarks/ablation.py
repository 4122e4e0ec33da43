"""What each term of pretraining's loss and each family of strong augmentations adds to PaDiM: docs/ablation.md.

    python benchmarks/ablation.py                     # the synthetic sets
    python benchmarks/ablation.py --head_ct DIR       # and head CT slices: train/good, test/good, test/hemorrhage
    python benchmarks/ablation.py --report            # only write the document, from what is there
    python benchmarks/ablation.py --size 128 --workers 4 -- --data.num_workers 4 --data.views.augment_on=device

The words after `--` are added to each `ccd` command; those that begin with --data.views. (written with a =) to
pretraining alone. Finished cells are kept in .bench/ablation/ and not run again; an interrupted one begins anew.
"""

from __future__ import annotations

import argparse
import fcntl
import gc
import json
import multiprocessing
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from ablation_grid import BATCH, FAMILIES, LOSSES, SETS, TERMS, UNTRAINED, Cell, Settings, grid
from ablation_report import PRETEXT, hand_written, write
from ccd_lightning.cli import main

VIEWS = "--data.views."


def run_cell(cell: Cell, settings: Settings, words: list[str]) -> None:
    """Pretrains, fits PaDiM, tests it, and keeps the results but no checkpoint."""
    place = settings.place(cell)
    runs = place / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    try:
        weights = "null"
        if cell.terms != UNTRAINED:
            ccd(pretraining(cell, settings, runs) + words)
            weights = str(runs / "ccd")
            (place / "pretext.json").write_text(json.dumps(pretext_accuracies(runs / "ccd" / "latest")) + "\n")
        rest = [word for word in words if not word.startswith(VIEWS)]
        ccd([*fit("padim", cell, settings, runs), "--model.encoder.weights", weights, *rest])
        ccd(["test", "--ckpt_path", str(runs / "padim" / "latest"), *rest])
        for name in ("predictions.csv", "metrics.json"):  # this one last: it says that the cell is finished
            (runs / "padim" / "latest" / name).replace(place / name)
    finally:
        shutil.rmtree(runs, ignore_errors=True)
        gc.collect()  # trainer and model refer to each other: without, memory grows by a hundred MB or more a cell


def pretraining(cell: Cell, settings: Settings, runs: Path) -> list[str]:
    """The command that pretrains: as many steps on every set, the encoder kept being the last one."""
    steps = str(settings.steps)
    length = ["--trainer.max_epochs=-1", "--trainer.max_steps", steps]
    saved = ["--trainer.check_val_every_n_epoch", "null", "--trainer.val_check_interval", steps]
    family = f"{VIEWS}family=ccd_lightning.transforms.strong.{cell.family}"
    sizes = [f"{VIEWS}size={settings.view}", f"{VIEWS}patch_size={settings.patch}"]
    weights = [f"--model.{loss}_weight={float(loss in TERMS[cell.terms])}" for loss in LOSSES]
    batch = ["--data.batch_size", str(BATCH), "--data.num_workers", "0"]
    return [*fit("ccd", cell, settings, runs), *length, *saved, family, *sizes, *weights, *batch]


def fit(model: str, cell: Cell, settings: Settings, runs: Path) -> list[str]:
    """The words that pretraining and PaDiM share."""
    return [
        *("fit", "--config", f"{model}_{SETS[cell.data]}", "--seed_everything", str(cell.seed)),
        *("--data.root", str(settings.root(cell.data)), "--data.size", str(settings.size)),
        *("--trainer.logger.init_args.save_dir", str(runs), "--trainer.logger.init_args.name", model),
    ]


def ccd(words: list[str]) -> None:
    """Runs a command, or raises."""
    if code := main(words):
        raise KeyboardInterrupt if code in (130, 143) else RuntimeError(f"exit code {code} of: ccd {' '.join(words)}")


def pretext_accuracies(run: Path) -> dict[str, float]:
    """The last accuracies on held-out images of the tasks that were learned, from the run's event file."""
    from tensorboard.backend.event_processing import event_accumulator  # type: ignore[import-untyped]

    events = event_accumulator.EventAccumulator(str(run)).Reload()
    return {name: events.Scalars(name)[-1].value for name in PRETEXT.values() if name in events.Tags()["scalars"]}


@contextmanager
def claimed(place: Path) -> Iterator[bool]:
    """Whether a cell is this process's to run; the system takes back what a process that died had claimed."""
    place.mkdir(parents=True, exist_ok=True)
    with (place / "claim").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def work(cells: list[Cell], settings: Settings, words: list[str], turn: Synchronized[int]) -> None:
    """Runs the cells whose turn it is until there is none left or nobody waits for them any more."""
    terminal = os.fdopen(os.dup(1), "w", buffering=1)  # for one line a cell; all else goes to the cell's log
    parent, start = multiprocessing.parent_process(), time.monotonic()
    before = sum(map(settings.finished, cells))
    while parent is None or parent.is_alive():
        with turn.get_lock():
            index, turn.value = turn.value, turn.value + 1
        if index >= len(cells):
            return
        cell = cells[index]
        with claimed(settings.place(cell)) as mine:
            if mine and not settings.finished(cell):
                result = logged(cell, settings, words)
                spent, done = time.monotonic() - start, sum(map(settings.finished, cells))
                rest = spent * (len(cells) - done) / max(done - before, 1)
                times = f"{timedelta(seconds=int(spent))} elapsed, about {timedelta(seconds=int(rest))} to go"
                terminal.write(f"{done}/{len(cells)} {cell.name}: {result}, {times}\n")


def logged(cell: Cell, settings: Settings, words: list[str]) -> str:
    """Runs a cell with all it says going to its log; returns what became of it."""
    place = settings.place(cell)
    with (place / "log.txt").open("w") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        try:
            run_cell(cell, settings, words)
        except (Exception, SystemExit):
            traceback.print_exc()
            return f"FAILED, see {place / 'log.txt'}"
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    auroc = json.loads((place / "metrics.json").read_text())["metrics"].get("image/auroc", float("nan"))
    return f"image AUROC {auroc:.3f}"


def run(cells: list[Cell], settings: Settings, workers: int, words: list[str]) -> int:
    """Shares the cells out to processes; returns the exit code."""
    # Before the workers import torch, which reads it: cores are shared out as well.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    os.environ.setdefault("COLUMNS", "100")
    for data in sorted({cell.data for cell in cells} - {"head_ct"}):
        ccd(["data", "synthesize", "--name", data, "--root", str(settings.root(data)), "--size", str(settings.size)])
    context = multiprocessing.get_context("spawn")
    turn = context.Value("i", 0)
    processes = [context.Process(target=work, args=(cells, settings, words, turn)) for _ in range(workers)]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join()
    except KeyboardInterrupt:
        turn.value = len(cells)  # no further ones
        for process in processes:
            process.join()
        return 130
    missing = [cell.name for cell in cells if not settings.finished(cell)]
    if missing:
        print(f"{len(missing)} of {len(cells)} cells are not finished: {', '.join(missing)}", file=sys.stderr)
    return 1 if missing else 0


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--head_ct", type=Path, metavar="DIR", help="the folder of the head CT slices")
    parser.add_argument("--sets", nargs="+", choices=SETS, help="default: the synthetic ones, and head_ct if given")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--terms", nargs="+", choices=TERMS, default=tuple(TERMS))
    for name, meaning in (
        ("seeds", "their number"),
        ("size", "of the images in pixels"),
        ("steps", "of a pretraining"),
    ):
        default = getattr(Settings, name)
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning}; default: {default}")
    parser.add_argument("--workers", type=int, default=2, help="processes that share the cells; default: %(default)s")
    parser.add_argument("--report", action="store_true", help="run nothing, write the document")
    parser.add_argument("--output", type=Path, default=Path("docs/ablation.md"), help="default: %(default)s")
    parser.add_argument("words", nargs="*", metavar="-- WORD", help="added to each ccd command")
    arguments = parser.parse_args()
    arguments.sets = arguments.sets or [data for data in SETS if data != "head_ct" or arguments.head_ct]
    if "head_ct" in arguments.sets and not (arguments.head_ct and arguments.head_ct.is_dir()) and not arguments.report:
        parser.error("--head_ct DIR is needed for the set head_ct, a folder that exists")
    return arguments


if __name__ == "__main__":
    given = parse()
    shared = Settings(size=given.size, steps=given.steps, seeds=given.seeds, head_ct=given.head_ct)
    chosen = grid(given.sets, given.families, given.terms, given.seeds)
    hand_written(given.output)  # fails now rather than after hours
    code = 0 if given.report else run(chosen, shared, given.workers, given.words)
    write(shared, given.output)
    print(f"Written to {given.output}")
    raise SystemExit(code)
