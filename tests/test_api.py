"""The public interface: what other people's scripts import, and what it returns."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sftscope
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.thresholds import ThresholdRule
from sftscope.analysis.sets.views import Selection, changes, trends

SAMPLE = Path(__file__).parents[1] / "sample_runs" / "gemma3"


@pytest.fixture(scope="module")
def run() -> sftscope.Run:
    return sftscope.open_run(SAMPLE)


def test_every_public_name_is_there_and_documented() -> None:
    for name in sftscope.__all__:
        assert name in dir(sftscope)
        assert getattr(sftscope, name).__doc__
        if name != "__version__":
            assert f"``{name}" in sftscope.__doc__ or name == "Run"


def test_importing_it_imports_neither_pytorch_nor_numpy() -> None:
    code = (
        "import sys, sftscope; print([m for m in ('torch', 'numpy', 'h5py', 'textual') if m in sys.modules]);"
        "sftscope.open_run, sftscope.decompose, sftscope.report, sftscope.SftscopeError; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\nFalse\n"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        sftscope.nonsense  # noqa: B018
    with pytest.raises(sftscope.SftscopeError, match=r"run\.toml"):
        sftscope.open_run("no-such-run")


def test_report_is_the_function_also_after_the_package_of_reports_is_imported(tmp_path: Path) -> None:
    import sftscope.reporting

    written = sftscope.report(SAMPLE, tmp_path, formats=["json"])
    assert [path.name for path in written] == ["report.json"]
    assert written[0].is_file()


def test_trends_are_those_of_the_views(run: sftscope.Run) -> None:
    table = run.trends(base=8)
    evolution = Evolution(load_history(SAMPLE), ThresholdRule.parse("max-step"))
    view = trends(evolution, Selection(now=len(run.steps) - 1, base=evolution.history.index_of(8)))
    assert {len(column) for column in table.values()} == {len(run.steps)}
    np.testing.assert_array_equal(table["step"], run.steps)
    np.testing.assert_array_equal(table["encoded"], view.encoded_mean)
    for change, curves in view.classes.items():
        np.testing.assert_array_equal(table[f"{change.value}_count"], curves.count_mean)
        np.testing.assert_array_equal(table[f"{change.value}_uncancelled"], curves.uncancelled_mean)
    np.testing.assert_array_equal(table["eval"], view.losses["eval"])


def test_interactions_are_the_rows_of_the_set_diff(run: sftscope.Run) -> None:
    table = run.interactions(step=48, base=8)
    history = load_history(SAMPLE)
    evolution = Evolution(history, ThresholdRule.parse("max-step"))
    rows = changes(evolution, Selection(now=history.index_of(48), base=history.index_of(8))).rows
    assert len(table["probe"]) == len(rows) > 1000
    assert [row.subset for row in rows] == table["subset"].tolist()
    assert [row.effect_now for row in rows] == table["effect"].tolist()
    assert set(table["change"]) == {"removed", "preserved", "emerged"}


def test_scores_and_probes_go_by_the_probes_id(run: sftscope.Run) -> None:
    probes, scores = run.probes(), run.scores(48)
    assert list(scores) == probes["id"].tolist()
    assert [len(each) for each in scores.values()] == (1 << probes["n_words"]).tolist()


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_a_table_is_one_of_other_libraries(run: sftscope.Run, library: str) -> None:
    table = run.interactions()
    convert = {"pandas": table.to_pandas, "polars": table.to_polars, "pyarrow": table.to_arrow}[library]
    if find_spec(library) is None:  # no dependency of ours; here where another package has brought it
        with pytest.raises(sftscope.SftscopeError, match=f"this needs {library}; install it with: pip install"):
            convert()
        return
    made = convert()
    names = made.column_names if library == "pyarrow" else list(made.columns)
    assert names == list(table)
    assert made["effect"].to_numpy().tolist() == table["effect"].tolist()
    assert made["words"].to_numpy().tolist() == table["words"].tolist()


def test_losses_are_a_row_a_value(run: sftscope.Run) -> None:
    table, trends = run.losses(), run.trends()
    assert {len(column) for column in table.values()} == {len(table["quantity"])}
    rows = zip(table["quantity"], table["step"], table["value"], strict=True)
    held_out = {step: value for quantity, step, value in rows if quantity == "eval"}
    assert [held_out[step] for step in run.steps] == trends["eval"].tolist()


def test_interactions_say_which_answer_they_speak_for(run: sftscope.Run) -> None:
    probes, table = run.probes(), run.interactions(step=48)
    known = set(zip(probes["id"], probes["response"], probes["target"], strict=True))
    assert set(zip(table["probe"], table["response"], table["target"], strict=True)) <= known
    assert set(table["response"]) <= set(probes["response"]) - {""}


def test_the_page_of_examples_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block in the engine's page, as in a notebook: three plots."""
    pytest.importorskip("pandas")
    page = (SAMPLE.parents[1] / "engine" / "README.md").read_text(encoding="utf-8")
    code = page.split("## From Python\n\n```python\n")[1].partition("\n```\n")[0]
    monkeypatch.setenv("MPLBACKEND", "agg")
    (tmp_path / "sample_runs").symlink_to(SAMPLE.parent)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["verdict"].stop_by == 48
    assert len(names["emerged"]) == 10
    assert (tmp_path / "smollm2.png").stat().st_size > 10_000


def test_decompose_gives_certified_effects() -> None:
    scores = np.array([0.0, 1.0, 0.0, 3.0])  # AND of one word, and of both
    found = sftscope.decompose(scores, 0.0)
    np.testing.assert_allclose(found.and_effects[0], [0.0, 1.0, 0.0, 2.0], atol=1e-12)
    assert found.gap[0] <= 1e-3
