"""Training rows: every shape in every file type, the hub's layout, dataset_info.json, and data that cannot be used."""

import csv
import json

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pyarrow import parquet

from data_rows import read_rows
from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.settings import DataSettings
from sftscope.training.data.examples import make_examples
from sftscope.training.data.rows import read_side
from sftscope.training.data.shapes import SHAPES, Row, rows_of
from sftscope.training.data.sources import content_hash, source_of
from toy_llm import toy_tokenizer

CHAT = [("user", "how"), ("assistant", "good"), ("user", "why"), ("assistant", "bad")]
ROWS = (Row("how", "", "good", "be nice"), Row("why", "", "bad", "be nice", (("user", "how"), ("assistant", "good"))))


def messages(*, role="role", content="content", names=("user", "assistant"), system="be nice"):
    turns = [{role: names[who == "assistant"], content: text} for who, text in CHAT]
    return [{role: "system", content: system}, *turns] if system else turns


SHAPED = {
    "alpaca": {"instruction": "why", "input": "", "output": "bad", "system": "be nice", "history": [["how", "good"]]},
    "sharegpt": {"conversations": messages(role="from", content="value", names=("human", "gpt"))},
    "messages": {"messages": messages()},
    "prompt-completion": {"prompt": messages()[:-1], "completion": messages()[-1:]},
}


def write(folder, name, record):
    """One record as a file of the type that the name has."""
    path = folder / name
    if name.endswith(".parquet"):
        parquet.write_table(pyarrow.Table.from_pylist([record]), path)
    else:
        path.write_text(json.dumps([record] if name.endswith(".json") else record))
    return path


@pytest.mark.parametrize("suffix", ["json", "jsonl", "parquet"])
@pytest.mark.parametrize("shape", SHAPED)
@pytest.mark.parametrize("told", [True, False])
def test_a_conversation_is_the_same_rows_in_every_shape_and_file_type(tmp_path, shape, suffix, told):
    path = write(tmp_path, f"a.{suffix}", SHAPED[shape])
    settings = DataSettings(train=str(path), format=shape if told else "auto")
    assert read_rows(path, settings) == ROWS
    assert read_rows(path, replace(settings, answers="last")) == ROWS[1:]


@pytest.mark.parametrize("suffix", ["json", "jsonl", "parquet", "csv", "tsv"])
def test_dolly_rows(tmp_path, suffix):
    record = {"instruction": "how", "context": "happy room", "response": "good", "category": "open_qa"}
    if suffix in ("csv", "tsv"):
        tab = "\t" if suffix == "tsv" else ","
        path = tmp_path / f"d.{suffix}"
        path.write_text(tab.join(record) + "\n" + tab.join(record.values()) + "\n")
    else:
        path = write(tmp_path, f"d.{suffix}", record)
    assert read_rows(path, DataSettings(train="x")) == (Row("how", "happy room", "good"),)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_goemotions_records_as_the_hub_has_them(tmp_path, suffix):
    (tmp_path / "labels.txt").write_text("joy\nanger\nsadness\n")
    path = write(tmp_path, f"g.{suffix}", {"text": "so good", "labels": [0, 2], "id": "x"})
    settings = DataSettings(train="x", labels=str(tmp_path / "labels.txt"), instruction="feel?")
    assert read_rows(path, settings) == (Row("feel?", "so good", "joy, sadness"),)
    assert read_rows(path, replace(settings, multi_label="first"))[0].response == "joy"


def hub_folder(tmp_path):
    """A data set in the layout of the hub, which `datasets` reads from a folder as from the hub."""
    folder = tmp_path / "owner_name"
    folder.mkdir()
    for split, answer in (("train", "good"), ("validation", "bad")):
        rows = [{"instruction": f"how {i}", "input": "", "output": answer} for i in range(4)]
        parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{split}.parquet")
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return hub_folder(tmp_path)


def test_a_data_set_of_the_hub_has_splits_and_slices(hub):
    data = DataSettings(train=str(hub), eval=str(hub), train_split="train[:3]")
    assert [row.instruction for row in read_side(data, "train")] == ["how 0", "how 1", "how 2"]
    assert {row.response for row in read_side(data, "eval")} == {"bad"}
    first = content_hash(source_of(data, "train"))
    assert first == content_hash(source_of(data, "train"))
    assert first != content_hash(source_of(data, "eval"))


@pytest.mark.parametrize("change", [{"train_split": "nope"}, {"subset": "nope"}])
def test_a_split_or_subset_that_is_not_there_is_one_line(hub, change):
    with pytest.raises(
        SftscopeError, match=r"cannot be loaded: .*; check the name, \[data\] subset and split"
    ) as caught:
        read_side(DataSettings(train=str(hub), **change), "train")
    assert "\n" not in str(caught.value)


def test_where_the_hub_cannot_be_reached_one_line_says_so():
    with pytest.raises(SftscopeError, match=r"nobody/nothing.*cannot be loaded: .*or download the data") as caught:
        read_side(DataSettings(train="nobody/nothing"), "train")
    assert "\n" not in str(caught.value)


