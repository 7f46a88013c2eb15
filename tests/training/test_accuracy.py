"""Held-out accuracy is what greedy decoding would get right, at every checkpoint, measured once."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from run_configs import write_config
from sftscope.runs import pipeline
from sftscope.store import RunFolder
from sftscope.store.held_out_file import read_held_out
from sftscope.training.answers import read_answers
from sftscope.training.data.examples import Example

EPOCHS = {"epochs = 2": "epochs = 8\naccuracy_rows = 9"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("accuracy")
    config = write_config(folder, **EPOCHS)
    pipeline.run(config, folder / "run")
    return config, RunFolder(folder / "run")


def measured(folder):
    return {row["step"]: row["accuracy"] for row in folder.read_log() if "accuracy" in row}


def share_generated(model, tokenizer, rows):
    """By writing each answer out, one at a time."""
    right = 0
    for row in rows:
        asked = [{"role": "user", "content": f"{row['instruction']}\n{row['input']}"}]
        text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        tokens = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        written = model.generate(tokens, max_new_tokens=4, do_sample=False, pad_token_id=0)[0, tokens.shape[1] :]
        right += tokenizer.decode(written, skip_special_tokens=False).split("<eos>")[0].strip() == row["output"]
    return right / len(rows)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")  # PEFT asks for it when it generates
def test_every_checkpoint_has_what_greedy_decoding_gets_right(run):
    config, folder = run
    toy = config.parent / "toy"
    rows = [json.loads(line) for line in (config.parent / "rows.jsonl").read_text().splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(toy)
    found = measured(folder)
    assert tuple(found) == folder.steps()
    assert found[max(found)] > found[0]
    # the 12 rows are 3 rows 4 times, and 9 of them are measured: a share of 12 tells which of the 3 are right
    for step, share in found.items():
        model = AutoModelForCausalLM.from_pretrained(toy, dtype=torch.float32)
        if step:
            model = PeftModel.from_pretrained(model, folder.checkpoints / f"checkpoint-{step}")
        generated = share_generated(model.eval(), tokenizer, rows)
        assert (share == 0.0, share == 1.0) == (generated == 0.0, generated == 1.0)
    assert {step: folder.read_step(step).losses["accuracy"] for step in folder.steps()} == found


def test_each_row_is_right_or_not_as_often_as_the_share_says(run):
    found, problems = read_held_out(run[1])
    assert problems == ()
    assert dict(zip(found.correct_steps.tolist(), found.accuracy.tolist(), strict=True)) == measured(run[1])
    assert found.correct.shape == (6, 9)
    assert found.loss.shape == (6, 12)  # `loss_rows` chooses its rows by itself


def test_whole_answers_of_any_length_are_right_or_not_each_at_its_place():
    class Follows(torch.nn.Module):
        """After token t most likely comes t + 1."""

        def get_input_embeddings(self):
            return torch.nn.Embedding(1, 1)

        def forward(self, input_ids, logits_to_keep, **_):
            logits = torch.nn.functional.one_hot(input_ids[:, -logits_to_keep:] + 1, 50).float()
            return type("Output", (), {"logits": logits})

    def example(prompt, answer):
        return Example((*prompt, *answer), (-100,) * len(prompt) + tuple(answer))

    right = [example([9, 3], [4, 5]), example([3], [4]), example([7, 7, 7], [8, 9, 10])]
    wrong = [example([9, 3], [4, 6]), example([3], [5]), example([1, 2], [4, 5]), example([1, 2], [3, 5, 6])]
    mixed = [wrong[0], *right, *wrong[1:]]
    assert read_answers(Follows(), mixed, batch_size=2).right.tolist() == [False, True, True, True, False, False, False]


def test_only_what_is_missing_is_measured(run, capsys):
    config, folder = run
    before = folder.training_log.read_text()
    kept = [line for line in before.splitlines() if '"step": 4, "kind": "checkpoint", "accuracy"' not in line]
    assert len(kept) == len(before.splitlines()) - 1
    folder.training_log.write_text("\n".join(kept) + "\n")
    capsys.readouterr()
    pipeline.train(config, folder.path)
    assert sorted(folder.training_log.read_text().splitlines()) == sorted(before.splitlines())
    said = capsys.readouterr().err
    assert "step 4:" in said
    assert "step 8:" not in said


def test_more_rows_are_measured_at_every_checkpoint_again(run, tmp_path):
    """`accuracy_rows` is free to change: all checkpoints then have the same rows again."""
    config, folder = run
    before = config.read_text()
    config.write_text(before.replace("accuracy_rows = 9", "accuracy_rows = 12"))
    try:
        pipeline.train(config, folder.path)
    finally:
        config.write_text(before)
    found, problems = read_held_out(folder)
    assert (found.correct.shape, problems) == ((6, 12), ())
