"""Probes: which words become variables, and which rows are refused with file, line and field."""

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.probes import Probe, choose_variables, choose_words, read_probes, write_probes
from sftscope.inputs.row_files import read_jsonl
from sftscope.inputs.segmentation import STOP_WORDS, candidate_phrases, candidate_sentences, candidate_words

ROW = {"instruction": "how?", "input": "the room was not happy but quiet", "response": "bad"}


def words_of(text: str) -> list[str]:
    return [text[start:end] for start, end in candidate_words(text)]


def write_rows(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("good, (very) good!", ["good", "very", "good"]),
        ("start middle end", ["start", "middle", "end"]),
        ("... !!! -- word", ["word"]),
        ("don't well-made [NAME]", ["don't", "well-made", "NAME"]),
        ("¿qué? «naïve» 한국。", ["qué", "naïve", "한국"]),
        ("हिन्दी शब्द", ["हिन्दी", "शब्द"]),
        ("great!😀 😀", ["great!😀", "😀"]),
        ("**bold** _it_ `code`", ["bold", "it", "code"]),
        ("a\u00a0b\r\nc\x00", ["a", "b", "c"]),
        ("", []),
        (" \n\t ", []),
        ("?!…", []),
    ],
)
def test_words_are_split_at_white_space_without_outer_punctuation(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=80), st.integers(1, 8), st.integers(0, 3))
def test_chosen_words_are_disjoint_candidates_in_text_order(text: str, n: int, seed: int) -> None:
    candidates = candidate_words(text)
    chosen = choose_words(text, n, random.Random(seed))
    assert set(chosen) <= set(candidates)
    assert list(chosen) == sorted(set(chosen))
    assert len(chosen) == min(n, len(candidates))
    assert choose_words(text, n, random.Random(seed)) == chosen


def test_a_repeated_word_is_two_variables() -> None:
    text = "very good very bad"
    probe = Probe("p", "", text, "x", choose_words(text, 4, random.Random(0)))
    assert probe.variables == ("very", "good", "very", "bad")


def test_stop_words_are_taken_only_when_needed() -> None:
    text = "the room was quiet and I’m glad"
    content = choose_words(text, 3, random.Random(0))
    assert [text[a:b] for a, b in content] == ["room", "quiet", "glad"]
    assert len(choose_words(text, 5, random.Random(0))) == 5


@pytest.mark.parametrize("word", ["not", "no", "never", "nor", "don't", "didn't", "without", "cannot"])
def test_negations_are_content(word: str) -> None:
    assert word not in STOP_WORDS


def test_many_words_are_chosen_quickly() -> None:
    assert len(choose_words("the " * 100_000, 16, random.Random(0))) == 16


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        (
            "The small hotel near the old harbour, closed in winter.",
            ["small hotel near", "old harbour", "closed", "winter"],
        ),
        ("not happy (very sad)", ["not happy", "very sad"]),
        ("cold coffee\nwarm bread", ["cold coffee", "warm bread"]),
        ("good -- bad", ["good", "bad"]),
        ("I’m it is the", []),
        ("", []),
    ],
)
def test_phrases_are_runs_of_content_words_between_stop_words_and_punctuation(text: str, phrases: list[str]) -> None:
    assert [text[start:end] for start, end in candidate_phrases(text)] == phrases


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Good. Very (very) bad!  Was it? ", ["Good.", "Very (very) bad!", "Was it?"]),
        ('He said "no." Then left…', ['He said "no."', "Then left…"]),
        ("It cost 3.50 at example.com today", ["It cost 3.50 at example.com today"]),
        ("first line\n\n second line \r\n... \nthird", ["first line", "second line", "third"]),
        ("好。很好！", ["好。", "很好！"]),
        (" \n?!", []),
        ("", []),
    ],
)
def test_sentences_end_at_their_marks_and_at_line_breaks(text: str, sentences: list[str]) -> None:
    assert [text[start:end] for start, end in candidate_sentences(text)] == sentences


@settings(deadline=None, max_examples=150)
@given(
    st.text(st.sampled_from('ab .!?\n\r"\t,…。the 𝄞'), max_size=60) | st.text(max_size=60),
    st.sampled_from(["phrases", "sentences"]),
    st.integers(1, 5),
)
def test_phrases_and_sentences_are_disjoint_spans_with_a_word_without_outer_white_space(
    text: str, kind: str, n: int
) -> None:
    spans = choose_variables(text, kind, n, random.Random(0))
    assert len(spans) <= n
    assert all(text[a:b] == text[a:b].strip() and words_of(text[a:b]) for a, b in spans)
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(spans))
    if kind == "sentences":  # all that words are made of is in one of them
        every = choose_variables(text, kind, 100, random.Random(0))
        assert all(any(a <= i < b for a, b in every) for i, character in enumerate(text) if words_of(character))


