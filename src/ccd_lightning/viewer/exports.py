"""Export of the images that were selected on the page, as a table and as pictures."""

from __future__ import annotations

import base64
import binascii
import csv
import io
import math
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from ccd_lightning.data.images import open_rgb
from ccd_lightning.errors import UserError
from ccd_lightning.reporting.predictions_csv import cells, columns, decide
from ccd_lightning.viewer.results import ShownResults
from ccd_lightning.viewer.scoring import Scorer
from ccd_lightning.writing import short_name

MAX_PICTURES = 200  # these take about a minute on a CPU


def chosen_rows(text: str, count: int) -> list[int]:
    """Decodes image indices from a request: a bit per image, from the lowest of the first byte, in URL-safe base64.

    Args:
        text: Text sent by the page. 10,000 images take 1.7 kB.
        count: Number of images.

    Raises:
        ValueError: If the text is invalid.
    """
    try:
        flags = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
    found = [8 * index + bit for index, byte in enumerate(flags) for bit in range(8) if byte >> bit & 1]
    if found and found[-1] >= count:
        raise ValueError(f"there is no image {found[-1]}")
    return found


def write_table(results: ShownResults, indices: Sequence[int], threshold: float) -> bytes:
    """Returns the rows of some images as CSV.

    The columns are those of predictions.csv, with decisions at the given threshold, plus the threshold.

    Args:
        results: Results of all images.
        indices: Indices of the images.
        threshold: Threshold in use on the page, NaN for none.
    """
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow([*columns(results.labelled), "threshold"])
    shown = "" if math.isnan(threshold) else repr(threshold)
    for index in indices:
        writer.writerow([*cells(results.rows[index], threshold, results.labelled), shown])
    return stream.getvalue().encode("utf-8", "surrogateescape")  # file names are bytes that need not be UTF-8


def write_pictures(
    results: ShownResults, scorer: Scorer, indices: Sequence[int], threshold: float, table: bytes
) -> bytes:
    """Returns a ZIP file with the overlays of some images, drawn as by `ccd predict`, and their table.

    Args:
        results: Results of all images.
        scorer: Scorer that computes their maps.
        indices: Indices of the images, which are numbered in this order.
        threshold: Threshold in use on the page, NaN for none.
        table: Content of the table, from `write_table`.

    Raises:
        UserError: If there are too many images, or one cannot be read or scored.
    """
    if len(indices) > MAX_PICTURES:
        raise UserError(f"{len(indices)} images are chosen, but a file can contain at most {MAX_PICTURES}.")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("chosen.csv", table)
        for number, index in enumerate(indices, 1):
            name = short_name(f"{number:03}_{_plain(Path(results.rows[index].file).name)}.png")
            archive.writestr(name, _overlay(results, scorer, index, threshold))
    return stream.getvalue()


def _overlay(results: ShownResults, scorer: Scorer, index: int, threshold: float) -> bytes:
    from ccd_lightning.visualization.overlays import draw_overlay

    path = results.image(index)
    scored = scorer.score(path)
    if math.isnan(scored.limits[1]):
        raise UserError("Overlays need the range of normal maps, which this run does not have. Fit it with validation.")
    decision = decide(scored.score, threshold)
    label = f"{decision}: score {scored.score:.4g}, threshold {threshold:.4g}" if decision else ""
    image = draw_overlay(open_rgb(path, results.window), scored.anomaly_map, scored.placement, scored.limits, label)
    picture = io.BytesIO()
    image.save(picture, "PNG")
    return picture.getvalue()


def _plain(name: str) -> str:
    """Replaces characters of a file name that some systems cannot unpack."""
    return re.sub(r"[^\w.\-]", "_", name, flags=re.ASCII)
