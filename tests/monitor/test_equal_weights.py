"""A first step of learning rate 0 in someone else's training: its weights are the base's, live and attached."""

import numpy as np
import pytest

from foreign_training import WORDS, make_trainer, train, write_inputs
from sftscope.analysis.run.read_run import load_history
from sftscope.attach.attach import Choices, attach
from sftscope.monitor import SftscopeCallback
from sftscope.store import RunFolder


@pytest.mark.parametrize("adapter", [True, False], ids=["adapter", "whole model"])
def test_step_one_of_a_warm_up_is_marked_live_and_attached(tmp_path, adapter):
    write_inputs(tmp_path)
    arguments = {"max_steps": 2, "warmup_steps": 2, "save_steps": 1, "eval_strategy": "no"}
    trainer = make_trainer(tmp_path, adapter=adapter, **arguments)
    live, copied = tmp_path / "live", tmp_path / "copied"
    probes = tmp_path / "probes.jsonl"
    trainer.add_callback(SftscopeCallback(trainer, probes=probes, out=live, words=WORDS, where="in-process"))
    train(trainer)
    attach(
        tmp_path / "out",
        copied,
        probes,
        Choices(settings={"model": {"path": str(tmp_path / "toy"), "device": "cpu"}, "probes": {"n_words": WORDS}}),
    )
    for run in map(RunFolder, (live, copied)):
        assert load_history(run.path).same_weights == {1: 0}
        base, first, second = (run.read_step(step) for step in (0, 1, 2))
        np.testing.assert_array_equal(first.scores, base.scores)
        assert np.abs(second.scores - base.scores).max() > 1e-4
        assert second.weights not in (base.weights, None)
