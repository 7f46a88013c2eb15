"""The report of a run as files: `outline` as Markdown and HTML, the JSON from here, CSV by `run_csv`.

Headless; reads a run and never writes into it. Equal runs give equal bytes: there is no clock and no
path in a report. The numbers are those of `views`, which `show` and the explorer use too.

The fields of report.json are listed in `engine/SCHEMAS.md`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sftscope.analysis.rows.known_rows import rows_or_why
from sftscope.analysis.rows.row_index import RowIndex
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.views import Selection, as_plain, to_plain
from sftscope.analysis.shapley import moebius_values, to_shapiq
from sftscope.files.json_text import read_json_object
from sftscope.files.opening import is_there
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.progress import Progress
from sftscope.foundation.safe_text import json_text, safe_text
from sftscope.reporting.content import NOT_READ, Report, make_report
from sftscope.reporting.document import markdown
from sftscope.reporting.figures import FORMATS as FIGURE_FORMATS
from sftscope.reporting.figures import draw, figures, need_matplotlib
from sftscope.reporting.outline import outline
from sftscope.reporting.page import html
from sftscope.reporting.run_csv import as_csv, soft_orders_csv, word_values_csv
from sftscope.reporting.sheets import sheet_csv, view_sheet
from sftscope.reporting.show import describe
from sftscope.reporting.traced_table import REPORTED_ROWS, traced_fields
from sftscope.store import write_atomically

SCHEMA = "sftscope-report"
VERSION = 4
_MARK = "made_by_sftscope.json"  # in the folder of a report: which files are ours, to be written again
FORMATS = ("md", "json", "csv", "html", "figures", "shapiq")


def write_report(
    source: Path | Evolution,
    out: Path,
    formats: Sequence[str] = ("md", "json"),
    *,
    reference: Evolution | None = None,
    zeta: bool = False,
    descent: bool = False,
    support: bool = False,
    rows: RowIndex | str | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write the report into the folder `out`, in the formats asked for; returns the paths of its files.

    formats: of `FORMATS`. reference: the run of the baseline LLM, for the generalizable ratio. zeta:
    whether to decompose again under other ζ. descent: whether to decompose by the plain descent, to compare with.
    support: whether to say how surely each interaction has its class. rows: of the training, or a sentence why there
    are none; None: those that the run at `source` names, if they are the same still.
    """
    for name in formats:
        if name not in FORMATS:
            shown = safe_text(repr(name), max_length=40)
            raise SftscopeError(f"report format {shown}: not one of {', '.join(FORMATS)}")
    if "html" in formats or "figures" in formats:
        need_matplotlib()
    evolution = source if isinstance(source, Evolution) else Evolution(load_history(source))
    if rows is None:
        rows = rows_or_why(source) if isinstance(source, Path) else NOT_READ
    extra = {"zeta": zeta, "descent": descent, "support": support}
    report = make_report(evolution, reference=reference, rows=rows, **extra, progress=progress)
    written = []
    for name in dict.fromkeys(formats):
        for path, content in _files(report, name, progress):
            _store(out, path, content)
            written.append(out / path)
    return written


def _store(out: Path, name: str, content: bytes) -> None:
    """Write a file of a report. SftscopeError where one of that name is there that no report of ours wrote."""
    try:
        known = read_json_object(out / _MARK).get("files")
    except (FileNotFoundError, NotADirectoryError):
        known = None
    files = [each for each in known if isinstance(each, str)] if isinstance(known, list) else []
    if name not in files:
        if is_there(out / name) or (out / name).is_symlink():
            raise SftscopeError(
                f"{out / name}: is there already and was not written by a report; nothing is written over it: choose "
                "another --out folder"
            )
        write_atomically(out / _MARK, json_text({"files": [*files, name]}).encode())
    write_atomically(out / name, content)


def _files(report: Report, kind: str, progress: Progress | None) -> Iterator[tuple[str, bytes]]:
    """The files of one format: their names and bytes."""
    match kind:
        case "md":
            yield "report.md", markdown(outline(report)).encode()
        case "json":
            yield "report.json", as_json(report).encode()
        case "csv":
            index = None if isinstance(report.rows, str) else report.rows
            rows = as_csv(report.evolution, index=index, support=report.has_support, progress=progress)
            yield "interactions.csv", rows.encode()
            last = Selection(report.evolution.history.steps.size - 1)
            yield "soft_orders.csv", soft_orders_csv(report.evolution).encode()
            yield "trends.csv", sheet_csv(view_sheet(report.evolution, last, "trends")).encode()
            yield "word_values.csv", word_values_csv(report.evolution, report.chosen).encode()
        case "shapiq":
            end = report.evolution.history.steps.size - 1
            for number, part in enumerate(report.evolution.history.probes):
                if part.is_estimated:
                    shown = safe_text(repr(part.probe.id), max_length=60)
                    raise SftscopeError(
                        f"--format shapiq: needs all masked states, and those of probe {shown} are a sample"
                    )
                scores = part.scores[end].astype(np.float64)
                values, n = moebius_values(scores), part.n_variables
                content = to_shapiq(values, index="Moebius", max_order=n, bias=float(scores[0]))
                yield f"shapiq/probe_{number:04d}.json", json_text(content).encode()
        case "html":
            yield "report.html", html(outline(report), progress).encode()
        case _:
            drawings = figures(report)
            for done, (name, (_, drawing)) in enumerate(drawings.items()):
                for extension in FIGURE_FORMATS:
                    yield f"figures/{name}.{extension}", draw(name, drawing, extension)
                if progress is not None:
                    progress(done + 1, len(drawings), name)


def as_json(report: Report) -> str:
    """The report as JSON text; an undefined number is null, an effect's series is left to `show`."""
    history = report.evolution.history
    over_time = as_plain(report.trends)
    diffs = [as_plain(replace(part, rows=[replace(row, series=()) for row in part.rows])) for part in report.changes]
    for diff in diffs:
        for row in diff["rows"]:
            del row["series"]
    return json_text(
        {
            "schema": SCHEMA,
            "version": VERSION,
            **describe(report.evolution),
            "base_step": report.trends.base_step,
            "chosen_steps": [report.trends.steps[index] for index in report.chosen],
            "verdict": as_plain(report.verdict),
            "events": over_time.pop("events"),
            "trends": over_time,
            "changes": diffs,
            "orders": [as_plain(part) for part in report.orders],
            "backbone": as_plain(report.backbone),
            "sensitivity": [as_plain(row) for row in report.sensitivity],
            "carried": [as_plain(part) for part in report.carried],
            "quality": as_plain(report.quality),
            "estimate": as_plain(report.estimate),
            "placebo": [as_plain(part) for part in report.placebos],
            "findings": [as_plain(found) for found in report.findings],
            "survives": report.survives,
            "online": report.online,
            "residue": [as_plain(row) for row in report.residue],
            "as_it_went": [as_plain(part) for part in report.as_it_went],
            "training_rows": None
            if isinstance(report.rows, str)
            else to_plain(traced_fields(report.changes[-1], report.traced, report.rows, most=REPORTED_ROWS)),
            "no_training_rows": report.rows if isinstance(report.rows, str) else "",
            "baseline_llm": report.reference or None,
            "provenance": to_plain(history.run),
            "left_out": list(history.left_out),
        }
    )
