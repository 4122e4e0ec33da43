"""A small encoder for tests in which the architecture does not matter.

`install` makes it the default. `python -m tests.tiny` is the command line with it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from timm.models import register_model
from timm.models.resnet import BasicBlock, ResNet

from ccd_lightning.models import encoder

NAME = "tiny_resnet"
REAL, PREFERRED = encoder.DEFAULT, encoder.PREFERRED


@register_model
def tiny_resnet(pretrained: bool = False, **options: Any) -> ResNet:
    """ResNet-18's stages with one block each and a quarter of the channels or fewer: 0.1 million parameters."""
    for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):  # which timm passes to all
        options.pop(name, None)
    block: Any = BasicBlock
    network: Any = ResNet(block, (1, 1, 1, 1), channels=(16, 32, 64, 32), stem_width=8, stem_type="deep", **options)
    network.pretrained_cfg = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    return network  # type: ignore[no-any-return]


def install() -> None:
    """Makes every encoder from now on a small one, unless it is named."""
    encoder.DEFAULT, encoder.PREFERRED = NAME, ()


@contextmanager
def real_encoder() -> Iterator[None]:
    """Makes encoders ResNet-18 for a while."""
    encoder.DEFAULT, encoder.PREFERRED = REAL, PREFERRED
    try:
        yield
    finally:
        install()


if __name__ == "__main__":
    from ccd_lightning.cli import main

    install()
    sys.exit(main())
