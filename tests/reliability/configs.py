"""Configs that are none, or say what cannot be."""

from __future__ import annotations

from tests.reliability.cases import Case
from tests.reliability.damage import folder, write

FIT = "fit --config mine.yaml"
GOOD = (
    "model: {class_path: PaDiM, init_args: {encoder: {weights: null}}}\n"
    "data: {class_path: Folder, init_args: {root: data/synthetic_colonoscopy, size: 64}}\ntrainer: {max_epochs: 1}\n"
)
MINE = ("mine.yaml",)
RANDOM_BYTES = bytes(range(256)) * 4


def config(name: str, content: str | bytes, *says: str) -> Case:
    """A config with a content."""
    return Case(FIT, (*MINE, *says), write("mine.yaml", content), name=f"config: {name}")


CASES = (
    config("empty", ""),
    config("comments only", "# nothing\n"),
    config("a list", "- a\n- b\n"),
    config("text", "hello\n"),
    config("a number", "3\n"),
    config("null", "null\n"),
    config("no YAML", "model: {class_path: PaDiM\ndata: ["),
    config("tabs", "model:\n\tclass_path: PaDiM\n"),
    config("binary", RANDOM_BYTES),
    config("NUL bytes", b"model: PaDiM\0\n"),
    config("UTF-16", GOOD.encode("utf-16")),
    config("Latin-1", GOOD.encode() + "# gr\xf6\xdfe\n".encode("latin-1")),
    config("a zip archive", b"PK\x03\x04" + RANDOM_BYTES),
    config("twice the same key", GOOD + "trainer: {max_epochs: 2}\n", "trainer"),
    config("twice the same option", GOOD.replace("max_epochs: 1", "max_epochs: 1, max_epochs: 2"), "max_epochs"),
    config("an unknown alias", "model: *nothing\n"),
    Case(FIT, ("model",), write("mine.yaml", "model: &a [*a]\n"), name="config: an alias of itself"),
    config("a tag that runs code", "model: !!python/object/apply:os.getcwd []\n"),
    Case(FIT, ("'modell'", "did you mean 'model'?"), write("mine.yaml", GOOD.replace("model:", "modell:"))),
    Case(
        FIT,
        ("'optimizers'", "did you mean 'optimizer'?"),
        write("mine.yaml", GOOD + "optimizers: {lr: 1}\n"),
        name="section",
    ),
    Case(FIT, ("model",), write("mine.yaml", "data: SyntheticColonoscopy\n"), name="config: no model"),
    Case(FIT, ("data",), write("mine.yaml", "model: PaDiM\n"), name="config: no data"),
    Case(FIT, ("model",), write("mine.yaml", "model: 3\ndata: SyntheticColonoscopy\n"), name="config: model is 3"),
    Case(FIT, ("model",), write("mine.yaml", "model: [PaDiM]\ndata: Folder\n"), name="config: model is a list"),
    Case(
        FIT, ("trainer",), write("mine.yaml", GOOD.replace("{max_epochs: 1}", "[1]")), name="config: trainer is a list"
    ),
    Case(
        FIT, ("class_pth",), write("mine.yaml", GOOD.replace("class_path: PaDiM", "class_pth: PaDiM")), name="class_pth"
    ),
    Case(
        FIT, ("PaDIM", "did you mean PaDiM?"), write("mine.yaml", GOOD.replace("PaDiM", "PaDIM")), name="config: PaDIM"
    ),
    Case(
        FIT,
        ("model.blur",),
        write("mine.yaml", GOOD.replace("init_args: {enc", "init_args: {blur: wide, enc")),
        name="config: blur is a word",
    ),
    Case(
        FIT,
        ("no.yaml",),
        write("mine.yaml", GOOD.replace("{class_path: PaDiM, init_args: {encoder: {weights: null}}}", "no.yaml")),
    ),
    Case(FIT, ("mine.yaml", "a folder"), folder("mine.yaml"), name="config: a folder"),
    Case("fit --config nothing.yaml", ("nothing.yaml",)),
    Case("fit --config padim_foldr", ("padim_foldr", "Did you mean padim_folder")),
    Case("fit --config ''", ("--config",)),
    Case("fit --config /dev/null", ("/dev/null",)),
    Case("fit --config runs/padim_synthetic/version_0/checkpoints/best.ckpt", ("best.ckpt",)),
    Case("fit --config data/synthetic_colonoscopy/train/good/0000.png", ("0000.png",)),
    Case("fit", ("Give a config",)),
    Case("fit --data Folder --data.root x", ("There is no model",)),
)
