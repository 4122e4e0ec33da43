"""Base class of all one-class detectors: encoder, evaluation step and thresholds."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from ccd_lightning.data.loading import ImageBatch, read_batch
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.data.tiles import Tiles
from ccd_lightning.encoder_config import EncoderConfig, build_encoder, initialise_encoder
from ccd_lightning.errors import UserError
from ccd_lightning.models.content import unless_whole
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.models.tiling import Tiling
from ccd_lightning.modules.finite_scores import require_numbers
from ccd_lightning.modules.held_out import HeldOut
from ccd_lightning.modules.pseudo_lesions import PseudoLesions, pseudo_seed
from ccd_lightning.modules.refitting import adapt_thresholds, other_images, refuse_changes
from ccd_lightning.overrides import check_overrides
from ccd_lightning.ranges import between
from ccd_lightning.renamed import rename_tensors


class OneClassDetector(LightningModule, ABC):
    """Base class of detectors, which score images by their distance from normal images.

    Validation uses only held-out normal images: a quantile of their scores becomes the threshold, and a quantile of
    their map values the pixel threshold. Some of them are scored again with pseudo-lesions (`PseudoLesions`); these
    results are only logged. Test and predict return scores and maps. No step of this class reads labels.

    Args:
        encoder: Source of the encoder's weights; None for a detector without its own encoder.
        quantile: Share of held-out normal images that score at most the threshold, in (0, 1).

    Attributes:
        threshold: Scalar; images with a higher score are abnormal. NaN if no images were held out.
        normal_scores: Scores of the held-out images in ascending order, (N,).
        normal_maxima: Maxima of their maps in ascending order, (N,); empty if an older version fitted the detector.
        preprocessing: Size, crop and window of the images that the detector was fitted to, read from the checkpoint by
            `load`.
        score_settings: Options that affect scores and maps and can be changed after a fit.
        changed: Options that differ from the checkpoint, with their current values.
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
        check_overrides(type(self))
        between("model.quantile", quantile, 0, 1)
        self.quantile = quantile
        if encoder is not None:
            self.encoder_config, self.encoder = build_encoder(encoder)
        self.changed: dict[str, Any] = {}
        # All of these affect decisions, so all are stored in the checkpoint.
        self.register_buffer("threshold", torch.tensor(float("nan")))
        self.register_buffer("pixel_threshold", torch.tensor(float("nan")))
        self.register_buffer("normal_scores", torch.empty(0))
        self.register_buffer("normal_maxima", torch.empty(0))
        # Range of the maps of normal images: their median, and the quantile of their maxima.
        self.register_buffer("map_limits", torch.full((2,), float("nan")))
        self._held_out = HeldOut()
        self._pseudo = PseudoLesions()

    @abstractmethod
    def score(self, images: Tensor, content: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scores images, or tiles of images, without tiling them further.

        Args:
            images: Images in [0, 1], (B, 3, H, W).
            content: Non-empty content boxes of the images (see `models.content`), (B, 4) int64; None if everything is
                content.

        Returns:
            Image scores (B,) and anomaly maps (B, H, W), both >= 0 and higher for less normal images. Padding does not
            affect them, and maps are 0 there.
        """

    @property
    def encoders(self) -> list[Encoder]:
        """Encoders that the scores depend on."""
        return [self.encoder]

    def check_images(self, preprocessing: Preprocessing, device: torch.device, processes: int) -> None:
        """Checks that the detector can be fitted to the images.

        Args:
            preprocessing: Preprocessing of the images, including tiling.
            device: Device on which the detector is fitted.
            processes: Number of processes that fit it on this machine.

        Raises:
            UserError: If the encoder does not accept images of this size, memory is too small, or a method does not
                accept the content of letterboxed images.
        """
        if preprocessing.fit == "letterbox":
            check_overrides(type(self), without=())
        tiles = preprocessing.tiling
        size = (tiles.side, tiles.side) if tiles else preprocessing.shape
        self.check_size(size, "data.tiles.side" if tiles else "data.size")
        self.check_memory(size, device, processes)

    def check_size(self, size: tuple[int, int], option: str) -> None:
        """Checks that the detector accepts images of a size.

        Args:
            size: Height and width in pixels.
            option: Name of the option that sets the size, used in error messages.

        Raises:
            UserError: If the detector does not accept images of this size.
        """
        self.encoder.check_size(size, option)

    def check_memory(self, size: tuple[int, int], device: torch.device, processes: int) -> None:
        """Checks that memory is large enough to fit the detector to images, or tiles, of a size.

        Args:
            size: Height and width in pixels.
            device: Device on which the detector is fitted.
            processes: Number of processes that fit it on this machine.

        Raises:
            UserError: If memory is too small.
        """

    def forward(self, images: Tensor, content: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scores working images, tile by tile if tiling is enabled (`data.tiles`).

        Args:
            images: Images in [0, 1], (B, 3, H, W).
            content: Content boxes without the letterbox padding: top, left, bottom and right in pixels, (B, 4) int64.
                None if everything is content.

        Returns:
            Image scores (B,) and anomaly maps (B, H, W). Maps are 0 in the padding.
        """
        return self.score_whole(images, unless_whole(content, images.shape[-2:]), self.tiles)

    def score_whole(self, images: Tensor, content: Tensor | None, tiles: Tiles | None) -> tuple[Tensor, Tensor]:
        """Scores images with the given tiling; None scores whole images. See `forward`."""
        if tiles is None:
            return self.score(images) if content is None else self.score(images, content)
        tiling = Tiling((images.shape[-2], images.shape[-1]), tiles.side, tiles.shared, tiles.top)
        return tiling.score(lambda cut, own: self.score_whole(cut, own, None), images, content)

    def fit_inputs(self, batch: dict[str, Any]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yields what the detector is fitted to: the images of a batch or their tiles, a few at a time, and content."""
        images, content = batch["image"], unless_whole(batch.get("content"), batch["image"].shape[-2:])
        if not (tiles := self.tiles):
            yield images, content
            return
        tiling = Tiling((images.shape[-2], images.shape[-1]), tiles.side, tiles.shared)
        yield from (part[1:] for part in tiling.tiles(images, content))

    @property
    def tiles(self) -> Tiles | None:
        """Tiling of the images, from the checkpoint or the trainer's data module; None without tiling."""
        data = None if self._trainer is None else getattr(self.trainer, "datamodule", None)
        preprocessing = self.preprocessing or getattr(data, "preprocessing", None)
        return preprocessing.tiling if preprocessing else None

    def read_placed(self, *files: str | Path) -> ImageBatch:
        """Reads image files with the preprocessing of the fit.

        Returns:
            Pixels (B, 3, H, W) in [0, 1] and content boxes (B, 4), on the detector's device. These are the arguments of
            a call.

        Raises:
            UserError: If no file is given, a file cannot be decoded, or the detector was not loaded from a run with a
                known image size.
        """
        if not files:
            raise UserError("No image was given. Give the paths of one or more image files.")
        if self.preprocessing is None:
            raise UserError("This detector has no image size. Load one from a run with ccd_lightning.load.")
        return read_batch(files, self.preprocessing, self.device)

    def read(self, *files: str | Path) -> Tensor:
        """Reads image files like `read_placed`, but returns only the pixels.

        Raises:
            UserError: As in `read_placed`, or if images are letterboxed, because the pixels alone do not show which are
                padding.
        """
        if self.preprocessing and self.preprocessing.fit == "letterbox":
            raise UserError(
                "This detector was fitted to letterboxed images, and needs to know their margins: call"
                " detector.score_files(...), or detector(*detector.read_placed(...))."
            )
        return self.read_placed(*files).pixels

    @torch.no_grad()
    def score_files(self, *files: str | Path) -> tuple[Tensor, Tensor]:
        """Returns scores and maps of image files, as in `forward`; arguments and errors are those of `read_placed`."""
        found: tuple[Tensor, Tensor] = self(*self.read_placed(*files))
        return found

    def setup(self, stage: str) -> None:
        """Initialises the encoder for a fit. A loaded detector has its encoder's weights in the checkpoint."""
        if stage == "fit":
            self.encoder_sources = {"encoder": initialise_encoder(self.encoder, self.encoder_config)}

    def evaluate(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Scores a batch in validation, test and predict; returns `scores` (B,) and `maps` (B, H, W)."""
        images = batch["image"]
        with self.full_precision():
            scores, maps = self(images, batch.get("content"))
        if scores.shape != images.shape[:1] or maps.shape != (len(images), *images.shape[-2:]):
            raise TypeError(
                f"{type(self).__name__}.score returned scores {tuple(scores.shape)} and maps {tuple(maps.shape)} for"
                f" images {tuple(images.shape)}; expected scores (B,) and maps (B, H, W)"
            )
        return {"scores": scores, "maps": maps}

    def full_precision(self) -> torch.autocast:
        """Returns a context that disables mixed precision, which would make distances inexact and save little."""
        return torch.autocast(self.device.type, enabled=False)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Scores held-out normal images."""
        if self.trainer.sanity_checking:
            return  # the detector is not fitted yet
        output, content = self.evaluate(batch), batch.get("content")
        self._held_out.add(output["scores"], output["maps"], content)
        self._pseudo.add(batch["image"], content)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Scores test images."""
        return require_numbers(self.evaluate(batch), batch)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Scores any images."""
        return require_numbers(self.evaluate(batch), batch)

    def on_validation_epoch_end(self) -> None:
        """Sets the thresholds and the other statistics of the held-out images, the same on all ranks."""
        if self.trainer.sanity_checking:
            return
        for name, value in self._held_out.limits(self.quantile)._asdict().items():
            setattr(self, name, value.to(self.device))
        self._held_out.clear()
        found = self._pseudo.measure(self._evaluate_images, self.normal_scores, pseudo_seed(self.trainer))
        logged: dict[str, Any] = {"val/threshold": self.threshold}
        logged |= {f"val/{name}": value for name, value in found.items()}
        self.log_dict(logged, sync_dist=True)  # the same on every rank

    def _evaluate_images(self, images: Tensor, content: Tensor) -> dict[str, Tensor]:
        return self.evaluate({"image": images.to(self.device), "content": content.to(self.device)})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Stores the settings of the encoder, if the constructor has an argument for them."""
        if "encoder" in inspect.signature(type(self).__init__).parameters:
            checkpoint.setdefault("hyper_parameters", {})["encoder"] = self.encoder.settings()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resizes the buffers to those of the checkpoint, adds buffers that older files lack, and adapts thresholds."""
        state = checkpoint["state_dict"]
        rename_tensors(state)
        state.setdefault("pixel_threshold", self.pixel_threshold)
        state.setdefault("map_limits", self.map_limits)
        state.setdefault("normal_maxima", self.normal_maxima)
        fitted = checkpoint.get("hyper_parameters", {})
        refuse_changes(self._trainer, fitted, self.hparams, self.score_settings, type(self).__name__)
        images = other_images(self._trainer, checkpoint)
        self.changed = adapt_thresholds(state, fitted, self.hparams, self.score_settings, self.quantile, images)
        self.normal_scores = torch.empty_like(state["normal_scores"])
        self.normal_maxima = torch.empty_like(state["normal_maxima"])
