"""The data sets by name: each states what differs from `AnomalyDataModule`, and nothing else."""

from __future__ import annotations

from typing import Any

from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.synthetic import synthesize


class Folder(AnomalyDataModule):
    """A user's own images in the common folder layout."""


class _Synthetic(AnomalyDataModule):
    """Procedural images, made where they are not there yet.

    Args:
        root: The folder to make, or to read when it is there.
        train: Normal images to train and validate on.
        test_good: Normal images to test on.
        test_abnormal: Abnormal images to test on, spread evenly over the kinds.
        render_seed: Decides the images; the run's seed does not.
        **kwargs: As in `AnomalyDataModule`; `size` is also the size the images are made at.
    """

    name: str

    def __init__(
        self,
        root: str,
        train: int = 320,
        test_good: int = 200,
        test_abnormal: int = 210,
        render_seed: int = 0,
        size: int = 128,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, size, **kwargs)
        self.counts = train, test_good, test_abnormal
        self.render_seed = render_seed

    def prepare_data(self) -> None:
        """Makes the images, or finds them made."""
        train, test_good, test_abnormal = self.counts
        synthesize(
            self.root,
            self.name,
            size=self.geometry.size,
            seed=self.render_seed,
            train=train,
            test_good=test_good,
            test_abnormal=test_abnormal,
        )


class SyntheticColonoscopy(_Synthetic):
    """Procedural colonoscopy frames, with polyps of three grades of subtlety in the test set."""

    name = "colonoscopy"

    def __init__(self, root: str = "data/synthetic_colonoscopy", **kwargs: Any) -> None:
        super().__init__(root, **kwargs)


class SyntheticFundus(_Synthetic):
    """Procedural fundus photographs, with lesions and enlarged cups of three grades in the test set."""

    name = "fundus"

    def __init__(self, root: str = "data/synthetic_fundus", **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
