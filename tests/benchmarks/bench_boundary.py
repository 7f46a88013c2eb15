"""How often the end of denoising is found, covered and claimed on simulated runs, offline and online.

python tests/benchmarks/bench_boundary.py [--runs 500] [--probes 16] [--steps 14]
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from sftscope.analysis.sets.boundary import boundary_of, first_claim
from simulated_runs import Kind, simulate


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--probes", type=int, default=16)
    parser.add_argument("--steps", type=int, default=14)
    args = parser.parse_args()
    for kind in Kind:
        for curved in (False, True) if kind in (Kind.TWO, Kind.FALL) else (False,):
            rng = np.random.default_rng(1)
            off, on, delays, covered, claimed = [], [], [], 0, 0
            for seed in range(args.runs):
                counts, turn = simulate(rng, kind, probes=args.probes, steps=args.steps, curved=curved)
                grid = np.arange(args.steps)
                spoken = [boundary_of(counts[:, : t + 1], grid[: t + 1], seed=seed) for t in grid.tolist()]
                last, first = spoken[-1], first_claim(spoken)
                if last.index is not None and last.low is not None and last.high is not None:
                    claimed += 1
                    covered += last.low <= turn <= last.high
                    off.append(abs(last.index - turn) <= 1)
                if first is not None:
                    on.append(-1 <= (spoken[first].index or 0) - turn <= 2)
                    delays.append(first - turn)
            print(f"{kind}{', curved' if curved else ''}: claimed {claimed / args.runs:.3f}", end="")
            if kind is Kind.TWO:
                print(f", within ±1 {sum(off) / args.runs:.3f}, covered {covered / max(claimed, 1):.3f}", end="")
                print(f"; online within -1…2 {sum(on) / args.runs:.3f}", end="")
                late = np.array(delays)
                print(f", speaks 0…2 checkpoints after the turn {np.mean((late >= 0) & (late <= 2)):.3f}", end="")
                print(f", 0…4 {np.mean((late >= 0) & (late <= 4)):.3f}", end="")
            else:
                print(f", online ever {len(on) / args.runs:.3f}", end="")
            print(flush=True)


if __name__ == "__main__":
    main()