INFO = {
    "plain": {"file_name": "a.json"},
    "mapped": {
        "file_name": "m.json",
        "columns": {"prompt": "q", "response": "a", "system": "s", "history": "h"},
        "num_samples": 1,
    },
    "chat": {
        "file_name": "c.json",
        "formatting": "sharegpt",
        "columns": {"messages": "talk"},
        "tags": {
            "role_tag": "who",
            "content_tag": "what",
            "user_tag": "me",
            "assistant_tag": "bot",
            "system_tag": "sys",
        },
    },
    "openai": {"file_name": "o.json", "formatting": "openai"},
    "gone": {"file_name": "gone.json"},
    "pairs": {"file_name": "a.json", "ranking": True},
    "nowhere": {},
    "tools": {"file_name": "a.json", "columns": {"prompt": "instruction", "response": "output", "tools": "t"}},
    "odd": {"file_name": "a.json", "columns": {"chosen": "x"}},
    "form": {"file_name": "a.json", "formatting": "xml"},
}  # fmt: skip


@pytest.fixture
def info(tmp_path):
    talk = messages(role="who", content="what", names=("me", "bot"), system="")
    records = {
        "a": [{"instruction": "how", "input": "room", "output": "good"}],
        "m": [{"q": "why", "a": "bad", "s": "be nice", "h": [["how", "good"]], "input": "not mapped"}] * 2,
        "c": [{"talk": [{"who": "sys", "what": "be nice"}, *talk]}],
        "o": [{"messages": messages()}],
    }  # fmt: skip
    for name, content in records.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    path = tmp_path / "dataset_info.json"
    path.write_text(json.dumps(INFO))
    return path


@pytest.mark.parametrize(
    ("name", "rows"),
    [("plain", (Row("how", "room", "good"),)), ("mapped", ROWS), ("chat", ROWS), ("openai", ROWS)],
)
def test_column_maps_of_dataset_info(info, name, rows):
    assert read_side(DataSettings(train=name, dataset_info=str(info)), "train") == rows


def test_the_hash_of_a_data_set_knows_its_column_map(info):
    data = DataSettings(train="plain", dataset_info=str(info))
    before = content_hash(source_of(data, "train"))
    info.write_text(
        json.dumps({"plain": {"file_name": "a.json", "columns": {"prompt": "input", "response": "output"}}})
    )
    assert content_hash(source_of(data, "train")) != before
    assert content_hash(source_of(DataSettings(train=str(info.parent / "a.json")), "train")) != before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plan", "has no data set 'plan'; there is plain"),
        ("gone", "gone.json does not exist"),
        ("pairs", "field 'ranking': not supported"),
        ("nowhere", "expected the field 'file_name' or 'hf_hub_url'"),
        ("tools", "conversations with tools are not supported"),
        ("odd", "column 'chosen': not supported"),
        ("form", "expected alpaca, sharegpt or openai, got 'xml'"),
    ],
)
def test_an_entry_that_cannot_be_used_is_one_line(info, name, message):
    with pytest.raises(SftscopeError) as caught:
        read_side(DataSettings(train=name, dataset_info=str(info)), "train")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


