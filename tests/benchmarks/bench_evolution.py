"""The analysis of a long run: every quantity over 1,000 steps and 100 probes of 10 words, and its memory.

    python tests/benchmarks/bench_evolution.py [--steps 1000] [--probes 100] [--words 10] [--share 0.25]

The run is made in memory, step by step, as the store would give it: `share` of all effects are not 0
(the sample run has 0.1 to 0.35), some 25 a probe and step are above τ. Reading the files comes on top.
"""

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from sftscope.analysis.course.events import find_events
from sftscope.analysis.run.effect_table import EffectTable
from sftscope.analysis.run.run_history import LARGE, ProbeHistory, RunHistory
from sftscope.analysis.sets.evolution import Change, Evolution
from sftscope.analysis.sets.thresholds import ThresholdRule
from sftscope.analysis.sets.views import Selection, backbone, orders_view, trends
from sftscope.inputs.probes import Probe
from sftscope.lattice.masked_states import every_state
from sftscope.store import Pairs


def long_run(steps: int, probes: int, n: int, share: float) -> RunHistory:
    """A history of random sparse effects, in the precision that a run of its size is held in."""
    rng = np.random.default_rng(0)
    dtype = np.float32 if steps * probes << n > LARGE else np.float64
    parts = []
    for index in range(probes):
        pairs = []
        for _ in range(steps):
            column = np.flatnonzero(rng.random(2 << n) < share)
            column = column[column % (1 << n) > 0]
            effect = rng.laplace(size=column.size)
            relation, subset = np.divmod(column, 1 << n)
            strength = (0.01 * effect * np.abs(effect)).astype(dtype)
            pairs.append(Pairs(relation.astype(np.uint8), subset.astype(np.uint16), strength))
        table = EffectTable.of_pairs(n, pairs, dtype)
        scores = rng.normal(size=(steps, 1 << n)).astype(dtype)
        spans = tuple((2 * i, 2 * i + 1) for i in range(n))
        probe = Probe(f"p{index:03d}", "", "a b c d e f g h i j k l m"[: 2 * n - 1], "x", spans)
        flat = np.full(steps, 0.01)
        parts.append(ProbeHistory(probe, {}, every_state(n), scores, table, flat, flat * 1e-9, flat * 1e-3))
    losses = {"eval": np.linspace(2, 1, steps)}
    return RunHistory("long", np.arange(steps, dtype=np.int64), losses, tuple(parts), {})


def timed(name: str, work: Callable[[], Any]) -> Any:
    started = time.perf_counter()
    result = work()
    spent = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{name:60s} {spent:8.3f} s   peak {peak:6.3f} GiB", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--probes", type=int, default=100)
    parser.add_argument("--words", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.25)
    args = parser.parse_args()
    history = timed("make the run", lambda: long_run(args.steps, args.probes, args.words, args.share))
    last = Selection(args.steps - 1)
    started = time.perf_counter()
    evolution = timed("threshold (strongest effects of the run, once)", lambda: Evolution(history))
    timed("counts", evolution.counts)
    timed("events with their intervals", lambda: find_events(history))
    references = [np.sign(part.table.at(args.steps - 1)).astype(np.int8) for part in history.probes]
    timed("trends: all classes, ratios, matching errors", lambda: trends(evolution, last, references=references))
    timed("backbone: cross-entropies with and without bias", lambda: backbone(evolution, last))
    timed("orders of one step", lambda: orders_view(evolution, last))
    print(f"{'all quantities':60s} {time.perf_counter() - started:8.3f} s")

    def again() -> int:
        other = Evolution(history, ThresholdRule("max-run", 0.07))
        return sum(int(other.partition(p, last.now)[Change.EMERGED].sum()) for p in range(args.probes))

    timed("another threshold at one step: the sets of all probes", again)


if __name__ == "__main__":
    main()
