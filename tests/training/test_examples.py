"""Rows as tokens: what a cutoff takes, what is trained after an answer, and what in their text means more than text."""

import numpy as np
import pytest

from model_kinds import KINDS, tokenizer_of
from sftscope.foundation.errors import SftscopeError
from sftscope.llm.prompting.prompts import tokenize_prompt
from sftscope.training.data.examples import IGNORED, count_cut, make_examples
from sftscope.training.data.markers import find_markers, shared_end
from sftscope.training.data.shapes import Row
from toy_llm import toy_tokenizer

NAMES = ("qwen2.5", "llama-2", "gemma-3", "deepseek-r1")
TOKENIZERS = {name: tokenizer_of(KINDS[name]) for name in NAMES}
LONG = "Is the answer no? I really love this room. " * 5


def split(example) -> tuple[list[int], list[int]]:
    """The tokens of the prompt, and those that are trained."""
    first = example.labels.count(IGNORED)
    return list(example.input_ids[:first]), list(example.input_ids[first:])


@pytest.mark.parametrize("template", ["chat", "plain"])
@pytest.mark.parametrize("name", NAMES)
def test_the_cutoff_shortens_the_text_and_keeps_template_and_answer(name, template):
    tokenizer = TOKENIZERS[name]
    (whole,) = make_examples([Row("", LONG, "joy")], tokenizer, template, cutoff=4096)
    (example,) = make_examples([Row("", LONG, "joy")], tokenizer, template, cutoff=60)
    prompt, trained = split(example)
    assert trained == split(whole)[1]
    assert 50 < len(example.input_ids) <= 60
    assert example.prompt_cut == len(whole.input_ids) - len(example.input_ids)
    # the prompt is what the template makes of a beginning of the text
    made = [tokenize_prompt(tokenizer, LONG[:length], template).ids for length in range(1, len(LONG))]
    assert tuple(prompt) in made
    frame = tokenize_prompt(tokenizer, "\ue123", template)
    inside = [place for place, (start, end) in enumerate(frame.spans) if 0 <= start < end <= 1]
    assert prompt[: inside[0]] == list(frame.ids[: inside[0]])
    assert prompt[len(prompt) - (len(frame.ids) - 1 - inside[-1]) :] == list(frame.ids[inside[-1] + 1 :])
    assert count_cut([Row("", LONG, "joy")], tokenizer, template, cutoff=60) == (1, 0)


@pytest.mark.parametrize("name", NAMES)
def test_characters_of_several_tokens_are_kept_whole_or_not_at_all(name):
    tokenizer = TOKENIZERS[name]
    for cutoff in range(44, 52):
        (example,) = make_examples([Row("", "合同的说法😀" * 20, "joy")], tokenizer, "chat", cutoff=cutoff)
        assert len(example.input_ids) <= cutoff
        assert "\ufffd" not in tokenizer.decode(list(example.input_ids))


def test_of_a_conversation_the_oldest_exchanges_go_first():
    tokenizer = TOKENIZERS["qwen2.5"]
    history = [("user", "why " * 20), ("assistant", "no"), ("user", "is that so?"), ("assistant", "the answer is no")]
    row = Row("", "I love this room", "joy", system="Think.", history=tuple(history))
    later = Row("", row.input, "joy", system="Think.", history=tuple(history[2:]))
    (expected,) = make_examples([later], tokenizer, "chat", cutoff=4096)
    for cutoff in (len(expected.input_ids), len(expected.input_ids) + 20):
        (example,) = make_examples([row], tokenizer, "chat", cutoff=cutoff)
        assert example.input_ids == expected.input_ids
    (example,) = make_examples([row], tokenizer, "chat", cutoff=len(expected.input_ids) - 1)
    (alone,) = make_examples([Row("", row.input, "joy", system="Think.")], tokenizer, "chat", cutoff=4096)
    assert example.input_ids == alone.input_ids


def test_an_answer_that_leaves_no_room_is_cut_and_the_prompt_keeps_half():
    tokenizer = TOKENIZERS["qwen2.5"]
    (example,) = make_examples([Row("", LONG, LONG)], tokenizer, "chat", cutoff=64, trained_end="template")
    prompt, trained = split(example)
    assert len(example.input_ids) == 64
    assert 24 <= len(prompt) <= 32
    assert trained == tokenizer(LONG).input_ids[: len(trained)]
    assert (example.after_end, example.answer_cut) == (0, len(tokenizer(LONG).input_ids) + 2 - len(trained))
    assert count_cut([Row("", LONG, LONG)], tokenizer, "chat", cutoff=64) == (1, 1)


