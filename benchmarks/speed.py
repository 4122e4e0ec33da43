"""Speed and memory as ratios within one run.

    python benchmarks/speed.py            # make bench: all of it
    python benchmarks/speed.py --check    # make bench-check: the rows that have a limit, in five minutes

Each line is measured beside what it is compared with, in turns, best of three; machines differ, ratios hardly do.
With --check, a ratio beyond its limit makes the exit code 1. Limits leave room for the noise of shared machines.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.data.synthetic import synthesize
from ccd_lightning.export import OPSET, open_onnx, write_onnx
from ccd_lightning.modules.ccd import CCD
from ccd_lightning.modules.igd import IGD
from ccd_lightning.modules.neighbours import Neighbours
from ccd_lightning.modules.padim import PaDiM
from ccd_lightning.transforms.patches import windows
from ccd_lightning.transforms.pretext import PretextViews
from ccd_lightning.transforms.weak import WeakViews
from ccd_lightning.transforms.weak_draws import WeakSettings

SIZE, BATCH = 256, 32
JITTER = (0.4, 0.4, 0.4, 0.1)  # of brightness, contrast, saturation and hue
exceeded: list[str] = []  # names of the rows that are beyond their limits


def best(*works: Callable[[], object], rounds: int = 3) -> list[float]:
    """The shortest CPU time of each work in seconds, the works taken in turns."""
    times = [[] for _ in works]  # type: list[list[float]]
    for _ in range(rounds):
        for work, spent in zip(works, times, strict=True):
            start = time.process_time()
            work()
            spent.append(time.process_time() - start)
    return [min(spent) for spent in times]


def command(words: list[str]) -> float:
    """CPU seconds of a Python process, children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def report(name: str, value: float, unit: str, compared: str, limit: float = float("inf")) -> None:
    """Prints a row, and remembers a value beyond its limit."""
    allowed = f"at most {limit}" if limit < float("inf") else ""
    print(f"| {name} | {value:.2f} {unit} | {compared} | {allowed} |", flush=True)
    if value > limit:
        exceeded.append(name)


def help_texts() -> None:
    """Help of the light commands in seconds, of `fit` against importing LightningCLI."""
    for words in (["--help"], ["data", "--help"]):
        report(f"`ccd {' '.join(words)}`", command(["-m", "ccd_lightning", *words]), "s of CPU", "")
    bare = min(command(["-c", "import lightning.pytorch.cli"]) for _ in range(2))
    fit = min(command(["-m", "ccd_lightning", "fit", "--help"]) for _ in range(2))
    report("`ccd fit --help`", fit / bare, "times", f"importing LightningCLI alone, {bare:.1f} s of CPU", 1.4)


def statistics() -> None:
    """Fitting and scoring of the detectors without gradients, against the encoder's forward pass alone."""
    torch.manual_seed(0)
    images = torch.rand(BATCH, 3, SIZE, SIZE)
    for name, detector, limits in (("PaDiM", PaDiM(), (1.3, 1.3)), ("Neighbours", Neighbours(), (1.3, 1.6))):
        detector.eval()
        with torch.no_grad():
            bare = partial(detector.encoder.maps, images, detector.features.layers)
            alone, collected = best(bare, partial(detector.collect, images))
            compared = f"the encoder's levels alone, {BATCH / alone:.0f} images/s at {SIZE} px"
            report(f"{name}, a batch of a fit", collected / alone, "times", compared, limits[0])
            for _ in range(4):
                detector.collect(torch.rand(BATCH, 3, SIZE, SIZE))
            detector.fit_statistics()
            alone, scored = best(bare, partial(detector, images))
            report(f"{name}, score and map", scored / alone, "times", compared, limits[1])


def weak_views() -> None:
    """Weak views of an image against torchvision's transforms of PIL images, as the published code composes them."""
    settings, count = WeakSettings(64, (0.2, 1.0)), 200
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    views, picture = WeakViews(settings), Image.fromarray(image)
    views.seed(0)
    published = transforms.Compose(
        [
            transforms.RandomResizedCrop(64, settings.scale),
            transforms.RandomApply([transforms.ColorJitter(*JITTER)], p=settings.jitter),
            transforms.RandomGrayscale(settings.grey),
            transforms.RandomHorizontalFlip(settings.flip),
        ]
    )
    pil, own = best(lambda: [published(picture) for _ in range(count)], lambda: [views(image) for _ in range(count)])
    compared = f"torchvision's transforms of a PIL image, {count / pil:.0f} views/s of 64 px"
    report("a weak view", own / pil, "times", compared, 0.7)


