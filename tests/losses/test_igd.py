import math
from typing import Any

import numpy as np
import pytest
import torch

from ccd_lightning.losses.igd import (
    DATA_RANGE,
    critic_loss,
    gaussian_score,
    interpolate_latents,
    interpolation_loss,
    ranking_score,
    reconstruction_errors,
    reconstruction_loss,
)
from ccd_lightning.losses.ssim import ms_ssim, similarity_pyramid
from ccd_lightning.models.encoder import Encoder
from tests.conftest import GOLDEN

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


@pytest.fixture(scope="module")
def images() -> tuple[torch.Tensor, torch.Tensor]:
    """Originals and reconstructions (2, 3, 192, 192), normalised."""
    arrays: Any = np.load(GOLDEN / "igd_images.npz")
    mean, std = (torch.tensor(value, dtype=torch.float64).view(3, 1, 1) for value in (MEAN, STD))
    original, made = (
        (torch.from_numpy(arrays[name]).double() / 255 - mean) / std for name in ("original", "reconstruction")
    )
    return original, made


def test_reconstruction_loss_has_the_reference_values(
    images: tuple[torch.Tensor, torch.Tensor], golden: dict[str, Any]
) -> None:
    reference = golden["igd"]
    pyramid = similarity_pyramid(images[0], images[1], 5, reference["ms_ssim_win_size"], reference["data_range"])
    similarity = ms_ssim(pyramid, reference["ms_ssim_weights"], reference["ms_ssim_win_size"]).mean()
    assert 1 - float(similarity) == pytest.approx(reference["one_minus_ms_ssim"], abs=1e-8)
    assert float((images[0] - images[1]).abs().mean() / DATA_RANGE) == pytest.approx(reference["l1_over_range"])
    assert float(reconstruction_loss(*images)) == pytest.approx(reference["reconstruction_loss"], abs=1e-8)
    assert float(reconstruction_loss(images[0].float(), images[1].float())) == pytest.approx(
        reference["reconstruction_loss"], abs=1e-5
    )


def test_scores_have_the_reference_values(golden: dict[str, Any]) -> None:
    reference = golden["igd"]
    latent, centre = (torch.tensor(reference[name], dtype=torch.float64) for name in ("latent", "centre"))
    scores = gaussian_score(latent, centre, torch.tensor(reference["sigma"], dtype=torch.float64))
    assert scores.tolist() == pytest.approx(reference["gaussian_score_per_sample"], abs=1e-6)
    assert float(scores.mean()) == pytest.approx(reference["gaussian_loss"], abs=1e-6)


def test_critic_loss_has_the_reference_values(golden: dict[str, Any]) -> None:
    reference = golden["igd"]
    output, alpha = (torch.tensor(reference[name]) for name in ("critic_output", "alpha"))
    assert float(critic_loss(output, alpha)) == pytest.approx(reference["critic_interpolation_loss"], abs=1e-6)
    assert float(interpolation_loss(output)) == pytest.approx(reference["interpolation_regulariser"], abs=1e-6)


def test_the_range_is_that_of_normalised_pixels() -> None:
    encoder = Encoder()
    span = encoder.normalise(torch.ones(1, 3, 1, 1)).max() - encoder.normalise(torch.zeros(1, 3, 1, 1)).min()
    assert float(span) == pytest.approx(DATA_RANGE, abs=1e-4)


def test_losses_agree_with_loops() -> None:
    rng = np.random.default_rng(0)
    z, partner, alpha, blended = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), rng.uniform(0, 0.5, 4), rng.random(4)
    centre, sigma = rng.normal(size=3), 2.5
    scores = [1 - math.exp(-sum((z[i, k] - centre[k]) ** 2 for k in range(3)) / sigma) for i in range(4)]
    between = [[alpha[i] * z[i, k] + (1 - alpha[i]) * partner[i, k] for k in range(3)] for i in range(4)]
    critic = sum((blended[i] - alpha[i]) ** 2 + scores[i] ** 2 for i in range(4)) / 4
    tensors = [torch.from_numpy(array) for array in (z, partner, alpha, blended, centre)]
    assert gaussian_score(tensors[0], tensors[4], torch.tensor(sigma)).tolist() == pytest.approx(scores)
    assert interpolate_latents(*tensors[:3]).tolist() == [pytest.approx(row) for row in between]
    assert float(critic_loss(tensors[3], tensors[2], torch.tensor(scores))) == pytest.approx(critic)


def test_errors_are_each_image_s_own(images: tuple[torch.Tensor, torch.Tensor]) -> None:
    errors, maps = reconstruction_errors(*images)
    alone = [reconstruction_errors(images[0][[index]], images[1][[index]]) for index in (0, 1)]
    assert torch.allclose(errors, torch.cat([error for error, _ in alone]))
    assert torch.allclose(maps, torch.cat([one for _, one in alone]))
    assert maps.shape == (2, 192, 192)


def test_without_structure_the_map_is_the_difference(images: tuple[torch.Tensor, torch.Tensor]) -> None:
    errors, maps = reconstruction_errors(*images, structure=0.0)
    assert torch.allclose(maps, (images[0] - images[1]).abs().mean(dim=1) / DATA_RANGE)
    assert torch.allclose(errors, maps.mean(dim=(1, 2)))


def latents_at(distances: torch.Tensor) -> torch.Tensor:
    """Latents (N, 2) at these |z|^2."""
    return torch.stack([distances.sqrt(), torch.zeros_like(distances)], dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_latents_do_not_tie(dtype: torch.dtype) -> None:
    distances = torch.logspace(-3, 30, 4000, dtype=torch.float64).to(dtype)
    latents, centre, scale = latents_at(distances), torch.zeros(2, dtype=dtype), torch.tensor(1.0, dtype=dtype)
    published, ranked = gaussian_score(latents, centre, scale), ranking_score(latents, centre, scale)
    saturated = distances > -math.log(torch.finfo(dtype).eps / 4)
    assert (published[saturated] == 1).all()
    assert (ranked.diff() >= 0).all()
    assert (ranked[saturated].diff() > 0).all()
    assert torch.equal(ranked[published < 1], published[published < 1])
    assert ranked.max() < 1.1


def test_latents_that_overflow_have_the_highest_score_and_nan_stays_nan() -> None:
    latents = torch.tensor([[1e30, 0.0], [1e15, 0.0], [float("nan"), 0.0]])
    scores = ranking_score(latents, torch.zeros(2), torch.tensor(1.0))
    assert scores[1] < scores[0] < 1.1
    assert scores[2].isnan()


def test_near_latents_keep_their_digits() -> None:
    distances = torch.tensor([1e-9, 2e-9, 1e-12])
    scores = gaussian_score(latents_at(distances), torch.zeros(2), torch.tensor(1.0))
    assert scores.tolist() == pytest.approx(distances.tolist(), rel=1e-5)


@pytest.mark.parametrize("score", [gaussian_score, ranking_score])
def test_gradients_of_scores_are_correct(score: Any) -> None:
    distances = torch.tensor([0.0, 1.0, 9.0, 36.0, 40.0, 1e6], dtype=torch.float64)
    latents = latents_at(distances).requires_grad_()
    centre, scale = torch.tensor([0.1, -0.2], dtype=torch.float64), torch.tensor(1.5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: score(z, centre, scale), latents)
