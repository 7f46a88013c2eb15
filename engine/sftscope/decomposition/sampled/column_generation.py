"""The AND-OR program on some masked states of up to 64 words, over all effects of few words and those of the states.

    minimise Σ_j w_j |x_j|   subject to   |D x − v| ≤ ζ at the sampled masked states

The columns are every AND and OR of up to MOST_ORDER words, 1.4 million at n = 64, and of each masked state T
the AND of its words and the OR of the words it lacks. The latter are triggered at the states that T is part of,
and at those that are not part of T: what is peculiar to one state costs one effect there, as it does among effects
of every order, instead of many of few words that cancel at the states that were matched and nowhere else.
(SmolLM2, 4 prompts of 20 words at two steps, 1,200 states: held-out R² −1.41 to 0.99 without them, 0.85 to
0.99 with them.)

No column is written down. With P the products of two variables at each state, Pᵀ diag(u) P holds Dᵀu for every AND
of up to four words at once; an OR is one minus the AND of the same words being absent; and which state is part of
which is one matrix. So all columns are priced by four matrix products, the few that matter enter the program, and
the bound holds for all of them.
"""

from dataclasses import dataclass

import numpy as np

from sftscope.decomposition.exact.incumbent import Search, settled, slack_of
from sftscope.decomposition.exact.interior_point import interior_points
from sftscope.decomposition.exact.lattice_program import least_weights, weights_of
from sftscope.decomposition.exact.program import Ints, Program
from sftscope.decomposition.exact.vertex import beyond, moved_inside
from sftscope.lattice.masked_states import MOST_ORDER, triggers
from sftscope.lattice.transforms import Bools, Floats, Relation, Subsets

FIRST_COLUMNS = 4  # as many times the states: all of the lowest orders that fit are there from the start
MOST_ROUNDS = 40
NEW_COLUMNS = 1.0  # times the states: at most this many come in at a time
STAYS = 0.5  # share of its weight at which a column is priced that stays while the effects are still rough
AIMS = (0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4)  # gaps of the rounds: which columns matter is known before how much
PENALTY, MOST_PENALTY = 1e2, 1e6  # of a state missed by more than ζ; raised until none is
EXACT = 1e-7  # a reduced cost, or a miss beyond ζ as a share of the largest score, below this is rounding


@dataclass(frozen=True, eq=False)
class SampledSolution:
    """relation, subset, effect: (k,), of the columns that are not zero; |D x − v| ≤ ζ at every state."""

    relation: Ints
    subset: Subsets
    effect: Floats
    objective: float
    lower_bound: float

    @property
    def gap(self) -> float:
        """Relative distance of the objective from the least there can be, 0 where both are."""
        return max(0.0, (self.objective - self.lower_bound) / self.objective) if self.objective > 0.0 else 0.0


class ColumnProgram(Program):
    """Some columns written down, (m, k), and a column for each state that is missed, at a price."""

    def __init__(self, columns: Floats, weights: Floats, penalty: float) -> None:
        self.block = columns
        self.weights = np.concatenate([weights, np.full(len(columns), penalty)])

    @property
    def n_columns(self) -> int:
        return len(self.weights)

    @property
    def n_rows(self) -> int:
        return len(self.block)

    def model(self, x: Floats) -> Floats:
        k = self.block.shape[1]
        return np.asarray(self.block @ x[:k] + x[k:])

    def prices(self, u: Floats) -> Floats:
        return np.concatenate([u @ self.block, u])

    def effects_for(self, values: Floats) -> Floats:
        """What the states are missed by."""
        return np.concatenate([np.zeros(self.block.shape[1]), values])

    def entries(self, rows: Ints, columns: Ints) -> Floats:
        k = self.block.shape[1]
        inside = columns < k
        out = np.zeros((len(rows), len(columns)))
        out[:, inside] = self.block[np.ix_(rows, columns[inside])]
        out[:, ~inside] = rows[:, None] == columns[~inside] - k
        return out

    def normal_matrix(self, theta: Floats, diagonal: Floats, out: Floats | None = None) -> Floats:
        k = self.block.shape[1]
        if out is None:
            out = np.empty((self.n_rows, self.n_rows))
        scaled = self.block * np.sqrt(theta[:k])
        np.matmul(scaled, scaled.T, out=out)
        out.reshape(-1)[:: self.n_rows + 1] += diagonal + theta[k:]
        return out


