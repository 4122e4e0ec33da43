from typing import Any

import numpy as np
import pytest
import torch

from ccd_lightning.models.gaussian import PatchGaussian, shrunk_covariance
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
def test_distances_have_the_reference_values(padim: dict[str, torch.Tensor], sizes: tuple[int, ...], seed: int) -> None:
    train = padim["train_embeddings"][torch.randperm(40, generator=torch.Generator().manual_seed(seed))]
    gaussian = fitted(torch.split(train, list(sizes)))
    assert torch.allclose(gaussian.mean.T.reshape(6, 3, 3), padim["mean"], atol=1e-8)
    assert torch.allclose(gaussian.mahalanobis(padim["query_embeddings"]), padim["mahalanobis"], atol=1e-8)


def test_distances_in_single_precision_are_close_to_the_reference(padim: dict[str, torch.Tensor]) -> None:
    gaussian = fitted([padim["train_embeddings"].float()], torch.float32)
    distances = gaussian.mahalanobis(padim["query_embeddings"].float()).double()
    assert torch.allclose(distances, padim["mahalanobis"], rtol=1e-3)


def test_far_from_zero_nothing_is_lost(padim: dict[str, torch.Tensor]) -> None:
    gaussian = fitted(torch.split(padim["train_embeddings"] + 1e6, 3))
    assert torch.allclose(gaussian.mahalanobis(padim["query_embeddings"] + 1e6), padim["mahalanobis"], rtol=1e-6)


def test_merged_moments_of_ranks_are_those_of_one_process(padim: dict[str, torch.Tensor]) -> None:
    ranks = [PatchGaussian(0.01, torch.float64) for _ in range(3)]
    for rank, part in zip(ranks, torch.split(padim["train_embeddings"], [5, 25, 10]), strict=True):
        rank.update(part)
    ranks[0].merge_ranks([rank.moments for rank in ranks])
    ranks[0].fit()
    assert torch.allclose(ranks[0].mahalanobis(padim["query_embeddings"]), padim["mahalanobis"], atol=1e-8)


