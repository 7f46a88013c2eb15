"""Estimates from sampled masked states: planted games found, and real runs against their exact interactions.

    python tests/benchmarks/bench_estimated.py [--others]
    python tests/benchmarks/bench_estimated.py --run RUN [--steps 0,20,120] [--share 0.15] [--replicates 10] [--noise 1]

Without a run: games of more words than can be enumerated. The terms are AND and OR of one to four words; an effect
counts as found from 5 % of the strongest. --others: ProxySPEX on the same states; SPEX on those that it asks for, of
2,000 to 3,000, as it cannot do with fewer; both have AND effects only, 2^k − 1 for an OR of k words.

With a run whose masked states were all scored: a share of them is taken for a sample, and the salient estimated
effects of up to three words (|I| > 5 % of the largest of the probe over the steps, of the estimate by its own
largest) are compared with the exact ones; and the intervals of the class counts from replicates with the exact
counts. --noise Z: instead of an estimate, the exact interactions of all scores with independent normal noise of Z ζ,
so how exact a prediction of the other states had to be (minutes at n = 12).
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

from sftscope.analysis.trust.estimate_intervals import interval_of, times_more
from sftscope.decomposition import decompose
from sftscope.decomposition.rivals.spex import estimate_by_proxyspex, estimate_by_spex, spex_states
from sftscope.decomposition.sampled.estimate import estimate
from sftscope.lattice.masked_states import held_out_r2, sample_states
from sftscope.lattice.transforms import orders_of
from sftscope.store import Pairs, RunFolder

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from planted_games import planted_game, scores_of

GAMES = ((20, 15, 400), (40, 20, 700), (64, 25, 1000))  # words, terms, masked states
LEAST_OF_SPEX = {20: 2000, 40: 3000, 64: 3000}  # masked states
MOST_ORDER = 3
STRONG = 4  # times τ


def salient(parts, most_order, times=1):
    """Of each step, {(relation, subset)} of up to `most_order` words above `times` 5 % of the largest of all steps."""
    tau = 0.05 * times * max(float(np.abs(part.effect).max(initial=0.0)) for part in parts)
    found = []
    for part in parts:
        kept = (np.abs(part.effect) > tau) & (orders_of(part.subset.astype(np.uint64)) <= most_order)
        found.append(set(zip(part.relation[kept].tolist(), part.subset[kept].tolist(), strict=True)))
    return found


def planted(seed: int, *, others: bool) -> None:
    for n, terms, count in GAMES:
        game, sample = planted_game(n, terms, seed), sample_states(n, count, seed)
        real = set(zip(game[0].tolist(), game[1].tolist(), strict=True))
        solvers = {"certified": (sample, lambda states, scores: estimate(states, scores, 1e-3 * float(np.ptp(scores))))}
        if others:
            solvers["proxyspex"] = sample, estimate_by_proxyspex
            solvers["spex"] = spex_states(n, LEAST_OF_SPEX[n], seed), partial(estimate_by_spex, seed=seed)
        for name, (states, solver) in solvers.items():
            scores = scores_of(game, states.subset)
            start = time.perf_counter()
            made = solver(states, scores)
            seconds = time.perf_counter() - start
            (found,) = salient([made], n)
            r2 = held_out_r2(made.states, scores, made.model(states.subset))
            print(
                f"n = {n}, {states.subset.size} masked states, {name}: {len(found & real)} of {terms} found, "
                f"{len(found - real)} besides, held-out R² {r2:.6f} ({made.states.held_out.sum()} states), "
                f"gap {made.gap:.1e}, {seconds:.1f} s",
                flush=True,
            )


def with_noise(run: Path, wanted: list[int], noise: float, seed: int) -> None:
    folder, random = RunFolder(run), np.random.default_rng(seed)
    records = [folder.read_step(step) for step in wanted or folder.steps()]
    totals = np.zeros(3)
    for probe in range(records[0].n_variables.size):
        noisy = []
        for record in records:
            scores, zeta = record.scores[record.probe_slice(probe)], float(record.effects.zeta[probe])
            found = decompose(scores + noise * zeta * random.normal(size=scores.size), zeta)
            both = np.stack([found.and_effects[0], found.or_effects[0]])
            relation, subset = np.nonzero(both)
            noisy.append(Pairs(relation, subset.astype(np.uint64), both[relation, subset]))
        exact = salient([record.pairs_of(probe) for record in records], MOST_ORDER)
        for real, found in zip(exact, salient(noisy, MOST_ORDER), strict=True):
            totals += (len(real & found), len(real), len(found))
        hit, real, found = totals
        print(
            f"up to probe {probe}, noise {noise:g} ζ: recall {hit / max(real, 1):.2f}, "
            f"precision {hit / max(found, 1):.2f} of {real:.0f}",
            flush=True,
        )


def against_exact(run: Path, wanted: list[int], share: float, replicates: int, seed: int) -> None:
    folder = RunFolder(run)
    records = [folder.read_step(step) for step in wanted or folder.steps()]
    strong, stable = np.zeros(4, dtype=int), np.zeros(2, dtype=int)
    totals, covered = np.zeros((len(records), 3)), {MOST_ORDER: [], 64: []}
    for probe, n in enumerate(records[0].n_variables.tolist()):
        states = sample_states(n, round(share * 2**n), seed)
        exact = [record.pairs_of(probe) for record in records]
        made, r2, start = [], [], time.perf_counter()
        for record in records:
            scores = record.scores[record.probe_slice(probe)][states.subset.astype(np.int64)].astype(np.float64)
            made.append(estimate(states, scores, float(record.effects.zeta[probe]), replicates=replicates))
            r2.append(held_out_r2(states, scores, made[-1].model(states.subset)))
        seconds = (time.perf_counter() - start) / len(records)
        pairs = zip(salient(exact, MOST_ORDER), salient(made, MOST_ORDER), strict=True)
        counts = np.array([[len(real & found), len(real), len(found)] for real, found in pairs])
        totals += counts
        shown = "  ".join(
            f"{record.step}: {hit} of {real}, {found} estimated, R² {each:.3f}"
            for record, (hit, real, found), each in zip(records, counts.tolist(), r2, strict=True)
        )
        print(f"probe {probe}, n = {n}, {states.subset.size} states: {shown}  ({seconds:.1f} s a step)", flush=True)
        again = [[part.replicates[b] for part in made] for b in range(replicates)]
        sets = [salient(parts, MOST_ORDER, times) for parts in (exact, made) for times in (1, STRONG)]
        for real, strong_real, found, strong_found in zip(*sets, strict=True):
            strong += (len(strong_real & found), len(strong_real), len(strong_found & real), len(strong_found))
        for real, *each in zip(sets[0], sets[2], *(salient(parts, MOST_ORDER) for parts in again), strict=True):
            in_all = set.intersection(*each)
            stable += (len(in_all & real), len(in_all))
        for most, inside in covered.items() if replicates else ():
            parts = [salient(each, most) for each in again]
            inside += coverage(salient(exact, most), salient(made, most), parts, times_more([states]))
    for record, (hit, real, found) in zip(records, totals, strict=True):
        print(f"step {record.step}: recall {hit / max(real, 1):.2f}, precision {hit / max(found, 1):.2f} of {real:.0f}")
    hit, real, found = totals.sum(axis=0)
    print(f"all: recall {hit / max(real, 1):.2f}, precision {hit / max(found, 1):.2f}")
    print(f"of {strong[1]} exact ones above {STRONG} τ {strong[0]} are salient in the estimate")
    print(f"of {strong[3]} estimated ones above {STRONG} τ {strong[2]} are salient in the exact interactions")
    if replicates:
        print(f"of {stable[1]} estimated ones that all {replicates} replicates have, {stable[0]} are")
    for most, inside in covered.items() if replicates else ():
        held, width, real = np.mean(inside, axis=0)
        print(
            f"of {len(inside)} exact class counts of up to {most} words, {real:.1f} in the mean, the intervals hold "
            f"{held:.2f}; they are {width:.1f} wide in the mean"
        )


def coverage(exact, made, again, more):
    """For each step after the first and each class: whether the interval of the count holds the exact one; its width.

    A set of (relation, subset) for each step; again: such sets of each replicate. more: as of `interval_of`.
    """
    inside = []
    for step in range(1, len(exact)):
        real, own = (class_counts(part[0], part[step]) for part in (exact, made))
        low, high = interval_of(own, np.array([class_counts(part[0], part[step]) for part in again]), 1, more)
        inside += np.transpose([(low <= real) & (real <= high), high - low, real]).tolist()
    return inside


def class_counts(before, now):
    """Removed, preserved, emerged."""
    return np.array([len(before - now), len(before & now), len(now - before)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--others", action="store_true")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--steps", type=lambda text: [int(step) for step in text.split(",")], default=[])
    parser.add_argument("--share", type=float, default=0.15)
    parser.add_argument("--replicates", type=int, default=0)
    parser.add_argument("--noise", type=float)
    given = parser.parse_args()
    if given.run is not None and given.noise is not None:
        with_noise(given.run, given.steps, given.noise, given.seed)
    elif given.run is None:
        planted(given.seed, others=given.others)
    else:
        against_exact(given.run, given.steps, given.share, given.replicates, given.seed)


if __name__ == "__main__":
    main()
