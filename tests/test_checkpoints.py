from pathlib import Path
from typing import Any

import pytest
import torch

from ccd_lightning.checkpoints import encoder_state, fingerprint, read_checkpoint
from ccd_lightning.encoder_config import EncoderConfig, EncoderSource, initialise_encoder
from ccd_lightning.errors import UserError
from ccd_lightning.models.encoder import Encoder


def checkpoint(path: Path, **changes: Any) -> Path:
    state = {f"encoder.{name}": tensor for name, tensor in Encoder().state_dict().items()}
    state |= {"projection.0.weight": torch.zeros(1)}
    for name, value in changes.items():
        state.pop(name.replace("__", "."), None)
        if value is not None:
            state[name.replace("__", ".")] = value
    torch.save({"state_dict": state, "hyper_parameters": {"_class_path": "ccd_lightning.modules.ccd.CCD"}}, path)
    return path


def test_every_tensor_of_the_encoder_is_loaded(tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "ccd.ckpt")
    encoder = Encoder()
    assert initialise_encoder(encoder, EncoderConfig(weights=str(file))) == EncoderSource(
        str(file), fingerprint(encoder), is_run=True
    )
    saved = read_checkpoint(file)["state_dict"]
    assert all(torch.equal(tensor, saved[f"encoder.{name}"]) for name, tensor in encoder.state_dict().items())


@pytest.mark.parametrize(
    "change",
    [
        {"encoder__network__layer4__0__bn2__running_var": None},
        {"encoder__extra": torch.zeros(1)},
        {"encoder__network__layer1__0__conv1__weight": torch.zeros(2, 2)},
    ],
)
def test_encoders_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    file = checkpoint(tmp_path / "ccd.ckpt", **change)
    with pytest.raises(UserError, match=r"ccd\.ckpt: its encoder does not fit \(1 tensors, the first is"):
        encoder_state(read_checkpoint(file), file, Encoder())


def test_weights_that_are_no_numbers_are_an_error(tmp_path: Path) -> None:
    broken = torch.full_like(Encoder().state_dict()["network.layer1.0.conv1.weight"], float("nan"))
    file = checkpoint(tmp_path / "ccd.ckpt", encoder__network__layer1__0__conv1__weight=broken)
    with pytest.raises(UserError, match=r"ccd\.ckpt: its encoder's weights are not finite"):
        initialise_encoder(Encoder(), EncoderConfig(weights=str(file)))


def test_a_missing_pretraining_run_is_reported_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"runs/ccd_x: no CCD run.*--model\.encoder\.weights null"):
        initialise_encoder(Encoder(), EncoderConfig(weights="runs/ccd_x"))
    with pytest.raises(UserError, match=r"Make one with: ccd fit --config ccd_lag, or go without"):
        initialise_encoder(Encoder(), EncoderConfig(weights="runs/ccd_lag"))


def test_unreadable_checkpoints_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "broken.ckpt"
    file.write_bytes(b"not a zip file")
    with pytest.raises(UserError, match=r"broken\.ckpt: not a readable checkpoint"):
        read_checkpoint(file)
    torch.save({"weights": 1}, file)
    with pytest.raises(UserError, match=r"broken\.ckpt: not a checkpoint of this program"):
        read_checkpoint(file)


def test_a_null_from_the_command_line_is_none() -> None:
    assert EncoderConfig(weights="null").weights is None
    assert EncoderConfig(weights="None").weights is None
