"""Rows of a training that others do, as the model read them: what a trainer holds, or what its data file shows.

What cannot be seen is left out: a row whose shape does not say how it was wrapped.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sftscope.foundation.errors import NotReadError, SftscopeError

FEW = 8  # rows that are looked at
_MASKS = ("completion_mask", "assistant_masks")  # of TRL: 1 where a token is trained
_IGNORED = -100


@dataclass(frozen=True)
class TrainedRow:
    """One row as tokens. trained_from: place of the first token that is trained; None where that is not known."""

    ids: tuple[int, ...]
    trained_from: int | None = None


def rows_of_trainer(trainer: Any, tokenizer: Any) -> list[TrainedRow]:
    """The first rows of `trainer.train_dataset`; none where it has no places, as a stream, which reading would move."""
    dataset: Any = getattr(trainer, "train_dataset", None)
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        return []
    field = str(getattr(trainer.args, "dataset_text_field", None) or "text")
    return _rows((dataset[number] for number in range(min(FEW, len(dataset)))), tokenizer, field)


def rows_of_file(file: str, tokenizer: Any) -> list[TrainedRow]:
    """The first rows of a data file, or of a data set of the hub, as TRL wraps them."""
    from sftscope.training.data.sources import Source, records

    source = Source(file, split="" if Path(file).is_file() else "train")
    return _rows((record for _, record in islice(records(source), FEW)), tokenizer, "text")


def _rows(records: Iterator[Any], tokenizer: Any, text_field: str) -> list[TrainedRow]:
    found = [_row(record, tokenizer, text_field) for record in records if isinstance(record, Mapping)]
    return [row for row in found if row is not None and row.ids]


def _row(record: Mapping[str, Any], tokenizer: Any, text_field: str) -> TrainedRow | None:
    if "input_ids" in record:
        return _tokenised(record, tokenizer)
    if isinstance(text := record.get(text_field), str):
        return TrainedRow(tuple(tokenizer(text)["input_ids"]))
    if "prompt" in record and "completion" in record:
        return _pair(record["prompt"], record["completion"], tokenizer)
    if isinstance(turns := record.get("messages"), list):
        return _rendered(turns, tokenizer, generate=False)
    return None


def _tokenised(record: Mapping[str, Any], tokenizer: Any) -> TrainedRow:
    """Without padding; of several examples packed into one row the first."""
    ids = [int(token) for token in record["input_ids"]]
    seen = [int(flag) for flag in record.get("attention_mask", ())]
    kept = [place for place in range(len(ids)) if len(seen) != len(ids) or seen[place]]
    while kept and len(seen) != len(ids) and ids[kept[-1]] == tokenizer.pad_token_id:
        kept.pop()
    if lengths := record.get("seq_lengths"):
        kept = kept[: int(lengths[0])]
    trained = [place for place in kept if _is_trained(record, place)]
    known = trained and kept.index(trained[0]) > 0  # else the prompt is trained too
    return TrainedRow(tuple(ids[place] for place in kept), kept.index(trained[0]) if known else None)


def _is_trained(record: Mapping[str, Any], place: int) -> bool:
    if len(record.get("labels") or ()) > place and int(record["labels"][place]) == _IGNORED:
        return False
    return all(int(record[mask][place]) for mask in _MASKS if len(record.get(mask) or ()) > place)


def _pair(prompt: Any, completion: Any, tokenizer: Any) -> TrainedRow | None:
    """Texts are trained one after the other, without a frame; turns in the chat template."""
    if isinstance(prompt, str) and isinstance(completion, str):
        start = len(tokenizer(prompt)["input_ids"])
        return TrainedRow(tuple(tokenizer(prompt + completion)["input_ids"]), start)
    if isinstance(prompt, list):
        return _rendered(prompt, tokenizer, generate=True)
    return None


def _rendered(turns: Sequence[Any], tokenizer: Any, *, generate: bool) -> TrainedRow | None:
    from sftscope.llm.prompting.template_sandbox import render

    if not tokenizer.chat_template:
        return None
    try:
        text = render(tokenizer, [dict(turn) for turn in turns], generate=generate)
    except NotReadError:
        raise
    except (SftscopeError, TypeError, ValueError):  # of another shape: nothing is known of it
        return None
    return TrainedRow(tuple(tokenizer(text, add_special_tokens=False)["input_ids"]))
