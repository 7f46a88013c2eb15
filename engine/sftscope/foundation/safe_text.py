"""Text of unknown origin made safe to show: prompts, answers, labels, names, paths, error messages.

Knows nothing of the screen or the report that shows it. Escape sequences never survive; each
unsafe character becomes one visible glyph, so that a reader sees that something was there, and
positions in the text stay positions in what is shown.
"""

import csv
import io
import json
import math
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

# printable or not, and of no width or of another order than they stand in
HIDDEN = frozenset(
    [0x00AD, 0x034F, 0x061C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180E, 0x2028, 0x2029, 0x3164, 0xFEFF, 0xFFA0]
).union(
    range(0x180B, 0x1810),
    range(0x200B, 0x2010),
    range(0x202A, 0x202F),
    range(0x2060, 0x2070),
    range(0xFE00, 0xFE10),  # variation selectors: terminals disagree on the width they give
    range(0xFFF9, 0xFFFC),
    range(0xE0100, 0xE01F0),
)
_UNSAFE_CATEGORIES = ("Cc", "Cf", "Cs", "Co", "Cn")
_MARKS = ("Mn", "Me")
_MAX_MARKS = 3
_REPLACEMENT = "\N{MIDDLE DOT}"
MAX_LENGTH = 2_000
_MAX_DIGITS = 18  # such a number fits 64 bits
MOST_OF_A_KIND = 20
_NUMBER = re.compile(r"[0-9]+")
_MARKUP = frozenset("\\`*_{}[]<>()#|~!&$@^")
# what spreadsheets take for the begin of a formula, in their wide forms too
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def safe_text(text: str, *, max_length: int = MAX_LENGTH) -> str:
    """`text` on one line without control, bidirectional or zero-width characters, at most `max_length` long.

    C0 controls become their control pictures (ESC → ␛, newline → ␊), everything else that could
    move the cursor or reorder the line a middle dot, and so do combining marks without a letter or
    beyond the third on one. Character i of the text is character i of the result. Idempotent.
    """
    if max_length < 1:
        raise ValueError(f"expected max_length ≥ 1, got {max_length}")
    capped = text if len(text) <= max_length else text[: max_length - 1] + "…"
    if capped.isascii() and capped.isprintable():
        return capped
    shown = []
    marks = _MAX_MARKS
    for character in capped:
        safe = _visible(character)
        is_mark = unicodedata.category(safe) in _MARKS
        if is_mark and marks >= _MAX_MARKS:
            safe, is_mark = _REPLACEMENT, False
        marks = marks + 1 if is_mark else 0
        shown.append(safe)
    return "".join(shown)


def safe_lines(text: str) -> str:
    """Text of any length, safe as `safe_text` but for its line feeds: what a terminal or a text file may get."""
    return "\n".join(safe_text(line, max_length=max(1, len(line))) for line in text.split("\n"))


def json_text(plain: Any) -> str:
    """JSON of plain values in printable ASCII, so that no character of theirs reaches a terminal as it is.

    ValueError for a float that JSON cannot hold.
    """
    return json.dumps(plain, indent=1, allow_nan=False).replace("\x7f", "\\u007f") + "\n"


def _visible(character: str) -> str:
    code = ord(character)
    if 0x20 <= code < 0x7F:
        return character
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    if code in HIDDEN or unicodedata.category(character) in _UNSAFE_CATEGORIES:
        return _REPLACEMENT
    return character


def first_of_each_kind(entries: Sequence[str], most: int = MOST_OF_A_KIND) -> list[str]:
    """The entries; of more than `most` that differ in numbers only, the first ones and how many more there are."""
    kinds = [_NUMBER.sub("0", entry) for entry in entries]
    counts, seen = Counter(kinds), Counter[str]()
    shown = []
    for entry, kind in zip(entries, kinds, strict=True):
        seen[kind] += 1
        if seen[kind] <= most:
            shown.append(entry)
        if seen[kind] == most < counts[kind]:
            shown.append(f"… and {counts[kind] - most:,} more of this kind")
    return shown


def whole_number(text: str) -> int | None:
    """The number that at most 18 ASCII digits write, without sign or space; None for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None


def markdown_cell(text: str) -> str:
    """`text` as one Markdown table cell: safe, and with every character that could mark up or link escaped."""
    return _markdown(text, _MARKUP)


def markdown_prose(text: str) -> str:
    """`text` as one Markdown line outside a table: as in a cell, but for the marks that need a bracket before or after.

    With brackets escaped, ! and parentheses mark up nothing.
    """
    return _markdown(text, _MARKUP - set("()!"))


def _markdown(text: str, marks: frozenset[str]) -> str:
    escaped = "".join(f"\\{c}" if c in marks else c for c in safe_text(text))
    return escaped.replace("://", "\\://").replace("www.", "www\\.")


def csv_cell(text: str) -> str:
    """`text` as a spreadsheet's cell: safe, and no formula. To be written in quotes: some split at semicolons."""
    shown = safe_text(text)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown


def csv_text(rows: Iterable[Iterable[str | int | float]]) -> str:
    """Rows as CSV, the header among them, every text a `csv_cell`; a number that is not finite is empty."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    for row in rows:
        writer.writerow(
            [csv_cell(value) if isinstance(value, str) else value if math.isfinite(value) else "" for value in row]
        )
    return out.getvalue()


def shell_command(words: Iterable[str]) -> str:
    """The words as one line for a POSIX shell such as bash or zsh, to be shown, copied and pasted as it is.

    What no terminal should get is spelled in $'…': pasted, it is the same word and does nothing on its way.
    """
    return " ".join(_shell_word(word) for word in words)


def own_command(*words: object) -> str:
    """A command of this program with these words, as `shell_command`: a folder's name may hold anything."""
    return shell_command(["sftscope", *map(str, words)])


def _shell_word(word: str) -> str:
    if safe_text(word, max_length=max(1, len(word))) == word:
        return shlex.quote(word)
    plain = set(range(0x20, 0x7F)) - set(b"\\'")
    raw = word.encode("utf-8", "surrogateescape")
    return "$'" + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in raw) + "'"
