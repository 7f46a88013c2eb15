"""The three events: by hand, on simulated runs whose truth is known, and what is said at each step of a run.

Small forms of `benchmarks/bench_events.py`; the bounds are those that the whole benchmark meets with 500 runs.
"""

import numpy as np
import pytest

from histories import counted_history
from sftscope.analysis.conclusions.online_verdict import as_it_went
from sftscope.analysis.course.events import Events, events_of, events_so_far, find_events, sparsest_of
from sftscope.analysis.course.turning_point import find_turning_point, monotone_rss, smooth, turning_fit
from sftscope.analysis.sets.evolution import Evolution
from simulated_runs import LONG, TWO_STAGES, Kind, SimulatedRun, simulate

RUNS = 80


def simulated(kind: Kind, *, probes: int = 16, runs: int = RUNS) -> list[tuple[SimulatedRun, Events]]:
    found = []
    for seed in range(runs):
        run = simulate(np.random.default_rng(1000 + seed), kind, probes=probes, steps=30 if kind in LONG else 14)
        found.append((run, events_of(run.effective, run.removed, run.emerged, run.steps)))
    return found


@pytest.mark.parametrize("kind", TWO_STAGES)
def test_two_stages_are_found_and_their_events_covered(kind: Kind) -> None:
    found = simulated(kind)
    assert sum(events.two_stages for _, events in found) >= 0.85 * RUNS
    for name in ("removal", "sparsest", "emergence"):
        named = [(getattr(events, name), 10 * getattr(run, name)) for run, events in found]
        named = [(event, true) for event, true in named if event.index is not None]
        assert sum(event.low <= true <= event.high for event, true in named) >= 0.85 * len(named), name
        widths = [(event.high - event.low) / 10 for event, _ in named]
        assert np.mean(widths) <= (6 if kind is Kind.PLATEAU else 4)  # of 14: one over everything would cover too


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in TWO_STAGES])
def test_where_there_are_no_two_stages_hardly_any_are_claimed(kind: Kind) -> None:
    assert sum(events.two_stages for _, events in simulated(kind)) <= 0.08 * RUNS


@pytest.mark.parametrize("kind", [Kind.FALL, Kind.FLAT, Kind.ONLY_FALL, Kind.NOISE, Kind.AR])
def test_where_nothing_grows_no_emergence_is_named(kind: Kind) -> None:
    assert sum(events.emergence.index is not None for _, events in simulated(kind)) <= 0.05 * RUNS


def test_four_probes_find_most_plain_cases() -> None:
    assert sum(events.two_stages for _, events in simulated(Kind.TWO, probes=4)) >= 0.7 * RUNS


@pytest.mark.parametrize("kind", [Kind.NOISE, Kind.FALL, Kind.ONLY_FALL])
def test_looking_after_every_checkpoint_hardly_ever_finds_what_is_not_there(kind: Kind) -> None:
    claimed = 0
    for seed in range(20):
        run = simulate(np.random.default_rng(2000 + seed), kind, steps=30)
        parts = [(run.effective[:, :t], run.removed[:, :t], run.emerged[:, :t], run.steps[:t]) for t in range(1, 31)]
        claimed += any(events_of(*part, looks=True).two_stages for part in parts)
    assert claimed <= 1


