"""A run that goes on is the uninterrupted one, wherever it was cut off."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ccd_lightning.checkpoints import read_checkpoint
from ccd_lightning.cli import main
from tests.runs import CCD, CONFIGS

WORDS = [
    *CCD,
    *("--data.batch_size=3", "--data.num_workers=0", "--trainer.max_epochs=4", "--trainer.check_val_every_n_epoch=1"),
    "--model.optimizer.lr=0.01",  # so that the tail is worse, and the best not the last
]
pytestmark = pytest.mark.fit


class CutOff(Callback):
    """Copies the run's folder as a break would leave it: after an epoch, or, saved, within one."""

    def __init__(self, epoch: int, batch: int) -> None:
        self.epoch = epoch
        self.batch = batch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (trainer.current_epoch, self.batch) == (self.epoch, 0):
            shutil.copytree(str(trainer.log_dir), "cut")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (trainer.current_epoch, self.batch) == (self.epoch, batch_idx + 1):
            trainer.save_checkpoint(Path(str(trainer.log_dir)) / "checkpoints/last.ckpt")
            shutil.copytree(str(trainer.log_dir), "cut")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("configs").symlink_to(CONFIGS)


def saved(run: Path, *files: str) -> list[tuple[int, dict[str, torch.Tensor]]]:
    contents = [read_checkpoint(run / "checkpoints" / file) for file in files or ("last.ckpt", "best.ckpt")]
    return [(content["global_step"], content["state_dict"]) for content in contents]


