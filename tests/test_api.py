"""The public interface: what other people's scripts import, and what it returns."""

import subprocess
import sys
from pathlib import Path

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


def test_a_table_is_what_pandas_takes(run: sftscope.Run) -> None:
    pandas = pytest.importorskip("pandas")  # no dependency of ours; here where another package has brought it
    frame = pandas.DataFrame(run.interactions())
    assert list(frame.columns)[:3] == ["probe", "change", "relation"]
    assert frame["effect"].dtype == np.float64
    assert len(frame) == len(run.interactions()["probe"])


def test_decompose_gives_certified_effects() -> None:
    scores = np.array([0.0, 1.0, 0.0, 3.0])  # AND of one word, and of both
    found = sftscope.decompose(scores, 0.0)
    np.testing.assert_allclose(found.and_effects[0], [0.0, 1.0, 0.0, 2.0], atol=1e-12)
    assert found.gap[0] <= 1e-3
