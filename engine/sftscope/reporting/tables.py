"""The views as tables of cells, and a table as plain text or as Markdown.

`show` and `report` print the same tables; a cell holds text as it came, and is made safe by the
renderer that knows where it goes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from sftscope.analysis.conclusions.online_verdict import Said
from sftscope.analysis.conclusions.paper_findings import Finding, Holds
from sftscope.analysis.run.run_history import ACCURACY, LOSSES
from sftscope.analysis.sets.evolution import CLASS_WORDS, Change
from sftscope.analysis.sets.views import Backbone, ChangeRow, Orders, Trends
from sftscope.analysis.trust.certificates import CERTIFIED_GAP, Quality
from sftscope.analysis.trust.estimate_intervals import ENCODED, MOST_MORE, EstimateView
from sftscope.analysis.trust.placebo import PlaceboDiff
from sftscope.analysis.trust.sensitivity import SensitivityRow
from sftscope.analysis.trust.solver_residue import SolverResidue
from sftscope.foundation.safe_text import markdown_cell, safe_text

GLYPHS = {Change.REMOVED: "−", Change.PRESERVED: "=", Change.EMERGED: "+"}
_HOLDS = {Holds.YES: "✓", Holds.NO: "✗", Holds.UNDECIDED: "?"}
UNDEFINED = "–"
MAX_WIDTH = 100
MAX_LISTED = 12  # steps in one cell


@dataclass(frozen=True)
class Table:
    """Rows of text under headers; columns in `left` are aligned left, all others right."""

    headers: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    left: frozenset[int] = frozenset()


def as_text(table: Table, *, width: int = MAX_WIDTH) -> str:
    """The table in columns two spaces apart; the last column is cut where a line would exceed `width`."""
    cells = [tuple(safe_text(cell) for cell in row) for row in [table.headers, *table.rows]]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    before = sum(widths[:-1]) + 2 * (len(widths) - 1)
    widths[-1] = max(min(widths[-1], width - before), min(widths[-1], 12))
    fitted = [tuple(_fit(cell, size) for cell, size in zip(row, widths, strict=True)) for row in cells]
    return "\n".join("  ".join(row).rstrip() for row in _padded(fitted, widths, table.left))


def as_markdown(table: Table) -> str:
    """The table in the pipe form of GitHub's Markdown, padded so that its source can be read."""
    cells = [tuple(markdown_cell(cell) for cell in row) for row in [table.headers, *table.rows]]
    widths = [max(3, *map(cell_len, column)) for column in zip(*cells, strict=True)]
    rule = [":" + "-" * (size - 1) if i in table.left else "-" * (size - 1) + ":" for i, size in enumerate(widths)]
    head, *rows = _padded(cells, widths, table.left)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def _padded(rows: Sequence[tuple[str, ...]], widths: Sequence[int], left: frozenset[int]) -> list[list[str]]:
    """The cells filled with spaces to the widths of their columns."""
    filled = []
    for row in rows:
        spaces = [" " * (size - cell_len(cell)) for cell, size in zip(row, widths, strict=True)]
        cells = zip(row, spaces, strict=True)
        filled.append([cell + space if i in left else space + cell for i, (cell, space) in enumerate(cells)])
    return filled


def number(value: float | None, digits: int = 2) -> str:
    """A number with fixed digits; a dash where it is undefined."""
    return UNDEFINED if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def signed(value: float) -> str:
    """An effect with its sign; zero has none."""
    return UNDEFINED if not math.isfinite(value) else f"{value:+.2f}" if round(value, 2) else "0.00"


def small(value: float) -> str:
    """A number of unknown size in three digits."""
    return f"{value:.2e}" if math.isfinite(value) else UNDEFINED


def spread(length: int, keep: Sequence[int], limit: int) -> list[int]:
    """At most about `limit` of the indices 0…length-1, evenly spread, with all of `keep` among them."""
    if length <= limit:
        return list(range(length))
    free = max(2, limit - len(set(keep)))
    even = {round(i * (length - 1) / (free - 1)) for i in range(free)}
    return sorted(even.union(keep))


