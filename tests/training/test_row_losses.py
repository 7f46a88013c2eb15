"""The loss of a set is Σ loss / Σ tokens over its rows: one number, whatever the micro-batch."""

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainingArguments

from sftscope.training.answer_loss import AnswerLossTrainer
from sftscope.training.answers import read_answers, rows_id
from sftscope.training.data.examples import IGNORED, Collator, Example
from sftscope.training.row_losses import RowLossTrainer, row_sums
from toy_llm import toy_model

BATCHES = (1, 4, 32)


def held_out(count=32):
    """Prompts of 3 to 19 tokens with answers of 1 to 20; half of them short."""
    rng = np.random.default_rng(3)
    made = []
    for number in range(count):
        answer = 1 if number % 2 else 1 + int(rng.integers(0, 20))
        prompt = int(rng.integers(3, 20))
        ids = tuple(rng.integers(6, 120, size=prompt + answer).tolist())
        made.append(Example(ids, (IGNORED,) * prompt + ids[prompt:]))
    return made


def evaluated(kind, architecture, batch, folder):
    """What `kind` logs of the 32 rows, and the rows that it hands over."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        report_to=[],
        per_device_eval_batch_size=batch,
        label_names=["labels"],
        prediction_loss_only=True,
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    trainer = kind(
        model=toy_model(architecture), args=arguments, eval_dataset={"eval": held_out()}, data_collator=Collator(0)
    )
    taken = []
    trainer.take_rows = lambda *given: taken.append(given)
    return trainer.evaluate(), taken


def one_by_one(architecture):
    """Σ loss and tokens of each row from its own forward pass, without padding, by log-softmax."""
    model, sums = toy_model(architecture), []
    for example in held_out():
        ids = torch.tensor([example.input_ids])
        logs = torch.log_softmax(model(input_ids=ids).logits[0, :-1].double(), -1)
        wanted = [(place, token) for place, token in enumerate(example.labels[1:]) if token != IGNORED]
        sums.append((-sum(logs[place, token].item() for place, token in wanted), len(wanted)))
    return np.array(sums)


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize("kind", [RowLossTrainer, AnswerLossTrainer])
def test_the_same_weights_have_one_loss_whatever_the_micro_batch(kind, architecture, tmp_path):
    expected = one_by_one(architecture)
    for batch in BATCHES:
        metrics, [(side, step, loss, tokens)] = evaluated(kind, architecture, batch, tmp_path)
        assert (side, step) == ("eval", 0)
        assert tokens.tolist() == expected[:, 1].tolist()
        np.testing.assert_allclose(loss, expected[:, 0], rtol=1e-5)
        assert metrics["eval_eval_loss"] == pytest.approx(expected[:, 0].sum() / expected[:, 1].sum(), rel=1e-6)
        per_row = (expected[:, 0] / expected[:, 1]).mean()
        assert metrics["eval_eval_loss_per_row"] == pytest.approx(per_row, rel=1e-6)


def test_the_stock_trainer_has_another_number_for_each(tmp_path):
    """What this is for: the mean of the batches' means depends on the batches."""
    losses = [evaluated(Trainer, "llama", batch, tmp_path)[0]["eval_eval_loss"] for batch in BATCHES]
    assert np.ptp(losses) > 5e-3 * np.mean(losses)
    rows = one_by_one("llama")
    assert losses[0] == pytest.approx((rows[:, 0] / rows[:, 1]).mean(), rel=1e-5)  # a row at a time: their mean
    assert losses[-1] == pytest.approx(rows[:, 0].sum() / rows[:, 1].sum(), rel=1e-5)  # all at once: a token's mean


def test_what_is_measured_without_a_trainer_is_the_same():
    found, expected = read_answers(toy_model("llama"), held_out(), batch_size=5), one_by_one("llama")
    np.testing.assert_allclose(found.loss, expected[:, 0], rtol=1e-5)
    assert found.tokens.tolist() == expected[:, 1].tolist()


def test_sums_by_hand():
    """Two rows of uniform logits over 4 tokens: ln 4 for each token of the answer, none for prompt and padding."""
    labels = torch.tensor([[IGNORED, IGNORED, 2, 3], [IGNORED, 1, IGNORED, IGNORED]])
    sums = row_sums(torch.zeros(3, 4), labels)
    np.testing.assert_allclose(sums, [[2 * np.log(4), 2], [np.log(4), 1]])


def test_a_very_first_token_has_nothing_before_it():
    labels = torch.tensor([[5, 6, 7]])
    assert row_sums(torch.zeros(2, 9), labels)[0, 1] == 2
    assert read_answers(toy_model("llama"), [Example((5, 6, 7), (5, 6, 7))], batch_size=1).tokens.tolist() == [2]


def test_rows_are_told_apart_by_their_tokens_and_their_order():
    rows = held_out()
    assert rows_id(rows) == rows_id(held_out())
    assert len({rows_id(rows), rows_id(rows[::-1]), rows_id(rows[:-1])}) == 3
