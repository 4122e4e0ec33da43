from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from ccd_lightning.callbacks.test_report import save_figures
from ccd_lightning.reporting.html import FIGURES


def test_figures_of_an_earlier_test_go_and_the_users_own_stay(tmp_path: Path) -> None:
    folder = tmp_path / "figures"
    save_figures(folder, {name: Figure(figsize=(1, 1)) for name in FIGURES}, None)
    own = folder / "own.png"
    own.write_bytes(b"mine")
    save_figures(folder, {"histogram.png": Figure(figsize=(2, 1))}, None)
    assert {path.name for path in folder.iterdir()} == {"histogram.png", "own.png"}
    assert own.read_bytes() == b"mine"
