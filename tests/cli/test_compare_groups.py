from __future__ import annotations

from pathlib import Path

import pytest

from ccd_lightning.metrics.bootstrap import units
from ccd_lightning.metrics.intervals import delong_test
from ccd_lightning.metrics.paired import paired_differences
from tests.tested_runs import GOOD, LABELS, POOR, compare_lines, differences, interval, leave, records

GROUPS = ["", *(f"patient {index % 9}" for index in range(1, 21))]  # of several images, and one not known


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def test_groups_count_in_the_test_and_in_the_bootstrap(capsys: pytest.CaptureFixture[str]) -> None:
    good, poor = leave("good", GOOD, groups=GROUPS), leave("poor", POOR, groups=GROUPS, order=slice(None, None, -1))
    lines = compare_lines(good, poor, capsys=capsys)
    rows, images = differences(lines, "good"), records(GROUPS)
    expected = delong_test(LABELS, POOR, GOOD, units(images))
    assert expected.p != pytest.approx(delong_test(LABELS, POOR, GOOD).p, abs=0.001)
    assert rows["image/auroc"][1:] == interval(*expected[:3])
    assert rows["p"] == ["p", f"{expected.p:.3f}"]
    for name, found in paired_differences(images, POOR, GOOD).items():
        assert rows[name][1:] == interval(*found)
    assert lines[-1].startswith("images of a patient or video are treated as dependent: 10 groups")


def test_groups_of_one_run_are_enough(capsys: pytest.CaptureFixture[str]) -> None:
    both = differences(
        compare_lines(leave("a", GOOD, groups=GROUPS), leave("b", POOR, groups=GROUPS), capsys=capsys), "a"
    )
    old = leave("old", POOR, counted=8)
    empty = leave("empty", POOR, groups=[""] * 21)
    for words in (("a", old), ("a", empty)):
        lines = compare_lines(*words, capsys=capsys)
        assert differences(lines, "a")["image/auroc"] == both["image/auroc"]
        assert "independent" not in "\n".join(lines)
    other = leave("other", POOR, groups=[f"video {index}" for index in range(21)])
    lines = compare_lines("a", other, capsys=capsys)
    assert differences(lines, "a")["image/auroc"] == both["image/auroc"]
    assert lines[-1] == "other/predictions.csv names other patients or videos, which are not used"


def test_names_of_groups_do_not_matter(capsys: pytest.CaptureFixture[str]) -> None:
    renamed = [f"pseudonym {group[::-1]}" if group else "" for group in GROUPS]
    lines = compare_lines(leave("a", GOOD, groups=GROUPS), leave("b", POOR, groups=renamed), capsys=capsys)
    assert "other patients" not in "\n".join(lines)


@pytest.mark.parametrize("counted", [4, None])
def test_old_tests_without_groups_are_reported(counted: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    old = [leave(name, scores, counted=counted) for name, scores in (("good", GOOD), ("poor", POOR))]
    lines = compare_lines(*old, capsys=capsys)
    assert differences(lines, "good")["p"] == ["p", f"{delong_test(LABELS, POOR, GOOD).p:.3f}"]
    assert lines[-1] == (
        "no predictions.csv names patients or videos, so images are treated as independent;"
        " to change that: ccd test --ckpt_path good, ccd test --ckpt_path poor"
    )


def test_one_patient_alone_is_no_sample(capsys: pytest.CaptureFixture[str]) -> None:
    groups = [f"patient {index // 3 if not label else 9}" for index, label in enumerate(LABELS)]
    lines = compare_lines(leave("a", GOOD, groups=groups), leave("b", POOR, groups=groups), capsys=capsys)
    assert lines[-1].endswith("two normal and two abnormal images, each of at least two patients or videos")
