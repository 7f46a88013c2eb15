"""Figures of the decomposition, both sides of each ratio: `python tests/benchmarks/bench_decomposition.py`.

Medians of repeats on score vectors like those of the tests. Not collected by pytest; nothing here asserts a time.
`--vectors 8 --highs 1` for a quick look.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from shapiq import ExactComputer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from score_vectors import noise_bound, score_vector
from sftscope.decomposition import decompose
from sftscope.decomposition.exact.highs import solve_whole
from sftscope.decomposition.exact.lattice_program import lattice_program
from sftscope.foundation.threads import usable_cores
from sftscope.lattice.transforms import moebius_transform


def seconds(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median wall and processor time."""
    walls, processors = [], []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return float(np.median(walls)), float(np.median(processors))


def bench_batch(n: int, vectors: int, repeats: int, highs: int) -> None:
    scores = np.stack([score_vector(n, seed, "gaussian" if seed % 5 == 4 else "mixture") for seed in range(vectors)])
    zeta = noise_bound(scores)
    decompose(scores[:1], zeta[:1])
    result = decompose(scores, zeta)
    print(f"n = {n}, {vectors} vectors in a batch, worst certified gap {result.gap.max():.1e}, {usable_cores()} cores")
    for workers in (1, None):
        wall, processor = seconds(lambda workers=workers: decompose(scores, zeta, workers=workers), repeats)
        name = "one worker" if workers == 1 else "default workers"
        print(f"  {name:<16} {wall / vectors:7.3f} s a vector, {processor / vectors:7.3f} s of processor time")
    program = lattice_program(n)
    times, costs = [], []
    for index in range(min(highs, vectors)):
        begin = time.process_time()
        found = solve_whole(program, scores[index] - scores[index, 0], float(zeta[index]))
        costs.append(program.cost(found[0]) if found else np.nan)
        times.append(time.process_time() - begin)
    if times:
        apart = np.max(np.abs(np.array(costs) / result.objective[: len(costs)] - 1.0))
        ours = processor / vectors
        print(f"  HiGHS            {np.median(times):7.3f} s of processor time, objectives within {apart:.0e}")
        print(f"  ratio            {np.median(times) / ours:.0f}×, processor time against processor time")


def bench_moebius(n: int, repeats: int) -> None:
    values = np.random.default_rng(0).normal(size=1 << n)
    ours, _ = seconds(lambda: moebius_transform(values), max(repeats, 20))

    def game(coalitions: np.ndarray) -> np.ndarray:
        return values[coalitions @ (1 << np.arange(n))]

    theirs, _ = seconds(lambda: ExactComputer(n_players=n, game=game)("Moebius", order=n), 1)
    print(f"Möbius transform, n = {n}: ours {1e3 * ours:.3f} ms, shapiq {theirs:.2f} s, {theirs / ours:.0f}×")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--highs", type=int, default=5, help="vectors that HiGHS solves as well")
    parser.add_argument("--moebius", type=int, default=15, help="variables of the Möbius transform; 0: leave it out")
    parser.add_argument("--large", type=int, nargs="*", default=[], help="single vectors of these n, such as 12 13")
    arguments = parser.parse_args()
    bench_batch(10, arguments.vectors, arguments.repeats, arguments.highs)
    for n in arguments.large:
        bench_batch(n, 1, 1, 0)
    if arguments.moebius:
        bench_moebius(arguments.moebius, arguments.repeats)


if __name__ == "__main__":
    main()
