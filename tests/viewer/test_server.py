from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccd_lightning.viewer import exports, pictures
from ccd_lightning.viewer.server import FILES, PAGE, ViewServer
from ccd_lightning.visualization.overlays import OUTLINE, draw_overlay
from ccd_lightning.writing import FORMULA
from tests.viewer.made_up import BOX, KINDS, LABELS, SCORES, SIZE, THRESHOLD, MadeUpScorer, ask, leave, serving


def picture(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def test_the_page_needs_nothing_from_elsewhere(server: ViewServer) -> None:
    assert {path.name for path in PAGE.iterdir()} == {name or "index.html" for name in FILES}
    for name, kind in FILES.items():
        answer = ask(server, name)
        assert answer.status == 200
        assert answer.headers["Content-Type"] == f"{kind}; charset=utf-8"
        text = answer.text.replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?:|//[a-z]|<script>|\son\w+=|style=|innerHTML|eval\(", text, re.IGNORECASE)
        rules = answer.headers["Content-Security-Policy"].split("; ")
        assert "default-src 'none'" in rules
        assert "script-src 'self'" in rules
        assert answer.headers["Cache-Control"] == "no-store"


def test_everything_about_the_images_is_reported_once(server: ViewServer) -> None:
    found = json.loads(ask(server, "results.json").content)
    assert found["scores"] == SCORES
    assert found["labels"] == LABELS
    assert found["kinds"] == KINDS
    assert found["threshold"] == THRESHOLD
    assert found["names"][:2] == ["00.png", "01.png"]
    assert found["groups"][:3] == ["p0", "p0", "p1"]
    assert found["masks"] == [False] * 4 + [True] * 3 + [False]
    assert found["percentiles"] == [50.0] * 8
    assert found["maps"] == ""
    assert found["run"] == "runs/made_up/version_0"


def test_pictures_are_those_of_the_image(server: ViewServer, tmp_path: Path) -> None:
    original = np.asarray(Image.open(tmp_path / "images/05.png"))
    assert np.array_equal(np.asarray(picture(ask(server, "image/5").content)), original)
    Image.new("RGB", (600, 300), (10, 200, 30)).save(tmp_path / "images/05.png")
    small = picture(ask(server, "thumbnail/5").content)
    assert small.size == (128, 64)
    assert np.abs(np.asarray(small).astype(int) - (10, 200, 30)).max() < 8  # JPEG
    Image.new("RGB", (5000, 40)).save(tmp_path / "images/06.png")
    assert ask(server, "image/6").headers["X-Size"] == "5000x40"
    assert picture(ask(server, "image/6").content).size == (pictures.LARGEST, 16)


def test_the_map_at_half_opacity_is_the_overlay_of_the_report(server: ViewServer, tmp_path: Path) -> None:
    scored = MadeUpScorer(SCORES).score(Path("06.png"))
    large = Image.open(tmp_path / "images/06.png").resize(pictures.layer_size(SIZE))
    placement = scored.placement._replace(original=large.size, source=(0, 0, *large.size))
    expected = np.asarray(draw_overlay(large, scored.anomaly_map, placement, scored.limits)).astype(int)
    colours, lines = ask(server, "map/6"), ask(server, "lines/6")
    assert float(colours.headers["X-Score"]) == SCORES[6]
    shown = picture(colours.content)
    shown.putalpha(shown.getchannel("A").point([round(level / 2) for level in range(256)]))  # as CSS does
    below = Image.alpha_composite(large.convert("RGBA"), shown)
    found = Image.alpha_composite(below, picture(lines.content)).convert("RGB")
    assert np.abs(np.asarray(found).astype(int) - expected).max() <= 2  # rounding
    assert (np.asarray(found) == OUTLINE).all(axis=2).any()
    assert server.scorer.asked == [Path("images/06.png")]  # type: ignore[attr-defined] # once for both


def test_the_outline_surrounds_the_mask(server: ViewServer) -> None:
    layer = np.asarray(picture(ask(server, "mask/5").content))
    scale = layer.shape[1] / SIZE[0]
    rows, columns = np.nonzero(layer[..., 3])
    left, top, right, bottom = (round(scale * end) for end in BOX)
    around = [left, top, right - 1, bottom - 1]
    assert np.abs(np.array([columns.min(), rows.min(), columns.max(), rows.max()]) - around).max() <= 2
    assert layer[(top + bottom) // 2, (left + right) // 2, 3] == 0  # the lesion is to be seen
    assert {tuple(one) for one in layer[layer[..., 3] > 0].tolist()} == {(0, 0, 0, 255), (255, 255, 255, 255)}
    for index in (0, 7):
        answer = ask(server, f"mask/{index}")
        assert answer.status == 422
        assert "no mask" in answer.text


@pytest.mark.parametrize(
    "path",
    [
        *("nothing", "image/8", "image/-1", "image/x", "image/", "image/0/", "image/00000000000", "map/8", "mask/8"),
        *("../../pyproject.toml", "..%2f..%2fetc%2fpasswd", "image/../../../etc/passwd", "/etc/passwd", "viewer.py"),
        *("page/index.html", "index.html", "images/00.png", "image/images/00.png", "%00", "results.json/"),
    ],
)
def test_other_paths_are_not_found(server: ViewServer, path: str) -> None:
    answer = ask(server, path)
    assert answer.status == 404
    assert answer.headers["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize("secret", ["", "x", "../x", "%C3%A9"])
def test_without_the_secret_there_is_nothing(server: ViewServer, secret: str) -> None:
    assert ask(server, "results.json", secret=secret).status == 404
    assert ask(server, "", secret=server.secret[:-1]).status == 404


@pytest.mark.parametrize(
    "host",
    [
        "example.org",
        "example.org:{port}",
        "localhost.evil:{port}",
        "127.0.0.1.evil",
        "127.0.0.1:{port}@evil",
        "0.0.0.0",
    ],
)
def test_other_hosts_are_refused(server: ViewServer, host: str) -> None:
    """A page of another site whose name was made to lead here cannot read anything."""
    answer = ask(server, "results.json", host=host.format(port=server.server_port))
    assert answer.status == 403
    for own in ("localhost", "127.0.0.1", "localhost:9000"):  # a port that is forwarded to this one
        assert ask(server, "results.json", host=own).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
def test_methods_other_than_get_are_refused(server: ViewServer, method: str) -> None:
    assert ask(server, "results.json", method).status == 501


def test_only_this_machine_is_listened_to(server: ViewServer) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"
    assert len(server.secret) >= 20
    with serving(server.results.folder) as other:
        assert other.secret != server.secret


def test_images_that_are_gone_are_reported_in_a_sentence(server: ViewServer, tmp_path: Path) -> None:
    (tmp_path / "images/02.png").unlink()
    (tmp_path / "images/04_mask.png").write_text("no mask")
    for path, name in {"thumbnail/2": "images/02.png", "image/2": "images/02.png", "mask/4": "04_mask.png"}.items():
        answer = ask(server, path)
        assert answer.status == 422
        assert name in answer.text
        assert answer.headers["Content-Type"].startswith("text/plain")


def test_files_that_are_no_images_are_not_sent(run: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("password")
    text = str(tmp_path / "secret.txt")
    leave(run, [[text, 0, "1.0", "", "", "", "good", text], ["/dev/zero", 1, "2.0", "", "", "", "x", ""]])
    with serving(run) as server:
        for path in ("thumbnail/0", "image/0", "mask/0", "thumbnail/1", "image/1"):
            answer = ask(server, path)
            assert answer.status == 422
            assert "password" not in answer.text


def test_faults_of_a_decoder_are_reported(server: ViewServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("in a decoder")

    monkeypatch.setattr(pictures, "read_picture", broken)
    answer = ask(server, "image/0")
    assert answer.status == 500
    assert answer.text == "ZeroDivisionError: in a decoder"
    assert ask(server, "results.json").status == 200


def bits(*indices: int) -> str:
    """As the page packs them, written another way."""
    import base64

    number = sum(1 << index for index in indices)
    return base64.urlsafe_b64encode(number.to_bytes(2, "little")).decode().rstrip("=")


def test_chosen_rows_are_exported(server: ViewServer) -> None:
    answer = ask(server, f"chosen.csv?rows={bits(1, 5, 7)}&threshold=3.25")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="chosen.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["path"] for row in rows] == ["images/01.png", "images/05.png", "images/07.png"]
    assert [float(row["score"]) for row in rows] == [1.5, 3.0, 5.0]
    assert [row["decision"] for row in rows] == ["normal", "normal", "abnormal"]
    assert {row["threshold"] for row in rows} == {"3.25"}
    assert [row["mask"] for row in rows] == ["", "images/05_mask.png", ""]
    assert [row["kind"] for row in rows] == ["good", "polyp", "bleeding"]


def test_exported_cells_are_no_formulas(run: Path) -> None:
    evil = ["=1+1.png", "+2.png", "-3.png", "@4.png"]
    leave(run, [[name, 1, "1.0", "", "", f"={name}", f"+{name}", f"@{name}|=x.png"] for name in evil])
    with serving(run) as server:
        text = ask(server, f"chosen.csv?rows={bits(0, 1, 2, 3)}&threshold=0").text
    cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
    assert not [cell for cell in cells if cell.startswith(FORMULA)]
    assert [row["kind"].strip() for row in csv.DictReader(io.StringIO(text))] == [f"+{name}" for name in evil]


@pytest.mark.parametrize(
    ("rows", "threshold"), [("!!", "1"), ("A", "1"), ("é", "1"), (bits(8), "1"), (bits(1), "x"), ("A" * 5, "1")]
)
def test_odd_choices_are_refused(server: ViewServer, rows: str, threshold: str) -> None:
    from urllib.parse import quote

    answer = ask(server, f"chosen.csv?rows={quote(rows)}&threshold={threshold}")
    assert answer.status == 400
    assert answer.headers["Content-Type"].startswith("text/plain")


def test_chosen_pictures_are_exported(server: ViewServer, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = ask(server, f"chosen.zip?rows={bits(2, 6)}&threshold=3")
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.namelist() == ["chosen.csv", "001_02.png.png", "002_06.png.png"]
    scored = MadeUpScorer(SCORES).score(Path("06.png"))
    expected = draw_overlay(Image.open("images/06.png"), scored.anomaly_map, scored.placement, scored.limits)
    assert np.array_equal(np.asarray(picture(archive.read("002_06.png.png"))), np.asarray(expected))
    monkeypatch.setattr(exports, "MAX_PICTURES", 1)
    refused = ask(server, f"chosen.zip?rows={bits(2, 6)}&threshold=3")
    assert refused.status == 422
    assert "at most 1" in refused.text