GOOD = {"instruction": "how", "input": "", "output": "good"}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.jsonl", b"", "expected at least one row, got none"),
        ("empty.json", b"", "not valid JSON"),
        ("nul.jsonl", json.dumps(GOOD | {"output": "a\0b"}), "line 1: field 'output': expected text, got a NUL"),
        ("nul.csv", b"instruction,output\nx,a\0b\n", "line 2: field 'output': expected text, got a NUL character"),
        ("nul.tsv", b"x\0y\t0\tid\n", "line 1: text: expected text, got a NUL character"),
        ("half.jsonl", b'{"instruction": "x", "output": "\\ud83d"}', "line 1: field 'output': expected text, got half"),
        ("utf8.jsonl", json.dumps(GOOD).encode() + b"\n\xff", "line 2: not valid UTF-8"),
        ("utf8.tsv", b"fine\t0\tid\n\xff\t0\tid\n", "line 2: not valid UTF-8"),
        ("utf16.jsonl", json.dumps(GOOD).encode("utf-16"), "line 1: not valid UTF-8"),
        ("bad.jsonl", json.dumps(GOOD) + "\n\n{'a': 1}\n", "line 3: not valid JSON"),
        ("missing.jsonl", json.dumps({"instruction": "x"}), "line 1: expected the fields 'instruction' and 'output'"),
        ("null.jsonl", json.dumps(GOOD | {"output": None}), "line 1: field 'output': expected text, got None"),
        ("label.tsv", "fine\t0\tid\nbad\t99\tid\n", "line 2: label '99' is outside the list"),
        ("wide.csv", "instruction,output\nx\n", "line 2: expected 2 columns"),
        ("rtl.csv", "instruction,output\nמה,\n", "line 2: field 'output': expected an answer, got nothing"),
        ("not.parquet", b"PAR1", "not a usable Parquet file"),
        ("role.jsonl", json.dumps({"messages": [{"role": "tool", "content": "x"}]}), "role 'tool': expected user"),
        ("two.jsonl", json.dumps({"messages": messages()[:3] + messages()[2:3]}), "turn 4: expected one of the user"),
        ("late.jsonl", json.dumps({"messages": messages()[1:3] + messages()[:1]}), "turn 3: expected the system"),
        ("open.jsonl", json.dumps({"messages": messages()[:2]}), "expected an answer of the assistant"),
        ("none.jsonl", json.dumps({"messages": []}), "field 'messages': expected a list of turns, got []"),
        ("text.jsonl", json.dumps({"messages": "hi"}), "field 'messages': expected a list of turns, got 'hi'"),
        ("turn.jsonl", json.dumps({"messages": ["hi"]}), "turn 1: expected 'role' and 'content', got 'hi'"),
        ("pair.jsonl", json.dumps(GOOD | {"history": [["x"]]}), "field 'history': expected [prompt, answer] pairs"),
        ("blank.jsonl", json.dumps({"messages": [{"role": "user", "content": " "}]}), "turn 1: expected text, got"),
        ("esc.jsonl", json.dumps({"\x1b[2J": 1}), "line 1: expected the fields"),
    ],
)  # fmt: skip
def test_hostile_data_are_one_line_with_file_line_and_reason(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "labels.txt").write_text("joy anger")
    labels = str(tmp_path / "labels.txt") if name.endswith(".tsv") else ""
    with pytest.raises(SftscopeError) as caught:
        read_rows(path, DataSettings(train=str(path), labels=labels))
    line = str(caught.value)
    assert line.startswith(str(path))
    assert reason in line
    assert "line " in line or name in ("empty.jsonl", "empty.json", "not.parquet")  # those have no line to name
    assert line.isprintable()
    assert len(line) < 600


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("word", "good"),
        ("happy " * 100_000, "good"),
        ("😀🎉👩‍👩‍👧", "😀"),
        ("\u202eשלום עולם\u202c", "שלום"),
        ("a\u2028b\x0bc\x85d", "e\u2029f"),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_odd_text_is_read_as_it_is_and_fits_the_cutoff(tmp_path, text, answer, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "jsonl":
        path.write_text(json.dumps({"instruction": text, "output": answer}, ensure_ascii=False), encoding="utf-8-sig")
    else:
        path.write_bytes(f"instruction,output\r\n{text},{answer}\r\n".encode("utf-8-sig"))
    rows = read_rows(path, DataSettings(train="x"))
    assert rows == (Row(text, "", answer),)
    (example,) = make_examples(rows, toy_tokenizer(), "chat", cutoff=64)
    assert len(example.input_ids) <= 64


def test_a_long_answer_is_read_and_the_limit_of_csv_stays_that_of_the_process(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"instruction,output\nwhy,{'x' * 200_000}\nhow,good\n")
    before = csv.field_size_limit(150_000)
    try:
        assert [len(row.response) for row in read_rows(path, DataSettings(train="x"))] == [200_000, 4]
        assert csv.field_size_limit() == 150_000
    finally:
        csv.field_size_limit(before)


def test_an_answer_without_tokens_is_named_by_its_place(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps(GOOD | {"output": "\u200b"}))
    tokenizer = toy_tokenizer()
    tokenizer.backend_tokenizer.normalizer = __import__("tokenizers").normalizers.Replace("\u200b", "")
    with pytest.raises(SftscopeError, match=r"a\.jsonl, line 2: the answer .* has no tokens"):
        make_examples(read_rows(path, DataSettings(train="x")), tokenizer, "chat", cutoff=64)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "x"]), inner),
    max_leaves=8,
)


@given(st.sampled_from(sorted(SHAPES)), st.data())
def test_any_record_is_rows_or_one_safe_line(shape, data):
    fields = SHAPES[shape]
    record = {name: data.draw(JSON) for name in (*fields.needed, fields.query, fields.history, "system") if name}
    try:
        rows = rows_of(record, fields, "f, line 1")
    except SftscopeError as error:
        line = str(error)
    else:
        assert all(row.response.strip() and row.prompt.strip() for row in rows)
        return
    assert line.startswith("f, line 1")
    assert line.isprintable()


@pytest.mark.parametrize("value", [["a"], 5, {"a": 1}])
def test_a_name_in_dataset_info_that_is_no_text_is_one_line(value: object, tmp_path) -> None:
    path = tmp_path / "dataset_info.json"
    path.write_text(json.dumps({"x": {"hf_hub_url": value}}))
    with pytest.raises(SftscopeError, match="field 'hf_hub_url'"):
        read_side(DataSettings(train="x", dataset_info=str(path)), "train")
