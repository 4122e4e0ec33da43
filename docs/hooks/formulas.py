"""Formulas as MathML, which browsers draw by themselves: no script, no font, no network."""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert

MARKED = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)


def draw_formulas(page: str) -> str:
    """Replaces what pymdownx.arithmatex has marked as LaTeX, within a page's HTML, by MathML."""
    return MARKED.sub(_draw, page)


def _draw(match: re.Match[str]) -> str:
    kind = match.group(1)
    latex = html.unescape(match.group(2)).strip().removeprefix("\\(").removeprefix("\\[")
    latex = latex.removesuffix("\\)").removesuffix("\\]").strip()
    drawn = convert(latex, display="block" if kind == "div" else "inline")
    return f'<{kind} class="formula">{drawn}</{kind}>'
