"""Sampled masked states are scored by a trie of their prefixes that is exact, wherever it is cut or split."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftscope.extraction.second_extraction import score_again
from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.probes import Probe
from sftscope.inputs.settings import ExtractionSettings
from sftscope.lattice.masked_states import States, every_state, sample_states
from sftscope.preflight.scoring_cost import count_work, measure_speed, scoring_seconds, warnings_of
from sftscope.scoring.masking import MaskedPrompt, baseline_vector, states_of
from sftscope.scoring.prefix_tree import cut_tree, plan_walk
from sftscope.scoring.rescoring import check_scores
from sftscope.scoring.sample_trie import first_word_first, nodes
from sftscope.scoring.scorer import COPY_FREE, NAIVE, STOCK, Scorer, tree_tokens
from toy_llm import CONFIGS, toy_model, toy_prompt


def sampled_prompt(n: int, states: States, *, begin: int = 3, gap: int = 0, tail: int = 4) -> MaskedPrompt:
    """n words of a token each, every third of two, `gap` tokens between."""
    owners, at = [], begin
    for word in range(n):
        length = 2 if word % 3 == 2 else 1
        owners.append(list(range(at, at + length)))
        at += length + gap
    return replace(toy_prompt(length=at + tail, owners=owners), sampled=states)


def toy_scorer(model, memory: float = 1e9, **settings) -> Scorer:
    return Scorer(model, baseline_vector(model, "mean"), memory, **settings)


@pytest.mark.parametrize(
    ("architecture", "n"), [*((name, 10) for name in CONFIGS), *(("llama", n) for n in (20, 40, 64))]
)
def test_the_trie_equals_plain_forwards_under_every_memory_limit(architecture, n):
    model = toy_model(architecture)
    states = sample_states(n, 24, seed=n)
    prompt = sampled_prompt(n, states)
    naive = toy_scorer(model).score_naively(prompt, states.subset.tolist())
    assert np.ptp(naive) > 1e-2  # the words matter, or the comparison would show nothing
    kept = set()
    too_little = next(memory for memory in 2.0 ** np.arange(30, 0, -1) if plan_walk(model, prompt, memory, 0).kept < 24)
    for memory, fixed_cost in ((1.0, 24), (too_little, 0), (1e9, 0)):
        scorer = toy_scorer(model, memory, fixed_cost=fixed_cost)
        np.testing.assert_allclose(scorer.score_by(COPY_FREE, prompt), naive, atol=1e-4, rtol=0)
        kept.add(plan_walk(model, prompt, memory, fixed_cost).kept)
    assert len(kept) == 3  # the limits did split the walk
    assert kept >= {1, 24}


@pytest.mark.parametrize("fixed_cost", [0, 24, 10_000])
def test_a_trie_of_all_masked_states_scores_as_the_full_tree(fixed_cost):
    scorer, whole = toy_scorer(toy_model("llama"), fixed_cost=fixed_cost), toy_prompt()
    as_sample = replace(whole, sampled=every_state(6))
    assert as_sample.distinct_prefixes() == whole.distinct_prefixes()
    assert cut_tree(as_sample) == cut_tree(whole)
    np.testing.assert_allclose(scorer.score(as_sample), scorer.score(whole), atol=1e-5, rtol=0)


def test_a_shared_beginning_is_part_of_the_trie():
    model, prompt = toy_model("gemma3"), sampled_prompt(20, sample_states(20, 40), begin=9)
    scorer = toy_scorer(model, shared=prompt.ids[:7], fixed_cost=0)
    naive = scorer.score_naively(prompt, prompt.states.subset.tolist())
    np.testing.assert_allclose(scorer.score(prompt), naive, atol=1e-4, rtol=0)
    assert scorer._root is not None


def test_scores_stand_in_the_order_of_the_states_whatever_it_is():
    scorer, states = toy_scorer(toy_model("llama")), sample_states(20, 40)
    order = np.random.default_rng(0).permutation(40)
    other = States(20, states.subset[order], states.held_out[order])
    scores = scorer.score_by(COPY_FREE, sampled_prompt(20, states))
    np.testing.assert_allclose(scorer.score_by(COPY_FREE, sampled_prompt(20, other)), scores[order], atol=1e-5, rtol=0)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 64), st.integers(2, 40), st.integers(0, 1000))
def test_the_trie_has_a_row_for_each_distinct_prefix_and_children_lie_side_by_side(n, count, seed):
    states = sample_states(n, min(count, 1 << min(n, 10)), seed)
    prompt = sampled_prompt(n, states)
    ordered = states.subset[np.argsort(first_word_first(states.subset, n))].tolist()
    for bits, rows in enumerate(prompt.distinct_prefixes()):
        prefixes = [subset & ((1 << bits) - 1) for subset in ordered]  # Python's integers, which have no 64th bit
        assert rows == len(set(prefixes))
        numbers = nodes(np.array(ordered, dtype=np.uint64), bits)
        assert numbers[0] == 0
        assert numbers.tolist() == sorted(numbers.tolist())
        assert len({*zip(numbers.tolist(), prefixes, strict=True)}) == rows == numbers[-1] + 1


def test_the_tokens_of_the_trie_are_counted_exactly(monkeypatch):
    scorer, prompt = toy_scorer(toy_model("llama"), fixed_cost=0), sampled_prompt(20, sample_states(20, 50), begin=20)
    assert scorer.shares_prefixes(prompt)  # tried out before it is counted
    seen, embed = [], Scorer.embed
    monkeypatch.setattr(
        Scorer, "embed", lambda self, p, s, a, b: seen.append(len(s) * (b - a)) or embed(self, p, s, a, b)
    )
    scorer.score(prompt)
    work = count_work([prompt], scorer)
    assert work.tree_tokens == work.scored_tokens == (sum(seen),)
    assert work.naive_tokens == (50 * len(prompt.ids),)
    assert work.masked_states == 50


def test_a_sample_that_shares_little_is_scored_by_plain_forwards():
    scorer = toy_scorer(toy_model("llama"))
    early = sampled_prompt(10, sample_states(10, 40), begin=0, tail=200)
    assert tree_tokens(early) > 0.9 * 40 * len(early.ids)
    assert not scorer.shares_prefixes(early)
    assert count_work([early], scorer).scored_tokens == (40 * len(early.ids),)
    naive = scorer.score_naively(early, early.states.subset.tolist())
    np.testing.assert_array_equal(scorer.score(early), naive)


@pytest.mark.parametrize("method", [STOCK, NAIVE])
def test_without_the_copy_free_tree_a_sample_is_scored_by_plain_forwards(method, monkeypatch):
    monkeypatch.setattr(Scorer, "method", method)
    scorer, prompt = toy_scorer(toy_model("llama")), sampled_prompt(64, sample_states(64, 20), begin=30)
    naive = scorer.score_naively(prompt, prompt.states.subset.tolist())
    np.testing.assert_array_equal(scorer.score(prompt), naive)
    assert count_work([prompt], scorer).scored_tokens == (20 * len(prompt.ids),)


@pytest.mark.parametrize("method", [COPY_FREE, NAIVE])
def test_a_check_and_a_placebo_score_the_sampled_states_again(method, monkeypatch):
    monkeypatch.setattr(Scorer, "method", method)
    scorer, prompt = toy_scorer(toy_model("llama")), sampled_prompt(64, sample_states(64, 30), begin=20)
    scores = scorer.score(prompt)
    np.testing.assert_allclose(score_again(scorer, prompt), scores, atol=1e-4, rtol=0)
    assert check_scores(scorer, prompt, scores, states=30, seed=(0, 0)).largest < 1e-4
    scores[-1] += 1.0
    found = check_scores(scorer, prompt, scores, states=30, seed=(0, 0))
    assert found.subset == (1 << 64) - 1
    assert found.largest == pytest.approx(1.0, abs=1e-3)


def test_sampled_states_are_planned_by_their_number_and_timed():
    scorer = toy_scorer(toy_model("llama"))
    prompts = [sampled_prompt(20, sample_states(20, 30), begin=20), toy_prompt()]
    work = count_work(prompts, scorer)
    assert work.masked_states == 30 + 64
    assert work.sampled == (True, False)
    speed = measure_speed(scorer, prompts[:1], zeta=0.02, replicates=2)
    assert 0 < scoring_seconds(work, speed, check_states=0) < scoring_seconds(work, speed, check_states=8)
    assert np.isfinite(speed.per_decomposition)
    assert speed.per_decomposition > 0
    (memory,) = [line for line in warnings_of(work, 1e-6) if "memory_gb" in line]
    assert "lower masked_states" in memory


def test_what_a_run_samples_depends_on_the_seed_and_the_probe_alone():
    words = tuple((2 * i, 2 * i + 1) for i in range(20))
    probe = Probe("one", "", "a " * 20, "x", words)
    states = states_of(probe, 100, 0)
    assert states.subset.size == 100
    np.testing.assert_array_equal(states_of(probe, 100, 0).subset, states.subset)
    for other in (states_of(replace(probe, id="two"), 100, 0), states_of(probe, 100, 1)):
        assert not np.array_equal(other.subset, states.subset)
    few = replace(probe, words=words[:6])
    assert states_of(few, 64, 0) is None  # all of them are no more
    assert states_of(few, 63, 0).subset.size == 63
    assert states_of(few, ExtractionSettings().masked_states, 0) is None
    with pytest.raises(SftscopeError, match=r"probe 'one': 20 variables .* set \[extraction\] masked_states"):
        states_of(probe, 0, 0)
    with pytest.raises(SftscopeError, match=r"10001 of the 2\^20 masked states are too many for an estimate"):
        states_of(probe, 10_001, 0)
