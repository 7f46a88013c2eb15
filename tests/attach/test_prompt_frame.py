"""Are the probes asked as the training asked? Rows that a trainer or a file shows are compared with a probe."""

import json
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from attached_runs import attached
from foreign_training import QUESTION, SENTENCES, WORDS, make_trainer, quiet, train, write_inputs
from model_kinds import KINDS, tokenizer_of
from sftscope.attach.prompt_frame import fits, frame_of, has_more_in_common
from sftscope.attach.training_rows import TrainedRow, rows_of_file, rows_of_trainer
from sftscope.foundation.errors import SftscopeError
from sftscope.llm.prompting.prompts import special_ids
from sftscope.monitor import SftscopeCallback, sidecar
from toy_llm import toy_tokenizer

TOKENIZERS = {name: tokenizer_of(kind) for name, kind in KINDS.items()}
PROBE, MESSAGE = "Name the emotion: I really love this lovely room!", "why is that"
TURNS = [{"role": "user", "content": MESSAGE}, {"role": "assistant", "content": "joy"}]
TEXT = f"{QUESTION} the room was not happy but quiet a : sad"


def ids_of(tokenizer, text, **options):
    return tuple(tokenizer(text, **options)["input_ids"])


def is_framed_as(tokenizer, template, ids, trained_from=None):
    return fits(tokenizer, frame_of(tokenizer, PROBE, template), TrainedRow(ids, trained_from), special_ids(tokenizer))


@pytest.mark.parametrize("name", KINDS)
def test_a_row_in_the_chat_template_is_framed_as_a_probe_and_nothing_else_is(name):
    tokenizer = TOKENIZERS[name]
    row = ids_of(tokenizer, tokenizer.apply_chat_template(TURNS, tokenize=False), add_special_tokens=False)
    assert is_framed_as(tokenizer, "chat", row)
    plain = ids_of(tokenizer, f"{MESSAGE} answer : joy")
    assert not is_framed_as(tokenizer, "chat", plain)
    assert not is_framed_as(tokenizer, "plain", row)
    assert not is_framed_as(tokenizer, "plain", plain)  # no line break ends the message


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("gemma-2", "mistral")])  # without a place
def test_a_system_prompt_of_the_rows_is_another_frame_wherever_the_template_puts_it(name):
    tokenizer, rows = TOKENIZERS[name], []
    for word in ("lovely", "quiet", "happy"):
        told = [{"role": "system", "content": "Think of the family."}, {"role": "user", "content": f"{word} room"}]
        text = tokenizer.apply_chat_template([*told, TURNS[1]], tokenize=False)
        rows.append(TrainedRow(ids_of(tokenizer, text, add_special_tokens=False)))
    frame = frame_of(tokenizer, PROBE, "chat")
    fitting = all(fits(tokenizer, frame, row, special_ids(tokenizer)) for row in rows)
    assert not fitting or has_more_in_common(frame, rows)


def test_words_that_end_every_prompt_but_not_the_probe_are_part_of_the_frame():
    tokenizer = toy_tokenizer()
    texts = [f"{text} b c" for text in SENTENCES]
    rows = [TrainedRow(ids_of(tokenizer, f"{text} sad"), len(tokenizer(text)["input_ids"])) for text in texts]
    assert has_more_in_common(frame_of(tokenizer, "the room was not happy", "plain"), rows)
    assert not has_more_in_common(frame_of(tokenizer, "the food was cold b c", "plain"), rows)
    assert not has_more_in_common(frame_of(tokenizer, "the room was not happy", "plain"), rows[:2])


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.bos])
def test_a_bos_too_many_or_too_few_is_another_frame(name):
    tokenizer = TOKENIZERS[name]
    bos = (tokenizer.bos_token_id,)
    row = ids_of(tokenizer, tokenizer.apply_chat_template(TURNS, tokenize=False), add_special_tokens=False)
    if row[:1] == bos:
        assert not is_framed_as(tokenizer, "chat", bos + row)
        assert not is_framed_as(tokenizer, "chat", row[1:])
    plain = ids_of(tokenizer, f"{MESSAGE}\njoy")
    assert is_framed_as(tokenizer, "plain", plain)
    assert not is_framed_as(tokenizer, "plain", bos + bos + plain)


def trainer_with(rows, **arguments):
    return SimpleNamespace(train_dataset=rows, args=SimpleNamespace(**arguments))


def test_rows_are_read_as_trainers_hold_them():
    """Padded, packed, masked, as text; a stream is left alone, since reading would move it."""
    tokenizer = toy_tokenizer()
    ids = list(ids_of(tokenizer, TEXT))
    rows = [
        {"input_ids": [*ids, 0, 0], "labels": [-100] * 5 + ids[5:] + [-100, -100]},
        {"input_ids": [0, *ids], "attention_mask": [0] + [1] * len(ids), "labels": [0, *ids]},
        {"input_ids": ids + ids, "seq_lengths": [len(ids), len(ids)]},
        {"input_ids": ids, "completion_mask": [0] * 7 + [1] * (len(ids) - 7)},
        {"body": TEXT},
        {"prompt": TEXT.removesuffix(" sad"), "completion": " sad"},
        {"unknown": 1},
    ]
    found = rows_of_trainer(trainer_with(rows, dataset_text_field="body"), tokenizer)
    assert [row.ids for row in found] == [tuple(ids)] * 6
    assert [row.trained_from for row in found] == [5, None, None, 7, None, len(ids) - 1]
    assert rows_of_trainer(trainer_with(iter(rows)), tokenizer) == []


