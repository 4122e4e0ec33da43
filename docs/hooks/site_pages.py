"""What MkDocs asks for while it builds the site: pages written from other files, links to them, and formulas."""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from formulas import draw_formulas
from options import reference

ROOT = Path(__file__).parents[2]
# Pages that are files of the repository as they stand, by their place in docs/.
PAGES = {
    "data.md": "data/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "code_of_conduct.md": "CODE_OF_CONDUCT.md",
    "security.md": "SECURITY.md",
}
WRITTEN = {"examples.md": "examples/README.md"}  # pages that begin with a file, whose links they have
ELSEWHERE = {"README.md": "index.md"}
LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\]\()([^)\s]+)(\))")
FENCE = re.compile(r"^(```.*?^```|~~~.*?^~~~)", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are written from the code, the configs, the examples and files beside docs/."""
    made = {place: (ROOT / source).read_text("utf-8") for place, source in PAGES.items() if (ROOT / source).is_file()}
    made |= {"configuration.md": reference(), "configs.md": configs_page(), "examples.md": examples_page()}
    for place, content in made.items():
        files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links that lead to files beside docs/ into links to their pages."""
    place = page.file.src_uri
    source = (PAGES | WRITTEN).get(place, f"docs/{place}")
    parts = FENCE.split(markdown)  # fenced code at odd places
    for index in range(0, len(parts), 2):
        parts[index] = LINK.sub(lambda match: _redirect(match, source, place), parts[index])
    return "".join(parts)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Draws the formulas."""
    return draw_formulas(html)


def _redirect(match: re.Match[str], source: str, place: str) -> str:
    before, target, after = match.groups()
    path, mark, anchor = target.partition("#")
    if not path or ":" in path:
        return match.group()
    wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    return before + posixpath.relpath(page_of(wanted, mark + anchor), posixpath.dirname(place) or ".") + after


def page_of(path: str, anchor: str = "") -> str:
    """Where in docs/ a file of the repository is shown.

    Args:
        path: Relative to the repository's root.
        anchor: Within the file, with its "#"; empty without.

    Raises:
        PluginError: If the site does not show it.
    """
    if path + anchor in ELSEWHERE:
        return ELSEWHERE[path + anchor]
    if path in ELSEWHERE:
        return ELSEWHERE[path] + anchor
    if path.startswith("docs/"):
        return path.removeprefix("docs/") + anchor
    for place, source in PAGES.items():
        if path == source:
            return place + anchor
    for folder in ("configs", "examples"):
        if path in (folder, f"{folder}/README.md"):
            return f"{folder}.md"
        if path.startswith(f"{folder}/"):
            return f"{folder}.md#{heading_id(path.removeprefix(f'{folder}/'))}"
    raise PluginError(f"The site shows no {path}: link to a page, or add it to docs/hooks/site_pages.py.")


def heading_id(name: str) -> str:
    """The anchor of a file's heading."""
    return str(PurePosixPath(name).with_suffix("")).replace("/", "-")


def configs_page() -> str:
    """The shipped configs, each with its text."""
    folder = ROOT / "configs"
    lines = [
        "# Shipped configs",
        "",
        "`--config NAME` takes each of these from any folder. A config says only what differs from the",
        "[defaults](configuration.md), and takes what several of them share from other files by their path.",
    ]
    headings = {"": "Models and data", "trainer": "Hardware", "studies": "Studies"}
    headings |= {"published": "Shared: published settings", "small": "Shared: few images"}
    for part, heading in headings.items():
        lines += ["", f"## {heading}"]
        for file in sorted((folder / part).glob("*.yaml")):
            name = file.relative_to(folder).as_posix()
            text = file.read_text("utf-8").rstrip()
            title = name.removesuffix(".yaml")
            lines += ["", f"### `{title}` {{ #{heading_id(name)} }}", "", "```yaml", text, "```"]
    return "\n".join(lines) + "\n"


def examples_page() -> str:
    """The examples, each with its text."""
    lines = [(ROOT / "examples/README.md").read_text("utf-8").rstrip()]
    for file in sorted((ROOT / "examples").glob("*.py")):
        lines += ["", f"## `{file.name}` {{ #{heading_id(file.name)} }}", *_code(file.read_text("utf-8"))]
    for file in sorted((ROOT / "examples").glob("*.ipynb")):
        lines += ["", f"## `{file.name}` {{ #{heading_id(file.name)} }}"]
        for cell in json.loads(file.read_text("utf-8"))["cells"]:
            text = "".join(cell["source"])
            lines += _code(text) if cell["cell_type"] == "code" else ["", re.sub(r"^# .*\n", "", text)]
    return "\n".join(lines) + "\n"


def _code(text: str) -> list[str]:
    return ["", "```python", text.rstrip(), "```"]
