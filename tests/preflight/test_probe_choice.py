"""`sftscope probes`: of every label or length, held-out or trained rows, and only where the model reacts."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from command_line import fails_with_one_line, sftscope
from sftscope.demo import FOLDER
from sftscope.inputs.probes import read_probes
from sftscope.training.data.probe_rows import candidates
from sftscope.training.data.shapes import Row


def rows_of(answers: list[str], *, lengths: bool = False) -> list[Row]:
    return [Row("Feel?", f"text {'x' * (n if lengths else 1)} number {n}", answer) for n, answer in enumerate(answers)]


def test_every_label_comes_before_one_comes_again():
    rows = rows_of(["joy"] * 12 + ["fear"] * 6 + ["anger"] * 2)
    chosen = [rows[place].response for place in candidates(rows, 5, seed=0)]
    assert chosen[:6] == ["joy", "fear", "anger"] * 2
    assert Counter(chosen) == {"joy": 12, "fear": 6, "anger": 2}
    assert list(candidates(rows, 5, seed=0)) == list(candidates(rows, 5, seed=0))
    assert list(candidates(rows, 5, seed=0)) != list(candidates(rows, 5, seed=1))


def test_free_text_comes_from_every_range_of_lengths():
    rows = rows_of([f"an answer of its own, {n}" for n in range(40)], lengths=True)
    first = list(candidates(rows, 4, seed=3))[:4]
    assert sorted(place // 10 for place in first) == [0, 1, 2, 3]


def test_conversations_and_repeated_prompts_are_no_probes():
    row = Row("Feel?", "fine", "joy")
    again, later = Row("Feel?", "fine", "fear"), Row("Feel?", "so so", "joy", history=(("user", "hi"),))
    assert list(candidates([row, again, later], 2, seed=0)) == [0]


def test_probes_of_a_config_are_tried_on_its_model(tmp_path: Path):
    """The demo's model reacts to some of its rows and hardly to others."""
    out = tmp_path / "made.jsonl"
    said = sftscope("probes", FOLDER / "config.toml", "--count", "4", "--group", "both", "--out", out).stdout
    assert re.search(r"4 probes \(2 held-out, 2 train\), 2 different answers\n\d+ rows were left out: with all", said)
    assert "was not tried" not in said
    assert [json.loads(line)["group"] for line in out.read_text().splitlines()] == ["held-out"] * 2 + ["train"] * 2


def test_probes_of_data_are_read_by_a_run_and_never_replace_a_file(tmp_path: Path):
    data, out = tmp_path / "rows.jsonl", tmp_path / "made.jsonl"
    rows = [
        {"instruction": "Feel?", "input": f"the room number {n} was calm", "output": "ab"[n % 2]} for n in range(16)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = sftscope("probes", data, "--count", "4", "--out", out).stdout
    assert "4 probes (4 held-out), 2 different answers" in said
    assert "was not tried" in said
    probes = read_probes(out, n_words=0, seed=0)
    assert [probe.group for probe in probes] == ["held-out"] * 4
    assert all(probe.words for probe in probes)
    assert "is there already" in fails_with_one_line("probes", data, "--out", out)
    assert "16 of the 17" in fails_with_one_line("probes", data, "--count", "17", "--out", tmp_path / "more.jsonl")


@pytest.mark.parametrize("group", ["seen", 3])
def test_a_group_that_is_none_is_one_line(tmp_path: Path, group: object):
    file = tmp_path / "probes.jsonl"
    file.write_text(json.dumps({"input": "the room was calm", "response": "a", "group": group}))
    with pytest.raises(Exception, match=r"line 1: field 'group': expected"):
        read_probes(file, n_words=0, seed=0)
