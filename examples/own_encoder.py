"""A network of your own as encoder: register it with timm, and start the command line from the same file.

python examples/own_encoder.py fit --config neighbours_folder --data.root DIR \
    --model.encoder.name narrow_resnet --model.encoder.weights null
python examples/own_encoder.py test

Whatever opens the run later has to import this file first, so that timm knows the name.
"""

from __future__ import annotations

import sys
from typing import Any

from timm.models import register_model
from timm.models.resnet import BasicBlock, ResNet

from ccd_lightning.cli import main


@register_model
def narrow_resnet(pretrained: bool = False, **options: Any) -> ResNet:
    """A ResNet-18 with a quarter of the channels. timm reads its levels from the network itself."""
    for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):  # which timm passes to every network
        options.pop(name, None)
    block: Any = BasicBlock
    network: Any = ResNet(block, (2, 2, 2, 2), channels=(16, 32, 64, 128), **options)
    network.pretrained_cfg = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # images become this
    return network  # type: ignore[no-any-return]  # timm's network, to which an attribute was added


if __name__ == "__main__":
    sys.exit(main())
