"""The state of a run in a few numbers, one line per extracted step: what a trainer's own logs are given.

Computed by whoever extracts, read by the training. Knows no PyTorch.
"""

import json
import logging
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sftscope.analysis.conclusions.verdict import in_plain_words, judge
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Change, Evolution
from sftscope.analysis.sets.thresholds import ThresholdRule
from sftscope.analysis.sets.views import Selection, trends
from sftscope.files.atomic import append_line
from sftscope.files.json_text import count, finite, json_rows
from sftscope.files.opening import opened
from sftscope.foundation.errors import NotReadError
from sftscope.foundation.progress import say
from sftscope.foundation.safe_text import safe_text
from sftscope.store import RunFolder

PREFIX = "sftscope"
_MOST_BYTES = 2**24  # read at once; the rest is read the next time
_NUMBERS = ("encoded", "removed", "preserved", "emerged")
_TEXTS = ("agreement", "words")


@dataclass(frozen=True)
class Headline:
    """Interactions per probe at `step` against step 0, and what can be said of the end of denoising so far.

    boundary: its step, None while it cannot be determined. agreement: of interactions and held-out loss.
    """

    step: int
    encoded: float
    removed: float
    preserved: float
    emerged: float
    boundary: int | None
    agreement: str
    words: str

    def as_logs(self) -> dict[str, float]:
        """Numbers by the names that they have in a trainer's logs."""
        values = {name: getattr(self, name) for name in ("step", *_NUMBERS)}
        if self.boundary is not None:
            values["boundary"] = self.boundary
        return {f"{PREFIX}/{name}": float(value) for name, value in values.items() if math.isfinite(value)}


def make_headline(folder: RunFolder) -> Headline | None:
    """The headline of a run at its last extracted step, under the default τ.

    None, and a line on stderr, where a step cannot be read now: curves with a gap must not stop a training.
    """
    try:
        history = load_history(folder.path)
    except NotReadError as error:
        unread = str(error)
    else:
        unread = next(iter(history.not_read), "")
    if unread:
        say(f"sftscope: no headline yet: {unread}", logging.WARNING)
        return None
    evolution = Evolution(history, ThresholdRule.parse("max-run"))
    seen = trends(evolution, Selection(now=evolution.history.steps.size - 1))
    verdict = judge(seen)
    return Headline(
        step=int(seen.steps[-1]),
        encoded=seen.encoded_mean[-1],
        **{str(change): seen.classes[change].count_mean[-1] for change in Change},
        boundary=seen.boundary.step,
        agreement=str(verdict.agreement),
        words=in_plain_words(verdict, seen.boundary),
    )


def headline_file(folder: RunFolder) -> Path:
    """One JSON object a line, in the order of extraction.

    A training may stop by what it says (`stop=`), so that it counts only while its user alone can write to it.
    """
    return folder.path / "headlines.jsonl"


def append_headline(folder: RunFolder, headline: Headline) -> None:
    """Add a line; one torn by a kill is skipped by readers. SftscopeError where another user may write to the file."""
    append_line(headline_file(folder), json.dumps(asdict(headline)), owned=True)


def read_past(folder: RunFolder) -> int:
    """Where the headlines end that are there already. SftscopeError where another user could have written them."""
    try:
        with opened(headline_file(folder), owned=True) as file:
            return os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return 0


def read_headlines(folder: RunFolder, offset: int) -> tuple[list[Headline], int]:
    """The headlines written since byte `offset`, and where they end.

    SftscopeError where another user could have written them.
    """
    try:
        with opened(headline_file(folder), owned=True) as file:
            file.seek(offset)
            new = file.read(_MOST_BYTES)
    except FileNotFoundError:
        return [], offset
    whole = new[: new.rfind(b"\n") + 1]
    found = (_parsed(row) for row in json_rows(whole))
    return [headline for headline in found if headline is not None], offset + len(whole)


def _parsed(content: dict[str, Any]) -> Headline | None:
    """The headline of a line; None where it is none. A number that is missing is NaN."""
    step, boundary = count(content.get("step")), content.get("boundary")
    if step is None or (boundary is not None and count(boundary) is None):
        return None
    numbers: dict[str, Any] = {name: finite(content.get(name)) for name in _NUMBERS}
    texts: dict[str, Any] = {name: safe_text(content[name]) for name in _TEXTS if isinstance(content.get(name), str)}
    return Headline(step=step, boundary=boundary, **numbers, **texts) if len(texts) == len(_TEXTS) else None
