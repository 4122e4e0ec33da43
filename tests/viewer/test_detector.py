"""With runs that were fitted and tested."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccd_lightning import load
from ccd_lightning.data.images import open_rgb
from ccd_lightning.data.placement import Placement
from ccd_lightning.visualization.overlays import draw_overlay
from tests.runs import metrics
from tests.viewer.made_up import ask, serving


def test_scores_and_maps_are_those_of_the_test(workspace: Path) -> None:
    with serving(Path("runs/padim_synthetic"), scores=None) as server:
        found = json.loads(ask(server, "results.json").content)
        assert found["threshold"] == metrics(server.results.folder)["run"]["threshold"]
        assert [int(kind.startswith("polyp")) for kind in found["kinds"]] == found["labels"]
        assert found["masks"] == [label == 1 for label in found["labels"]]
        index = int(np.argmax(found["scores"]))
        answer = ask(server, f"map/{index}")
        assert float(answer.headers["X-Score"]) == pytest.approx(found["scores"][index], rel=1e-4)
        path = server.results.image(index)
        detector = load("runs/padim_synthetic")
        low, high = detector.map_limits.tolist()
        layers = [Image.open(io.BytesIO(ask(server, f"{name}/{index}").content)) for name in ("map", "lines")]
        shown = open_rgb(path).resize(layers[0].size)
        overlay = draw_overlay(
            shown, detector.score_files(path)[1][0].numpy(), Placement.whole(shown.size, (64, 64)), (low, high)
        )
        layers[0].putalpha(layers[0].getchannel("A").point([round(level / 2) for level in range(256)]))
        for layer in layers:
            shown = Image.alpha_composite(shown.convert("RGBA"), layer)
        difference = np.abs(np.asarray(shown.convert("RGB")).astype(int) - np.asarray(overlay).astype(int))
        assert np.quantile(difference, 0.999) <= 2
        assert ask(server, f"mask/{found['labels'].index(1)}").status == 200


def test_a_run_of_an_encoder_has_no_maps(workspace: Path) -> None:
    with serving(Path("runs/ccd_synthetic"), scores=None) as server:
        assert ask(server, "thumbnail/0").status == 200
        answer = ask(server, "map/0")
        assert answer.status == 422
        assert "not of a detector" in answer.text
