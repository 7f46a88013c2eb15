"""Colours and glyphs: one visual language with the report, safe for colour-blind readers (Okabe–Ito).

Colour repeats what a glyph already says. On a dark ground the hues of the figures are lightened until
text in them reads well.
"""

from dataclasses import dataclass
from enum import StrEnum

from rich.style import Style
from textual.theme import Theme

from sftscope.analysis.sets.evolution import Change

FLIPPED = "±"  # next to the glyph of what is preserved with the other sign
CLASS_GLYPHS = {Change.REMOVED: "−", Change.PRESERVED: "=", Change.EMERGED: "+"}


class Glyphs(StrEnum):
    """What charts are drawn with."""

    BRAILLE = "braille"
    BLOCK = "block"
    ASCII = "ascii"


@dataclass(frozen=True)
class Inks:
    """The styles that text and charts are drawn in."""

    removed: Style
    preserved: Style
    emerged: Style
    denoising: Style
    overfitting: Style
    loss: Style
    error: Style
    muted: Style
    plain: Style
    strong: Style
    cursor: Style

    def of(self, change: Change) -> Style:
        """The style of a class."""
        style = getattr(self, change.value)
        assert isinstance(style, Style)
        return style


def _inks(**colours: str) -> Inks:
    styles = {name: Style(color=colour) for name, colour in colours.items()}
    return Inks(**styles, plain=Style(), strong=Style(bold=True), cursor=Style(reverse=True))


ON_DARK = _inks(
    removed="#a8a8a8",
    preserved="#56b4e9",
    emerged="#e69f00",
    denoising="#33c29a",
    overfitting="#cc79a7",
    loss="#d8d8d8",
    error="#ff7a5c",
    muted="#8b9098",
)
ON_LIGHT = _inks(
    removed="#6a6a6a",
    preserved="#0072b2",
    emerged="#a86f00",
    denoising="#007a59",
    overfitting="#9a4a7c",
    loss="#303030",
    error="#b84400",
    muted="#6a6f78",
)

# The terminal's own sixteen colours, whatever they are set to there
ON_ANSI = _inks(
    removed="default",
    preserved="blue",
    emerged="yellow",
    denoising="green",
    overfitting="magenta",
    loss="default",
    error="red",
    muted="default",
)
HIGH_CONTRAST = _inks(
    removed="#ffffff",
    preserved="#7fd4ff",
    emerged="#ffc83d",
    denoising="#5fffc0",
    overfitting="#ffa0e0",
    loss="#ffffff",
    error="#ff9c80",
    muted="#e0e0e0",
)
HIGH_CONTRAST_THEME = Theme(
    name="high-contrast",
    primary="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#ffffff",
    foreground="#ffffff",
    error="#ff9c80",
    dark=True,
)


def inks_for(theme: Theme) -> Inks:
    """The styles that go with a theme of the app; all but the terminal's own are safe for colour-blind readers."""
    if theme.ansi:
        return ON_ANSI
    if theme.name == HIGH_CONTRAST_THEME.name:
        return HIGH_CONTRAST
    return ON_DARK if theme.dark else ON_LIGHT
