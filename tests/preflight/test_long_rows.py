"""Rows and probes longer than the positions that a model has learned: said before anything runs, cut in training."""

import json
from pathlib import Path

import pytest

from run_configs import write_config
from sftscope.compat.positions import Positions
from sftscope.foundation.errors import SftscopeError
from sftscope.preflight import inspection
from sftscope.preflight import plan as planner
from sftscope.training.data.row_limit import row_limit

LIMIT = 32


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config with GPT-2 of 32 positions, of whose rows two are longer."""
    config = write_config(tmp_path, architecture="gpt2")
    file = tmp_path / "toy" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "n_positions": LIMIT}))
    _cut_positions(tmp_path / "toy" / "model.safetensors")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    for row in rows[:2]:
        row["input"] = "the room was not happy but quiet " * 6
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return config


def _cut_positions(weights: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights)
    name = next(name for name in tensors if name.endswith("wpe.weight"))
    save_file({**tensors, name: tensors[name][:LIMIT].clone()}, weights, {"format": "pt"})


def test_plan_and_inspect_say_which_rows_are_too_long(config: Path) -> None:
    for warnings in (planner.plan(config).warnings, inspection.inspect(config).warnings):
        (line,) = [line for line in warnings if "positions" in line]
        assert line.startswith("2 of 12 rows are too long (the first, ")
        assert f"the model has learned {LIMIT} positions (n_positions): they are cut there" in line
    assert inspection.inspect(config).cut.cutoff == LIMIT


def test_a_probe_that_is_too_long_is_one_line_in_both(config: Path) -> None:
    probe = {"id": "long", "input": "the room was not happy but quiet " * 6, "response": "sad"}
    (config.parent / "probes.jsonl").write_text(json.dumps(probe) + "\n")
    for command in (planner.plan, inspection.inspect):
        with pytest.raises(SftscopeError, match=rf"^probe 'long': \d+ tokens, and the model has learned {LIMIT}"):
            command(config)


def test_rotary_models_compute_beyond_their_positions() -> None:
    assert row_limit(100, Positions(64, True, "n_positions")) == 64
    assert row_limit(100, Positions(64, False, "max_position_embeddings")) == 100
    assert row_limit(50, Positions(64, True, "n_positions")) == 50
    assert row_limit(50, Positions()) == 50
