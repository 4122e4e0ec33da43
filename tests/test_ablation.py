"""The ablation's document from made-up results, and the words it would run."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_1samp

import ablation
from ablation_grid import FAMILIES, SETS, TERMS, UNTRAINED, Cell, Settings, grid
from ablation_report import MARK, hand_written, write
from ccd_lightning.cli import main
from ccd_lightning.errors import UserError

Numbers = dict[Cell, dict[str, float]]


def leave(settings: Settings, cell: Cell, numbers: dict[str, float], split: str = "same") -> None:
    place = settings.place(cell)
    place.mkdir(parents=True)
    metrics = {name: value for name, value in numbers.items() if name.endswith("/auroc")}
    content = {"metrics": metrics, "data": {"split": split, "images": 3, "root": "somewhere"}}
    (place / "metrics.json").write_text(json.dumps(content))
    if cell.terms != UNTRAINED:
        pretext = {name: value for name, value in numbers.items() if name.startswith("val/")}
        (place / "pretext.json").write_text(json.dumps(pretext))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(folder=tmp_path)


@pytest.fixture
def numbers(settings: Settings) -> Numbers:
    """All of colonoscopy, and of head CT two seeds of one cell and one of the baseline."""
    rng = np.random.default_rng(0)
    names = ("image/auroc", "pixel/auroc", "val/augmentation_accuracy", "val/position_accuracy")
    made = {cell: dict(zip(names, rng.random(4).tolist(), strict=True)) for cell in complete("colonoscopy")}
    few = [Cell("head_ct", 0), *(Cell("head_ct", seed, "all", "Noise") for seed in (0, 1))]
    made |= {cell: {"image/auroc": float(rng.random())} for cell in few}
    for cell, values in made.items():
        leave(settings, cell, values)
    return made


def complete(data: str) -> list[Cell]:
    return grid([data], FAMILIES, TERMS, 3)


def written(settings: Settings) -> str:
    output = settings.folder / "docs" / "ablation.md"
    write(settings, output)
    return output.read_text()


def rows(document: str, heading: str, table: str) -> dict[str, list[str]]:
    """A table below a heading, by the first cell of each row."""
    block = document.split(f"\n## {heading}\n")[1].split("\n## ")[0].split(f"| {table} |")[1].split("\n\n")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()[2:]]
    return {line[0]: line[1:] for line in lines}


def described(values: list[float]) -> str:
    """By scipy's own interval of the mean."""
    low, high = ttest_1samp(values, 0).confidence_interval(0.95)
    return f"{np.mean(values):.3f} [{low:.3f}, {high:.3f}]"


@pytest.mark.parametrize(("metric", "name"), [("image/auroc", "Image AUROC"), ("pixel/auroc", "Pixel AUROC")])
def test_means_and_paired_differences(settings: Settings, numbers: Numbers, metric: str, name: str) -> None:
    document = written(settings)
    own = [numbers[Cell("colonoscopy", seed, "contrastive+position", "Cutout")][metric] for seed in range(3)]
    untrained = [numbers[Cell("colonoscopy", seed)][metric] for seed in range(3)]
    gained = [after - before for after, before in zip(own, untrained, strict=True)]
    assert list(rows(document, "Synthetic colonoscopy", name))[-1] == "all three"
    assert rows(document, "Synthetic colonoscopy", name)["contrastive + position"][2] == described(own)
    gains = rows(document, "Synthetic colonoscopy", f"{name}, minus untrained")
    assert gains["contrastive + position"][2] == described(gained)
    assert f"Untrained encoder: {described(untrained)}" in document


def test_what_a_term_adds_pools_families_and_seeds(settings: Settings, numbers: Numbers) -> None:
    pairs = [
        [numbers[Cell("colonoscopy", seed, terms, family)]["image/auroc"] for terms in ("all", "contrastive+position")]
        for family in FAMILIES
        for seed in range(3)
    ]
    added = rows(written(settings), "Synthetic colonoscopy", "What the terms add")
    assert added["augmentation: all three minus contrastive + position"][0] == described([a - b for a, b in pairs])
    assert len(added) == 3


def test_accuracies_are_shown_where_the_task_was_learned(settings: Settings, numbers: Numbers) -> None:
    name = "Accuracy on held-out images: augmentation (chance 0.25), position (0.125)"
    accuracies = rows(written(settings), "Synthetic colonoscopy", name)
    cells = [numbers[Cell("colonoscopy", seed, "all", "Noise")] for seed in range(3)]
    means = [np.mean([cell[f"val/{task}_accuracy"] for cell in cells]) for task in ("augmentation", "position")]
    assert accuracies["all three"][3] == f"{means[0]:.2f}, {means[1]:.2f}"
    assert re.fullmatch(r"0\.\d\d", accuracies["contrastive + position"][0])
    assert "contrastive" not in accuracies