def scoring_windows() -> None:
    """IGD's score and map of one image against the forward passes of its nets alone."""
    torch.manual_seed(0)
    detector, image = IGD().eval(), torch.rand(1, 3, SIZE, SIZE)

    def bare() -> None:
        for descriptor, encoder, shown in (
            (detector.whole, detector.encoder, image),
            (detector.local, detector.local_encoder, windows(image, 32, 16).flatten(0, 2)),
        ):
            descriptor.decoder(descriptor.latent(encoder.features(shown)))

    with torch.no_grad():
        alone, scored = best(bare, lambda: detector(image))
    compared = f"its nets alone, {alone:.2f} s, 225 windows"
    report("IGD, score and map of one image", scored / alone, "times", compared, 1.5)


class Levels(torch.nn.Module):
    """The levels that a detector reads of its encoder, and nothing else."""

    def __init__(self, detector: PaDiM) -> None:
        super().__init__()
        self.encoder, self.layers = detector.encoder, detector.features.layers

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Feature maps of images (B, 3, H, W)."""
        return tuple(self.encoder.maps(images, self.layers))


def exported_encoder() -> None:
    """PaDiM in onnxruntime against its encoder alone in onnxruntime, one thread."""
    import onnxruntime

    torch.manual_seed(0)
    detector = PaDiM().eval()
    detector.preprocessing = Preprocessing(SIZE)
    images, options = torch.rand(1, 3, SIZE, SIZE), onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        detector.gaussian.update(detector.embed(torch.rand(4, 3, SIZE, SIZE)))
        detector.gaussian.fit()
        write_onnx(detector, whole := Path(folder) / "detector.onnx", "float")
        program = torch.onnx.export(Levels(detector), (images,), opset_version=OPSET, dynamo=True, verbose=False)
        assert program is not None
        program.save(alone := Path(folder) / "levels.onnx")
        runtime = open_onnx(whole, threads=1)
        session = onnxruntime.InferenceSession(alone, options, providers=["CPUExecutionProvider"])
        given = {session.get_inputs()[0].name: images.numpy()}
        bare, scored = best(lambda: session.run(None, given), lambda: runtime(images), rounds=10)
    report(
        "PaDiM in ONNX, one image", scored / bare, "times", f"its encoder alone in ONNX, {1 / bare:.0f} images/s", 1.6
    )


def exported() -> None:
    """ONNX in onnxruntime against torch, scores and maps, one thread each; IGD's larger batch needs 15 GB."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    padim, igd = PaDiM().eval(), IGD().eval()
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        padim.gaussian.update(padim.embed(torch.rand(4, 3, SIZE, SIZE)))
        padim.gaussian.fit()
        for descriptor in (igd.whole, igd.local):
            descriptor.gaussian.scale.fill_(1.0)
        for name, detector in (("PaDiM", padim), ("IGD", igd)):
            detector.preprocessing = Preprocessing(SIZE)
            write_onnx(detector, file := Path(folder) / "detector.onnx", "float")
            runtime = open_onnx(file, threads=1)
            for batch in (1, BATCH):
                images = torch.rand(batch, 3, SIZE, SIZE)
                bare, scored = best(partial(detector, images), partial(runtime, images))
                report(f"{name} in ONNX, batch {batch}", scored / bare, "times", f"torch, {bare:.2f} s, one thread")
    torch.set_num_threads(threads)


def pretraining() -> None:
    """A step of pretraining with its views against the bare network on the same views."""
    torch.manual_seed(0)
    module, views = CCD(), PretextViews()
    image = torch.randint(0, 256, (3, 128, 128), dtype=torch.uint8)

    def draw() -> dict[str, torch.Tensor]:
        items = [views(image, (0, 0, index)) for index in range(16)]
        batch = {name: torch.stack([item[name] for item in items]) for name in items[0]}
        return {name: value.float() / 255 if value.dtype == torch.uint8 else value for name, value in batch.items()}

    ready = draw()

    def bare() -> None:
        for name in ("views", "patches"):
            module.encoder.features(ready[name].flatten(0, -4)).sum().backward()

    network, step = best(bare, lambda: module.total(module.losses(draw())).backward())
    report(
        "pretraining step, views drawn in the same process",
        step / network,
        "times",
        f"the bare network, {network:.2f} s",
        1.5,
    )


