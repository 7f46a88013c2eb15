"""Tokens that a model has no embedding of are named, wherever they come from."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from command_line import sftscope
from toy_llm import save_toy_llm

_ROW = {"instruction": "how does the guest feel ?", "input": "the room was not happy", "output": "sad"}


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A base whose tokenizer knows a token more than its model, as after `add_tokens` without a resize."""
    base = save_toy_llm(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens([f"<|more{i}|>" for i in range(80)])
    tokenizer.save_pretrained(base)
    assert tokenizer.convert_tokens_to_ids("<|more79|>") >= 120
    row = _ROW | {"output": "sad <|more79|>"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    probe = {"id": "p", **_ROW, "response": "sad <|more79|>"}
    (tmp_path / "probes.jsonl").write_text(json.dumps(probe) + "\n")
    (tmp_path / "run.toml").write_text(
        '[model]\npath = "base"\ndevice = "cpu"\n[data]\ntrain = "rows.jsonl"\n[probes]\nfile = "probes.jsonl"\n'
        'n_words = 3\n[extraction]\ntarget = "all"\n[training]\nmax_steps = 1\n'
    )
    return tmp_path


def test_a_training_row_and_a_probe(inputs: Path) -> None:
    result = sftscope("run", inputs / "run.toml", "--out", inputs / "run")
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("sftscope: ")]
    assert result.returncode == 1
    assert "rows.jsonl: the token '<|more79|>' has the id" in line
    (inputs / "rows.jsonl").write_text(json.dumps(_ROW | {"output": "sad"}) + "\n")
    result = sftscope("run", inputs / "run.toml", "--out", inputs / "other")
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("sftscope: ")]
    assert result.returncode == 1
    assert "probe 'p': the token '<|more79|>' has the id" in line
