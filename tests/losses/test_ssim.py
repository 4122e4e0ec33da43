import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import pytorch_msssim
import torch
from scipy import ndimage

from ccd_lightning.losses.ssim import _blur_matrix, dissimilarity_map, mean_within, ms_ssim, similarity_pyramid

Floats = npt.NDArray[np.float64]
WEIGHTS = (0.0516, 0.3295, 0.3463, 0.2726)


def pair(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    first = torch.rand(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noise = torch.rand(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return first, 0.7 * first + 0.3 * noise


@pytest.mark.parametrize(("size", "window"), [(192, 11), (96, 5), (80, 3)])
def test_ms_ssim_is_that_of_the_library(size: int, window: int) -> None:
    first, second = pair(size)
    weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    ours = ms_ssim(similarity_pyramid(first, second, 5, window, 2.0), weights, window)
    theirs = pytorch_msssim.ms_ssim(first, second, data_range=2.0, win_size=window, size_average=False)
    assert torch.allclose(ours, theirs, atol=1e-7)


def test_gradients_are_those_of_the_library() -> None:
    first, second = pair(192)
    weights, found = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333), []
    for library in (False, True):
        second = second.detach().requires_grad_()
        if library:
            value = pytorch_msssim.ms_ssim(first, second, data_range=2.0, size_average=False)
        else:
            value = ms_ssim(similarity_pyramid(first, second, 5, 11, 2.0), weights, 11)
        found.append(torch.autograd.grad(value.sum(), second)[0])
    assert float(found[1].abs().max()) > 1e-5
    assert torch.allclose(found[0], found[1], atol=1e-9)


def test_gradients_lead_away_from_negative_similarity() -> None:
    """Where each level's similarity is negative the value is 0, and yet there is a way up."""
    first, _ = pair(32)
    second = (1 - first).requires_grad_()
    optimizer = torch.optim.Adam([second], lr=0.05)
    values = []
    for _ in range(200):
        value = ms_ssim(similarity_pyramid(first, second, 4, 3, 1.0), WEIGHTS, 3).mean()
        values.append(value.item())
        optimizer.zero_grad()
        (1 - value).backward()
        optimizer.step()
    assert values[0] == 0
    assert values[-1] > 0.9


def by_scipy(first: Floats, second: Floats, window: int, data_range: float) -> tuple[Floats, Floats]:
    """Maps of one channel, with the window's weights normalised where the border cuts it."""

    def blur(image: Floats) -> Floats:
        blurred = image
        for axis in (0, 1):
            distance = np.arange(window) - window // 2
            kernel = np.exp(-(distance**2) / (2 * 1.5**2))
            over = ndimage.correlate1d(blurred, kernel, axis=axis, mode="constant")
            blurred = over / ndimage.correlate1d(np.ones_like(blurred), kernel, axis=axis, mode="constant")
        return blurred

    x, y = blur(first), blur(second)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    variances = blur(first * first) - x * x + blur(second * second) - y * y
    contrast = (2 * (blur(first * second) - x * y) + c2) / (variances + c2)
    return (2 * x * y + c1) / (x * x + y * y + c1) * contrast, contrast


def halved(image: Floats) -> Any:
    side = len(image) // 2
    return image.reshape(side, 2, side, 2).mean(axis=(1, 3))


def test_windows_of_32_px_are_those_of_scipy() -> None:
    """The published sizes of the local scale, which the library refuses."""
    first, second = pair(32)
    pyramid = similarity_pyramid(first, second, 4, 3, 4.7579)
    expected = []
    for channel in range(3):
        a, b, product = first[0, channel].numpy(), second[0, channel].numpy(), 1.0
        for level, weight in enumerate(WEIGHTS):
            whole, contrast = by_scipy(a, b, 3, 4.7579)
            assert np.allclose(pyramid[level].whole[0, channel], whole, atol=1e-7)
            assert np.allclose(pyramid[level].contrast[0, channel], contrast, atol=1e-7)
            product *= max(0.0, float((whole if level == 3 else contrast)[1:-1, 1:-1].mean())) ** weight
            a, b = halved(a), halved(b)
        expected.append(product)
    assert float(ms_ssim(pyramid, WEIGHTS, 3)[0]) == pytest.approx(np.mean(expected), abs=1e-7)


def test_the_map_is_the_weighted_sum_of_its_levels() -> None:
    first, second = pair(32)
    pyramid = similarity_pyramid(first, second, 4, 3, 1.0)
    alone = [dissimilarity_map(pyramid, [float(level == other) for other in range(4)]) for level in range(4)]
    assert alone[0].shape == (2, 32, 32)
    assert torch.allclose(alone[0], 1 - pyramid[0].whole.mean(dim=1))
    assert torch.allclose(dissimilarity_map(pyramid, WEIGHTS), sum(w * m for w, m in zip(WEIGHTS, alone, strict=True)))  # type: ignore[arg-type]


def test_identical_images_differ_nowhere() -> None:
    image, _ = pair(32)
    pyramid = similarity_pyramid(image, image, 4, 3, 1.0)
    assert torch.allclose(ms_ssim(pyramid, WEIGHTS, 3), torch.ones(2, dtype=torch.float64))
    assert dissimilarity_map(pyramid, WEIGHTS).abs().max() < 1e-9


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_flat_images_that_are_nearly_the_same_differ_by_0_or_more(value: float) -> None:
    """Where rounding would make similarities of more than 1, as on black margins that a decoder has learned."""
    first = torch.full((1, 3, 64, 64), (value - 0.45) / 0.22)
    for difference in (1e-6, 1e-5, 1e-4, 1e-3):
        pyramid = similarity_pyramid(first, first + difference, 4, 3, 4.7579)
        assert float(dissimilarity_map(pyramid, WEIGHTS).min()) >= 0
        assert float(ms_ssim(pyramid, WEIGHTS, 3).max()) <= 1


def test_gradients_flow_after_a_call_in_inference_mode() -> None:
    _blur_matrix.cache_clear()
    image = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        similarity_pyramid(image, image, 4, 3, 1.0)
    made = torch.rand(1, 3, 32, 32, requires_grad=True)
    ms_ssim(similarity_pyramid(image, made, 4, 3, 1.0), WEIGHTS, 3).sum().backward()
    assert made.grad is not None


def test_the_map_lights_up_where_images_differ() -> None:
    first, _ = pair(64)
    second = first.clone()
    second[:, :, 40:48, 8:16] = 0.5
    place = dissimilarity_map(similarity_pyramid(first, second, 4, 3, 1.0), WEIGHTS)[0].argmax()
    row, column = divmod(int(place), 64)
    assert 38 <= row < 50
    assert 6 <= column < 18


@pytest.mark.parametrize(("size", "levels", "window"), [(128, 5, 11), (32, 4, 5), (36, 4, 3), (32, 4, 2)])
def test_images_too_small_for_levels_and_window_are_refused(size: int, levels: int, window: int) -> None:
    images = torch.zeros(1, 1, size, size)
    with pytest.raises(ValueError, match=f"{levels} levels with a window of {window} px does not fit {size} px"):
        similarity_pyramid(images, images, levels, window, 1.0)


def test_gradients_are_numbers_where_images_are_the_same() -> None:
    image = torch.full((1, 3, 32, 32), 0.5)
    made = image.clone().requires_grad_()
    ms_ssim(similarity_pyramid(image, made, 4, 3, 1.0), WEIGHTS, 3).sum().backward()
    assert made.grad is not None
    assert math.isfinite(float(made.grad.abs().sum()))


def test_masked_similarity_averages_the_windows_whose_centres_count() -> None:
    first, second = pair(32)
    mask = torch.zeros(2, 32, 32, dtype=torch.bool)
    mask[0, 3:20, 5:30], mask[1, 0, 0] = True, True  # of which the second vanishes when it is halved, but for one pixel
    pyramid, weights = similarity_pyramid(first, second, 3, 5, 2.0), (0.2, 0.3, 0.5)
    expected = []
    for image in range(2):
        for channel in range(3):
            product = 1.0
            for level, weight in enumerate(weights):
                side = 2**level
                blocks = mask[image].view(32 // side, side, 32 // side, side).permute(0, 2, 1, 3).flatten(2)
                share = blocks.double().mean(dim=2)
                kept = share >= 0.5 if bool((share >= 0.5).any()) else share > 0
                values = pyramid[level].whole if level == 2 else pyramid[level].contrast
                product *= float(values[image, channel][kept].mean()) ** weight
            expected.append(product)
    found = ms_ssim(pyramid, weights, 5, mask)
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64).view(2, 3).mean(dim=1), atol=1e-12)


def test_means_are_taken_within_a_mask() -> None:
    values = torch.arange(2 * 3 * 4 * 5, dtype=torch.float64).view(2, 3, 4, 5)
    mask = torch.zeros(2, 4, 5, dtype=torch.bool)
    mask[0, 1, 2:4] = True
    assert torch.equal(mean_within(values, mask)[0], values[0, :, 1, 2:4].mean(dim=1))
    assert torch.equal(mean_within(values, mask)[1], torch.zeros(3, dtype=torch.float64))
    assert torch.equal(mean_within(values[:, 0], mask), torch.stack([values[0, 0, 1, 2:4].mean(), torch.tensor(0.0)]))


def test_images_that_are_too_small_for_the_levels_are_refused() -> None:
    first, second = pair(24)
    assert len(similarity_pyramid(first, second, 3, 5, 2.0)) == 3  # 6 px at the last level
    for size, levels, window in ((24, 3, 7), (24, 4, 5), (22, 3, 5), (24, 2, 4)):
        with pytest.raises(ValueError, match=f"with a window of {window} px does not fit {size} px"):
            similarity_pyramid(*pair(size), levels, window, 2.0)
