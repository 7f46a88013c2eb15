"""Words by influence: those that move v most, also of the instruction; how far they move it is measured and stored."""

import json
from dataclasses import replace

import numpy as np
import pytest

from run_configs import write_config
from sftscope.inputs.probes import PROMPT, Probe, candidate_spans, read_probes, write_probes
from sftscope.inputs.settings import load_settings, resolve_paths
from sftscope.llm.loading import load_llm, templated_tokenizer
from sftscope.llm.weights.adapters import new_adapter
from sftscope.scoring.influential_words import InfluentialWords, leave_one_out, moves, strongest
from sftscope.scoring.masking import MaskedPrompt, baseline_vector, mask_probe
from sftscope.scoring.scorer import Scorer

PROBE = Probe("p", "how does the guest feel ?", "the room was not happy but quiet", "sad")


class Additive:
    """v is the sum of what the unmasked tokens weigh; `weights`: by token id."""

    def __init__(self, weights):
        self.weights = np.array(weights)

    def score_naively(self, prompt, subsets):
        owner, of_token = np.array(prompt.owner), self.weights[list(prompt.ids)]
        return np.array(
            [of_token[[o < 0 or bool(subset >> o & 1) for o in owner.tolist()]].sum() for subset in subsets]
        )


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    config = write_config(tmp_path_factory.mktemp("influence"))
    return resolve_paths(load_settings(config, ["probes.choice=influence"]), config.parent)


@pytest.fixture(scope="module")
def choose(settings):
    return InfluentialWords(settings, templated_tokenizer(settings.model), "chat")


def test_the_influence_of_a_word_is_what_v_loses_without_it():
    owner = (-1, 0, 0, 1, 2, -1)  # tokens 1 and 2 are one word
    prompt = MaskedPrompt((5, 1, 2, 3, 4, 0), owner, 0, 3)
    scorer = Additive([9.0, 1.0, 0.5, -3.0, 0.25, 9.0])
    assert leave_one_out(scorer, prompt).tolist() == [1.5, 3.0, 0.25]
    assert strongest([(0, 1), (2, 3), (4, 5)], np.array([1.5, 3.0, 0.25]), 2) == ((0, 1), (2, 3))
    one = replace(prompt, owner=(-1, -1, -1, 0, -1, -1), n_variables=1)
    assert moves(scorer, one, prompt) == (3.0, 1.25)  # the word against all of them: −3 and 1 + 0.5 − 3 + 0.25


def test_of_more_words_than_bits_each_has_its_own_influence():
    n = 150
    prompt = MaskedPrompt(tuple(range(n)), tuple(range(n)), 0, n)
    assert leave_one_out(Additive(np.arange(n)), prompt).tolist() == list(range(n))


def test_equal_influence_and_noise_go_to_the_word_that_comes_first():
    spans = [(0, 1), (2, 3), (4, 5)]
    assert strongest(spans, np.array([0.5, 0.5 + 1e-7, 0.1]), 1) == ((0, 1),)
    assert strongest(spans, np.zeros(3), 9) == tuple(spans)


def test_the_chosen_words_are_those_of_the_whole_prompt_that_move_the_llm_most(settings, choose):
    whole = replace(PROBE, words_in=PROMPT)
    candidates = candidate_spans(whole.text, "words")
    assert [whole.text[start:end] for start, end in candidates[:4]] == [
        "how",
        "does",
        "the",
        "guest",
    ]  # the instruction
    llm = load_llm(settings.model)
    scorer = Scorer(llm.model, baseline_vector(llm.model, "mean"), 1e9)
    found = []
    for span in candidates:
        without, kept = scorer.score(mask_probe(replace(whole, words=(span,)), llm.tokenizer, "chat"))
        found.append(abs(kept - without))
    chosen = choose(PROBE, candidates, 4)
    wanted = sorted(candidates[i] for i in np.argsort(found)[-4:])
    assert chosen.words == tuple(wanted)
    assert chosen.words_in == PROMPT
    scores = scorer.score(mask_probe(chosen, llm.tokenizer, "chat"))
    (moved,) = chosen.influence.moved
    assert moved.weights == "base"
    assert moved.words == pytest.approx(abs(scores[-1] - scores[0]), abs=2e-3)
    assert chosen.influence.others == len(candidates) - 4
    assert choose(PROBE, candidates, 4) == chosen


def test_words_of_ones_own_stay_and_how_far_they_move_v_is_measured(choose):
    own = replace(PROBE, words=((9, 12),))  # not
    measured = choose(own, candidate_spans(own.prompt, "words"), 4)
    assert replace(measured, influence=None) == own
    assert measured.influence.others == 11


def test_a_word_that_only_the_trained_model_reacts_to_is_chosen(settings, tmp_path):
    import torch

    llm = load_llm(settings.model)
    wrapped = new_adapter(llm.model, rank=4, alpha=64, dropout=0.0)
    torch.manual_seed(1)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    wrapped.save_pretrained(tmp_path / "checkpoint-8")
    both = InfluentialWords(settings, llm.tokenizer, "chat", tmp_path / "checkpoint-8")
    candidates = candidate_spans(PROBE.prompt, "words")
    chosen = both(PROBE, candidates, 3)
    assert [each.weights for each in chosen.influence.moved] == ["base", "checkpoint-8"]
    every = mask_probe(replace(PROBE, words=tuple(candidates), words_in=PROMPT), llm.tokenizer, "chat")
    base, trained = (leave_one_out(scorer, every) for scorer in both._in_turn())
    assert chosen.words == strongest(candidates, np.maximum(base, trained), 3)
    assert chosen.words != strongest(candidates, base, 3)
    assert both(PROBE, candidates, 3) == chosen


def test_the_choice_is_kept_in_the_probes_file_and_a_measure_of_another_run_is_not(choose, tmp_path):
    chosen = choose(PROBE, candidate_spans(PROBE.prompt, "words"), 4)
    file = tmp_path / "probes.jsonl"
    file.write_text(write_probes([chosen]))
    assert read_probes(file, n_words=1, seed=0, measured=True) == (chosen,)
    assert read_probes(file, n_words=1, seed=0) == (replace(chosen, influence=None),)
    row = json.loads(file.read_text())
    file.write_text(json.dumps({**row, "influence": {"others": 1, "moved": [{"weights": 3}]}}))
    assert read_probes(file, n_words=1, seed=0, measured=True) == (replace(chosen, influence=None),)
