import numpy as np
from scipy import stats

from ccd_lightning.transforms.weak import WeakViews
from ccd_lightning.transforms.weak_draws import WeakSettings

IMAGE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def test_what_one_transform_draws_tells_nothing_of_another() -> None:
    weak = WeakViews(WeakSettings(8, (0.2, 1.0)))
    crop, flip, jitter, grey = weak.compose.transforms
    rows = []
    for seed in range(1000):
        weak.seed(seed)
        weak(IMAGE)
        left, top, right, bottom = crop.params["crop_coords"]
        brightness = jitter.params.get("brightness", np.nan)
        rows.append((bool(flip.params), bool(grey.params), brightness, (right - left) / (bottom - top)))
    flipped, greyed, brightness, aspect = np.array(rows).T
    greys = int(greyed.sum())
    assert stats.binomtest(int((flipped * greyed).sum()), greys, 0.5).pvalue > 0.001
    jittered = ~np.isnan(brightness)
    assert stats.spearmanr(brightness[jittered], aspect[jittered]).pvalue > 0.001
