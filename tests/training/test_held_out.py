"""The held-out rows of a run: stored at every checkpoint, kept over kills, measured later where they are missing."""

import json
import shutil

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from run_configs import write_config
from sftscope.runs import pipeline
from sftscope.store import RunFolder
from sftscope.store.held_out_file import read_held_out

STEPS = [0, 1, 2, 4, 6]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("held_out")
    config = write_config(folder)
    pipeline.train(config, folder / "run")
    return config, RunFolder(folder / "run")


@pytest.fixture
def again(run, tmp_path):
    """(config, a copy of the run that can be changed)."""
    config, folder = run
    copy = folder.path.with_name(tmp_path.name)
    shutil.copytree(folder.path, copy)
    yield config, RunFolder(copy)
    shutil.rmtree(copy)


def lines_of(folder):
    return folder.held_out_file.read_text().splitlines()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")  # PEFT asks for it
def test_every_checkpoint_has_the_loss_of_each_row(run):
    """Of the base model and of each adapter, by a forward pass of one row at a time."""
    config, folder = run
    found, problems = read_held_out(folder)
    assert problems == ()
    assert found.steps.tolist() == STEPS
    tokenizer = AutoTokenizer.from_pretrained(config.parent / "toy")
    rows = [json.loads(line) for line in (config.parent / "rows.jsonl").read_text().splitlines()]
    for step, losses in zip(found.steps.tolist(), found.loss, strict=True):
        model = AutoModelForCausalLM.from_pretrained(config.parent / "toy", dtype=torch.float32)
        if step:
            model = PeftModel.from_pretrained(model, folder.checkpoints / f"checkpoint-{step}")
        for row, loss, count in list(zip(rows, losses, found.tokens, strict=True))[:3]:
            asked = [{"role": "user", "content": f"{row['instruction']}\n{row['input']}"}]
            prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
            answer = tokenizer(f"{row['output']} <eos>", add_special_tokens=False).input_ids
            ids = torch.tensor([tokenizer(prompt, add_special_tokens=False).input_ids + answer])
            with torch.no_grad():
                logs = torch.log_softmax(model.eval()(input_ids=ids).logits[0, -len(answer) - 1 : -1], -1)
            assert loss == pytest.approx(-sum(logs[i, token].item() for i, token in enumerate(answer)), rel=1e-4)
            assert count == len(answer)


def test_the_log_and_the_checkpoints_have_the_loss_of_the_rows(run):
    folder = run[1]
    found, _ = read_held_out(folder)
    rows = {row["step"]: row for row in folder.read_log() if "eval" in row}
    assert [rows[step]["eval"] for step in STEPS] == pytest.approx(found.loss_per_token.tolist(), rel=1e-7)
    assert [rows[step]["eval_per_row"] for step in STEPS] == pytest.approx(found.loss_per_row.tolist(), rel=1e-7)


def test_a_finished_run_is_not_measured_again(run, capsys):
    config, folder = run
    before = folder.held_out_file.read_bytes()
    pipeline.train(config, folder.path)
    assert folder.held_out_file.read_bytes() == before
    assert "held-out" not in capsys.readouterr().err


def test_a_run_without_the_rows_is_measured_where_its_weights_are(again, run):
    """As one of an earlier version: the same numbers as in training; a checkpoint that is gone is left out."""
    config, folder = again
    folder.held_out_file.unlink()
    shutil.rmtree(folder.checkpoints / "checkpoint-2")
    pipeline.train(config, folder.path)
    (found, problems), (expected, _) = read_held_out(folder), read_held_out(run[1])
    assert problems == ()
    assert found.steps.tolist() == [0, 1, 4, 6]
    np.testing.assert_allclose(found.loss, expected.loss[[0, 1, 3, 4]], rtol=1e-5)
    assert found.tokens.tolist() == expected.tokens.tolist()
    kept = [json.loads(line)["rows"] for line in lines_of(folder)]
    assert set(kept) == {json.loads(lines_of(run[1])[0])["rows"]}  # a later step of the training fits them


def test_a_torn_line_is_measured_again(again, run):
    config, folder = again
    lines = lines_of(folder)
    folder.held_out_file.write_text("\n".join([*lines[:-1], lines[-1][:50]]))
    pipeline.train(config, folder.path)
    (found, problems), (expected, _) = read_held_out(folder), read_held_out(run[1])
    assert problems == ()
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-5)


def test_a_training_that_was_killed_resumes_with_its_rows(again, run):
    """Killed after the evaluation of step 4 and before its save: step 4 is trained again, and its last line counts."""
    config, folder = again
    for step in (4, 6):
        shutil.rmtree(folder.checkpoints / f"checkpoint-{step}")
    folder.held_out_file.write_text("\n".join(lines_of(folder)[:4]) + "\n")
    pipeline.train(config, folder.path)
    assert [json.loads(line)["step"] for line in lines_of(folder)] == [0, 1, 2, 4, 4, 6]
    (found, problems), (expected, _) = read_held_out(folder), read_held_out(run[1])
    assert problems == ()
    assert np.array_equal(found.loss, expected.loss)


def test_without_held_out_data_nothing_is_stored(tmp_path):
    pipeline.train(write_config(tmp_path, **{'eval = "rows.jsonl"\n': ""}), tmp_path / "run")
    assert not RunFolder(tmp_path / "run").held_out_file.exists()
