"""What all one-class detectors share: the encoder, one evaluation step, and the threshold."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from ccd_lightning.data.images import read_image
from ccd_lightning.data.loading import unit_range
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.distributed import gather_ranks
from ccd_lightning.encoder_config import EncoderConfig, build_encoder, initialise_encoder
from ccd_lightning.errors import UserError
from ccd_lightning.metrics.histogram import binned_quantile, count_values
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.modules.pseudo_lesions import PseudoLesions, pseudo_seed
from ccd_lightning.renamed import rename_tensors

PIXEL_QUANTILE = 0.99  # share of held-out normal images' pixels whose map value is at most the pixel threshold


class OneClassDetector(LightningModule, ABC):
    """Scores images by how far they are from normal ones.

    Validation sees held-out normal images alone: a quantile of their scores becomes the threshold, and one of their
    maps' pixels the pixel threshold. Some of them are scored once more with pseudo-lesions (`PseudoLesions`); what that
    gives is logged and changes nothing. Test and predict give scores and maps; labels are read by none of the steps
    here.

    Args:
        encoder: Where the encoder's weights come from; None for a detector without an encoder of its own.
        quantile: Share of the held-out normal images whose score is at most the threshold, in (0, 1).

    Attributes:
        threshold: A scalar: an image is abnormal whose score is above it. NaN where nothing was held out.
        normal_scores: Of the held-out images, rising, (N,).
        normal_maxima: Of their maps, rising, (N,); empty where an older version fitted the detector.
        preprocessing: Size, crop and range of the images that it was fitted to, as `load` found it in the checkpoint.
        score_settings: Options on which scores and maps depend, and which can be changed after a fit.
        changed: Those of them that are not as in the checkpoint, with their values.
    """

    score_settings: ClassVar[tuple[str, ...]] = ()

    threshold: Tensor
    pixel_threshold: Tensor
    normal_scores: Tensor
    normal_maxima: Tensor
    map_limits: Tensor
    preprocessing: Preprocessing | None = None

    def __init__(self, encoder: EncoderConfig | None, quantile: float) -> None:
        super().__init__()
        if not 0 < quantile < 1:
            raise UserError(f"model.quantile is {quantile}, but must be a share between 0 and 1.")
        self.quantile = quantile
        if encoder is not None:
            self.encoder_config, self.encoder = build_encoder(encoder)
        self.changed: dict[str, Any] = {}
        # All are part of the decision, so all are in the checkpoint.
        self.register_buffer("threshold", torch.tensor(float("nan")))
        self.register_buffer("pixel_threshold", torch.tensor(float("nan")))
        self.register_buffer("normal_scores", torch.empty(0))
        self.register_buffer("normal_maxima", torch.empty(0))
        # What maps of normal images look like: their median, and the quantile of their maxima.
        self.register_buffer("map_limits", torch.full((2,), float("nan")))
        self._validated: list[Tensor] = []
        self._validation_pixels: Tensor | None = None
        self._pseudo = PseudoLesions()

    @abstractmethod
    def score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scores images (B, 3, H, W) in [0, 1].

        Returns:
            Image scores (B,) and anomaly maps (B, H, W), both >= 0 and higher where less normal.
        """

    @property
    def encoders(self) -> list[Encoder]:
        """The encoders that a score depends on."""
        return [self.encoder]

    def check_size(self, size: int) -> None:
        """Refuses images of a size (in pixels, square) that the detector cannot be fitted to.

        Raises:
            UserError: If it cannot, as when the encoder does not take them.
        """
        self.encoder.check_size(size)

    def check_memory(self, size: int, device: torch.device, processes: int) -> None:
        """Refuses images of a size that the detector's statistics do not leave room for.

        Args:
            size: Side of the images, in pixels.
            device: Where the detector is fitted.
            processes: That fit it together on this machine.

        Raises:
            UserError: If memory does not suffice.
        """

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The same as `score`."""
        return self.score(images)

    def read(self, *files: str | Path) -> Tensor:
        """Reads image files as this detector wants them, cropped and resized as in training.

        Returns:
            (B, 3, size, size) in [0, 1], on the detector's device.

        Raises:
            UserError: If a file cannot be decoded, or the detector was not loaded from a run that says their size.
        """
        if self.preprocessing is None:
            raise UserError("This detector knows no size of images; open one of a run with ccd_lightning.load.")
        pixels = np.stack([read_image(Path(file), self.preprocessing) for file in files])
        return unit_range(torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).contiguous())

    def setup(self, stage: str) -> None:
        """Takes over the encoder. A detector that is loaded instead of fitted brings its own and reads nothing."""
        if stage == "fit":
            self.encoder_sources = {"encoder": initialise_encoder(self.encoder, self.encoder_config)}

    def evaluate(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The one step of validation, test and predict: `scores` (B,) and `maps` (B, H, W)."""
        with self.full_precision():
            scores, maps = self.score(batch["image"])
        return {"scores": scores, "maps": maps}

    def full_precision(self) -> torch.autocast:
        """Turns a trainer's mixed precision off: half of the digits would blur distances, and save little."""
        return torch.autocast(self.device.type, enabled=False)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Scores held-out normal images."""
        if self.trainer.sanity_checking:
            return  # nothing is fitted yet
        output = self.evaluate(batch)
        maps = output["maps"].flatten(1)
        self._validated.append(torch.stack([output["scores"], maps.median(dim=1).values, maps.amax(dim=1)], dim=1))
        self._pseudo.add(batch["image"])
        counts = count_values(maps[maps.isfinite()])  # what training has broken has no threshold in any case
        self._validation_pixels = counts if self._validation_pixels is None else self._validation_pixels + counts

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Scores test images."""
        return self.evaluate(batch)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Scores any images."""
        return self.evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        """Sets the thresholds of scores and pixels, and the colours of maps, alike on all ranks."""
        if self.trainer.sanity_checking:
            return
        mine = torch.cat(self._validated).cpu()
        scores, medians, maxima = torch.cat(gather_ranks(mine)).to(self.device).T
        self._validated.clear()
        self.normal_scores, self.normal_maxima = scores.sort().values, maxima.sort().values
        self.threshold = torch.quantile(scores, self.quantile)
        self.map_limits = torch.stack([medians.median(), torch.quantile(maxima, self.quantile)])
        self._set_pixel_threshold()
        found = self._pseudo.measure(self._evaluate_images, self.normal_scores, pseudo_seed(self.trainer))
        logged: dict[str, Any] = {"threshold": self.threshold} | {f"val/{name}": value for name, value in found.items()}
        self.log_dict(logged, sync_dist=True)  # the same on every rank

    def _evaluate_images(self, images: Tensor) -> dict[str, Tensor]:
        return self.evaluate({"image": images.to(self.device)})

    def _set_pixel_threshold(self) -> None:
        assert self._validation_pixels is not None  # validation has at least one batch on every rank
        shares = gather_ranks(self._validation_pixels.cpu().to_sparse())
        counts = torch.stack([share.to_dense() for share in shares]).sum(dim=0)
        self._validation_pixels = None
        self.pixel_threshold = torch.tensor(binned_quantile(counts, PIXEL_QUANTILE), device=self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Says which network the encoder is, if the constructor can be told."""
        if "encoder" in inspect.signature(type(self).__init__).parameters:
            checkpoint.setdefault("hyper_parameters", {})["encoder"] = self.encoder.settings()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Makes room for as many held-out scores as the checkpoint holds; an older file lacks other buffers.

        With another quantile than in the fit, the threshold and the maps' upper limit are found anew among the held-out
        images; the pixel threshold has its own quantile, which is always the same.
        """
        state = checkpoint["state_dict"]
        rename_tensors(state)
        state.setdefault("pixel_threshold", self.pixel_threshold)
        state.setdefault("map_limits", self.map_limits)
        state.setdefault("normal_maxima", self.normal_maxima)
        fitted, now = checkpoint.get("hyper_parameters", {}), self.hparams
        changed = [name for name in self.score_settings if _at(fitted, name) not in (None, _at(now, name))]
        self.changed = {f"model.{name}": _at(now, name) for name in changed}
        if changed:
            name = changed[0]
            rank_zero_warn(
                f"model.{name} is {_at(now, name)}, but was {_at(fitted, name)} when the thresholds were found, so"
                " these are left out and nothing is decided. For decisions, fit the detector with this setting."
            )
            for name in ("threshold", "pixel_threshold", "map_limits"):
                state[name] = torch.full_like(state[name], float("nan"))
            for name in ("normal_scores", "normal_maxima"):
                state[name] = state[name][:0]
        if fitted.get("quantile", self.quantile) != self.quantile and len(state["normal_scores"]):
            self.changed["model.quantile"] = self.quantile
            state["threshold"] = torch.quantile(state["normal_scores"], self.quantile)
            if len(state["normal_maxima"]):
                high = torch.quantile(state["normal_maxima"], self.quantile)
                state["map_limits"] = torch.stack([state["map_limits"][0], high])
        self.normal_scores = torch.empty_like(state["normal_scores"])
        self.normal_maxima = torch.empty_like(state["normal_maxima"])


def _at(settings: Mapping[str, Any], name: str) -> Any:
    """The setting of a dotted name, or None."""
    found: Any = settings
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return list(found) if isinstance(found, tuple) else found
