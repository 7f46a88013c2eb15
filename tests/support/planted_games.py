"""Scores of sampled masked states with planted AND and OR interactions."""

import numpy as np

from sftscope.lattice.masked_states import triggers


def planted_game(n, terms, seed):
    """relation, subset, effect (terms,): AND and OR of 1 to 4 words, no two the same, none weak."""
    random, game = np.random.default_rng(seed), {}
    while len(game) < terms:
        order = int(random.integers(1, 5))
        subset = sum(1 << int(i) for i in random.choice(n, order, replace=False))
        relation = int(random.integers(0, 2)) if order > 1 else 0
        if any(_is_ambiguous(relation, subset, *other) for other in game):
            continue
        game[relation, subset] = float(random.choice([-1, 1]) * random.uniform(0.5, 2.0))
    relation, subset = zip(*game, strict=True)
    return np.array(relation), np.array(subset, dtype=np.uint64), np.array(list(game.values()))


def _is_ambiguous(relation, subset, other_relation, other):
    """A word and an OR of it and another: x_i + x_j = AND_ij + OR_ij at equal cost, so either may be found."""
    pairs = ((relation, subset, other), (other_relation, other, subset))
    return any(
        kind == 1 and pair.bit_count() == 2 and word.bit_count() == 1 and word & pair for kind, pair, word in pairs
    )


def scores_of(game, subsets):
    relation, subset, effect = game
    return -3.0 + triggers(subsets, relation, subset) @ effect
