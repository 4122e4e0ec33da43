from __future__ import annotations

import csv
import json
import math
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccd_lightning.cli import main, view
from ccd_lightning.viewer.cache import ByteCache
from ccd_lightning.viewer.results import open_results
from ccd_lightning.viewer.server import ViewServer
from tests.tested_runs import output_without_torch
from tests.viewer.made_up import SCORES, ask, leave, serving

RUN = "runs/made_up/version_0"


def test_a_run_that_was_moved_with_its_images(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    results = open_results(Path("..") / RUN)
    assert results.image(3).samefile(tmp_path / "images/03.png")
    assert results.masks(4)[0].samefile(tmp_path / "images/04_mask.png")
    (tmp_path / "images/03.png").unlink()
    assert results.image(3) == Path("images/03.png")


def test_predictions_have_no_labels(run: Path, tmp_path: Path) -> None:
    folder = run / "predictions" / "version_0"
    folder.mkdir(parents=True)
    with (folder / "predictions.csv").open("w", newline="") as stream:
        rows = [[f"images/{index:02}.png", score, "", "normal"] for index, score in enumerate(SCORES)]
        csv.writer(stream).writerows([["path", "score", "percentile", "decision"], *rows])
    results = open_results(folder)
    assert not results.labelled
    assert results.checkpoint == run
    assert math.isnan(results.threshold)
    found = results.description(2.0, "")
    assert found["labels"] == [-1] * len(SCORES)
    assert found["percentiles"] == [None] * len(SCORES)
    with serving(folder) as server:
        assert json.loads(ask(server, "results.json").content)["threshold"] == 2.75  # the detector's
        assert ask(server, "chosen.csv?rows=AQ&threshold=0").text.splitlines() == [
            "path,score,percentile,decision,threshold",
            "images/00.png,0.5,,abnormal,0.0",
        ]
    folder.rename(tmp_path / "out")
    assert open_results(tmp_path / "out").checkpoint is None
    assert open_results(tmp_path / "out", run).checkpoint == run


def test_without_a_detector_there_are_images_and_no_maps(run: Path) -> None:
    (run / "checkpoints").rmdir()
    with serving(run, scores=None) as server:
        assert ask(server, "image/0").status == 200
        answer = ask(server, "map/0")
        assert answer.status == 422
        assert "--ckpt_path" in answer.text


def test_a_damaged_checkpoint_is_reported_once(run: Path) -> None:
    (run / "checkpoints" / "best.ckpt").write_text("no checkpoint")
    with serving(run, scores=None) as server:
        texts = {ask(server, f"map/{index}").text for index in range(2)}
        assert len(texts) == 1
        assert "best.ckpt" in texts.pop()
        assert "best.ckpt" in json.loads(ask(server, "results.json").content)["maps"]


def test_images_of_16_bits_are_shown_through_the_window_of_the_run(run: Path, tmp_path: Path) -> None:
    settings = {"data": {"init_args": {"size": 32, "window": [1000.0, 3000.0]}}}
    (run / "config.yaml").write_text(json.dumps(settings))
    ramp = np.linspace(1000, 3000, 32 * 48).reshape(32, 48).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "images/00.png")
    with serving(run) as server:
        import io

        shown = np.asarray(Image.open(io.BytesIO(ask(server, "image/0").content)).convert("L")).astype(int)
    assert np.abs(shown - (ramp - 1000.0) / 2000 * 255).max() <= 1


def test_the_cache_is_bounded() -> None:
    cache, made = ByteCache(100), list[int]()

    def make(number: int) -> bytes:
        made.append(number)
        return bytes(40)

    for number in (0, 1, 0, 2, 0, 1):
        cache.get(number, lambda number=number: make(number))  # type: ignore[misc]
    assert made == [0, 1, 2, 1]  # 1 was not asked for the longest when 2 came
    assert cache.size == 80
    cache.put("large", bytes(1000))
    assert cache.size == 0


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["nowhere"], ["nowhere", "no such run"]),
        (["images"], ["images", "no finished run"]),
        ([RUN, "--port", "x"], ["--port", "0 to 65535"]),
        ([RUN, "--port", "65536"], ["--port", "0 to 65535"]),
        ([RUN, "--prot", "1"], ["--prot", "--port"]),
    ],
)
def test_mistakes_on_the_command_line_are_reported(
    run: Path, words: list[str], wanted: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["view", *words]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in wanted)
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("metrics.json", None, "ccd test --ckpt_path"),
        ("metrics.json", "{", "metrics.json"),
        ("predictions.csv", None, "ccd test --ckpt_path"),
        ("predictions.csv", "path,label\nx,1\n", "no column 'score'"),
        ("predictions.csv", "path,label,score\nx,2,1.0\n", "label 2"),
        ("predictions.csv", "path,label,score\nx,1,nan\n", "score nan"),
        ("predictions.csv", "path,label,score\n", "no images"),
    ],
)
def test_files_that_are_missing_or_damaged(
    run: Path, name: str, content: str | None, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / name).unlink()
    if content is not None:
        (run / name).write_text(content)
    assert main(["view", RUN]) == 2
    error = capsys.readouterr().err
    assert wanted in error
    assert RUN in error


def test_a_port_that_is_in_use(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["view", RUN, "--port", port]) == 2
    error = capsys.readouterr().err
    assert port in error
    assert "in use" in error


@pytest.mark.parametrize("screen", [True, False])
@pytest.mark.parametrize("words", [[], ["--no-browser"]])
def test_it_runs_until_ctrl_c(
    run: Path, screen: bool, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened, served = list[str](), list[ViewServer]()

    class AtOnce:
        def __init__(self, target: object, args: tuple[str], daemon: bool) -> None:
            self.start = lambda: opened.extend(args)

    def interrupted(server: ViewServer) -> None:
        served.append(server)
        raise KeyboardInterrupt

    monkeypatch.setattr("ccd_lightning.cli.view.threading.Thread", AtOnce)
    monkeypatch.setattr(view, "_has_screen", lambda: screen)
    monkeypatch.setattr(ViewServer, "warm_up", lambda _: None)
    monkeypatch.setattr(ViewServer, "serve_forever", interrupted)
    assert main(["view", "runs/made_up/version_0", *words]) == 0
    output = capsys.readouterr().out
    assert f"8 images at {served[0].url}" in output
    assert output.endswith("Stopped.\n")
    assert opened == [served[0].url] * (screen and not words)


@pytest.mark.process
def test_help_needs_no_torch() -> None:
    assert "--port" in output_without_torch("view", "--help")


def test_a_run_without_a_threshold_is_shown(run: Path) -> None:
    leave(run, [["images/00.png", 0, "1.0", "", "", "", "good", ""]], threshold=None)
    results = open_results(run)
    assert math.isnan(results.threshold)
    assert results.description(math.nan, "")["threshold"] is None
    assert results.description(math.nan, "")["names"] == ["00.png"]
