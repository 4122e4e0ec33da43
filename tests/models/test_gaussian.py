from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ccd_lightning.models.gaussian import FeatureProbe, PatchGaussian
from ccd_lightning.models.igd.latents import LatentGaussian, floor_centre, whiten
from tests.conftest import GOLDEN


@pytest.fixture(scope="module")
def padim() -> dict[str, torch.Tensor]:
    arrays: Any = np.load(GOLDEN / "padim.npz")
    return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def fitted(batches: Any, dtype: torch.dtype = torch.float64) -> PatchGaussian:
    gaussian = PatchGaussian(ridge=0.01, dtype=dtype)
    for batch in batches:
        gaussian.update(batch)
    gaussian.fit()
    return gaussian


@pytest.mark.parametrize("sizes", [(40,), (1,) * 40, (7, 20, 13), (39, 1)])
@pytest.mark.parametrize("seed", [0, 1])
def test_reference_distances(padim: dict[str, torch.Tensor], sizes: tuple[int, ...], seed: int) -> None:
    train = padim["train_embeddings"][torch.randperm(40, generator=torch.Generator().manual_seed(seed))]
    gaussian = fitted(torch.split(train, list(sizes)))
    assert torch.allclose(gaussian.mean.T.reshape(6, 3, 3), padim["mean"], atol=1e-8)
    assert torch.allclose(gaussian.mahalanobis(padim["query_embeddings"]), padim["mahalanobis"], atol=1e-8)


def test_single_precision(padim: dict[str, torch.Tensor]) -> None:
    gaussian = fitted([padim["train_embeddings"].float()], torch.float32)
    distances = gaussian.mahalanobis(padim["query_embeddings"].float()).double()
    assert torch.allclose(distances, padim["mahalanobis"], rtol=1e-3)


def test_far_from_zero_nothing_is_lost(padim: dict[str, torch.Tensor]) -> None:
    gaussian = fitted(torch.split(padim["train_embeddings"] + 1e6, 3))
    assert torch.allclose(gaussian.mahalanobis(padim["query_embeddings"] + 1e6), padim["mahalanobis"], rtol=1e-6)


def test_ranks_add_up(padim: dict[str, torch.Tensor]) -> None:
    ranks = [PatchGaussian(0.01, torch.float64) for _ in range(3)]
    for rank, part in zip(ranks, torch.split(padim["train_embeddings"], [5, 25, 10]), strict=True):
        rank.update(part)
    counts, means, scatters = (torch.stack([torch.as_tensor(r.sums[i]) for r in ranks]) for i in range(3))
    ranks[0].merge_ranks(counts, means, scatters)
    ranks[0].fit()
    assert torch.allclose(ranks[0].mahalanobis(padim["query_embeddings"]), padim["mahalanobis"], atol=1e-8)


def test_state_carries_all_that_scoring_needs(padim: dict[str, torch.Tensor]) -> None:
    gaussian = fitted([padim["train_embeddings"]])
    state = gaussian.state_dict()
    assert set(state) == {"mean", "whitening"}
    empty = PatchGaussian(dtype=torch.float64)
    empty.load_state_dict(state)
    assert torch.equal(empty.mahalanobis(padim["query_embeddings"]), gaussian.mahalanobis(padim["query_embeddings"]))


def test_memory_does_not_grow(padim: dict[str, torch.Tensor]) -> None:
    gaussian = PatchGaussian()
    sizes = []
    for batch in torch.split(padim["train_embeddings"], 10):
        gaussian.update(batch)
        sizes.append(sum(part.numel() for part in gaussian.sums[1:]))
    assert len(set(sizes)) == 1


def test_mistakes() -> None:
    gaussian = PatchGaussian()
    with pytest.raises(ValueError, match="No embeddings"):
        gaussian.fit()
    gaussian.update(torch.rand(1, 4, 2, 2))
    with pytest.raises(ValueError, match="at least 2"):
        gaussian.fit()
    gaussian.update(torch.rand(1, 4, 2, 2))
    gaussian.fit()
    with pytest.raises(ValueError, match="4 channels at 4 positions, got 4 at 9"):
        gaussian.mahalanobis(torch.rand(1, 4, 3, 3))


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
        sizes.append([part.shape for part in probe._gaussian.sums[1:]])
    assert sizes == [[(1, 6), (1, 6, 6)]] * 3


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


def test_centre_and_scale_are_those_of_loops() -> None:
    latents = torch.randn(37, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.1, 0.2, 0.5, 1.0, 2.0])
    latents = latents + torch.tensor([0.02, -0.02, 0.5, -1.0, 0.0])
    centre = [sum(float(z[k]) for z in latents) / 37 for k in range(5)]
    centre = [entry if abs(entry) >= 0.1 else (0.1 if entry >= 0 else -0.1) for entry in centre]
    scale = sum(max(1.0, sum((float(z[k]) - centre[k]) ** 2 for k in range(5))) for z in latents) / 37
    for sizes in ([37], [1] * 37, [30, 7]):
        gaussian = LatentGaussian(5)
        gaussian.fit(lambda sizes=sizes: iter(torch.split(latents, sizes)))  # type: ignore[misc]
        assert gaussian.centre.tolist() == pytest.approx(centre, abs=1e-6)
        assert float(gaussian.scale) == pytest.approx(scale, rel=1e-6)


def test_whitened_features_are_components_of_variance_one() -> None:
    features = torch.randn(90, 8, generator=torch.Generator().manual_seed(0)).double() @ torch.rand(8, 12).double()
    layers = []
    for sizes in ([90], [1] * 90, [50, 40]):
        layer = nn.Linear(12, 10).double()
        whiten(layer, lambda sizes=sizes: iter(torch.split(features, sizes)))  # type: ignore[misc]
        layers.append(layer)
    with torch.no_grad():
        found = layers[0](features)
        assert torch.allclose(found.mean(dim=0), torch.zeros(10).double(), atol=1e-9)
        expected = torch.diag(torch.tensor([1.0] * 8 + [0.0] * 2)).double()  # features vary in 8 directions only
        assert torch.allclose(torch.cov(found.T, correction=0), expected, atol=1e-9)
        inverse = np.linalg.pinv(np.cov(features.T.numpy(), bias=True), rcond=1e-9)
        centred = (features - features.mean(dim=0)).numpy()
        mahalanobis = [row @ inverse @ row for row in centred]
        assert found.square().sum(dim=1).tolist() == pytest.approx(mahalanobis, rel=1e-6)
        for layer in layers[1:]:
            assert torch.allclose(layer.weight, layers[0].weight, atol=1e-9)
            assert torch.allclose(layer.bias, layers[0].bias, atol=1e-9)
        assert (layers[0].weight.gather(1, layers[0].weight.abs().argmax(dim=1, keepdim=True)) >= 0).all()


def test_leading_components_come_first() -> None:
    features = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 0.1])
    layer = nn.Linear(3, 2)
    whiten(layer, lambda: iter([features]))
    assert layer.weight.abs().argmax(dim=1).tolist() == [1, 0]


def test_reference_floor_of_the_centre(golden: dict[str, Any]) -> None:
    reference = golden["igd"]["centre_floor"]
    floored = floor_centre(torch.tensor(reference["before"]), reference["eps"])
    assert floored.tolist() == pytest.approx(reference["after"])
