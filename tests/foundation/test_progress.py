"""The progress bar is drawn whatever the environment says of the terminal's size."""

import io
import sys

import pytest

from sftscope.foundation import progress


@pytest.mark.parametrize(
    "size", ["²", "9" * 5000, "wide", "-1", ""], ids=["power", "huge", "word", "negative", "empty"]
)
def test_an_odd_size_in_the_environment_is_no_traceback(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """rich takes all that `str.isdigit` accepts for a number."""
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr(progress, "is_terminal", lambda stream: True)
    monkeypatch.setattr(progress, "can_move_cursor", lambda: True)
    for name in ("COLUMNS", "LINES"):
        monkeypatch.setenv(name, size)
    with progress.progress("work") as report:
        report(1, 3, "half-way")
    assert "work" in shown.getvalue()