class SampledProgram:
    """masks: (m, n) bool, n ≤ 64, a masked state a row, true where the word is present; in the order of their bitmasks.

    A column is numbered; its relation and subset are in the arrays of these names: AND, then OR, of each subset of
    few words, then the AND of each state's words, then the OR of the words it lacks. only_and: no OR is a candidate.
    """

    def __init__(self, masks: Bools, only_and: bool = False) -> None:
        self.n_states, self.n = masks.shape
        self.masks = subsets_of(masks)
        present = masks.astype(np.float64)
        first, second = np.triu_indices(self.n)
        self._products = [values[:, first] * values[:, second] for values in (present, 1.0 - present)]
        self._is_part = triggers(self.masks, np.array(Relation.AND), self.masks).astype(np.float64)
        single = np.uint64(1) << np.arange(self.n, dtype=np.uint64)
        self._whole = np.bitwise_or.reduce(single)
        pairs = single[first] | single[second]
        found = np.unique((pairs[:, None] | pairs[None, :]).astype(np.uint64), return_index=True)
        self._few: Subsets = found[0]
        self._place: Ints = found[1]  # of two pairs that make the subset, in PᵀP
        self.relation: Ints = np.repeat(np.array([0, 1, 0, 1]), np.repeat([self._few.size, self.n_states], 2))
        self.subset: Subsets = np.concatenate([self._few, self._few, self.masks, self._whole & ~self.masks])
        self._orders = np.bitwise_count(self.subset)
        self._least = np.where(
            self.relation == Relation.AND,
            least_weights(Relation.AND, self._orders),
            least_weights(Relation.OR, self._orders),
        )
        # a singleton's OR is its AND
        self._least[(self.relation == Relation.OR) & ((self._orders == 1) | only_and)] = np.inf
        of_state = np.arange(self.n_columns) >= 2 * self._few.size
        self._least[of_state & (self._orders <= MOST_ORDER)] = np.inf  # is there already
        self._of_states = np.flatnonzero(of_state & np.isfinite(self._least))

    @property
    def n_columns(self) -> int:
        """How many columns there are."""
        return self.subset.size

    def prices(self, u: Floats) -> Floats:
        """Dᵀu of every column."""
        both = [(part.T @ (u[:, None] * part)).ravel()[self._place] for part in self._products]
        return np.concatenate([both[0], u.sum() - both[1], u @ self._is_part, u.sum() - self._is_part @ u])

    def columns_of(self, relation: Ints, subset: Subsets) -> Ints:
        """The columns of those of these effects that have one."""
        few = np.searchsorted(self._few, subset)
        states = np.searchsorted(self.masks, np.where(relation == Relation.AND, subset, self._whole & ~subset))
        places = np.where(
            np.bitwise_count(subset) <= MOST_ORDER,
            relation * self._few.size + few,
            2 * self._few.size + relation * self.n_states + np.minimum(states, self.n_states - 1),
        )
        found: Ints = places[(self.relation[places] == relation) & (self.subset[places] == subset)]
        return found

    def first_columns(self) -> Ints:
        """Those of the lowest orders, whole orders of them, at least the words; and those of the states."""
        room = FIRST_COLUMNS * self.n_states
        order = max((each for each in range(1, MOST_ORDER + 1) if self._of_few(each).size < room), default=1)
        return np.concatenate([self._of_few(order), self._of_states])

    def _of_few(self, order: int) -> Ints:
        """The columns of up to `order` words."""
        found: Ints = np.flatnonzero((self._orders <= order) & np.isfinite(self._least))
        return found

    def solve(self, v: Floats, zeta: float, tolerance: float, columns: Ints | None = None) -> SampledSolution:
        """The sparsest effects that match v (m,), centred, to ζ, certified to `tolerance` or as near as it gets.

        columns: to begin with, where one knows which matter; the result does not depend on them.
        """
        exponent = int(np.frexp(max(float(np.abs(v).max()), 1e-300))[1])
        v, zeta = np.ldexp(v, -exponent), float(np.ldexp(zeta, -exponent))  # max|v| in [0.5, 1)
        columns = self.first_columns() if columns is None else columns
        penalty, bound, level, before = PENALTY, 0.0, 0, np.inf
        for _ in range(MOST_ROUNDS):
            priced, relation, subset = columns, self.relation[columns], self.subset[columns]
            weights = np.where(relation == 0, weights_of(0, subset), weights_of(1, subset))
            part = ColumnProgram(triggers(self.masks, relation, subset).astype(np.float64), weights, penalty)
            aim = AIMS[min(level, len(AIMS) - 1)]
            u, x = _rough_point(Search(part, v, zeta), aim)
            ratios = np.abs(self.prices(u)) / self._least
            bound = max(bound, float((v @ u - zeta * np.abs(u).sum()) / max(1.0, ratios.max())))
            new, cost = self._dearest(ratios, columns), part.cost(x)
            enough = cost - bound <= tolerance * cost / 2
            if len(new) and not enough:
                # while a round still gains more than it is exact to, columns that are far from their weight go
                gains = cost < (1.0 - aim) * before
                level, before = level + (not gains), cost
                stay = (ratios[columns] > STAYS) | (np.bitwise_count(subset) == 1) | (level > 0)
                columns = np.concatenate([columns[stay], new])
            elif not enough and level < len(AIMS) - 1:
                level += 1
            else:
                x = _settled(part, v, zeta, tolerance)
                missed = float(np.maximum(np.abs(part.model(x) - v) - zeta, 0.0).sum())
                if missed <= EXACT * self.n_states or penalty >= MOST_PENALTY:
                    break
                penalty *= 10.0
        else:
            x = _settled(part, v, zeta, tolerance)
        relation, subset, effect = self._matching(part, priced, x, v, zeta)
        cost = float(np.where(relation == 0, weights_of(0, subset), weights_of(1, subset)) @ np.abs(effect))
        scale = float(np.ldexp(1.0, exponent))
        return SampledSolution(relation, subset, effect * scale, cost * scale, min(bound, cost) * scale)

    def _matching(
        self, part: ColumnProgram, columns: Ints, x: Floats, v: Floats, zeta: float
    ) -> tuple[Ints, Subsets, Floats]:
        """x, which may miss states, as effects with |D x − v| ≤ ζ at every state.

        Moved inside if its effects allow that. Otherwise the AND of each state's words takes back what is beyond ζ:
        it triggers at that state and at later ones only, so the states can be put right one after the other.
        """
        relation, subset, effect = self.relation[columns], self.subset[columns], x[: len(columns)]
        moved = moved_inside(part, v, zeta, x, slack_of(zeta))
        if moved is None:
            from scipy.linalg import solve_triangular

            ands = solve_triangular(self._is_part, -beyond(part, v, zeta, x), lower=True, unit_diagonal=True)
            relation = np.concatenate([relation, np.zeros(self.n_states, dtype=np.int64)])
            subset, effect = np.concatenate([subset, self.masks]), np.concatenate([effect, ands])
        else:
            effect = moved[: len(columns)]
        both, place = np.unique(np.stack([relation.astype(np.uint64), subset]), axis=1, return_inverse=True)
        total = np.bincount(place, effect, both.shape[1])
        kept = total != 0.0
        return both[0, kept].astype(np.int64), both[1, kept], total[kept]

    def _dearest(self, ratios: Floats, columns: Ints) -> Ints:
        """The columns that the dual point prices above their weight, dearest first, without those there are."""
        ratios = ratios.copy()
        ratios[columns] = 0.0
        most = min(max(int(NEW_COLUMNS * self.n_states), 1), len(ratios))
        worst = np.argpartition(ratios, -most)[-most:]
        worst = worst[np.argsort(-ratios[worst], kind="stable")]
        return worst[ratios[worst] > 1.0 + EXACT]


