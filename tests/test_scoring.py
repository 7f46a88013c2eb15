"""The prefix tree is exact: every architecture, with and without an adapter, in chunks of any size."""

import numpy as np
import pytest
import torch
from toy_llm import CONFIGS, VOCABULARY, toy_model

from engine.extraction.masking import MaskedPrompt, baseline_vector
from engine.extraction.scoring import Scorer, can_branch, log_odds, tree_tokens
from engine.llm.adapters import new_adapter

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
# repeated tokens, a word of three tokens, neighbouring words
OWNERS = ([3, 4], [6], [7], [11, 12, 13], [18], [20])


def toy_prompt(*, length: int = 26, owners=OWNERS, seed: int = 0) -> MaskedPrompt:
    ids = np.random.default_rng(seed).integers(6, VOCABULARY, size=length)
    owner = np.full(length, -1)
    for variable, tokens in enumerate(owners):
        owner[tokens] = variable
    return MaskedPrompt(tuple(ids.tolist()), tuple(owner.tolist()), 9, len(owners))


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
def test_tree_equals_naive(architecture, adapter, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    model = toy_model(architecture).to(device)
    if adapter:
        model = with_random_adapter(model)
    assert can_branch(model)
    prompt = toy_prompt()
    scorer = Scorer(model, baseline_vector(model, "mean"), 1e9)
    naive = scorer.score_naively(prompt, range(64))
    assert np.ptp(naive) > 1e-2  # the words matter, or the comparison would show nothing
    np.testing.assert_allclose(scorer.score(prompt), naive, atol=1e-4, rtol=0)


@pytest.mark.parametrize("memory", [1.0, 1e5, 4e5])
def test_chunks_do_not_change_scores(memory):
    model = toy_model("llama")
    prompt, baseline = toy_prompt(), baseline_vector(model, "mean")
    whole = Scorer(model, baseline, 1e9).score(prompt)
    np.testing.assert_allclose(Scorer(model, baseline, memory).score(prompt), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("owners", [([0], [1]), ([24], [25]), ([0, 1], [25])], ids=["start", "end", "both"])
def test_words_at_the_very_start_and_end(owners):
    model = toy_model("llama")
    scorer = Scorer(model, baseline_vector(model, "zero"), 1e9)
    prompt = toy_prompt(owners=owners)
    np.testing.assert_allclose(scorer.score(prompt), scorer.score_naively(prompt, range(4)), atol=1e-4, rtol=0)


def test_the_full_state_is_the_plain_prompt():
    model = toy_model("gemma3")
    prompt = toy_prompt()
    score = Scorer(model, baseline_vector(model, "mean"), 1e9).score(prompt)[-1]
    with torch.inference_mode():
        probabilities = model(torch.tensor([prompt.ids])).logits[0, -1].double().softmax(-1)
    p = float(probabilities[prompt.target])
    assert score == pytest.approx(np.log(p / (1 - p)), abs=1e-4)


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
    np.testing.assert_allclose(scorer.score(prompt), expected, atol=1e-5, rtol=0)
    assert max(sizes) > 16


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
