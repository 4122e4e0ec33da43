"""What a fit costs beyond the passes through its networks: a whole `ccd fit` of the demo, and a step of IGD.

    python benchmarks/fits.py             # a quarter of an hour
    python benchmarks/fits.py --epochs 2  # a shorter fit, in which the start counts more

Ratios of CPU time, one thread, of passes with equal numbers of images through the same networks with trivial losses.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ccd_lightning.data.synthetic import synthesize
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.models.igd.descriptor import Descriptor
from ccd_lightning.modules.igd import IGD
from speed import best, command

TRAIN, HELD_OUT, BATCH = 256, 64, 16  # images of the demo's set
VIEWS, PATCHES = (8, 64), (4, 48)  # numbers and sides of an image's views and patches, as in configs/ccd_synthetic.yaml
VALIDATED = 9  # epochs between validations


def report(name: str, bare: float, spent: float, compared: str) -> None:
    """Prints a row, with CPU seconds of the bare passes and of all of it."""
    print(f"| {name} | {bare / spent:.2f} | {compared}: {bare:.1f} of {spent:.1f} s of CPU |", flush=True)


def whole_fit(epochs: int) -> None:
    """CPU time of the process `ccd fit --config ccd_synthetic`, beside the encoder's passes."""
    with tempfile.TemporaryDirectory() as folder:
        synthesize(root := Path(folder) / "set", "colonoscopy")
        words = ["fit", "--config", "ccd_synthetic", "--data.root", str(root)]
        words += ["--trainer.max_epochs", str(epochs), "--trainer.logger.init_args.save_dir", folder]
        spent = command(["-m", "ccd_lightning", *words])
    encoder = Encoder().train()
    step, forward = passes(encoder, backward=True), passes(encoder, backward=False)
    step(), forward()
    steps, checks = median(step), median(forward)
    validations = len({epoch for epoch in range(epochs) if (epoch + 1) % VALIDATED == 0} | {epochs - 1})
    bare = epochs * TRAIN // BATCH * steps + validations * HELD_OUT // BATCH * checks
    print(
        f"| `ccd fit` of the demo, {epochs} epochs | {bare / spent:.2f} | its encoder's passes: {bare:.0f} s of CPU |"
    )


def passes(encoder: Encoder, backward: bool) -> Callable[[], None]:
    """The passes of a batch's views and patches through an encoder."""
    batches = [torch.rand(BATCH * count, 3, side, side) for count, side in (VIEWS, PATCHES)]

    def work() -> None:
        with torch.set_grad_enabled(backward):
            for images in batches:
                output = encoder.features(images).sum()
                if backward:
                    output.backward()

    return work


def median(work: Callable[[], None], rounds: int = 9) -> float:
    """The median of a work's CPU time in seconds."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return float(np.median(times))


def igd_step(images: int = 2) -> None:
    """IGD's losses and their gradients on both scales as published, 225 windows an image, beside its networks."""
    torch.manual_seed(0)
    detector, batch = IGD().train(), torch.rand(images, 3, 256, 256)
    detector.encoder.requires_grad_(False)
    detector.local_encoder.requires_grad_(False)
    rng, own = np.random.default_rng(0), torch.arange(images)
    scales = ((detector.whole, detector.encoder), (detector.local, detector.local_encoder))
    shown = [descriptor.training_views(batch, rng, images, own, None) for descriptor, _ in scales]
    for descriptor, _ in scales:
        descriptor.gaussian.scale.fill_(1.0)

    def losses() -> None:
        for (descriptor, encoder), views in zip(scales, shown, strict=True):
            terms = descriptor.losses(encoder, views, torch.rand(len(views)), lambda latent: latent.roll(1, 0))
            sum(terms.values(), torch.zeros(())).backward()

    def networks() -> None:
        for (descriptor, encoder), views in zip(scales, shown, strict=True):
            igd_networks(descriptor, encoder, views)

    bare, spent = best(networks, losses)
    print(
        f"| a step of IGD, {images} images of 256 px | {bare / spent:.2f} | its networks' passes: {bare:.1f} s of CPU |"
    )


def igd_networks(descriptor: Descriptor, encoder: Encoder, views: torch.Tensor) -> None:
    """The passes that a step needs: reconstructions and interpolations through the decoder, and the critic on both."""
    latent = descriptor.latent(encoder.features(views))
    made = descriptor.decoder(torch.cat([latent, latent]))
    total = made.sum() + descriptor.critic(made[len(views) :]).sum() + descriptor.critic(made.detach()).sum()
    total.backward()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=25, help="of the fit; the demo's by default")
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    print("| what | bare passes / all of it | beside |\n| --- | --- | --- |")
    igd_step()
    whole_fit(options.epochs)
