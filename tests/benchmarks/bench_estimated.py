"""Planted games of more words than can be enumerated: what is found, what held-out states say, how long it takes.

    python tests/benchmarks/bench_estimated.py

The terms are AND and OR of one to four words; an effect counts as found from 5 % of the strongest.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from engine.decomposition.estimated import estimate, held_out_r2
from engine.sampling import sample_states

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_estimated import planted_game, scores_of

GAMES = ((20, 15, 400), (40, 20, 700), (64, 25, 1000))  # words, terms, masked states


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    for n, terms, count in GAMES:
        game, states = planted_game(n, terms, seed), sample_states(n, count, seed)
        scores = scores_of(game, states.subset)
        start = time.perf_counter()
        made = estimate(states, scores, 1e-3 * float(np.ptp(scores)))
        seconds = time.perf_counter() - start
        strong = np.abs(made.effect) > 0.05 * np.abs(made.effect).max()
        found = set(zip(made.relation[strong].tolist(), made.subset[strong].tolist(), strict=True))
        r2 = held_out_r2(states, scores, made.model(states.subset))
        planted = set(zip(game[0].tolist(), game[1].tolist(), strict=True))
        print(
            f"n = {n}, {count} masked states: {len(found & planted)} of {terms} found, {len(found - planted)} besides, "
            f"held-out R² {r2:.6f} ({states.held_out.sum()} states), gap {made.gap:.1e}, {seconds:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
