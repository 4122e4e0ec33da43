"""A small network in the encoder's place, for tests in which the architecture does not matter.

`install` puts it there for the whole process. `python -m tests.tiny` is the command line with it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torchvision.models import resnet18
from torchvision.models.resnet import BasicBlock, ResNet

from ccd_lightning.models import encoder
from ccd_lightning.models.encoder import Encoder

WIDTHS = {64: 16, 128: 32, 256: 64, 512: 32}  # channels of a stage of ResNet-18, and of its small counterpart
TINY: dict[str, Any] = {"features_size": WIDTHS[512], "pyramid_channels": tuple(WIDTHS.values())[:3]}
REAL: dict[str, Any] = {name: getattr(Encoder, name) for name in TINY}


class TinyResNet(ResNet):  # type: ignore[misc]
    """ResNet-18's stages with one block each and a quarter of the channels or fewer: 0.1 million parameters."""

    def __init__(self) -> None:
        super().__init__(BasicBlock, [1, 1, 1, 1])
        self.conv1 = nn.Conv2d(3, WIDTHS[64], kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[64])

    def _make_layer(self, block: Any, planes: int, *args: Any, **kwargs: Any) -> nn.Sequential:
        if planes == 64:
            self.inplanes = WIDTHS[64]
        return super()._make_layer(block, WIDTHS[planes], *args, **kwargs)  # type: ignore[no-any-return]


def _put(network: Any, settings: dict[str, Any]) -> None:
    setattr(encoder, "resnet18", network)  # noqa: B010  (a name that the module imports)
    for name, value in settings.items():
        setattr(Encoder, name, value)


def install() -> None:
    """Makes every encoder from now on a small one."""
    _put(TinyResNet, TINY)


@contextmanager
def real_encoder() -> Iterator[None]:
    """Makes encoders ResNet-18 for a while."""
    _put(resnet18, REAL)
    try:
        yield
    finally:
        install()


if __name__ == "__main__":
    from ccd_lightning.cli import main

    install()
    sys.exit(main())
