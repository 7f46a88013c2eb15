"""Chat templates of well-known LLMs: the answer and its end are trained, nothing else, and the target is content."""

import pytest

from model_kinds import KINDS, tokenizer_of
from run_configs import write_config
from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.probes import Probe
from sftscope.inputs.segmentation import candidate_words
from sftscope.llm.prompting.prompts import resolve_template, set_template, template_hash, tokenize_prompt
from sftscope.preflight.inspection import inspect
from sftscope.runs import pipeline
from sftscope.scoring.masking import mask_probe
from sftscope.training.data.examples import IGNORED, make_examples
from sftscope.training.data.shapes import Row

TOKENIZERS = {name: tokenizer_of(kind) for name, kind in KINDS.items()}
MESSAGE = "Name the emotion: I really love this lovely room!"
HISTORY = (("user", "why is that"), ("assistant", "the answer is no"))
SYSTEM = "Think of the family."


def decoded(name: str, ids) -> str:
    """The text of tokens; where spaces are pieces of their own kind, those at the seams of two texts do not count."""
    text = TOKENIZERS[name].decode(list(ids), skip_special_tokens=False)
    return text if KINDS[name].bytes else text.replace(" ", "")


def rendered(name: str, turns, **options) -> str:
    messages = [{"role": role, "content": content} for role, content in turns]
    text = TOKENIZERS[name].apply_chat_template(messages, tokenize=False, **options)
    return text if KINDS[name].bytes else text.replace(" ", "")


@pytest.mark.parametrize("answer", ["joy", "Your head is like a room!\nWhy?", "答案 是 A", "😀", " gratitude"])
@pytest.mark.parametrize("name", KINDS)
def test_exactly_the_answer_and_its_end_are_trained(name, answer):
    (example,) = make_examples([Row(MESSAGE, "", answer)], TOKENIZERS[name], "chat", cutoff=512)
    trained = [label for label in example.labels if label != IGNORED]
    first = len(example.labels) - len(trained)
    assert decoded(name, trained) == (answer if KINDS[name].bytes else answer.replace(" ", "")) + KINDS[name].end
    assert TOKENIZERS[name].convert_ids_to_tokens(trained[-1]) == KINDS[name].end
    assert all(label == IGNORED for label in example.labels[:first])
    assert example.labels[first:] == example.input_ids[first:]
    # the model sees what its own template writes, to the end of the answer
    whole = rendered(name, [("user", MESSAGE), ("assistant", answer)])
    if answer.strip() == answer:  # some templates strip an answer
        assert whole.startswith(decoded(name, example.input_ids))


@pytest.mark.parametrize("name", KINDS)
def test_the_target_is_the_first_token_of_the_answer(name):
    tokenizer = TOKENIZERS[name]
    words = tuple(candidate_words(MESSAGE)[-3:])
    for answer in ("joy", "\njoy", "<think>\njoy", "<think>joy"):
        prompt = mask_probe(Probe("p", MESSAGE, "", answer, words), tokenizer, "chat")
        assert "joy".startswith(tokenizer.decode([prompt.target]).strip())
        assert tokenizer.decode([prompt.target]).strip()
        owned = [
            decoded(name, [t for t, owner in zip(prompt.ids, prompt.owner, strict=True) if owner == v])
            for v in range(3)
        ]
        assert [word.strip() for word in owned] == ["this", "lovely", "room"]


@pytest.mark.parametrize("name", KINDS)
def test_a_conversation_is_a_row_for_each_answer_as_the_template_writes_it(name):
    row = Row(MESSAGE, "", "joy", history=HISTORY)
    (example,) = make_examples([row], TOKENIZERS[name], "chat", cutoff=512)
    expected = rendered(name, [*HISTORY, ("user", MESSAGE)], add_generation_prompt=True)
    assert decoded(name, example.input_ids).startswith(expected.removesuffix("<think>\n"))
    assert sum(label != IGNORED for label in example.labels) == len(TOKENIZERS[name]("joy").input_ids) + 1


