"""Checkpoints that are damaged, incomplete or of something else."""

from __future__ import annotations

import torch

from tests.reliability.cases import Case
from tests.reliability.damage import CCD, PADIM, both, cut, edit_checkpoint, folder, remove, write

RANDOM_BYTES = bytes(range(256)) * 4
BEST = str(PADIM / "checkpoints/best.ckpt")
READERS = {"test": "test --ckpt_path", "predict": "predict --ckpt_path", "export": "export --format torch --ckpt_path"}


def drop_tensor(content: dict) -> None:  # type: ignore[type-arg]
    """A checkpoint that lacks a tensor."""
    del content["state_dict"]["gaussian.mean"]


CHANGES = {
    "lacks a tensor": drop_tensor,
    "encoder of another shape": lambda content: content["state_dict"].update(
        {"encoder.network.conv1.0.weight": torch.zeros(3, 3)}
    ),
    "tensor that is no number": lambda content: content["state_dict"].update({"gaussian.mean": "text"}),
    "tensor of whole numbers": lambda content: content["state_dict"].update(
        threshold=torch.zeros(2, dtype=torch.int64)
    ),
    "superfluous tensor": lambda content: content["state_dict"].update(surplus=torch.zeros(2)),
    "no state": lambda content: content.pop("state_dict"),
    "state is a number": lambda content: content.update(state_dict=3),
    "hyper-parameters are a number": lambda content: content.update(hyper_parameters=3),
    "hyper-parameters are nonsense": lambda content: content.update(hyper_parameters={"channels": "many"}),
    "config is missing": lambda content: content.pop("ccd_config"),
    "config is a number": lambda content: content.update(ccd_config=3),
    "config is garbled": lambda content: content.update(ccd_config="model: [\n\x01"),
    "config is empty": lambda content: content.update(ccd_config=""),
    "config is a list": lambda content: content.update(ccd_config="- 1\n"),
    "config has no data": lambda content: content.update(ccd_config="model: PaDiM\ntrainer: {}\n"),
    "config's data is a number": lambda content: content.update(ccd_config="model: PaDiM\ndata: 3\ntrainer: {}\n"),
    "config's trainer is a number": lambda content: content.update(
        ccd_config=content["ccd_config"].replace("trainer:", "trainer: 3\nignored:")
    ),
}
SETTINGS = ("hyper-parameters are nonsense",)  # which a test takes from the config
CASES = (
    *(
        Case(f"{words} {PADIM}", ("best.ckpt",), edit_checkpoint(change), name=f"{reader}: {name}")
        for name, change in CHANGES.items()
        for reader, words in READERS.items()
        if (reader == "test" and name not in SETTINGS)
        or name.startswith(("lacks", "config is garbled", "state is"))
        or (reader == "export" and name in SETTINGS)
    ),
    *(
        Case(f"{words} {BEST}", ("best.ckpt",), prepare, name=f"{reader}: {name}")
        for reader, words in READERS.items()
        for name, prepare in {
            "empty file": write(BEST, b""),
            "text": write(BEST, "hello"),
            "cut": cut(BEST),
            "cut at the end": cut(BEST, 0.999),
            "an image": write(BEST, b"\x89PNG\r\n\x1a\n" + RANDOM_BYTES),
            "only a zip": write(BEST, b"PK\x05\x06" + bytes(18)),
        }.items()
        if reader == "test" or name in ("cut", "text")
    ),
    Case("test --ckpt_path list.ckpt", ("list.ckpt",), lambda: torch.save([1, 2], "list.ckpt")),
    Case("test --ckpt_path tensor.ckpt", ("tensor.ckpt",), lambda: torch.save(torch.zeros(2), "tensor.ckpt")),
    Case("test --ckpt_path number.ckpt", ("number.ckpt",), lambda: torch.save(3, "number.ckpt")),
    Case("test --ckpt_path keys.ckpt", ("keys.ckpt",), lambda: torch.save({3: 4}, "keys.ckpt")),
    *(Case(f"{command} --ckpt_path ''", ("--ckpt_path is empty",)) for command in ("test", "validate", "predict")),
    Case("export --ckpt_path ''", ("--ckpt_path is empty",)),
    *(Case(f"{words} nothing", ("nothing: no such run",)) for words in READERS.values()),
    *(Case(f"{words} data", ("data: no finished run",)) for words in READERS.values()),
    Case("test --ckpt_path /dev/null", ("/dev/null",)),
    Case("test --ckpt_path configs/padim_folder.yaml", ("padim_folder.yaml",)),
    Case("test --ckpt_path", ("ckpt_path",)),
    Case(
        f"test --ckpt_path {PADIM}",
        (str(PADIM), "no checkpoint"),
        both(remove(PADIM / "checkpoints"), folder(PADIM / "checkpoints")),
    ),
    Case(f"test --ckpt_path {BEST}", ("best.ckpt",), folder(BEST), name="test: best.ckpt is a folder"),
    Case(f"export --format torch --ckpt_path {CCD}", ("CCD",), name="export: another stage's"),
    Case(f"predict --ckpt_path {CCD}", ("pretrained an encoder",), name="predict: another stage's"),
    Case(
        f"predict --ckpt_path {CCD} --images data", ("pretrained an encoder",), name="predict images: another stage's"
    ),
    Case(f"fit --config {PADIM}/config.yaml --ckpt_path {CCD}", ("last.ckpt", "CCD", "PaDiM")),
    Case(f"fit --config {CCD}/config.yaml --ckpt_path {CCD}", ("last.ckpt",), cut(CCD / "checkpoints/last.ckpt")),
    Case(
        f"fit --config {CCD}/config.yaml --ckpt_path {CCD} --trainer.max_epochs 3",
        ("last.ckpt",),
        edit_checkpoint(lambda one: one["state_dict"].popitem(), CCD / "checkpoints/last.ckpt"),
        writes=("runs/ccd_synthetic/version_0/",),  # what a run that is resumed writes anew
        name="resume: lacks a tensor",
    ),
    Case(
        f"fit --config {CCD}/config.yaml --ckpt_path {CCD} --trainer.max_epochs 3",
        ("last.ckpt",),
        edit_checkpoint(lambda content: content.pop("optimizer_states"), CCD / "checkpoints/last.ckpt"),
        name="resume: no state of the optimiser",
    ),
    Case(
        f"fit --config {CCD}/config.yaml --ckpt_path {CCD} --trainer.max_epochs 3",
        ("last.ckpt",),
        edit_checkpoint(lambda content: content.pop("loops"), CCD / "checkpoints/last.ckpt"),
        name="resume: no state of the loops",
    ),
    Case(
        "fit --config padim_synthetic --data.size 64 --model.encoder.weights bad.ckpt",
        ("bad.ckpt",),
        edit_checkpoint(
            lambda content: content["state_dict"].update(
                {
                    name: one * torch.nan
                    for name, one in content["state_dict"].items()
                    if name.startswith("encoder.") and one.is_floating_point()
                }
            ),
            CCD / "checkpoints/best.ckpt",
            to="bad.ckpt",
        ),
        name="encoder: not numbers",
    ),
    Case(
        "fit --config padim_synthetic --data.size 64 --model.encoder.weights bad.ckpt",
        ("bad.ckpt",),
        edit_checkpoint(
            lambda content: content.update(hyper_parameters=[1]), CCD / "checkpoints/best.ckpt", to="bad.ckpt"
        ),
        name="encoder: hyper-parameters are a list",
    ),
    Case("fit --config padim_synthetic --model.encoder.weights bad.pt", ("bad.pt",), write("bad.pt", "text")),
    Case(
        "fit --config padim_synthetic --model.encoder.weights bad.safetensors",
        ("bad.safetensors",),
        write("bad.safetensors", RANDOM_BYTES),
    ),
    Case(
        "fit --config padim_synthetic --model.encoder.weights other.pt",
        ("other.pt",),
        lambda: torch.save({"one.weight": torch.zeros(3, 3)}, "other.pt"),
    ),
    Case("test", ("runs: no finished run",), remove("runs"), name="test: no runs at all"),
    Case("test", ("runs",), both(remove("runs"), write("runs", "")), name="test: runs is a file"),
)
