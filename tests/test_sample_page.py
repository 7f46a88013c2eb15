"""The pages on the sample runs show what the runs say: every table in them is recomputed and compared.

SFTSCOPE_UPDATE_SNAPSHOTS=1 rewrites the tables; the words between them are a person's.
"""

import csv
import os
import re
from functools import lru_cache
from pathlib import Path

import pytest

from sftscope.analysis.rows.known_rows import rows_or_why
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.trust.placebo import sentence
from sftscope.reporting.chance_tables import chance_table, ratios_table
from sftscope.reporting.content import make_report
from sftscope.reporting.run_csv import as_csv
from sftscope.reporting.tables import (
    Table,
    as_it_went_table,
    as_markdown,
    backbone_table,
    findings_table,
    number_table,
    placebo_table,
    quality_table,
    residue_table,
    sensitivity_table,
    soft_table,
    trends_table,
)
from sftscope.reporting.traced_table import traced_table

FOLDER = Path(__file__).parents[1] / "sample_runs"
PAGES = (FOLDER / "README.md", FOLDER / "FINDINGS.md")
BASELINE = {"smollm2": "gemma3", "gemma3": "smollm2"}  # each is the other's baseline LLM
MARK = re.compile(r"<!-- (?P<run>\w+): (?P<part>[\w ]+) -->\n(?P<shown>.*?)<!-- end -->", re.DOTALL)
UPDATE = "SFTSCOPE_UPDATE_SNAPSHOTS" in os.environ
SLOW = {"choices", "solver"}  # decompose both runs again: minutes
OF_ROWS = ("training rows", "rows in all")  # need the training rows
PARTS = {
    "answer": lambda report: report.verdict.sentence,
    "as it went": lambda report: as_markdown(as_it_went_table(report.as_it_went)),
    "without a threshold": lambda report: as_markdown(soft_table(report.trends, every_step(report), {})),
    "over the steps": lambda report: as_markdown(trends_table(report.trends, every_step(report), {})),
    "chance": lambda report: "\n\n".join(
        as_markdown(make(report.trends, every_step(report))) for make in (chance_table, ratios_table)
    ),
    "findings": lambda report: as_markdown(findings_table(report.findings)),
    "backbone": lambda report: as_markdown(backbone_table(report.backbone, report.chosen)),
    "placebo": lambda report: (
        "\n".join(sentence(part) for part in report.placebos) + "\n\n" + as_markdown(placebo_table(report.placebos))
    ),
    "quality": lambda report: as_markdown(quality_table(report.quality, report.trends)),
    "choices": lambda report: "\n\n".join(
        [
            report.survives,
            "\n".join(f"- The number of interactions {part.claim}: {part.numbers}." for part in report.carried),
            as_markdown(number_table(report.sensitivity)),
            as_markdown(sensitivity_table(report.sensitivity)),
        ]
    ),
    "training rows": lambda report: as_markdown(traced_table(report.traced)),
    "rows in all": lambda report: as_markdown(rows_in_all(report)),
    "solver": lambda report: as_markdown(residue_table(report.residue)),
}


def every_step(report):
    return range(len(report.trends.steps))


def rows_in_all(report):
    """Of what emerged at the last step: interactions, those without any training row, and sums over all."""
    lines = list(csv.DictReader(as_csv(report.evolution, index=report.rows).splitlines()))
    last = [line for line in lines if line["step"] == str(report.trends.steps[-1]) and line["change"] == "emerged"]
    cells = []
    for relation in ("AND", "OR"):
        own = [line for line in last if line["relation"] == relation]
        without = sum(line["train_rows"] == "0" for line in own)
        answered = sum(int(line["train_rows_answer"]) for line in own)
        by_chance = sum(float(line["train_rows_answer_by_chance"]) for line in own)
        cells.append((relation, str(len(own)), str(without), str(answered), f"{by_chance:.1f}"))
    return Table(
        ("relation", "emerged", "no training row", "rows with the answer, summed", "by chance"), cells, frozenset([0])
    )


@lru_cache
def report_of(run, slow):
    evolution, baseline = (Evolution(load_history(FOLDER / name)) for name in (run, BASELINE[run]))
    return make_report(evolution, reference=baseline, zeta=slow, descent=slow, rows=rows_or_why(FOLDER / run))


def shown_parts():
    return [
        (page, found["run"], found["part"])
        for page in PAGES
        for found in MARK.finditer(page.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize(("page", "run", "part"), shown_parts(), ids=lambda value: getattr(value, "name", value))
def test_a_table_of_a_page_is_what_the_run_says(page, run, part):
    slow = part in SLOW
    if slow and not UPDATE and "SFTSCOPE_SLOW_TESTS" not in os.environ:
        pytest.skip("decomposes both runs again, for minutes: set SFTSCOPE_SLOW_TESTS=1")
    if part in OF_ROWS and isinstance(why := report_of(run, slow).rows, str):
        pytest.skip(why)
    made = PARTS[part](report_of(run, slow)).strip()
    text = page.read_text(encoding="utf-8")
    shown = next(found for found in MARK.finditer(text) if (found["run"], found["part"]) == (run, part))
    if UPDATE:
        start, end = shown.span("shown")
        page.write_text(text[:start] + made + "\n" + text[end:], encoding="utf-8")
    else:
        assert shown["shown"].strip() == made


def test_the_pages_show_every_part_of_both_runs():
    shown = [(run, part) for _, run, part in shown_parts()]
    assert len(shown) == len(set(shown))
    for run in BASELINE:
        assert {
            "answer",
            "without a threshold",
            "as it went",
            "findings",
            "chance",
            "backbone",
            "placebo",
            "choices",
        } <= {part for name, part in shown if name == run}


def test_the_two_runs_share_their_prompts_and_words():
    one, other = (load_history(FOLDER / run) for run in BASELINE)
    for mine, theirs in zip(one.probes, other.probes, strict=True):
        assert mine.probe.text == theirs.probe.text
        assert mine.probe.variables == theirs.probe.variables
