"""`ccd data`: generates, checks and prepares data sets. Nothing here needs torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ccd_lightning.cli.data_options import data_parser
from ccd_lightning.cli.own_layout import names_class, read_own_layout
from ccd_lightning.commands import command
from ccd_lightning.errors import UserError
from ccd_lightning.ranges import seed_in_range
from ccd_lightning.text_tables import print_table
from ccd_lightning.writing import atomic_write

if TYPE_CHECKING:
    from ccd_lightning.data.checking import Check
    from ccd_lightning.data.manifest import Manifest
    from ccd_lightning.data.preprocessing import Preprocessing

PLACES = (  # default data folders of the shipped configs, and the suffixes of these configs' names
    ("synthetic_colonoscopy", "synthetic"),
    ("synthetic_fundus", "synthetic_fundus"),
    ("hyper_kvasir", "kvasir"),
    ("lag", "lag"),
    ("liu", "liu"),
)
SHOWN = 3  # number of printed files per sort of finding; the table contains all
PAIRS = 12  # maximum number of pairs in the picture


def run_data(argv: list[str]) -> None:
    """Runs one of the data commands."""
    arguments = data_parser().parse_args(argv)
    commands: dict[str, Callable[[argparse.Namespace], None]] = {
        "synthesize": _synthesize,
        "list": _list,
        "check": _check,
        "prepare": _prepare,
    }
    commands[arguments.command](arguments)


def _synthesize(arguments: argparse.Namespace) -> None:
    from ccd_lightning.data.synthetic import baselines, synthesize

    root = arguments.root or Path("data") / f"synthetic_{arguments.name}"
    counts = {"train": arguments.train, "test_good": arguments.test_good, "test_abnormal": arguments.test_abnormal}
    synthesize(root, arguments.name, size=arguments.size, seed=arguments.seed, **counts)
    print(f"{root}: {sum(counts.values())} images of {arguments.size} px")
    if arguments.baselines:
        print("Image AUROC without learning anything (0.5 is chance):")
        for name, value in baselines(root).items():
            print(f"  {name:13} {value:.3f}")


def _list(arguments: argparse.Namespace) -> None:
    """Prints which of the configs' data sets exist, and the known layouts."""
    from ccd_lightning.data.description import describe
    from ccd_lightning.data.recognition import LAYOUTS, read_layout

    for name, config in PLACES:
        folder: Path = arguments.root / name
        try:
            manifest, layout = read_layout(folder) if folder.exists() else (None, "")
            message = describe(manifest, layout) if manifest else "not found"
        except UserError as error:
            message = str(error).splitlines()[0].removeprefix(f"{folder}: ")
        print(f"{folder}: {message}\n  --config ccd_{config}, padim_{config} or igd_{config}")
    print("\nLayouts that are recognised:\n")
    print_table(["layout", "folders"], [[one.name, one.shape] for one in LAYOUTS])
    print("\ndata/README.md lists where to get each published set.")


def _check(arguments: argparse.Namespace) -> None:
    """Checks a data set, and prints and writes the findings."""
    from ccd_lightning.data.checking import NO_TRAINING, check, common_sizes
    from ccd_lightning.data.findings import Level, write_findings
    from ccd_lightning.data.grey_values import describe_levels
    from ccd_lightning.data.lesion_sizes import describe_lesions
    from ccd_lightning.data.preparing import pair_sheet
    from ccd_lightning.data.walking import count

    manifest = _read(arguments)
    preprocessing = _preprocessing(arguments)
    result = check(manifest, read=not arguments.table_only, preprocessing=preprocessing)
    if result.infos:
        print(f"sizes: {common_sizes(result.infos)}")
    if result.lesions:
        print(f"lesions: {describe_lesions(result.lesions, preprocessing, result.own_size)}")
    if result.levels:
        print(f"grey levels: {describe_levels(result.levels)}")
    _print_findings(result)
    table: Path = arguments.output / "findings.csv"
    write_findings(table, result.findings)
    written = [str(table)]
    if sheet := pair_sheet([pair for pair in result.pairs if {pair.train, pair.test} <= result.infos.keys()][:PAIRS]):
        with atomic_write(arguments.output / "pairs.png") as partial:
            sheet.save(partial, format="PNG")
        written.append(str(arguments.output / "pairs.png"))
    counts = ", ".join(count(result.count(level), level) for level in get_args(Level))
    message = f"{counts}: {', '.join(written)}"
    topics = {finding.topic for finding in result.findings if finding.level == "error"}
    if not topics:
        print(message)
        return
    advice = "fix these files, or leave them out" if topics != {NO_TRAINING} else "add normal images to train on"
    if any(pair.is_leak for pair in result.pairs):
        advice += (
            f"; `{command('data', 'prepare', '--root', arguments.root)}` leaves out training images"
            " that are also in the test set"
        )
    raise UserError(f"{arguments.root}: {message}. These errors would make training or testing invalid: {advice}.")


