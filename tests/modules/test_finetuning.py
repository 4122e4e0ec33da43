"""Pretraining from weights: what is frozen or kept stays as it was, what is to learn learns, at its own rate."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.nn.modules.batchnorm import _BatchNorm

from ccd_lightning.data.datasets import Folder
from ccd_lightning.encoder_config import TrainedEncoderConfig
from ccd_lightning.errors import UserError
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.modules.ccd import CCD
from ccd_lightning.transforms.pretext import PretextViews
from tests.modules.test_ccd import make_batch

pytestmark = pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training")
QUIET: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)


def weights_file(folder: Path) -> str:
    """A checkpoint of an encoder whose batch norm has statistics that no image here has."""
    torch.manual_seed(5)
    encoder = Encoder()
    for part in encoder.modules():
        if isinstance(part, _BatchNorm):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.uniform_(-0.3, -0.1)  # so that no unit is dead
            part.running_var.uniform_(1.5, 2.5)
    file = folder / "weights.ckpt"
    torch.save({"state_dict": {f"encoder.{name}": value for name, value in encoder.state_dict().items()}}, file)
    return str(file)


def fitted(folder: Path, **options: Any) -> tuple[CCD, dict[str, torch.Tensor]]:
    """A module after some steps from weights, and these weights."""
    weights = weights_file(folder.parent)
    views = PretextViews(size=32, patch_size=16, pairs=2)
    data = Folder(str(folder), size=64, batch_size=4, views=views)
    torch.manual_seed(0)
    config = TrainedEncoderConfig(weights=weights, **options)
    module = CCD(config, warmup_steps=0, optimizer=lambda groups: torch.optim.SGD(groups, lr=0.01, weight_decay=0.01))
    trainer = Trainer(accelerator="cpu", max_epochs=2, num_sanity_val_steps=0, use_distributed_sampler=False, **QUIET)
    trainer.fit(module, datamodule=data)
    state = torch.load(weights, weights_only=True)["state_dict"]
    return module, {name.removeprefix("encoder."): value for name, value in state.items()}


def changed(module: CCD, before: dict[str, torch.Tensor]) -> set[str]:
    after = module.encoder.state_dict()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


STEM = {"conv1", "bn1"}


def part_of(name: str) -> str:
    return name.removeprefix("network.").split(".")[0]


@pytest.mark.fit
@pytest.mark.parametrize("freeze", [1, 2, 4])
def test_frozen_levels_are_bit_for_bit_those_of_the_weights_and_the_others_learn(freeze: int, folder: Path) -> None:
    module, before = fitted(folder, freeze=freeze)
    frozen = STEM | {f"layer{level}" for level in range(1, freeze)}
    learned = {f"layer{level}" for level in range(freeze, 5)}
    names = changed(module, before)
    assert {part_of(name) for name in names} == learned
    assert names == {name for name in before if part_of(name) in learned}  # each of their tensors
    optimizer = module.optimizers(use_pl_optimizer=False)
    assert isinstance(optimizer, torch.optim.Optimizer)
    optimised = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in module.encoder.named_parameters():
        assert parameter.requires_grad == (id(parameter) in optimised) == (part_of(name) not in frozen), name


@pytest.mark.fit
def test_batch_norm_that_is_kept_goes_by_the_weights_statistics_and_still_learns_its_scales(folder: Path) -> None:
    module, before = fitted(folder, batch_norm="keep")
    statistics = {name for name in before if "running_" in name or "num_batches" in name}
    assert changed(module, before) == set(before) - statistics - {"mean", "std"}
    calibrated, _ = fitted(folder)
    assert changed(calibrated, before) == set(before) - {"mean", "std"}


def test_training_leaves_what_is_kept_in_eval_mode(tmp_path: Path) -> None:
    weights = weights_file(tmp_path)
    for config, parts in (
        (TrainedEncoderConfig(weights=weights, freeze=3), {*STEM, "layer1", "layer2"}),
        (TrainedEncoderConfig(weights=weights, batch_norm="keep"), {*STEM, "layer1", "layer2", "layer3", "layer4"}),
    ):
        module = CCD(config)
        for mode in (module, module.eval().train()):
            named = mode.encoder.named_modules()
            norms = [part for name, part in named if isinstance(part, _BatchNorm) and part_of(name) in parts]
            assert len(norms) > 4
            assert not any(norm.training for norm in norms)
            assert mode.projection.training
        assert not any(part.training for part in module.eval().modules())


def test_a_frozen_level_is_what_the_weights_make_of_a_view(tmp_path: Path) -> None:
    """In a training step too: by their statistics, not by those of the batch."""
    module = CCD(TrainedEncoderConfig(weights=weights_file(tmp_path), freeze=3))
    module.setup("fit")
    images = torch.rand(4, 3, 32, 32)
    plain = Encoder().to(memory_format=torch.channels_last).eval()
    plain.load_state_dict(module.encoder.state_dict())
    with torch.no_grad():
        assert torch.equal(module.encoder.maps(images, [2])[0], plain.maps(images, [2])[0])
        assert not torch.allclose(module.encoder.maps(images, [3])[0], plain.maps(images, [3])[0], rtol=0.1)


@pytest.mark.fit
def test_the_encoder_learns_at_its_share_of_the_rate(folder: Path) -> None:
    module, _ = fitted(folder, lr_scale=0.1)
    optimizer = module.optimizers(use_pl_optimizer=False)
    assert isinstance(optimizer, torch.optim.Optimizer)
    encoder, heads = optimizer.param_groups
    assert (encoder["name"], heads["name"]) == ("encoder", "heads")
    assert encoder["initial_lr"] == pytest.approx(0.1 * heads["initial_lr"])
    assert encoder["lr"] == pytest.approx(0.1 * heads["lr"])  # after warm-up and cosine
    assert encoder["weight_decay"] == heads["weight_decay"] == 0.01
    assert {id(one) for one in encoder["params"]} == {id(one) for one in module.encoder.parameters()}
    assert len(encoder["params"]) + len(heads["params"]) == len(list(module.parameters()))


def one_step(**options: Any) -> CCD:
    """A step of SGD without momentum from the same weights, on gradients that are all 1."""
    torch.manual_seed(0)
    module = CCD(TrainedEncoderConfig(**options), optimizer=lambda groups: torch.optim.SGD(groups, lr=1.0))
    module._trainer = Steps()  # type: ignore[assignment]
    optimizer = module.configure_optimizers()["optimizer"]
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return module


class Steps:
    """A trainer that plans some steps."""

    estimated_stepping_batches = 100


def test_a_step_of_the_encoder_is_a_tenth_and_that_of_the_heads_is_not() -> None:
    before, usual, slower = one_step_before(), one_step(), one_step(lr_scale=0.1)
    for name, value in before.items():
        step, scaled = value - usual.get_parameter(name), value - slower.get_parameter(name)
        share = 0.1 if name.startswith("encoder") else 1.0
        assert torch.allclose(scaled, share * step, atol=1e-6), name


def one_step_before() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(CCD().named_parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "imagenet", "freeze": 5}, r"freeze is 5, but must be from 0 to 4: the last of .* 5 levels"),
        ({"weights": "imagenet", "freeze": -1}, "freeze is -1, but must be from 0 to 4"),
        ({"lr_scale": 0.0}, r"lr_scale is 0, but must be above 0\..* --model\.encoder\.freeze N"),
        ({"l2_sp": -0.1}, r"l2_sp is -0\.1, but must be 0 or more"),
        ({"l2_sp": 0.1}, r"l2_sp is 0\.1, but there are no weights to keep: give --model.encoder.weights imagenet"),
        ({"freeze": 1}, "freeze is 1, but there are no weights to keep: give --model.encoder.weights imagenet"),
        ({"batch_norm": "keep"}, "batch_norm is keep, but there are no weights to keep"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"model.encoder.{message}"):
        CCD(TrainedEncoderConfig(**options))


class Trained(Steps):
    """A trainer that hands on what is reduced, beside a module in a training step."""

    datamodule, world_size, global_rank = None, 1, 0

    class strategy:
        @staticmethod
        def reduce(values: torch.Tensor, reduce_op: str) -> torch.Tensor:
            return values


def stepped(weights: str, l2_sp: float, moved: bool = True, freeze: int = 2) -> tuple[CCD, dict[str, Any]]:
    """A module that was moved away from its weights, after a training step's backward pass, and what it logged."""
    torch.manual_seed(0)
    module = CCD(TrainedEncoderConfig(weights=weights, l2_sp=l2_sp, freeze=freeze))
    module._trainer = Trained()  # type: ignore[assignment]
    module.setup("fit")
    logged: dict[str, Any] = {}
    module.log_dict = lambda values, **_: logged.update(values)  # type: ignore[method-assign]
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.encoder.parameters():
            if parameter.requires_grad and moved:
                parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
    module.training_step(make_batch(), 1).backward()
    return module, logged


