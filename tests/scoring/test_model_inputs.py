"""Scores of models that take more than embeddings, or whose positions depend on the prompt's length, against plain
forwards of the ids in a fresh model."""

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3nTextConfig,
    Gemma4TextConfig,
    GPT2Config,
    GPTJConfig,
    LlamaConfig,
    Phi3Config,
)

from sftscope.compat.positions import Positions, positions_of
from sftscope.foundation.errors import SftscopeError
from sftscope.llm.loading import check_input_vectors
from sftscope.scoring.masking import MaskedPrompt, baseline_vector
from sftscope.scoring.position_limits import position_warnings, refuse_beyond_positions
from sftscope.scoring.rescoring import Difference, refuse_beyond_tolerance
from sftscope.scoring.scorer import NAIVE, Scorer, log_odds
from toy_llm import toy_model, toy_tokenizer

_SHAPE = {
    "vocab_size": 120,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
}
_LAYERS = {
    "hidden_size_per_layer_input": 8,
    "head_dim": 8,
    "sliding_window": 5,
    "layer_types": ["sliding_attention", "full_attention"],
}
_LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0, 3.0, 4.0, 5.0]}
CONFIGS = {
    "gemma3n": lambda: Gemma3nTextConfig(
        **{**_SHAPE, **_LAYERS, "intermediate_size": [64, 64]},
        vocab_size_per_layer_input=100,  # fewer than its vocabulary, as published
        num_kv_shared_layers=0,
        laurel_rank=4,
        altup_num_inputs=2,
        activation_sparsity_pattern=[0.0, 0.0],
    ),
    "gemma4": lambda: Gemma4TextConfig(
        **_SHAPE, **_LAYERS, vocab_size_per_layer_input=120, num_kv_shared_layers=0, global_head_dim=8
    ),
    "longrope": lambda: Phi3Config(**_SHAPE, original_max_position_embeddings=24, rope_scaling=_LONG),
    "dynamic": lambda: LlamaConfig(
        **{**_SHAPE, "max_position_embeddings": 24}, rope_scaling={"rope_type": "dynamic", "factor": 4.0}
    ),
}


def _model(kind: str):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[kind]()).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.mul_(4.0)
    return model


def _prompt(length: int) -> MaskedPrompt:
    ids = np.random.default_rng(length).integers(3, 100, size=length).tolist()
    owner = [-1] * length
    owner[5], owner[8], owner[length - 3] = 0, 1, 2
    return MaskedPrompt(tuple(ids), tuple(owner), ids[3], 3)


def _plain(model, prompt: MaskedPrompt) -> float:
    return log_odds(model(input_ids=torch.tensor([prompt.ids])).logits[:, -1], prompt.target)[0]


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_unmasked_state_scores_as_a_plain_forward_of_the_ids_in_a_fresh_model(kind: str) -> None:
    model = _model(kind)
    check_input_vectors(model, kind)
    scorer = Scorer(model, baseline_vector(model, "mean"), 1e9, longest=40)
    for length in (40, 20, 32):  # dynamic NTK remembers the longest prompt
        prompt = _prompt(length)
        scores = scorer.score(prompt)
        assert scores[-1] == pytest.approx(_plain(_model(kind), prompt), abs=1e-4)
        assert scores == pytest.approx(scorer.score_naively(prompt, range(8)), abs=1e-4)
    walks = [scorer.shares_prefixes(_prompt(length)) for length in (20, 40)]
    assert walks[1] == (kind.startswith("gemma") and scorer.method != NAIVE)
    assert walks[0] or scorer.method == NAIVE


def test_per_layer_inputs_of_a_masked_word_are_those_of_the_baseline() -> None:
    model, prompt = _model("gemma4"), _prompt(20)
    baseline = baseline_vector(model, "token:sad", toy_tokenizer())
    (sad,) = toy_tokenizer()("sad")["input_ids"]
    masked = [sad if owner >= 0 else token for token, owner in zip(prompt.ids, prompt.owner, strict=True)]
    score = Scorer(model, baseline, 1e9).score(prompt)[0]
    expected = log_odds(model(input_ids=torch.tensor([masked])).logits[:, -1], prompt.target)[0]
    assert score == pytest.approx(expected, abs=1e-4)


def test_a_model_that_looks_at_ids_besides_its_embeddings_is_refused_in_one_line() -> None:
    model = toy_model("llama")
    forward = model.forward

    def with_ids(input_ids=None, **rest):
        result = forward(input_ids=input_ids, **rest)
        if input_ids is not None:
            result.logits = result.logits + 0.1 * torch.sin(input_ids[..., None].float())
        return result

    model.forward = with_ids
    with pytest.raises(SftscopeError, match=r"^m: a model of the kind llama answers .* cannot be scored") as caught:
        check_input_vectors(model, "m")
    assert "\n" not in str(caught.value)


def test_what_a_check_refused_is_not_advised_to_be_stored() -> None:
    with pytest.raises(SftscopeError) as caught:
        refuse_beyond_tolerance(Difference(1.0, 1.6, 3), step=1, probe="p", precision="float32")
    assert "--verify" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (GPT2Config(n_positions=64), Positions(64, True, "n_positions")),
        (GPTJConfig(n_positions=64), Positions(64, True, "n_positions")),
        (LlamaConfig(max_position_embeddings=64), Positions(64, False, "max_position_embeddings")),
    ],
)
def test_positions_are_learned_or_rotary(config, expected) -> None:
    assert positions_of(config) == expected


def test_a_prompt_beyond_learned_positions_is_refused_and_beyond_rotary_ones_said() -> None:
    prompts, ids = [_prompt(20), _prompt(40)], ["a", "b"]
    refuse_beyond_positions(prompts, ids, Positions(40, True, "n_positions"))
    with pytest.raises(SftscopeError, match=r"^probe 'b': 40 tokens, and the model has learned 30 positions"):
        refuse_beyond_positions(prompts, ids, Positions(30, True, "n_positions"))
    rotary = Positions(30, False, "max_position_embeddings")
    refuse_beyond_positions(prompts, ids, rotary)
    (line,) = position_warnings(prompts, ids, rotary)
    assert "1 of 2 probes" in line
    assert "'b' with 40 tokens" in line
