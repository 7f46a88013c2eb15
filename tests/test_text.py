"""Text of unknown origin: nothing that moves a cursor, reorders a line or marks up survives."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.text import MAX_LENGTH, markdown_cell, safe_text

any_text = st.text(alphabet=st.characters(), max_size=60)


@settings(deadline=None, max_examples=200)
@given(any_text)
def test_no_unsafe_character_survives(text: str) -> None:
    shown = safe_text(text)
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    shown.encode("utf-8")


@settings(deadline=None, max_examples=200)
@given(any_text)
def test_is_idempotent_and_keeps_positions(text: str) -> None:
    shown = safe_text(text)
    assert safe_text(shown) == shown
    assert len(shown) == len(text)


@settings(deadline=None, max_examples=100)
@given(any_text, st.integers(1, 20))
def test_is_never_longer_than_asked(text: str, length: int) -> None:
    assert len(safe_text(text, max_length=length)) <= length


def test_default_length_is_capped() -> None:
    assert len(safe_text("a" * 10 * MAX_LENGTH)) == MAX_LENGTH


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b]52;c;AAAA\x07", "␛]52;c;AAAA␇"),
        ("a\nb\tc\x7f", "a␊b␉c␡"),
        ("\x9b31m", "·31m"),
        ("pay‮load", "pay·load"),
        ("zero​width", "zero·width"),
        ("a\ud800b", "a·b"),
        ("\u0301lonely mark", "·lonely mark"),
        ("z" + "\u0301" * 6, "z" + "\u0301" * 3 + "·" + "\u0301" * 2),
        ("naïve 日本 😀 हिन्दी", "naïve 日本 😀 हिन्दी"),
    ],
)
def test_shows_what_was_there(raw: str, shown: str) -> None:
    assert safe_text(raw) == shown


def test_length_must_leave_room() -> None:
    with pytest.raises(ValueError, match="max_length"):
        safe_text("abc", max_length=0)


@pytest.mark.parametrize(
    "raw", ["a|b", "[x](javascript:1)", "<script>", "`code`", "**b**", "_i_", "~~s~~", "$x$", "&amp;", "\\|"]
)
def test_markdown_cell_escapes_markup(raw: str) -> None:
    cell = markdown_cell(raw)
    unescaped = cell.replace("\\\\", "").split("\\")
    assert not any(set(part[int(i > 0) :]) & set("|[]<>`*_~$&") for i, part in enumerate(unescaped))


def test_markdown_cell_makes_no_links_and_no_lines() -> None:
    assert "http://" not in markdown_cell("see http://example.org")
    assert "\n" not in markdown_cell("a\n| b |")