def test_l2_sp_adds_its_weight_times_the_way_from_the_weights_to_the_gradient(tmp_path: Path) -> None:
    weights = weights_file(tmp_path)
    start = Encoder()
    start.load_state_dict({name[8:]: value for name, value in torch.load(weights)["state_dict"].items()})
    (plain, without), (pulled, logged) = stepped(weights, 0), stepped(weights, 0.7)
    expected = 0.0
    for name, parameter in pulled.named_parameters():
        other = plain.get_parameter(name).grad
        if not parameter.requires_grad:
            assert parameter.grad is None, name
            continue
        way = torch.zeros_like(parameter)
        if name.startswith("encoder."):
            way = (parameter - start.get_parameter(name.removeprefix("encoder."))).detach()
            assert way.abs().max() > 0.01, name
            expected += float(way.square().sum()) / 2
        assert torch.allclose(parameter.grad, other + 0.7 * way, rtol=1e-4, atol=1e-6), name  # type: ignore[operator, arg-type]
    assert float(logged["train/l2_sp"]) == pytest.approx(expected, rel=1e-5)
    assert float(logged["train/loss"] - without["train/loss"]) == pytest.approx(0.7 * expected, rel=1e-4)
    assert "train/l2_sp" not in without
    assert float(stepped(weights, 0.7, moved=False)[1]["train/l2_sp"]) == 0


