"""The texts that dialogs show: the help, one interaction in full, the step files that were left out."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from rich.style import Style
from rich.text import Text

from sftscope.analysis.conclusions.verdict import Verdict
from sftscope.analysis.sets.evolution import CLASS_WORDS, Evolution
from sftscope.analysis.sets.set_diff import CHANGES
from sftscope.analysis.trust.sensitivity import SensitivityRow
from sftscope.foundation.safe_text import first_of_each_kind
from sftscope.lattice.transforms import Relation
from sftscope_tui.contents.change_table import ChangeTable
from sftscope_tui.drawing.numbers import plain, signed, small
from sftscope_tui.drawing.palette import CLASS_GLYPHS, Glyphs, Inks
from sftscope_tui.drawing.safe_lines import shown
from sftscope_tui.state.keys import FILTER_HELP, KEYS
from sftscope_tui.widgets.mirrored_bars import mirrored_bar

_SIDE = 12


def help_text(inks: Inks) -> Text:
    """Every key with what it does, and what the signs mean."""
    text = Text()
    for group, rows in groupby(KEYS, key=lambda row: row.group):
        text.append(f"{group}\n", inks.strong)
        for row in rows:
            text.append(f"  {row.shown:<11}", inks.preserved)
            text.append(f"{row.help}\n")
    text.append("Signs\n", inks.strong)
    for change in CHANGES:
        text.append(f"  {CLASS_GLYPHS[change]} {CLASS_WORDS[change]:<15}", inks.of(change))
    text.append("\n  filled: positive effect   dotted, hollow: negative   reversed: the present step\n")
    text.append("Filter\n", inks.strong)
    text.append(f"  every term must match: {FILTER_HELP}")
    return text


def problems_text(left_out: Sequence[str], inks: Inks) -> Text:
    """The step files that could not be used, and why."""
    if not left_out:
        return Text("Every step file of this run was read.")
    text = Text(f"{len(left_out)} step files are left out:\n", inks.strong)
    for reason in first_of_each_kind(left_out):
        text.append(f"\n{shown(reason)}\n", inks.error)
    return text


def verdict_text(verdict: Verdict, inks: Inks) -> Text:
    """When to stop, and why."""
    text = Text(f"{shown(verdict.sentence)}\n", inks.strong)
    for line in verdict.evidence:
        text.append(f"\n• {shown(line)}\n")
    return text


def sensitivity_text(rows: Sequence[SensitivityRow], inks: Inks) -> Text:
    """Where every threshold rule has the fewest interactions, and the mean counts per probe at the last step."""
    text = Text(f"{'rule':<29}{'fewest':>7}   per probe, at the last step\n", inks.muted)
    for row in rows:
        name = f"{row.rule}{' (chosen)' if row.chosen else ''}"
        text.append(f"{name:<29}", inks.strong if row.chosen else inks.plain)
        text.append(f"{f'at {row.fewest.step}' if row.fewest.step is not None else '–':>7}  ")
        for change in CHANGES:
            text.append(f" {CLASS_GLYPHS[change]}{plain(row.at_last[change]):>6}", inks.of(change))
        text.append("\n")
    if rows and (number := rows[0].number) is not None:
        sparsest = f"{plain(number.at_sparsest)} at step {number.sparsest_step}"
        text.append(f"\nN_eff, which no rule changes: {plain(number.at_base)} at the base step, {sparsest}, ")
        text.append(f"{plain(number.at_last)} at the last\n")
    text.append("\nt changes the rule and its value; distrust a conclusion that holds under one rule only.", inks.muted)
    return text


def full_row_text(
    evolution: Evolution, table: ChangeTable, row: int, now: int, base: int, inks: Inks, glyphs: Glyphs
) -> Text:
    """One interaction: its words, its probe, and its effect at every step with τ."""
    index, relation, subset = table.identity(row)
    part, change = table.probes[index], CHANGES[int(table.change[row])]
    series, tau = table.series(row), evolution.tau[index]
    text = Text()
    text.append(f"{CLASS_GLYPHS[change]} {CLASS_WORDS[change]}", inks.of(change) + inks.strong)
    text.append(f"   {Relation(relation).name}, order {int(table.order[row])}\n")
    text.append(" · ".join(table.words(row)) + "\n\n", inks.strong)
    text.append(f"probe {shown(part.probe.id)}  ", inks.muted)
    text.append_text(_prompt_with_words(part.probe.text, part.probe.words, subset, inks))
    text.append(f"\nscored {shown(part.target_name)}\n", inks.muted)
    before, after = float(series[base]), float(series[now])
    text.append(f"\nstep {table.base_step} {signed(before)}   step {table.step} {signed(after)}")
    text.append(f"   Δ {signed(after - before)}\n", inks.strong)
    if (count := int(table.support[row])) >= 0:
        whose = "replicates of the estimate" if part.is_estimated else "noisy copies of the scores"
        text.append(f"in this class in {count} of {table.agreeing(row)} {whose}\n", inks.muted)
    text.append("\n")
    text.append(f"{'step':>9}{'effect':>9}{'τ':>8}   − {' ' * (2 * _SIDE - 5)} +\n", inks.muted)
    scale = float(np.abs(series).max())
    for at, step in enumerate(evolution.history.steps):
        value = float(series[at])
        over = abs(value) > tau[at]
        style = Style(reverse=True) if at == now else Style(dim=not over)
        text.append(f"{int(step):>9}{signed(value):>9}{small(float(tau[at])):>8}", style)
        text.append("   ")
        for piece, ink in mirrored_bar(min(value, 0), max(value, 0), scale, _SIDE, inks.of(change), glyphs):
            text.append(piece, ink)
        text.append("  counts\n" if over else "  below τ\n", inks.muted)
    return text


def _prompt_with_words(prompt: str, spans: Sequence[tuple[int, int]], subset: int, inks: Inks, most: int = 600) -> Text:
    """The probe's text, the words of `subset` in reverse video and its other variables underlined."""
    text, at = Text(), 0
    for i, (start, end) in enumerate(spans):
        text.append(shown(prompt[at:start], most), inks.muted)
        lit = Style(reverse=True) if subset >> i & 1 else Style(underline=True)
        text.append(shown(prompt[start:end]), lit)
        at = end
    text.append(shown(prompt[at:], most), inks.muted)
    return text
