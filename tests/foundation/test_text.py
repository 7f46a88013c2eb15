"""Text of unknown origin: nothing that moves a cursor, reorders a line or marks up survives."""

import json
import math
import os
import subprocess
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftscope.foundation.progress import say
from sftscope.foundation.safe_text import (
    MAX_LENGTH,
    csv_cell,
    csv_text,
    json_text,
    markdown_cell,
    safe_lines,
    safe_text,
    shell_command,
)

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


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=("Cs",))), min_size=1))
def test_a_shell_reads_back_the_words_of_a_command(words: list[str]) -> None:
    """bash, with the line as it is shown and copied: printable, and the same words."""
    line = shell_command(["printf", "%s\\0", *words])
    assert safe_text(line, max_length=len(line)) == line
    shown = subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout
    assert shown.decode().split("\0")[:-1] == words


def test_a_paste_that_would_leave_the_paste_is_spelled_out() -> None:
    assert shell_command(["x", "a\x1b[201~\nrm -rf ~"]) == "x $'a\\033[201~\\012rm -rf ~'"
    assert shell_command(["x", os.fsdecode(b"\xff")]) == "x $'\\377'"
    assert shell_command(["x", "plain", "two words", ""]) == "x plain 'two words' ''"


@pytest.mark.parametrize(
    "text", ["=1", "+1", "-1", "@x", " =1", "\uff1d1", "\uff0b1", "\uff0d1", "\uff20x", "\t=1", "\r=1"]
)
def test_no_cell_begins_a_formula(text: str) -> None:
    cell = csv_cell(text)
    assert cell.startswith("'") or cell[0] in "␉␍"
    assert csv_cell("a=1") == "a=1"


def test_what_is_said_on_stderr_is_safe(capsys: pytest.CaptureFixture[str]) -> None:
    say("step 1: \x1b]0;owned\x07\r\n")
    assert capsys.readouterr().err == "step 1: ␛]0;owned␇␍␊\n"


@settings(deadline=None, max_examples=100)
@given(any_text)
def test_lines_keep_their_ends_and_their_length(text: str) -> None:
    shown = safe_lines(text)
    assert [len(line) for line in shown.split("\n")] == [len(line) for line in text.split("\n")]
    assert all(safe_text(line, max_length=len(line) or 1) == line for line in shown.split("\n"))
    long = "a" * 10 * MAX_LENGTH
    assert safe_lines(long) == long


@settings(deadline=None, max_examples=100)
@given(any_text)
def test_json_is_printable_and_holds_the_text_as_it_is(text: str) -> None:
    made = json_text({text: [text, 1.5, None]})
    assert made.replace("\n", "").isprintable()
    assert made.isascii()
    assert json.loads(made) == {text: [text, 1.5, None]}


def test_csv_is_safe_in_its_header_too() -> None:
    made = csv_text([("=1+1", "\x1b[2J"), ("a", math.nan), (1, 2.5)])
    assert made == '"\'=1+1","␛[2J"\n"a",""\n1,2.5\n'