def test_l2_sp_is_in_the_place_of_the_encoders_weight_decay(tmp_path: Path) -> None:
    config = TrainedEncoderConfig(weights=weights_file(tmp_path), l2_sp=0.1)
    module = CCD(config, optimizer=lambda groups: torch.optim.AdamW(groups, lr=0.1, weight_decay=0.2))
    module._trainer = Trained()  # type: ignore[assignment]
    encoder, heads = module.configure_optimizers()["optimizer"].param_groups
    assert (encoder["weight_decay"], heads["weight_decay"]) == (0, 0.2)
    assert encoder["lr"] == heads["lr"]
    assert len(encoder["params"]) == len(list(module.encoder.parameters()))


@pytest.mark.fit
def test_l2_sp_keeps_the_encoder_nearer_and_is_not_in_the_loss_of_validation(folder: Path) -> None:
    ways = []
    for l2_sp in (0.0, 50.0):
        module, before = fitted(folder, l2_sp=l2_sp)
        named = module.encoder.named_parameters()
        ways.append(sum(float((each.detach() - before[name]).square().sum()) for name, each in named))
    assert ways[1] < 0.6 * ways[0]
    logged = module.trainer.callback_metrics
    parts = [float(logged[f"val/{name}"]) for name in ("contrastive", "augmentation", "position")]
    assert float(logged["val/loss"]) == pytest.approx(sum(parts), rel=1e-5)
    assert float(logged["train/l2_sp"]) > 0


def test_a_run_that_was_begun_otherwise_is_not_resumed_with_l2_sp(tmp_path: Path) -> None:
    weights, checkpoint = weights_file(tmp_path), {"state_dict": CCD().state_dict()}
    module = CCD(TrainedEncoderConfig(weights=weights, l2_sp=0.1))
    module._trainer = Trained()  # type: ignore[assignment]
    module.setup("fit")
    with pytest.raises(UserError, match=r"started with another model\.encoder\.l2_sp or model\.encoder\.freeze"):
        module.on_load_checkpoint(checkpoint)


def test_the_defaults_are_one_group_of_all_parameters() -> None:
    module = one_step()
    (group,) = module.configure_optimizers()["optimizer"].param_groups
    assert [id(one) for one in group["params"]] == [id(one) for one in module.parameters()]
