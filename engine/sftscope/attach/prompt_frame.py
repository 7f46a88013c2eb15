"""Whether the probes are asked as the training asked: a probe is shown, and its frame compared with training rows.

The frame is what stands before and after the user's message. A model is scored in silence on a prompt that it was never
trained on wherever the training did not use the chat template; only its rows show that.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from sftscope.attach.training_rows import TrainedRow
from sftscope.foundation.progress import say
from sftscope.foundation.safe_text import safe_text
from sftscope.inputs.settings import ModelSettings
from sftscope.store import RunFolder

_SHOWN = 160  # characters of a text in a message
_MESSAGE = 60
_DISTINCT = 3  # prompts that are needed to know what they share
_BY_CHANCE, _BY_CHANCE_AT_END = 4, 2  # tokens that three messages do not share by chance


@dataclass(frozen=True)
class Frame:
    """A probe's prompt as ids: before its message, the message, and after it."""

    before: tuple[int, ...]
    message: tuple[int, ...]
    after: tuple[int, ...]


def show_frame(model: ModelSettings, folder: RunFolder, rows: Callable[[Any], Sequence[TrainedRow]] | None) -> None:
    """Show one probe as the model reads it, before anything is extracted, and warn where training rows read otherwise.

    model: with paths resolved. rows: some of the training's, by the run's tokenizer; None where they cannot be seen.
    """
    from sftscope.llm.loading import templated_tokenizer
    from sftscope.llm.prompting.prompts import resolve_template, special_ids

    tokenizer = templated_tokenizer(model)
    frame = frame_of(tokenizer, folder.read_probes()[0].prompt, resolve_template(tokenizer, model.template))
    say(f"the model reads a probe as: {_shown(tokenizer, frame)}")
    if rows is None:
        return
    found = rows(tokenizer)
    if not found:
        say("the training rows do not show how the training wrapped its prompts; compare them with this probe")
        return
    special = special_ids(tokenizer)
    others = [row for row in found if not fits(tokenizer, frame, row, special)]
    if not others and has_more_in_common(frame, found):
        others = list(found)
    if not others:
        say(f"a training row reads: {_short(_text(tokenizer, found[0].ids))}")
        return
    say(
        f"warning: the training's prompt is not that of the probes, in {len(others)} of {len(found)} rows: a row reads "
        f"{_short(_text(tokenizer, others[0].ids))}, a probe {_shown(tokenizer, frame)}; these are scores of a prompt "
        "that was not trained: begin again with the training's frame by --template chat, plain or a file "
        "(callback: template=), and, where only a date differs, --template-date (template_date=)"
    )


def frame_of(tokenizer: Any, message: str, template: Any) -> Frame:
    """The frame of a message in a template, `chat` or `plain`."""
    from sftscope.llm.prompting.prompts import tokenize_prompt

    prompt = tokenize_prompt(tokenizer, message, template)
    inside = [place for place, (start, end) in enumerate(prompt.spans) if start < len(message) and end > 0]
    first, last = inside[0], inside[-1] + 1
    return Frame(prompt.ids[:first], prompt.ids[first:last], prompt.ids[last:])


def fits(tokenizer: Any, frame: Frame, row: TrainedRow, special: set[int]) -> bool:
    """Whether a row begins as the frame does, a message follows, and then what comes after it.

    Tokens are compared where they are the same, else their text, since a token may reach over a seam.
    """
    end = len(row.ids) if row.trained_from is None else row.trained_from
    start = len(frame.before)
    if row.ids[:start] == frame.before:
        if row.ids[start : start + 1] and row.ids[start] in special:
            return False  # such as a second <bos>
        rest = row.ids[start:]
    elif _text(tokenizer, row.ids).startswith(_text(tokenizer, frame.before).rstrip()):
        rest = row.ids
    else:
        return False
    after = _text(tokenizer, frame.after)
    if after.strip():
        return after.strip() in _text(tokenizer, rest)
    asked = _text(tokenizer, row.ids[:end])
    return after in asked if row.trained_from is None else asked.endswith(after)


def has_more_in_common(frame: Frame, rows: Sequence[TrainedRow]) -> bool:
    """Whether all rows begin, or their prompts end, with some text that the probe lacks: a frame within the message.

    So do instructions, and system prompts of templates that put them into the first message (Llama 2, Gemma 3).
    """
    prompts = {row.ids[: row.trained_from] for row in rows}
    if len(prompts) < _DISTINCT:
        return False
    probe = frame.before + frame.message + frame.after
    if _lacking(probe, _shared(prompts)) >= _BY_CHANCE:
        return True
    are_known = all(row.trained_from is not None for row in rows)
    return are_known and _lacking(probe[::-1], _shared(prompt[::-1] for prompt in prompts)) >= _BY_CHANCE_AT_END


def _lacking(probe: Sequence[int], shared: Sequence[int]) -> int:
    """How many tokens at the end of `shared` the probe does not begin with."""
    return len(shared) - len(_shared([probe, shared]))


def _shared(prompts: Iterable[Sequence[int]]) -> list[int]:
    """The tokens that all begin with."""
    places = zip(*prompts, strict=False)
    return [tokens[0] for tokens in takewhile(lambda tokens: len(set(tokens)) == 1, places)]


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _shown(tokenizer: Any, frame: Frame) -> str:
    before, message, after = (_text(tokenizer, part) for part in (frame.before, frame.message, frame.after))
    middle = message if len(message) <= _MESSAGE else f"{message[: _MESSAGE // 2]} … {message[-_MESSAGE // 2 :]}"
    parts = (f"… {before[-_SHOWN:]}" if len(before) > _SHOWN else before, middle, after[:_SHOWN])
    whole = "".join(parts) if "".join((before, message, after)) == _text(tokenizer, _ids(frame)) else " ".join(parts)
    return safe_text(repr(whole), max_length=3 * _SHOWN)


def _ids(frame: Frame) -> tuple[int, ...]:
    return frame.before + frame.message + frame.after


def _short(text: str) -> str:
    cut = text if len(text) <= 2 * _SHOWN else f"{text[:_SHOWN]} … {text[-_SHOWN:]}"
    return safe_text(repr(cut), max_length=3 * _SHOWN)
