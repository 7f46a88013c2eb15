"""A stored run for Python: what `show` prints, as columns.

A `Table` is a dict of equally long NumPy columns, which is also a data frame of pandas or polars, or a table of Arrow,
where these are installed. Undefined numbers are NaN.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftscope.analysis import DEFAULT_HYSTERESIS, DEFAULT_RULE
from sftscope.analysis.conclusions.verdict import Verdict, verdict_of
from sftscope.analysis.rows.known_rows import rows_or_why
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.run.run_history import ProbeHistory
from sftscope.analysis.sets import views
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.thresholds import ThresholdRule
from sftscope.foundation.errors import SftscopeError
from sftscope.lattice.transforms import Floats
from sftscope.reporting.forms import write_report


class Table(dict[str, NDArray[Any]]):
    """Equally long NumPy columns by name, a row an entry of each."""

    def __repr__(self) -> str:
        rows = len(next(iter(self.values()), ()))
        return f"<Table: {rows} rows; {', '.join(self)}>"

    def to_pandas(self) -> Any:
        """The table as a `pandas.DataFrame`; SftscopeError without pandas."""
        return _library("pandas").DataFrame(dict(self))

    def to_polars(self) -> Any:
        """The table as a `polars.DataFrame`; SftscopeError without polars."""
        return _library("polars").DataFrame(dict(self))

    def to_arrow(self) -> Any:
        """The table as a `pyarrow.Table`; SftscopeError without pyarrow."""
        return _library("pyarrow").table(dict(self))


class Run:
    """A run as it was when it was opened; what is added to it later needs another `open_run`.

    Steps are those of the training, as in `run.steps`; probes go by their id.
    """

    def __init__(self, path: Path, tau: str, hysteresis: float) -> None:
        self.path = path
        self._evolution = Evolution(load_history(path), ThresholdRule.parse(tau), hysteresis)
        self._history = self._evolution.history

    def __repr__(self) -> str:
        return f"<Run {str(self.path)!r}: {len(self.steps)} steps, {len(self._history.probes)} probes>"

    @property
    def steps(self) -> NDArray[np.int64]:
        """The steps of the checkpoints that are extracted, ascending: (T,)."""
        return np.array(self._history.steps, dtype=np.int64)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Files that could not be read, and why, a line each."""
        return tuple(self._history.left_out)

    def probes(self) -> Table:
        """The probes: id, instruction, input, response, target (token), words (joined by spaces), n_words."""
        probes = [part.probe for part in self._history.probes]
        return Table(
            {name: _texts([getattr(each, name) for each in probes]) for name in ("id", "instruction", "input")}
            | {
                "response": _texts([each.response for each in probes]),
                "target": _texts([_target(part) for part in self._history.probes]),
                "words": _texts([" ".join(each.variables) for each in probes]),
                "n_words": np.array([part.n_variables for part in self._history.probes], dtype=np.int64),
            }
        )

    def scores(self, step: int) -> dict[str, Floats]:
        """v(x_T) in log-odds of each probe's masked states at a step, by the probe's id.

        (2^n,) by subset, bit 0 the first word; of a sampled probe in the order of its states.
        """
        row = self._history.index_of(step)
        return {part.probe.id: np.array(part.scores[row]) for part in self._history.probes}

    def trends(self, base: int | None = None) -> Table:
        """Every checkpoint against the base step (the first by default), a row each; means over probes.

        step; effective, soft_removed, soft_preserved, soft_emerged, soft_order, soft_turnover, which need no threshold
        (see `soft_trend`); encoded, then for each class (removed, preserved, emerged) and for same_sign, what is
        preserved with its sign, its count, strength, order, uncancelled ratio and z; preserved_by_chance and
        same_sign_by_chance; turnover; then the losses.
        """
        found = views.trends(self._evolution, views.Selection(now=len(self.steps) - 1, base=self._index(base, 0)))
        soft = found.soft
        table: dict[str, Any] = {"step": found.steps, "effective": soft.effective_mean}
        for name in ("removed", "preserved", "emerged", "order", "turnover"):
            table[f"soft_{name}"] = getattr(soft, f"{name}_mean")
        table["encoded"] = found.encoded_mean
        classes = {change.value: curves for change, curves in found.classes.items()} | {"same_sign": found.same_sign}
        for name, curves in classes.items():
            for quantity in ("count", "strength", "order", "uncancelled", "z"):
                table[f"{name}_{quantity}"] = getattr(curves, f"{quantity}_mean")
        for name in ("preserved_by_chance", "same_sign_by_chance", "turnover"):
            table[name] = getattr(found, name)
        return Table({name: np.array(column) for name, column in (table | found.losses).items()})

    def losses(self) -> Table:
        """What the training measured, at checkpoints and between them, a row a value: quantity, step, value.

        quantity: train, eval (nats a token of the answer), accuracy (share of 1).
        """
        measured = views.trends(self._evolution, views.Selection(0)).measured
        rows = [(name, *pair) for name, pairs in measured.items() for pair in pairs]
        return Table(
            {
                "quantity": _texts([name for name, _, _ in rows]),
                "step": np.array([step for _, step, _ in rows], dtype=np.int64),
                "value": np.array([value for _, _, value in rows], dtype=np.float64),
            }
        )

    def interactions(self, step: int | None = None, base: int | None = None) -> Table:
        """The interactions that are encoded at `step` (the last by default) or at `base` (the first), a row each.

        Strongest first: probe, response, target (token), change (removed, preserved, emerged), relation (AND, OR),
        order, subset (a bitmask), words (joined by " · "), effect_base, effect, sign (same or flipped, of what is
        preserved).
        """
        now = self._index(step, len(self.steps) - 1)
        rows = views.changes(self._evolution, views.Selection(now=now, base=self._index(base, 0))).rows
        of_probe = {part.probe.id: (part.probe.response, _target(part)) for part in self._history.probes}
        columns = {
            "probe": _texts([row.probe for row in rows]),
            "response": _texts([of_probe[row.probe][0] for row in rows]),
            "target": _texts([of_probe[row.probe][1] for row in rows]),
            "change": _texts([row.change.value for row in rows]),
            "relation": _texts([row.relation for row in rows]),
            "order": np.array([row.order for row in rows], dtype=np.int64),
            "subset": np.array([row.subset for row in rows], dtype=np.uint64),
            "words": _texts([" · ".join(row.words) for row in rows]),
            "effect_base": np.array([row.effect_base for row in rows], dtype=np.float64),
            "effect": np.array([row.effect_now for row in rows], dtype=np.float64),
            "sign": _texts(["" if row.same_sign is None else "same" if row.same_sign else "flipped" for row in rows]),
        }
        return Table(columns)

    def verdict(self) -> Verdict:
        """When the training should have stopped, and why."""
        return verdict_of(self._evolution)

    def report(self, out: str | Path, *, formats: Sequence[str] = ("md", "json"), train: str = "") -> list[Path]:
        """Write the report into the folder `out`, as `sftscope report` does; the files that were written.

        formats: of md, json, csv, html, figures, shapiq. train: the training rows, a file or hub name; empty: those
        that the run names, if they are the same still.
        """
        return write_report(self._evolution, Path(out), tuple(formats), rows=rows_or_why(self.path, train))

    def _index(self, step: int | None, default: int) -> int:
        return default if step is None else self._history.index_of(step)


def open_run(path: str | Path, *, tau: str = DEFAULT_RULE, hysteresis: float = DEFAULT_HYSTERESIS) -> Run:
    """The run in a folder, under a rule of what counts as encoded. SftscopeError where it is none, or holds no step."""
    return Run(Path(path), tau, hysteresis)


def report(run: str | Path, out: str | Path, *, formats: Sequence[str] = ("md", "json"), train: str = "") -> list[Path]:
    """Write the report of the run in a folder; see `Run.report`."""
    return open_run(run).report(out, formats=formats, train=train)


def _target(part: ProbeHistory) -> str:
    """The text of the scored token; empty where the run does not have it."""
    text = part.target.get("text")
    return text if isinstance(text, str) else ""


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise SftscopeError(f"this needs {name}; install it with: pip install {name}") from None


def _texts(values: Sequence[str]) -> NDArray[Any]:
    return np.array(values, dtype=np.str_)
