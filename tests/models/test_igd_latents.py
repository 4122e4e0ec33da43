from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ccd_lightning.models.igd.latents import LatentGaussian, floor_centre, whiten


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


def test_the_centre_has_the_reference_floor(golden: dict[str, Any]) -> None:
    reference = golden["igd"]["centre_floor"]
    floored = floor_centre(torch.tensor(reference["before"]), reference["eps"])
    assert floored.tolist() == pytest.approx(reference["after"])
