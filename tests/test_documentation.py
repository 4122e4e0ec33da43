"""What the documentation tells people to type is accepted: every command, and every option that is mentioned."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import options
from ccd_lightning.cli import compare, data_options, encoders, export, main, study, view
from ccd_lightning.viewer.server import ViewServer
from tests.runs import ROOT, TINY, VIEWS

DOCUMENTS = sorted([*ROOT.glob("*.md"), ROOT / "data/README.md", *ROOT.glob("docs/**/*.md")])
FENCED = re.compile(r"^ *```(?:bash)?\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(ccd [a-z]+ --[^`]*)`")
OPTION = re.compile(r"--((?:data|model)(?:\.[a-z_0-9]+)+)")
OTHERS = {"compare": compare, "encoders": encoders, "export": export, "study": study, "view": view}
PARSERS = {"data": data_options.data_parser} | {name: module._parser for name, module in OTHERS.items()}
TRAINING = ("fit", "validate", "test", "predict")
# What stands for something of the reader's own, and what takes its place here.
FOLDERS = ("DIR/RSNA", "DIR/Brain_AD", "OTHER", "NEW", "more/deep")


def commands(text: str) -> Iterator[str]:
    """The `ccd` commands of a document, each in one line."""
    for block in FENCED.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.match(r"\s*(?:PYTHONPATH=examples )?(ccd [a-z]+.*)", line)
            if found and not re.search(r"(?<!') \[-|\|", found[1].partition("#")[0]):  # not a synopsis: [--option A|B]
                yield found[1]
    yield from (
        found for found in INLINE.findall(text) if not re.search(r"\.\.\.|--images$|--config FILE|--help", found)
    )


ALL = sorted({(line, file) for file in DOCUMENTS for line in commands(file.read_text("utf-8"))}, key=str)
UNIQUE = {line: file.name for line, file in ALL}


@cache
def known_options() -> frozenset[str]:
    """The names of all options of all models and data modules, and of what they consist of."""
    names = {
        option.name
        for _, targets, prefix in options.SECTIONS
        for target in targets
        for option in options.options(target, prefix)
    }
    return frozenset(names | {".".join(name.split(".")[:-1]) for name in names} | {"model.optimizer.lr"})


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_options_in_documents_exist(file: Path) -> None:
    text = file.read_text("utf-8")
    text = text if file.name != "CHANGELOG.md" else ""  # which names options of older versions
    assert not set(OPTION.findall(text)) - known_options()


@pytest.mark.parametrize(
    "file", [*DOCUMENTS, ROOT / "examples/README.md"], ids=lambda file: file.relative_to(ROOT).as_posix()
)
def test_links_lead_to_files(file: Path) -> None:
    """The site's build looks at anchors too, but not at README.md."""
    text = re.sub(r"^```.*?^```", "", file.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if ":" not in target]
    gone = {(file.parent / target).resolve() for target in targets if not (file.parent / target).resolve().exists()}
    assert gone <= {ROOT / "docs/configuration.md"}  # which is written while the site is built


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_rows_of_tables_have_all_columns(file: Path) -> None:
    """Each row is one line and has as many cells as the head, or the table ends there."""
    text = re.sub(r"^ *```.*?^ *```", "", file.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for table in re.findall(r"(?:^\|.*\n)+.*", text, re.MULTILINE):
        *rows, after = table.split("\n")
        assert not after.strip() or after.startswith(("#", "<", "-", "*")), after
        cells = [len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", row))) for row in rows]
        assert len(set(cells)) == 1, rows[cells.index(min(cells))]


def test_every_option_is_explained_in_the_reference() -> None:
    page = options.reference()
    for _, targets, prefix in options.SECTIONS:
        for target in targets:
            assert f"### {target.__name__}\n" in page
            for option in options.options(target, prefix):
                assert option.meaning, option.name
                assert option.type, option.name
    assert "| `model.temperature` | number | `0.2` | Temperature of the contrastive loss. |" in page
    assert '| `data.fit` | `"squash"`, `"letterbox"`, `"crop"` | `squash` |' in page
    assert "`torch.optim.AdamW {'lr': 0.001, 'weight_decay': 0.0001}`" in page


@pytest.mark.parametrize(
    ("marked", "drawn"),
    [
        ('<span class="arithmatex">\\(x_i &lt; 1\\)</span>', "<msub><mi>x</mi><mi>i</mi></msub><mo>&#x0003C;</mo>"),
        (
            '<div class="arithmatex">\\[\\frac{1}{N}\\]</div>',
            "<mfrac><mrow><mn>1</mn></mrow>",
        ),
        ("<p>no formula: $5 and $6</p>", "<p>no formula: $5 and $6</p>"),
    ],
)
def test_formulas_become_mathml(marked: str, drawn: str) -> None:
    pytest.importorskip("latex2mathml")
    from formulas import draw_formulas

    assert drawn in draw_formulas(f"<p>{marked}</p>")
    assert "arithmatex" not in draw_formulas(marked)


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("docs/results.md", "results.md"),
        ("data/README.md", "data.md"),
        ("configs/trainer/gpu.yaml", "configs.md#trainer-gpu"),
        ("examples/serve.py", "examples.md#serve"),
        ("examples/README.md", "examples.md"),
        ("README.md", "index.md"),
    ],
)
def test_files_beside_the_documents_have_a_page(path: str, page: str) -> None:
    pytest.importorskip("mkdocs")
    from site_pages import page_of

    assert page_of(path) == page


