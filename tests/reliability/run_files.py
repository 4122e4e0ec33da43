"""What lies in run folders: results, records, splits and configs that are damaged."""

from __future__ import annotations

import codecs

from tests.reliability.cases import Case
from tests.reliability.damage import CCD, IGD, PADIM, both, cut, edit_json, folder, remove, write

RANDOM_BYTES = bytes(range(256)) * 4
METRICS, PREDICTIONS = PADIM / "metrics.json", PADIM / "predictions.csv"
COMPARE = f"compare {IGD} {PADIM}"
DAMAGED_JSON: dict[str, str | bytes] = {
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
DAMAGED_CSV: dict[str, str | bytes] = {
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
}
CASES = (
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
        for name, content in DAMAGED_CSV.items()
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
    Case(f"test --ckpt_path {PADIM} --model.channels 3", ("model.channels is 3, but was 100 in the fit",)),
    Case(f"test --ckpt_path {PADIM} --model.blurr 1", ("model.blurr", "did you mean 'blur'?")),
    Case("test --config padim_synthetic", ("Which run? Give --ckpt_path RUN",)),
)
