"""Held-out rows within someone else's training: those of its eval dataset, as its own evaluation sees them."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset

from foreign_training import make_trainer, write_inputs
from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.settings import settings_from_tables
from sftscope.monitor.eval_rows import choose_rows, read_rows, write_rows
from sftscope.store import RunFolder
from sftscope.store.held_out_file import read_held_out


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval-rows")
    write_inputs(folder)
    return folder


def test_none_are_measured_where_none_are_wanted_or_they_have_no_tokens(inputs, tmp_path, caplog):
    trainer = make_trainer(inputs, out=str(tmp_path / "out"))
    settings = settings_from_tables({"model": {"path": "x"}, "probes": {"file": "x"}}, trained_here=False)
    assert choose_rows(trainer, False, 0, settings) == []
    trainer.eval_dataset = [{"text": "the room was quiet"}]
    with caplog.at_level("WARNING"):
        assert choose_rows(trainer, None, 0, settings) == []
    packed = {"input_ids": [5, 6, 7, 8], "labels": [5, 6, 7, 8], "seq_lengths": [2, 2]}
    with pytest.raises(SftscopeError, match="rows are packed"):
        choose_rows(trainer, [packed], 0, settings)
    trainer.eval_dataset = None
    assert choose_rows(trainer, None, 0, settings) == []
    with pytest.raises(SftscopeError, match=r"held_out: cannot be read as the trainer's rows are: .*input_ids"):
        choose_rows(trainer, [{"text": "quiet"}], 0, settings)


def test_rows_are_what_the_collator_makes_of_them(inputs, tmp_path):
    """Padding, and what comes after the answer, is left out; other columns too; at most as many as wanted."""
    trainer = make_trainer(inputs, out=str(tmp_path / "out"))
    settings = settings_from_tables({"model": {"path": "x"}, "probes": {"file": "x"}}, trained_here=False)
    rows = Dataset.from_list(
        [
            {"text": "a", "input_ids": [5, 6, 7, 8, 0, 0], "labels": [-100, -100, 7, -100, 9, -100]},
            {"text": "b", "input_ids": [5, 6, 7, 8, 0, 0], "labels": [5, -100, -100, -100, -100, -100]},
        ]
    )
    found = choose_rows(trainer, rows, 0, settings)
    assert [(each.input_ids, each.labels) for each in found] == [((5, 6, 7, 8, 0), (-100, -100, 7, -100, 9))]
    assert len(choose_rows(trainer, rows, 1, settings)) <= 1
    folder = RunFolder(tmp_path)
    write_rows(folder, found)
    held_out = read_rows(folder)
    assert held_out is not None
    assert held_out.examples == found
    held_out.measure(trainer.model, folder, 3)
    measured, _ = read_held_out(folder)
    with torch.no_grad():
        logs = torch.log_softmax(trainer.model.eval()(input_ids=torch.tensor([[5, 6, 7, 8, 0]])).logits[0], -1)
    np.testing.assert_allclose(measured.loss[0, 0], -(logs[1, 7] + logs[3, 9]).item(), rtol=1e-5)
    assert measured.tokens.tolist() == [2]
    held_out.measure(trainer.model, folder, 3)  # known: not again
    assert len((tmp_path / "held_out.jsonl").read_text().splitlines()) == 2
    write_rows(folder, [])
    assert read_rows(folder) is None


def test_a_data_file_takes_the_place_of_the_eval_dataset(inputs, tmp_path):
    rows = [json.loads(line) for line in (inputs / "probes.jsonl").read_text().splitlines()]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({**row, "output": row["response"]}) + "\n" for row in rows[:2]))
    settings = settings_from_tables(
        {"model": {"path": str(inputs / "toy")}, "probes": {"file": "x"}}, trained_here=False
    )
    trainer = make_trainer(inputs, out=str(tmp_path / "out"))
    assert len(choose_rows(trainer, file, 0, settings)) == 2
