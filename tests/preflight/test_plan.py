"""The plan counts what a run then does; its times are fitted to measurements."""

import json

import numpy as np
import pytest

from command_line import sftscope
from run_configs import SENTENCES, write_config
from sftscope.foundation import timing
from sftscope.foundation.errors import SftscopeError
from sftscope.preflight import plan as planner
from sftscope.preflight import scoring_cost as scoring_plan
from sftscope.preflight.scoring_cost import (
    count_work,
    fit,
    measure_speed,
    scoring_seconds,
    warnings_of,
)
from sftscope.runs import pipeline
from sftscope.scoring.masking import baseline_vector, last_words_kept
from sftscope.scoring.prefix_tree import TokenCost
from sftscope.scoring.scorer import Scorer, tree_tokens
from sftscope.store import RunFolder
from toy_llm import toy_model, toy_prompt


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("plan"))


def test_the_plan_names_the_checkpoints_and_masked_states_that_the_run_then_has(config):
    plan = planner.plan(config)
    pipeline.run(config, config.parent / "run")
    folder = RunFolder(config.parent / "run")
    assert tuple(plan.checkpoints) == folder.steps()
    assert plan.masked_states_per_checkpoint == folder.read_step(0).scores.size
    assert plan.training.steps == folder.steps()[-1]
    assert plan.seconds["total"] == pytest.approx(sum(v for k, v in plan.seconds.items() if k != "total"))
    assert all(value >= 0 for value in plan.seconds.values())


def test_of_a_run_that_was_begun_the_rest_is_planned(config, tmp_path):
    whole = planner.plan(config)
    run = tmp_path / "run"
    pipeline.train(config, run)
    pipeline.extract(run, steps=[0])
    rest = planner.plan(run)
    assert rest.checkpoints == whole.checkpoints[1:]
    for same in ("masked_states_per_checkpoint", "tokens_per_checkpoint", "cache_gb"):
        assert getattr(rest, same) == getattr(whole, same)
    assert rest.training.steps == rest.seconds["training"] == 0
    assert "steps on" not in planner.render(rest)
    pipeline.extract(run)
    with pytest.raises(SftscopeError, match="nothing is left to extract"):
        planner.plan(run)


def test_eighteen_words_are_planned_as_sampled_and_refused_where_no_sample_is_asked_for(tmp_path):
    config = write_config(tmp_path, **{"n_words = 4": "n_words = 18", "check_states = 4": "masked_states = 40"})
    row = {"instruction": "how does the guest feel ?", "input": " ".join(SENTENCES), "response": "sad"}
    (tmp_path / "probes.jsonl").write_text(json.dumps(row))
    plan = planner.plan(config)
    assert plan.n_variables == [18]
    assert plan.masked_states_per_checkpoint == 40
    assert plan.tokens_per_checkpoint.naive == 40 * plan.prompt_tokens.most
    assert plan.tokens_per_checkpoint.tree < plan.tokens_per_checkpoint.naive
    assert plan.cache_gb.widest_level < 1
    assert "n = 18: 40 masked states per checkpoint, sampled for 1: ESTIMATED" in planner.render(plan)
    assert any("interactions are estimates" in line for line in plan.warnings)
    config.write_text(config.read_text().replace("masked_states = 40", ""))
    with pytest.raises(SftscopeError, match=r"18 variables .* set \[extraction\] masked_states"):
        planner.plan(config)


def test_a_plan_writes_nothing_and_prints_json_or_text(config):
    before = sorted(config.parent.rglob("*"))
    made = json.loads(sftscope("plan", config, "--json").stdout)
    assert made["schema"] == "sftscope-plan"
    text = sftscope("plan", config).stdout
    assert f"{made['tokens_per_checkpoint']['tree']:,} in the prefix tree" in text
    assert "predicted time" in text
    assert sorted(config.parent.rglob("*")) == before


def test_forwarded_tokens_are_counted_exactly(monkeypatch):
    model, prompt = toy_model("llama"), toy_prompt()
    work = count_work([prompt], toy_scorer(model))
    seen = []
    embed = Scorer.embed
    monkeypatch.setattr(
        Scorer, "embed", lambda self, p, s, a, b: seen.append(len(s) * (b - a)) or embed(self, p, s, a, b)
    )
    scorer = Scorer(model, baseline_vector(model, "mean"), 1e9, fixed_cost=0)
    assert scorer.method != "naive"  # tried out before it is counted
    seen.clear()
    scorer.score(prompt)
    assert work.tree_tokens == (sum(seen),)
    seen.clear()
    scorer.score_naively(prompt, range(64))
    assert work.naive_tokens == (sum(seen),)
    assert work.saving == work.naive_tokens[0] / work.tree_tokens[0]


def toy_scorer(model):
    return Scorer(model, baseline_vector(model, "mean"), 1e9)


def test_cache_bytes_are_those_of_the_cache():
    from sftscope.compat.transformers import DynamicCache, fill_cache

    model, prompt = toy_model("gemma3"), toy_prompt()
    cache = DynamicCache()
    fill_cache(model, toy_embedding(model, prompt), cache)
    size = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert TokenCost.of(model).kv * len(prompt.ids) == size


def toy_embedding(model, prompt):
    import torch

    return model.get_input_embeddings()(torch.tensor([prompt.ids]))


