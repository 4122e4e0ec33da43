"""Model card: intended use and results of a model, as a Markdown file next to its checkpoint.

The sections follow Mitchell et al., "Model Cards for Model Reporting", FAT* 2019. The header is that of the Hugging
Face Hub.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

from ccd_lightning.errors import UserError
from ccd_lightning.reading import read_text
from ccd_lightning.reporting.content import Content, render
from ccd_lightning.writing import atomic_write

CARD = "model_card.md"
TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
BEGIN, END = "<!-- ccd test: begin -->", "<!-- ccd test: end -->"


def write_card(file: Path, content: Content) -> str:
    """Writes a model card, or updates the facts in an existing one and keeps the owner's text.

    Args:
        file: Path of the model card.
        content: Content of the model card.

    Returns:
        Why an existing card was not updated: it cannot be read, or lacks the markers around the facts. "" if it was
        written.
    """
    training = content.data.get("training")
    card = render(
        TEMPLATE,
        content,
        autoescape=False,
        filters={"cell": _cell, "text": _text, "fenced": _fenced},
        begin=BEGIN,
        end=END,
        training=[] if training is None else [("Normal training images, including those held out", training)],
    )
    if file.exists():
        try:
            own = read_text(file)
        except (OSError, UnicodeDecodeError, UserError) as error:
            return f"{file}: not updated, because it cannot be read ({error})."
        if own.count(BEGIN) != 1 or own.count(END) != 1 or own.index(BEGIN) > own.index(END):
            return (
                f"{file}: not updated, because it must contain the lines {BEGIN} and {END} once each. To get a new one,"
                " delete it."
            )
        facts = card[card.index(BEGIN) : card.index(END)]
        card = own[: own.index(BEGIN)] + facts + own[own.index(END) :]
    with atomic_write(file) as partial:
        partial.write_text(card, encoding="utf-8", errors="backslashreplace")  # names need not be UTF-8
    return ""


def _text(value: object) -> str:
    """Escapes text for Markdown."""
    plain = " ".join(str(value).split())
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(plain, quote=False))


def _cell(value: object) -> str:
    """Escapes text for a table cell, keeping names of metrics and files readable in the source."""
    plain = " ".join(str(value).split())
    return html.escape(plain, quote=False).replace("\\", "\\\\").replace("|", "\\|").replace("`", "\\`")


def _fenced(value: str) -> str:
    """Returns a code block with a fence longer than any fence inside it."""
    longest = max((len(found) for found in re.findall(r"`+", value)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}yaml\n{value.rstrip()}\n{fence}"
