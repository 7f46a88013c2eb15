"""A text in parts, built once and rendered as Markdown, HTML (`page`) or plain text: same parts, same order.

A part holds text as it came; the renderer makes it safe for where it goes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from sftscope.foundation.safe_text import markdown_cell, markdown_prose, safe_lines, safe_text
from sftscope.reporting.tables import Table, as_markdown, as_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


class Style(Enum):
    """What a text is, for renderers that can show it."""

    PLAIN = auto()
    ANSWER = auto()
    QUOTE = auto()


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """One paragraph."""

    text: str
    style: Style = Style.PLAIN


@dataclass(frozen=True)
class Listing:
    """Lines that belong together; shows nothing if there are none."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Figure:
    """A caption, and what draws the picture; text forms show the caption."""

    name: str
    caption: str
    drawing: Callable[["Drawing"], None]


Block = Heading | Text | Listing | Table | Figure
Document = Sequence[Block]


def markdown(document: Document) -> str:
    """The document in GitHub's Markdown."""
    return safe_lines("\n\n".join(filter(None, map(_markdown, document))) + "\n")


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {markdown_cell(text)}"
        case Text(text, Style.ANSWER):
            return f"**{markdown_prose(text)}**"
        case Text(text, Style.QUOTE):
            return f"> {markdown_prose(text)}"
        case Text(text):
            return markdown_prose(text)
        case Listing(lines):
            return "\n".join(f"- {markdown_prose(line)}" for line in lines)
        case Table():
            return as_markdown(block)
        case Figure(_, caption):
            return f"- {markdown_prose(caption)}"


def plain_text(document: Document) -> str:
    """The document for terminals, pipes and screen readers; what follows a heading is on the next line."""
    shown = [(block, text) for block in document if (text := _plain(block))]
    parts = [text + ("\n" if isinstance(block, Heading) else "\n\n") for block, text in shown]
    return "".join(parts).rstrip("\n") + "\n"


def _plain(block: Block) -> str:
    match block:
        case Heading(text) | Text(text) | Figure(_, text):
            return safe_text(text)
        case Listing(lines):
            return "\n".join(map(safe_text, lines))
        case Table():
            return as_text(block)
