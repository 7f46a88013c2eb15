"""Raw: the datasets of the present step's file, as they lie on the disk."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.style import Style
from textual.strip import Strip

from sftscope.analysis.run.run_history import ProbeHistory
from sftscope.store import SparseEffects, StepRecord
from sftscope.store.steps.step_record import columns_of, dataset_names
from sftscope_tui.drawing.safe_lines import shown
from sftscope_tui.panes.pane import Pane
from sftscope_tui.state.view_state import View
from sftscope_tui.widgets.lines import Piece, fit, line

PER_PROBE = ("n_variables", "target", "noise", "zeta", "gap", "objective", "n_states")
PER_STATE = ("scores", "states", "held_out", "and_effects", "or_effects")
PER_EFFECT = ("relation", "subset", "effect")


def datasets(is_sampled: bool) -> tuple[str, ...]:
    """What a step file holds, as it is shown: of all masked states, or of a sample."""
    there = dataset_names(sampled=is_sampled, decomposed=True)
    own = (*PER_PROBE, "offsets", *PER_STATE, "n_effects", *PER_EFFECT)
    return ("meta", *(name for name in own if name in there))


@dataclass(frozen=True, eq=False)
class RawSlice:
    """One step file. record is None while it is read; `why` says why it cannot be."""

    step: int
    record: StepRecord | None
    why: str
    dataset: int
    row: int
    probes: Sequence[ProbeHistory]


def column(record: StepRecord, name: str) -> Any:
    """A dataset as an array, or for `meta` the lines of its JSON."""
    if name == "meta":
        meta = {"step": record.step, "losses": dict(record.losses), "provenance": record.provenance}
        return json.dumps(meta, indent=1, ensure_ascii=False, default=str).split("\n")
    return columns_of(record)[name]


class RawPane(Pane[RawSlice]):
    """The names in a line, the values of the chosen one under it; only visible rows are made."""

    view = View.RAW
    page = 1

    def content(self, slice: RawSlice, width: int, height: int) -> list[Strip]:
        """Title, names, rows."""
        inks = self.look.inks
        if slice.record is None:
            text = slice.why or "reading …"
            return [self.title([], width), line([(f"  {text}", inks.error if slice.why else inks.plain)], width)]
        there = datasets(slice.record.sample is not None)
        chosen = there[slice.dataset]
        values = column(slice.record, chosen)
        size = f"{len(values)} lines" if chosen == "meta" else f"{values.dtype} × {values.size}"
        title = self.title([(f": step {slice.step}, {chosen}, {size}", Style()), ("   w/b others", inks.muted)], width)
        first = 0  # moved on where the chosen name would not fit
        while sum(len(name) + 1 for name in there[first : slice.dataset + 1]) > width - 3:
            first += 1
        names: list[Piece] = [(" " if not first else "‹", inks.muted)]
        for name in there[first:]:
            names += [(name, inks.cursor if name == chosen else inks.muted), (" ", Style())]
        self.page = max(height - 2, 1)
        visible = self.rows_in(len(values), slice.row, self.page, 2)
        rows = [self._row(slice, chosen, values, index, width) for index in visible]
        return [title, line(names, width), *rows]

    def _row(self, slice: RawSlice, name: str, values: Any, index: int, width: int) -> Strip:
        base = Style(reverse=True) if index == slice.row else None
        if name == "meta":
            return line([(f" {shown(values[index])}", Style())], width, base)
        value = values[index]
        number = f"{float(value):>24.16g}" if isinstance(value, float) else f"{int(value):>24}"
        meaning = self._meaning(slice, name, index)
        return line([(f" {index:>8}", self.look.inks.muted), (number, Style()), (f"  {meaning}", Style())], width, base)

    def _meaning(self, slice: RawSlice, name: str, index: int) -> str:
        """What a row stands for: a probe, a replicate of it, or a probe and a subset of its words."""
        if name in PER_PROBE or name == "offsets":
            return shown(slice.probes[index].probe.id) if index < len(slice.probes) else "end"
        record = slice.record
        assert record is not None
        probe, subset = index, 0
        if name == "n_effects" or name in PER_EFFECT:
            assert isinstance(record.effects, SparseEffects)
            counts, replicates = record.effects.n_effects, 1 + record.effects.n_replicates
            block = index if name == "n_effects" else int(counts.cumsum().searchsorted(index, side="right"))
            probe, again = divmod(min(block, counts.size - 1), replicates)
            if name == "n_effects":
                return f"{fit(shown(slice.probes[probe].probe.id), 12)} {f'replicate {again}' if again else 'estimate'}"
            subset = int(record.effects.subset[index])
        else:
            probe = int(record.offsets.searchsorted(index, side="right")) - 1
            subset = int(record.states_of(probe).subset[index - int(record.offsets[probe])])
        part = slice.probes[probe]
        words = " · ".join(map(shown, part.words_of(subset))) or "∅"
        return f"{fit(shown(part.probe.id), 12)} {words}"
