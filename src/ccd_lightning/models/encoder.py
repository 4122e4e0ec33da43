"""The encoder that pretraining learns and detectors use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, resnet18

from ccd_lightning.errors import UserError
from ccd_lightning.grids import Grid

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Encoder(nn.Module):
    """ResNet-18 without its last layer, on images in [0, 1].

    Normalisation is part of it, so that a checkpoint needs nothing beside it. Weights are random until
    `load_imagenet` or `load_state_dict` replaces them.
    """

    features_size = 512
    pyramid_channels = (64, 128, 256)
    pyramid_grids = (Grid(4), Grid(8), Grid(16))

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        network = resnet18()
        self.stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
        self.layer1, self.layer2 = network.layer1, network.layer2
        self.layer3, self.layer4 = network.layer3, network.layer4
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def normalise(self, images: Tensor) -> Tensor:
        """Brings images (B, 3, H, W) from [0, 1] to ImageNet's mean and deviation."""
        return (images - self.mean) / self.std

    def pyramid(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Feature maps of layers 1 to 3: (B, 64, H/4, W/4), (B, 128, H/8, W/8), (B, 256, H/16, W/16), rounded up.

        `pyramid_grids` tells which pixel each of their units is centred on.
        """
        first = self.layer1(self.stem(self.normalise(images)))
        second = self.layer2(first)
        return first, second, self.layer3(second)

    def features(self, images: Tensor) -> Tensor:
        """One vector an image: (B, 3, H, W) in [0, 1] to (B, 512)."""
        return self.layer4(self.pyramid(images)[-1]).mean(dim=(2, 3))  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        """The same as `features`."""
        return self.features(images)

    def load_imagenet(self) -> None:
        """Loads torchvision's ImageNet weights, from its cache or the network.

        Raises:
            UserError: If they are in neither; it says where to put the file.
        """
        weights = ResNet18_Weights.IMAGENET1K_V1
        try:
            state = weights.get_state_dict(progress=True, check_hash=True)
        except (OSError, RuntimeError) as error:
            file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
            raise UserError(
                f"The ImageNet weights could not be downloaded ({error}). Put {file.name} from another machine at"
                f" {file}, or choose other weights with --model.encoder.weights."
            ) from error
        self.load_torchvision(state)

    def load_torchvision(self, state: Mapping[str, Tensor]) -> None:
        """Loads the state of a torchvision ResNet-18, without its last layer; every tensor must be there."""
        stem = {"conv1": "stem.0", "bn1": "stem.1"}
        renamed = {"mean": self.mean, "std": self.std}
        for name, tensor in state.items():
            first, rest = name.split(".", 1)
            if first != "fc":
                renamed[f"{stem.get(first, first)}.{rest}"] = tensor
        self.load_state_dict(renamed)
