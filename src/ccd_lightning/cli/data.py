"""`ccd data`: the embedded data sets."""

from __future__ import annotations

import argparse
from pathlib import Path


def run_data(words: list[str]) -> None:
    """Runs one of the data commands."""
    arguments = _parser().parse_args(words)
    from ccd_lightning.data.synthetic import baselines, synthesize

    root = arguments.root or Path("data") / f"synthetic_{arguments.name}"
    counts = {"train": arguments.train, "test_good": arguments.test_good, "test_abnormal": arguments.test_abnormal}
    synthesize(root, arguments.name, size=arguments.size, seed=arguments.seed, **counts)
    print(f"{root}: {sum(counts.values())} images of {arguments.size} px")
    if arguments.baselines:
        print("Image AUROC without learning anything (0.5 is chance):")
        for name, value in baselines(root).items():
            print(f"  {name:13} {value:.3f}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("ccd data", description="Make, and look at, data sets.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    make = commands.add_parser("synthesize", help="make procedural colonoscopy or fundus images, with exact masks")
    make.add_argument("--name", choices=("colonoscopy", "fundus"), default="colonoscopy", help="what to show")
    make.add_argument("--root", type=Path, help="the folder to make; default: data/synthetic_NAME")
    make.add_argument("--size", type=int, default=128, help="side of the images in pixels; default: 128")
    make.add_argument("--seed", type=int, default=0, help="decides the images; default: 0")
    make.add_argument("--train", type=int, default=320, help="normal training images; default: 320")
    make.add_argument("--test_good", type=int, default=200, help="normal test images; default: 200")
    make.add_argument("--test_abnormal", type=int, default=210, help="abnormal test images; default: 210")
    make.add_argument("--baselines", action="store_true", help="print how far one gets without learning anything")
    return parser