def test_long_prompts_have_fewer_phrases_and_sentences_than_words(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.jsonl", {**ROW, "input": "The room was cold. The staff was very kind! We left."})
    (phrases,) = read_probes(path, n_words=8, seed=0, variables="phrases")
    assert phrases.variables == ("room", "cold", "staff", "very kind", "left")
    (sentences,) = read_probes(path, n_words=8, seed=0, variables="sentences")
    assert sentences.variables == ("The room was cold.", "The staff was very kind!", "We left.")
    (two,) = read_probes(path, n_words=2, seed=0, variables="sentences")
    assert len(two.variables) == 2
    with pytest.raises(SftscopeError, match=r"too few sentences .* 1 of the 2 asked for; .* variables = .words"):
        read_probes(write_rows(tmp_path / "q.jsonl", ROW), n_words=8, seed=0, variables="sentences")


def test_prompt_joins_instruction_and_input_and_knows_where_the_words_lie() -> None:
    probe = Probe("p", "how?", "not happy", "bad", ((0, 3), (4, 9)))
    assert probe.prompt == "how?\nnot happy"
    assert [probe.prompt[probe.text_start + a : probe.text_start + b] for a, b in probe.words] == [
        "not",
        "happy",
    ]


def test_words_come_from_the_instruction_where_there_is_no_input(tmp_path: Path) -> None:
    row = {"instruction": "describe the quiet room", "response": "bad"}
    (probe,) = read_probes(write_rows(tmp_path / "p.jsonl", row), n_words=2, seed=0)
    assert probe.text == probe.prompt == row["instruction"]
    assert probe.text_start == 0


def test_written_probes_are_read_back(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.jsonl", ROW, {**ROW, "id": "zwei", "words": [[4, 8], [13, 16]]})
    probes = read_probes(path, n_words=3, seed=0)
    again = tmp_path / "again.jsonl"
    again.write_text(write_probes(probes, [{"id": 1, "text": "b"}] * 2), encoding="utf-8")
    assert read_probes(again, n_words=7, seed=9) == probes
    assert probes[1].variables == ("room", "not")


def test_the_choice_depends_on_seed_and_id_alone(tmp_path: Path) -> None:
    one = read_probes(write_rows(tmp_path / "a.jsonl", {**ROW, "id": "x"}), n_words=2, seed=3)
    other = {**ROW, "id": "first"}
    two = read_probes(write_rows(tmp_path / "b.jsonl", other, {**ROW, "id": "x"}), n_words=2, seed=3)
    assert one[0].words == two[1].words


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1], "JSON object"),
        ({**ROW, "input": 3.5}, "'input'"),
        ({**ROW, "id": 7.5}, "'id'"),
        ({**ROW, "id": " "}, "'id'"),
        ({**ROW, "response": " "}, "'response'"),
        ({**ROW, "response": None}, "'response'"),
        ({"response": "bad"}, "'input' or 'instruction'"),
        ({**ROW, "input": "the room"}, "too few words"),
        ({**ROW, "words": [[0, 3], [2, 6]]}, "overlap"),
        ({**ROW, "words": [[0, 99]]}, "within"),
        ({**ROW, "words": [[3, 3]]}, "within"),
        ({**ROW, "words": [[True, 3]]}, "within"),
        ({**ROW, "words": [[0.0, 3]]}, "within"),
        ({**ROW, "words": [[0, 3, 4]]}, "within"),
        ({**ROW, "words": [[3, 4]]}, "white space"),
        ({**ROW, "words": "room"}, "pairs"),
        ({**ROW, "words": 0}, "pairs"),
        ({**ROW, "words": [[i, i + 1] for i in range(65)]}, "at most 64"),
        ({**ROW, "input": "half \ud800 a pair of words here"}, "surrogate"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(tmp_path: Path, row: Any, message: str) -> None:
    path = write_rows(tmp_path / "p.jsonl", ROW, row)
    with pytest.raises(SftscopeError, match=message) as error:
        read_probes(path, n_words=5, seed=0)
    assert f"{path}, line 2" in str(error.value)


@pytest.mark.parametrize(
    ("data", "line", "message"),
    [
        (b'{"a": 1}\n{"a": \xff}\n', 2, "UTF-8"),
        (b"\xef\xbb\xbf{}\n\xff", 2, "UTF-8"),
        (b"{}\n\n{broken\n", 3, "not valid JSON"),
        (b"[" * 100_000, 1, "too deep"),
        (b"{}\n" + b"1" * 10_000, 2, "too long"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, data: bytes, line: int, message: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(data)
    with pytest.raises(SftscopeError, match=message) as error:
        list(read_jsonl(path))
    assert f"{path}, line {line}:" in str(error.value)


def test_bom_crlf_and_blank_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}')
    assert [row["a"] for _, row in read_jsonl(path)] == [1, 2]


def test_two_probes_need_two_ids_and_the_message_is_safe(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.jsonl", {**ROW, "id": "\x1b[2J"}, {**ROW, "id": "\x1b[2J"})
    with pytest.raises(SftscopeError, match="two probes") as error:
        read_probes(path, n_words=2, seed=0)
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("content", [None, b"", b"\n\n"])
def test_a_file_without_probes_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "p.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SftscopeError, match=r"no such file|at least one probe"):
        read_probes(path, n_words=2, seed=0)


def test_whole_numbers_are_their_digits_and_null_is_no_field(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"id": 7, "instruction": None, "input": "one two three four", "response": 42}) + "\n")
    (probe,) = read_probes(path, n_words=2, seed=0)
    assert (probe.id, probe.instruction, probe.response) == ("7", "", "42")
