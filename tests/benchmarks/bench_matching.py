"""Universal matching of many random score vectors: how far |h − v| is beyond ζ at worst, and the worst certified gap.

The vectors have 8 to 13 variables, with and without noise, a ζ from a thousandth of the scores' scale to half of it,
and the ζ that runs have. Set OPENBLAS_CORETYPE (Haswell, SkylakeX, ...) to see other kernels of OpenBLAS.

    OPENBLAS_CORETYPE=Haswell python tests/benchmarks/bench_matching.py
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

from threadpoolctl import threadpool_info

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from matching_problems import PROMISE, beyond, problem
from sftscope.decomposition import decompose
from sftscope.decomposition.exact.cholesky import lapack

# n → its share of the vectors; one of 13 variables takes as long as a hundred of 9
SHARES = {8: 0.3, 9: 0.24, 10: 0.2, 11: 0.16, 12: 0.07, 13: 0.03}


def blas() -> str:
    """The libraries and kernels that are used."""
    return ", ".join(
        f"{each['internal_api']} {each['version']} {each['architecture']} × {each['num_threads']}"
        for each in threadpool_info()
        if each["user_api"] == "blas"
    )


def bench(n: int, vectors: int) -> tuple[list[float], list[float], Counter[str]]:
    """|h − v| / ζ − 1 and gap of each vector, and how many ended in which way."""
    misses, gaps, ends = [], [], Counter[str]()
    begin = time.perf_counter()
    for number in range(vectors):
        scores, zeta = problem(n, number)
        result = decompose(scores, zeta)
        misses.append(beyond(scores, zeta, result))
        gaps.append(float(result.gap[0]))
        ends[result.solver[0]] += 1
        if misses[-1] > PROMISE or gaps[-1] > 1e-3:
            print(f"  broken: vector {number} of n = {n}, ζ {zeta:.3g}, {result.solver[0]}")
    print(f"n = {n}: {summary(misses, gaps, ends)}, {(time.perf_counter() - begin) / vectors:.2f} s each", flush=True)
    return misses, gaps, ends


def summary(misses: list[float], gaps: list[float], ends: Counter[str]) -> str:
    return (
        f"{len(misses)} vectors, |h − v| / ζ − 1 at most {max(misses):.1e}, gap at most {max(gaps):.1e}, "
        f"ends {dict(ends)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=500)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SHARES), choices=SHARES)
    arguments = parser.parse_args()
    lapack()  # loads scipy's BLAS beside numpy's
    print(blas(), flush=True)
    parts = [bench(n, max(1, round(SHARES[n] * arguments.vectors))) for n in arguments.sizes]
    misses, gaps = ([value for part in parts for value in part[which]] for which in (0, 1))
    print("all:", summary(misses, gaps, sum((part[2] for part in parts), Counter[str]())))


if __name__ == "__main__":
    main()
