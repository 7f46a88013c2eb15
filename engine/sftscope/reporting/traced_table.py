"""The training rows behind the strongest newly emerged interactions, as a document and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftscope.analysis.rows.row_index import RowIndex
from sftscope.analysis.rows.traced_rows import TracedRows, answered_first, carried_by, trace
from sftscope.analysis.run.run_history import RunHistory
from sftscope.analysis.sets.evolution import Change
from sftscope.analysis.sets.views import ChangeRow, Changes, to_plain
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.reporting.document import Block, Heading, Listing, Text
from sftscope.reporting.tables import UNDEFINED, Table, signed

SCHEMA = "sftscope-rows"
VERSION = 1
SHOWN_ROWS = 3  # of each interaction
_ANSWERS = 3  # of each interaction
_PLAIN_ANSWERS = 10  # the same in JSON: free text has as many answers as rows
REPORTED_ROWS = 100  # of each interaction in report.json, which would else have the numbers of most rows, often
_TEXT = 160  # characters of a row
LEGEND = (
    "rows: training rows with all words (AND) or any (OR); by chance: how many there would be if words fell "
    "independently. answer: how many of these rows have the probe's answer; by chance: as many rows drawn at random "
    "would have; p: of at least as many by chance, for one interaction looked at alone."
)


@dataclass(frozen=True, eq=False)
class Traced:
    """An interaction, the probe's answer, and the rows behind it.

    losses: mean loss of these rows at the base step and now, nats a token; None where it was not measured.
    """

    row: ChangeRow
    response: str
    rows: TracedRows
    losses: tuple[float, float] | None = None


def trace_strongest(history: RunHistory, diff: Changes, index: RowIndex, most: int) -> list[Traced]:
    """The `most` strongest newly emerged interactions of a diff with their rows, strongest first."""
    responses = {part.probe.id: part.probe.response for part in history.probes}
    emerged = [row for row in diff.rows if row.change is Change.EMERGED][:most]
    return [
        Traced(row, responses[row.probe], trace(index, row.words, row.relation, responses[row.probe]))
        for row in emerged
    ]


def with_losses(traced: Sequence[Traced], places: Sequence[int], losses: NDArray[np.float64]) -> list[Traced]:
    """The same with the losses (2, R), at the base step and now, of the training rows at R `places`."""
    column = {place: number for number, place in enumerate(places)}
    found = []
    for part in traced:
        own = [column[place] for place in part.rows.places.tolist()]
        before, after = losses[:, own].mean(axis=1).tolist() if own else (float("nan"), float("nan"))
        found.append(replace(part, losses=(before, after)))
    return found


def traced_blocks(diff: Changes, traced: Sequence[Traced], index: RowIndex) -> list[Block]:
    """What `sftscope rows` prints."""
    title = f"Training rows behind what emerged: step {diff.base_step} → {diff.step}; {len(index.rows)} rows"
    if not traced:
        return [Heading(title), Text("Nothing newly emerged.")]
    return [Heading(title), *traced_body(traced, index)]


def traced_body(traced: Sequence[Traced], index: RowIndex) -> list[Block]:
    """The table and the first rows of each interaction, without a heading. traced: at least one."""
    return [
        Text(LEGEND),
        traced_table(traced),
        *(block for number, part in enumerate(traced, start=1) for block in _rows_of(number, part, index)),
    ]


def traced_table(traced: Sequence[Traced]) -> Table:
    """One line an interaction: its rows, how many have the probe's answer, and what chance would give."""
    headers = ("", "effect", "relation", "rows", "by chance", "answer", "by chance", "p", "probe's answer", "words")
    cells = [
        (
            str(number),
            signed(part.row.effect_now),
            part.row.relation,
            str(part.rows.places.size),
            f"{part.rows.expected:.1f}" if len(part.row.words) > 1 else UNDEFINED,
            str(part.rows.answered) if part.rows.answered_expected else UNDEFINED,
            f"{part.rows.answered_expected:.1f}" if part.rows.answered_expected else UNDEFINED,
            f"{part.rows.p_value:.2g}" if part.rows.answered_expected else UNDEFINED,
            safe_text(part.response, max_length=24),
            " · ".join(part.row.words),
        )
        for number, part in enumerate(traced, start=1)
    ]
    return Table(headers, cells, frozenset([2, 8, 9]))


