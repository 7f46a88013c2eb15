"""The course of N_eff under other decompositions, and what of it both kinds of ζ carry."""

from dataclasses import replace
from math import log, nan
from pathlib import Path

import numpy as np
import pytest

from histories import counted_history
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.run.run_history import RunHistory
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.trust.number_course import NumberCourse, Ratio, carried_by_both, number_course
from sftscope.analysis.trust.sensitivity import OF_RANGE, measure_sensitivity, what_zeta_carries
from sftscope.analysis.trust.zeta_sensitivity import with_range_zeta, with_reversed_ties
from sftscope.decomposition import decompose

SAMPLES = Path(__file__).parents[2] / "sample_runs"


def at_steps(name: str, *steps: int) -> RunHistory:
    """Some steps of a sample run; its effects are those of other steps, to be decomposed again."""
    history = load_history(SAMPLES / name)
    kept = [history.index_of(step) for step in steps]
    probes = tuple(
        replace(part, scores=part.scores[kept], zeta=part.zeta[kept], gap=part.gap[kept], noise=part.noise[kept])
        for part in history.probes
    )
    return replace(history, steps=history.steps[kept], probes=probes, losses={}, placebos=())


def test_the_course_of_counted_interactions_is_their_count() -> None:
    """k equal effects have N_eff = k; the sparsest step is that of the mean log: 4·4 < 3·6."""
    course = number_course(counted_history([[8, 4, 3, 16], [12, 4, 6, 24]]))
    assert course.sparsest_step == 1
    assert [course.at_base, course.at_sparsest, course.at_last] == pytest.approx([10, 4, 20])
    assert course.fall.mean == pytest.approx(np.sqrt(2 * 3))
    assert course.growth.mean == pytest.approx(np.sqrt(4 * 6))
    assert [course.beyond.low, course.beyond.mean, course.beyond.high] == pytest.approx([2, 2, 2])
    spread = log(3 / 2) / 2  # the two logs lie that far from their mean; s.e. = that · √2 / √2
    assert course.fall.low == pytest.approx(course.fall.mean * np.exp(-2 * spread))


def test_one_probe_has_a_course_without_limits() -> None:
    course = number_course(counted_history([[4, 2, 8]]))
    assert course.fall.mean == pytest.approx(2)
    assert np.isnan(course.fall.low)
    assert not any(part.carried for part in carried_by_both(course, course))


def made_course(fall: float, growth: float, beyond: float, *, probes: int = 16) -> NumberCourse:
    """Each ratio's lower limit is 0.2 below it."""
    ratios = [Ratio(mean, mean - 0.2, mean + 0.2) for mean in (fall, growth, beyond)]
    return NumberCourse(probes, 20, 1.0, 1.0, 1.0, *ratios)


def test_a_claim_is_carried_only_by_both() -> None:
    claims = carried_by_both(made_course(2.7, 5.0, 1.9), made_course(2.2, 2.1, 1.1))
    assert [part.carried for part in claims] == [True, True, False]
    assert claims[0].numbers.startswith("carried by both kinds of ζ (× 2.70 [2.50, 2.90] fixed, × 2.20 [2.00, 2.40]")
    assert claims[2].numbers.startswith("carried by the fixed ζ alone")
    turned = carried_by_both(made_course(1.1, 1.1, 1.1), made_course(1.5, 1.1, nan))
    assert [part.numbers.partition(" (")[0] for part in turned] == [
        "carried by the moving ζ alone",
        "carried by neither kind of ζ",
        "carried by neither kind of ζ",
    ]
    few = carried_by_both(made_course(9, 9, 9, probes=5), made_course(9, 9, 9, probes=5))
    assert {part.carried for part in few} == {False}
    assert "5 probes, at least 6 are needed" in few[0].numbers


@pytest.mark.parametrize(
    ("name", "expected"),
    [("smollm2", [117, 48, 120]), pytest.param("gemma3", [166, 53, 149], marks=pytest.mark.long)],
    ids=["smollm2", "gemma3"],
)
def test_the_numbers_of_the_sample_runs_with_zeta_relative_to_the_range(name: str, expected: list[int]) -> None:
    """ζ each probe's own share of the range of v, never below that of step 0, at the steps 0, 20 and 120."""
    course = number_course(with_range_zeta(at_steps(name, 0, 20, 120), not_below_base=True))
    assert [round(value) for value in (course.at_base, course.at_sparsest, course.at_last)] == expected


def test_zeta_relative_to_the_range_is_its_share_of_it() -> None:
    history = at_steps("smollm2", 0, 20, 120)
    shrinking = [each for each in history.probes if np.ptp(each.scores[1]) < np.ptp(each.scores[0])]
    alone = replace(history, probes=tuple(shrinking[:1]))
    part = alone.probes[0]
    spread = np.ptp(part.scores, axis=1)
    assert spread[0] < spread[2]
    found = with_range_zeta(alone, 0.03).probes[0]
    np.testing.assert_allclose(found.zeta, 0.03 * spread)
    result = decompose(part.scores, 0.03 * spread, names=[part.probe.variables] * 3)
    np.testing.assert_array_equal(found.effects[:, 0], result.and_effects)
    np.testing.assert_array_equal(found.effects[:, 1], result.or_effects)
    own, above = with_range_zeta(alone), with_range_zeta(alone, not_below_base=True)
    np.testing.assert_allclose(own.probes[0].zeta, part.zeta[0] / spread[0] * spread)
    np.testing.assert_allclose(above.probes[0].zeta, own.probes[0].zeta[[0, 0, 2]])


def test_reversed_ties_take_the_higher_order_of_two_equal_decompositions() -> None:
    """v = [0] + [1] costs as much as AND{01} + OR{01}; which it is depends on the weights alone."""
    history = counted_history([[1]])
    sums = np.tile([0.0, 1.0, 1.0, 2.0], 8)[None]
    part = replace(history.probes[0], scores=sums, zeta=np.array([1e-6]))
    found = with_reversed_ties(replace(history, probes=(part,))).probes[0].effects[0]
    usual = decompose(sums, 1e-6)
    assert np.flatnonzero(np.abs(usual.and_effects[0]) > 0.1).tolist() == [1, 2]
    assert not np.abs(usual.or_effects).any()
    assert np.flatnonzero(np.abs(found[0]) > 0.1).tolist() == [3]
    assert np.flatnonzero(np.abs(found[1]) > 0.1).tolist() == [3]


def test_the_report_states_growth_only_as_far_as_both_kinds_carry_it() -> None:
    history = counted_history([[4, 2, 8]] * 6)
    stored = Evolution(history)
    assert what_zeta_carries(measure_sensitivity(stored)) == []
    rows = measure_sensitivity(stored)
    chosen = next(row for row in rows if row.chosen)
    moving = replace(chosen, chosen=False, tried=OF_RANGE, number=number_course(counted_history([[4, 2, 3]] * 6)))
    assert [part.carried for part in what_zeta_carries([*rows, moving])] == [True, True, False]