@pytest.mark.parametrize(
    ("epoch", "batch", "path", "schedule"),
    [
        (2, 0, "runs/ccd_synthetic", "step"),
        (2, 2, "last", "step"),
        (2, 2, "last", "epoch"),
        (0, 1, "last", "epoch"),
        (3, 1, "last", "step"),  # the last epoch, which validates whatever the interval
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one_in_its_folder(
    epoch: int, batch: int, path: str, schedule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*WORDS, "--model.schedule", schedule, "--trainer.check_val_every_n_epoch", "3" if epoch == 3 else "1"]
    whole, run = cut_off(words, epoch, batch), Path("runs/ccd_synthetic/version_0")
    assert main([*words, "--ckpt_path", path]) == 0
    assert path != "last" or "fit: resuming from runs/ccd_synthetic/version_0/checkpoints/last.ckpt" in (
        capsys.readouterr().out
    )
    assert not (run.parent / "version_1").exists()
    for (step, tensors), (same_step, resumed) in zip(whole, saved(run), strict=True):
        assert step == same_step
        assert all(torch.equal(tensor, resumed[name]) for name, tensor in tensors.items())
    assert "ckpt_path: null" in (run / "config.yaml").read_text()


def cut_off(words: list[str], epoch: int, batch: int) -> list[tuple[int, dict[str, torch.Tensor]]]:
    """Leaves a run as a break within an epoch would; what it saves without the break."""
    cut = [f"--trainer.callbacks+={__name__}.CutOff", f"--trainer.callbacks.epoch={epoch}"]
    assert main([*words, *cut, f"--trainer.callbacks.batch={batch}"]) == 0
    run = Path("runs/ccd_synthetic/version_0")
    whole = saved(run)
    shutil.rmtree(run)
    shutil.move("cut", run)
    return whole


STAYING = tuple(f"encoder.network.{part}" for part in ("conv1", "bn1", "layer1"))


def test_fine_tuning_goes_on_as_it_began() -> None:
    """Frozen levels, the encoder's own learning rate and its kept statistics; no weights are read again."""
    assert main([*WORDS, "--trainer.max_epochs=1", "--trainer.logger.init_args.name=source"]) == 0
    options = ["freeze=2", "lr_scale=0.1", "batch_norm=keep"]
    words = [*WORDS, "--model.encoder.weights=runs/source", *(f"--model.encoder.{option}" for option in options)]
    whole = cut_off(words, 2, 2)
    source = read_checkpoint(Path("runs/source/version_0/checkpoints/best.ckpt"))["state_dict"]
    shutil.rmtree("runs/source")
    assert main([*words, "--ckpt_path", "last"]) == 0
    for (step, tensors), (same_step, resumed) in zip(whole, saved(Path("runs/ccd_synthetic/version_0")), strict=True):
        assert step == same_step
        assert all(torch.equal(tensor, resumed[name]) for name, tensor in tensors.items())
        stays = [name for name in tensors if name.startswith(STAYING) or "running" in name]
        learned = {name for name, tensor in tensors.items() if not torch.equal(tensor, source[name])}
        assert not learned.intersection(name for name in stays if name.startswith("encoder"))
        assert "encoder.network.layer2.0.conv1.weight" in learned
    assert main(["test", "--trust"]) == 0


def test_pmsacl_and_l2_sp_go_on_as_they_began() -> None:
    """Centres and the weights that the encoder started from are the run's, and no weights are read again."""
    assert main([*WORDS, "--trainer.max_epochs=1", "--trainer.logger.init_args.name=source"]) == 0
    words = [*WORDS, "--model=PMSACL", "--model.encoder.weights=runs/source", "--model.encoder.l2_sp=0.5"]
    words += ["--data.views.family=ccd_lightning.transforms.medmix.MedMix", "--data.num_workers=1"]
    whole = cut_off(words, 2, 2)
    shutil.rmtree("runs/source")
    assert main([*words, "--ckpt_path", "last"]) == 0
    for (step, tensors), (same_step, resumed) in zip(whole, saved(Path("runs/ccd_synthetic/version_0")), strict=True):
        assert step == same_step
        assert all(torch.equal(tensor, resumed[name]) for name, tensor in tensors.items())
        assert tensors["centres"].isfinite().all()
    assert main(["test"]) == 0


def older(checkpoint: Path) -> None:
    """Leaves of the data's state what earlier versions saved."""
    content = torch.load(checkpoint, weights_only=True)
    state = content["SyntheticColonoscopy"]
    content["SyntheticColonoscopy"] = {name: state[name] for name in ("epoch", "batch")}
    torch.save(content, checkpoint)


@pytest.mark.parametrize("age", ["new", "old"])
@pytest.mark.parametrize("epoch", [0, 1])
def test_other_steps_are_refused_and_equal_ones_are_the_uninterrupted_run(
    epoch: int, age: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*WORDS, "--data.batch_size=5", "--trainer.max_epochs=2"]  # 2 batches of 5 images
    whole = cut_off(words, epoch, 1)
    run = Path("runs/ccd_synthetic/version_0")
    last = run / "checkpoints/last.ckpt"
    if age == "old":
        older(last)
    config = (run / "config.yaml").read_bytes()
    for change, expected in {
        "--data.batch_size=3": "saved with 2 batches per epoch, but with data.batch_size 3 and 1 processes there are 4",
        "--data.batch_size=10": "Resume with --data.batch_size 5, or start a new run",
        **(SETTINGS if age == "new" else {}),
    }.items():
        capsys.readouterr()
        assert main([*words, change, "--ckpt_path", "last"]) == 2
        assert expected in capsys.readouterr().err
    assert (run / "config.yaml").read_bytes() == config
    # 2 batches of 5 images as well; and the images are held out that the run held out.
    assert main([*words, "--data.batch_size=9", "--data.validation=0.5", "--ckpt_path", "last"]) == 0
    for (step, tensors), (same_step, resumed) in zip(whole, saved(run), strict=True):
        assert step == same_step
        # Validation recalibrates the encoder in batches of today's size.
        learned = [name for name in tensors if "running_" not in name and not name.startswith("probe")]
        assert all(torch.equal(tensors[name], resumed[name]) for name in learned)


SETTINGS = {
    "--trainer.limit_train_batches=1": "trainer.limit_train_batches: 1.0, but now it is 1.",
    "--trainer.accumulate_grad_batches=2": "trainer.accumulate_grad_batches: 1, but now it is 2",
    "--seed_everything=1": "seed_everything: 0, but now it is 1",
}


def test_last_starts_a_new_run_where_nothing_was_saved(capsys: pytest.CaptureFixture[str]) -> None:
    killed_early = Path("runs/ccd_synthetic/version_0")
    killed_early.mkdir(parents=True)
    (killed_early / "config.yaml").touch()
    assert main([*WORDS, "--trainer.max_epochs=1", "--ckpt_path", "last"]) == 0
    message = capsys.readouterr().out
    assert "fit: no checkpoint in runs/ccd_synthetic, starting a new run" in message
    assert "The run is in runs/ccd_synthetic/version_1" in message
    assert main([*WORDS, "--trainer.logger", "false", "--ckpt_path", "last"]) == 2
    assert "Give --ckpt_path RUN" in capsys.readouterr().err
