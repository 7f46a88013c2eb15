"""A faster precision is measured before it is used, chosen once per run, and leaves no trace in PyTorch's settings."""

import json
import shutil

import numpy as np
import pytest
import torch

from run_configs import write_config
from sftscope.foundation.errors import SftscopeError
from sftscope.llm.arithmetic import Arithmetic, worth_trying
from sftscope.runs import pipeline
from sftscope.scoring import precision_choice as choice
from sftscope.scoring.masking import baseline_vector
from sftscope.scoring.scorer import COPY_FREE, TOLERANCE, Scorer
from sftscope.store import RunFolder
from toy_llm import toy_model, toy_prompt

CONFIG = {"check_states = 4": 'check_states = 4\ndtype = "bfloat16"'}


@pytest.fixture
def auto(tmp_path):
    """A run with `auto`, begun and not extracted."""
    config = write_config(tmp_path, **{"check_states = 4": 'check_states = 4\ndtype = "auto"'})
    pipeline.train(config, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def trial(precision, jaccard, speed):
    return choice.Trial(precision, jaccard, 1e-3, speed, (0, 6))


def test_three_products_are_as_exact_as_sixteen_bits_and_nothing_is_left_changed():
    model = toy_model("llama")
    layer = model.model.layers[0].mlp.up_proj
    x = torch.randn(5, 7, layer.in_features, generator=torch.Generator().manual_seed(0))
    exact = torch.nn.functional.linear(x.double(), layer.weight.double())
    before = torch.get_float32_matmul_precision()

    def error(product):
        return float((product - exact).norm() / exact.norm())

    def interrupted():
        with Arithmetic(model, "mixed").active():
            assert "forward" in vars(layer)
            assert error(layer(x)) < 1e-5 < 1e-3 < error((x.bfloat16() @ layer.weight.bfloat16().T).float())
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert torch.get_float32_matmul_precision() == before
    assert error(layer(x)) < 1e-6
    assert "forward" not in vars(layer)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3", "gpt2"])  # qwen2 has biases
def test_mixed_scores_are_those_of_float32_to_its_tolerance(architecture):
    model, prompt = toy_model(architecture), toy_prompt()
    baseline = baseline_vector(model, "mean")
    exact = Scorer(model, baseline, 1e9).score(prompt)
    mixed = Scorer(model, baseline, 1e9, precision="mixed")
    assert mixed.method == COPY_FREE
    np.testing.assert_allclose(mixed.score(prompt), exact, atol=TOLERANCE["mixed"], rtol=0)
    np.testing.assert_array_equal(Scorer(model, baseline, 1e9).score(prompt), exact)


def test_weights_that_change_are_split_again():
    model, prompt = toy_model("llama"), toy_prompt()
    baseline = baseline_vector(model, "mean")
    mixed = Scorer(model, baseline, 1e9, precision="mixed")
    before = mixed.score(prompt)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.mul_(1.5)
    mixed.weights_changed()
    expected = Scorer(model, baseline, 1e9).score(prompt)
    assert np.abs(expected - before).max() > 1e-2
    np.testing.assert_allclose(mixed.score(prompt), expected, atol=TOLERANCE["mixed"], rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["tf32", "mixed"])
def test_reduced_products_on_cuda_stay_within_their_tolerance(precision):
    model, prompt = toy_model("llama").cuda(), toy_prompt()
    baseline = baseline_vector(model, "mean")
    exact = Scorer(model, baseline, 1e9).score(prompt)
    scorer = Scorer(model, baseline, 1e9, precision=precision)
    np.testing.assert_allclose(scorer.score(prompt), exact, atol=TOLERANCE[precision], rtol=0)
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_named_precision_is_used_measured_once_and_kept_with_every_step(fresh, capsys, monkeypatch):
    pipeline.extract(fresh.path, steps=[0])
    said = capsys.readouterr().err
    kept = fresh.read_step(0).provenance
    (candidate,) = kept["precision"]["candidates"]
    assert kept["dtype"] == kept["precision"]["taken"] == candidate["precision"] == "bfloat16"
    assert candidate["steps"] == [0, 6]
    assert candidate["sigma"] > 1e-4  # 16 bits do something
    assert 0 <= candidate["jaccard"] <= 1
    assert ("warning" in said) == (candidate["jaccard"] < 0.95)
    assert f"Jaccard {candidate['jaccard']:.2f}" in said
    monkeypatch.setattr(choice, "_measured", None)  # no second time
    pipeline.extract(fresh.path, steps=[1])
    fresh.precision_file.unlink()
    pipeline.extract(fresh.path)
    assert [fresh.read_step(step).provenance["precision"] for step in fresh.steps()] == [kept["precision"]] * 5


def test_a_run_killed_after_the_choice_keeps_it_and_a_damaged_choice_is_named(fresh, monkeypatch):
    identity = fresh.read_run()["identity"]
    record = {"asked": "bfloat16", "taken": "float32", "candidates": []}
    fresh.precision_file.write_text(json.dumps(record | {"identity": identity}))
    with monkeypatch.context() as patch:
        patch.setattr(choice, "_measured", None)
        pipeline.extract(fresh.path, steps=[0])
    assert fresh.read_step(0).provenance["precision"] == record
    shutil.rmtree(fresh.steps_folder)
    fresh.precision_file.write_text("{")
    with pytest.raises(SftscopeError, match=r"precision\.json: cannot be read; move it away"):
        pipeline.extract(fresh.path)


@pytest.mark.parametrize(
    ("trials", "taken"),
    [
        ({"bfloat16": (0.96, 3.0), "float16": (0.99, 1.5)}, "bfloat16"),
        ({"bfloat16": (0.94, 3.0), "float16": (0.95, 1.5)}, "float16"),
        ({"bfloat16": (0.2, 3.0), "float16": (0.99, 1.05)}, "float32"),
    ],
)
def test_auto_takes_the_fastest_that_keeps_the_sets(auto, monkeypatch, capsys, trials, taken):
    monkeypatch.setattr(choice._Tries, "__init__", lambda self, *_: vars(self).update(prompts=[], probes=[]))
    monkeypatch.setattr(choice._Tries, "trial", lambda self, name, **_: trial(name, *trials[name]))
    pipeline.extract(auto.path, steps=[0])
    record = auto.read_step(0).provenance["precision"]
    assert record["taken"] == taken
    assert [entry["precision"] for entry in record["candidates"]] == list(worth_trying(torch.device("cpu")))
    assert f"taking {taken}" in capsys.readouterr().err


def test_auto_measures_really_and_float32_measures_nothing(auto):
    pipeline.extract(auto.path, steps=[0])
    record = auto.read_step(0).provenance["precision"]
    assert record["taken"] in ("float32", "bfloat16", "float16")
    assert all(entry["speed"] > 0 for entry in record["candidates"])
    assert len(record["n_variables"]) == 2


def test_the_jaccard_is_that_of_the_pooled_sets():
    tries = object.__new__(choice._Tries)
    exact = [[np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, 0.0, 0.0, 4.0])]]
    other = [[np.array([0.0, 1.0, 2.5, 3.5]), np.array([0.0, 0.3, 0.0, 4.3])]]
    vars(tries).update(checkpoints={0: None}, _tau=[0.5, 0.5])
    tries._exact, tries._effects = choice._Scored(exact, 2.0), [[v[1:] for v in exact[0]]]
    tries._decomposed = lambda step, scores: [np.where(v[1:] > 2.9, 0.0, v[1:]) for v in scores]
    tries._score = lambda precision, enough: choice._Scored(other, 1.0 + enough(0, other[0]))
    found = tries.trial("float16", stop_early=False)
    assert found.jaccard == 2 / 4  # probe 0: 2 of 3 stay; probe 1: 0 of 1
    assert found.sigma == pytest.approx(np.sqrt(0.5 / 4))
    assert found.speed == 2.0


def test_what_this_device_does_not_have_is_refused(tmp_path):
    config = write_config(tmp_path, **{"check_states = 4": 'check_states = 4\ndtype = "tf32"'})
    with pytest.raises(SftscopeError, match="tf32 needs a CUDA device"):
        pipeline.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()  # refused before it is trained for hours
