"""Modules with buffers whose sizes are determined when they are fitted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class FittedModule(nn.Module):
    """Base class of modules with buffers that are empty until they are fitted; their sizes then depend on the images.

    When a checkpoint is loaded, each buffer is resized to its size in the checkpoint.
    """

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        for name, buffer in self._buffers.items():
            if buffer is not None and (loaded := state_dict.get(prefix + name)) is not None:
                setattr(self, name, torch.empty_like(loaded, device=buffer.device))
        super()._load_from_state_dict(state_dict, prefix, *args)
