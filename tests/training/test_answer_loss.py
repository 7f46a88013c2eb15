"""Logits at the answers only: the same losses and the same training as with logits everywhere."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainingArguments

from run_configs import write_config
from sftscope.runs import pipeline
from sftscope.store import RunFolder
from sftscope.training import answer_loss
from sftscope.training.answer_loss import AnswerLossTrainer, has_large_logits
from sftscope.training.data.examples import Collator, Example
from toy_llm import toy_model


def example(length, answer):
    ids = tuple((7 * i + 3 * length) % 100 + 10 for i in range(length))
    return Example(ids, (-100,) * (length - answer) + ids[length - answer :])


EXAMPLES = [example(9, 2), example(5, 1), example(12, 4), example(6, 3)]


def arguments(folder):
    return TrainingArguments(output_dir=str(folder), use_cpu=True, report_to=[])


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize("items", [None, 40])
def test_loss_and_gradients_are_those_of_logits_everywhere(architecture, items, tmp_path):
    found = []
    for kind in (Trainer, AnswerLossTrainer):
        model = toy_model(architecture).requires_grad_(True)
        shapes = []
        head = model.get_output_embeddings()
        head.register_forward_hook(lambda module, given, logits, shapes=shapes: shapes.append(logits.shape[:2]))
        trainer = kind(model=model, args=arguments(tmp_path))
        loss = trainer.compute_loss(model, dict(Collator(0)(EXAMPLES)), num_items_in_batch=items)
        loss.backward()
        found.append((loss.item(), [parameter.grad.clone() for parameter in model.parameters()], shapes[0]))
    (whole, expected, everywhere), (chosen, gradients, answers) = found
    assert chosen == pytest.approx(whole, rel=1e-6)
    for gradient, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6)
    assert tuple(everywhere) == (4, 12)
    assert tuple(answers) == (1, 2 + 1 + 4 + 3)


def test_outside_of_a_loss_the_model_gives_logits_everywhere(tmp_path):
    model = toy_model("llama")
    trainer = AnswerLossTrainer(
        model=model, args=TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    )
    trainer.compute_loss(model, dict(Collator(0)(EXAMPLES)))
    assert model(input_ids=torch.tensor([[5, 6, 7]])).logits.shape[:2] == (1, 3)


def test_positions_are_chosen_where_logits_are_large():
    model = toy_model("llama")  # a vocabulary of 120, at most 12 tokens
    enough = answer_loss.LARGE_LOGITS // (4 * 120 * 12)
    assert not has_large_logits(model, EXAMPLES, enough)
    assert has_large_logits(model, EXAMPLES, enough + 1)


def test_a_training_is_the_same_but_for_rounding(tmp_path, monkeypatch):
    rows, weights = [], []
    for name, limit in (("everywhere", 2**60), ("answers", 0)):
        monkeypatch.setattr(answer_loss, "LARGE_LOGITS", limit)
        folder = tmp_path / name
        folder.mkdir()
        pipeline.train(write_config(folder), folder / "run")
        run = RunFolder(folder / "run")
        logged = [json.loads(line) for line in run.training_log.read_text().splitlines()]
        rows.append([{key: value for key, value in row.items() if key != "kind"} for row in logged])
        weights.append(load_file(run.checkpoints / "checkpoint-6" / "adapter_model.safetensors"))
    for first, second in zip(*rows, strict=True):
        assert second == pytest.approx(first, rel=1e-3)
    for key, weight in weights[0].items():
        torch.testing.assert_close(weights[1][key], weight, rtol=1e-2, atol=1e-3)
