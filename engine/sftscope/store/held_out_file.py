"""`held_out.jsonl`: the loss of each held-out row at each checkpoint, and which rows were answered right.

One JSON object a line, appended; the last line of a step counts, so a step that is measured again after a kill replaces
what was there. ``step``, ``rows`` (which rows these are: a hash of their tokens), and either ``loss`` (Σ over the
answer's tokens, nats) with ``tokens`` (how many these are), or ``right`` (a digit a row: 1 where the whole answer is
right). A line of some other shape is not used; nor is one whose rows are not those of most other steps.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftscope.files.atomic import append_line
from sftscope.files.json_text import count, finite, json_rows
from sftscope.files.opening import failed_to_read, read_plain
from sftscope.foundation.safe_text import safe_text
from sftscope.store.run_folder import RunFolder
from sftscope.store.steps.step_record import MAX_STEP

_MOST_TOKENS = 2**31 - 1  # of one answer
_LARGEST = 1e12  # nats of one answer
_DIGITS = 8  # of a loss: float32 has 7


@dataclass(frozen=True, eq=False)
class HeldOutRows:
    """What a run measured of each held-out row, at the M checkpoints of `steps` and the C of `correct_steps`.

    R rows have a loss, A rows have a correctness (`[training] loss_rows` and `accuracy_rows` choose them apart; of an
    attached run they are the same). The same rows in the same order at each step; both M and C may be 0, not both.
    drawn: what tests keep of these rows, by step; what `until` returns shares it.
    """

    steps: NDArray[np.int64]  # (M,), in order
    loss: NDArray[np.float64]  # (M, R), Σ over the answer's tokens, nats
    tokens: NDArray[np.int64]  # (R,), of the answer, with what ends it
    correct_steps: NDArray[np.int64]  # (C,), in order
    correct: NDArray[np.bool_]  # (C, A), whether the whole answer is right
    drawn: dict[Hashable, NDArray[np.float64]] = field(default_factory=dict, repr=False)

    @property
    def loss_per_token(self) -> NDArray[np.float64]:
        """Σ loss / Σ tokens over all rows, (M,), nats a token: the eval loss of the run."""
        mean: NDArray[np.float64] = self.loss.sum(axis=1) / max(1, self.tokens.sum())
        return mean

    @property
    def loss_per_row(self) -> NDArray[np.float64]:
        """Mean over rows of a row's own loss a token, (M,), nats a token: each row counts once, however long."""
        mean: NDArray[np.float64] = (self.loss / self.tokens).sum(axis=1) / max(1, self.tokens.size)
        return mean

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Share of rows that are right, (C,)."""
        share: NDArray[np.float64] = self.correct.sum(axis=1) / max(1, self.correct.shape[1])
        return share

    def until(self, step: int) -> "HeldOutRows | None":
        """What was measured at steps up to `step`; None where nothing was."""
        return self._at(self.steps <= step, self.correct_steps <= step)

    def without(self, steps: Iterable[int]) -> "HeldOutRows | None":
        """What was measured at other steps than these; None where nothing was."""
        left_out = list(steps)
        return self._at(~np.isin(self.steps, left_out), ~np.isin(self.correct_steps, left_out))

    def _at(self, losses: NDArray[np.bool_], rights: NDArray[np.bool_]) -> "HeldOutRows | None":
        if not losses.any() and not rights.any():
            return None
        return replace(
            self,
            steps=self.steps[losses],
            loss=self.loss[losses],
            correct_steps=self.correct_steps[rights],
            correct=self.correct[rights],
        )


@dataclass(frozen=True)
class _Line:
    """One line that has the shape it should; `values` are losses or digits, one a row."""

    step: int
    rows: str
    values: Sequence[float] | str
    tokens: tuple[int, ...] = ()

    @property
    def key(self) -> tuple[Any, ...]:
        """What all lines of the same rows share."""
        return self.rows, len(self.values), self.tokens


def append_losses(
    folder: RunFolder, step: int, rows: str, loss: NDArray[np.float64], tokens: NDArray[np.int64]
) -> None:
    """Store Σ loss (R,) in nats and the number of tokens (R,) of each row at `step`; a loss that is no number is null.

    rows: which rows these are. OSError where the line cannot be written.
    """
    values = [float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None for value in loss.tolist()]
    _append(folder, {"step": step, "rows": rows, "loss": values, "tokens": tokens.tolist()})


def append_correct(folder: RunFolder, step: int, rows: str, right: NDArray[np.bool_]) -> None:
    """Store which rows (A,) are right at `step`; otherwise as `append_losses`."""
    _append(folder, {"step": step, "rows": rows, "right": "".join("01"[each] for each in right.tolist())})


def steps_with(folder: RunFolder, what: str, rows: str = "") -> set[int]:
    """The steps whose last line of `what` ("loss" or "right") is of the rows `rows`, by default of any; maybe none.

    NotReadError where it cannot be read now, SftscopeError where it is no regular file.
    """
    last = _last(_read(folder)[0][what])
    return {step for step, line in last.items() if not rows or line.rows == rows}


def read_held_out(folder: RunFolder) -> tuple[HeldOutRows | None, tuple[str, ...]]:
    """What the file has, None where it has nothing or is not there; and what of it is not used, in safe lines.

    Errors as of `steps_with`.
    """
    lines, problems = _read(folder)
    losses, other_losses = _same_rows(lines["loss"])
    rights, other_rights = _same_rows(lines["right"])
    problems += [f"step {line.step}: of other rows than most steps; not used" for line in other_losses + other_rights]
    said = tuple(safe_text(f"{folder.held_out_file.name}: {problem}") for problem in problems)
    if not losses and not rights:
        return None, said
    tokens = losses[0].tokens if losses else ()
    found = HeldOutRows(
        steps=np.array([line.step for line in losses], dtype=np.int64),
        loss=np.array([line.values for line in losses], dtype=np.float64).reshape(len(losses), len(tokens)),
        tokens=np.array(tokens, dtype=np.int64),
        correct_steps=np.array([line.step for line in rights], dtype=np.int64),
        correct=np.array([[digit == "1" for digit in line.values] for line in rights], dtype=np.bool_).reshape(
            len(rights), len(rights[0].values) if rights else 0
        ),
    )
    return found, said


def torn_lines(folder: RunFolder) -> tuple[int, int]:
    """How many lines of the file are no JSON object, such as one torn by a kill, and how many there are.

    Errors as of `steps_with`; FileNotFoundError is none of them: (0, 0).
    """
    data = _bytes(folder)
    lines = sum(bool(line.strip()) for line in data.split(b"\n"))
    return lines - len(json_rows(data)), lines


def _append(folder: RunFolder, line: Mapping[str, Any]) -> None:
    append_line(folder.held_out_file, json.dumps(line, separators=(",", ":")))


def _bytes(folder: RunFolder) -> bytes:
    try:
        return read_plain(folder.held_out_file)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise failed_to_read(folder.held_out_file, error) from None


def _read(folder: RunFolder) -> tuple[dict[str, list[_Line]], list[str]]:
    """The lines of each kind, and what is wrong with the others; a torn line was never finished and is not named."""
    lines: dict[str, list[_Line]] = {"loss": [], "right": []}
    problems = []
    for number, row in enumerate(json_rows(_bytes(folder)), start=1):
        what = "right" if "right" in row else "loss"
        line = _PARSERS[what](row)
        if isinstance(line, str):
            problems.append(f"entry {number}: {line}; not used")
        else:
            lines[what].append(line)
    return lines, problems


def _begin(row: Mapping[str, Any]) -> tuple[int, str] | str:
    """Step and rows of a line, or what is wrong with them."""
    step, rows = count(row.get("step"), MAX_STEP), row.get("rows")
    if step is None:
        return "expected a step"
    if not isinstance(rows, str) or not 0 < len(rows) <= 64:
        return f"step {step}: expected which rows these are"
    return step, rows


def _loss_line(row: Mapping[str, Any]) -> _Line | str:
    begin = _begin(row)
    if isinstance(begin, str):
        return begin
    step, rows = begin
    given, counts = row.get("loss"), row.get("tokens")
    if not isinstance(given, list) or not isinstance(counts, list) or not given or len(given) != len(counts):
        return f"step {step}: expected as many losses as numbers of tokens"
    tokens = tuple(count(each, _MOST_TOKENS) or 0 for each in counts)
    if not all(tokens):
        return f"step {step}: expected whole numbers of tokens, 1 or more"
    losses = [finite(each) for each in given]
    wrong = sum(not 0 <= loss <= _LARGEST for loss in losses)
    if wrong:
        return f"step {step}: {wrong} of {len(losses)} rows have no loss that is a number"
    return _Line(step, rows, losses, tokens)


def _right_line(row: Mapping[str, Any]) -> _Line | str:
    begin = _begin(row)
    if isinstance(begin, str):
        return begin
    step, rows = begin
    right = row.get("right")
    if not isinstance(right, str) or not right or set(right) - set("01"):
        return f"step {step}: expected a 0 or 1 for each row"
    return _Line(step, rows, right)


_PARSERS: dict[str, Callable[[Mapping[str, Any]], _Line | str]] = {"loss": _loss_line, "right": _right_line}


def _last(lines: Iterable[_Line]) -> dict[int, _Line]:
    return {line.step: line for line in lines}


def _same_rows(lines: Iterable[_Line]) -> tuple[list[_Line], list[_Line]]:
    """By step: the last line of each, where it is of the rows that most steps have, and the other ones."""
    last = [line for _, line in sorted(_last(lines).items())]
    kinds = Counter(line.key for line in last)
    most = max(kinds, key=kinds.__getitem__, default=None)
    return [line for line in last if line.key == most], [line for line in last if line.key != most]