def test_links_to_what_no_page_shows_are_refused() -> None:
    errors = pytest.importorskip("mkdocs.exceptions")
    from site_pages import page_of

    with pytest.raises(errors.PluginError, match=r"src/gone\.py"):
        page_of("src/gone.py")


def test_commands_are_found_in_the_documents() -> None:
    assert len(UNIQUE) > 60


@pytest.fixture(scope="module")
def scratch(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the names that documents use are there: images, and runs."""
    place = tmp_path_factory.mktemp("documentation")
    (place / "data").symlink_to(trained / "data")
    shutil.copytree(trained / "runs", place / "runs", symlinks=True)
    for name in FOLDERS:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).symlink_to(trained / "data/synthetic_colonoscopy")
    return place


@pytest.mark.parametrize("line", UNIQUE)
def test_commands_are_accepted(
    line: str, scratch: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(scratch)
    monkeypatch.syspath_prepend(ROOT / "examples")
    words = [given(word) for word in shlex.split(line.partition(" > ")[0], comments=True)[1:]]
    for word in words:
        if word.startswith("runs/") and not Path(word).exists():
            Path(word).symlink_to(Path("runs/padim_synthetic").resolve())
    if words[0] not in TRAINING:
        PARSERS[words[0]]().parse_known_args(words[1:])
        return
    with pytest.raises(SystemExit) as stop:
        print(main([*words, "--print_config"]))
    assert stop.value.code == 0, capsys.readouterr()


def given(word: str) -> str:
    """What takes the place of a word of a command."""
    return {"RUN": "runs/padim_synthetic", "FILE": "runs/padim_synthetic/latest/checkpoints/best.ckpt"}.get(word, word)


@pytest.mark.fit
@pytest.mark.parametrize("document", ["README.md", "docs/tutorial.md"])
def test_commands_run_from_top_to_bottom(
    document: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks that are marked as bash, on few small images."""
    monkeypatch.chdir(tmp_path)
    for name in ("serve_forever", "warm_up"):  # `ccd view` ends at once
        monkeypatch.setattr(ViewServer, name, lambda _: None)
    monkeypatch.setattr(view, "_has_screen", lambda: False)
    folder.rename("DIR")
    lines = [
        line
        for block in re.findall(r"^```bash\n(.*?)^```", (ROOT / document).read_text("utf-8"), re.DOTALL | re.MULTILINE)
        for line in commands(f"```\n{block}```\n")
    ]
    assert len(lines) >= 6
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        assert main([*words, *shortened(words)]) == 0, line
    assert list(Path("runs").glob("*/latest/report.html"))


def shortened(words: list[str]) -> list[str]:
    """Options that make a command small."""
    text = " ".join(words)
    if words[:2] == ["data", "synthesize"]:
        return [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    if words[0] != "fit":
        return []
    own = [f"--data.{name}={value}" for name, value in (TINY if "synthetic" in text else {"size": 64}).items()]
    if "--config ccd_" in text:
        return [*own, *VIEWS, "--data.num_workers=0", "--data.batch_size=6", "--trainer.max_epochs=1"]
    return [*own, "--data.batch_size=6", *([] if ".weights" in text or "synthetic" in text else [RANDOM])]


RANDOM = "--model.encoder.weights=null"
