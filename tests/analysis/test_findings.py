"""The statistics of the findings: a level that holds with few probes, and halves that do not choose for themselves."""

import numpy as np
import pytest

from histories import counted_history
from sftscope.analysis.conclusions.probe_halves import DRAWS, Halves, halves_that_hold, sparsest_step
from sftscope.analysis.conclusions.sign_flips import MIN_PROBES, clear_sign, p_value
from sftscope.analysis.sets.evolution import Evolution


def test_a_clear_sign_needs_probes_that_agree() -> None:
    assert clear_sign(np.array([1.0, 2, 1, 3, 2, 1])) == 1
    assert clear_sign(-np.array([1.0, 2, 1, 3, 2, 1])) == -1
    assert clear_sign(np.array([1.0, -2, 1, -1, 2, 1])) == 0
    assert clear_sign(np.zeros(8)) == 0
    assert clear_sign(np.array([1.0, 2, 1, 3, 2])) == 0  # five probes that agree: 2 of 32 patterns
    assert clear_sign(np.ones(100)) == 1


def test_the_p_value_by_hand() -> None:
    """1, 2, 3, 4, 5, -1: the sum is 14; of 64 patterns those with one or the other 1 flipped, or none, reach it."""
    assert p_value(np.array([1.0, 2, 3, 4, 5, -1])) == pytest.approx(2 * 3 / 64)
    assert p_value(np.full(6, 0.1)) == 2 / 64
    assert p_value(np.ones(5)) == 1.0


@pytest.mark.parametrize("probes", [3, 6, 8, 16])
@pytest.mark.parametrize("kind", ["normal", "heavy", "unequal"])
def test_of_nothing_a_sign_is_clear_in_at_most_5_percent(probes: int, kind: str) -> None:
    rng = np.random.default_rng(probes)
    draw = {
        "normal": lambda: rng.normal(size=probes),
        "heavy": lambda: rng.standard_t(2, size=probes),
        "unequal": lambda: rng.normal(size=probes) * np.r_[10.0, np.ones(probes - 1)],
    }[kind]
    clear = np.mean([clear_sign(draw()) != 0 for _ in range(1000)])
    assert clear <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1000)
    assert probes >= MIN_PROBES or clear == 0


def test_what_is_there_is_found() -> None:
    rng = np.random.default_rng(0)
    found = [clear_sign(1.0 + rng.normal(size=16)) for _ in range(300)]
    assert np.mean(np.array(found) == 1) > 0.9
    assert -1 not in found


def test_the_sparsest_step_is_of_the_mean_of_logs() -> None:
    numbers = np.array([[100.0, 10, 20, 30], [1.0, 3, 1, 9]])  # logs add to 100, 30, 20, 270
    assert sparsest_step(numbers) == 2
    assert sparsest_step(numbers, base=3) == 3


def test_halves_that_agree_and_halves_that_do_not() -> None:
    evolution = Evolution(counted_history([[9, 6, 3, 6, 9]] * 12))
    asked = []

    def statement(step: int) -> np.ndarray:
        asked.append(step)
        return np.linspace(1, 2, 12)

    assert halves_that_hold(evolution, 0, statement) == Halves(DRAWS, DRAWS, 0)
    assert asked == [2]
    assert halves_that_hold(evolution, 0, lambda step: -np.ones(12)) == Halves(DRAWS, 0, DRAWS)
    mixed = halves_that_hold(evolution, 0, lambda step: np.tile([1.0, -1.0], 6))
    assert mixed is not None
    assert mixed.sign == 0
    assert Halves(DRAWS, 18, 0).sign == 1
    assert Halves(DRAWS, 17, 0).sign == 0
    assert Halves(DRAWS, 0, 18).sign == -1
    assert halves_that_hold(Evolution(counted_history([[9, 6, 3, 6, 9]] * 11)), 0, statement) is None
