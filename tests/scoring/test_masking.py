"""Words are masked at their own tokens: repeated, of several tokens, with punctuation, first and last."""

import pytest

from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.probes import Probe
from sftscope.llm.prompting.prompts import end_of_turn, first_content_token, resolve_template, tokenize_prompt
from sftscope.scoring.masking import mask_probe
from toy_llm import toy_tokenizer


def masked_words(text, spans, template="chat", instruction="how does the guest feel ?", response="sad"):
    """The text of the tokens that each variable owns."""
    tokenizer = toy_tokenizer()
    prompt = mask_probe(Probe("p", instruction, text, response, tuple(spans)), tokenizer, template)
    return [
        " ".join(tokenizer.decode([t]) for t, owner in zip(prompt.ids, prompt.owner, strict=True) if owner == v)
        for v in range(prompt.n_variables)
    ]


def test_a_repeated_word_is_masked_where_its_span_is():
    tokenizer = toy_tokenizer()
    text = "happy room not happy room"
    probe = Probe("p", "the happy guest", text, "sad", ((15, 20),))
    prompt = mask_probe(probe, tokenizer, "chat")
    happy = tokenizer.convert_tokens_to_ids("happy")
    places = [i for i, token in enumerate(prompt.ids) if token == happy]
    assert len(places) == 3  # one in the instruction, two in the input
    assert [i for i, owner in enumerate(prompt.owner) if owner == 0] == [places[-1]]


@pytest.mark.parametrize("template", ["chat", "plain"])
def test_first_and_last_word(template):
    text = "happy room was cold"
    assert masked_words(text, [(0, 5), (15, 19)], template) == ["happy", "cold"]
    assert masked_words(text, [(0, 5), (15, 19)], template, instruction="") == ["happy", "cold"]


def test_punctuation_glued_to_a_word_keeps_its_own_embedding():
    assert masked_words("happy, not sad!", [(0, 5), (11, 14)]) == ["happy", "sad"]


def test_a_phrase_is_one_variable():
    assert masked_words("the room was not very happy", [(13, 27)]) == ["not very happy"]


def test_a_word_without_a_token_is_an_error():
    with pytest.raises(SftscopeError, match="has no token"):
        masked_words("happy  room", [(5, 6)])


def test_leading_white_space_that_a_template_strips_is_accounted_for():
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("m['content']", "m['content'] | trim")
    probe = Probe("p", "", "  happy room", "sad", ((2, 7),))
    prompt = mask_probe(probe, tokenizer, "chat")
    (place,) = [i for i, owner in enumerate(prompt.owner) if owner == 0]
    assert tokenizer.decode([prompt.ids[place]]) == "happy"


def test_a_template_that_changes_the_message_is_refused():
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("m['content']", "m['content'] | upper")
    with pytest.raises(SftscopeError, match="changes the message"):
        tokenize_prompt(tokenizer, "happy room", "chat")


def test_a_template_that_hides_the_message_is_refused():
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = "nothing"
    with pytest.raises(SftscopeError, match="exactly once"):
        tokenize_prompt(tokenizer, "happy room", "chat")


def test_the_target_is_the_first_content_token():
    tokenizer = toy_tokenizer()
    ids = tokenizer("<eos> sad room", add_special_tokens=False)["input_ids"]
    assert first_content_token(tokenizer, tuple(ids)) == 1
    with pytest.raises(SftscopeError, match="no token that carries content"):
        first_content_token(tokenizer, (tokenizer.eos_token_id,))


def test_tokens_before_the_target_are_part_of_the_prompt():
    tokenizer = toy_tokenizer()
    plain = mask_probe(Probe("p", "", "happy room", "sad", ((0, 5),)), tokenizer, "chat")
    later = mask_probe(Probe("p", "", "happy room", "<eos> sad", ((0, 5),)), tokenizer, "chat")
    assert later.ids == (*plain.ids, tokenizer.eos_token_id)
    assert later.target == plain.target


def test_end_of_turn_comes_from_the_template():
    tokenizer = toy_tokenizer()
    assert end_of_turn(tokenizer, "chat") == tokenizer.eos_token_id
    tokenizer.chat_template = tokenizer.chat_template.replace("<eos>", "<|user|>")
    assert end_of_turn(tokenizer, "chat") == tokenizer.convert_tokens_to_ids("<|user|>")


def test_a_chat_template_is_needed_where_one_is_asked_for():
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = None
    assert resolve_template(tokenizer, "auto") == "plain"
    with pytest.raises(SftscopeError, match="no chat template"):
        resolve_template(tokenizer, "chat")
