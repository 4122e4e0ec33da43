"""Checks of a data set for problems that training would not notice, or only notice too late."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from ccd_lightning.data.depth import DEEP
from ccd_lightning.data.duplicates import Pair, find_duplicates, shared_groups
from ccd_lightning.data.file_info import ImageInfo, inspect_files
from ccd_lightning.data.findings import Finding, Level, without_name
from ccd_lightning.data.grey_values import count_levels, few_levels, measure_window
from ccd_lightning.data.manifest import GOOD, Manifest, one_sided
from ccd_lightning.data.mask_checks import check_masks
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.errors import UserError

MODES = {
    "L": "grey", "LA": "grey with alpha", "P": "palette", "PA": "palette with alpha", "RGBA": "alpha",
    "CMYK": "CMYK", "1": "one bit", "YCbCr": "YCbCr",
}  # fmt: skip
MIN_SIDE = 8  # px: minimum length of the shorter side of a usable image
NO_TRAINING = "no training images"
LEFT_OUT_IMAGES = re.compile(r"\d+ images? (?!file)")  # among what a folder leaves out; a table does so on purpose
DEPTHS = {"I": "whole numbers of more than 16 bits, or with a sign", "F": "floating point"}


@dataclass
class Check:
    """Results of `check`.

    Attributes:
        findings: Findings, sorted by level and topic.
        infos: Information about each readable image.
        pairs: Training and test images that are duplicates or near-duplicates, or that belong to the same group.
        lesions: Length of the longer side of each connected mask region at working size, in pixels.
        levels: Number of grey levels (of 256) that the window leaves, for each image with more than 8 bits.
    """

    findings: list[Finding]
    infos: dict[Path, ImageInfo]
    pairs: list[Pair] = field(default_factory=list)
    lesions: list[float] = field(default_factory=list)
    levels: dict[Path, int] = field(default_factory=dict)

    @property
    def own_size(self) -> tuple[float, float]:
        """Median height and width of the files, in pixels."""
        width, height = np.median([seen.size for seen in self.infos.values()], axis=0).tolist()
        return height, width

    def count(self, level: Level) -> int:
        """Returns the number of findings of a level."""
        return sum(finding.level == level for finding in self.findings)


def check(manifest: Manifest, read: bool = True, preprocessing: Preprocessing = Preprocessing(256)) -> Check:
    """Checks a data set.

    Args:
        manifest: The images of the data set, with the flaws found while reading it.
        read: Whether to open the files. Otherwise only the manifest itself is checked.
        preprocessing: Crop and working size, which determine whether lesions are too small, and the window of grey
            values.
    """
    findings = [Finding("error", "masks that do not match images", *flaw) for flaw in manifest.flaws]
    findings += _splits(manifest)
    groups = shared_groups(manifest)
    infos: dict[Path, ImageInfo] = {}
    pairs: list[Pair] = []
    lesions: list[float] = []
    levels: dict[Path, int] = {}
    if read:
        for path, seen in inspect_files([row.path for row in manifest.rows]):
            if isinstance(seen, ImageInfo):
                infos[path] = seen
            else:
                findings.append(Finding("error", "images that cannot be read", path, without_name(seen, path)))
        pairs = find_duplicates(manifest, infos)
        findings += [*_repeated(manifest, infos), *_kinds_of_files(infos), *_sizes(infos)]
        training = [row.path for row in manifest.select("train") if row.path in infos]
        if window := measure_window(training, preprocessing)[0]:
            preprocessing = replace(preprocessing, window=window)
        levels = _count_levels(infos, preprocessing, findings)
        findings += _masks(manifest, {flaw.path for flaw in manifest.flaws}, preprocessing, lesions)
    findings += [_of_pair(pair, "patients or videos in both splits") for pair in groups]
    findings += [
        _of_pair(pair, "duplicates across splits" if pair.is_leak else "near-duplicates across splits")
        for pair in pairs
    ]
    order = ("error", "warning", "note")
    findings.sort(key=lambda one: (order.index(one.level), one.topic, one.path))
    return Check(findings, infos, groups + pairs, lesions, levels)


def _splits(manifest: Manifest) -> Iterator[Finding]:
    """Finds splits without images, and images that the manifest leaves out."""
    if not manifest.select("train"):
        message = f"nothing can be fitted. Normal images to train on belong into train/{GOOD}, or have the split train."
        yield Finding("error", NO_TRAINING, manifest.root, message)
    if not manifest.select("test"):
        message = (
            "enough for `ccd fit`. `ccd test` needs normal images in test/good and abnormal ones in test/KIND, or with"
            " the split test."
        )
        yield Finding("warning", "no test images", manifest.root, message)
    if message := one_sided(manifest):
        yield Finding("warning", "test set without normal or without abnormal images", manifest.root, message)
    for part in manifest.left_out:
        if LEFT_OUT_IMAGES.match(part):
            message = f"{part}. Move them, or rename their folder, if they should be used."
            yield Finding("warning", "images left out", manifest.root, message)


def _of_pair(pair: Pair, topic: str) -> Finding:
    level: Level = "error" if pair.is_leak else "warning"
    message = f"this training image and the test image {pair.test} {pair.reason}."
    return Finding(level, topic, pair.train, message, pair.test)


def _repeated(manifest: Manifest, infos: Mapping[Path, ImageInfo]) -> Iterator[Finding]:
    """Finds files with the same bytes within a split."""
    first: dict[tuple[str, bytes], Path] = {}
    for row in manifest.rows:
        if row.path in infos:
            other = first.setdefault((row.split, infos[row.path].digest), row.path)
            if other != row.path:
                message = f"the same file as {other}, so the image counts twice."
                yield Finding("warning", "duplicate files within a split", row.path, message, other)


def _kinds_of_files(infos: Mapping[Path, ImageInfo]) -> Iterator[Finding]:
    for path, seen in infos.items():
        if seen.mode in DEEP:
            yield Finding("note", DEPTHS.get(seen.mode, "16 bits"), path, "scaled to 8 bits, by --data.window.")
        elif seen.mode.endswith(";16"):
            yield Finding("note", "16 bits per colour", path, "the upper 8 bits of each colour are used.")
        elif seen.mode != "RGB":
            yield Finding("note", MODES.get(seen.mode, seen.mode), path, "read as RGB.")
        if seen.orientation != 1:
            message = f"rotated by its EXIF orientation ({seen.orientation}), which some programs ignore."
            yield Finding("warning", "EXIF orientation", path, message)


def _count_levels(
    infos: Mapping[Path, ImageInfo], preprocessing: Preprocessing, findings: list[Finding]
) -> dict[Path, int]:
    """Counts the grey levels that the window leaves. Images to which it cannot be applied are added to the findings."""
    levels: dict[Path, int] = {}
    for path, count in count_levels([path for path, seen in infos.items() if seen.mode in DEEP], preprocessing):
        if isinstance(count, UserError):
            findings.append(Finding("error", "images that cannot be read", path, without_name(count, path)))
        else:
            levels[path] = count
    if few := few_levels(levels):
        findings.append(Finding("warning", "few grey levels", *few))
    return levels


def _sizes(infos: Mapping[Path, ImageInfo]) -> Iterator[Finding]:
    """Finds images of a few pixels, and images of an unusual aspect ratio, which resizing to a square would distort."""
    if not infos:
        return
    for path, seen in infos.items():
        if min(seen.size) < MIN_SIDE:
            message = f"{seen.size[0]} x {seen.size[1]} pixels: too small to show anything."
            yield Finding("error", "images of a few pixels", path, message)
    ratios = {path: seen.size[0] / seen.size[1] for path, seen in infos.items()}
    usual = float(np.median(list(ratios.values())))
    for path, ratio in ratios.items():
        if not 0.8 < ratio / usual < 1.25:
            width, height = infos[path].size
            message = f"{width} x {height} pixels: another aspect ratio than most images ({usual:.2f})."
            yield Finding("warning", "odd shapes", path, message)


def _masks(
    manifest: Manifest, flawed: set[Path], preprocessing: Preprocessing, lesions: list[float]
) -> Iterator[Finding]:
    """Yields what is wrong with masks, and appends the lesion sizes of each mask to `lesions`."""
    rows = [row for row in manifest.rows if row.masks and flawed.isdisjoint((row.path, *row.masks))]
    with ThreadPoolExecutor() as pool:
        for found, sizes in pool.map(partial(check_masks, preprocessing=preprocessing), rows):
            yield from found
            lesions += sizes
    if any(row.masks for row in manifest.rows):
        for row in manifest.rows:
            if row.label and not row.masks and row.path not in flawed:
                yield Finding("warning", "no mask", row.path, "included in image metrics, but not in pixel metrics.")


def common_sizes(infos: Mapping[Path, ImageInfo], most: int = 3) -> str:
    """Returns the most common sizes as text, such as "720 x 576 (40), 1280 x 1024 (2) and 3 more"."""
    sizes = Counter(seen.size for seen in infos.values()).most_common()
    message = ", ".join(f"{width} x {height} ({count})" for (width, height), count in sizes[:most])
    return message + (f" and {len(sizes) - most} more" if len(sizes) > most else "")
