"""Compiles the encoder with `torch.compile`."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from ccd_lightning.models.encoder import Encoder


class CompileEncoder(Callback):
    """Compiles the networks of all encoders before the first step, which takes half a minute or more.

    So it can only save time in long fits. On CPUs, a forward pass without gradients takes about 0.86 times as long, and
    a training step takes as long as before (docs/scaling.md); on a GPU it has not been measured. Results agree up to
    rounding. Checkpoints do not depend on it. The default backend needs a C++ compiler.

    Args:
        backend: Backend of `torch.compile`.
        mode: Mode of `torch.compile`, such as "reduce-overhead" or "max-autotune"; None for its default.
    """

    def __init__(self, backend: str = "inductor", mode: str | None = None) -> None:
        self.backend, self.mode = backend, mode

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compiles the encoders, once for all stages."""
        options = {"backend": self.backend} | ({"mode": self.mode} if self.mode else {})
        for encoder in pl_module.modules():
            if isinstance(encoder, Encoder) and not encoder.is_compiled:
                encoder.compile(**options)
