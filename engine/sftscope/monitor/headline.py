"""The state of a run in a few numbers, one line per extracted step: what a trainer's own logs are given.

Computed by whoever extracts, read by the training. Knows no PyTorch.
"""

import contextlib
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sftscope.analysis.evolution import Change, Evolution
from sftscope.analysis.reading import load_history
from sftscope.analysis.thresholds import ThresholdRule
from sftscope.analysis.verdict import in_plain_words, judge
from sftscope.analysis.views import Selection, trends
from sftscope.store import RunFolder
from sftscope.text import safe_text

PREFIX = "sftscope"


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
        values = {name: getattr(self, name) for name in ("step", "encoded", "removed", "preserved", "emerged")}
        if self.boundary is not None:
            values["boundary"] = self.boundary
        return {f"{PREFIX}/{name}": float(value) for name, value in values.items() if math.isfinite(value)}


def make_headline(folder: RunFolder) -> Headline:
    """The headline of a run at its last extracted step, under the default τ."""
    evolution = Evolution(load_history(folder.path), ThresholdRule.parse("max-run"))
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
    """One JSON object a line, in the order of extraction."""
    return folder.path / "headlines.jsonl"


def append_headline(folder: RunFolder, headline: Headline) -> None:
    """Add a line; one torn by a kill is skipped by readers."""
    with headline_file(folder).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(headline)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_headlines(folder: RunFolder, offset: int) -> tuple[list[Headline], int]:
    """The headlines written since byte `offset`, and where they end."""
    try:
        with headline_file(folder).open("rb") as file:
            file.seek(offset)
            new = file.read()
    except FileNotFoundError:
        return [], offset
    whole = new[: new.rfind(b"\n") + 1]
    found = []
    for line in whole.splitlines():
        with contextlib.suppress(ValueError, TypeError):
            found.append(_parsed(json.loads(line)))
    return found, offset + len(whole)


def _parsed(content: dict[str, Any]) -> Headline:
    headline = Headline(**content)
    return Headline(**{**asdict(headline), "words": safe_text(headline.words)})
