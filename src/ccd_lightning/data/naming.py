"""Meaning of file and folder names: normal, abnormal, mask, patient or irrelevant."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".dcm", ".dicom", ".ima", ".nii", ".nii.gz"}
)

# Names are compared in lower case, without separators, and without a last word that means "images".
NORMAL_NAMES = frozenset(
    {"good", "normal", "normals", "healthy", "negative", "negatives", "control", "controls", "healthycontrol"}
    | {"healthycontrols", "unremarkable", "ok", "no"}
    | {
        f"{no}{what}"
        for no in ("no", "non", "without")
        for what in (
            "finding", "findings", "disease", "abnormality", "abnormalities", "pathology", "lesion", "lesions", "polyp",
            "polyps", "tumor", "tumors", "tumour", "tumours", "cancer", "anomaly", "anomalies", "defect", "defects",
        )
    }
)  # fmt: skip
ABNORMAL_NAMES = frozenset(
    {
        "abnormal",
        "abnormals",
        "abnormality",
        "abnormalities",
        "anomaly",
        "anomalies",
        "anomalous",
        "disease",
        "diseased",
    }
    | {"bad", "ungood", "notgood", "ng", "positive", "positives", "pathology", "pathological", "lesion", "lesions"}
    | {"tumor", "tumour", "cancer", "polyp", "polyps", "defect", "defects", "defective", "yes"}
)
IMAGE_WORDS = frozenset(
    {"images", "image", "imgs", "img", "cases", "samples", "scans", "class", "subjects", "patients"}
)
MASK_NAMES = frozenset(
    {"mask", "masks", "groundtruth", "groundtruths", "gt", "gts", "annotation", "annotations", "label", "labels"}
    | {"seg", "segs", "segmentation", "segmentations", "attentionmap", "attentionmaps", "anomalymask", "anomalymasks"}
)
_MASK_WORDS = r"segmentation|seg|masks?|gt|ground[-_ ]?truth|labels?|annotations?"
MASK_STEM = re.compile(rf"(.+?)[-_. ]+(?:{_MASK_WORDS})(?:[-_ ]?\d+|[-_ ]*\(\d+\))?", re.IGNORECASE)
MASK_FOLDER = re.compile(rf"(.+)[-_ ](?:{_MASK_WORDS}|segmentations|segs|gts)", re.IGNORECASE)

# The images of a patient or recording form a group. Unambiguous words count anywhere in a name, short ones only at its
# beginning; a number must follow. Earlier patterns take precedence, so that all videos of a patient are one group.
_ID = r"(?:[-_ ]?(?:id|nr|no))?(?:[-_ .#=(]{0,2}\d+|[-_ ][a-z]{1,2}\d+)"
GROUPS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?<![a-z0-9])(?:patient|participant|subject|person|pid){_ID}",
        rf"^(?:(?:case|subj|sub|pat|pt){_ID}|sub-[a-z]*\d+)",
        rf"(?:^(?:vid|sequence|seq|vol)|(?<![a-z0-9])(?:video|volume)){_ID}",
    )
)
RECORDING = re.compile(r"vid|seq|vol", re.IGNORECASE)

JUNK = frozenset({"__macosx", "@eadir", "$recycle.bin", "thumbs.db", "desktop.ini", "dicomdir"})
IGNORED = frozenset(
    {".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".md", ".rst",
     ".pdf", ".html", ".htm", ".doc", ".docx", ".xls", ".xlsx", ".odt", ".ods", ".log", ".db", ".py", ".ipynb", ".m",
     ".sh", ".bat", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".md5", ".sha256", ".pkl", ".pt",
     ".pth", ".ckpt"}
)  # fmt: skip
WHOLE_SUFFIXES = (".nii.gz", ".mha.gz")


def is_junk(name: str) -> bool:
    """Returns whether a file or folder is one that operating systems create."""
    return name.startswith(".") or name.lower() in JUNK


def suffix_of(name: str) -> str:
    """Returns the suffix of a file name in lower case, such as ".png", or ".nii.gz", which has two parts."""
    lower = name.lower()
    return next((whole for whole in WHOLE_SUFFIXES if lower.endswith(whole)), os.path.splitext(lower)[1])


def stem_of(name: str) -> str:
    """Returns a file name without its suffix, such as "a_seg" for "a_seg.nii.gz"."""
    return name[: len(name) - len(suffix_of(name))]


def is_image(name: str) -> bool:
    """Returns whether a file with this name is read as an image."""
    return suffix_of(name) in SUFFIXES


def unread_suffix(name: str) -> str | None:
    """Returns the suffix of a file that may be an image in an unsupported format; None for texts, tables etc."""
    suffix = suffix_of(name)
    if suffix in IGNORED or suffix in SUFFIXES or (not suffix and re.match(r"license|readme|makefile", name.lower())):
        return None
    return suffix or "no suffix"


def plain(name: str) -> str:
    """Normalises a folder name for comparisons: lower case, no separators, no last word such as "images"."""
    words = [word for word in re.split(r"[-_ .]+", name.lower()) if word]
    if len(words) > 1 and words[-1] in IMAGE_WORDS:
        words.pop()
    return "".join(words)


@functools.lru_cache(maxsize=4096)  # called for each image
def is_normal(name: str) -> bool:
    """Returns whether a folder or kind with this name contains normal images."""
    return plain(name) in NORMAL_NAMES


def is_abnormal(name: str) -> bool:
    """Returns whether a folder with this name contains abnormal images, regardless of its location."""
    return plain(name) in ABNORMAL_NAMES


def is_mask_folder(folder: Path) -> bool:
    """Returns whether a folder contains masks, by its name: "masks", or "polyp_mask" next to a folder "polyp".

    Without such a neighbour, as for "missing_label", the name may be that of a kind.
    """
    if plain(folder.name) in MASK_NAMES:
        return True
    found = MASK_FOLDER.fullmatch(folder.name)
    return found is not None and plain(found[1]) in _folders_in(folder.parent)


def _folders_in(folder: Path) -> frozenset[str]:
    return frozenset(plain(path.name) for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else frozenset()


def image_stem(stem: str) -> str | None:
    """Returns the stem of a mask's image, such as "a" for the mask "a_mask_1"; None if it is not a mask's name."""
    found = MASK_STEM.fullmatch(stem)
    return found[1] if found else None


def group_of(path: Path, base: Path) -> str | None:
    """Returns the patient or recording of an image, such as "patient012", by its name or a folder below `base`.

    Args:
        path: Path of the image.
        base: Folder whose subfolders may be named after patients or recordings.
    """
    names = *_parts(stem_of(path.name)), *_folder_parts(path.parent, base)
    for pattern in GROUPS:
        for name in names:
            if found := pattern.search(name):
                return found[0].lower().replace("(", "")
    return None


def _parts(name: str) -> list[str]:
    """Splits a name into the parts that `ccd data prepare --copy` joined, the last part first."""
    return name.split("__")[::-1]


@functools.lru_cache(maxsize=4096)
def _folder_parts(folder: Path, base: Path) -> tuple[str, ...]:
    names = folder.relative_to(base).parts if folder.is_relative_to(base) else ()
    return tuple(part for name in reversed(names) for part in _parts(name))
