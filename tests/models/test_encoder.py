from typing import Any

import pytest
import torch
from torchvision.models import ResNet18_Weights, resnet18
from torchvision.transforms.functional import normalize

from ccd_lightning.errors import UserError
from ccd_lightning.models.encoder import IMAGENET_MEAN, IMAGENET_STD, Encoder

pytestmark = pytest.mark.usefixtures("real_encoder")


def test_is_torchvisions_network_with_its_normalisation() -> None:
    network = resnet18(num_classes=512).eval()
    network.fc = torch.nn.Identity()
    encoder = Encoder().eval()
    encoder.load_torchvision(resnet18().state_dict() | network.state_dict())
    images = torch.rand(2, 3, 64, 64)
    expected = network(normalize(images, list(IMAGENET_MEAN), list(IMAGENET_STD)))
    assert torch.allclose(encoder.features(images), expected, atol=1e-5)


def test_pyramid_shapes() -> None:
    levels = Encoder().eval().pyramid(torch.rand(2, 3, 64, 96))
    assert [tuple(level.shape) for level in levels] == [(2, 64, 16, 24), (2, 128, 8, 12), (2, 256, 4, 6)]


def test_a_missing_tensor_is_an_error() -> None:
    state = resnet18().state_dict()
    del state["layer3.1.conv2.weight"]
    with pytest.raises(RuntimeError, match=r"layer3\.1\.conv2\.weight"):
        Encoder().load_torchvision(state)


def test_imagenet_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", refuse)
    with pytest.raises(UserError, match=r"no route to host.*Put resnet18-f37072fd\.pth"):
        Encoder().load_imagenet()


def test_imagenet_weights_from_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    state = resnet18().state_dict()
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", lambda *_, **__: state)
    encoder = Encoder()
    encoder.load_imagenet()
    assert torch.equal(encoder.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
