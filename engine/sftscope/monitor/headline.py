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

from sftscope.analysis.conclusions.verdict import verdict_of
from sftscope.analysis.course.events import events_so_far
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Change, Evolution
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
_NUMBERS = ("effective", "soft_removed", "soft_emerged", "encoded", "removed", "preserved", "emerged")
_STEPS = ("sparsest", "stop_by")
_TEXTS = ("agreement", "words")


@dataclass(frozen=True)
class Headline:
    """Interactions per probe at `step` against step 0, and what can be said so far.

    effective: N_eff. soft_removed, soft_emerged: strengths as shares of that at step 0. encoded and the classes: counts
    under the default τ. sparsest, stop_by: steps, None while they cannot be determined. agreement: of interactions and
    held-out loss.
    """

    step: int
    effective: float
    soft_removed: float
    soft_emerged: float
    encoded: float
    removed: float
    preserved: float
    emerged: float
    sparsest: int | None
    stop_by: int | None
    agreement: str
    words: str

    def as_logs(self) -> dict[str, float]:
        """Numbers by the names that they have in a trainer's logs."""
        values = {name: getattr(self, name) for name in ("step", *_NUMBERS)}
        values |= {name: value for name in _STEPS if (value := getattr(self, name)) is not None}
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
    evolution = Evolution(history)
    verdict = verdict_of(evolution, looks=True)
    seen = trends(evolution, Selection(now=history.steps.size - 1), events=events_so_far(history))
    return Headline(
        step=int(seen.steps[-1]),
        effective=seen.soft.effective_mean[-1],
        soft_removed=seen.soft.removed_mean[-1],
        soft_emerged=seen.soft.emerged_mean[-1],
        encoded=seen.encoded_mean[-1],
        **{str(change): seen.classes[change].count_mean[-1] for change in Change},
        sparsest=seen.events.sparsest.step,
        stop_by=verdict.stop_by,
        agreement=str(verdict.agreement),
        words=verdict.sentence,
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
    """The headline of a line; None where it is none. A number that is missing is NaN, a step that is missing None."""
    step = count(content.get("step"))
    steps: dict[str, Any] = {name: content.get(name) for name in _STEPS}
    if step is None or any(value is not None and count(value) is None for value in steps.values()):
        return None
    numbers: dict[str, Any] = {name: finite(content.get(name)) for name in _NUMBERS}
    texts: dict[str, Any] = {name: safe_text(content[name]) for name in _TEXTS if isinstance(content.get(name), str)}
    return Headline(step=step, **steps, **numbers, **texts) if len(texts) == len(_TEXTS) else None
