"""Modules that are fitted to images, and whose buffers get their sizes from that."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class FittedModule(nn.Module):
    """A module whose buffers are empty until it is fitted, and then have a size that depends on the images.

    A checkpoint decides: on loading, every buffer that it has is made as large as there, whatever its size was.
    """

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        for name, buffer in self._buffers.items():
            if buffer is not None and (loaded := state_dict.get(prefix + name)) is not None:
                setattr(self, name, torch.empty_like(loaded, device=buffer.device))
        super()._load_from_state_dict(state_dict, prefix, *args)
