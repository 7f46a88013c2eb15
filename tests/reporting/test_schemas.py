"""SCHEMAS.md lists every field of every JSON form, and none that is not there."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from json_schemas import FOLDER
from run_configs import write_config
from sample_history import write_sample_run
from schema_pages import ROOT, check, tables
from sftscope.analysis.conclusions.verdict import verdict_of
from sftscope.analysis.rows.row_index import RowIndex
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.views import Selection, as_plain, to_plain
from sftscope.analysis.trust.estimate_intervals import EstimateView
from sftscope.analysis.trust.solver_residue import SolverResidue
from sftscope.decomposition.score_file import decompose_file
from sftscope.foundation.safe_text import json_text
from sftscope.preflight import inspection
from sftscope.preflight import plan as planner
from sftscope.reporting.answer.endings import status_json
from sftscope.reporting.answer.run_answer import answer_of
from sftscope.reporting.content import make_report
from sftscope.reporting.forms import as_json
from sftscope.reporting.run_comparison import compare, compare_json
from sftscope.reporting.show import show_json
from sftscope.store import RunFolder
from sftscope.store.sharing.run_status import RunStatus, run_status
from sftscope.store.sharing.worker_status import Worker
from sftscope.training.data.shapes import Row
from sftscope.verification.damage import Finding, Verification
from sftscope.verification.verify import verify

RUNS = [ROOT / "sample_runs" / name for name in ("smollm2", "gemma3")]


def validate(heading: str, *forms: Any) -> None:
    """Each form is what the package's JSON Schema says, as it is printed."""
    schema = json.loads((FOLDER / f"{heading}.json").read_text(encoding="utf-8"))
    for form in forms:
        plain = form.as_dict() if hasattr(form, "as_dict") else form
        jsonschema.validate(json.loads(json_text(to_plain(plain))), schema, jsonschema.Draft202012Validator)


@pytest.fixture(scope="module")
def evolutions() -> list[Evolution]:
    first, second = map(load_history, RUNS)
    return [Evolution(first), Evolution(replace(second, same_weights={4: 2}))]  # as if its step 4 repeated step 2


def test_report(evolutions: list[Evolution], tmp_path: Path) -> None:
    forms = [json.loads(as_json(make_report(each))) for each in evolutions]
    assert [form["verdict"] for form in forms] == [as_plain(verdict_of(each)) for each in evolutions]
    small = Evolution(load_history(write_sample_run(tmp_path / "run", n_steps=4, n_probes=2, n=3)))
    taught = RowIndex.of([Row("q", part.probe.text, "bad") for part in small.history.probes])
    forms.append(json.loads(as_json(make_report(small, zeta=True, rows=taught))))
    validate("report", forms[-1])
    validate("show", show_json(small, Selection(3)))
    validate("compare", compare_json(compare([small, small])))
    check("report", *forms, unseen=("estimate.", "residue[].", "changes[].rows[].series[]"))


def test_show(evolutions: list[Evolution]) -> None:
    check("show", *(show_json(each, Selection(15)) for each in evolutions), unseen=("estimate.",))


def test_compare(evolutions: list[Evolution]) -> None:
    check("compare", compare_json(compare(evolutions)))


def test_answer(evolutions: list[Evolution]) -> None:
    answers = [answer_of(run, each).as_dict() for run, each in zip(RUNS, evolutions, strict=True)]
    check("answer", *answers)
    validate("answer", *answers)


def test_status(tmp_path: Path) -> None:
    at_work = RunStatus(2, 1, 3, 4, 0.5, (Worker("a-1", "working", "step 8", 1, 2.0),))
    begun = status_json(tmp_path, at_work)
    assert begun["verdict"] is None
    assert "run.toml" in begun["no_verdict"]
    forms = [begun, *(status_json(run, run_status(RunFolder(run))) for run in RUNS)]
    check("status", *forms)
    validate("status", *forms)


def test_verify() -> None:
    damaged = Verification(3, (Finding("steps/a.h5", "damaged", "no hash", "repair"),), (8,), ("b",))
    forms = [damaged.as_dict(), verify(RUNS[0]).as_dict()]
    check("verify", *forms)
    validate("verify", *forms)


def test_plan_and_inspect(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    for name, form in (("plan", planner.plan(config)), ("inspect", inspection.inspect(config))):
        check(name, form, unseen=("collisions.", "warnings[]", "notes[]", "probe.influence."))
        validate(name, form)


def test_decompose(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(8.0) ** 2)
    masks = np.arange(120)[:, None] >> np.arange(8) & 1
    masks = np.vstack([masks, 1 - masks[:1]])
    np.savez(tmp_path / "a.npz", masks=masks, scores=masks @ np.arange(8.0))
    forms = [*decompose_file(tmp_path / "a.npy", 0.1), *decompose_file(tmp_path / "a.npz", 0.1)]
    check("decompose", *forms)
    validate("decompose", [each.as_dict() if hasattr(each, "as_dict") else each for each in forms])


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


def test_a_form_that_is_not_what_its_schema_says_is_found(evolutions: list[Evolution]) -> None:
    form = answer_of(RUNS[0], evolutions[0]).as_dict()
    validate("answer", form | {"added": 1})  # within a version fields are added
    wrong = [{"version": 2}, {"steps": ["0"]}, {"verdict": {**form["verdict"], "stop_by": 48.5}}]
    for changes in (*wrong, {"verdict": {"sentence": "Stop at step 3: …"}}):
        with pytest.raises(jsonschema.ValidationError):
            validate("answer", form | changes)


def test_a_field_that_is_not_documented_is_found() -> None:
    damaged = Verification(3, (), ()).as_dict()
    with pytest.raises(AssertionError, match="not documented"):
        check("verify", damaged | {"new": 1})
    with pytest.raises(AssertionError, match="no form has"):
        check("verify", damaged)