def which_words(order: int, relation: str) -> str:
    """What the rows behind an interaction of `order` words have. relation: the name of a Relation."""
    return "this word" if order == 1 else "all of these words" if relation == "AND" else "any of these words"


def row_blocks(index: RowIndex, number: int, diff: Changes) -> list[Block]:
    """The newly emerged interactions that training row `number` (from 1) carries."""
    if not 1 <= number <= len(index.rows):
        raise SftscopeError(f"--row {number}: expected 1 to {len(index.rows)}, the number of training rows")
    carried = carried_by(index, number - 1, diff.rows)
    cells = [
        (signed(row.effect_now), row.relation, safe_text(row.probe, max_length=24), " · ".join(row.words))
        for row in carried
    ]
    return [
        Heading(f"Newly emerged interactions, step {diff.base_step} → {diff.step}, that a training row carries"),
        Text(_line(index, number - 1)),
        Table(("effect", "relation", "probe", "words"), cells, frozenset([1, 2, 3])) if cells else Text("None."),
    ]


def traced_json(diff: Changes, traced: Sequence[Traced], index: RowIndex) -> dict[str, Any]:
    """The same as plain values; `rows` are numbers of training rows, from 1."""
    return {"schema": SCHEMA, "version": VERSION, **traced_fields(diff, traced, index)}


def traced_fields(
    diff: Changes, traced: Sequence[Traced], index: RowIndex, *, most: int | None = None
) -> dict[str, Any]:
    """The same without what names the form. most: row numbers of each interaction at most; None: all."""
    return {
        "step": diff.step,
        "base_step": diff.base_step,
        "n_rows": len(index.rows),
        "interactions": [
            {
                "probe": part.row.probe,
                "relation": part.row.relation,
                "words": list(part.row.words),
                "effect_base": part.row.effect_base,
                "effect_now": part.row.effect_now,
                "response": part.response,
                "row_count": int(part.rows.places.size),
                "rows": [place + 1 for place in part.rows.places[:most].tolist()],
                "rows_expected": part.rows.expected,
                "answered": part.rows.answered,
                "answered_expected": part.rows.answered_expected,
                "lift": None if isnan(part.rows.lift) else part.rows.lift,
                "p_value": part.rows.p_value,
                "answers": to_plain(part.rows.answers[:_PLAIN_ANSWERS]),
                "loss_base": to_plain(part.losses[0]) if part.losses else None,
                "loss_now": to_plain(part.losses[1]) if part.losses else None,
            }
            for part in traced
        ],
    }


def _rows_of(number: int, part: Traced, index: RowIndex) -> list[Block]:
    places = answered_first(index, part.rows.places, part.response)
    first = places[:SHOWN_ROWS]
    more = len(places) - len(first)
    answers = ", ".join(
        f"{safe_text(each.answer, max_length=30)} {each.count} of {each.in_all}"
        for each in part.rows.answers[:_ANSWERS]
    )
    return [
        Text(f"{number}. {' · '.join(part.row.words)} → {safe_text(part.response, max_length=60)}"),
        Listing(
            [
                *(
                    [f"mean loss: {part.losses[0]:.3f} → {part.losses[1]:.3f} nats a token"]
                    if part.losses and places
                    else []
                ),
                *([f"answers: {answers}{', …' if len(part.rows.answers) > _ANSWERS else ''}"] if answers else []),
                *(_line(index, place) for place in first),
                *([f"… and {more} more"] if more > 0 else []),
                *([] if places else [f"no training row has {which_words(len(part.row.words), part.row.relation)}"]),
            ]
        ),
    ]


def _line(index: RowIndex, place: int) -> str:
    row = index.rows[place]
    text, answer = safe_text(row.input or row.instruction, max_length=_TEXT), safe_text(row.response, max_length=60)
    return f"row {place + 1}: {text} → {answer}"
