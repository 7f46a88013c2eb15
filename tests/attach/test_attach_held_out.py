"""Held-out rows of an attached run: measured at every checkpoint, once, and the log stays the trainer's."""

import json

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from attached_runs import attached
from foreign_training import WORDS, examples, make_trainer, train, write_inputs
from sftscope.analysis.run.read_run import load_history
from sftscope.attach.attach import Choices, attach
from sftscope.store import RunFolder
from sftscope.store.held_out_file import read_held_out
from sftscope.verification.verify import verify


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attach")
    write_inputs(folder)
    for adapter, out in ((True, "lora"), (False, "full")):
        train(make_trainer(folder, adapter=adapter, out=out, eval_on_start=True, eval_steps=1))
    rows = [json.loads(line) for line in (folder / "probes.jsonl").read_text().splitlines()]
    rows = [{**row, "output": row.pop("response")} for row in rows]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")  # PEFT asks for it
def test_each_row_is_measured_at_each_checkpoint(inputs, tmp_path):
    run = attached(inputs, inputs / "lora", tmp_path / "run", held_out=str(inputs / "rows.jsonl"))
    found, problems = read_held_out(run)
    assert problems == ()
    assert found.steps.tolist() == found.correct_steps.tolist() == [0, 2, 4, 6]
    tokenizer = AutoTokenizer.from_pretrained(inputs / "toy")
    for place, step in enumerate(found.steps.tolist()):
        model = AutoModelForCausalLM.from_pretrained(inputs / "toy", dtype=torch.float32)
        if step:
            model = PeftModel.from_pretrained(model, inputs / "lora" / f"checkpoint-{step}")
        for row, example in enumerate(examples(tokenizer, 3)):  # the last two tokens that are no padding
            ids = [token for token in example["labels"] if token != -100]
            with torch.no_grad():
                logits = model.eval()(input_ids=torch.tensor([ids])).logits[0, -3:-1]
            logs = torch.log_softmax(logits, -1)
            assert found.loss[place, row] == pytest.approx(-(logs[0, ids[-2]] + logs[1, ids[-1]]).item(), rel=1e-4)
            assert found.correct[place, row] == (logits.argmax(-1).tolist() == ids[-2:])
    assert verify(run.path).damaged == ()


def test_evaluations_between_checkpoints_are_the_trainers(inputs, tmp_path):
    run = attached(inputs, inputs / "lora", tmp_path / "run", held_out=str(inputs / "rows.jsonl"))
    history = load_history(run.path)
    assert history.held_out is not None
    assert history.measured["eval"].steps.tolist() == [0, 1, 2, 3, 4, 5, 6]
    at_checkpoints = np.isin(history.measured["eval"].steps, history.steps)
    assert history.measured["eval"].values[at_checkpoints].tolist() == history.losses["eval"].tolist()
    assert history.measured["accuracy"].values.tolist() == history.held_out.accuracy.tolist()
    assert history.until(1).measured["eval"].steps.tolist() == [0, 1, 2]


def test_whole_models_are_measured_before_their_copies_are_dropped_and_only_once(inputs, tmp_path, capsys):
    given = {"held_out": str(inputs / "rows.jsonl"), "held_out_rows": 2}
    run = attached(inputs, inputs / "full", tmp_path / "run", **given)
    found, _ = read_held_out(run)
    assert found.loss.shape == (4, 2)
    before = run.held_out_file.read_bytes()
    capsys.readouterr()
    attached(inputs, inputs / "full", tmp_path / "run", **given)
    assert run.held_out_file.read_bytes() == before
    assert "held-out rows" not in capsys.readouterr().err


def test_rows_can_be_asked_for_later(inputs, tmp_path):
    run = attached(inputs, inputs / "lora", tmp_path / "run")
    assert load_history(run.path).held_out is None
    attached(inputs, inputs / "lora", tmp_path / "run", held_out=str(inputs / "rows.jsonl"))
    assert load_history(run.path).held_out.steps.tolist() == [0, 2, 4, 6]


def test_losses_count_what_the_template_has_after_an_answer_where_it_is_asked_for(inputs, tmp_path):
    """A line break after the token that ends an answer, say; here a word. Whether an answer is right stays the same."""
    template = json.loads((inputs / "toy" / "tokenizer_config.json").read_text()).get("chat_template")
    template = template or (inputs / "toy" / "chat_template.jinja").read_text()
    (tmp_path / "template.jinja").write_text(template.replace("<eos> ", "<eos> and "))
    settings = {
        "model": {"path": str(inputs / "toy"), "device": "cpu", "template_file": str(tmp_path / "template.jinja")},
        "probes": {"n_words": WORDS},
    }
    found = {}
    for end in ("token", "template"):
        choices = Choices(settings=settings, held_out=str(inputs / "rows.jsonl"), trained_end=end, steps=frozenset([2]))
        attach(inputs / "lora", tmp_path / end, inputs / "probes.jsonl", choices)
        found[end], _ = read_held_out(RunFolder(tmp_path / end))
        assert RunFolder(tmp_path / end).read_run()["attached"]["trained_end"] == end  # `compare` says it
    assert (found["token"].tokens.tolist(), found["template"].tokens.tolist()) == ([2, 2, 2], [3, 3, 3])
    assert (found["template"].loss > found["token"].loss).all()
    assert (found["template"].correct == found["token"].correct).all()
