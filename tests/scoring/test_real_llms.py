"""The same claims on two real small LLMs: SmolLM2-135M-Instruct and Gemma-3-270M, read from GGUF files."""

from dataclasses import replace
from functools import cache

import gguf
import numpy as np
import pytest
import torch

from data_rows import read_rows
from sftscope.compat.transformers import can_branch
from sftscope.decomposition import decompose
from sftscope.inputs.probes import Probe
from sftscope.inputs.segmentation import candidate_words
from sftscope.inputs.settings import DataSettings, ModelSettings
from sftscope.lattice.masked_states import sample_states
from sftscope.llm.loading import load_llm
from sftscope.llm.prompting.prompts import resolve_template
from sftscope.llm.prompting.targets import target_texts, target_warnings
from sftscope.llm.weights.adapters import new_adapter
from sftscope.scoring.masking import baseline_vector, mask_probe
from sftscope.scoring.scorer import Scorer, tree_tokens
from sftscope.training.data.examples import IGNORED, make_examples

pytestmark = pytest.mark.llm
LONG = pytest.mark.long
TEXT = "Not happy: the unbelievably slow printer broke again, and nobody was happy about it!"
WORDS = ("Not", "happy", "unbelievably", "printer", "happy", "it")
FEW = ("happy", "unbelievably", "happy", "it")  # a quarter of the masked states
SIZES = pytest.mark.parametrize("words", [pytest.param(FEW, id="few"), pytest.param(WORDS, id="all", marks=LONG)])


def probe(words=WORDS) -> Probe:
    """A repeated word, a word of several tokens, glued punctuation, first and last word."""
    spans = {span: TEXT[slice(*span)] for span in candidate_words(TEXT)}
    chosen = tuple(span for span, word in spans.items() if word in words)
    return Probe("p", "Name the emotion of this comment in one word.", TEXT, "annoyance", chosen)


@pytest.fixture(scope="module", autouse=True)
def gguf_files_are_parsed_once():
    """transformers parses a GGUF file for the tokenizer, for the config and for the weights, some 10 s each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf, "GGUFReader", cache(gguf.GGUFReader))
        yield


@pytest.fixture(scope="module")
def smol(smollm2):
    return load_llm(ModelSettings(path=str(smollm2)))


@pytest.fixture(scope="module")
def gemma(gemma3):
    return load_llm(ModelSettings(path=str(gemma3)))


def test_a_word_of_several_tokens_is_scored_as_a_whole(smol):
    """ "gratitude" is "g", "rat", "itude" to SmolLM2: its first token begins a hundred other words."""

    def texts(wanted: str) -> list[str]:
        probes = [Probe("p", "Feel?", "x", answer) for answer in ("gratitude", "Gratitude, of course.", "joy")]
        return target_texts(probes, smol.tokenizer, wanted)

    assert texts("word") == ["gratitude", "Gratitude", "joy"]
    assert texts("first") == ["g", "G", "joy"]
    (line,) = target_warnings([Probe("p", "Feel?", "x", "gratitude")], ["g"])
    assert line.startswith("scored by a piece of a word: 'g' of 'gratitude'; choose another")


def test_words_are_masked_at_the_right_tokens_of_a_real_tokenizer(smol):
    prompt = mask_probe(probe(), smol.tokenizer, "chat")
    owned = [
        smol.tokenizer.decode([t for t, owner in zip(prompt.ids, prompt.owner, strict=True) if owner == v]).strip()
        for v in range(prompt.n_variables)
    ]
    assert tuple(owned) == WORDS
    assert sum(owner == 2 for owner in prompt.owner) > 1  # unbelievably is several tokens
    happy = [[i for i, owner in enumerate(prompt.owner) if owner == v] for v in (1, 4)]
    assert happy[0] != happy[1]


def test_training_examples_end_with_the_end_of_turn(smol, goemotions):
    data = DataSettings(
        train=str(goemotions / "train.tsv"), labels=str(goemotions / "labels.txt"), instruction="Name the emotion."
    )
    rows = read_rows(goemotions / "train.tsv", data, limit=20)
    for row, example in zip(rows, make_examples(rows, smol.tokenizer, "chat", cutoff=512), strict=True):
        answer = [token for token in example.labels if token != IGNORED]
        assert smol.tokenizer.decode(answer) == row.response + "<|im_end|>"
        assert smol.tokenizer.decode(example.input_ids).count(row.input) == 1


def tree_against_naive(llm, model, words) -> float:
    prompt = mask_probe(probe(words), llm.tokenizer, resolve_template(llm.tokenizer, "auto"))
    assert can_branch(model)
    assert tree_tokens(prompt) < len(prompt.ids) << prompt.n_variables
    scorer = Scorer(model, baseline_vector(model, "mean"), 2e9)
    naive = scorer.score_naively(prompt, range(1 << prompt.n_variables))
    assert np.ptp(naive) > 0.1
    return float(np.abs(scorer.score(prompt) - naive).max())


@SIZES
def test_tree_equals_naive_on_smollm2_without_and_with_an_adapter(smol, words):
    assert tree_against_naive(smol, smol.model, words) <= 1e-4
    wrapped = new_adapter(smol.model, rank=4, alpha=8, dropout=0.0)
    torch.manual_seed(0)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    assert tree_against_naive(smol, wrapped.eval().get_base_model(), words) <= 1e-4


def test_the_trie_over_sampled_states_of_twenty_words_equals_naive_on_smollm2(smol):
    long = "The hotel clerk " + TEXT + " We left the cold harbour early and shall hardly ever return there."
    chosen = Probe("p", "Name the emotion.", long, "annoyance", tuple(candidate_words(long)[:20]))
    prompt = mask_probe(chosen, smol.tokenizer, resolve_template(smol.tokenizer, "auto"))
    prompt = replace(prompt, sampled=sample_states(20, 12))
    scorer = Scorer(smol.model, baseline_vector(smol.model, "mean"), 2e9)
    assert scorer.shares_prefixes(prompt)
    naive = scorer.score_naively(prompt, prompt.states.subset.tolist())
    assert np.ptp(naive) > 0.1
    np.testing.assert_allclose(scorer.score(prompt), naive, atol=1e-4, rtol=0)


@SIZES
def test_tree_equals_naive_on_gemma3(gemma, words):
    assert resolve_template(gemma.tokenizer, "auto") == "plain"
    assert tree_against_naive(gemma, gemma.model, words) <= 1e-4


def test_the_same_words_in_another_batch_give_the_same_sets(smol):
    """Identical under the default τ, but for effects within the rounding of τ; twice the same is identical."""
    prompt = mask_probe(probe(), smol.tokenizer, resolve_template(smol.tokenizer, "auto"))
    baseline = baseline_vector(smol.model, "mean")
    scores = [Scorer(smol.model, baseline, memory).score(prompt) for memory in (2e9, 2e9, 2e7)]
    assert np.array_equal(scores[0], scores[1])
    assert 0 < np.abs(scores[2] - scores[0]).max() < 1e-4  # another batch rounds otherwise
    zeta = 0.02 * abs(scores[0][-1] - scores[0][0])
    found = [decompose(v, zeta) for v in scores]
    strengths = [np.abs(np.stack([result.and_effects[0], result.or_effects[0]])) for result in found]
    np.testing.assert_array_equal(strengths[0], strengths[1])
    tau = 0.05 * strengths[0].max()
    changed = (strengths[0] > tau) != (strengths[2] > tau)
    assert np.all(np.abs(strengths[0][changed] - tau) < 1e-3)
    assert (strengths[0] > tau).sum() >= 5