def test_the_last_words_alone_make_a_smaller_tree_of_the_same_prompt():
    prompt = toy_prompt()
    part = last_words_kept(prompt, 2)
    assert part.starts() == prompt.starts()[-2:]
    assert part.ids == prompt.ids
    assert tree_tokens(part) < tree_tokens(prompt)
    assert last_words_kept(prompt, prompt.n_variables).owner == prompt.owner


def test_the_fit_recovers_a_cost_per_forward_and_per_token():
    forwards, tokens = [3, 5, 7], [40, 90, 300]
    seconds = [0.02 * f + 0.001 * t for f, t in zip(forwards, tokens, strict=True)]
    assert fit(forwards, tokens, seconds) == pytest.approx((0.02, 0.001))
    assert fit([3, 5], [10, 100], [0.01, 10.0]) == (0.0, 0.1)  # a negative cost per forward is no cost


def test_a_call_is_timed_once_it_is_warm_and_no_longer_than_the_budget(monkeypatch):
    def timed(durations, budget):
        clock, left = [0.0], list(durations)
        monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

        def work():
            clock[0] += left.pop(0)
            return len(left)

        return timing.settled_seconds(work, budget=budget)

    assert timed([12.0, 9.0, 8.0, 6.0, 6.0, 5.9], 100) == (6.0, 1)
    assert timed([1.0, 1.0, 1.0], 100) == (1.0, 0)
    assert timed([12.0, 9.0, 8.0], 10) == (12.0, 2)


def test_beyond_what_is_timed_decomposition_is_estimated_from_ten_words(monkeypatch):
    timed = []

    def counting(vectors, zeta):
        timed.append(vectors.shape)
        return

    monkeypatch.setattr(scoring_plan, "decompose", counting)
    monkeypatch.setattr(scoring_plan, "settled_seconds", lambda work, budget: (2.0, work()))
    rng = np.random.default_rng(0)
    seconds = [scoring_plan._decomposition_seconds(rng.normal(size=1 << 4), n, 0.02, 2) for n in (8, 12, 13, 16)]
    assert timed == [(2, 1 << 8), (2, 1 << 12), (2, 1 << 10), (2, 1 << 10)]
    assert seconds[:2] == [1.0, 1.0]
    assert 1.0 < seconds[2] < seconds[3]
    scoring_plan._decomposition_seconds(rng.normal(size=1 << 14), 16, 0.02, 1)  # scores of more words than are timed
    assert timed[-1] == (1, 1 << 10)


def test_auto_is_planned_in_float32_and_says_so(tmp_path):
    plan = planner.plan(write_config(tmp_path, **{"check_states = 4": 'check_states = 4\ndtype = "auto"'}))
    assert any("dtype is auto" in line for line in plan.warnings)
    half = planner.plan(write_config(tmp_path, **{"check_states = 4": 'check_states = 4\ndtype = "bfloat16"'}))
    assert half.dtype == "bfloat16"
    assert half.training_dtype == "float32"


def test_predicted_seconds_meet_the_measurements_and_grow_with_the_checked_states():
    model, prompt = toy_model("llama"), toy_prompt()
    scorer = Scorer(model, baseline_vector(model, "mean"), 1e9)
    speed = measure_speed(scorer, [prompt], zeta=0.02)
    work = count_work([prompt], scorer)
    assert 0 < scoring_seconds(work, speed, check_states=0) < scoring_seconds(work, speed, check_states=8)
    assert speed.per_decomposition > 0
    assert np.isfinite([speed.per_token, speed.per_forward, speed.per_plain_token]).all()


def test_warnings_name_a_long_tail_a_small_saving_and_too_little_memory():
    scorer = toy_scorer(toy_model("llama"))
    early = count_work([toy_prompt(length=60, owners=([2], [3], [4]))], scorer)
    (tail, saving) = warnings_of(early, 4.0)
    assert "56 tokens follow the first token of the last word" in tail
    assert "saves little" in saving
    late = count_work([toy_prompt(length=60, owners=([54], [56], [58]))], scorer)
    assert warnings_of(late, 4.0) == []
    (memory,) = warnings_of(late, 1e-6)
    assert "memory_gb is 1e-06" in memory


def test_without_a_tree_the_naive_tokens_are_planned_and_the_plan_says_so(monkeypatch):
    monkeypatch.setattr(Scorer, "method", "naive")
    work = count_work([toy_prompt()], toy_scorer(toy_model("llama")))
    assert work.scored_tokens == work.naive_tokens
    assert any("no prefix tree is exact" in line for line in warnings_of(work, 4.0))


def test_a_busy_machine_is_a_warning(config, monkeypatch):
    monkeypatch.setattr(planner.os, "getloadavg", lambda: (1000.0, 1.0, 1.0))
    assert any("busy (load 1000.0" in line for line in planner.plan(config).warnings)


def test_a_run_of_hours_is_a_warning(config, monkeypatch):
    from sftscope.preflight import training_cost as training

    monkeypatch.setattr(training, "training_seconds", lambda work, speed: 400 * 3600.0)
    (line,) = [line for line in planner.plan(config).warnings if "take about" in line]
    assert "take about 400." in line
    assert "max_steps" in line
