from typing import Any

import numpy as np
import pytest
import torch

from ccd_lightning.models.probe import FeatureProbe


def test_probe_is_a_mahalanobis_distance_of_scaled_features() -> None:
    rng = np.random.default_rng(0)
    train, query = rng.normal(size=(30, 5)), rng.normal(size=(4, 5))
    shares: list[Any] = []
    probe, other = FeatureProbe(ridge=0.1), FeatureProbe(ridge=0.1)
    other.update(torch.from_numpy(train[:9]))

    def keep(sums: Any) -> list[Any]:
        shares.append(sums)
        return [sums]

    assert other.fit(keep)
    for start in range(9, 30, 8):
        probe.update(torch.from_numpy(train[start : start + 8]))
    assert probe.fit(lambda sums: [*shares, None, sums])  # a process may have seen nothing
    scaled, asked = (array / np.linalg.norm(array, axis=1, keepdims=True) * np.sqrt(5) for array in (train, query))
    inverse = np.linalg.inv(np.cov(scaled.T) + 0.1 * np.eye(5))
    expected = [np.sqrt((row - scaled.mean(0)) @ inverse @ (row - scaled.mean(0))) for row in asked]
    assert probe(torch.from_numpy(query)).tolist() == pytest.approx(expected, rel=1e-5)


def test_probe_keeps_no_more_of_many_images_than_of_few() -> None:
    probe = FeatureProbe()
    sizes = []
    for _ in range(3):
        probe.update(torch.rand(50, 6))
        sizes.append([part.shape for part in probe._gaussian.moments[1:]])
    assert sizes == [[(1, 6), (1, 6, 6), (1, 6), (1,)]] * 3


def test_probe_stays_as_it_was_when_features_are_no_numbers() -> None:
    probe, query = FeatureProbe(), torch.rand(3, 6)
    probe.update(torch.rand(9, 6))
    assert probe.fit()
    before = probe(query)
    probe.update(torch.rand(9, 6))
    probe.update(torch.full((2, 6), torch.inf))
    assert not probe.fit()
    assert torch.equal(probe(query), before)
    probe.update(torch.rand(9, 6))
    assert probe.fit()
