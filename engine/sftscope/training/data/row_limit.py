"""How many tokens a training row may have: the cutoff of the settings, and no more than the positions learned."""

from collections.abc import Sequence
from typing import Any

from sftscope.compat.positions import Positions
from sftscope.foundation.safe_text import safe_text
from sftscope.llm.prompting.prompts import Template
from sftscope.training.data.examples import make_examples
from sftscope.training.data.shapes import Row


def row_limit(cutoff: int, positions: Positions) -> int:
    """Tokens of a row at most. positions: of the model that is trained."""
    return min(cutoff, positions.limit) if positions.learned and positions.limit is not None else cutoff


def row_warnings(
    rows: Sequence[Row], tokenizer: Any, template: Template, *, cutoff: int, positions: Positions
) -> list[str]:
    """One line where rows are longer than the positions of the model, which cut them or are left behind.

    Only rows with more bytes than the model has positions are tokenised: no token is less than a byte.
    """
    limit = positions.limit
    if limit is None or limit >= cutoff:
        return []
    spare = limit - len(make_examples([Row("u", "", "a")], tokenizer, template, cutoff=cutoff)[0].input_ids)
    long = [row for row in rows if row.history or row.system or len((row.prompt + row.response).encode()) > spare]
    lengths = [len(example.input_ids) for example in make_examples(long, tokenizer, template, cutoff=cutoff)]
    over = [(length, row.where) for length, row in zip(lengths, long, strict=True) if length > limit]
    if not over:
        return []
    length, where = over[0]
    place = f"{safe_text(where, max_length=200)}, has {length}" if where else f"has {length}"
    what = (
        f"has learned {limit} positions ({positions.field}): they are cut there, as by [training] cutoff"
        if positions.learned
        else f"is made for {limit} positions ({positions.field}): what it learns beyond them may mean little; lower "
        "[training] cutoff"
    )
    return [f"{len(over):,} of {len(rows):,} rows are too long (the first, {place} tokens): the model {what}"]
