"""The training rows in a report: the same in every form, or one sentence why they are not known."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from command_line import fails_with_one_line, sftscope
from sample_history import write_sample_run
from sftscope.analysis.rows.known_rows import NOT_NAMED
from sftscope.analysis.rows.row_index import RowIndex
from sftscope.analysis.rows.traced_rows import trace
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Evolution
from sftscope.reporting.content import make_report
from sftscope.reporting.forms import as_json
from sftscope.training.data.shapes import Row

WORDS = ("salt", "<b>river</b>", "moon")
ROWS = [Row("q", "salt and the moon", "bad"), Row("q", "the | moon", "good"), Row("q", "a <b>river</b>", "good")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample_run(tmp_path_factory.mktemp("run") / "run", n_steps=4, n_probes=1, n=3, words=WORDS)


@pytest.fixture(scope="module")
def report(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """By name, the files of `report --train`."""
    folder = tmp_path_factory.mktemp("report")
    train = folder / "train.jsonl"
    rows = ({"instruction": row.instruction, "input": row.input, "output": row.response} for row in ROWS)
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = sftscope("report", run, "--out", folder / "out", "--train", train, "--format", "md,json,html,csv")
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_text(encoding="utf-8") for path in (folder / "out").iterdir()}


def test_json_has_what_the_command_rows_has(run: Path, report: Mapping[str, str]) -> None:
    found = json.loads(report["report.json"])
    assert (found["training_rows"]["n_rows"], found["no_training_rows"]) == (3, "")
    assert found["training_rows"]["interactions"]
    for part in found["training_rows"]["interactions"]:
        expected = trace(RowIndex.of(ROWS), part["words"], part["relation"], part["response"])
        assert part["rows"] == [place + 1 for place in expected.places]
        assert part["row_count"] == expected.places.size
        assert part["answered_expected"] == pytest.approx(expected.answered_expected)


@pytest.mark.parametrize("form", ["report.md", "report.html"])
def test_the_section_shows_the_rows(form: str, report: Mapping[str, str]) -> None:
    section = report[form].split("Training rows behind the strongest newly emerged interactions", 1)[1]
    assert "against step 0; 3 training rows." in section
    assert "row 1: salt and the moon → bad" in section
    assert "<b>river" not in section


def test_csv_counts_the_rows_of_every_interaction(report: Mapping[str, str]) -> None:
    index, seen = RowIndex.of(ROWS), set()
    for line in csv.DictReader(report["interactions.csv"].splitlines()):
        inside = [word for i, word in enumerate(WORDS) if int(line["subset"]) >> i & 1]
        expected = trace(index, inside, line["relation"], "bad")
        counts = (int(line["train_rows"]), int(line["train_rows_answer"]))
        assert counts == (expected.places.size, expected.answered)
        assert float(line["train_rows_answer_by_chance"]) == pytest.approx(expected.answered_expected)
        seen.add(counts)
    assert len(seen) > 1


def test_rows_that_are_not_known_are_one_sentence_without_a_path(run: Path, tmp_path: Path) -> None:
    assert sftscope("report", run, "--out", tmp_path / "out", "--format", "md,json,csv").returncode == 0
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (found["training_rows"], found["no_training_rows"]) == (None, NOT_NAMED)
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert NOT_NAMED.replace("--", "\\-\\-") in text or NOT_NAMED in text
    assert str(tmp_path.parent) not in text
    assert "train_rows" not in (tmp_path / "out" / "interactions.csv").read_text()
    assert "absent.jsonl" in fails_with_one_line("report", run, "--out", tmp_path / "no", "--train", "absent.jsonl")
    assert not (tmp_path / "no").exists()


def test_long_lists_are_cut_and_counted_in_a_report(run: Path) -> None:
    """Free text has as many answers as rows: a report would repeat the training data."""
    index = RowIndex.of([Row("q", "salt river moon", f"answer {number}") for number in range(120)])
    text = as_json(make_report(Evolution(load_history(run)), rows=index))
    parts = [part for part in json.loads(text)["training_rows"]["interactions"] if part["row_count"]]
    assert parts
    for part in parts:
        assert (part["row_count"], len(part["rows"]), len(part["answers"])) == (120, 100, 10)
