"""Both gates between a run's text and the terminal.

`shown` is the first: every string from a run passes it where it enters the screen. `ControlFilter` is
the second: no line leaves for the terminal with a control character, whoever wrote it.
"""

import re
import unicodedata

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from sftscope.foundation.safe_text import HIDDEN, safe_text

_HIDDEN = re.compile(f"[{re.escape(''.join(map(chr, sorted(HIDDEN))))}]")
# Whether these widen the character before them is each terminal's own opinion
_VARIATION = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")


def shown(text: object, max_length: int = 2_000) -> str:
    """`text` of a run as one line that is safe to draw and has the width that it is counted to have."""
    return _VARIATION.sub("", safe_text(str(text), max_length=max_length))


class ControlFilter(LineFilter):
    """Replaces what is left of control, zero-width and bidirectional characters by a middle dot."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The line without control characters; the same list where there were none."""
        if not any(_is_unsafe(segment.text) for segment in segments):
            return segments
        return [Segment("".join(map(_visible, text)), style, control) for text, style, control in segments]


def _is_unsafe(text: str) -> bool:
    return not text.isprintable() or _HIDDEN.search(text) is not None


def _visible(character: str) -> str:
    is_space = unicodedata.category(character) == "Zs"  # wide or narrow, it is drawn as one
    return character if is_space or not _is_unsafe(character) else "·"