def _settled(part: ColumnProgram, v: Floats, zeta: float, tolerance: float) -> Floats:
    """The vertex of the program with these columns, or effects near it; tiny ones and missed states are left out."""
    search = Search(part, v, zeta)
    with np.errstate(all="ignore"):  # what is not finite is not taken
        x = settled(search, lambda: None)
        if np.isfinite(search.cost):
            x = search.solution(tolerance).x
    effects, k = np.zeros(part.n_columns), part.block.shape[1]
    if x is not None:
        effects[:k] = np.where(np.abs(x[:k]) > EXACT, x[:k], 0.0)
    return effects


def _rough_point(search: Search[ColumnProgram], aim: float) -> tuple[Floats, Floats]:
    """(u, x) of the first interior point whose gap is below `aim`, or of the closest."""
    closest, least = None, np.inf
    with np.errstate(all="ignore"):  # what is not finite is not taken
        for point in interior_points(search.program, search.v, search.zeta):
            search.offer_dual(point.u)
            cost = search.program.cost(point.x)
            gap = abs(cost - search.bound) / cost + point.residual
            if gap < least:
                closest, least = point, gap
            if gap < aim:
                break
    if closest is None:
        return np.zeros(search.program.n_rows), np.zeros(search.program.n_columns)
    return closest.u, closest.x


def subsets_of(masks: Bools) -> Subsets:
    """Rows of (m, n) bool as bitmasks (m,), bit i = word i."""
    single = np.uint64(1) << np.arange(masks.shape[1], dtype=np.uint64)
    return np.asarray(np.bitwise_or.reduce(np.where(masks, single, np.uint64(0)), axis=1))


def masks_of(subsets: Subsets, n: int) -> Bools:
    """The inverse of `subsets_of`."""
    words = np.arange(n, dtype=np.uint64)
    return np.asarray((subsets[:, None] >> words) & np.uint64(1), dtype=bool)
