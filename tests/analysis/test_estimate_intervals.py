"""Intervals of estimated counts: they hold what is counted, widen with what is not known, and hold exact counts."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftscope.analysis.trust.estimate_intervals import MOST_MORE, interval_of, times_more
from sftscope.decomposition.sampled.estimate import estimate
from sftscope.lattice.masked_states import every_state, sample_states
from sftscope.lattice.transforms import Floats
from sftscope.store import Pairs, RunFolder

SAMPLE_RUN = Path(__file__).parents[2] / "sample_runs" / "smollm2"
counts = st.lists(st.integers(0, 200), min_size=3, max_size=12).map(lambda values: np.array(values, dtype=float))


@given(counts, st.integers(1, 20), st.floats(1.0, MOST_MORE))
def test_an_interval_holds_the_count_and_is_wider_the_more_there_is_unseen(values: Floats, probes: int, more: float):
    own, others = values[:1], values[1:, None]
    low, high = interval_of(own, others, probes, more)
    assert 0.0 <= low <= own < high
    assert interval_of(own, others, probes, 1.0)[1] <= high
    assert interval_of(own, others, probes + 1, 1.0)[1] <= interval_of(own, others, probes, 1.0)[1]
    spread = others + np.array([[-3.0], [3.0], *[[0.0]] * (len(others) - 2)])
    if spread.std() > others.std():
        assert interval_of(own, spread, probes, 1.0)[1] >= interval_of(own, others, probes, 1.0)[1]


def test_counts_that_grow_with_the_states_go_on_growing():
    own, others = np.array([40.0]), np.full((10, 1), 30.0)
    assert interval_of(own, others, 1, 1.0)[1] < 50 < interval_of(own, others, 1, 4.0)[1]
    fewer = interval_of(own, np.full((10, 1), 50.0), 1, 4.0)
    assert fewer[1] == interval_of(own, own[None].repeat(10, 0), 1, 1.0)[1]  # never down


def test_there_are_at_most_so_many_more_states():
    assert times_more([sample_states(40, 300)]) == pytest.approx(MOST_MORE)
    half = sample_states(6, 33, held_out=0.0)
    assert times_more([half, half]) == pytest.approx(64 / 33)
    assert times_more([every_state(6)]) == 1.0


def test_a_single_replicate_has_no_spread_and_is_no_error():
    low, high = interval_of(np.array([9.0]), np.array([[7.0]]), 1, 2.0)
    assert np.isfinite([low, high]).all()


@pytest.mark.campaign
def test_intervals_hold_most_exact_counts_of_a_real_run():
    """Half of the 512 masked states of 6 prompts of SmolLM2, against the sets of all of them."""
    folder = RunFolder(SAMPLE_RUN)
    records, states = [folder.read_step(step) for step in (0, 64)], sample_states(9, 256, seed=3)
    held = []
    for probe in range(6):
        exact, made = [record.pairs_of(probe) for record in records], []
        for record in records:
            scores = record.scores[record.probe_slice(probe)][states.subset.astype(np.int64)].astype(np.float64)
            assert record.effects is not None
            made.append(estimate(states, scores, float(record.effects.zeta[probe]), replicates=10))
        real, own = classes(exact), classes(made)
        others = np.array([classes([part.replicates[b] for part in made]) for b in range(10)])
        low, high = interval_of(own, others, 1, times_more([states]))
        held += ((low <= real) & (real <= high)).tolist()
    assert np.mean(held) >= 0.75


def classes(parts: list[Pairs]) -> Floats:
    """How many of two steps' interactions above 5 % of the strongest are removed, preserved, emerged."""
    tau = 0.05 * max(float(np.abs(part.effect).max()) for part in parts)
    before, now = (
        {
            (r, s)
            for r, s, e in zip(part.relation.tolist(), part.subset.tolist(), part.effect, strict=True)
            if abs(e) > tau
        }
        for part in parts
    )
    return np.array([len(before - now), len(before & now), len(now - before)], dtype=float)
