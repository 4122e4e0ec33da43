"""Configs, checkpoints and run folders that are damaged or of something else."""

from __future__ import annotations

import codecs

import torch

from tests.reliability.cases import Case
from tests.reliability.damage import (
    CCD,
    IGD,
    PADIM,
    both,
    cut,
    edit_checkpoint,
    edit_json,
    folder,
    remove,
    replace,
    write,
)

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


CONFIGS = (
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
CHECKPOINTS = (
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

METRICS, PREDICTIONS = PADIM / "metrics.json", PADIM / "predictions.csv"
COMPARE = f"compare {IGD} {PADIM}"
DAMAGED_JSON = {
    "empty": "",
    "cut": '{"metrics": {"image/au',
    "a list": "[]",
    "empty object": "{}",
    "a number": "3",
    "null": "null",
    "binary": RANDOM_BYTES,
}
HEAD = "path,label,score,percentile,decision,group\n"
ROW = "data/synthetic_colonoscopy/test/good/0000.png,0,1.5,50,normal,\n"
RUN_FILES = (
    *(
        Case(COMPARE, ("metrics.json", "ccd test"), write(METRICS, content), name=f"compare: metrics.json: {name}")
        for name, content in DAMAGED_JSON.items()
    ),
    Case(COMPARE, ("metrics.json",), edit_json(METRICS, lambda one: one.pop("data")), name="compare: no data"),
    Case(
        COMPARE,
        ("metrics.json",),
        edit_json(METRICS, lambda one: one["metrics"].update({"image/auroc": "high"})),
        name="compare: no number",
    ),
    Case(
        COMPARE,
        ("metrics.json",),
        edit_json(METRICS, lambda one: one["metrics"].update({"image/auroc": None})),
        name="compare: null",
    ),
    Case(
        COMPARE,
        ("metrics.json",),
        edit_json(METRICS, lambda one: one["metrics"].update({"image/auroc": float("nan")})),
        name="compare: nan",
    ),
    Case(
        COMPARE,
        ("metrics.json",),
        edit_json(METRICS, lambda one: one["intervals"].update({"image/auroc": [1]})),
        name="compare: half an interval",
    ),
    Case(
        COMPARE,
        ("metrics.json",),
        edit_json(METRICS, lambda one: one.update(undefined=3)),
        name="compare: undefined is 3",
    ),
    Case(COMPARE, (str(PADIM), "not tested yet"), remove(METRICS), name="compare: not tested"),
    *(
        Case(
            COMPARE,
            ("predictions.csv", "ccd test"),
            write(PREDICTIONS, content),
            name=f"compare: predictions.csv: {name}",
        )
        for name, content in {
            "empty": "",
            "only a header": HEAD,
            "another header": "a,b\n1,2\n",
            "no column of scores": "path,label\nx.png,0\n",
            "a score that is no number": HEAD + ROW.replace("1.5", "high"),
            "a score that is nan": HEAD + ROW.replace("1.5", "nan"),
            "a score that is inf": HEAD + ROW.replace("1.5", "inf"),
            "a label of 2": HEAD + ROW.replace(",0,", ",2,"),
            "no label": HEAD + ROW.replace(",0,", ",,"),
            "an image twice": HEAD + ROW + ROW,
            "a line that is cut": HEAD + ROW + "data/x.png,1",
            "binary": RANDOM_BYTES,
            "UTF-16": codecs.BOM_UTF16_LE + (HEAD + ROW).encode("utf-16-le"),
            "a field over the limit": HEAD + ROW + '"' + "x" * 200_000 + '",0,1,,,\n',
            "an absolute and a relative path": HEAD + ROW + ROW.replace("data/", "/data/"),
            "NUL": (HEAD + ROW).replace("normal", "nor\0mal") + "\0\n",
        }.items()
        if name != "NUL"
    ),
    Case(COMPARE, ("predictions.csv",), remove(PREDICTIONS), name="compare: no predictions.csv"),
    Case(COMPARE, ("predictions.csv",), folder(PREDICTIONS), name="compare: predictions.csv is a folder"),
    Case("compare", ("RUN",)),
    Case("compare nothing", ("nothing: no such run",)),
    Case("compare data", ("data: no finished run",)),
    Case(f"compare {PADIM} {PADIM}", (str(PADIM), "twice")),
    Case(f"compare {PADIM} runs/padim_synthetic", (str(PADIM), "twice"), name="compare: the same run by two names"),
    Case(f"compare {PADIM} {IGD} --output x.txt", ("x.txt", ".png")),
    Case(
        f"compare {PADIM} {IGD} --output nowhere/x.png", ("nowhere",), write("nowhere", ""), name="compare: no folder"
    ),
    Case(f"compare {PADIM} {IGD} --otput x.png", ("--otput",)),
    *(
        Case(
            "test",
            ("run.json",),
            both(*(write(run / "run.json", content) for run in _all), remove("runs/ccd_synthetic_local")),
            name=f"test: all run.json: {name}",
        )
        for name, content in DAMAGED_JSON.items()
        for _all in ((CCD, PADIM, IGD),)
        if name in ("cut", "empty object", "a list")
    ),
    Case(
        "test --ckpt_path runs/padim_synthetic",
        ("run.json", "--ckpt_path"),
        write(PADIM / "run.json", "{}"),
        name="test: run.json {}",
    ),
    Case(
        "fit --config padim_synthetic --data.size 64 --model.encoder.weights runs/ccd_synthetic",
        ("run.json",),
        write(CCD / "run.json", "[]"),
        name="encoder: run.json []",
    ),
    Case(
        f"test --ckpt_path {PADIM}",
        ("manifest.csv",),
        write(PADIM / "manifest.csv", RANDOM_BYTES),
        name="test: manifest.csv beside the checkpoint is binary",
    ),
    Case(
        f"fit --config {PADIM}/config.yaml",
        ("must be",),
        cut(PADIM / "config.yaml"),
        name="fit: a run's config that is cut",
    ),
    Case(
        f"fit --config {PADIM}/config.yaml",
        ("config.yaml",),
        write(PADIM / "config.yaml", ""),
        name="fit: a run's config that is empty",
    ),
    Case(
        f"fit --config {PADIM}/config.yaml --ckpt_path {PADIM}",
        ("manifest.csv",),
        write(PADIM / "manifest.csv", ""),
        name="resume: manifest.csv is empty",
    ),
    Case(f"test --ckpt_path {PADIM} --data Folder --data.root nowhere", ("nowhere",)),
    Case(f"test --ckpt_path {PADIM} --data Folder --data.root ''", ("data.root is empty",)),
    Case(f"test --ckpt_path {PADIM} --data Folder --data.size 32", ("64 px", "--data.size")),
    Case(f"test --ckpt_path {PADIM} --model.blur -1", ("model.blur is -1",)),
    Case(f"test --ckpt_path {PADIM} --model.quantile 2", ("model.quantile is 2",)),
    Case(f"test --ckpt_path {PADIM} --model.channels 3", ("best.ckpt", "do not fit")),
    Case(f"test --ckpt_path {PADIM} --model.blurr 1", ("model.blurr", "did you mean 'blur'?")),
    Case("test --config padim_synthetic", ("Which run? Give --ckpt_path RUN",)),
)
CASES = CONFIGS + CHECKPOINTS + RUN_FILES
_ = replace
