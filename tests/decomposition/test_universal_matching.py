"""|h − v| ≤ ζ at every masked state, whichever way a decomposition ends, on whichever kernels of the processor."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from matching_problems import PROMISE, beyond, kernels, problem, worst_of
from score_vectors import all_effects, mixture, noise_bound, scale_of, score_vector
from sftscope.decomposition import decompose
from sftscope.decomposition.exact import incumbent, solver_chain
from sftscope.decomposition.exact.lattice_program import effect_weights, lattice_program
from sftscope.decomposition.exact.vertex import moved_inside, put_inside
from sftscope.decomposition.sampled.column_generation import ColumnProgram
from sftscope.decomposition.sampled.estimate import estimate
from sftscope.extraction.gpu_interior_point import points_on
from sftscope.lattice.masked_states import sample_states
from sftscope.lattice.transforms import logical_model


@pytest.mark.parametrize(("n", "first", "count"), [(8, 0, 32), (9, 32, 16), (10, 4, 2), (11, 1, 1)])
def test_every_masked_state_is_matched_and_the_gap_certified(n, first, count):
    worst = worst_of([problem(n, number) for number in range(first, first + count)])
    assert worst["beyond"] <= PROMISE
    assert worst["gap"] <= 1e-3


@pytest.mark.parametrize("share", [1e-4, 1e-5, 1e-6, 1e-8, 2e-10])
@pytest.mark.parametrize("n", [3, 6, 8])
def test_a_noise_bound_next_to_nothing_is_kept_as_well(n, share):
    """Where 1e-9 ζ is far less than what rounding adds to sums of effects."""
    for kind in ("mixture", "gaussian", "sparse"):
        scores = mixture(n, np.random.default_rng(n), noise=0.0) if kind == "sparse" else score_vector(n, 3, kind)
        worst = worst_of([(scores, share * float(scale_of(scores)))])
        assert worst["beyond"] <= PROMISE, kind
        assert worst["gap"] <= 1e-5, kind


def no_vertex(monkeypatch):
    """No face is a vertex, and what is settled on one is off the mark."""
    monkeypatch.setattr(incumbent, "solve_face", lambda *_: None)
    monkeypatch.setattr(incumbent, "settle_on_face", lambda *given: given[-1] + 1.0)


def end_settled_on_a_face(monkeypatch):
    monkeypatch.setattr(incumbent, "solve_face", lambda *_: None)
    monkeypatch.setattr(solver_chain, "LARGEST_N_FOR_HIGHS", 0)
    return {"interior"}


def end_at_a_repaired_interior_point(monkeypatch):
    no_vertex(monkeypatch)
    monkeypatch.setattr(solver_chain, "LARGEST_N_FOR_HIGHS", 0)
    monkeypatch.setattr(solver_chain, "CLOSE", 0.0)
    return {"interior"}


def end_at_an_interior_point_itself(monkeypatch):
    monkeypatch.setattr(incumbent, "MOST_EFFECTS_ON_FACE", 0)
    monkeypatch.setattr(solver_chain, "LARGEST_N_FOR_HIGHS", 0)
    return {"interior"}


def end_by_highs(monkeypatch):
    monkeypatch.setattr(incumbent, "interior_points", lambda *_: iter(()))
    return {"highs"}


def end_at_what_highs_has_repaired(monkeypatch):
    no_vertex(monkeypatch)
    return end_by_highs(monkeypatch)


def end_by_the_first_order_method(monkeypatch):
    monkeypatch.setattr(solver_chain, "FEWEST_TO_GROW", 1)
    monkeypatch.setattr(solver_chain, "MOST_FOR_WHOLE", 0)
    monkeypatch.setattr(solver_chain, "MOST_SCOUTED", 0.0)
    return {"splitting"}


def end_from_a_working_set(monkeypatch):
    end_by_the_first_order_method(monkeypatch)
    monkeypatch.setattr(solver_chain, "MOST_SCOUTED", 1.0)
    return {"vertex", "interior"}


def end_from_a_working_set_without_a_vertex(monkeypatch):
    no_vertex(monkeypatch)
    return end_from_a_working_set(monkeypatch)


def end_at_a_vertex_that_misses_by_a_hair(monkeypatch):
    """As where a state that should be active is not: the others move to let it in."""
    usual = incumbent.solve_face

    def missing(*given):
        found = usual(*given)
        if found is not None:
            found[0][np.flatnonzero(found[0])[:2]] += 1e-10
        return found

    monkeypatch.setattr(incumbent, "solve_face", missing)
    return {"vertex", "interior", "highs"}


def end_at_such_a_vertex_that_cannot_be_moved(monkeypatch):
    ends = end_at_a_vertex_that_misses_by_a_hair(monkeypatch)
    monkeypatch.setattr(incumbent, "moved_inside", lambda *_, **__: None)
    return ends


ENDS = [
    pytest.param(value, share, id=f"{name}-{share}")
    for name, value in list(globals().items())
    for share in (None, 1e-3, 0.3)
    if name.startswith("end_") and not (value is end_by_the_first_order_method and share == 0.3)  # too slow
]


@pytest.mark.parametrize(("n", "kind"), [(5, "mixture"), (6, "gaussian"), (6, "mixture")])
@pytest.mark.parametrize(("end", "share"), ENDS)
def test_every_way_to_end_matches_every_state(end, n, kind, share, monkeypatch):
    scores = score_vector(n, 1, kind)
    zeta = float(noise_bound(scores)[0]) if share is None else share * float(scale_of(scores))
    expected = decompose(scores, zeta)
    ends = end(monkeypatch)
    result = decompose(scores, zeta)
    assert result.solver[0] in ends
    assert beyond(scores, zeta, result) <= PROMISE
    assert result.gap[0] <= 1e-3
    cost = np.sum(effect_weights(n) * np.abs(all_effects(result)[0]))
    assert result.objective[0] == pytest.approx(cost, rel=1e-12)
    assert result.lower_bound[0] <= expected.objective[0] * (1 + 1e-9)
    assert expected.lower_bound[0] <= result.objective[0] * (1 + 1e-9)


@pytest.mark.parametrize("without_vertices", [False, True])
def test_starts_from_a_device_match_every_state(without_vertices, monkeypatch):
    scores, zeta = map(np.array, zip(*(problem(7, number) for number in range(8)), strict=True))
    if without_vertices:
        no_vertex(monkeypatch)
    result = decompose(scores, zeta, points=lambda v, bounds: points_on(torch.device("cpu"), v, bounds))
    model = logical_model(result.bias, result.and_effects, result.or_effects)
    assert (np.abs(model - scores).max(axis=1) <= zeta * (1 + PROMISE)).all()
    assert (result.gap <= 1e-3).all()


@pytest.mark.parametrize("movable", [True, False])
@pytest.mark.parametrize("vertices", [True, False])
@pytest.mark.parametrize(("n", "only_and"), [(9, False), (9, True), (18, False)])
def test_estimates_match_every_state_that_they_are_made_from(n, only_and, vertices, movable, monkeypatch):
    states = sample_states(n, 120, held_out=0.0)
    scores = np.random.default_rng(n).normal(size=120)
    if not vertices:
        no_vertex(monkeypatch)
    if not movable:
        for module in ("exact.incumbent", "sampled.column_generation"):
            monkeypatch.setattr(f"sftscope.decomposition.{module}.moved_inside", lambda *_, **__: None)
    for zeta in (0.5, 1e-3):
        made = estimate(states, scores, zeta, only_and=only_and)
        assert made.mismatch <= zeta * (1 + PROMISE)
        assert made.gap <= 1e-3
        assert np.count_nonzero(made.effect) == made.effect.size
        keys = set(zip(made.relation.tolist(), made.subset.tolist(), strict=True))
        assert len(keys) == made.effect.size


def test_moving_inside_takes_no_new_effect_and_putting_inside_always_can():
    """By hand: two effects cannot match three states; one state is beyond ζ by 0.1."""
    program, v = lattice_program(2), np.array([0.0, 1.0, 1.0, 3.0])
    x = np.array([1.0, 1.0, 0.0, 0.0])  # AND of the first word, of the second, of both; OR of both
    assert program.excess(x, v, 0.9) == pytest.approx(0.1)
    moved = moved_inside(program, v, 0.9, x, 1e-12)
    assert np.flatnonzero(moved).tolist() == [0, 1]
    assert program.excess(moved, v, 0.9) == 0.0
    np.testing.assert_allclose(moved, [1.05, 1.05, 0, 0], atol=1e-3)
    assert moved_inside(program, v, 0.3, x, 1e-12) is None  # each word may go up by 0.3, both must by 0.7
    assert moved_inside(program, v, 0.3, np.zeros(4), 1e-12) is None
    put = put_inside(program, v, 0.3, x)
    np.testing.assert_allclose(put, [1, 1, 0.7, 0], atol=1e-9)
    assert program.excess(put, v, 0.3) == 0.0


def test_what_a_program_has_for_any_values_are_effects_of_these_values():
    rng = np.random.default_rng(0)
    whole, block = lattice_program(4), (rng.random((6, 4)) < 0.5).astype(float)
    for program in (whole, whole.on(np.array([3, 7, 12])), ColumnProgram(block, np.ones(4), 9.0)):
        values = rng.normal(size=program.n_rows)
        values[0] *= not program.has_empty_row
        np.testing.assert_allclose(program.model(program.effects_for(values)), values, atol=1e-12)


CHILD = """
import json, sys
import numpy as np
from matching_problems import kernels, problem, worst_of
from score_vectors import mixture, noise_bound
noisy = mixture(11, np.random.default_rng(11), noise=0.02)
problems = [problem(8, number) for number in range(8)] + [problem(9, 43), (noisy, float(noise_bound(noisy)[0]))]
print(json.dumps({"kernels": kernels(), **worst_of(problems)}))
"""


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("core", "threads", "avx512"), [("Haswell", 1, False), ("SkylakeX", 2, True), ("Sandybridge", 2, False)]
)
def test_other_kernels_of_the_processor_keep_the_promise(core, threads, avx512):
    """OpenBLAS as on other processors, and numpy without AVX-512: the last digits differ, and with them the ways."""
    decompose(np.zeros(4), 0.0)  # loads both libraries
    if len(kernels()) != 1:
        pytest.skip("numpy or scipy come without OpenBLAS")
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    disabled = [] if avx512 else [name for name in found if name == "X86_V4" or "AVX512" in name]
    environment = {
        **os.environ,
        "OPENBLAS_CORETYPE": core,
        "OPENBLAS_NUM_THREADS": str(threads),
        "NPY_DISABLE_CPU_FEATURES": " ".join(disabled),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    child = subprocess.run(
        [sys.executable, "-c", CHILD], env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    worst = json.loads(child.stdout)
    if worst["kernels"] != [core]:
        pytest.skip(f"this processor has no {core} kernels")
    assert worst["beyond"] <= PROMISE
    assert worst["gap"] <= 1e-3
