"""Which images a run held out, and what another run makes of it."""

import shutil
from pathlib import Path

import pytest

from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.division import Division, image_keys, inherited


def module(folder: Path, *followed: Division | None, seed: int = 0, own: bool = False) -> AnomalyDataModule:
    data = AnomalyDataModule(str(folder), size=32, batch_size=4, validation=0.25, seed=seed, check_leaks=False)
    if followed:
        data.follow(followed, own)
    data.setup("fit")
    return data


def held_out(data: AnomalyDataModule) -> set[str]:
    return {row.path.name for row in data.datasets["val"].rows}


def division(data: AnomalyDataModule) -> Division:
    assert data.division
    return data.division


def test_other_seeds_hold_out_what_the_encoders_run_held_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = module(folder)
    assert "held out" not in capsys.readouterr().out
    assert held_out(module(folder, seed=1)) != held_out(first)
    for seed in (1, 2):
        second = module(folder, Division.from_state(division(first).state()), seed=seed)
        assert held_out(second) == held_out(first)
        assert capsys.readouterr().out.splitlines()[-1] == "held out: the 3 images that the encoder's run held out"
    assert division(second) == division(first)


def test_a_data_set_that_was_moved_is_the_same(folder: Path, tmp_path: Path) -> None:
    first = module(folder)
    shutil.move(folder, tmp_path / "moved")
    assert held_out(module(tmp_path / "moved", division(first), seed=1)) == held_out(first)


def test_new_images_are_learned_from_and_lost_ones_do_no_harm(folder: Path) -> None:
    first = module(folder)
    gone, *rest = sorted(held_out(first))
    (folder / "train/good" / gone).unlink()
    (folder / "train/good/new.png").write_bytes((folder / "test/good/0000.png").read_bytes())
    assert held_out(module(folder, division(first), seed=1)) == set(rest)


def test_the_runs_own_division_is_used_without_a_message(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = module(folder)
    assert held_out(module(folder, division(first), seed=1, own=True)) == held_out(first)
    module(folder, None, own=True)
    assert "held out" not in capsys.readouterr().out


def test_held_out_images_that_only_the_seed_decides_are_reported(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, other = module(folder), module(folder, seed=1)
    assert held_out(module(folder, None)) == held_out(first)
    assert "older version and does not list its images: give the same seed" in capsys.readouterr().out
    stranger = Division(frozenset({1, 2}), frozenset({3}))
    assert held_out(module(folder, stranger)) == held_out(first)
    assert "3 images drawn by the seed; the encoder's run names none of them" in capsys.readouterr().out
    crossed = [division(first), Division(division(first).held_out, division(first).learned)]
    assert held_out(module(folder, *crossed)) == held_out(first)
    assert "the encoder was trained on 3 of them, so the threshold may be too low" in capsys.readouterr().out
    if both := held_out(first) & held_out(other):
        assert held_out(module(folder, division(first), division(other), seed=2)) == both


def test_a_patients_images_stay_together() -> None:
    groups, keys = [[0, 1], [2, 3], [4]], [10, 11, 12, 13, 14]
    run = Division(learned=frozenset({11, 14}), held_out=frozenset({10, 12}))
    assert inherited(groups, keys, [run]) == {2, 3}  # 13 is new, 11 was learned
    assert inherited(groups, keys, []) == set()


@pytest.mark.parametrize("state", [None, 3, {}, {"learned": [1], "held_out": [2]}, {"learned": None}])
def test_a_checkpoint_without_a_division(state: object) -> None:
    assert Division.from_state(state) is None


def test_keys_tell_names_and_sizes_apart(folder: Path) -> None:
    data = module(folder)
    rows = [*data.datasets["train"].rows, *data.datasets["val"].rows]
    assert len(set(image_keys(rows, folder))) == len(rows) == 12
    before = image_keys(rows[:1], folder)
    rows[0].path.write_bytes(rows[0].path.read_bytes() + b" ")
    assert image_keys(rows[:1], folder) != before