def test_what_the_events_are_by_hand() -> None:
    """Two equal probes without noise: nine tenths removed by the 4th checkpoint, fewest at the 6th, then growth."""
    numbers = np.array([[80.0, 60, 40, 30, 25, 20, 30, 45, 70, 100]] * 2)
    removed = np.array([[0, 0.3, 0.6, 0.9, 0.91, 0.92, 0.9, 0.9, 0.9, 0.9]] * 2)
    emerged = np.array([[0, 0.3, 0.4, 0.4, 0.3, 0.3, 0.9, 2, 4, 8.0]] * 2)
    events = events_of(numbers, removed, emerged, np.arange(10) * 5)
    assert (events.removal.step, events.sparsest.step, events.emergence.step) == (15, 25, 30)
    assert events.sparsest.reason == (
        "interactions per probe fall from 80.0 to 20.0 by step 25, then grow to 100.0 by step 45; "
        "2 of 2 probes do so by themselves"
    )
    for event in (events.removal, events.sparsest, events.emergence):
        assert event.low <= event.step <= event.high


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ([5], "two stages need at least 7 extracted steps, this run has 1"),
        ([5] * 9, "the number of interactions never falls below its start"),
        ([0] * 8, "no probe has interactions at every step"),
        (
            [20, 8, 22, 9, 21, 7, 18, 9, 22, 10],
            "the number of interactions falls, but no further than it varies between checkpoints "
            "(20.0 → 7.0 per probe)",
        ),
        ([40, 30, 20, 10, 20, 30], "two stages need at least 7 extracted steps, this run has 6"),
        ([10, 12, 14, 16, 18, 20, 25, 30], "the number of interactions never falls below its start"),
        ([40, 39, 38, 37, 38, 50, 60, 70], "the number of interactions hardly falls (40.0 → 37.0 per probe)"),
        ([80, 60, 50, 40, 35, 30, 25, 20], "interactions are still being removed at step 7 (20.0 per probe)"),
        (
            [80, 60, 40, 20, 20, 21, 20, 21],
            "interactions per probe fall from 80.0 to 20.0 by step 4, and hardly any emerge until step 7",
        ),
    ],
)
def test_what_is_missing_is_said(numbers: list[float], reason: str) -> None:
    event = sparsest_of(np.array([numbers] * 6, dtype=float), np.arange(len(numbers)))
    assert event.index is None
    assert event.reason == reason


def test_one_probe_gives_a_step_that_owns_up() -> None:
    event = sparsest_of(np.array([[30.0, 24, 17, 12, 7, 3, 8, 13, 19, 25, 30]]), np.arange(11))
    assert event.index == 5
    assert event.reason.endswith("with one probe the interval says little")


def test_a_probe_that_never_has_interactions_is_left_out() -> None:
    numbers = np.array([[80.0, 60, 40, 30, 25, 20, 30, 45, 70, 100]] * 3)
    numbers[2] = np.nan
    assert sparsest_of(numbers, np.arange(10)).index == 5
    assert sparsest_of(numbers[2:], np.arange(10)).reason == "no probe has interactions at every step"


def test_what_was_said_sees_the_past_only() -> None:
    counts = [[30, 24, 17, 12, 7, 3, 8, 13, 19, 25, 30]] * 2
    history = counted_history(counts)
    said = as_it_went(Evolution(history))
    for last in (4, 7, 10):
        assert said[last].events == events_so_far(history.until(last))
        assert said[last].events == events_so_far(counted_history([row[: last + 1] for row in counts]))
    assert find_events(history).sparsest.step == int(history.steps[5])


def test_smoothing_by_hand() -> None:
    """Weights 1/4, 1/2, 1/4, the ends repeated: a constant stays, 0 0 4 0 becomes 0 1 2 1."""
    assert smooth(np.array([0.0, 0, 4, 0])).tolist() == [0, 1, 2, 1]
    assert smooth(np.full(100, 3.0)) == pytest.approx(np.full(100, 3.0))


def test_monotone_fits_by_hand() -> None:
    """1 3 2: the last two become 2.5 each, which leaves 0.5. 3 1 2 5: falls to 1, then rises, without a rest."""
    assert monotone_rss(np.array([1.0, 3, 2])).tolist() == [0, 0, 0.5]
    assert turning_fit(np.array([3.0, 1, 2, 5])).tolist() == [3, 1, 2, 5]
    assert turning_fit(np.array([3.0, 1, 2, 1.5, 5])).tolist() == [3, 1, 1.75, 1.75, 5]


def test_a_turn_without_any_noise_is_certain() -> None:
    turn = find_turning_point(np.log([[40.0, 34, 27, 20, 14, 9, 15, 22, 28, 33, 39, 45]] * 4))
    assert turn.index == 5
    assert turn.fall.is_clear
    assert turn.growth.is_clear
    assert turn.both.probes == 4
