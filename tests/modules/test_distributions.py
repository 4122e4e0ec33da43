"""The number of strong augmentations follows from the family, whatever its number."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ccd_lightning.cli import main
from ccd_lightning.data.datasets import Folder
from ccd_lightning.errors import UserError
from ccd_lightning.modules.ccd import CCD
from ccd_lightning.transforms.pretext import PretextViews
from tests.runs import CCD as FIT


class Levels(nn.Module):
    """A family of one's own: darkens an image in as many steps as are asked for."""

    random = False

    def __init__(self, count: int = 6) -> None:
        super().__init__()
        self.count = count

    def forward(self, images: Tensor, index: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return images // (index.to(images.device).view(-1, 1, 1, 1) + 1).to(images.dtype)


OWN = ["--data.views.family", f"{__name__}.Levels", "--data.views.family.count"]


def attached(count: int | None, stage: str = "fit", **options: Any) -> CCD:
    """A model set up beside data of a family with this number of members."""
    module = CCD(**options)
    data = Folder("images", views=None if count is None else PretextViews(Levels(count)))
    trainer = SimpleNamespace(datamodule=data, world_size=1, state=SimpleNamespace(fn=stage))
    module._trainer = trainer  # type: ignore[assignment]
    module.setup(stage)
    return module


@pytest.mark.fit
@pytest.mark.parametrize("count", [1, 2, 6])
def test_a_family_of_any_number_is_learned_tested_and_loaded(
    count: int, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(trained / "configs")
    assert main([*FIT, "--trainer.max_epochs=1", *OWN, str(count)]) == 0
    assert not [warning for warning in recwarn if count == 1 and "cannot be distinguished" in str(warning.message)]
    checkpoint = tmp_path / "runs/ccd_synthetic/latest/checkpoints/last.ckpt"
    module = CCD.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
    assert module.augmentation.out_features == module.hparams["distributions"] == count
    views = PretextViews(Levels(count), 32, patch_size=16)
    data = Folder(str(next((tmp_path / "data").iterdir())), size=64, batch_size=6, views=views)
    (tested,) = Trainer(logger=False, accelerator="cpu", enable_progress_bar=False).test(
        CCD(), data, ckpt_path=checkpoint, verbose=False, weights_only=True
    )
    assert 0 <= tested["test/augmentation_accuracy"] <= 1


@pytest.mark.parametrize("count", [3, 6])
def test_another_number_is_refused_before_the_fit(
    count: int, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(trained / "configs")
    assert main([*FIT, *OWN, str(count), "--model.distributions=4"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"model.distributions is 4, but data.views.family has {count} strong augmentations." in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("given", "count", "expected"), [(None, 6, 6), (None, None, 4), (6, None, 6), (4, 4, 4)])
def test_the_augmentation_head_has_one_output_per_augmentation(
    given: int | None, count: int | None, expected: int
) -> None:
    module = attached(count, distributions=given)
    assert module.augmentation.out_features == module.hparams["distributions"] == expected


def test_the_default_number_leaves_initial_weights_unchanged() -> None:
    torch.manual_seed(0)
    plain = CCD()
    torch.manual_seed(0)
    assert torch.equal(attached(4).augmentation.weight, plain.augmentation.weight)


@pytest.mark.parametrize("number", [0, -1])
def test_impossible_numbers_are_refused(number: int) -> None:
    with pytest.raises(UserError, match=f"model.distributions is {number}, but must be 1 or more"):
        CCD(distributions=number)


@pytest.mark.parametrize(
    ("stage", "kept", "count", "refused"),
    [
        ("fit", 6, 6, False),
        ("fit", 6, None, False),
        ("fit", 4, 6, True),
        ("fit", 6, 4, True),
        ("test", 4, 6, True),
        ("test", 4, 3, False),  # of an old run with a dead class
    ],
)
def test_a_checkpoint_sets_the_number_and_must_match_the_family(
    stage: str, kept: int, count: int | None, refused: bool
) -> None:
    module = attached(count, stage)
    checkpoint = {"state_dict": CCD(distributions=kept).state_dict()}
    if refused:
        with pytest.raises(UserError, match=f"trained with {kept} strong augmentations, but .* has {count}"):
            module.on_load_checkpoint(checkpoint)
    else:
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"])


@pytest.mark.parametrize(("given", "refused"), [(None, True), (6, False)])
def test_views_from_a_plain_loader_need_the_right_number(given: int | None, refused: bool, tmp_path: Path) -> None:
    views = PretextViews(Levels(6), 32, patch_size=16)
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    items = [views(image, (0, 0, index)) for index, image in enumerate(images)]
    items = [
        {name: value / 255 if value.dtype == torch.uint8 else value for name, value in item.items()} for item in items
    ]
    loader: DataLoader[Any] = DataLoader(items, batch_size=4)  # type: ignore[arg-type]
    module = CCD(distributions=given)
    batch = next(iter(loader))
    if refused:
        with pytest.raises(UserError, match=r"augmentation class 5, .* but model\.distributions is 4"):
            module.training_step(batch, 0)
    else:
        assert module.losses(batch)["augmentation"].isfinite()


def test_data_without_a_family_leave_the_number_open(folder: Path) -> None:
    assert Folder(str(folder), views=PretextViews(Levels(2))).distributions == 2
    assert Folder(str(folder)).distributions is None
    assert Folder(str(folder), views=lambda image, seed: {}).distributions is None
