"""Training data in, examples as tokens, the grid of checkpoints, and which checkpoints are ready."""

import json

import pytest
from msgspec.structs import replace

from checkpoints import write_checkpoint
from data_rows import read_rows
from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.settings import DataSettings, TrainingSettings
from sftscope.store.checkpoints import Checkpoint, ready_checkpoints
from sftscope.training.data.examples import IGNORED, Collator, make_examples
from sftscope.training.data.rows import Row
from sftscope.training.sft import _accumulation, checkpoint_grid, schedule_length
from toy_llm import toy_tokenizer


def rows_of(tmp_path, name, content, **settings):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_rows(path, DataSettings(train=str(path), **settings))


ALPACA = {"instruction": "how", "input": "happy room", "output": "good"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", json.dumps(ALPACA) + "\n\n"),
        ("a.json", json.dumps([ALPACA])),
        ("a.csv", "instruction,input,output\nhow,happy room,good\n"),
        ("a.tsv", "instruction\tinput\toutput\nhow\thappy room\tgood\n"),
        ("bom.csv", b"\xef\xbb\xbfinstruction,input,output\r\nhow,happy room,good\r\n"),
    ],
)
def test_alpaca_rows_are_the_same_in_every_file_type(tmp_path, name, content):
    assert rows_of(tmp_path, name, content) == (Row("how", "happy room", "good"),)


def test_prompt_and_completion(tmp_path):
    rows = rows_of(tmp_path, "p.jsonl", '{"prompt": "how", "completion": "good"}')
    assert rows == (Row("how", "", "good"),)
    assert rows[0].prompt == "how"


def goemotions_files(tmp_path, lines, **settings):
    labels = tmp_path / "labels.txt"
    labels.write_text("joy\nanger\nsadness\n")
    return rows_of(tmp_path, "t.tsv", lines, labels=str(labels), instruction="feel?", **settings)


@pytest.mark.parametrize(
    ("multi", "answers"), [("join", ["joy", "joy, sadness"]), ("first", ["joy", "joy"]), ("skip", ["joy"])]
)
def test_goemotions_labels_by_name(tmp_path, multi, answers):
    rows = goemotions_files(tmp_path, "so good\t0\tid1\nwell [NAME]\t0,2\tid2\n", multi_label=multi)
    assert [row.response for row in rows] == answers
    assert rows[0].prompt == "feel?\nso good"


@pytest.mark.parametrize("label", ["3", "-1", "x", "", "99999999999999999999"])
def test_a_label_outside_the_list_names_file_line_and_list(tmp_path, label):
    with pytest.raises(SftscopeError, match=r"t\.tsv, line 2: label .* outside the list: expected 0…2 \(3 names"):
        goemotions_files(tmp_path, f"fine\t0\tid\nbad\t{label}\tid\n")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"instruction": "x"}', "line 1: expected the fields 'instruction' and 'output'"),
        ("a.jsonl", json.dumps(ALPACA) + "\n{", "line 2: not valid JSON"),
        ("a.jsonl", "[1]", "row 1: expected an object, got int"),
        ("a.jsonl", json.dumps(ALPACA | {"output": 3.5}), "field 'output': expected text"),
        ("a.jsonl", json.dumps(ALPACA | {"output": " "}), "field 'output': expected an answer"),
        ("a.jsonl", b"\n\xff\xfe", "line 2: not valid UTF-8"),
        ("a.csv", "instruction,output\nx,y,z\n", "line 2: expected 2 columns"),
        ("a.json", "{}", "line 1: expected the fields"),
        ("a.jsonl", "", "expected at least one row"),
        ("a.xlsx", "", "expected .jsonl, .json, .csv, .tsv (also .gz of these) or .parquet"),
    ],
)
def test_a_bad_row_names_file_place_and_field(tmp_path, name, content, message):
    with pytest.raises(SftscopeError, match=name.replace(".", r"\.")) as caught:
        rows_of(tmp_path, name, content)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_limit_is_a_seeded_choice_in_file_order(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(ALPACA | {"input": f"room {i}"}) + "\n" for i in range(50)))
    settings = DataSettings(train=str(path))
    chosen = [int(row.input.split()[1]) for row in read_rows(path, settings, limit=10)]
    assert chosen == sorted(set(chosen))
    assert len(chosen) == 10
    assert chosen == [int(row.input.split()[1]) for row in read_rows(path, settings, limit=10)]
    other = read_rows(path, replace(settings, seed=1), limit=10)
    assert [int(row.input.split()[1]) for row in other] != chosen


