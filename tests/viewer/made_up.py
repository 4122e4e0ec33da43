"""Tested runs whose images, scores and maps are made up, so that nothing has to be fitted."""

from __future__ import annotations

import csv
import http.client
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ccd_lightning.data.placement import Placement
from ccd_lightning.viewer.results import open_results
from ccd_lightning.viewer.scoring import ScoredMap
from ccd_lightning.viewer.server import ViewServer

SCORES = [0.5, 1.5, 2.5, 3.5, 1.0, 3.0, 4.0, 5.0]
LABELS = [0, 0, 0, 0, 1, 1, 1, 1]
KINDS = ["good", "good", "good", "good", "polyp", "polyp", "bleeding", "bleeding"]
THRESHOLD = 2.75
SIZE = (48, 32)
BOX = (8, 8, 24, 20)  # of what the first mask marks


def make_run(
    folder: Path, scores: Sequence[float] = SCORES, labels: Sequence[int] = LABELS, kinds: Sequence[str] = KINDS
) -> Path:
    """A tested run in a folder, with an image for each score; abnormal images but the last have masks."""
    run = folder / "runs" / "made_up" / "version_0"
    (run / "checkpoints").mkdir(parents=True)
    (run / "run.json").write_text('{"finished": "2026-01-01T00:00:00+00:00"}')
    (folder / "images").mkdir()
    rows = []
    for index, (score, label, kind) in enumerate(zip(scores, labels, kinds, strict=True)):
        path, mask = f"images/{index:02}.png", ""
        Image.new("RGB", SIZE, (20 * index, 90, 200)).save(folder / path)
        if label and index < len(scores) - 1:
            mask = f"images/{index:02}_mask.png"
            marked = np.zeros(SIZE[::-1], np.uint8)
            marked[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
            Image.fromarray(marked).save(folder / mask)
        rows.append([path, label, repr(score), "50.000", "", f"p{index // 2}", kind, mask])
    leave(run, rows)
    return run


def leave(run: Path, rows: Sequence[Sequence[object]], threshold: float | None = THRESHOLD) -> None:
    """Writes predictions.csv and metrics.json."""
    with (run / "predictions.csv").open("w", newline="", errors="surrogateescape") as stream:
        names = ["path", "label", "score", "percentile", "decision", "group", "kind", "mask"]
        csv.writer(stream).writerows([names, *rows])
    data = {"root": "images", "images": len(rows), "split": "same"}
    content = {"metrics": {}, "intervals": {}, "undefined": {}, "data": data, "run": {"threshold": threshold}}
    (run / "metrics.json").write_text(json.dumps(content))


class MadeUpScorer:
    """Stands in for a detector: the upper left quarter of each image is abnormal."""

    def __init__(self, scores: Sequence[float]) -> None:
        self.scores = scores
        self.lock = threading.RLock()
        self.asked = list[Path]()

    def score(self, path: Path) -> ScoredMap:
        self.asked.append(path)
        found = np.zeros((16, 16), np.float32)
        found[:8, :8] = 2
        return ScoredMap(self.scores[int(path.stem)], found, Placement.whole(SIZE, (16, 16)), (0.0, 1.0))

    def refusal(self) -> str:
        return ""

    def threshold(self) -> float:
        return THRESHOLD


@contextmanager
def serving(run: Path, scores: Sequence[float] | None = SCORES) -> Iterator[ViewServer]:
    """A server of a run on a free port; with scores, no detector is opened."""
    with ViewServer(open_results(run)) as server:
        if scores is not None:
            server.scorer = server.pictures.scorer = MadeUpScorer(scores)  # type: ignore[assignment]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode()


def ask(server: ViewServer, path: str, method: str = "GET", secret: str | None = None, host: str = "") -> Answer:
    """Asks for what is below the secret."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    try:
        headers = {"Host": host} if host else {}
        connection.request(method, f"/{server.secret if secret is None else secret}/{path}", headers=headers)
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()
