"""Same bytes need the same machine and threads; the same sets do not, and what a step was made on is said."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sftscope.analysis.run.machines import machine_of, machines_sentence
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.thresholds import ThresholdRule
from sftscope.analysis.trust.caveats import caveats
from sftscope.extraction.blocks import joined
from sftscope.extraction.job import made_on
from sftscope.llm.loading import machine
from sftscope.runs import pipeline
from sftscope.store import RunFolder
from sftscope.verification.verify import verify


@pytest.fixture(scope="module")
def runs(toy_run):
    """Two copies of a run: the first step with 1 thread and the others with 2; all with 1."""
    mixed, single = (RunFolder(toy_run()[1]) for _ in range(2))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        pipeline.extract(mixed.path, steps=[0])
        pipeline.extract(single.path, steps=[0, 2, 4])
        torch.set_num_threads(2)
        pipeline.extract(mixed.path, steps=[2, 4])
    finally:
        torch.set_num_threads(before)
    return mixed, single


def test_the_sets_do_not_depend_on_threads(runs) -> None:
    """Under the default rule; scores and effects may differ by rounding."""
    mixed, single = (load_history(run.path) for run in runs)
    rule = ThresholdRule.parse("max-run")
    for first, second in zip(Evolution(mixed, rule).encoded, Evolution(single, rule).encoded, strict=True):
        np.testing.assert_array_equal(first, second)
    for first, second in zip(mixed.probes, single.probes, strict=True):
        np.testing.assert_allclose(first.scores, second.scores, atol=1e-5)
        np.testing.assert_allclose(first.effects, second.effects, atol=1e-4)


def test_a_step_names_what_it_was_made_on(runs) -> None:
    mixed, _ = runs
    first, last = (mixed.read_step(step).provenance for step in (0, 4))
    assert (first["threads"]["torch"], last["threads"]["torch"]) == (1, 2)
    assert first["machine"] == last["machine"] == machine()
    assert first["machine"]["cpu"]
    assert first["machine"]["vector_unit"] == torch.backends.cpu.get_cpu_capability()
    assert all(name.split()[0] in ("openblas", "mkl", "blis", "accelerate") for name in first["machine"]["blas"])


def test_the_report_and_verify_say_where_machines_differ(runs) -> None:
    mixed, single = runs
    (line,) = [line for line in caveats(load_history(mixed.path)) if "machine" in line]
    assert "(threads 1 / 2)" in line
    (note,) = [each for each in verify(mixed.path).findings if "machine" in each.what]
    assert (note.kind, note.file) == ("note", "steps")
    assert not [line for line in caveats(load_history(single.path)) if "machine" in line]
    assert not verify(single.path).findings


def test_a_step_that_several_machines_shared_names_them_all(runs) -> None:
    scored = replace(runs[0].read_step(0), effects=None)
    threads = {**scored.provenance, "threads": {"torch": 8}}
    whole = joined([scored, replace(scored, provenance=threads)])
    assert [part["threads"]["torch"] for part in whole.provenance["made_on"]] == [1, 8]
    assert machine_of(whole.provenance)["threads"] == ("1", "8")
    assert "(threads 1 / 8)" in machines_sentence([machine_of(whole.provenance)])
    assert "made_on" not in joined([scored, scored]).provenance
    assert made_on([whole.provenance, threads])["made_on"] == whole.provenance["made_on"]


@pytest.mark.parametrize("said", [{}, {"machine": 3, "threads": []}, {"made_on": 1}, {"machine": {"blas": "x"}}])
def test_what_a_file_does_not_say_is_no_difference(said) -> None:
    """Step files of earlier releases, and of strangers."""
    known = {"device": "x86_64", "machine": {"cpu": "A\x1b", "blas": ["b"]}, "threads": {"torch": 2}}
    assert not machines_sentence([machine_of(said), machine_of(known)])
    assert machines_sentence([machine_of(known), machine_of({**known, "machine": {"cpu": "B"}})]).isprintable()
