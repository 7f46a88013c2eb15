"""`sftscope watch`: a line for each new checkpoint of a run, and a command where what to do changes.

Reads the run and never writes into it. Nothing that a run holds gets into a command line: the command gets it in its
environment and on stdin.
"""

import logging
import math
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sftscope.analysis.conclusions.verdict import Decision
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.run.run_history import RunHistory
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.views import Selection, Trends, trends
from sftscope.files.json_text import lookup
from sftscope.foundation.errors import NotReadError, SftscopeError
from sftscope.foundation.output import put
from sftscope.foundation.progress import say
from sftscope.foundation.safe_text import json_text, safe_text
from sftscope.reporting.answer.run_answer import Answer, answer_of
from sftscope.store import RunFolder
from sftscope.store.checkpoints import ready_checkpoints

PATIENCE = 60.0  # seconds that a command may take


@dataclass(frozen=True)
class Command:
    """A program and its arguments, as a person wrote them."""

    words: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Command":
        """Split as a shell would; SftscopeError where that cannot be done, or the program is not there."""
        shown = safe_text(repr(text), max_length=100)
        try:
            words = tuple(shlex.split(text))
        except ValueError as error:
            raise SftscopeError(f"--on-verdict {shown}: {error}; expected a command as in a shell") from None
        if not words or shutil.which(words[0]) is None:
            raise SftscopeError(
                f"--on-verdict {shown}: expected a program that can be run; for pipes and variables: sh -c '…'"
            )
        return cls(words)

    def run(self, answer: Answer) -> None:
        """Run it, its output on stderr; a line where it fails, which ends nothing."""
        verdict = answer.verdict
        told = {
            "RUN": answer.run,
            "STEP": str(answer.steps[-1]),
            "DECISION": str(verdict.decision),
            "STOP_BY": "" if verdict.stop_by is None else str(verdict.stop_by),
            "SENTENCE": safe_text(verdict.sentence),
        }
        environ = os.environ | {f"SFTSCOPE_{name}": value for name, value in told.items()}
        content = json_text(answer.as_dict()).encode()
        name = safe_text(self.words[0], max_length=60)
        try:
            done = subprocess.run(self.words, input=content, env=environ, stdout=2, timeout=PATIENCE, check=False)
        except subprocess.TimeoutExpired:
            say(f"--on-verdict: {name} took longer than {PATIENCE:g} s and was ended", logging.WARNING)
        except OSError as error:
            say(f"--on-verdict: {name}: {error.strerror}", logging.WARNING)
        else:
            if done.returncode:
                say(f"--on-verdict: {name} ended with exit code {done.returncode}", logging.WARNING)


def watch_run(path: Path, command: Command | None, *, every: float, idle: float) -> None:
    """Print a line for each new checkpoint until the last one, or until none has come for `idle` seconds.

    every: seconds between two looks.
    """
    told: tuple[Decision, int | None] = (Decision.NOT_ENOUGH, None)
    for answer, lines in _looks(path, every=every, idle=idle):
        for line in lines:
            put(line)
        now = (answer.verdict.decision, answer.verdict.stop_by)
        if command is not None and now != told:
            command.run(answer)
        told = now


def _looks(path: Path, *, every: float, idle: float) -> Iterator[tuple[Answer, list[str]]]:
    """The answer and the lines of each look that found new checkpoints; of the first look, of the last one only."""
    folder = RunFolder(path)
    folder.read_run()
    seen: set[int] = set()
    until = time.monotonic() + idle
    while True:
        found = set(folder.steps())
        if found - seen and (history := _history(path)) is not None:
            new = [step for step in history.steps.tolist() if step not in seen]
            evolution = Evolution(history)
            answer = answer_of(path, evolution, looks=True)
            over_time = trends(evolution, Selection(history.steps.size - 1))
            yield answer, [checkpoint_line(over_time, step, answer) for step in (new if seen else new[-1:])]
            seen |= found
            until = time.monotonic() + idle
            if _is_over(folder, history, seen):
                return
        if time.monotonic() > until:
            say(f"no new checkpoint in {folder.path} for {idle / 60:.3g} minutes: no longer watched")
            return
        time.sleep(every)


def checkpoint_line(over_time: Trends, step: int, answer: Answer) -> str:
    """The numbers of a checkpoint, and the verdict so far."""
    at, soft = over_time.steps.index(step), over_time.soft
    numbers = {
        "N_eff": f"{soft.effective_mean[at]:.1f}",
        "removed": f"{soft.removed_mean[at]:.2f}",
        "emerged": f"{soft.emerged_mean[at]:.2f}",
    }
    loss = over_time.losses.get("eval", [math.nan] * len(over_time.steps))[at]
    if math.isfinite(loss):
        numbers["held-out loss"] = f"{loss:.3f}"
    return f"step {step}: {', '.join(f'{name} {value}' for name, value in numbers.items())}; {answer.verdict.sentence}"


def _history(path: Path) -> RunHistory | None:
    """None, and a line, where a step cannot be read now: it is there at the next look."""
    try:
        history = load_history(path)
    except NotReadError as error:
        unread = str(error)
    else:
        unread = next(iter(history.not_read), "")
    if unread:
        say(f"{unread}; looking again", logging.WARNING)
        return None
    return history


def _is_over(folder: RunFolder, history: RunHistory, seen: set[int]) -> bool:
    """Whether the training's last step is there and all checkpoints with it."""
    for place in (("attached", "max_steps"), ("settings", "training", "max_steps")):
        last = lookup(history.run, *place)
        if type(last) is int and 0 < last <= max(seen):
            return seen.issuperset(ready_checkpoints(folder.checkpoints))
    return False
