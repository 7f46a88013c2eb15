"""Shapes of rows that the usual trainers read: parts of text, weights, compressed files, other names of fields."""

import gzip
import json

import pytest

from data_rows import read_rows
from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.settings import DataSettings
from sftscope.training.data.rows import read_side
from sftscope.training.data.shapes import Row

USER, GOOD = {"role": "user", "content": "how"}, {"role": "assistant", "content": "good"}
BAD = {"role": "assistant", "content": "bad"}
ROW = {"instruction": "how", "output": "good"}


def read(folder, *records, name="a.jsonl", told=None, **settings):
    path = folder / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    note = (lambda _: None) if told is None else told.append
    return read_side(DataSettings(train=str(path), **settings), "train", note=note)


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "how"}],
        [{"type": "text", "text": "h", "image": None}, {"type": "input_text", "text": "ow"}],
        ["h", "ow"],
    ],
)
def test_content_can_be_a_list_of_text_parts(tmp_path, content):
    assert read(tmp_path, {"messages": [{**USER, "content": content}, GOOD]}) == (Row("how", "", "good"),)
    prompt = {"prompt": [{**USER, "content": content}], "completion": [GOOD]}
    assert read(tmp_path, prompt) == (Row("how", "", "good"),)


@pytest.mark.parametrize("mark", [{"weight": 0}, {"weight": 0.0}, {"train": False}, {"loss": False}])
def test_an_answer_that_is_not_to_be_trained_is_only_in_later_prompts_and_it_is_told(tmp_path, mark):
    told = []
    record = {"messages": [USER, {**BAD, **mark}, USER, {**GOOD, "weight": 1}, USER, {**BAD, **mark}]}
    (row,) = read(tmp_path, record, told=told)
    assert row == Row("how", "", "good", history=(("user", "how"), ("assistant", "bad")))
    assert told == [f"{tmp_path}/a.jsonl: left out of training and loss: answers whose weight is 0 (2)"]
    with pytest.raises(SftscopeError, match="at least one row, got none"):
        read(tmp_path, record, answers="last")


@pytest.mark.parametrize("data", ["list", "lines", "object", "lines.gz", "csv.gz", "semicolons"])
def test_the_content_of_a_file_says_how_it_is_written(tmp_path, data):
    lines = (json.dumps(ROW) + "\n").encode() * 2
    name, content = {
        "list": ("a.jsonl", json.dumps([ROW, ROW], indent=1).encode()),
        "lines": ("a.json", lines),
        "object": ("a.json", json.dumps(ROW, indent=1).encode()),
        "lines.gz": ("a.jsonl.gz", gzip.compress(lines)),
        "csv.gz": ("a.csv.gz", gzip.compress(b"instruction,output\nhow,good\n")),
        "semicolons": ("a.csv", b'instruction;output\n"how";good\n'),
    }[data]
    (tmp_path / name).write_bytes(content)
    assert set(read_rows(tmp_path / name, DataSettings(train="x"))) == {Row("how", "", "good")}


def test_a_torn_compressed_file_is_one_line(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress((json.dumps(ROW) + "\n").encode() * 99)[:-9])
    with pytest.raises(SftscopeError, match="not valid gzip"):
        read_rows(path, DataSettings(train="x"))


def test_other_names_are_mapped_by_columns(tmp_path):
    record = {"question": "how", "context": "room", "answer": "good", "rules": "be nice", "input": "not mapped"}
    columns = {"prompt": "question", "query": "context", "response": "answer", "system": "rules"}
    assert read(tmp_path, record, columns=columns) == (Row("how", "room", "good", "be nice"),)
    talk = {"dialogue": [{"who": "human", "what": "how"}, {"who": "bot", "what": "good"}]}
    columns = {"messages": "dialogue", "role": "who", "content": "what"}
    assert read(tmp_path, talk, columns=columns) == (Row("how", "", "good"),)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"question": "how", "answer": "x"}, '[data] columns = { prompt = "question", response = "answer" }'),
        ({"prompt": "how", "response": "x"}, '[data] columns = { prompt = "prompt", response = "response" }'),
        ({"text": "how? x"}, "'text' alone does not say where the answer begins"),
        ({"messages": [USER, {**GOOD, "weight": 0.5}]}, "field 'weight': expected 0 or 1, got 0.5"),
        ({"messages": [USER, {**GOOD, "content": None, "tool_calls": [{"id": 1}]}]}, "turn 2: field 'tool_calls'"),
        ({"messages": [USER, GOOD], "tools": [{"name": "f"}]}, "field 'tools': not supported"),
        ({"messages": [{**USER, "content": [{"type": "image_url"}]}, GOOD]}, "part 1 is 'image_url'; expected text"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_what_to_do(tmp_path, record, message):
    with pytest.raises(SftscopeError) as caught:
        read(tmp_path, record)
    assert message in str(caught.value)
    assert "line 1: " in str(caught.value)


def test_conversations_that_others_begin_or_end(tmp_path):
    told = []
    record = {"conversations": [GOOD, USER, {**BAD, "thinking": "hm"}, USER], "tools": None}
    (row,) = read(tmp_path, record, told=told)
    assert row == Row("how", "", "bad", history=(("assistant", "good"),))
    assert [line.partition("loss: ")[2] for line in told] == [
        "'thinking' of a turn (1)",
        "turns after the last answer (1)",
    ]
    assert read(tmp_path, {"messages": [USER, USER, GOOD]}) == (Row("how", "", "good", history=(("user", "how"),)),)


def test_a_whole_number_is_its_digits(tmp_path):
    row = {"instruction": "how many", "input": 0, "output": 2}
    assert read(tmp_path, row) == (Row("how many", "0", "2"),)
    assert read(tmp_path, {"messages": [USER, {**GOOD, "content": 12}]}) == (Row("how", "", "12"),)
    for value in (2.5, True, [2]):
        with pytest.raises(SftscopeError, match="line 1: field 'output': expected text, got"):
            read(tmp_path, {**row, "output": value})
        with pytest.raises(SftscopeError, match="line 1: field 'input': expected text, got"):
            read(tmp_path, {**row, "input": value})
