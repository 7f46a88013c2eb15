"""What scoring a set of probes costs: counted in tokens and bytes, and timed on this machine.

The counts are exact. The time is fitted to a few small trees of a real probe, scored by the scorer
that a run uses, and extrapolated by tokens and forward passes. Knows nothing of training.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from sftscope.decomposition import decompose
from sftscope.decomposition.noise_bound import SCALE_FLOOR
from sftscope.decomposition.sampled.estimate import estimate
from sftscope.foundation.threads import usable_cores
from sftscope.foundation.timing import settled_seconds
from sftscope.lattice.masked_states import States, triggers
from sftscope.lattice.transforms import Floats, Relation
from sftscope.scoring.masking import MaskedPrompt, last_words_kept
from sftscope.scoring.prefix_tree import TokenCost
from sftscope.scoring.scorer import NAIVE, Scorer, tree_tokens

CALIBRATION_SECONDS = 20.0  # a tree is not tried where it would likely pass this
_CALLS = 3.0  # of each tree, about
_GROWTH = 4  # masked states of a tree for each of the tree before: two words more, where all states are scored
_FEWEST = 8  # sampled states of the first tree
# Seconds to decompose a vector by number of words, measured once on one core: beyond TIMED_WORDS only their
# ratios are used, to that of 10 words on this machine
TIMED_WORDS = 12
_DECOMPOSITION = {10: 0.1, 13: 11.0, 14: 50.0, 15: 75.0, 16: 100.0}
# A replicate's time, of that of the estimate it starts from: 0.14 measured on made-up scores at n = 20, 0.30 at n = 40
_REPLICATE = 0.3
# warnings
_LONG_TAIL = 16  # tokens after the first token of the last word
_TAIL_SHARE = 0.6
_SMALL_SAVING = 2.0


@dataclass(frozen=True)
class ScoringWork:
    """What one checkpoint costs; tuples have one entry a probe. Tokens are input tokens of forward passes.

    n_states: masked states. sampled: whether these are fewer than all 2^n. tails: tokens from the last word on, which
    run for all masked states; with target `all` the response is part of them. scored_tokens: those that will be
    forwarded, the naive ones where no tree is exact on the model or saves anything. cache_bytes: keys and values of
    all masked states of the largest probe at once. method: how the scorer works on this model.
    """

    n_variables: tuple[int, ...]
    n_states: tuple[int, ...]
    sampled: tuple[bool, ...]
    lengths: tuple[int, ...]
    tails: tuple[int, ...]
    naive_tokens: tuple[int, ...]
    tree_tokens: tuple[int, ...]
    scored_tokens: tuple[int, ...]
    cache_bytes: int
    method: str

    @property
    def branches(self) -> bool:
        """Whether prefixes are shared between masked states."""
        return self.method != NAIVE

    @property
    def masked_states(self) -> int:
        """Of all probes."""
        return sum(self.n_states)

    @property
    def saving(self) -> float:
        """Naive tokens for each token of the tree."""
        return sum(self.naive_tokens) / sum(self.tree_tokens)


@dataclass(frozen=True)
class ScoringSpeed:
    """Seconds, measured: per forward pass, per token of scoring, per token of a plain forward, per decomposition."""

    per_forward: float
    per_token: float
    per_plain_token: float
    per_decomposition: float


def count_work(prompts: Sequence[MaskedPrompt], scorer: Scorer) -> ScoringWork:
    """The work of one checkpoint."""
    lengths = tuple(len(prompt.ids) for prompt in prompts)
    return ScoringWork(
        n_variables=tuple(prompt.n_variables for prompt in prompts),
        n_states=tuple(prompt.n_states for prompt in prompts),
        sampled=tuple(prompt.sampled is not None for prompt in prompts),
        lengths=lengths,
        tails=tuple(len(prompt.ids) - prompt.starts()[-1] for prompt in prompts),
        naive_tokens=tuple(_naive_tokens(prompt) for prompt in prompts),
        tree_tokens=tuple(tree_tokens(prompt) for prompt in prompts),
        scored_tokens=tuple(_scored_tokens(scorer, prompt) for prompt in prompts),
        cache_bytes=max(_naive_tokens(prompt) for prompt in prompts) * int(TokenCost.of(scorer.model).kv),
        method=scorer.method,
    )


def _naive_tokens(prompt: MaskedPrompt) -> int:
    return prompt.n_states * len(prompt.ids)


def _scored_tokens(scorer: Scorer, prompt: MaskedPrompt) -> int:
    return tree_tokens(prompt) if scorer.shares_prefixes(prompt) else _naive_tokens(prompt)


def measure_speed(scorer: Scorer, prompts: Sequence[MaskedPrompt], *, zeta: float, replicates: int = 0) -> ScoringSpeed:
    """Time small trees of the probe with the median work, growing while they stay short.

    zeta: a share of the scale. replicates: of an estimate, where masked states are sampled.
    """
    prompt = sorted(prompts, key=tree_tokens)[len(prompts) // 2]
    budget = CALIBRATION_SECONDS / 4
    plain = settled_seconds(lambda: scorer.score_naively(prompt, range(4)), budget=budget)[0] / (4 * len(prompt.ids))
    sizes, seconds, scores = _grow_trees(scorer, prompt)
    tokens = [_scored_tokens(scorer, part) for part in sizes]
    per_forward, per_token = fit([part.n_variables + 1 for part in sizes], tokens, seconds)
    together = min(len(prompts), usable_cores())
    if prompt.sampled is None:
        per_decomposition = _decomposition_seconds(scores, prompt.n_variables, zeta, together)
    else:
        per_decomposition = _estimate_seconds(prompt.sampled, zeta, replicates) / together
    return ScoringSpeed(per_forward, per_token, plain, per_decomposition)


def fit(forwards: Sequence[int], tokens: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """(a, b) ≥ 0 with seconds = a · forwards + b · tokens at the last two measurements; a = 0 where none fits.

    The largest measurement is always met exactly.
    """
    if len(seconds) > 1:
        matrix = np.array([forwards[-2:], tokens[-2:]], dtype=float).T
        if abs(np.linalg.det(matrix)) > 0:
            a, b = np.linalg.solve(matrix, np.array(seconds[-2:])).tolist()
            if a >= 0 and b >= 0:
                return a, b
    return 0.0, seconds[-1] / tokens[-1]


def scoring_seconds(work: ScoringWork, speed: ScoringSpeed, *, check_states: int) -> float:
    """Predicted seconds to score one checkpoint, the states that are checked without the tree included."""
    forwards = sum(n + 1 for n in work.n_variables)
    checked = sum(min(check_states, own) * length for own, length in zip(work.n_states, work.lengths, strict=True))
    return speed.per_forward * forwards + speed.per_token * sum(work.scored_tokens) + speed.per_plain_token * checked


def warnings_of(work: ScoringWork, memory_gb: float) -> list[str]:
    """What makes this scoring expensive, one line each."""
    found = []
    tail, states = max(zip(work.tails, work.n_states, strict=True))
    share = sum(t * own for t, own in zip(work.tails, work.n_states, strict=True)) / sum(work.tree_tokens)
    if work.branches and tail > _LONG_TAIL and share > _TAIL_SHARE:
        found.append(
            f"up to {tail} tokens follow the first token of the last word (instruction, template or response): "
            f"they run for all {states} masked states and are {share:.0%} of the tokens; "
            "put the instruction before the words"
        )
    if work.cache_bytes > memory_gb * 1e9:
        found.append(
            f"all masked states of a probe at once take {work.cache_bytes / 1e9:.1f} GB of keys and values, "
            f"[extraction] memory_gb is {memory_gb:g}: they are scored in parts; "
            f"raise memory_gb if there is memory, or lower {'masked_states' if any(work.sampled) else 'n_words'}"
        )
    if not work.branches:
        found.append("no prefix tree is exact on this model: every masked state needs a plain forward pass")
    elif work.saving < _SMALL_SAVING:
        found.append(
            f"the prefix tree saves little ({work.saving:.1f}×): the words stand early in the prompt, or are few; "
            "text before the words is shared, text after them is not"
        )
    return found


def _grow_trees(scorer: Scorer, prompt: MaskedPrompt) -> tuple[list[MaskedPrompt], list[float], Floats]:
    """Growing trees of the prompt, their seconds, and the scores of the largest."""
    parts: list[MaskedPrompt] = []
    seconds: list[float] = []
    scores: Floats = np.zeros(0)
    for part in _smaller(prompt):
        likely = seconds[-1] * part.n_states / parts[-1].n_states if seconds else 0.0
        if _CALLS * (sum(seconds) + likely) > CALIBRATION_SECONDS and likely > CALIBRATION_SECONDS / 4:
            break
        took, scores = settled_seconds(partial(scorer.score, part), budget=CALIBRATION_SECONDS / 2)
        parts.append(part)
        seconds.append(took)
    return parts, seconds, scores


def _smaller(prompt: MaskedPrompt) -> list[MaskedPrompt]:
    """The prompt with its last 2, 4, … words as variables, or with 8, 32, … of its sampled states; last as it is."""
    if prompt.sampled is None:
        n = prompt.n_variables
        return [last_words_kept(prompt, k) for k in sorted({*range(min(2, n), n, 2), n})]
    states, counts = prompt.sampled, [_FEWEST]
    while counts[-1] * _GROWTH < states.subset.size:
        counts.append(counts[-1] * _GROWTH)
    places = [np.unique(np.linspace(0, states.subset.size - 1, count).astype(np.int64)) for count in counts]
    fewer = [States(states.n, states.subset[place], states.held_out[place]) for place in places]
    return [*(replace(prompt, sampled=part) for part in fewer if part.subset.size < states.subset.size), prompt]


def _estimate_seconds(states: States, zeta: float, replicates: int) -> float:
    """Seconds to estimate one probe from its sampled states; timed on made-up scores, as most are yet to be scored."""
    scores = _made_up_scores(states)
    bound = zeta * max(abs(float(scores[-1] - scores[0])), SCALE_FLOOR)
    scores = scores + np.random.default_rng(1).uniform(-bound, bound, scores.size)
    started = time.perf_counter()
    estimate(states, scores, bound)
    return (time.perf_counter() - started) * (1.0 + _REPLICATE * replicates)


def _made_up_scores(states: States) -> Floats:
    """Scores (m,) of one random effect of each word, and as many ANDs and ORs of two words."""
    rng, n = np.random.default_rng(0), states.n
    orders = np.minimum(np.repeat([1, 2], n), n)
    subset = np.array([sum(1 << int(word) for word in rng.choice(n, k, replace=False)) for k in orders], np.uint64)
    relation = np.where(orders > 1, rng.integers(0, 2, orders.size), Relation.AND)
    return triggers(states.subset, relation, subset) @ (rng.normal(size=orders.size) / orders)


def _decomposition_seconds(scores: Floats, n: int, zeta: float, together: int) -> float:
    """Seconds to decompose one vector over n words, of `together` at once: `scores`, continued by a copy of itself.

    Beyond `TIMED_WORDS` an estimate from 10 words.
    """
    if n > TIMED_WORDS:
        return _DECOMPOSITION[n] / _DECOMPOSITION[10] * _decomposition_seconds(scores, 10, zeta, together)
    k = min(n, len(scores).bit_length() - 1)
    subsets = np.arange(1 << n)
    vector = scores[-1 << k :][subsets & ((1 << k) - 1)]
    if k < n:
        vector = vector + 0.5 * scores[subsets >> (n - k)]
    zetas = zeta * max(abs(float(vector[-1] - vector[0])), SCALE_FLOOR)
    vectors = np.stack([vector] * together)
    return settled_seconds(lambda: decompose(vectors, zetas), budget=CALIBRATION_SECONDS / 4)[0] / together