def soft_table(trends: Trends, indices: Sequence[int], notes: Mapping[int, str]) -> Table:
    """What needs no threshold at the steps `indices`, with losses and accuracy."""
    soft, losses = trends.soft, [name for name in (*LOSSES, ACCURACY) if name in trends.losses]
    columns = {
        "N_eff": (soft.effective_mean, 1),
        "− removed": (soft.removed_mean, 2),
        "= preserved": (soft.preserved_mean, 2),
        "+ emerged": (soft.emerged_mean, 2),
        "order": (soft.order_mean, 2),
        "turnover": (soft.turnover_mean, 2),
        **{name: (trends.losses[name], 3) for name in losses},
    }
    rows = [
        (str(trends.steps[t]), *(number(values[t], digits) for values, digits in columns.values()), notes.get(t, ""))
        for t in indices
    ]
    return Table(("step", *columns, ""), rows, frozenset([len(columns) + 1]))


def trends_table(trends: Trends, indices: Sequence[int], notes: Mapping[int, str]) -> Table:
    """Counts, strengths and uncancelled ratios of the classes at the steps `indices`, with losses and accuracy."""
    losses = [name for name in (*LOSSES, ACCURACY) if name in trends.losses]
    headers = ["step", "all"]
    for change in Change:
        headers += [f"{GLYPHS[change]} n", f"{GLYPHS[change]} Σ|I|", f"{GLYPHS[change]} γu"]
    rows = []
    for t in indices:
        row = [str(trends.steps[t]), number(trends.encoded_mean[t], 1)]
        for change in Change:
            point = trends.classes[change]
            row += [
                number(point.count_mean[t], 1),
                number(point.strength_mean[t]),
                number(point.uncancelled_mean[t]),
            ]
        rows.append((*row, *(number(trends.losses[name][t], 3) for name in losses), notes.get(t, "")))
    return Table((*headers, *losses, ""), rows, frozenset([len(headers) + len(losses)]))


def estimate_table(view: EstimateView, indices: Sequence[int]) -> Table:
    """R² of what was held out, and the intervals of the mean counts, at the steps `indices`."""
    headers = ["step", "R², mean", "R², least"]
    names = [name for name in (ENCODED, *Change) if name in view.intervals]
    headers += [f"{GLYPHS[name]} n" if isinstance(name, Change) else name for name in names]
    rows = []
    for t in indices:
        spans = [view.intervals[name][t] for name in names]
        cells = [f"{number(low, 1)}–{number(high, 1)}" for low, high in spans]
        rows.append((str(view.steps[t]), number(view.r2_mean[t], 4), number(view.r2_least[t], 4), *cells))
    return Table(tuple(headers), rows)


def estimate_lines(view: EstimateView) -> list[str]:
    """What the table of an estimate means, and where its states were held out."""
    errors = ", ".join(number(value) for value in view.error)
    intervals = (
        f" Intervals of mean counts (about 90 %) cover the spread of {view.replicates} replicates from resampled "
        f"masked states, chance, and, upwards, what up to {MOST_MORE:g} times the states would likely show. Next to an "
        "interaction: how many of the replicates agree on its class."
    )
    return [
        f"{view.held_out} masked states were held out.{intervals if view.replicates else ''}",
        f"Matching error of held-out states at step {view.step} with up to ¼, ½, ¾, all of the words: {errors}.",
    ]


def changes_table(rows: Sequence[ChangeRow], base_step: int, step: int, *, with_probe: bool = True) -> Table:
    """Interactions with their words, effects at both steps, and what became of them; of estimates, who agrees."""
    probe = ("probe",) if with_probe else ()
    support = ("replicates",) if any(row.support is not None for row in rows) else ()
    headers = ("change", "relation", "order", f"effect {base_step}", f"effect {step}", *support, *probe, "words")
    cells = [
        (
            f"{GLYPHS[row.change]} {row.change.value}{', sign flipped' if row.same_sign is False else ''}",
            row.relation,
            str(row.order),
            signed(row.effect_base),
            signed(row.effect_now),
            *((UNDEFINED if row.support is None else str(row.support),) if support else ()),
            *((safe_text(row.probe, max_length=24),) if with_probe else ()),
            " · ".join(row.words),
        )
        for row in rows
    ]
    last = len(headers) - 1
    return Table(headers, cells, frozenset([0, 1, last, *([last - 1] if with_probe else [])]))


