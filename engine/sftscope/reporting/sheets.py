"""Every view as one sheet of plain values, and a sheet as aligned text, plain lines, CSV or JSON.

For files and for screen readers: what the explorer exports and `show --plain` prints. The numbers are
those of `views`, with all their digits in CSV and JSON.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from sftscope.analysis.comparison.run_pairs import SIDES, RunDiff
from sftscope.analysis.conclusions.verdict import verdict_of
from sftscope.analysis.run.run_history import ACCURACY
from sftscope.analysis.sets.evolution import Change, Evolution
from sftscope.analysis.sets.metrics import NAN
from sftscope.analysis.sets.one_masked_state import masked_state, matching
from sftscope.analysis.sets.views import Selection, backbone, changes, orders_view, to_plain, trends
from sftscope.analysis.soft.soft_orders import soft_orders
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import csv_text, json_text, safe_text
from sftscope.lattice.transforms import Relation
from sftscope.reporting.chance_tables import preserved_in_words
from sftscope.reporting.tables import Table, as_text
from sftscope.store import StepRecord

Value = str | int | float
Key = tuple[str, str, int]  # probe id, relation, subset
Kept = Sequence[Key]
Supports = Mapping[Key, int]
SHEETS = ("trends", "changes", "orders", "backbone", "probe", "raw")
MAX_PLAIN = 200  # rows of one sheet that `show --plain` prints


@dataclass(frozen=True)
class Sheet:
    """A title and rows of values under headers; an undefined number is NaN. notes: what is no row."""

    title: str
    headers: tuple[str, ...]
    rows: Sequence[tuple[Value, ...]]
    notes: tuple[str, ...] = ()


def view_sheet(
    evolution: Evolution,
    selection: Selection,
    view: str,
    *,
    keep: Kept | None = None,
    support: Supports | None = None,
    record: StepRecord | None = None,
) -> Sheet:
    """The sheet of one view. keep: rows of changes and probe, in this order; all where None. record: for raw.

    support: of rows that it is known of (see `noise_support`); None where it was not asked for.
    """
    if view == "raw":
        return raw_sheet(evolution, record)
    builders: dict[str, Callable[[], Sheet]] = {
        "trends": lambda: _trends(evolution, selection),
        "changes": lambda: _changes(evolution, selection, keep, support),
        "orders": lambda: _orders(evolution, selection),
        "backbone": lambda: _backbone(evolution, selection),
        "probe": lambda: _probe(evolution, selection, keep, support),
    }
    if view not in builders:
        raise SftscopeError(f"unknown view {safe_text(repr(view), max_length=60)}; known are {', '.join(SHEETS)}")
    return builders[view]()


def plain_text(
    evolution: Evolution, selection: Selection, *, view: str = "all", record: StepRecord | None = None
) -> str:
    """The verdict, then one view or all of them, a value after its name, for screen readers: `show --plain`."""
    views = SHEETS if view == "all" else (view,)
    sheets = [sheet_lines(view_sheet(evolution, selection, name, record=record)) for name in views]
    return "\n".join([f"verdict: {safe_text(verdict_of(evolution).sentence)}\n", *sheets])


def compare_sheet(evolution: Evolution, diff: RunDiff, other: str) -> Sheet:
    """The sets of two runs, a row an interaction."""
    rows = []
    for at in range(diff.side.size):
        part, subset = evolution.history.probes[int(diff.probe[at])], int(diff.subset[at])
        rows.append(
            (
                SIDES[int(diff.side[at])].value,
                Relation(int(diff.relation[at])).name,
                subset.bit_count(),
                part.probe.id,
                " · ".join(part.words_of(subset)),
                float(diff.effect[at]),
                float(diff.other_effect[at]),
            )
        )
    counts = ", ".join(f"{count} {side.value}" for side, count in diff.counts.items())
    title = f"{evolution.history.name} at step {diff.step} and {other} at step {diff.other_step}"
    notes = (f"{counts}; Jaccard {diff.jaccard:.4f}, same sign {diff.same_sign:.4f} of both",)
    return Sheet(title, ("side", "relation", "order", "probe", "words", "effect here", "effect there"), rows, notes)


def raw_sheet(evolution: Evolution, record: StepRecord | None) -> Sheet:
    """The masked states of a step file: score and both effects of every subset of every probe."""
    if record is None or record.effects is None:
        raise SftscopeError("the step file is not read; choose a step that was extracted")
    rows: list[tuple[Value, ...]] = []
    for index, part in enumerate(evolution.history.probes):
        states, pairs = record.states_of(index).subset, record.pairs_of(index)
        scores = dict(zip(states.tolist(), record.scores[record.probe_slice(index)].tolist(), strict=True))
        effects: dict[tuple[int, int], float] = {}
        for relation, subset, effect in zip(pairs.relation, pairs.subset, pairs.effect, strict=True):
            effects[int(relation), int(subset)] = float(effect)
        # of sampled states: those that have a score, and those that have an effect
        for subset in sorted({*scores, *(subset for _, subset in effects)}):
            both = (effects.get((relation, subset), 0.0) for relation in Relation)
            rows.append((part.probe.id, subset, scores.get(subset, math.nan), *both))
    headers = ("probe", "subset", "score", "and_effect", "or_effect")
    return Sheet(f"step file of step {record.step}", headers, rows)


def sheet_text(sheet: Sheet) -> str:
    """Aligned columns under the title."""
    cells = [tuple(_cell(value) for value in row) for row in sheet.rows]
    left = frozenset(i for i, value in enumerate(sheet.rows[0] if sheet.rows else ()) if isinstance(value, str))
    table = as_text(Table(sheet.headers, cells, left), width=200)
    return "\n".join([safe_text(sheet.title), *map(safe_text, sheet.notes), "", table]) + "\n"


def sheet_lines(sheet: Sheet, most: int = MAX_PLAIN) -> str:
    """A row a line, every value after its name, without columns or glyphs: for screen readers and pipes."""
    lines, headers = [safe_text(sheet.title), *map(safe_text, sheet.notes)], [*map(safe_text, sheet.headers)]
    for row in sheet.rows[:most]:
        lines.append("; ".join(f"{head} {_cell(value)}" for head, value in zip(headers, row, strict=True)))
    if len(sheet.rows) > most:
        lines.append(f"and {len(sheet.rows) - most} more")
    return "\n".join(lines) + "\n"


def sheet_csv(sheet: Sheet) -> str:
    """CSV with all digits; text that a spreadsheet would take for a formula gets an apostrophe before it."""
    return csv_text([sheet.headers, *sheet.rows])


def sheet_json(sheet: Sheet) -> str:
    """The sheet as JSON: title, notes, and an object a row; an undefined number is null."""
    rows = [dict(zip(sheet.headers, row, strict=True)) for row in sheet.rows]
    return json_text(to_plain({"title": sheet.title, "notes": sheet.notes, "rows": rows}))


FORMATS: dict[str, Callable[[Sheet], str]] = {"txt": sheet_text, "csv": sheet_csv, "json": sheet_json}


def _cell(value: Value) -> str:
    if isinstance(value, float):
        return "undefined" if math.isnan(value) else f"{value:.4g}"
    return safe_text(value) if isinstance(value, str) else str(value)


def _between(evolution: Evolution, selection: Selection) -> str:
    steps = evolution.history.steps
    return f"step {int(steps[selection.now])} against step {int(steps[selection.base])}, τ {evolution.settings}"


def _trends(evolution: Evolution, selection: Selection) -> Sheet:
    over_time = trends(evolution, selection)
    soft = over_time.soft
    columns: dict[str, Sequence[Value]] = {
        "step": over_time.steps,
        "N_eff": soft.effective_mean,
        "soft removed": soft.removed_mean,
        "soft preserved": soft.preserved_mean,
        "soft emerged": soft.emerged_mean,
        "soft mean order": soft.order_mean,
        "soft turnover": soft.turnover_mean,
        "encoded": over_time.encoded_mean,
    }
    for change in Change:
        part = over_time.classes[change]
        columns |= {
            f"{change.value} count": part.count_mean,
            f"{change.value} strength": part.strength_mean,
            f"{change.value} uncancelled ratio": part.uncancelled_mean,
            f"{change.value} mean order": part.order_mean,
            f"{change.value} contribution": part.contribution_mean,
            f"{change.value} uncancelled by chance": part.uncancelled_by_chance,
            f"{change.value} z": part.z_mean,
            f"{change.value} z error": part.z_error,
        }
    columns |= {
        "preserved by chance": over_time.preserved_by_chance,
        "preserved with the same sign": over_time.same_sign.count_mean,
        "preserved with the same sign by chance": over_time.same_sign_by_chance,
        "preserved with the same sign z": over_time.same_sign.z_mean,
        "preserved with the same sign z error": over_time.same_sign.z_error,
        "turnover": over_time.turnover,
    }
    columns |= {name if name == ACCURACY else f"{name} loss": values for name, values in over_time.losses.items()}
    columns["matching error"] = over_time.matching_error_all
    columns["matching error of encoded"] = over_time.matching_error_encoded
    title = f"Trends: means over probes against step {over_time.base_step}, τ {evolution.settings}"
    return Sheet(title, tuple(columns), list(zip(*columns.values(), strict=True)), (over_time.events.sparsest.reason,))


def _changes(evolution: Evolution, selection: Selection, keep: Kept | None, support: Supports | None) -> Sheet:
    diff = changes(evolution, selection)
    rows = diff.rows
    if support:
        rows = [
            replace(row, support=support.get((row.probe, row.relation, row.subset), row.support)) for row in diff.rows
        ]
    if keep is not None:
        known = {(row.probe, row.relation, row.subset): row for row in rows}
        rows = [known[key] for key in keep if key in known]
    has_support = any(row.support is not None for row in rows)
    values = [
        (
            row.change.value,
            row.relation,
            row.order,
            row.probe,
            " · ".join(row.words),
            row.effect_base,
            row.effect_now,
            row.delta,
            "" if row.same_sign is None else "same" if row.same_sign else "flipped",
            *((NAN if row.support is None else row.support,) if has_support else ()),
        )
        for row in rows
    ]
    last = ("replicates" if support is None else "support",) if has_support else ()
    headers = (
        "change",
        "relation",
        "order",
        "probe",
        "words",
        "effect at base",
        "effect now",
        "delta",
        "sign",
        *last,
    )
    counts = ", ".join(f"{count} {change.value}" for change, count in diff.counts.items())
    chance = preserved_in_words(diff)
    notes = (counts, chance) if chance else (counts,)
    return Sheet(f"Changes: {_between(evolution, selection)}", headers, values, notes)


def _orders(evolution: Evolution, selection: Selection) -> Sheet:
    tables = [evolution.history.probes[p].table for p in selection.probes_of(evolution)]
    soft = soft_orders(tables, selection.now, selection.base)
    rows = [
        (
            change.value,
            row.order,
            row.positive_mean,
            row.negative_mean,
            row.count_mean,
            own.positive_mean,
            own.negative_mean,
        )
        for change, found in orders_view(evolution, selection).classes.items()
        for row, own in zip(found, getattr(soft, change.value), strict=True)
    ]
    headers = ("class", "order", "positive effects", "negative effects", "count", "positive share", "negative share")
    base = int(evolution.history.steps[selection.base])
    notes = (f"shares: of the strength at step {base}, whatever the threshold",)
    return Sheet(f"Orders: {_between(evolution, selection)}, means over probes", headers, rows, notes)


def _backbone(evolution: Evolution, selection: Selection) -> Sheet:
    view = backbone(evolution, selection)
    rows = [
        (row.name, step, row.cross_entropy_without_bias[at], row.cross_entropy[at])
        for row in view.rows
        for at, step in enumerate(view.steps)
    ]
    headers = ("with only", "step", "cross-entropy without bias", "with bias")
    notes = (view.note,) if view.note else ()
    return Sheet(f"Backbone: against step {view.base_step}, τ {evolution.settings}, nats", headers, rows, notes)


def _probe(evolution: Evolution, selection: Selection, keep: Kept | None, support: Supports | None) -> Sheet:
    index = selection.probe or 0
    part = evolution.history.probes[index]
    whole = masked_state(evolution, index, selection.now, (1 << part.n_variables) - 1)
    errors = matching(evolution, index, selection.now)
    notes = (
        safe_text(part.probe.text),
        f"words: {' · '.join(part.probe.variables)}",
        f"scored: {part.target_name}",
        *filter(None, [part.probe.influence_in_words]),
        f"all words: v {whole.score:.4g}, h {whole.model:.4g}; none: b {float(part.bias[selection.now]):.4g}",
        f"matching error: {errors.all:.4g} with all interactions, "
        f"{errors.encoded:.4g} with the {errors.n_encoded} encoded",
    )
    chosen = Selection(selection.now, selection.base, index)
    sheet = _changes(evolution, chosen, keep, support)
    return Sheet(f"Probe {part.probe.id}: {_between(evolution, selection)}", sheet.headers, sheet.rows, notes)