def peak(words: list[str], folder: str) -> float:
    """Peak memory of a command in MiB, without that of processes it starts."""
    code = (
        f"import re; from pathlib import Path; from ccd_lightning.cli import main; main({words!r}); "
        # of this process alone; ru_maxrss would inherit the parent's
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def fit_words(root: Path, size: int) -> list[str]:
    """What fits a PaDiM without pretraining."""
    words = ["fit", "--config", "padim_folder", "--data.root", str(root)]
    return [*words, "--model.encoder.weights", "null", "--data.size", str(size)]


def memory() -> None:
    """Peak memory of fitting PaDiM through the command line, for two sizes of data set."""
    with tempfile.TemporaryDirectory() as folder:
        peaks = []
        for count in (100, 400):
            root = Path(folder) / str(count)
            synthesize(root, "colonoscopy", size=128, train=count, test_good=1, test_abnormal=3)
            peaks.append(peak(fit_words(root, 128), folder))
    pixels = 300 * 128 * 128 * 3 / 2**20
    report("PaDiM fit, memory for 300 more images", peaks[1] - peaks[0], "MiB", f"their pixels alone: {pixels:.0f} MiB")


def evaluation() -> None:
    """Peak memory beyond the imports, and time, of evaluating many images with maps and masks."""
    code = """
import re, time, torch
from pathlib import Path
from ccd_lightning.metrics.detection import DetectionMetrics
peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 1024
generator, metrics = torch.Generator().manual_seed(0), DetectionMetrics(2.0)
before, spent = peak(), 0.0
for index in range(2500):
    label, size = index % 2, (256, 256)
    low = torch.randn(1, 1, 64, 64, generator=generator)
    maps = torch.nn.functional.interpolate(low, size=size, mode='bilinear')[0].mul(0.5).exp()
    mask = torch.zeros(1, *size, dtype=torch.bool)
    mask[:, 40:80, 60:100] = mask[:, 150:160, 150:170] = bool(label)
    start = time.perf_counter()
    batch = {'label': torch.tensor([label]), 'kind': [str(label)], 'group': [''], 'path': [f'{index:04d}']}
    metrics.update(batch | {'mask': mask, 'has_mask': torch.tensor([True])}, maps.amax((1, 2)), maps)
    spent += time.perf_counter() - start
start = time.perf_counter()
metrics.compute(2.0)
print(peak() - before, spent / 2500 * 1000, time.perf_counter() - start)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    memory, update, compute = map(float, done.stdout.split())
    maps = 2500 * SIZE**2 * 4 / 2**20
    report("evaluating 2,500 images of 256 px, memory", memory, "MiB", f"their maps alone: {maps:.0f} MiB")
    report("collecting an image and its map", update, "ms", "")
    report("all metrics of them, with 2,000 resamples", compute, "s", "")


def memory_of_predicting() -> None:
    """Peak memory of predicting images that have no labels, with overlays and maps, for two numbers of them."""
    counts = (200, 2000)
    with tempfile.TemporaryDirectory() as folder:
        root, peaks = Path(folder) / "set", []
        synthesize(root, "colonoscopy", size=64, train=40, test_good=50, test_abnormal=3)
        peak(fit_words(root, 64), folder)
        for count in counts:
            images = Path(folder) / str(count)
            images.mkdir()
            for number in range(count):
                (images / f"{number}.png").hardlink_to(root / f"test/good/{number % 50:04}.png")
            peaks.append(peak(["predict", "--images", str(images), "--maps", "png"], folder))
    report(
        f"`ccd predict --images`, memory of {counts[1]} images", peaks[1], "MiB", f"of {counts[0]}: {peaks[0]:.0f} MiB"
    )


def synthesis() -> None:
    """Images a second on one core."""
    for name in ("colonoscopy", "fundus"):
        code = (
            "import time, numpy as np; from ccd_lightning.data.synthetic import SETS, render\n"
            f"kind = SETS[{name!r}].kinds[-1]; render({name!r}, kind, np.random.default_rng(0), 128)\n"
            "start = time.process_time()\n"
            f"for seed in range(200): render({name!r}, kind, np.random.default_rng(seed), 128)\n"
            "print(200 / (time.process_time() - start))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        report(f"painting {name}, 128 px", float(done.stdout), "images/s", "one core")


def run(check: bool) -> int:
    """Prints the table; returns the exit code."""
    torch.set_num_threads(1 if check else torch.get_num_threads())
    print(f"{os.cpu_count()} cores, torch {torch.__version__}\n")
    print("| what | measured | against | limit |\n| --- | --- | --- | --- |")
    limited = (statistics, scoring_windows, exported_encoder, pretraining, weak_views, help_texts)
    others = (synthesis, exported, memory, memory_of_predicting, evaluation)
    for part in limited if check else (*limited, *others):
        part()
    if exceeded:
        print(f"\nBeyond the limit: {', '.join(exceeded)}", file=sys.stderr)
    return 1 if check and exceeded else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="measure what has a limit, and fail beyond it")
    raise SystemExit(run(parser.parse_args().check))