def orders_table(orders: Orders) -> Table:
    """Order distributions: Σ of positive effects, Σ of negative effects and count, for each class."""
    headers = ["order"]
    for change in Change:
        headers += [f"{GLYPHS[change]} Σ+", f"{GLYPHS[change]} Σ-", f"{GLYPHS[change]} n"]
    rows = []
    for position, first in enumerate(orders.classes[Change.REMOVED]):
        row = [str(first.order)]
        for change in Change:
            at = orders.classes[change][position]
            row += [signed(at.positive_mean), signed(at.negative_mean), number(at.count_mean, 1)]
        rows.append(tuple(row))
    return Table(tuple(headers), rows)


def backbone_table(backbone: Backbone, indices: Sequence[int]) -> Table:
    """Cross-entropy of each set alone at the steps `indices`, without the bias and with it."""
    headers = ["with only"]
    headers += [f"step {backbone.steps[t]}" for t in indices]
    headers += [f"{backbone.steps[t]} with b" for t in indices]
    rows = [
        (
            row.name,
            *(number(row.cross_entropy_without_bias[t], 3) for t in indices),
            *(number(row.cross_entropy[t], 3) for t in indices),
        )
        for row in backbone.rows
    ]
    return Table(tuple(headers), rows, frozenset([0]))


def quality_table(quality: Quality, trends: Trends) -> Table:
    """The worst certificate, noise, ζ, mismatch and matching error of a run."""
    gap = max(range(len(quality.steps)), key=lambda t: _undefined_first(quality.gap_max[t]))
    measured = [t for t in range(len(quality.steps)) if math.isfinite(quality.noise_max[t])]
    noise = max(measured, key=lambda t: quality.noise_max[t], default=None)
    errors = [(error, t) for t, error in enumerate(trends.matching_error_all) if math.isfinite(error)]
    error, at = max(errors, default=(math.nan, 0))
    rows = [
        ("largest certified relative gap", small(quality.gap_max[gap]), f"at step {quality.steps[gap]}"),
        ("steps without a certificate", str(len(quality.uncertified)), f"gap above {CERTIFIED_GAP:g}: not final"),
        ("largest noise σ of a score", UNDEFINED, "not measured")
        if noise is None
        else (
            "largest noise σ of a score",
            small(quality.noise_max[noise]),
            f"at step {quality.steps[noise]}",
        ),
        ("noise bound ζ, lowest", small(quality.zeta_low), "log-odds"),
        ("noise bound ζ, highest", small(quality.zeta_high), "log-odds"),
        ("largest |h − v| as a share of ζ", number(quality.mismatch_max, 3), "at most 1.001: universal matching"),
        (
            "largest matching error, all interactions",
            small(error),
            f"at step {quality.steps[at]}, mean over probes",
        ),
        ("above τ but below the noise floor", str(sum(quality.below_noise)), _by_step(quality)),
    ]
    return Table(("quality", "value", ""), rows, frozenset([0, 2]))


def placebo_table(diffs: Sequence[PlaceboDiff]) -> Table:
    """Each placebo's counts under those of the same step against the base step."""
    headers = ("", *(f"{GLYPHS[change]} {name}" for change, name in CLASS_WORDS.items()), "Jaccard", "noise σ")
    rows = []
    for diff in diffs:
        real = [str(diff.real[change]) for change in Change]
        again = [str(diff.counts[change]) for change in Change]
        rows.append((f"step {diff.step} against step {diff.base_step}", *real, number(diff.real_jaccard, 3), ""))
        title = f"step {diff.step} against itself (placebo)"
        rows.append((title, *again, number(diff.jaccard, 3), small(diff.noise_max)))
    return Table(headers, rows, frozenset([0]))


