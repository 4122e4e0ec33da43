"""What all one-class detectors share: the encoder, one evaluation step, and the threshold."""

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
from ccd_lightning.modules.refitting import adapt_thresholds, other_images
from ccd_lightning.ranges import between
from ccd_lightning.renamed import rename_tensors


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
        between("model.quantile", quantile, 0, 1)
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
        self._held_out = HeldOut()
        self._pseudo = PseudoLesions()

    @abstractmethod
    def score(self, images: Tensor, content: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scores images, or tiles of images, as they are.

        Args:
            images: (B, 3, H, W) in [0, 1].
            content: Their boxes (B, 4) int64, of which none is empty (`models.content`); None where all is content.

        Returns:
            Image scores (B,) and anomaly maps (B, H, W), both >= 0 and higher where less normal. What is no content
            counts in neither, and is 0 in the maps.
        """

    @property
    def encoders(self) -> list[Encoder]:
        """The encoders that a score depends on."""
        return [self.encoder]

    def check_images(self, preprocessing: Preprocessing, device: torch.device, processes: int) -> None:
        """Refuses images that the detector cannot be fitted to.

        Args:
            preprocessing: What brings them to working size, and cuts them.
            device: Where the detector is fitted.
            processes: That fit it together on this machine.

        Raises:
            UserError: If the encoder does not take them, or its statistics do not leave room for them.
        """
        tiles = preprocessing.tiling
        size = (tiles.side, tiles.side) if tiles else preprocessing.shape
        self.check_size(size, "data.tiles.side" if tiles else "data.size")
        self.check_memory(size, device, processes)

    def check_size(self, size: tuple[int, int], option: str) -> None:
        """Refuses, with a `UserError`, a height and width in pixels that it cannot take; `option` sets them."""
        self.encoder.check_size(size, option)

    def check_memory(self, size: tuple[int, int], device: torch.device, processes: int) -> None:
        """Refuses images, or tiles, of a height and width that the detector's statistics do not leave room for.

        Raises:
            UserError: If memory does not suffice, by `check_images`' device and processes.
        """

    def forward(self, images: Tensor, content: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scores working images, tile by tile where they are to be cut (`data.tiles`).

        Args:
            images: (B, 3, H, W) in [0, 1].
            content: Top, left, bottom and right of what of each is the image and not its letterbox's margin, in pixels,
                (B, 4) int64; None where all of it is.

        Returns:
            Image scores (B,) and anomaly maps (B, H, W), which are 0 in the margin.
        """
        return self.score_whole(images, unless_whole(content, images.shape[-2:]), self.tiles)

    def score_whole(self, images: Tensor, content: Tensor | None, tiles: Tiles | None) -> tuple[Tensor, Tensor]:
        """The same, for tiles that are given; None scores whole images."""
        if tiles is None:
            return self.score(images) if content is None else self.score(images, content)
        tiling = Tiling((images.shape[-2], images.shape[-1]), tiles.side, tiles.shared, tiles.top)
        return tiling.score(lambda cut, own: self.score_whole(cut, own, None), images, content)

    def shown(self, batch: dict[str, Any]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """What the detector takes for images, with its content: those of a batch, or tiles, some at once."""
        images, content = batch["image"], unless_whole(batch.get("content"), batch["image"].shape[-2:])
        if not (tiles := self.tiles):
            yield images, content
            return
        tiling = Tiling((images.shape[-2], images.shape[-1]), tiles.side, tiles.shared)
        yield from (part[1:] for part in tiling.tiles(images, content))

    @property
    def tiles(self) -> Tiles | None:
        """How images are cut, as the checkpoint or the trainer's data module says; None where they are not."""
        data = None if self._trainer is None else getattr(self.trainer, "datamodule", None)
        preprocessing = self.preprocessing or getattr(data, "preprocessing", None)
        return preprocessing.tiling if preprocessing else None

    def read_placed(self, *files: str | Path) -> ImageBatch:
        """Reads image files as this detector wants them, cropped and resized as in training.

        Returns:
            Pixels (B, 3, H, W) in [0, 1] and content (B, 4), on the detector's device: the arguments of a call.

        Raises:
            UserError: If a file cannot be decoded, or the detector was not loaded from a run that says their size.
        """
        if self.preprocessing is None:
            raise UserError("This detector knows no size of images; open one of a run with ccd_lightning.load.")
        return read_batch(files, self.preprocessing, self.device)

    def read(self, *files: str | Path) -> Tensor:
        """The pixels of `read_placed` alone.

        Raises:
            UserError: As there, and if images are letterboxed: pixels do not tell which of them are the margin.
        """
        if self.preprocessing and self.preprocessing.fit == "letterbox":
            raise UserError(
                "This detector's images are letterboxed, and it has to know their margins: call"
                " detector.score_files(...), or detector(*detector.read_placed(...))."
            )
        return self.read_placed(*files).pixels

    @torch.no_grad()
    def score_files(self, *files: str | Path) -> tuple[Tensor, Tensor]:
        """Scores and maps of image files, as a call gives them; arguments and errors are those of `read_placed`."""
        found: tuple[Tensor, Tensor] = self(*self.read_placed(*files))
        return found

    def setup(self, stage: str) -> None:
        """Takes over the encoder. A detector that is loaded instead of fitted brings its own and reads nothing."""
        if stage == "fit":
            self.encoder_sources = {"encoder": initialise_encoder(self.encoder, self.encoder_config)}

    def evaluate(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The one step of validation, test and predict: `scores` (B,) and `maps` (B, H, W)."""
        with self.full_precision():
            scores, maps = self(batch["image"], batch.get("content"))
        return {"scores": scores, "maps": maps}

    def full_precision(self) -> torch.autocast:
        """Turns a trainer's mixed precision off: half of the digits would blur distances, and save little."""
        return torch.autocast(self.device.type, enabled=False)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Scores held-out normal images."""
        if self.trainer.sanity_checking:
            return  # nothing is fitted yet
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
        """Sets the thresholds of scores and pixels, and the colours of maps, alike on all ranks."""
        if self.trainer.sanity_checking:
            return
        for name, value in self._held_out.limits(self.quantile)._asdict().items():
            setattr(self, name, value.to(self.device))
        self._held_out.clear()
        found = self._pseudo.measure(self._evaluate_images, self.normal_scores, pseudo_seed(self.trainer))
        logged: dict[str, Any] = {"threshold": self.threshold} | {f"val/{name}": value for name, value in found.items()}
        self.log_dict(logged, sync_dist=True)  # the same on every rank

    def _evaluate_images(self, images: Tensor, content: Tensor) -> dict[str, Tensor]:
        return self.evaluate({"image": images.to(self.device), "content": content.to(self.device)})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Says which network the encoder is, if the constructor can be told."""
        if "encoder" in inspect.signature(type(self).__init__).parameters:
            checkpoint.setdefault("hyper_parameters", {})["encoder"] = self.encoder.settings()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Makes room for as many held-out scores as the checkpoint holds; an older file lacks other buffers."""
        state = checkpoint["state_dict"]
        rename_tensors(state)
        state.setdefault("pixel_threshold", self.pixel_threshold)
        state.setdefault("map_limits", self.map_limits)
        state.setdefault("normal_maxima", self.normal_maxima)
        fitted = checkpoint.get("hyper_parameters", {})
        images = other_images(self._trainer, checkpoint)
        self.changed = adapt_thresholds(state, fitted, self.hparams, self.score_settings, self.quantile, images)
        self.normal_scores = torch.empty_like(state["normal_scores"])
        self.normal_maxima = torch.empty_like(state["normal_maxima"])
