"""The end of denoising on simulated runs whose turning point is known, and its online form."""

from dataclasses import replace

import numpy as np
import pytest

from histories import counted_history
from sftscope.analysis.conclusions.online_verdict import as_it_went
from sftscope.analysis.sets.boundary import boundary_of, find_boundary, first_claim
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.turning_point import find_turning_point, smooth
from simulated_runs import Kind, simulate

RUNS = 200


def boundaries(kind: Kind, *, curved: bool = False, runs: int = RUNS):
    rng = np.random.default_rng(20)
    for seed in range(runs):
        counts, turn = simulate(rng, kind, curved=curved)
        yield boundary_of(counts, np.arange(counts.shape[1]) * 10, seed=seed), turn


@pytest.mark.parametrize("curved", [False, True])
def test_a_known_turning_point_is_found_and_covered(curved: bool) -> None:
    found = [(boundary, turn) for boundary, turn in boundaries(Kind.TWO, curved=curved)]
    named = [(boundary, turn) for boundary, turn in found if boundary.index is not None]
    assert sum(abs(boundary.index - turn) <= 1 for boundary, turn in named) >= 0.95 * len(found)
    covered = sum(boundary.low <= 10 * turn <= boundary.high for boundary, turn in named)
    assert covered >= 0.90 * len(named)
    widths = [(boundary.high - boundary.low) / 10 for boundary, _ in named]
    assert np.median(widths) <= 5  # of 14 checkpoints: an interval over everything would cover too


@pytest.mark.parametrize("kind", [Kind.FALL, Kind.RISE, Kind.FLAT])
def test_without_a_turning_point_hardly_any_is_claimed(kind: Kind) -> None:
    claimed = sum(boundary.step is not None for boundary, _ in boundaries(kind))
    assert claimed <= 0.05 * RUNS


@pytest.mark.parametrize("curved", [False, True])
def test_the_online_form_names_the_right_step_or_a_little_later(curved: bool) -> None:
    """When it first speaks, from the checkpoints so far, the step that it names is right or late by at most 2."""
    rng = np.random.default_rng(21)
    right = 0
    for seed in range(60):
        counts, turn = simulate(rng, Kind.TWO, curved=curved)
        spoken = [boundary_of(counts[:, : t + 1], np.arange(t + 1), seed=seed) for t in range(counts.shape[1])]
        first = first_claim(spoken)
        right += first is not None and -1 <= spoken[first].index - turn <= 2
        assert first is None or first > spoken[first].index
    assert right >= 0.9 * 60


def test_the_online_form_sees_the_past_only() -> None:
    """What is said at a step does not change with what comes after it."""
    counts = [[30, 24, 17, 12, 7, 3, 8, 13, 19, 25, 30]] * 2
    whole = Evolution(counted_history(counts))
    spoken = [said.boundary for said in as_it_went(whole)]
    for last in (4, 7, 10):
        assert spoken[last] == find_boundary(Evolution(counted_history([row[: last + 1] for row in counts])))
    assert first_claim(spoken) is not None
    assert spoken[-1] == find_boundary(whole)
    history = whole.history
    louder = [
        replace(part.table, effect=part.table.effect * np.where(part.table.step > 8, 50, 1)) for part in history.probes
    ]
    changed = replace(
        history, probes=tuple(replace(part, table=t) for part, t in zip(history.probes, louder, strict=True))
    )
    assert [said.boundary for said in as_it_went(Evolution(changed))][:9] == spoken[:9]


def test_smoothing_by_hand() -> None:
    """Weights 1/4, 1/2, 1/4, the ends repeated: a constant stays, 0 0 4 0 becomes 0 1 2 1."""
    assert smooth(np.array([0.0, 0, 4, 0])).tolist() == [0, 1, 2, 1]
    assert smooth(np.full(100, 3.0)) == pytest.approx(np.full(100, 3.0))


def test_a_turn_without_any_noise_is_certain() -> None:
    turn = find_turning_point(np.array([[40, 34, 27, 20, 14, 9, 15, 22, 28, 33, 39, 45]] * 4), np.random.default_rng(0))
    assert turn.index == 5
    assert max(turn.falls, turn.rises) < 0.03
    assert turn.low <= 5 <= turn.high
