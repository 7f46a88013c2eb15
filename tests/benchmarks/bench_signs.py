"""How often a mean over probes is called clear where nothing is there, and where something is.

python tests/benchmarks/bench_signs.py [--runs 2000]
"""

import argparse
from collections.abc import Callable

import numpy as np

from sftscope.analysis.conclusions.sign_flips import LEVEL, p_value, resampled_p_value, sign_flip_p_value

Draw = Callable[[np.random.Generator, int], np.ndarray]
KINDS: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "Student's t, 3 degrees of freedom": lambda rng, n: rng.standard_t(3, size=n),
    "log-normal, σ ½, less its mean": lambda rng, n: rng.lognormal(0, 0.5, n) - np.exp(0.125),
    "log-normal, σ 1, less its mean": lambda rng, n: rng.lognormal(0, 1, n) - np.exp(0.5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    runs = parser.parse_args().runs
    for name, draw in KINDS.items():
        for probes in (6, 8, 16, 20, 100, 400):
            for gain in (0.0, 1.0):
                print(f"{name}, {probes} probes, mean {gain:g}: {clear(draw, probes, gain, runs)}", flush=True)


def clear(draw: Draw, probes: int, gain: float, runs: int) -> str:
    """The share that is clear by sign flips, by resampling, and by both."""
    rng, said = np.random.default_rng(probes), dict.fromkeys((sign_flip_p_value, resampled_p_value, p_value), 0)
    for _ in range(runs):
        values = draw(rng, probes) + gain
        for test in said:
            said[test] += test(values) <= LEVEL
    return ", ".join(f"{test.__name__} {count / runs:.3f}" for test, count in said.items())


if __name__ == "__main__":
    main()
