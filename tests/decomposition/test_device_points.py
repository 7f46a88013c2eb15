"""Interior points found in one batch on a device lead to the same certified effects as those found one by one."""

import numpy as np
import pytest
import torch

from score_vectors import all_effects, noise_bound, scale_of, score_vector
from sftscope.decomposition import decompose
from sftscope.extraction.gpu_interior_point import points_on

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n", [1, 3, 6, 8])
def test_points_of_a_batch_lead_to_the_same_vertices(n, device):
    scores = np.stack([score_vector(n, seed, ("mixture", "gaussian")[seed % 2]) for seed in range(4)])
    zeta = noise_bound(scores)
    expected = decompose(scores, zeta)
    result = decompose(scores, zeta, points=lambda v, bounds: points_on(torch.device(device), v, bounds))
    assert result.gap.max() <= 1e-8
    np.testing.assert_allclose(all_effects(result), all_effects(expected), atol=1e-6 * scale_of(scores[0]))


def test_the_points_alone_determine_most_vertices(monkeypatch):
    scores = np.stack([score_vector(6, seed) for seed in range(6)])
    zeta = noise_bound(scores)
    asked = []
    monkeypatch.setattr(
        "sftscope.decomposition.exact.incumbent.interior_points", lambda *problem: asked.append(problem) or iter(())
    )
    monkeypatch.setattr("sftscope.decomposition.exact.solver_chain.LARGEST_N_FOR_HIGHS", 7)
    result = decompose(scores, zeta, points=lambda v, bounds: points_on(torch.device("cpu"), v, bounds))
    assert result.gap.max() <= 1e-8
    assert len(asked) <= 2


def test_without_noise_bound_there_is_no_point():
    assert points_on(torch.device("cpu"), score_vector(3, 0)[None] / 8, np.zeros(1)) == [None]
