"""Real trainings by TRL: attached without a flag, and watched while they run."""

import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from foreign_training import WORDS, write_inputs
from sftscope.analysis.run.read_run import load_history
from sftscope.attach.attach import Choices, attach
from sftscope.store import RunFolder
from strangers import SUPPORT, among, write_strangers

pytestmark = pytest.mark.skipif(find_spec("trl") is None, reason="TRL is not installed: it is in the extra `dev`")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with what SFTTrainer left of its trainings, begun among modules of a stranger's.

    In a process of its own, since TRL warns of much.
    """
    folder = tmp_path_factory.mktemp("trl")
    write_inputs(folder)
    strangers = write_strangers(tmp_path_factory.mktemp("strangers"))
    trainings = ["lora", "full", "lora-in-process", "lora-sidecar"]
    command = [sys.executable, str(SUPPORT / "trl_training.py"), str(folder), *trainings]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, **among(strangers))
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def logged(out):
    return json.loads((out / "history.json").read_text())


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_checkpoints_of_trl_are_attached_with_its_losses(inputs, kind):
    out = inputs / kind
    log = logged(out)
    settings = {"model": {"path": str(inputs / "toy"), "device": "cpu"}, "probes": {"n_words": WORDS}}
    attach(out, inputs / f"run-{kind}", inputs / "probes.jsonl", Choices(settings=settings))
    history = load_history(inputs / f"run-{kind}")
    assert history.steps.tolist() == [0, 2, 4, 6]
    evals = {row["step"]: row["eval_loss"] for row in log if "eval_loss" in row}
    losses = {row["step"]: row["loss"] for row in log if "loss" in row}
    assert history.losses["eval"].tolist() == [evals[step] for step in (0, 2, 4, 6)]
    assert history.losses["train"][1:].tolist() == [losses[step] for step in (2, 4, 6)]
    assert np.abs(history.probes[0].scores[-1] - history.probes[0].scores[0]).max() > 0.01


def test_the_callback_in_an_sfttrainer_changes_nothing_of_it(inputs):
    out = inputs / "lora-in-process"
    watched, alone = logged(out), logged(inputs / "lora")
    names = ("loss", "eval_loss", "grad_norm", "entropy", "mean_token_accuracy")
    assert [[row.get(name) for name in names] for row in watched if "sftscope/encoded" not in row][:-1] == [
        [row.get(name) for name in names] for row in alone
    ][:-1]
    assert [row["sftscope/step"] for row in watched if "sftscope/encoded" in row] == [0, 2, 4, 6]
    live, copied = RunFolder(out / "run"), inputs / "run-again"
    settings = {"model": {"path": str(inputs / "toy"), "device": "cpu"}, "probes": {"n_words": WORDS}}
    attach(out, copied, inputs / "probes.jsonl", Choices(settings=settings))
    for step in (0, 2, 4, 6):
        np.testing.assert_allclose(live.read_step(step).scores, RunFolder(copied).read_step(step).scores, atol=1e-5)


def test_the_sidecar_extracts_what_the_trainer_did(inputs):
    sidecar, live = (RunFolder(inputs / f"lora-{where}" / "run") for where in ("sidecar", "in-process"))
    assert sidecar.steps() == live.steps() == (0, 2, 4, 6)
    for step in sidecar.steps():
        np.testing.assert_allclose(sidecar.read_step(step).scores, live.read_step(step).scores, atol=1e-5)
    assert "a stranger" not in (sidecar.path / "sidecar.log").read_text()