def test_rows_of_a_file_are_wrapped_as_trl_wraps_them(tmp_path):
    tokenizer = toy_tokenizer()
    chat = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "sad"}]
    rows = [{"text": TEXT}, {"messages": chat}, {"prompt": chat[:1], "completion": chat[1:]}, {"instruction": "a"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [tokenizer.decode(list(row.ids)) for row in rows_of_file(str(tmp_path / "rows.jsonl"), tokenizer)]
    assert texts[1:] == ["<|user|> a b <eos> <|assistant|> sad <eos>", "<|user|> a b <eos> <|assistant|>"]
    assert texts[0].startswith(f"{QUESTION} the room")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A training of one step on plain text, its rows, and a template with its frame."""
    folder = tmp_path_factory.mktemp("frame")
    write_inputs(folder)
    with quiet():
        train(make_trainer(folder, max_steps=1, save_steps=1, eval_strategy="no"))
    rows = [{"text": f"{QUESTION}\n{text} b c {answer}"} for text, answer in SENTENCES.items()]
    (folder / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "frame.jinja").write_text("{{ messages[0]['content'] }} b c\n")
    return folder


def log_odds_of(inputs, text, answer):
    """v of the answer after a text, by a plain forward of its ids."""
    tokenizer = toy_tokenizer()
    with quiet(), torch.inference_mode():
        model = AutoModelForCausalLM.from_pretrained(inputs / "toy").eval()
        logits = model(torch.tensor([tokenizer(text)["input_ids"]])).logits[0, -1].double()
    share = torch.softmax(logits, -1)[tokenizer(answer)["input_ids"][0]]
    return float(torch.log(share / (1 - share)))


def test_a_model_trained_on_plain_text_is_said_and_scored_in_its_own_frame(inputs, tmp_path, capsys):
    options = {"train": str(inputs / "text.jsonl")}
    run = attached(inputs, inputs / "out", tmp_path / "chat", **options)
    said = capsys.readouterr().err
    assert "the model reads a probe as: '<|user|> how does" in said
    assert "warning: the training's prompt is not that of the probes, in 3 of 3 rows" in said
    assert "--template chat, plain or a file" in said
    assert run.read_run()["attached"]["train"] == str(inputs / "text.jsonl")
    own = attached(inputs, inputs / "out", tmp_path / "own", template=str(inputs / "frame.jinja"), **options)
    said = capsys.readouterr().err
    assert "warning" not in said
    assert "a training row reads: 'how does the guest feel ? the room was not happy but quiet b c sad'" in said
    text, answer = next(iter(SENTENCES.items()))
    record = own.read_step(0)
    assert record.scores[record.offsets[1] - 1] == pytest.approx(
        log_odds_of(inputs, f"{QUESTION}\n{text} b c", answer), abs=1e-4
    )
    first = run.read_step(0)
    assert first.scores[first.offsets[1] - 1] != pytest.approx(record.scores[record.offsets[1] - 1], abs=1e-2)
    with pytest.raises(SftscopeError, match="was begun with another template"):
        attached(inputs, inputs / "out", own.path)


def test_plain_asks_without_a_frame_whatever_the_tokenizer_has(inputs, tmp_path):
    run = attached(inputs, inputs / "out", tmp_path / "run", template="plain", steps=frozenset({0, 1}))
    assert run.read_run()["model"]["template"] == "plain"
    text, answer = next(iter(SENTENCES.items()))
    record = run.read_step(0)
    expected = log_odds_of(inputs, f"{QUESTION}\n{text}\n", answer)
    assert record.scores[record.offsets[1] - 1] == pytest.approx(expected, abs=1e-4)
    with pytest.raises(SftscopeError, match=r"\[model\] template is 'auto', but .* was begun with 'plain'"):
        attached(inputs, inputs / "out", run.path)


@pytest.mark.parametrize("template", ["", "frame.jinja"])
def test_the_callback_compares_the_rows_of_its_trainer(inputs, tmp_path, monkeypatch, caplog, template):
    monkeypatch.setattr(sidecar, "start", lambda folder: SimpleNamespace(poll=lambda: None))
    trainer = make_trainer(inputs, out=str(tmp_path / "out"), max_steps=1)
    tokenizer = toy_tokenizer()
    rows = [json.loads(line)["text"] for line in (inputs / "text.jsonl").read_text().splitlines()]
    trainer.train_dataset = [{"input_ids": tokenizer(text)["input_ids"]} for text in rows]
    given = str(inputs / template) if template else ""
    callback = SftscopeCallback(trainer, inputs / "probes.jsonl", tmp_path / "run", words=WORDS, template=given)
    with caplog.at_level("INFO", logger="sftscope"):
        callback.on_train_begin(trainer.args, trainer.state, trainer.control)
    assert callback._begun
    assert "the model reads a probe as" in caplog.text
    assert ("the training's prompt is not that of the probes, in 3 of 3 rows" in caplog.text) == (not template)
