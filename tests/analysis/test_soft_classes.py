"""N_eff, soft classes and soft turnover: cases computed by hand, and laws that hold for all effects."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sftscope.analysis.run.effect_table import EffectTable
from sftscope.analysis.soft.effective import effective_number
from sftscope.analysis.soft.soft_classes import soft_classes, soft_classes_by_order, soft_turnover
from sftscope.analysis.soft.soft_orders import SoftOrderRow, soft_orders

VALUES = st.floats(-8, 8).map(lambda value: 0.0 if abs(value) < 1e-3 else value)


def effects() -> st.SearchStrategy[np.ndarray]:
    """Effects (T, 2, 8) of three words over four steps; the empty set has none."""

    def without_empty(values: np.ndarray) -> np.ndarray:
        values[:, :, 0] = 0
        return values

    return arrays(np.float64, (4, 2, 8), elements=VALUES).map(without_empty)


def table(*steps: dict[int, float]) -> EffectTable:
    """AND effects by subset, a dict a step, of three words."""
    dense = np.zeros((len(steps), 2, 8))
    for t, step in enumerate(steps):
        for subset, effect in step.items():
            dense[t, 0, subset] = effect
    return EffectTable.of_dense(dense)


def test_effective_number_by_hand() -> None:
    """Equal effects count as many as they are; 1/2, 1/4, 1/4 have an entropy of 1.5 ln 2; no effect has no number."""
    found = effective_number(table({1: 3.0}, {1: -2.0, 2: 2.0, 4: 2.0, 7: -2.0}, {1: 2.0, 2: -1.0, 4: 1.0}, {}))
    assert found[:3] == pytest.approx([1.0, 4.0, 2**1.5])
    assert np.isnan(found[3])


def test_soft_classes_by_hand() -> None:
    """3 → 2: one removed, two preserved. 1 → 4: three emerged. 2 → -1: the sign changed, so all is removed and new."""
    soft = soft_classes(table({1: 3.0, 3: 1.0, 7: 2.0}, {1: 2.0, 3: 4.0, 7: -1.0, 4: 0.5}))
    assert soft.removed.tolist() == [0.0, 1.0 + 0.0 + 2.0]
    assert soft.preserved.tolist() == [6.0, 2.0 + 1.0]
    assert soft.emerged.tolist() == [0.0, 3.0 + 1.0 + 0.5]


def test_soft_classes_by_order_by_hand() -> None:
    """By sign too: what changed its sign was removed from the one and emerged with the other."""
    soft = soft_classes_by_order(table({1: 3.0, 3: 1.0, 7: 2.0}, {1: 2.0, 3: 4.0, 7: -1.0}), 1)
    assert soft.removed.tolist() == [[0, 0], [1, 0], [0, 0], [2, 0]]
    assert soft.preserved.tolist() == [[0, 0], [2, 0], [1, 0], [0, 0]]
    assert soft.emerged.tolist() == [[0, 0], [0, 0], [3, 0], [0, 1]]


def test_soft_orders_are_shares_of_the_base_step_and_means_over_probes() -> None:
    """The first probe has ‖I_0‖₁ = 4, the second none at all: it has no share of it."""
    found = soft_orders([table({1: 3.0, 3: -1.0}, {1: 1.0, 7: -2.0}), table({}, {1: 5.0})], 1)
    assert found.removed == [SoftOrderRow(1, 0.5, 0.0), SoftOrderRow(2, 0.0, -0.25), SoftOrderRow(3, 0.0, 0.0)]
    assert found.preserved[0] == SoftOrderRow(1, 0.25, 0.0)
    assert found.emerged[2] == SoftOrderRow(3, 0.0, -0.5)
    assert np.isnan(soft_orders([table({}, {1: 5.0})], 1).emerged[0].positive_mean)


def test_soft_turnover_by_hand() -> None:
    """|1 - 3| + |4 - 1| + |0 - 2| = 7 of 6 + 5; nothing at all is undefined."""
    assert soft_turnover(table({1: 3.0, 3: 1.0, 7: 2.0}, {1: 1.0, 3: 4.0}))[1] == pytest.approx(7 / 11)
    assert np.isnan(soft_turnover(table({}, {}))).all()


@given(effects())
def test_the_effective_number_lies_between_one_and_the_number_of_effects(dense: np.ndarray) -> None:
    found, count = effective_number(EffectTable.of_dense(dense)), (dense != 0).sum(axis=(1, 2))
    assert np.array_equal(np.isnan(found), count == 0)
    some = count > 0
    assert (found[some] >= 1 - 1e-9).all()
    assert (found[some] <= count[some] * (1 + 1e-9)).all()


@given(effects(), st.floats(1e-3, 1e3))
def test_nothing_depends_on_the_unit_of_the_effects(dense: np.ndarray, unit: float) -> None:
    one, other = EffectTable.of_dense(dense), EffectTable.of_dense(dense * unit)
    assert np.allclose(effective_number(one), effective_number(other), rtol=1e-9, equal_nan=True)
    assert np.allclose(soft_classes(one).removed * unit, soft_classes(other).removed, rtol=1e-9, atol=1e-12 * unit)
    assert np.allclose(soft_turnover(one), soft_turnover(other), rtol=1e-9, equal_nan=True)


@given(effects(), st.integers(0, 3))
def test_the_soft_classes_add_up(dense: np.ndarray, base: int) -> None:
    """removed + preserved = ‖I_base‖₁ and preserved + emerged = ‖I_t‖₁, over all and in every order and sign."""
    found = EffectTable.of_dense(dense)
    soft = soft_classes(found, base)
    norm = np.abs(dense).sum(axis=(1, 2))
    assert np.allclose(soft.removed + soft.preserved, norm[base])
    assert np.allclose(soft.preserved + soft.emerged, norm)
    assert (np.minimum(soft.removed, soft.emerged) >= 0).all()
    size = np.array([subset.bit_count() for subset in range(8)])
    for now in range(4):
        by_order = soft_classes_by_order(found, now, base)
        for name in ("removed", "preserved", "emerged"):
            assert getattr(by_order, name).sum() == pytest.approx(getattr(soft, name)[now])
        for order in range(4):
            for column, sign in enumerate((1, -1)):
                inside = np.maximum(sign * dense[:, :, size == order], 0).sum(axis=(1, 2))
                assert by_order.at_base[order, column] == pytest.approx(inside[base])
                assert by_order.now[order, column] == pytest.approx(inside[now])


@given(effects())
def test_a_step_does_not_change_when_later_steps_arrive(dense: np.ndarray) -> None:
    whole = EffectTable.of_dense(dense)
    past = whole.until(1)
    assert np.array_equal(effective_number(whole)[:2], effective_number(past), equal_nan=True)
    assert np.array_equal(soft_classes(whole).emerged[:2], soft_classes(past).emerged)
    assert np.array_equal(soft_turnover(whole)[:2], soft_turnover(past), equal_nan=True)