def test_the_loss_sees_the_answer_and_the_end_of_turn_only():
    tokenizer = toy_tokenizer()
    (example,) = make_examples([Row("how ?", "happy room", "good")], tokenizer, "chat", cutoff=100)
    trained = [token for token, label in zip(example.input_ids, example.labels, strict=True) if label != IGNORED]
    assert tokenizer.convert_ids_to_tokens(trained) == ["good", "<eos>"]
    assert "<|assistant|>" in tokenizer.convert_ids_to_tokens(list(example.input_ids))
    assert all(label in (IGNORED, token) for token, label in zip(example.input_ids, example.labels, strict=True))


def test_the_cutoff_keeps_the_answer():
    tokenizer = toy_tokenizer()
    (example,) = make_examples([Row("a " * 50, "b", "good")], tokenizer, "chat", cutoff=8)
    assert len(example.input_ids) == 8
    assert tokenizer.convert_ids_to_tokens(list(example.input_ids[-2:])) == ["good", "<eos>"]


def test_an_answer_without_tokens_is_an_error():
    with pytest.raises(SftscopeError, match="has no tokens"):
        make_examples([Row("how", "", "\t")], toy_tokenizer(), "chat", cutoff=8)


def test_the_collator_pads_on_the_right_without_loss():
    tokenizer = toy_tokenizer()
    rows = [Row("", "happy room", "good"), Row("", "happy", "good")]
    batch = Collator(0)(make_examples(rows, tokenizer, "chat", cutoff=100))
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape
    padding = batch["attention_mask"] == 0
    assert padding[1, -1]
    assert (batch["labels"][padding] == IGNORED).all()


def test_the_grid_ends_at_the_last_step_and_the_schedule_keeps_its_length():
    settings = TrainingSettings(epochs=3, effective_batch_size=8, micro_batch_size=8, checkpoints=(0, 1, 4, 100))
    assert schedule_length(settings, rows=20) == 9
    assert checkpoint_grid(settings, rows=20) == (1, 4, 9)
    early = replace(settings, max_steps=5)
    assert checkpoint_grid(early, rows=20) == (1, 4, 5)
    assert schedule_length(early, rows=20) == 9


def test_a_checkpoint_is_ready_when_its_state_and_weights_are_whole(tmp_path):
    write_checkpoint(tmp_path, 4)
    torn_weights, torn_state, no_state, other_step = (write_checkpoint(tmp_path, s) for s in (5, 6, 7, 8))
    weights = torn_weights / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    (torn_state / "trainer_state.json").write_text('{"global_step": 6')
    (no_state / "trainer_state.json").unlink()
    (other_step / "trainer_state.json").write_text('{"global_step": 9, "log_history": []}')
    assert list(ready_checkpoints(tmp_path)) == [4]


def test_losses_are_those_measured_at_the_checkpoint(tmp_path):
    checkpoint = Checkpoint(4, write_checkpoint(tmp_path, 4))
    assert checkpoint.losses() == {"train": 1.5, "eval": 1.75}


def test_losses_of_other_trainers_are_their_running_and_eval_loss(tmp_path):
    path = write_checkpoint(tmp_path, 4)
    log = [{"step": 3, "loss": 9.0}, "not a row", {"step": 4, "loss": 2.0}, {"step": 4, "eval_loss": 2.5}]
    (path / "trainer_state.json").write_text(json.dumps({"global_step": 4, "log_history": log}))
    assert Checkpoint(4, path).losses() == {"train": 2.0, "eval": 2.5}


@pytest.mark.parametrize("processes", ["", "abc", "2.5", "0", "-1"])
def test_a_world_size_that_is_no_number_is_one_process(processes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", processes)
    assert _accumulation(TrainingSettings(effective_batch_size=8, micro_batch_size=2)) == 4
