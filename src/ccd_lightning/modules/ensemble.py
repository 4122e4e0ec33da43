"""An ensemble of fitted detectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ccd_lightning.checkpoints import DIVISION_KEY, read_checkpoint
from ccd_lightning.commands import expand
from ccd_lightning.data.division import Division
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.data.tiles import Tiles
from ccd_lightning.errors import UserError
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.models.rank_scores import rank_scores
from ccd_lightning.modules.detector import OneClassDetector
from ccd_lightning.modules.rebuilding import known_detector, make_detector, rebuild_detector
from ccd_lightning.modules.statistics import StatisticsDetector
from ccd_lightning.runs import find_checkpoint

MEMBERS = "ensemble"  # key in checkpoints: class and settings of each member


class Ensemble(StatisticsDetector):
    """The mean of fitted detectors, each converted to ranks among its scores of held-out normal images.

    An image's score is the mean of its ranks among the held-out images' scores (`models.rank_scores`), and its map the
    mean of the maps, each of which is 0 at the median of normal maps and 1 at their upper limit. Nothing is
    learned: the fit finds the threshold of the held-out images, which are those that the members held out. The
    checkpoint holds all of the members.

    Args:
        detectors: Runs or checkpoint files of the members, which must have the same image size, crop and window. They
            are read during the fit only.
        quantile: The threshold is this quantile of the scores of held-out normal images.
    """

    def __init__(self, detectors: tuple[str, ...] = (), quantile: float = 0.95) -> None:
        super().__init__(None, quantile)
        self.save_hyperparameters()
        self.detectors = list(detectors)
        self.members = nn.ModuleList()
        self.divisions: list[Division | None] = []

    @property
    def encoders(self) -> list[Encoder]:
        """Encoders that the scores depend on."""
        return [encoder for member in self._members for encoder in member.encoders]

    @property
    def _members(self) -> list[OneClassDetector]:
        return [member for member in self.members if isinstance(member, OneClassDetector)]

    def check_images(self, preprocessing: Preprocessing, device: torch.device, processes: int) -> None:
        """Checks that the images have the size and tiling of the members."""
        self._open()
        for name, member in zip(self.detectors, self._members, strict=True):
            if (own := member.preprocessing) is None:
                continue
            if own.shape != preprocessing.shape:
                raise UserError(
                    f"{name}: this detector was fitted at {own.size_in_words} px, but data.size is"
                    f" {preprocessing.size_in_words}. All members of an ensemble must use the same images."
                )
            _refuse_other(name, own, replace(preprocessing, window=own.window))  # may not be measured yet

    def on_fit_start(self) -> None:
        """Checks that the window of grey values, which is known now, is that of the members."""
        preprocessing = getattr(getattr(self.trainer, "datamodule", None), "preprocessing", None)
        for name, member in zip(self.detectors, self._members, strict=True):
            if member.preprocessing and preprocessing:
                _refuse_other(name, member.preprocessing, preprocessing)

    def setup(self, stage: str) -> None:
        """Loads the members for a fit."""
        if stage == "fit":
            self._open()

    def _open(self) -> None:
        """Loads the members, unless they are loaded already.

        Raises:
            UserError: If they cannot be combined.
        """
        if len(self.members):
            return
        if len(self.detectors) < 2:
            raise UserError("model.detectors names fewer than two runs. Give --model.detectors [RUN, RUN].")
        for name in self.detectors:
            file = find_checkpoint(expand(name))
            checkpoint = read_checkpoint(file)
            member = rebuild_detector(checkpoint, file)
            if not len(member.normal_scores) or bool(member.map_limits.isnan().any()):
                raise UserError(f"{name}: this detector has no scores of held-out images. Fit it with validation.")
            self.members.append(member)
            self.divisions.append(Division.from_state(checkpoint.get(DIVISION_KEY)))
        if len({member.preprocessing for member in self._members}) > 1:
            raise UserError(
                f"{', '.join(self.detectors)}: these detectors were fitted with different values of data.size,"
                " data.crop, data.fit, data.tiles or data.window. Fit them with the same values."
            )

    def score(self, images: Tensor, content: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns the mean rank of the scores, and the mean of the rescaled maps."""
        return self.score_whole(images, content, None)

    def score_whole(self, images: Tensor, content: Tensor | None, tiles: Tiles | None) -> tuple[Tensor, Tensor]:
        """Scores images with the given tiling. Each member merges its own tiles, as its ranks are of whole images."""
        scores, maps = [], []
        for member in self._members:
            own, own_maps = member.score_whole(images, content, tiles)
            low, high = member.map_limits
            scores.append(rank_scores(own, member.normal_scores))
            maps.append(((own_maps - low) / (high - low).clamp(min=1e-12)).clamp(min=0))  # 0 stays 0
        return torch.stack(scores).mean(dim=0), torch.stack(maps).mean(dim=0)

    def collect(self, images: Tensor, content: Tensor | None = None) -> None:
        """Does nothing, because the members are already fitted."""

    def merge_ranks(self) -> None:
        """Does nothing."""

    def fit_statistics(self) -> None:
        """Does nothing."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Stores the class and settings of each member."""
        kept = []
        for member in self._members:
            own: dict[str, Any] = {"hyper_parameters": dict(member.hparams)}
            member.on_save_checkpoint(own)
            kept.append(own | {"class_path": f"{type(member).__module__}.{type(member).__qualname__}"})
        checkpoint[MEMBERS] = kept

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Rebuilds the members.

        Raises:
            UserError: If the class of a member is unknown.
        """
        self.members = nn.ModuleList()
        for index, own in enumerate(checkpoint.get(MEMBERS, [])):
            kind, prefix = known_detector(own["class_path"], Path(f"member {index}")), f"members.{index}."
            state = checkpoint["state_dict"]
            part = {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}
            self.members.append(make_detector(kind, own | {"state_dict": part}).requires_grad_(False))
        super().on_load_checkpoint(checkpoint)


def _refuse_other(name: str, own: Preprocessing, preprocessing: Preprocessing) -> None:
    """Raises a `UserError` if the preprocessing differs from that of a member."""
    for option, (fitted, given) in own.differences(preprocessing).items():
        raise UserError(
            f"{name}: this detector was fitted with {option} {fitted}, but here it is {given}. All members"
            " of an ensemble must use the same images: give the value of the fit."
        )