def _by_step(quality: Quality) -> str:
    """At which steps interactions fell below the noise floor, and how many."""
    found = [f"{count} at step {step}" for step, count in zip(quality.steps, quality.below_noise, strict=True) if count]
    if not found:
        return "at every step; not counted as encoded"
    rest = f", … at {len(found) - MAX_LISTED} more" if len(found) > MAX_LISTED else ""
    return f"not counted: {', '.join(found[:MAX_LISTED])}{rest}"


def as_it_went_table(said: Sequence[Said]) -> Table:
    """What could be said at each step, with the held-out loss and accuracy there."""
    with_accuracy = any(not math.isnan(part.accuracy) for part in said)
    rows = [
        (
            str(part.step),
            number(part.eval_loss, 3),
            *((number(part.accuracy, 3),) if with_accuracy else ()),
            part.verdict.sentence,
        )
        for part in said
    ]
    headers = ("step", "eval", *(("accuracy",) if with_accuracy else ()), "what could be said then")
    return Table(headers, rows, frozenset([len(headers) - 1]))


def residue_table(rows: Sequence[SolverResidue]) -> Table:
    """Encoded interactions of the certified decomposition and of the plain descent."""
    headers = ("step", "certified", "descent", "only by descent", "only certified", "Σ|I| too large by")
    cells = [
        (
            str(row.step),
            *(number(value, 1) for value in (row.encoded, row.by_descent, row.residue, row.missed)),
            f"{row.excess:.0%}",
        )
        for row in rows
    ]
    return Table(headers, cells, frozenset())


def sensitivity_table(rows: Sequence[SensitivityRow]) -> Table:
    """The headline counts under every threshold rule, and in other decompositions where they were tried."""
    headers = ["rule", "fewest at", "findings"]
    for place in ("sparsest step", "last step"):
        headers += [f"{GLYPHS[change]} n, {place}" for change in Change]
    cells = [
        (
            f"{row.rule}{' (chosen)' if row.chosen else ''}{f', {row.tried}' if row.tried else ''}",
            UNDEFINED if row.fewest.step is None else f"step {row.fewest.step}",
            " ".join(_HOLDS[found] for found in row.findings),
            *(number(row.at_sparsest.get(change), 1) for change in Change),
            *(number(row.at_last[change], 1) for change in Change),
        )
        for row in rows
    ]
    return Table(tuple(headers), cells, frozenset([0, 1, 2]))


def number_table(rows: Sequence[SensitivityRow]) -> Table:
    """N_eff of the stored decomposition, and of the others where they were tried."""
    shown = [row for row in rows if (row.chosen or row.tried) and row.number is not None]
    cells = [
        (
            row.tried or "as stored",
            str(row.number.sparsest_step),
            *(number(value, 1) for value in (row.number.at_base, row.number.at_sparsest, row.number.at_last)),
            *(number(ratio.mean) for ratio in (row.number.fall, row.number.growth, row.number.beyond)),
        )
        for row in shown
        if row.number is not None
    ]
    headers = ("decomposition", "sparsest step", "N_eff, base", "sparsest", "last")
    return Table((*headers, "base / sparsest", "last / sparsest", "last / base"), cells, frozenset([0]))


def findings_table(findings: Sequence[Finding]) -> Table:
    """The paper's findings with the numbers of this run."""
    rows = [(str(found.number), found.claim, found.holds.value, found.numbers) for found in findings]
    return Table(("", "finding of the paper", "this run", "numbers, means over probes"), rows, frozenset([0, 1, 2, 3]))


def _undefined_first(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _fit(text: str, width: int) -> str:
    """`text` cut to `width` cells, with an ellipsis where it was cut."""
    if cell_len(text) <= width:
        return text
    while text and cell_len(text) > width - 1:
        text = text[:-1]
    return text + "…"
