"""A prompt with its variables marked, wrapped to the width of a pane.

Lit words are reversed, words that are taken out are blotted, the word under the word cursor stands in
brackets: nothing depends on colour.
"""

import re
from collections.abc import Sequence

from rich.cells import cell_len
from rich.style import Style

from sftscope_tui.drawing.palette import Glyphs, Inks
from sftscope_tui.drawing.safe_lines import shown
from sftscope_tui.widgets.lines import Piece

_LONGEST = 4_000  # characters of a prompt that are drawn


def word_pieces(
    text: str, spans: Sequence[tuple[int, int]], lit: int, masked: int, cursor: int, inks: Inks, glyphs: Glyphs
) -> list[Piece]:
    """The text as pieces; lit and masked are subsets of the words at `spans`, cursor a word's index."""
    pieces: list[Piece] = []
    at = 0
    for i, (start, end) in enumerate(spans):
        pieces.append((shown(text[at:start], _LONGEST), inks.muted))
        word = shown(text[start:end], _LONGEST)
        style = Style(underline=True)
        if masked >> i & 1:
            word = ("_" if glyphs is Glyphs.ASCII else "▒") * cell_len(word)
            style = inks.muted
        if lit >> i & 1:
            style += Style(reverse=True)
        if i == cursor:
            pieces += [("[", inks.strong), (word, style + Style(bold=True)), ("]", inks.strong)]
        else:
            pieces.append((word, style))
        at = end
    pieces.append((shown(text[at:], _LONGEST), inks.muted))
    return [piece for piece in pieces if piece[0]]


def wrapped(pieces: Sequence[Piece], width: int, most: int) -> list[list[Piece]]:
    """The pieces on lines of at most `width` cells, broken at spaces; what needs more than `most` lines is cut."""
    lines: list[list[Piece]] = [[]]
    used = 0
    for text, style in pieces:
        for token in re.findall(r" +|[^ ]+", text):
            size = cell_len(token)
            if used + size > width and used:
                lines.append([])
                used = 0
            if token.isspace() and not used:
                continue
            lines[-1].append((token, style))
            used += size
    if len(lines) > most:
        lines = lines[:most]
        lines[-1].append(("…", Style()))
    return lines
