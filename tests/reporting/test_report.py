"""Show and report: the same numbers as the views, deterministic, safe with hostile words, honest verdicts."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hostile_run import HOSTILE_WORDS
from sample_history import write_sample_run
from sftscope.analysis.conclusions.verdict import Agreement
from sftscope.analysis.run.effect_table import EffectTable
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.thresholds import RULES, ThresholdRule
from sftscope.analysis.sets.views import Selection, as_plain, changes, to_plain, trends
from sftscope.analysis.trust.sensitivity import TAU_FACTORS
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import json_text
from sftscope.reporting.figures import need_matplotlib
from sftscope.reporting.forms import make_report, write_report
from sftscope.reporting.show import is_provisional, model_name, show_json, show_text
from sftscope.reporting.tables import Table, as_markdown, as_text, spread


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample_run(tmp_path_factory.mktemp("runs") / "sample", n_steps=14, n_probes=3, n=4)


@pytest.fixture(scope="module")
def evolution(run: Path) -> Evolution:
    return Evolution(load_history(run))


def test_show_json_is_the_views(evolution: Evolution) -> None:
    selection = Selection(5, 1)
    shown = show_json(evolution, selection)
    over_time = as_plain(trends(evolution, selection))
    assert shown["schema"] == "sftscope-show"
    assert shown["version"] == 2
    assert shown["step"] == 8
    assert shown["base_step"] == 1
    assert (shown["tau"]["rule"], shown["tau"]["hysteresis"]) == ("max-step", 0.5)
    assert shown["events"] == over_time.pop("events")
    assert shown["trends"] == over_time
    assert shown["changes"] == as_plain(changes(evolution, selection))
    assert {"orders", "backbone", "quality", "left_out", "run", "model", "steps", "probe"} <= set(shown)
    assert json.loads(json_text(shown)) == shown


def test_report_json_has_the_numbers_of_show(evolution: Evolution, tmp_path: Path) -> None:
    write_report(evolution, tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    shown = show_json(evolution, Selection(13))
    assert report["schema"] == "sftscope-report"
    assert report["version"] == 4
    assert report["verdict"] == shown["verdict"]
    for key in ("run", "model", "steps", "tau", "events", "trends", "backbone", "quality", "left_out"):
        assert report[key] == shown[key]
    assert report["orders"][-1] == shown["orders"]
    assert report["changes"][-1]["counts"] == shown["changes"]["counts"]
    without_series = [{k: v for k, v in row.items() if k != "series"} for row in shown["changes"]["rows"]]
    assert report["changes"][-1]["rows"] == without_series
    assert report["chosen_steps"] == [0, report["events"]["sparsest"]["step"], 128]
    assert [row["rule"].partition(":")[0] for row in report["sensitivity"]][: len(RULES)] == list(RULES)
    chosen = next(row for row in report["sensitivity"] if row["chosen"])
    last = {change: point["count_mean"][-1] for change, point in shown["trends"]["classes"].items()}
    assert chosen["at_last"] == pytest.approx(last)


def test_reports_of_one_run_are_equal_bytes(run: Path, tmp_path: Path) -> None:
    first = write_report(run, tmp_path / "a")
    second = write_report(run, tmp_path / "b")
    assert [path.name for path in first] == ["report.md", "report.json"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert str(tmp_path.parent) not in first[0].read_text() + first[1].read_text()


def test_a_report_answers_first(run: Path, tmp_path: Path) -> None:
    (path,) = write_report(run, tmp_path, ["md"])
    text = path.read_text(encoding="utf-8")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings[0] == "## When should it have stopped?"
    for wanted in (
        "Over the steps",
        "strongest interactions",
        "Orders",
        "one class alone",
        "threshold",
        "Quality",
        "Provenance",
    ):
        assert any(wanted in heading for heading in headings)
    assert "Sparsest: step " in text
    assert "Held-out loss: lowest at step" in text


def test_unknown_formats_and_views_are_named(evolution: Evolution, tmp_path: Path) -> None:
    with pytest.raises(SftscopeError, match="'docx': not one of md, json, csv, html"):
        write_report(evolution, tmp_path / "out", ["md", "docx"])
    assert not (tmp_path / "out").exists()
    with pytest.raises(SftscopeError, match="unknown view"):
        show_text(evolution, Selection(0), view="\x1b")


@pytest.mark.parametrize("view", ["trends", "changes", "orders", "backbone"])
def test_one_view_is_a_part_of_all(evolution: Evolution, view: str) -> None:
    whole, part = show_text(evolution, Selection(8)), show_text(evolution, Selection(8), view=view)
    assert part.partition("\n\n")[2].rstrip("\n") in whole
    assert len(part) < len(whole)


def test_text_fits_a_hundred_columns_and_says_what_it_cut(evolution: Evolution) -> None:
    text = show_text(evolution, Selection(8), max_rows=3)
    tables = [line for line in text.splitlines() if not line.startswith("  ")]
    assert max(map(len, tables)) <= 100
    assert "weaker ones" in text
    assert "\x1b" not in text


def test_one_probe_can_be_shown(evolution: Evolution) -> None:
    assert "probe p01" in show_text(evolution, Selection(8, probe=1))
    assert show_json(evolution, Selection(8, probe=1))["probe"] == "p01"


def test_hostile_words_names_and_settings_are_made_safe(tmp_path: Path) -> None:
    path = write_sample_run(tmp_path / "r\x1b[2J|un", n_steps=9, n_probes=1, n=6, words=HOSTILE_WORDS)
    run_file = path / "run.toml"
    run_file.write_text(
        run_file.read_text(encoding="utf-8").replace('"tiny-llm"', '"x\\u001b[2J|y"')
        + '\n[extra]\n"k\\u001b|" = 2020-01-01\ninfinite = inf\n',
        encoding="utf-8",
    )
    evolution = Evolution(load_history(path))
    text = show_text(evolution, Selection(8), max_rows=100)
    assert all(line.isprintable() for line in text.splitlines())
    paths = write_report(evolution, tmp_path / "out")
    markdown = paths[0].read_text(encoding="utf-8")
    assert all(line.isprintable() for line in markdown.splitlines())
    for unsafe in ("<script>", " |pipe|", "http://", "[x]("):
        assert unsafe not in markdown
    for block in markdown.split("\n\n"):
        bars = {
            line.replace("\\\\", "").replace("\\|", "").count("|") for line in block.splitlines() if line[:1] == "|"
        }
        assert len(bars) <= 1, block
    raw = paths[1].read_bytes()
    assert raw.isascii()
    assert b"\x1b" not in raw
    words = {word for row in json.loads(raw)["changes"][-1]["rows"] for word in row["words"]}
    assert words <= set(HOSTILE_WORDS)


def test_undefined_numbers_are_null_and_dashes(run: Path, tmp_path: Path) -> None:
    evolution = Evolution(load_history(run))
    shown = show_json(evolution, Selection(0))
    assert shown["trends"]["classes"]["removed"]["uncancelled_mean"][0] is None
    assert "NaN" not in json_text(shown)
    assert "–" in show_text(evolution, Selection(0))
    assert to_plain({"a": [float("nan"), float("inf"), (1, "x")]}) == {"a": [None, None, [1, "x"]]}


@pytest.mark.parametrize("n_steps", [1, 2])
def test_the_shortest_runs_have_a_report(n_steps: int, tmp_path: Path) -> None:
    path = write_sample_run(tmp_path / "run", n_steps=n_steps, n_probes=1, n=2)
    markdown = write_report(path, tmp_path / "out")[0].read_text(encoding="utf-8")
    assert "Not enough evidence" in markdown
    assert show_text(Evolution(load_history(path)), Selection(n_steps - 1))


def test_a_run_without_losses_or_interactions_has_a_report(tmp_path: Path) -> None:
    path = write_sample_run(tmp_path / "run", n_steps=5, n_probes=2, n=3)
    history = load_history(path)
    bare = replace(
        history,
        losses={},
        measured={},
        probes=tuple(replace(p, table=EffectTable.of_dense(0 * p.effects)) for p in history.probes),
    )
    report = make_report(Evolution(bare))
    assert report.verdict.agreement is Agreement.NOT_ENOUGH
    assert report.verdict.held_out is None
    markdown = write_report(Evolution(bare), tmp_path / "out")[0].read_text(encoding="utf-8")
    assert "none was recorded" in markdown


def test_a_damaged_step_is_named_and_left_out(tmp_path: Path) -> None:
    path = write_sample_run(tmp_path / "run", n_steps=6, n_probes=1, n=3)
    for step in (0, 3):
        (path / "steps" / f"step_{step:08d}.h5").write_bytes(b"")
    evolution = Evolution(load_history(path))
    markdown = write_report(evolution, tmp_path / "out")[0].read_text(encoding="utf-8")
    assert "step\\_00000003.h5" in markdown
    assert "first extracted step is 1, not 0" in markdown
    assert "left out: " in show_text(evolution, Selection(0))
    left_out = show_json(evolution, Selection(0))["left_out"]
    assert [line.partition(":")[0] for line in left_out] == ["steps/step_00000000.h5", "steps/step_00000003.h5"]


def test_an_uncertified_step_is_not_called_final(run: Path, tmp_path: Path) -> None:
    history = load_history(run)
    probes = tuple(replace(p, gap=np.where(history.steps == 3, np.nan, p.gap)) for p in history.probes)
    evolution = Evolution(replace(history, probes=probes))
    assert "Not final" in write_report(evolution, tmp_path)[0].read_text(encoding="utf-8")
    assert show_json(evolution, Selection(0))["quality"]["uncertified"] == [3]


@pytest.mark.parametrize(
    ("max_steps", "rule", "expected"),
    [(24, "max-run", False), (199, "max-run", True), (0, "max-run", None), (99, "max-step", False)],
)
def test_tau_is_provisional_until_the_last_step(run: Path, max_steps: int, rule: str, expected: bool | None) -> None:
    history = replace(load_history(run), run={"settings": {"training": {"max_steps": max_steps}}})
    assert is_provisional(Evolution(history, ThresholdRule.parse(rule))) is expected


def test_another_rule_is_a_row_of_its_own(run: Path) -> None:
    rows = make_report(Evolution(load_history(run), ThresholdRule("absolute", 0.25))).sensitivity
    assert [row.rule for row in rows if row.chosen] == ["absolute:0.25"]
    assert len(rows) == 1 + len(RULES) + len(TAU_FACTORS) + 1
    assert rows[-1].rule == "absolute:0.25, no hysteresis"


# Tables.


def test_tables_align_wide_characters() -> None:
    table = Table(("word", "n"), [("日本", "1"), ("a", "22")], frozenset([0]))
    assert as_text(table).splitlines() == ["word   n", "日本   1", "a     22"]
    assert as_markdown(table).splitlines()[1] == "| :--- | --: |"


def test_the_last_column_is_cut_at_the_width() -> None:
    line = as_text(Table(("a", "words"), [("1", "w" * 200)], frozenset([1])), width=40).splitlines()[1]
    assert len(line) == 40
    assert line.endswith("…")


@pytest.mark.parametrize(("length", "keep", "limit"), [(5, [0], 10), (1000, [0, 7, 999], 20), (30, [3, 4, 5, 29], 4)])
def test_spread_keeps_what_it_must(length: int, keep: list[int], limit: int) -> None:
    chosen = spread(length, keep, limit)
    assert set(keep) <= set(chosen) <= set(range(length))
    assert chosen == sorted(set(chosen))
    assert len(chosen) <= max(limit, len(keep) + 2)


@pytest.mark.parametrize(
    ("run_file", "name"),
    [
        ({}, ""),
        ({"model": 3}, ""),
        ({"model": {"name": 3, "path": "a/b"}}, "a/b"),
        ({"settings": {"model": {"path": "/home/someone/models/tiny/"}}}, "tiny"),
    ],
)
def test_model_names(run_file: dict[str, Any], name: str) -> None:
    assert model_name(run_file) == name


def test_a_report_is_written_over_a_report_and_over_nothing_else(evolution: Evolution, tmp_path: Path) -> None:
    write_report(evolution, tmp_path / "own", ["md"])
    write_report(evolution, tmp_path / "own", ["md", "json"])
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "report.md").write_text("my thesis")
    with pytest.raises(SftscopeError, match=r"docs/report\.md: is there already and was not written by a report"):
        write_report(evolution, tmp_path / "docs", ["md"])
    assert (tmp_path / "docs" / "report.md").read_text() == "my thesis"


@pytest.mark.parametrize("make", [lambda path: path.write_text("text.usetex: True"), os.mkfifo], ids=["file", "pipe"])
def test_matplotlibs_settings_in_the_working_folder_are_not_obeyed(
    make: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads them as it is imported, and starts the programs that they name."""
    pytest.importorskip("matplotlib")
    make(tmp_path / "matplotlibrc")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "matplotlib")
    monkeypatch.setenv("MPLBACKEND", "module://nowhere")
    with pytest.raises(SftscopeError, match="matplotlibrc: matplotlib would obey this file"):
        need_matplotlib()
    (tmp_path / "matplotlibrc").unlink()
    need_matplotlib()
    assert os.environ["MPLBACKEND"] == "agg"