@pytest.mark.usefixtures("numbers")
def test_missing_cells_are_reported(settings: Settings) -> None:
    document = written(settings)
    fundus = rows(document, "Synthetic fundus", "Image AUROC")
    assert {cell for row in fundus.values() for cell in row} == {"not run"}
    assert rows(document, "Head CT", "Image AUROC")["all three"][3].endswith("] (2 of 3)")
    gains = rows(document, "Head CT", "Image AUROC, minus untrained")
    assert re.fullmatch(r"-?0\.\d{3} \(1 of 3\)", gains["all three"][3])
    assert "Pixel AUROC" not in document.split("## Synthetic fundus")[1]
    assert "python benchmarks/ablation.py --head_ct DIR\n" in document
    assert "54 of 153 cells are finished" in " ".join(document.split())


def test_a_document_without_any_results(settings: Settings) -> None:
    document = written(settings)
    assert "0 of 102 cells" in " ".join(document.split())
    assert "Head CT" not in document


def test_text_written_by_hand_is_kept(settings: Settings) -> None:
    output, words = settings.folder / "docs" / "ablation.md", "Position adds most.\n\n- On colonoscopy: 0.1."
    output.parent.mkdir()
    output.write_text(written(settings).replace("Not written yet.", words))
    leave(settings, Cell("fundus", 0), {"image/auroc": 0.7})
    document = written(settings)
    assert f"{MARK}\n{words}\n{MARK}" in document
    assert "Untrained encoder: 0.700 (1 of 3)" in document
    output.write_text(document.replace(MARK, "", 1))
    with pytest.raises(ValueError, match="1 lines"):
        hand_written(output)


def test_cells_tested_on_other_images_are_refused(settings: Settings) -> None:
    for seed, split in enumerate(("one", "other")):
        leave(settings, Cell("fundus", seed), {"image/auroc": 0.5}, split)
    with pytest.raises(UserError, match="cannot be compared"):
        written(settings)


def test_every_cell_of_the_grid_has_its_own_folder() -> None:
    cells = grid(SETS, FAMILIES, TERMS, 3)
    assert len(cells) == len({Settings().place(cell) for cell in cells}) == 4 * 4 * 3 * 3 + 9
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)


def test_a_cell_is_claimed_by_one_process_at_a_time(tmp_path: Path) -> None:
    with ablation.claimed(tmp_path) as first, ablation.claimed(tmp_path) as second:
        assert (first, second) == (True, False)
    with ablation.claimed(tmp_path) as again:
        assert again


def test_of_a_finished_cell_results_stay_and_checkpoints_go(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = Cell("fundus", 1)
    run = settings.place(cell) / "runs" / "padim" / "latest"
    commands: list[list[str]] = []

    def pretend(words: list[str]) -> int:
        commands.append(words)
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
        for name in ("checkpoints/best.ckpt", "metrics.json", "predictions.csv"):
            (run / name).write_text("{}")
        return 0

    monkeypatch.setattr(ablation, "main", pretend)
    ablation.run_cell(cell, settings, ["--data.views.augment_on=device", "--trainer.accelerator=cpu"])
    assert {path.name for path in settings.place(cell).iterdir()} == {"metrics.json", "predictions.csv"}
    assert [words[0] for words in commands] == ["fit", "test"]
    assert all(words[-1] == "--trainer.accelerator=cpu" for words in commands)
    assert not any("--data.views.augment_on=device" in words for words in commands)


@pytest.mark.parametrize(("code", "error"), [(2, RuntimeError), (130, KeyboardInterrupt), (143, KeyboardInterrupt)])
def test_an_unfinished_cell_leaves_no_result(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, code: int, error: type[BaseException]
) -> None:
    cell = Cell("fundus", 1, "all", "Noise")
    (settings.place(cell) / "runs").mkdir(parents=True)
    monkeypatch.setattr(ablation, "main", lambda words: code)
    with pytest.raises(error):
        ablation.run_cell(cell, settings, [])
    assert not settings.finished(cell)
    assert not list(settings.place(cell).iterdir())


@pytest.mark.parametrize("data", SETS)
def test_pretraining_has_the_settings_of_its_cell(
    data: str, settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    words = ablation.pretraining(Cell(data, 2, "contrastive+position", "Rotation"), settings, settings.folder)
    with pytest.raises(SystemExit):
        main([*words, "--print_config"])
    config = capsys.readouterr().out
    for line in ("augmentation_weight: 0.0", "position_weight: 1.0", "max_steps: 120", "seed_everything: 2"):
        assert line in config
    assert "class_path: ccd_lightning.transforms.strong.Rotation" in config
