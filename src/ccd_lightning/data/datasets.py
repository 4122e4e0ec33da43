"""Data modules of the named data sets. Each defines only what differs from `AnomalyDataModule`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from lightning.pytorch.utilities import rank_zero_warn

from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.description import sizes
from ccd_lightning.data.manifest import Manifest
from ccd_lightning.data.preprocessing import Crop
from ccd_lightning.data.recognition import AUTO, read_layout
from ccd_lightning.data.synthetic import synthesize
from ccd_lightning.ranges import at_least, seed_in_range

WITHOUT_MARGIN = (0.088, 0.088, 0.928, 0.928)  # 45 to 475 of 512 px, as in the paper


class Folder(AnomalyDataModule):
    """A user's own images, in any known layout (`data.recognition`).

    Args:
        root: The data set's folder, or a manifest (.csv).
        layout: Name of the layout, a manifest (.csv) with paths relative to the root, or "auto" to recognise the
            layout.
        split_seed: Seed by which normal test images are drawn, if the layout defines no split. It is independent of the
            run's seed.
        **kwargs: As in `AnomalyDataModule`.
    """

    published: ClassVar[tuple[int, int, int] | None] = None  # number of training, normal test and abnormal test images

    def __init__(self, root: str, layout: str = AUTO, split_seed: int = 0, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        seed_in_range("data.split_seed", split_seed)
        self.layout = layout
        self.split_seed = split_seed

    def manifest(self, masks: bool = True) -> Manifest:
        """Reads the folder in the layout that is given or recognised."""
        manifest, self.found_layout = read_layout(
            self.root, self.layout, masks, self.split_seed, self.groups, self.axis
        )
        return manifest

    def setup(self, stage: str) -> None:
        """Reads the images that a stage needs. Before a fit, warns if their numbers differ from the published ones."""
        first = not self.datasets
        super().setup(stage)
        if stage == "fit" and first and self.split:
            self._compare(self.split)

    def _compare(self, manifest: Manifest) -> None:
        """Warns if the numbers of images differ from the published ones."""
        found = sizes(manifest)
        if self.published not in (None, found):
            rank_zero_warn(
                f"{self.root}: {found[0]} training images, {found[1]} normal and {found[2]} abnormal test images, where"
                f" the paper has {self.published[0]}, {self.published[1]} and {self.published[2]}."
            )


class HyperKvasir(Folder):
    """Colonoscopy: normal mucosa and polyps (Borgli et al., Scientific Data 2020), without its black margin."""

    published = 1600, 500, 1000

    def __init__(
        self,
        root: str = "data/hyper_kvasir",
        crop: Crop | Literal["auto"] | None = WITHOUT_MARGIN,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, crop=crop, **kwargs)


class LAG(Folder):
    """Fundus photographs with and without glaucoma (Li et al., CVPR 2019)."""

    published = 2343, 800, 1711

    def __init__(self, root: str = "data/lag", **kwargs: Any) -> None:
        super().__init__(root, **kwargs)


class LiuColonoscopy(Folder):
    """Frames of colonoscopy videos (Liu et al., ISBI 2020), without their black margin."""

    published = 13250, 677, 290

    def __init__(
        self,
        root: str = "data/liu",
        crop: Crop | Literal["auto"] | None = WITHOUT_MARGIN,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, crop=crop, **kwargs)


class _Synthetic(AnomalyDataModule):
    """Procedural images, generated if they do not exist yet.

    Args:
        root: Folder of the data set; it is generated there if it does not exist.
        train: Number of normal images for training and validation.
        test_good: Number of normal test images.
        test_abnormal: Number of abnormal test images, distributed evenly over the kinds.
        render_seed: Seed of the images. It is independent of the run's seed.
        **kwargs: As in `AnomalyDataModule`; `size` is also the size at which images are generated.
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
        at_least("data.train", train, 1)
        at_least("data.test_good", test_good, 0)
        at_least("data.test_abnormal", test_abnormal, 0)
        seed_in_range("data.render_seed", render_seed)
        self.counts = train, test_good, test_abnormal
        self.render_seed = render_seed
        self.side = size

    def prepare_data(self) -> None:
        """Generates the images unless they exist already."""
        train, test_good, test_abnormal = self.counts
        synthesize(
            self.root,
            self.name,
            size=self.side,
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