def _print_findings(result: Check) -> None:
    from ccd_lightning.data.findings import by_topic

    for (level, topic), findings in by_topic(result.findings).items():
        print(f"{level + ':':9}{topic}: {len(findings)}")
        for finding in findings[: SHOWN if level != "note" else 1]:
            print(f"           {finding.path}: {finding.message}")


def _prepare(arguments: argparse.Namespace) -> None:
    """Writes the split without training images that are also test images and, with --copy, images at working size."""
    from ccd_lightning.data.depth import describe_window
    from ccd_lightning.data.description import describe
    from ccd_lightning.data.duplicates import find_pairs
    from ccd_lightning.data.grey_values import measure_window
    from ccd_lightning.data.preparing import without_leaks, write_resized
    from ccd_lightning.data.walking import count

    manifest = _read(arguments)
    if manifest.flaws:
        raise UserError(
            f"{manifest.flaws[0]} `{command('data', 'check', '--root', arguments.root)}` lists all problems."
        )
    table: Path = arguments.output or Path(f"{arguments.root.resolve().name}.csv")
    if table.exists():
        raise UserError(f"{table}: this file exists already. Remove it, or give another one with --output FILE.")
    if not arguments.keep_leaks:
        before, manifest = len(manifest.rows), without_leaks(manifest, find_pairs(manifest))
        print(f"{count(before - len(manifest.rows), 'training image')} left out: test images, or of their patients")
    root: Path = manifest.root
    sized: tuple[str, ...] = ()
    if arguments.copy:
        preprocessing = _preprocessing(arguments)
        if preprocessing.fit == "letterbox":
            raise UserError(
                "--fit letterbox and --copy: the margin would become part of the images. Leave --copy"
                " out, and give the fit --data.fit letterbox."
            )
        size = preprocessing.size
        sized = ("--data.size", str(size if isinstance(size, int) else list(size)))
        if found := measure_window([row.path for row in manifest.select("train")], preprocessing)[0]:
            preprocessing = replace(preprocessing, window=found)
        manifest, root = write_resized(manifest, arguments.copy, preprocessing), arguments.copy
        if message := describe_window(preprocessing.window):
            print(f"In images of more than 8 bits, {message} (set others with --window)")
    manifest.write(table)
    print(f"{table}: {describe(manifest)}")
    config = ("--config", "ccd_folder")
    print(f"Next: {command('fit', *config, '--data.root', root, '--data.layout', table, *sized)}")


def _preprocessing(arguments: argparse.Namespace) -> Preprocessing:
    from ccd_lightning.data.preprocessing import Preprocessing

    size, crop = arguments.size, arguments.crop
    settings = {
        "size": size[0] if len(size) == 1 else size,
        "crop": crop[0] if crop and len(crop) == 1 else crop,
        "window": arguments.window,
        "fit": arguments.fit,
    }
    try:
        return Preprocessing.from_settings(settings)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(
            "--size takes one or two whole numbers, --crop takes four fractions (left, top, right, bottom) or auto."
        ) from error


def _read(arguments: argparse.Namespace) -> Manifest:
    from ccd_lightning.data.description import describe
    from ccd_lightning.data.recognition import read_layout

    seed_in_range("--split_seed", arguments.split_seed)
    root, layout = arguments.root, arguments.layout
    options = {"seed": arguments.split_seed, "groups": not arguments.no_groups, "axis": arguments.axis}
    manifest, layout = (
        read_own_layout(layout, root, **options) if names_class(layout) else read_layout(root, layout, **options)
    )
    print(f"{arguments.root} ({layout}): {describe(manifest)}")
    return manifest
