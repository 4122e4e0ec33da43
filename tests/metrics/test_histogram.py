import numpy as np
import pytest
import torch

from ccd_lightning.metrics.histogram import BINS, binned_quantile, count_values, float_bins


def values(scale: float = 1.0) -> torch.Tensor:
    """Over four orders of magnitude, with many exact zeros."""
    generator = torch.Generator().manual_seed(0)
    drawn = (2 * torch.randn(5000, generator=generator)).exp() * scale
    return drawn * (torch.rand(5000, generator=generator) < 0.9)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_bins_keep_the_order_and_are_narrow_in_any_range(scale: float) -> None:
    drawn = values(scale).sort().values
    bins = float_bins(drawn)
    assert bool((bins.diff() >= 0).all())
    same = bins.diff() == 0
    assert bool((drawn.diff()[same] <= drawn[1:][same] / 4096).all())
    assert bool((drawn.diff()[~same] > 0).all())


def test_counts_add_up() -> None:
    drawn = values()
    counts = count_values(drawn)
    assert counts.shape == (BINS,)
    assert torch.equal(counts, count_values(drawn[:1234]) + count_values(drawn[1234:]))
    assert int(counts.sum()) == len(drawn)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_floats_fall_into_the_bin_of_their_float32(dtype: torch.dtype) -> None:
    narrow = values().clamp(max=1000).to(dtype)
    assert torch.equal(float_bins(narrow), float_bins(narrow.float()))


def test_both_zeros_are_in_the_first_bin() -> None:
    assert float_bins(torch.tensor([0.0, -0.0])).tolist() == [0, 0]


@pytest.mark.parametrize("value", [-1e-6, float("nan"), float("inf")])
def test_what_cannot_be_ordered_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        float_bins(torch.tensor([1.0, value]))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.95, 0.99, 1.0])
def test_quantile_agrees_with_numpy_to_a_bin(share: float) -> None:
    drawn = values()
    exact = float(np.quantile(drawn.numpy(), share, method="inverted_cdf"))
    found = binned_quantile(count_values(drawn), share)
    assert exact <= found <= exact * (1 + 1 / 4096)
    assert int((drawn <= found).sum()) >= share * len(drawn)


def test_quantile_of_nothing_is_no_number() -> None:
    assert np.isnan(binned_quantile(torch.zeros(BINS, dtype=torch.int64), 0.5))
