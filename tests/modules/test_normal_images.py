from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import LightningDataModule, Trainer

from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.datasets import Folder
from ccd_lightning.errors import UserError
from ccd_lightning.modules.igd import IGD
from ccd_lightning.modules.normal_images import (
    NormalImages,
    anomaly_data,
    find_normal_images,
    require_normal_images,
)
from ccd_lightning.transforms.pretext import PretextViews
from ccd_lightning.transforms.strong import Identity


def trainer(data: LightningDataModule | None) -> Any:
    """As Lightning leaves it: without a data module, the attribute is not there at all."""
    return SimpleNamespace() if data is None else SimpleNamespace(datamodule=data)


def test_the_projects_data_modules_give_normal_images() -> None:
    data: NormalImages = Folder("images", views=PretextViews(Identity(), tile=16, pairs=3), seed=7)
    assert (data.seed, data.tile, data.distributions, data.position_pairs) == (7, 16, 1, 3)
    assert isinstance(data, AnomalyDataModule)
    assert find_normal_images(trainer(data)) is data
    assert require_normal_images(trainer(data), "This") is data
    assert anomaly_data(trainer(data)) is data
    assert Folder("images").position_pairs is None


@pytest.mark.parametrize("data", [None, LightningDataModule()])
def test_what_needs_normal_images_says_so_where_there_are_none(data: LightningDataModule | None) -> None:
    assert find_normal_images(trainer(data)) is None
    with pytest.raises(UserError, match=r"This needs the normal images themselves, .* such as ccd_lightning"):
        require_normal_images(trainer(data), "This")
    with pytest.raises(UserError, match="one of the project's data modules"):
        anomaly_data(trainer(data))


def test_without_a_data_module_there_are_no_normal_images() -> None:
    assert find_normal_images(None) is None
    module = IGD()
    module._trainer = Trainer(accelerator="cpu", barebones=True)
    with pytest.raises(UserError, match="IGD needs the normal images themselves"):
        module.on_train_epoch_start()
