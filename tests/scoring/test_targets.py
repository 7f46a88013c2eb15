"""What is scored: the first token, the whole response (Eq. (1) in full), or a token of the user's choice."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from run_configs import write_config
from sample_history import write_sample_run
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.thresholds import ThresholdRule
from sftscope.analysis.sets.views import Selection, backbone
from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.probes import Probe
from sftscope.llm.prompting.label_collisions import collision_warning, labels_of, shared_targets
from sftscope.llm.prompting.targets import target_warnings
from sftscope.preflight import plan as planner
from sftscope.reporting.show import show_text
from sftscope.runs import pipeline
from sftscope.scoring.masking import baseline_vector, mask_probe, probe_targets
from sftscope.scoring.scorer import Scorer, tree_tokens
from sftscope.store import RunFolder
from toy_llm import CONFIGS, toy_model, toy_prompt, toy_tokenizer

PROBE = Probe("p", "how does the guest feel ?", "happy room was not cold", "very sad and bad", ((0, 5), (15, 18)))


def ids_of(text: str) -> tuple[int, ...]:
    return tuple(toy_tokenizer()(text, add_special_tokens=False)["input_ids"])


def masked(target: str, response: str = PROBE.response):
    return mask_probe(replace(PROBE, response=response), toy_tokenizer(), "chat", target)


def test_all_takes_every_response_token_and_puts_those_before_the_last_into_the_prompt():
    first, whole = masked("first"), masked("all")
    assert first.targets == ids_of("very")
    assert whole.targets == ids_of("very sad and bad")
    assert whole.target == first.target
    assert whole.ids == first.ids + ids_of("very sad and")
    assert whole.owner == (*first.owner, -1, -1, -1)


def test_all_begins_at_the_first_content_token():
    whole = masked("all", "<eos> sad room")
    assert whole.targets == ids_of("sad room")
    assert whole.ids[-2:] == ids_of("<eos> sad")


def test_a_chosen_token_is_scored_where_the_first_content_token_would_be():
    first, chosen = masked("first", "<eos> sad room"), masked("token:lovely", "<eos> sad room")
    assert chosen.targets == ids_of("lovely")
    assert chosen.ids == first.ids


@pytest.mark.parametrize(("text", "got"), [("very sad", "2 tokens"), ("zebra", "unknown")])
def test_a_target_that_is_not_one_token_is_one_line(text, got):
    with pytest.raises(SftscopeError, match=rf"^\[extraction\] target: expected exactly one token.*{got}"):
        masked(f"token:{text}")


def test_targets_are_stored_with_their_ids_only_where_there_are_several():
    tokenizer = toy_tokenizer()
    (first,) = probe_targets([mask_probe(PROBE, tokenizer, "chat", "first")], tokenizer)
    (whole,) = probe_targets([mask_probe(PROBE, tokenizer, "chat", "all")], tokenizer)
    assert first == {"id": ids_of("very")[0], "text": "very"}
    assert whole["ids"] == list(ids_of(PROBE.response))
    assert whole["text"] == PROBE.response


@pytest.mark.parametrize(
    ("target", "response", "scored", "before"),
    [
        ("word", "<eos> very sad", "very", "<eos>"),
        ("auto", "very sad and", "very", ""),  # up to three words: a label
        ("auto", "the room was not cold", "the room was not cold", ""),
        ("first-k:2", "very sad and bad", "very sad", ""),
        ("first-k:9", "very sad", "very sad", ""),
        ("span:sad and", "very sad and bad", "sad and", "very"),
        ("span:bad", "<eos> very sad bad", "bad", "<eos> very sad"),
    ],
)
def test_a_part_of_the_answer_is_scored_given_what_is_before_it(target, response, scored, before):
    prompt, first = masked(target, response), masked("first")
    assert prompt.targets == ids_of(scored)
    known = (*ids_of(before), *ids_of(scored)[:-1])
    assert prompt.ids == first.ids + known


def test_a_span_that_is_not_in_the_answer_is_one_line():
    with pytest.raises(SftscopeError, match=r"^probe 'p': \[extraction\] target: expected a part of the answer"):
        masked("span:lovely")


def test_targets_that_say_little_are_named():
    probes = [replace(PROBE, response=answer) for answer in ("The staff", "the room", "the room")]
    little, same = target_warnings(probes, ["the", "the", "the"])
    assert little.startswith("scored by a word that says little: 'the'; choose")
    assert same.startswith("different answers that have the same target, and so look the same: 'the' of 'The staff'")
    assert target_warnings([replace(PROBE, response="sad"), replace(PROBE, response="good")], ["sad", "good"]) == []


def test_the_whole_response_scores_the_sum_of_its_tokens_log_odds():
    """Against Eq. (1) written out: one forward of the plain prompt, softmax in float64."""
    model, prompt = toy_model("llama"), masked("all")
    score = Scorer(model, baseline_vector(model, "mean"), 1e9).score(prompt)[-1]
    with torch.inference_mode():
        p = model(torch.tensor([prompt.ids])).logits[0].double().softmax(-1)
    places = range(len(prompt.ids) - len(prompt.targets), len(prompt.ids))
    odds = [float(p[i, t] / (1 - p[i, t])) for i, t in zip(places, prompt.targets, strict=True)]
    assert len(odds) == 4
    assert score == pytest.approx(sum(map(math.log, odds)), abs=1e-4)


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("memory", [1e5, 1e9])
def test_tree_equals_naive_for_the_whole_response(architecture, memory):
    model = toy_model(architecture)
    prompt = replace(toy_prompt(), further=(11, 40, 12))
    scorer = Scorer(model, baseline_vector(model, "mean"), memory)
    naive = scorer.score_naively(prompt, range(64))
    assert np.ptp(naive) > 1e-2
    np.testing.assert_allclose(scorer.score(prompt), naive, atol=2e-4, rtol=0)


def test_a_last_word_at_the_very_end_leaves_room_for_the_response():
    """The last segment always holds the response: a word of one token and three response tokens."""
    model = toy_model("llama")
    prompt = replace(toy_prompt(length=12, owners=([7], [8])), further=(11, 12, 13))
    scorer = Scorer(model, baseline_vector(model, "mean"), 1e9)
    np.testing.assert_allclose(scorer.score(prompt), scorer.score_naively(prompt, range(4)), atol=1e-4, rtol=0)
    assert tree_tokens(prompt) == 7 + 2 * 1 + 4 * 4


@pytest.mark.parametrize("target", ["all", "token:lovely"])
def test_a_run_with_another_target(tmp_path, target):
    config = write_config(tmp_path, **{"check_states = 4": f'check_states = 4\ntarget = "{target}"'})
    rows = (tmp_path / "probes.jsonl").read_text().replace('"sad"', '"very sad and bad"')
    (tmp_path / "probes.jsonl").write_text(rows)
    pipeline.run(config, tmp_path / "run")
    history = load_history(tmp_path / "run")
    assert history.probes[0].target["text"] == ("very sad and bad" if target == "all" else "lovely")
    assert all((probe.noise < 1e-3).all() for probe in history.probes)
    view = backbone(Evolution(history, ThresholdRule.parse("max-run")), Selection(2))
    if target == "all":  # two of the three answers are a single token
        assert np.isfinite(view.rows[0].cross_entropy).all()
        assert view.note == "mean over the 2 of 3 probes that are scored by a single token"
    else:
        assert np.isfinite(view.rows[0].cross_entropy).all()
        assert not view.note


def test_backbone_text_says_that_it_is_undefined(tmp_path):
    run = write_sample_run(tmp_path / "run")
    folder = RunFolder(run)
    evolution = Evolution(load_history(run), ThresholdRule.parse("max-run"))
    assert "undefined" not in show_text(evolution, Selection(3), view="backbone")
    rows = [json.loads(line) for line in folder.probes_file.read_text().splitlines()]
    for row in rows:
        row["target"] = {"id": 5, "ids": [5, 6], "text": "bad room"}
    folder.probes_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    evolution = Evolution(load_history(run), ThresholdRule.parse("max-run"))
    assert "undefined: several tokens are scored" in show_text(evolution, Selection(3), view="backbone")


def test_labels_are_the_answers_of_data_that_repeat_them():
    assert labels_of(["sad", "good", " sad", "bad"] * 5) == ("bad", "good", "sad")
    assert labels_of([f"answer {i}" for i in range(40)]) == ()


def test_labels_that_share_what_is_scored_are_found_and_named():
    labels = ["very sad", "very bad", "good", "very sad"]
    shared = shared_targets(labels, "auto", toy_tokenizer())
    assert shared == shared_targets(labels, "first", toy_tokenizer()) == {"very": ["very bad", "very sad"]}
    assert shared_targets(labels, "first-k:2", toy_tokenizer()) == {}
    assert "very bad = very sad" in collision_warning(shared)
    assert collision_warning({}) == ""


def test_run_and_plan_warn_of_colliding_labels_and_run_toml_keeps_them(tmp_path, capsys):
    config = write_config(tmp_path)
    rows = (tmp_path / "rows.jsonl").read_text()
    rows = rows.replace('"output": "sad"', '"output": "very sad"').replace('"output": "bad"', '"output": "very bad"')
    (tmp_path / "rows.jsonl").write_text(rows)
    pipeline.train(config, tmp_path / "run")
    assert "warning: labels that share what is scored" in capsys.readouterr().err
    assert RunFolder(tmp_path / "run").read_run()["collisions"] == {"very": ["very bad", "very sad"]}
    plan = planner.plan(config)
    assert plan.collisions == {"very": ["very bad", "very sad"]}
    assert any("very bad = very sad" in line for line in plan.warnings)
    text = config.read_text().replace("check_states = 4", 'check_states = 4\ntarget = "all"')
    config.with_name("all.toml").write_text(text)
    assert planner.plan(config.with_name("all.toml")).collisions == {}


def test_data_that_are_no_classification_collide_in_nothing(tmp_path):
    config = write_config(tmp_path)
    rows = [{"instruction": "how ?", "input": "bed", "output": f"very {w}"} for w in ("a", "b", "c", "d", "e")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pipeline.train(config, tmp_path / "run")
    assert "collisions" not in RunFolder(tmp_path / "run").read_run()