@pytest.mark.parametrize("history", [(), HISTORY])
@pytest.mark.parametrize("name", KINDS)
def test_a_system_prompt_goes_where_the_template_has_it_or_before_the_first_message(name, history):
    first, *others = [*history, ("user", MESSAGE)]
    if name == "gemma-2":  # has no place for one
        turns = [("user", f"{SYSTEM}\n\n{first[1]}"), *others]
    else:
        turns = [("system", SYSTEM), first, *others]
    expected = rendered(name, turns, add_generation_prompt=True).removesuffix("<think>\n")
    prompt = tokenize_prompt(TOKENIZERS[name], MESSAGE, "chat", system=SYSTEM, history=history)
    assert decoded(name, prompt.ids) == expected
    seen = [MESSAGE[max(0, left) : right] for left, right in prompt.spans if left < len(MESSAGE) and right > 0]
    assert "".join(seen) == MESSAGE  # each token of the message is at its place


@pytest.mark.parametrize("name", KINDS)
def test_a_system_prompt_of_the_settings_is_part_of_the_template_and_its_hash(name):
    tokenizer = tokenizer_of(KINDS[name])
    before = template_hash(tokenizer, "chat")
    system = 'Say "it"\\n {{ 1 }} 😀'
    set_template(tokenizer, "", system)
    assert template_hash(tokenizer, "chat") != before
    given = tokenize_prompt(TOKENIZERS[name], MESSAGE, "chat", system=system)
    assert tokenize_prompt(tokenizer, MESSAGE, "chat") == given
    other = tokenize_prompt(TOKENIZERS[name], MESSAGE, "chat", system=SYSTEM)
    assert tokenize_prompt(tokenizer, MESSAGE, "chat", system=SYSTEM).ids == other.ids or name == "gemma-2"


def test_a_template_of_ones_own_takes_the_place_of_the_tokenizers():
    tokenizer = tokenizer_of(KINDS["qwen2.5"])
    template = "{% for m in messages %}### {{ m['role'] }}\n{{ m['content'] }}\n{% endfor %}### assistant\n"
    set_template(tokenizer, template, "")
    prompt = tokenize_prompt(tokenizer, MESSAGE, resolve_template(tokenizer, "auto"))
    assert tokenizer.decode(list(prompt.ids)) == f"### user\n{MESSAGE}\n### assistant"


def test_a_run_is_bound_to_the_text_of_its_template_and_to_its_system_prompt(tmp_path):
    told = 'path = "toy"\ntemplate_file = "own.jinja"\nsystem = "not quiet"'
    config = write_config(tmp_path, **{'path = "toy"': told})
    turns = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    (tmp_path / "own.jinja").write_text(turns)
    pipeline.run(config, tmp_path / "run")
    assert [token.text for token in inspect(config).probe.tokens][1:4] == ["not", "quiet", "<unk>"]
    pipeline.run(config, tmp_path / "run")  # the same again
    (tmp_path / "own.jinja").write_text(turns + "a ")
    with pytest.raises(SftscopeError, match="was begun with another template"):
        pipeline.train(config, tmp_path / "run")
    (tmp_path / "own.jinja").write_text(turns)
    config.write_text(config.read_text().replace("not quiet", "not old"))
    with pytest.raises(SftscopeError, match=r"\[model\] system is 'not old', but .* begun with 'not quiet'"):
        pipeline.train(config, tmp_path / "run")
    (tmp_path / "own.jinja").write_text(" ")
    with pytest.raises(SftscopeError, match=r"own\.jinja: expected a Jinja chat template, got an empty file"):
        pipeline.train(config, tmp_path / "other")
    (tmp_path / "own.jinja").write_text("{% for %}")
    with pytest.raises(SftscopeError, match="chat template fails"):
        pipeline.train(config, tmp_path / "other")


def test_a_system_prompt_without_a_chat_template_is_one_line():
    tokenizer = tokenizer_of(KINDS["qwen2.5"])
    tokenizer.chat_template = None
    with pytest.raises(SftscopeError, match=r"\[model\] system: this tokenizer has no chat template; give one"):
        set_template(tokenizer, "", SYSTEM)


def test_without_a_chat_template_system_and_turns_are_lines_before_the_message():
    tokenizer = TOKENIZERS["qwen2.5"]
    prompt = tokenize_prompt(tokenizer, "why", "plain", system=SYSTEM, history=HISTORY)
    text = f"{SYSTEM}\nwhy is that\nthe answer is no\nwhy\n"
    assert tokenizer.decode(list(prompt.ids)) == text
    assert prompt.spans[-1] == (3, 4)
