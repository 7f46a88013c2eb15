"""Words of scripts without spaces, characters and tokens as variables; English words stay what they were."""

import random
from pathlib import Path

import pytest

from sftscope.foundation.errors import SftscopeError
from sftscope.inputs import segmentation
from sftscope.inputs.probes import Probe, choose_variables, choose_words, read_probes, write_probes
from sftscope.inputs.segmentation import candidate_phrases, candidate_words, joined_by_tokens, tokens_as_spans

SAMPLE_RUNS = Path(__file__).parents[2] / "sample_runs"
CHINESE = "房间很吵，服务员、经理也不耐烦；下次不来。"


@pytest.fixture
def by_unicode(monkeypatch):
    """As where no dictionary is installed."""
    monkeypatch.setattr(segmentation, "_icu", lambda: None)


def texts(text, spans):
    return [text[start:end] for start, end in spans]


@pytest.mark.parametrize("run", ["smollm2", "gemma3"])
def test_the_words_of_the_sample_runs_are_chosen_as_they_were(run):
    for probe in read_probes(SAMPLE_RUNS / run / "probes.jsonl", n_words=1, seed=0):
        assert choose_words(probe.text, 9, random.Random(f"0:{probe.id}")) == probe.words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("我用iPhone15，很好！", ["我", "用", "iPhone15", "很", "好"]),
        ("古い港のコーヒー", ["古", "い", "港", "の", "コーヒー"]),
        ("ห้องเล็ก", ["ห้", "อ", "ง", "เ", "ล็", "ก"]),
        ("ຮັກ ok", ["ຮັ", "ກ", "ok"]),
        ("한국어 단어", ["한국어", "단어"]),  # has spaces
    ],
)
def test_words_within_a_run_are_those_of_the_unicode_standard(by_unicode, text, words):
    assert texts(text, candidate_words(text)) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("今天下午房间很吵", ["今天", "下午", "房间", "很", "吵"]),
        ("ห้องพักเล็กและเสียงดัง", ["ห้อง", "พัก", "เล็ก", "และ", "เสียง", "ดัง"]),
        ("😀昨日、港に", ["😀", "昨日", "港", "に"]),
    ],
)
def test_with_icu_they_are_those_of_a_dictionary(text, words):
    pytest.importorskip("icu4py")
    assert texts(text, candidate_words(text)) == words


def test_phrases_of_scripts_without_spaces_end_at_punctuation_and_spaces():
    assert texts(CHINESE, candidate_phrases(CHINESE)) == ["房间很吵", "服务员", "经理也不耐烦", "下次不来"]
    assert texts("ห้องเล็ก เสียงดัง", candidate_phrases("ห้องเล็ก เสียงดัง")) == ["ห้องเล็ก", "เสียงดัง"]


def test_function_words_are_chosen_last_and_negations_are_not_among_them(by_unicode):
    text = "我的房间不吵"
    assert texts(text, choose_words(text, 4, random.Random(0))) == ["房", "间", "不", "吵"]


def test_neighbours_that_share_a_token_are_one_variable_and_words_apart_stay(by_unicode):
    words = candidate_words("今天很吵")
    assert texts("今天很吵", joined_by_tokens("今天很吵", words, [(0, 2), (2, 3), (3, 4), (3, 4)])) == [
        "今天",
        "很",
        "吵",
    ]
    assert texts("今天很吵", joined_by_tokens("今天很吵", words, [(0, 1), (1, 3), (2, 4)])) == ["今", "天很吵"]
    assert texts("a good day", joined_by_tokens("a good day", candidate_words("a good day"), [(0, 10)])) == [
        "a",
        "good",
        "day",
    ]


def test_tokens_and_characters_are_variables_of_code():
    text = "if x:\n  é += 1"
    tokens = [(-3, 0), (0, 2), (2, 4), (4, 5), (5, 8), (8, 9), (8, 9), (9, 12), (12, 14), (14, 16)]
    assert texts(text, tokens_as_spans(text, tokens)) == ["if", "x", ":", "é", "+=", "1"]
    assert len(choose_variables(text, "tokens", 3, random.Random(0), tokens)) == 3
    assert texts("né 😀!", choose_variables("né 😀!", "characters", 9, random.Random(0))) == ["n", "é", "😀"]


ROW = '{"id": "a", "instruction": "how?", "input": "the room was not happy but quiet", "response": "bad"}\n'


def read(path, **settings):
    told = []
    probes = read_probes(path, **{"n_words": 0, "seed": 0, "note": told.append, **settings})
    return probes, told


def test_fewer_words_than_the_default_are_taken_and_told_and_a_given_number_is_asked_for(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(ROW + ROW.replace('"a"', '"b"').replace("quiet", "quiet and warm and bright and calm"))
    (a, b), told = read(path)
    assert a.variables == ("the", "room", "was", "not", "happy", "but", "quiet")
    assert len(b.words) == 10
    assert told == ["1 of 2 probes have fewer than 10 words, the default: all of theirs are variables (a: 7)"]
    with pytest.raises(SftscopeError, match=r"too few words in probe 'a': 7 of the 10 asked for"):
        read(path, n_words=10)
    assert read(path, n_words=7)[1] == []


def test_a_probe_of_one_word_is_taken_and_one_of_none_is_refused(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"instruction": "Why?", "response": "x"}\n')
    assert read(path)[0][0].variables == ("Why",)
    path.write_text('{"instruction": "?!", "response": "x"}\n')
    with pytest.raises(SftscopeError, match="0 of the 1 asked for"):
        read(path)


def test_words_that_were_chosen_before_stay_and_who_found_them_is_stored(by_unicode, tmp_path, monkeypatch):
    path, stored = tmp_path / "p.jsonl", tmp_path / "stored.jsonl"
    path.write_text(f'{{"id": "zh", "instruction": "{CHINESE}", "response": "x"}}\n', encoding="utf-8")
    first, told = read(path)
    assert "single characters" in told[0]
    assert first[0].words_by == "unicode"
    stored.write_text(write_probes(first), encoding="utf-8")
    assert read(stored)[0] == first
    monkeypatch.setattr(segmentation, "_icu", lambda: lambda text, locale: [text])  # another machine
    assert read(path)[0] != first
    assert read(path, chosen=first) == (first, [])


@pytest.mark.parametrize("name", ["p.json", "p.jsonl", "p.jsonl.gz"])
def test_probes_are_read_as_lines_as_a_list_and_compressed(tmp_path, name):
    import gzip

    path = tmp_path / name
    data = (ROW if name != "p.jsonl" else f"[{ROW}]").encode()
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert read(path)[0] == (Probe("a", "how?", "the room was not happy but quiet", "bad", read(path)[0][0].words),)
