"""SCHEMAS.md lists every field of every JSON form, and none that is not there."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from run_configs import write_config
from sample_history import write_sample_run
from schema_pages import ROOT, check, tables
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.views import Selection
from sftscope.analysis.trust.estimate_intervals import EstimateView
from sftscope.analysis.trust.solver_residue import SolverResidue
from sftscope.decomposition.score_file import decompose_file
from sftscope.preflight import inspection
from sftscope.preflight import plan as planner
from sftscope.reporting.content import make_report
from sftscope.reporting.forms import as_json
from sftscope.reporting.run_comparison import compare, compare_json
from sftscope.reporting.show import show_json
from sftscope.store import RunFolder
from sftscope.store.sharing.run_status import RunStatus, run_status
from sftscope.store.sharing.worker_status import Worker
from sftscope.verification.damage import Finding, Verification
from sftscope.verification.verify import verify

RUNS = [ROOT / "sample_runs" / name for name in ("smollm2", "gemma3")]


@pytest.fixture(scope="module")
def evolutions() -> list[Evolution]:
    first, second = map(load_history, RUNS)
    return [Evolution(first), Evolution(replace(second, same_weights={4: 2}))]  # as if its step 4 repeated step 2


def test_report(evolutions: list[Evolution], tmp_path: Path) -> None:
    forms = [json.loads(as_json(make_report(each))) for each in evolutions]
    small = Evolution(load_history(write_sample_run(tmp_path / "run", n_steps=4, n_probes=2, n=3)))
    forms.append(json.loads(as_json(make_report(small, zeta=True))))
    check("report", *forms, unseen=("estimate.", "residue[].", "changes[].rows[].series[]"))


def test_show(evolutions: list[Evolution]) -> None:
    check("show", *(show_json(each, Selection(15)) for each in evolutions), unseen=("estimate.",))


def test_compare(evolutions: list[Evolution]) -> None:
    check("compare", compare_json(compare(evolutions)))


def test_status() -> None:
    at_work = RunStatus(2, 1, 3, 4, 0.5, (Worker("a-1", "working", "step 8", 1, 2.0),))
    check("status", at_work.as_dict(), *(run_status(RunFolder(run)).as_dict() for run in RUNS))


def test_verify() -> None:
    damaged = Verification(3, (Finding("steps/a.h5", "damaged", "no hash", "repair"),), (8,), ("b",))
    check("verify", damaged.as_dict(), verify(RUNS[0]).as_dict())


def test_plan_and_inspect(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    check("plan", planner.plan(config), unseen=("collisions.",))
    check("inspect", inspection.inspect(config), unseen=("collisions.",))


def test_decompose(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(8.0) ** 2)
    masks = np.arange(120)[:, None] >> np.arange(8) & 1
    masks = np.vstack([masks, 1 - masks[:1]])
    np.savez(tmp_path / "a.npz", masks=masks, scores=masks @ np.arange(8.0))
    check("decompose", *decompose_file(tmp_path / "a.npy", 0.1), *decompose_file(tmp_path / "a.npz", 0.1))


@pytest.mark.parametrize(
    ("kind", "heading", "prefix"), [(EstimateView, "estimate", ""), (SolverResidue, "report", "residue[].")]
)
def test_parts_that_the_sample_runs_do_not_have(kind: type, heading: str, prefix: str) -> None:
    names = {
        re.match(r"\w+", name[len(prefix) :])[0]
        for name in tables()[heading]
        if name.startswith(prefix) and name != "residue[]"
    }
    assert names == {field.name for field in fields(kind)}


def test_a_field_that_is_not_documented_is_found() -> None:
    damaged = Verification(3, (), ()).as_dict()
    with pytest.raises(AssertionError, match="not documented"):
        check("verify", damaged | {"new": 1})
    with pytest.raises(AssertionError, match="no form has"):
        check("verify", damaged)
