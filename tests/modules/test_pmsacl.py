"""PMSACL: its centres, and that it is CCD where nothing of its own is asked for."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from ccd_lightning.checkpoints import read_checkpoint
from ccd_lightning.cli import main
from ccd_lightning.data.datasets import Folder
from ccd_lightning.encoder_config import TrainedEncoderConfig
from ccd_lightning.errors import UserError
from ccd_lightning.losses.contrastive import nt_xent
from ccd_lightning.models.batchnorm import batch_statistics
from ccd_lightning.modules.ccd import CCD
from ccd_lightning.modules.pmsacl import PMSACL, Centring
from ccd_lightning.transforms.medmix import MedMix
from ccd_lightning.transforms.pretext import PretextViews
from tests.modules.test_ccd import make_batch
from tests.modules.test_pretraining import PLAIN, QUIET, loader
from tests.runs import CCD as FIT
from tests.runs import DATA

VIEWS = PretextViews(MedMix(), size=32, patch_size=16, pairs=2)


def made(**options: Any) -> PMSACL:
    """A module with centres that are none of its own, or of its own if a test sets them."""
    torch.manual_seed(0)
    module = PMSACL(**options)
    module.centres = torch.rand(module.centres.shape, generator=torch.Generator().manual_seed(1))
    module.centre_spread = torch.tensor(2.0)
    return module


def ccd() -> CCD:
    torch.manual_seed(0)
    return CCD()


@pytest.mark.parametrize("space", ["features", "projection"])
def test_without_centres_and_weights_it_is_ccd_to_the_bit(space: Any) -> None:
    module, plain = made(alpha=1.0, centring_weight=0, centring=Centring(space)), ccd()
    module.centres.zero_()
    batch = make_batch(5, VIEWS)
    found, expected = module.losses(batch), plain.losses(batch)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    module.total(found).backward()
    plain.total(expected).backward()
    for (name, ours), theirs in zip(module.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), name  # type: ignore[arg-type]


@pytest.mark.fit
@PLAIN
def test_a_fit_without_centres_and_weights_is_ccds_to_the_bit() -> None:
    """Computing the centres draws no random number that the fit would have drawn."""

    def fitted(module: CCD) -> CCD:
        torch.manual_seed(1)
        batches = loader(views=VIEWS, shuffle=True)
        Trainer(accelerator="cpu", max_epochs=2, num_sanity_val_steps=0, **QUIET).fit(module, batches)
        return module

    torch.manual_seed(0)
    found = fitted(PMSACL(alpha=1.0, centring_weight=0, centring=Centring(subtracted="none")))
    expected = fitted(ccd()).state_dict()
    assert found.state_dict().keys() - expected.keys() == {"centres", "centre_spread"}
    assert all(torch.equal(found.state_dict()[name], value) for name, value in expected.items())


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("subtracted", ["own", "untouched", "none"])
@pytest.mark.parametrize("space", ["features", "projection"])
def test_losses_are_those_of_the_formulas(space: Any, subtracted: Any, relative: bool) -> None:
    module = made(alpha=3.0, centring=Centring(space, subtracted, relative), centring_weight=0.5)
    batch = make_batch(4, VIEWS)
    with torch.no_grad(), batch_statistics(module):
        losses = module.losses(batch)
        views = torch.cat([batch["views"][:, 0].flatten(0, 1), batch["views"][:, 1].flatten(0, 1)])
        features = module.encoder.features(views)
        classes = torch.arange(4).repeat(8)
        centres = {
            "own": module.centres[classes],
            "untouched": module.centres[0],
            "none": torch.zeros(1),
        }[subtracted]
        if space == "features":
            z, distances = module.projection(features - centres), features - module.centres[classes]
        else:
            projections = module.projection(features)
            z, distances = projections - centres, projections - module.centres[classes]
        expected = nt_xent(z[:16], z[16:], 0.2, classes[:16], 3.0)
    assert losses["contrastive"].item() == pytest.approx(expected.item(), rel=1e-5)
    centring = distances.square().sum(dim=1).mean() / (2.0 if relative else 1.0)
    assert losses["centring"].item() == pytest.approx(centring.item(), rel=1e-5)
    parts = {name: float(losses[name]) for name in ("contrastive", "augmentation", "position")}
    assert float(module.total(losses)) == pytest.approx(sum(parts.values()) + 0.5 * float(losses["centring"]), rel=1e-5)


def test_every_parameter_gets_a_gradient_and_centres_get_none() -> None:
    for space in ("features", "projection"):
        module = made(centring=Centring(space, projection_norm=False))
        module.total(module.losses(make_batch(4, VIEWS))).backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
        assert not module.centres.requires_grad
        assert len(module.projection) == 4


def fitted(views: PretextViews, **options: Any) -> tuple[PMSACL, Folder]:
    data = Folder(str(options.pop("folder")), size=64, batch_size=4, views=views)
    torch.manual_seed(0)
    module = PMSACL(warmup_steps=0, **options)
    trainer = Trainer(accelerator="cpu", max_epochs=1, num_sanity_val_steps=1, use_distributed_sampler=False, **QUIET)
    trainer.fit(module, datamodule=data)
    return module, data


@pytest.mark.fit
@pytest.mark.parametrize("augment_on", ["cpu", "device"])
@pytest.mark.parametrize("space", ["features", "projection"])
def test_centres_are_means_of_the_initial_encoders_vectors(space: Any, augment_on: Any, folder: Path) -> None:
    views = PretextViews(MedMix(), 32, patch_size=16, pairs=2, augment_on=augment_on)
    module, data = fitted(views, folder=folder, centring=Centring(space))
    torch.manual_seed(0)
    initial = PMSACL(centring=Centring(space))
    vectors: list[list[torch.Tensor]] = [[] for _ in range(4)]
    with torch.no_grad(), batch_statistics(initial):
        sampler = data.train_dataloader()
        for batch in sampler:
            shown = data.on_after_batch_transfer(batch, 0)["views"].transpose(0, 1).flatten(0, 2)
            found = initial.encoder.features(shown)
            found = found if space == "features" else initial.projection(found)
            for place, vector in enumerate(found):
                vectors[place % 4].append(vector.double())
    stacked = torch.stack([torch.stack(each) for each in vectors])  # (K, N, D)
    expected = stacked.mean(dim=1)
    assert torch.allclose(module.centres.double(), expected, rtol=1e-4, atol=1e-5)
    spread = (stacked - expected[:, None]).square().sum(dim=2).mean()
    assert float(module.centre_spread) == pytest.approx(float(spread), rel=1e-4)
    assert (module.centres[0] - module.centres[3]).abs().max() > 1e-3
    logged = module.trainer.callback_metrics
    assert logged["val/centring"].isfinite()
    assert "val/probe_pseudo_auroc" in logged


@pytest.mark.fit
def test_it_is_a_model_of_the_command_line_and_detectors_take_its_encoder(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(trained / "configs")
    (tmp_path / "data").symlink_to(trained / "data")
    words = [*FIT, "--model=PMSACL", "--data.views.family=ccd_lightning.transforms.medmix.MedMix"]
    words += ["--model.alpha=1.5", "--model.centring.relative=false", "--model.temperature=0.3"]
    assert main([*words, "--trainer.logger.init_args.name=pmsacl_synthetic", "--trainer.max_epochs=1"]) == 0
    run = "runs/pmsacl_synthetic/version_0"
    settings = read_checkpoint(Path(run) / "checkpoints/last.ckpt")["hyper_parameters"]
    assert (settings["alpha"], settings["temperature"], settings["centring"]["relative"]) == (1.5, 0.3, False)
    following = capsys.readouterr().out.splitlines()[-1].removeprefix("Next: ccd ").split()
    assert following[-2:] == ["--model.encoder.weights", run]
    assert main(["test"]) == 0  # without trusting the checkpoint
    assert "pretext/centring" in json.loads((Path(run) / "metrics.json").read_text())["metrics"]
    assert main([*following, *(word for word in DATA if "size" not in word)]) == 0


@pytest.mark.fit
@PLAIN
def test_plain_loaders_will_do_and_a_class_without_an_image_has_the_mean_of_all() -> None:
    items = [VIEWS(image, (0, 0, 0)) for image in torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)]
    for item in items:
        item["augmentation"] = torch.tensor([0, 1, 1, 0])
    batches: DataLoader[Any] = DataLoader(items, batch_size=2)  # type: ignore[arg-type]
    module = PMSACL(warmup_steps=0)
    Trainer(accelerator="cpu", max_epochs=1, **QUIET).fit(module, batches, batches)
    assert module.centres.isfinite().all()
    assert torch.allclose(module.centres[2], module.centres[:2].mean(dim=0), atol=1e-5)
    assert torch.equal(module.centres[2], module.centres[3])


@pytest.mark.fit
@PLAIN
def test_a_batch_must_name_its_classes() -> None:
    items = [VIEWS(torch.zeros(3, 64, 64, dtype=torch.uint8), (0, 0, 0))]
    del items[0]["augmentation"]
    batches: DataLoader[Any] = DataLoader(items)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="A batch has no augmentation"):
        Trainer(accelerator="cpu", max_epochs=1, **QUIET).fit(PMSACL(augmentation_weight=0), batches)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(UserError, match=r"model\.alpha is 0, but must be above 0"):
        PMSACL(alpha=0)
    with pytest.raises(UserError, match=r"model\.encoder\.freeze"):
        PMSACL(encoder=TrainedEncoderConfig(freeze=1))
