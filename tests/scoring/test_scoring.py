"""The prefix tree is exact: every architecture, with and without an adapter, in chunks of any size."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, Lfm2Config, LlamaConfig, MambaConfig

from sftscope.compat.transformers import can_branch
from sftscope.llm.weights.adapters import AdapterSlot, new_adapter
from sftscope.scoring.cache_tree import StockWalk
from sftscope.scoring.masking import MaskedPrompt, baseline_vector
from sftscope.scoring.prefix_tree import TokenCost, TreeWalk, cut_tree, plan_walk, row_subsets, shared_prefix
from sftscope.scoring.scorer import COPY_FREE, NAIVE, STOCK, Refusal, Scorer, log_odds, tree_tokens
from toy_llm import CONFIGS, OWNERS, VOCABULARY, toy_model, toy_prompt

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def with_random_adapter(model):
    wrapped = new_adapter(model, rank=4, alpha=8, dropout=0.0)
    torch.manual_seed(1)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return wrapped.eval().get_base_model()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("adapter", [False, True], ids=["base", "lora"])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_trees_equal_naive_under_every_memory_limit(architecture, adapter, device):
    model = toy_model(architecture).to(device)
    if adapter:
        model = with_random_adapter(model)
    before = model.config._attn_implementation
    prompt, baseline = toy_prompt(), baseline_vector(model, "mean")
    naive = Scorer(model, baseline, 1e9).score_naively(prompt, range(64))
    assert np.ptp(naive) > 1e-2  # the words matter, or the comparison would show nothing
    plans = set()
    for memory in (1.0, 1e5, 4e5, 1e9):
        scorer = Scorer(model, baseline, memory, fixed_cost=0)
        assert scorer.method == COPY_FREE
        np.testing.assert_allclose(scorer.score(prompt), naive, atol=1e-4, rtol=0)
        np.testing.assert_allclose(scorer.score_by(STOCK, prompt), naive, atol=1e-4, rtol=0)
        plans.add(plan_walk(model, prompt, memory, 0))
    assert len(plans) >= 3  # the limits did split the walk
    assert {plan.kept for plan in plans} >= {1, 64}
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("fixed_cost", [2, 8, 24, 100, 10_000])
def test_where_the_tree_is_cut_does_not_change_scores(fixed_cost):
    model = toy_model("llama")
    prompt, baseline = toy_prompt(), baseline_vector(model, "mean")
    scorer = Scorer(model, baseline, 1e9, fixed_cost)
    np.testing.assert_allclose(scorer.score(prompt), scorer.score_naively(prompt, range(64)), atol=1e-4, rtol=0)


def test_costly_forwards_cut_the_tree_less_often():
    prompt = toy_prompt()
    finest = cut_tree(prompt)
    assert [cut.bits for cut in finest] == list(range(7))
    assert len(cut_tree(prompt, 24)) < len(finest)
    assert [cut.bits for cut in cut_tree(prompt, 10_000)] == [6]


@pytest.mark.parametrize("window", [1, 2, 7, 100])
def test_a_sliding_window_hides_the_same_keys_in_the_tree(window):
    model = toy_model("mistral")
    model.config.sliding_window = window
    scorer = Scorer(model, baseline_vector(model, "mean"), 1e9, fixed_cost=0)
    prompt = toy_prompt()
    assert scorer.method == COPY_FREE
    np.testing.assert_allclose(scorer.score(prompt), scorer.score_naively(prompt, range(64)), atol=1e-4, rtol=0)


def test_attention_that_the_tree_does_not_know_goes_to_the_stock_tree():
    model = toy_model("gptoss")
    scorer = Scorer(model, baseline_vector(model, "mean"), 1e9)
    assert scorer.method == STOCK
    prompt = toy_prompt()
    np.testing.assert_allclose(scorer.score(prompt), scorer.score_naively(prompt, range(64)), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "config",
    [
        MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, state_size=4),
        Lfm2Config(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            layer_types=["conv", "full_attention"],
        ),
    ],
    ids=["state-space", "convolution"],
)
def test_a_model_that_keeps_more_than_keys_and_values_is_scored_naively(config):
    model = AutoModelForCausalLM.from_config(config).eval()
    assert not can_branch(model)
    scorer, prompt = Scorer(model, baseline_vector(model, "mean"), 1e9), toy_prompt(owners=OWNERS[:3])
    assert scorer.method == NAIVE
    scores = scorer.score(prompt)
    assert np.ptp(scores) > 1e-7
    np.testing.assert_allclose([scorer.score_naively(prompt, [subset])[0] for subset in range(8)], scores, atol=1e-4)


def test_a_tree_that_differs_from_plain_forwards_is_not_used(monkeypatch):
    model = toy_model("llama")
    baseline = baseline_vector(model, "mean")
    right = TreeWalk.scores
    monkeypatch.setattr(TreeWalk, "scores", lambda walk: right(walk) + 0.01)
    assert Scorer(model, baseline, 1e9).method == STOCK
    monkeypatch.setattr(StockWalk, "scores", lambda walk: np.zeros_like(walk.result))
    assert Scorer(model, baseline, 1e9).method == NAIVE


@pytest.mark.parametrize("architecture", [*CONFIGS, "gptoss"])
def test_no_tree_is_lost_to_an_unexpected_error(architecture):
    """A release of transformers that breaks the fast path shows here, not as scoring that takes six times as long."""
    model = toy_model(architecture)
    scorer = Scorer(model, baseline_vector(model, "mean"), 1e9)
    assert scorer.method == (STOCK if architecture == "gptoss" else COPY_FREE)
    assert not [refusal for refusal in scorer.refusals if refusal.unexpected]


def test_an_unexpected_error_in_a_trial_is_told_and_kept_with_its_reason(monkeypatch, capsys):
    def changed(walk):
        raise FutureWarning("`cache` is deprecated, use `memory`")

    model = toy_model("llama")
    monkeypatch.setattr(TreeWalk, "scores", changed)
    scorer = Scorer(model, baseline_vector(model, "mean"), 1e9)
    assert scorer.method == STOCK
    assert scorer.refusals == [Refusal(COPY_FREE, "FutureWarning: `cache` is deprecated, use `memory`", True)]
    told = capsys.readouterr().err
    assert "FutureWarning: `cache` is deprecated, use `memory`" in told
    assert "please report it" in told


def test_rows_are_subsets_and_an_ancestor_is_a_prefix_of_their_bits():
    rows = row_subsets(5, 0, 32)
    assert sorted(rows.tolist()) == list(range(32))
    np.testing.assert_array_equal(rows & 0b111, row_subsets(3, 0, 8)[np.arange(32) >> 2])


def test_folded_adapters_score_as_unfolded_ones_and_leave_no_trace(tmp_path):
    folders = []
    for seed in (1, 2):
        wrapped = new_adapter(toy_model("llama"), rank=4, alpha=8, dropout=0.0)
        torch.manual_seed(seed)
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        folders.append(tmp_path / str(seed))
        wrapped.save_pretrained(folders[-1])
        ids = torch.tensor([toy_prompt().ids])
        unfolded = wrapped.eval()(ids).logits.detach()  # of the second in the end
    model = toy_model("llama")
    plain = model(ids).logits
    slot = AdapterSlot(model)
    slot.load(folders[1])
    second = model(ids).logits
    torch.testing.assert_close(second, unfolded, atol=1e-3, rtol=1e-4)
    slot.load(folders[0])
    assert not torch.equal(model(ids).logits, second)
    slot.clear()
    assert torch.equal(model(ids).logits, plain)
    slot.load(folders[1])
    assert torch.equal(model(ids).logits, second)


@pytest.mark.parametrize("owners", [([0], [1]), ([24], [25]), ([0, 1], [25])], ids=["start", "end", "both"])
def test_words_at_the_very_start_and_end(owners):
    model = toy_model("llama")
    scorer = Scorer(model, baseline_vector(model, "zero"), 1e9, fixed_cost=0)
    prompt = toy_prompt(owners=owners)
    np.testing.assert_allclose(scorer.score(prompt), scorer.score_naively(prompt, range(4)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt2"])
def test_a_shared_prefix_is_forwarded_once_and_changes_no_score(architecture, monkeypatch):
    model = toy_model(architecture)
    baseline = baseline_vector(model, "mean")
    first = toy_prompt(length=40, owners=([12], [20], [31]))
    second = replace(first, ids=first.ids[:9] + first.ids[10:] + (7,))
    other = toy_prompt(seed=1)
    shared = shared_prefix([first, second])
    assert shared == first.ids[:9]
    seen = []
    embed = Scorer.embed
    monkeypatch.setattr(Scorer, "embed", lambda self, p, s, a, b: seen.append((a, b)) or embed(self, p, s, a, b))
    for memory in (1.0, 1e9):
        plain, sharing = Scorer(model, baseline, memory), Scorer(model, baseline, memory, shared=shared)
        assert plain.method == sharing.method == COPY_FREE
        expected = [plain.score(prompt) for prompt in (first, second, other)]
        seen.clear()
        for prompt, scores in zip((first, second), expected, strict=False):
            np.testing.assert_allclose(sharing.score(prompt), scores, atol=1e-5, rtol=1e-5)
        assert [span for span in seen if span[0] < 9] == [(0, 9)]
        np.testing.assert_array_equal(sharing.score(other), expected[2])  # begins with other tokens


def test_a_shared_prefix_ends_before_the_first_word_and_is_made_again_for_other_weights():
    model = toy_model("llama")
    prompt, baseline = toy_prompt(), baseline_vector(model, "mean")
    assert shared_prefix([prompt]) == shared_prefix([prompt, prompt]) == prompt.ids[:3]
    assert shared_prefix([prompt, toy_prompt(owners=([0], [6]))]) == ()
    sharing = Scorer(model, baseline, 1e9, shared=prompt.ids[:3])
    before = sharing.score(prompt)
    with torch.no_grad():
        model.model.layers[0].self_attn.k_proj.weight.mul_(1.5)
    expected = Scorer(model, baseline, 1e9).score(prompt)
    assert np.abs(sharing.score(prompt) - expected).max() > 1e-3  # of the weights before
    sharing.weights_changed()
    np.testing.assert_allclose(sharing.score(prompt), expected, atol=1e-5, rtol=1e-5)
    assert np.abs(before - expected).max() > 1e-3


def test_the_full_state_is_the_plain_prompt():
    model = toy_model("gemma3")
    prompt = toy_prompt()
    score = Scorer(model, baseline_vector(model, "mean"), 1e9).score(prompt)[-1]
    with torch.inference_mode():
        probabilities = model(torch.tensor([prompt.ids])).logits[0, -1].double().softmax(-1)
    p = float(probabilities[prompt.target])
    assert score == pytest.approx(np.log(p / (1 - p)), abs=1e-4)


@pytest.mark.parametrize("method", [COPY_FREE, STOCK, NAIVE])
def test_masked_states_are_counted_as_they_are_scored(method):
    model, prompt, told = toy_model("llama"), toy_prompt(), []
    scorer = Scorer(model, baseline_vector(model, "mean"), 2e5)
    if method == NAIVE:
        scorer.score_naively(prompt, range(prompt.n_states), told.append)
    else:
        scorer.score_by(method, prompt, scored=told.append)
    assert len(told) > 1
    assert told == sorted(set(told))
    assert told[-1] == prompt.n_states


def test_out_of_memory_halves_the_chunk(monkeypatch):
    model = toy_model("llama")
    scorer = Scorer(model, baseline_vector(model, "mean"), 1e9)
    prompt = toy_prompt()
    expected = scorer.score(prompt)
    sizes, forward = [], model.forward

    def small_device(*args, **kwargs):
        sizes.append(kwargs["inputs_embeds"].shape[0])
        if sizes[-1] > 16:
            raise torch.OutOfMemoryError("no memory left")
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", small_device)
    told: list[int] = []
    np.testing.assert_allclose(scorer.score(prompt, told.append), expected, atol=1e-5, rtol=0)
    assert max(sizes) > 16
    assert told[-1] == prompt.n_states  # counted anew by the attempt that fits


def test_log_odds_do_not_saturate():
    logits = torch.tensor([[0.0, 60.0, 1.0], [0.0, -200.0, 1.0]])
    expected = [60 - np.logaddexp(0, 1), -200 - np.logaddexp(0, 1)]
    np.testing.assert_allclose(log_odds(logits, 1), expected, rtol=1e-6)


def test_tree_tokens_counts_prefix_levels_and_leaves():
    prompt = toy_prompt(length=10, owners=([2], [5]))
    assert tree_tokens(prompt) == 2 + 2 * 3 + 4 * 5


def test_the_mean_baseline_takes_the_output_of_gemmas_scaled_embedding():
    model = toy_model("gemma3")
    expected = model.get_input_embeddings()(torch.arange(VOCABULARY)).mean(dim=0)
    torch.testing.assert_close(baseline_vector(model, "mean"), expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=200, deadline=None)
@given(
    n=st.integers(1, 16),
    gaps=st.tuples(st.integers(0, 30), st.integers(1, 6), st.integers(1, 40)),
    shape=st.tuples(st.sampled_from([32, 576, 4096]), st.integers(1, 40), st.sampled_from([100, 49_152, 256_000])),
    heads=st.sampled_from([(4, 2), (8, 8)]),
    memory=st.floats(1e3, 1e11),
    begin=st.booleans(),
)
def test_the_planned_peak_stays_below_the_limit_wherever_it_can(n, gaps, shape, heads, memory, begin):
    before, gap, tail = gaps
    owner = [-1] * before
    for variable in range(n):
        owner += [variable] + [-1] * (gap - 1 if variable < n - 1 else tail - 1)
    prompt = MaskedPrompt(tuple(range(len(owner))), tuple(owner), 0, n)
    config = LlamaConfig(
        hidden_size=shape[0],
        num_hidden_layers=shape[1],
        vocab_size=shape[2],
        num_attention_heads=heads[0],
        num_key_value_heads=heads[1],
    )
    model = SimpleNamespace(config=config, get_input_embeddings=lambda: SimpleNamespace(weight=torch.empty(0)))
    plan = plan_walk(model, prompt, memory, begin=before if begin else 0)
    cost = TokenCost.of(model)
    row = [(cut.stop - cut.start) * cost.activation(len(owner)) for cut in plan.cuts]
    largest = max(range(len(row)), key=lambda i: plan.batch[i] * row[i])
    # a single row of the largest forward cannot be split further
    assert plan.peak <= memory or plan.kept == 1 or plan.batch[largest] == 1
    assert sum(cut.tokens for cut in plan.cuts) >= tree_tokens(prompt) - before
    assert max(plan.batch) <= plan.kept <= 1 << n


@pytest.mark.parametrize("memory", [1e5, 4e5, 2e6])
def test_what_a_walk_really_keeps_is_within_its_plan(memory, monkeypatch):
    model, prompt = toy_model("llama"), toy_prompt()
    plan = plan_walk(model, prompt, memory, 0)
    kept, forward = [], TreeWalk._forward

    def counting(walk, ancestors, level, first, rows, store):
        forward(walk, ancestors, level, first, rows, store)
        segments = [each.segment for each in [*ancestors, *([store] if store else [])]]
        kept.append(sum(t.nbytes for s in segments for side in (s.keys, s.values) for t in side.values()))

    monkeypatch.setattr(TreeWalk, "_forward", counting)
    Scorer(model, baseline_vector(model, "mean"), memory, fixed_cost=0).score_by(COPY_FREE, prompt)
    assert 0 < max(kept) <= plan.peak <= memory
