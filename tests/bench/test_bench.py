"""The benchmark gives every figure with both sides; its references solve the same problems. Nothing is timed here."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from schema_pages import check
from sftscope.bench.benchmark import Work, _memory, bench, highs_objective, reference_prompt, render
from sftscope.decomposition import decompose
from sftscope.scoring.scorer import tree_tokens

TINY = Work(
    words=4,
    length=24,
    tail=5,
    hidden_size=32,
    layers=2,
    sizes=(4,),
    vectors=2,
    moebius_n=5,
    repeats=1,
    memory_sizes=(6,),
)
NAMES = ["tree_against_naive", "tree_against_plain_forward", "memory_n6", "decomposition_n4", "moebius"]


@pytest.fixture(scope="module")
def result():
    return bench(work=TINY)


def test_every_figure_has_both_sides_and_their_ratio(result):
    assert result.schema == "sftscope-bench"
    assert [figure.name for figure in result.figures] == NAMES
    for figure in result.figures:
        sides = figure.ours, figure.reference
        assert min(sides) > 0
        assert figure.ratio == pytest.approx(sides[0] / sides[1] if figure.unit == "tokens/s" else sides[1] / sides[0])
    assert json.loads(json.dumps(result.as_dict())) == result.as_dict()


def test_every_field_is_documented(result):
    check("bench", result)


def test_the_table_names_the_device_and_every_figure(result):
    text = render(result)
    assert result.device in text
    assert all(figure.title in text and figure.note in text for figure in result.figures)


def test_scoring_stays_below_its_memory_limit():
    work = Work(memory_mb=24.0)  # it takes 61 MB where it may
    figure = _memory(12, work, torch.device("cpu"))
    assert 1 < figure.ours <= figure.reference


def test_without_shapiq_the_transform_is_measured_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "shapiq", None)
    work = replace(TINY, memory_sizes=())
    result = bench(work=work)
    figure = result.figures[-1]
    assert figure.reference is None
    assert figure.ratio is None
    assert "shapiq is not installed" in figure.note
    assert "—" in render(replace(result, figures=[figure]))


def test_the_reference_prompt_is_the_documented_case():
    prompt = reference_prompt(Work(), 4096)
    assert prompt.n_variables == 10
    assert len(prompt.ids) - prompt.starts()[-1] == 17
    assert 6.6 < (128 << 10) / tree_tokens(prompt) < 6.8


def test_highs_and_the_decomposition_solve_the_same_program():
    scores = np.random.default_rng(0).normal(size=32)
    assert highs_objective(scores, 0.1) == pytest.approx(float(decompose(scores, 0.1).objective[0]), rel=1e-6)
