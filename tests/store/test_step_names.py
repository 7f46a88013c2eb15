"""A step has one name in each folder, and a number one way to be written: never one of two, never a silent guess."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sample_history import write_sample_run
from sftscope.attach.attach import Choices, _Intake
from sftscope.attach.layouts import Source, find_checkpoints
from sftscope.cli.options import numbers_in, shard_in
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import whole_number
from sftscope.inputs.settings import ModelSettings
from sftscope.store import RunFolder
from sftscope.store.checkpoints import list_checkpoints, misnamed_checkpoints
from sftscope.store.steps.step_record import MAX_STEP
from sftscope.training.data.rows import _label_names
from sftscope.verification.verify import verify
from sftscope_tui.state.start_options import Start

LONG = "9" * 5000  # more digits than Python turns into a number
ODD_NUMBERS = ["1_000", "²", "٣", "-8", "+8", "1e3", "0x10", "9" * 19, LONG, "", " "]
ODD_NAMES = [f"checkpoint-{number}" for number in ("04", "٣", "00", MAX_STEP + 1, "1_0", "-4")]


def checkpoint(folder: Path, name: str, step: int) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return folder / name


@pytest.mark.parametrize("text", ODD_NUMBERS, ids=lambda text: text[:8])
def test_a_number_is_ascii_digits(text: str) -> None:
    assert whole_number(text) is None
    with pytest.raises(SftscopeError, match=r"^--steps .{0,80}: expected step numbers joined by commas"):
        numbers_in(f"8,{text}")
    with pytest.raises(SftscopeError, match=r"^--shard .{0,80}: expected I/N"):
        shard_in(f"1/{text}")
    with pytest.raises(SftscopeError, match="outside the list"):
        _label_names(f"0,{text}", ["joy"], "row 1", "labels.txt")
    if text:
        with pytest.raises(SftscopeError, match="expected a step number or 'previous'"):
            Start.parse(base=text)


def test_what_is_a_number_stays_one() -> None:
    assert numbers_in("0, 8,016") == (0, 8, 16)
    assert numbers_in("") is None
    assert shard_in("1/4") == (1, 4)
    assert whole_number(str(MAX_STEP)) == MAX_STEP


def test_checkpoints_have_the_names_that_trainers_give_them(tmp_path: Path) -> None:
    """A copy named checkpoint-04 is neither taken for step 4 nor passed over in silence."""
    for name in ODD_NAMES:
        checkpoint(tmp_path, name, 4)
    for name, step in (("checkpoint-4", 4), ("checkpoint-0", 0), (f"checkpoint-{MAX_STEP}", MAX_STEP)):
        checkpoint(tmp_path, name, step)
    checkpoint(tmp_path, "checkpoint-best", 4)
    assert [each.step for each in list_checkpoints(tmp_path)] == [0, 4, MAX_STEP]
    assert [each.path.name for each in find_checkpoints(tmp_path)][1] == "checkpoint-4"
    assert sorted(path.name for path in misnamed_checkpoints(tmp_path)) == sorted(ODD_NAMES)
    assert not find_checkpoints(tmp_path / "checkpoint-٣")


def test_a_training_with_an_odd_name_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint(tmp_path / "out", "checkpoint-04", 4)
    _Intake(
        Source(tmp_path / "out"), RunFolder(tmp_path / "run"), Choices(settings={}), "", ModelSettings(path="m")
    ).refuse_incomplete()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {tmp_path}/out/checkpoint-04: left out: expected checkpoint-N")


def test_verify_notes_odd_names_and_counts_no_file_twice(tmp_path: Path) -> None:
    """step_000000001.h5 beside step_00000001.h5, a draft of that kind, and a checkpoint beyond the last step."""
    run = RunFolder(write_sample_run(tmp_path / "run", n_steps=3, n_probes=1))
    names = ("step_000000001.h5", "step_1.scores.h5", f"step_{LONG[:13]}.scores.h5")
    odd = [run.steps_folder / name for name in names]
    for file in odd:
        file.write_bytes(run.step_file(1).read_bytes())
    checkpoint(run.checkpoints, f"checkpoint-{MAX_STEP + 1}", MAX_STEP + 1)
    assert run.steps() == (0, 1, 2)
    (run.path / "blocks" / "step_000000001").mkdir(parents=True)
    assert not run.steps_with_blocks()
    notes = {each.file: each.what for each in verify(run.path).findings if each.kind == "note"}
    assert {f"steps/{file.name}" for file in odd} < notes.keys()
    assert "expected checkpoint-N" in notes[f"checkpoints/checkpoint-{MAX_STEP + 1}"]


def test_the_last_step_that_is_allowed_can_be_read_back(tmp_path: Path) -> None:
    run = RunFolder(write_sample_run(tmp_path / "run", n_steps=1, n_probes=1))
    run.write_step(replace(run.read_step(0), step=MAX_STEP))
    assert run.steps() == (0, MAX_STEP)
    assert np.isfinite(run.read_step(MAX_STEP).scores).all()
