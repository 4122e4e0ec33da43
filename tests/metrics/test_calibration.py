import numpy as np
import pytest
from scipy.stats import rankdata

from ccd_lightning.metrics.calibration import few_held_out, normal_percentile


def test_percentile_is_the_mid_rank_among_the_held_out_ones() -> None:
    held_out = np.array([3.0, 1.0, 2.0, 2.0])
    scores = np.array([0.0, 1.0, 1.5, 2.0, 3.0, 9.0])
    expected = [100 * (rankdata(np.append(held_out, score))[-1] - 0.5) / 5 for score in scores]
    assert normal_percentile(scores, held_out).tolist() == pytest.approx(expected)
    assert expected[0] == pytest.approx(10)
    assert expected[-1] == pytest.approx(90)


def test_percentile_of_a_further_normal_image_is_50_on_average() -> None:
    scores = np.random.default_rng(0).normal(size=30).round(1)  # with ties
    left_out = [normal_percentile(scores[i : i + 1], np.delete(scores, i))[0] for i in range(30)]
    assert np.mean(left_out) == pytest.approx(50)


def test_without_held_out_images_there_is_none() -> None:
    assert np.isnan(normal_percentile(np.array([1.0, 2.0]), np.empty(0))).all()


def test_few_held_out_images_are_reported() -> None:
    message = few_held_out(12, 0.95)
    assert message.startswith("The threshold comes from only 12 held-out images: it will call between 0.21% and 38% of")
    assert "1 held-out image:" in few_held_out(1, 0.95)
    assert few_held_out(19, 0.95)
    assert few_held_out(20, 0.95) == few_held_out(0, 0.95) == few_held_out(5, None) == ""