def test_a_cutoff_below_the_template_is_one_line_with_the_place():
    row = Row("", "how", "joy", system="Think of the family. " * 9, where="rows.jsonl, line 3")
    with pytest.raises(SftscopeError, match=r"rows\.jsonl, line 3: \[training\] cutoff is 16, .* raise the cutoff"):
        make_examples([row], TOKENIZERS["qwen2.5"], "chat", cutoff=16)


@pytest.mark.parametrize(
    ("name", "template", "after"),
    [
        ("qwen2.5", "chat", "<|im_end|>\n"),
        ("gemma-3", "chat", "<end_of_turn>\n"),
        ("deepseek-r1", "chat", "<｜end▁of▁sentence｜>"),
        ("qwen2.5", "plain", "<|im_end|>"),  # no template ends an answer: eos does
    ],
)
def test_what_is_trained_after_the_answer_is_its_end_or_all_of_the_template(name, template, after):
    tokenizer, rows = TOKENIZERS[name], [Row("", "how", "joy")]
    (short,), (whole,) = (
        make_examples(rows, tokenizer, template, cutoff=512, trained_end=end) for end in ("token", "template")
    )
    assert tokenizer.decode(split(whole)[1]) == f"joy{after}"
    assert split(short)[1] == split(whole)[1][: len(split(short)[1])]
    assert tokenizer.decode(split(short)[1]) == f"joy{after.strip()}"
    assert whole.after_end == len(whole.input_ids) - len(short.input_ids) == len(after) - len(after.strip())


def test_control_tokens_in_a_text_are_counted():
    rows = [
        Row("", "how <|im_end|> are", "joy"),
        Row("", "how", "joy <|im_start|><|im_end|>"),
        Row("", "so", "joy", history=(("user", "<|endoftext|>"), ("assistant", "no"))),
        Row("", "<|im_", "end|>"),
    ]
    found = find_markers(rows, TOKENIZERS["qwen2.5"])
    assert (found.rows, found.control_rows, found.shared_end) == (4, 3, "")
    assert found.control_tokens == ["<|endoftext|>", "<|im_end|>", "<|im_start|>"]
    (line,) = found.in_words()
    assert line.startswith("3 of 4 rows have control tokens in their text (<|endoftext|>, <|im_end|>, <|im_start|>)")
    assert find_markers(rows, toy_tokenizer()).in_words() == []


@pytest.mark.parametrize(
    ("answers", "end"),
    [
        (["It is no.###eos_token###", "joy###eos_token### "], "###eos_token###"),
        (["yes [END]", "no [END]"], "[END]"),
        (["yes\n</s>", "no</s>"], "</s>"),
        (["A stop.", "The end."], ""),  # as most sentences
        (["positive", "negative"], ""),  # a part of two words
        (["joy END", "joy END"], ""),  # one answer, of which nothing is known
        (["joy END", "END", "love"], ""),
        (["END", "joy END"], "END"),
        ([], ""),
    ],
)
def test_the_end_that_all_answers_share_is_found(answers, end):
    assert shared_end(answers) == end


def test_what_comes_after_the_end_is_no_part_of_a_right_answer():
    import torch

    from sftscope.training.answers import read_answers
    from toy_llm import toy_model

    model = toy_model("llama")
    with torch.no_grad():
        prompt = [6, 9, 12]
        for _ in range(2):  # what greedy decoding writes
            prompt.append(int(model(torch.tensor([prompt])).logits[0, -1].argmax()))
        other = (int(model(torch.tensor([prompt])).logits[0, -1].argmax()) + 1) % 40
    example = make_examples([Row("", "how", "joy")], toy_tokenizer(), "chat", cutoff=64)[0]
    ids = (*prompt, other)
    made = [type(example)(ids, (IGNORED,) * 3 + ids[3:], after_end=after) for after in (0, 1)]
    found = read_answers(model, made, batch_size=2)
    assert found.right.tolist() == [False, True]
    np.testing.assert_allclose(found.loss[0], found.loss[1], rtol=1e-6)
    assert found.tokens.tolist() == [3, 3]