def test_state_carries_all_that_scoring_needs(padim: dict[str, torch.Tensor]) -> None:
    gaussian = fitted([padim["train_embeddings"]])
    state = gaussian.state_dict()
    assert set(state) == {"mean", "whitening"}
    empty = PatchGaussian(dtype=torch.float64)
    empty.load_state_dict(state)
    assert torch.equal(empty.mahalanobis(padim["query_embeddings"]), gaussian.mahalanobis(padim["query_embeddings"]))
    places, channels = gaussian.mean.shape
    assert state["whitening"].shape == (places, channels * (channels + 1) // 2)  # the lower triangles
    older = PatchGaussian(dtype=torch.float64)  # which kept the zeros above, too
    older.load_state_dict(state | {"whitening": gaussian.whitening})
    assert torch.equal(older.whitening, gaussian.whitening)
    with pytest.raises(RuntimeError, match="size mismatch for whitening"):
        PatchGaussian().load_state_dict(state | {"whitening": state["whitening"][:, 1:]})


def test_memory_does_not_grow_with_the_number_of_images(padim: dict[str, torch.Tensor]) -> None:
    gaussian = PatchGaussian()
    sizes = []
    for batch in torch.split(padim["train_embeddings"], 10):
        gaussian.update(batch)
        sizes.append(sum(part.numel() for part in gaussian.moments[1:]))
    assert len(set(sizes)) == 1


def test_fits_without_enough_images_are_refused() -> None:
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


@pytest.mark.parametrize("sizes", [(12,), (1,) * 12, (7, 5)])
@pytest.mark.parametrize("centre", [0.0, 1e3])
def test_shrunk_covariance_is_scikit_learns(sizes: tuple[int, ...], centre: float) -> None:
    covariance = pytest.importorskip("sklearn.covariance")
    draw = torch.Generator().manual_seed(0)
    mixing = torch.randn(20, 20, generator=draw, dtype=torch.float64)
    features = torch.randn(12, 20, 3, generator=draw, dtype=torch.float64)  # fewer images than channels
    features = torch.einsum("bdp,de->bep", features, mixing) + centre
    gaussian = PatchGaussian(0, torch.float64, shrinkage=True)
    for batch in torch.split(features, list(sizes)):
        gaussian.update(batch)
    found = shrunk_covariance(gaussian.moments)
    for position in range(3):
        expected = torch.from_numpy(covariance.ledoit_wolf(features[:, :, position].numpy())[0])
        assert torch.allclose(found[position], expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


def test_a_shrunk_covariance_has_an_inverse_where_images_are_few() -> None:
    features = torch.randn(5, 40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gaussian = PatchGaussian(0, torch.float64, shrinkage=True)
    gaussian.update(features)
    gaussian.fit()
    assert gaussian.mahalanobis(features).isfinite().all()


@pytest.mark.parametrize("shrinkage", [False, True])
@pytest.mark.parametrize("sizes", [(14,), (1,) * 14, (7, 4, 3)])
def test_positions_count_what_is_content_of_each_image(sizes: tuple[int, ...], shrinkage: bool) -> None:
    """Each position is as if it alone had been seen, of the images of which it is content."""
    draw = torch.Generator().manual_seed(0)
    embeddings = torch.randn(14, 3, 5, generator=draw, dtype=torch.float64) + 7
    mask = torch.rand(14, 5, generator=draw) > 0.5
    mask[:, 3], mask[:, 4] = False, torch.arange(14) == 2
    queries = torch.randn(4, 3, 5, generator=draw, dtype=torch.float64)
    gaussian, ranks = (PatchGaussian(0.01, torch.float64, shrinkage) for _ in range(2))
    parts = []
    for batch, kept in zip(torch.split(embeddings, list(sizes)), torch.split(mask, list(sizes)), strict=True):
        gaussian.update(batch, kept)
        ranks.update(batch, kept)
        parts.append(ranks.moments)
        ranks.clear()
    assert gaussian.moments.number.tolist() == mask.sum(dim=0).tolist()
    ranks.merge_ranks(parts)
    gaussian.fit()
    ranks.fit()
    found = gaussian.mahalanobis(queries)
    assert torch.allclose(ranks.mahalanobis(queries), found, atol=1e-9)
    for position in range(3):
        alone = PatchGaussian(0.01, torch.float64, shrinkage)
        alone.update(embeddings[mask[:, position]][:, :, position, None])
        alone.fit()
        assert torch.allclose(alone.mahalanobis(queries[:, :, position, None])[:, 0], found[:, position], atol=1e-9)
    assert not found[:, 3:].any()  # one image is too few for a Gaussian
    assert gaussian.known is not None
    assert gaussian.known.tolist() == [True, True, True, False, False]
    loaded = PatchGaussian(dtype=torch.float64)
    loaded.load_state_dict(gaussian.state_dict())
    assert loaded.known is not None
    assert torch.equal(loaded.mahalanobis(queries), found)


def test_a_mask_that_keeps_all_changes_nothing(padim: dict[str, torch.Tensor]) -> None:
    gaussian = PatchGaussian(0.01, torch.float64)
    gaussian.update(padim["train_embeddings"], torch.ones(40, 3, 3, dtype=torch.bool))
    gaussian.fit()
    assert gaussian.known is None
    assert torch.allclose(gaussian.mahalanobis(padim["query_embeddings"]), padim["mahalanobis"], atol=1e-8)


def test_values_outside_the_content_are_ignored() -> None:
    embeddings, mask = torch.rand(6, 2, 3), torch.arange(6)[:, None] != torch.tensor([0, 1, 2])
    found = []
    for filler in (0.0, float("inf"), float("nan")):
        gaussian = PatchGaussian(shrinkage=True)
        gaussian.update(torch.where(mask[:, None], embeddings, filler), mask)
        gaussian.fit()
        found.append(gaussian.mahalanobis(embeddings))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("channels", [1, 2, 31, 100])
def test_saved_triangular_matrices_are_read_unchanged(channels: int) -> None:
    """Whatever the number of channels, which is not stored."""
    vectors = torch.randn(8, channels, 2, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(channels))
    gaussian, again = fitted([vectors]), PatchGaussian(dtype=torch.float64)
    again.load_state_dict(gaussian.state_dict())
    assert again.whitening.shape == (2, channels, channels)
    assert torch.equal(again.whitening, gaussian.whitening)
