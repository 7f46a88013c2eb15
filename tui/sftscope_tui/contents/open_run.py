"""One run that is open: read a little at a time, looked at again later, and what is derived from it.

The screen asks and receives; reading happens in the loader's thread, which alone touches the files. A
run that cannot be read, or holds nothing yet, keeps a sentence instead of a history, and is tried again.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from sftscope.analysis import DEFAULT_HYSTERESIS
from sftscope.analysis.conclusions.verdict import verdict_of
from sftscope.analysis.run.read_run import GrowingHistory, load_history
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.thresholds import ThresholdRule
from sftscope.foundation.errors import SftscopeError
from sftscope.store import RunFolder
from sftscope.store.sharing.training_requests import outcome
from sftscope.store.sharing.writer_progress import WriterProgress, writer_progress
from sftscope_tui.contents.background import Done, Loader, Urgency, failure_of
from sftscope_tui.contents.derived import Derived, Reading, read_history
from sftscope_tui.drawing.safe_lines import shown

SLICE_SECONDS = 0.1  # of reading, after which urgent work may go first
_generations = count()


@dataclass(frozen=True, eq=False)
class Grown:
    """What one slice of reading brought; reading is None where there is nothing new to show yet.

    outcome: what came of a request to the training; empty where none was made, or it waits.
    """

    reading: Reading | None
    total: int
    pending: int
    left_out: tuple[str, ...]
    writer: WriterProgress | None
    failure: str = ""
    outcome: str = ""


class Session:
    """A run folder, for one app. rule: the threshold that a new history is read under first.

    spare: does what takes long and nothing else waits for.
    """

    def __init__(
        self,
        path: Path,
        loader: Loader,
        rule: ThresholdRule,
        *,
        hysteresis: float = DEFAULT_HYSTERESIS,
        spare: Loader | None = None,
    ) -> None:
        self.path = path
        self.rule = rule
        self.hysteresis = hysteresis
        self.derived: Derived | None = None
        self.reading: Reading | None = None
        self.is_complete = False  # whether all files that were there at first have been read
        self.has_asked = False  # the training for something, and what came of it is not known yet
        self.last = Grown(None, 0, 0, (), None)
        self._loader = loader
        self._spare = spare or loader
        self._key: Hashable = ("run", next(_generations))
        self._growing: GrowingHistory | None = None
        self._failure = ""  # stands until a history can be read again

    @property
    def name(self) -> str:
        """The folder's name, safe to draw."""
        return shown(self.path.absolute().name)

    @property
    def failure(self) -> str:
        """Why nothing can be shown; empty where something can, or will be."""
        return self.last.failure if self.derived is None else ""

    def look(self) -> None:
        """Look for new step files, or continue reading those that were found."""
        self._loader.request(self._key, self._grow, Urgency.RUN)

    def owns(self, done: Done) -> bool:
        """Whether a result answers `look`."""
        return done.key == self._key

    def take(self, grown: Grown) -> bool:
        """Accept what was read; whether there is another history now. Continues if there is more to read."""
        self.last = grown
        if self.derived is not None:
            self.derived.try_again()
        if grown.reading is not None:
            generation = next(_generations)
            self.derived = Derived(
                grown.reading.evolution.history,
                self._loader,
                generation,
                self.derived,
                hysteresis=self.hysteresis,
                spare=self._spare,
            )
            self.derived.adopt(grown.reading)
            self.reading = grown.reading
        self.is_complete = self.is_complete or not grown.pending
        if grown.pending:
            self.look()
        return grown.reading is not None

    def read_under(self, rule: ThresholdRule) -> Reading | None:
        """The newest reading, under `rule` as soon as it is computed."""
        self.rule = rule
        if self.derived is not None:
            self.reading = self.derived.reading(rule) or self.reading
        return self.reading

    def _grow(self) -> Grown:
        """In the loader's thread: look, or read for `SLICE_SECONDS`; a history where it is worth showing."""
        try:
            return replace(self._slice(), outcome=outcome(RunFolder(self.path)) if self.has_asked else "")
        except SftscopeError as error:
            return self._failed(shown(error))
        except Exception as error:  # whatever a file makes a reader raise: the explorer stays
            self._growing = None  # it may have lost its place
            return self._failed(shown(f"{self.path}: {failure_of(error)}"))

    def _slice(self) -> Grown:
        growing = self._growing = self._growing or GrowingHistory(self.path)
        if not growing.pending:
            growing.look()
        history, failure = None, ""
        try:
            history = growing.read(SLICE_SECONDS)
        except SftscopeError as error:
            failure = shown(error)
        reading = read_history(history, self.rule, self.hysteresis) if history is not None else None
        writer = writer_progress(growing.folder) if not growing.pending else None
        self._failure = failure if reading is None and failure else "" if reading is not None else self._failure
        return Grown(reading, growing.total, growing.pending, growing.refused, writer, self._failure)

    def _failed(self, why: str) -> Grown:
        try:
            writer = writer_progress(RunFolder(self.path)) if self.path.is_dir() else None
        except Exception:  # the folder cannot even be listed, which `why` says
            writer = None
        return Grown(None, 0, 0, (), writer, why)


@dataclass(frozen=True)
class RunHeadline:
    """One line on a run, safe to draw; failed: it is why the run cannot be read."""

    text: str
    failed: bool = False


def headline_of(path: Path, rule: ThresholdRule, hysteresis: float) -> RunHeadline:
    """The size of a run and its verdict's sentence, or why it cannot be read."""
    try:
        evolution = Evolution(load_history(path), rule, hysteresis)
        verdict = verdict_of(evolution)
    except Exception as error:  # whatever a file makes a reader raise: the others are still to be listed
        return RunHeadline(shown(failure_of(error).removeprefix(f"{path}: ")), failed=True)
    history = evolution.history
    left_out = f", {len(history.left_out)} files left out" if history.left_out else ""
    return RunHeadline(shown(f"{history.steps.size} steps, {len(history.probes)} probes{left_out}. {verdict.sentence}"))
