"""The report as one HTML page: no address is fetched, figures are inline SVG, readable in print and dark mode.

All text of a run is made safe to show and escaped here; a table cell, a caption and a heading alike.
"""

from collections.abc import Sequence
from html import escape

from sftscope.analysis.conclusions.verdict import in_plain_words
from sftscope.analysis.trust.placebo import sentence
from sftscope.foundation.progress import Progress
from sftscope.foundation.safe_text import safe_text
from sftscope.reporting.content import (
    AS_IT_WENT,
    ESTIMATE,
    RESIDUE,
    Report,
    provenance,
    shown_steps,
    strongest_rows,
    title,
    warnings,
)
from sftscope.reporting.figures import draw, figures, inline_svg, need_matplotlib
from sftscope.reporting.tables import (
    Table,
    as_it_went_table,
    backbone_table,
    changes_table,
    estimate_lines,
    estimate_table,
    findings_table,
    placebo_table,
    quality_table,
    residue_table,
    sensitivity_table,
    trends_table,
)

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c1c1a; background: #fff; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; } h3 { font-size: 1.05rem; }
.answer { font-size: 1.1rem; border-left: .3rem solid #0072b2; padding: .2rem 1rem; background: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .55rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th { white-space: nowrap; } .l { text-align: left; }
figure { margin: 1.5rem 0; } figure svg { max-width: 100%; height: auto; }
figcaption { font-size: .9rem; }
@media (prefers-color-scheme: dark) { body { color: #e6e6e3; background: #161614; } }
@media print { body { max-width: none; margin: 0; font-size: 11px; color: #000; background: #fff; }
  h2 { break-after: avoid; } figure, tr { break-inside: avoid; } .wide { overflow: visible; } }
""".strip()


def as_html(report: Report, progress: Progress | None = None) -> str:
    """The page. SftscopeError where matplotlib is missing."""
    need_matplotlib()
    parts = [
        f"<h1>{_text(f'What fine-tuning changed: {title(report)}')}</h1>",
        f'<p class="answer">{_text(in_plain_words(report.verdict, report.trends.boundary))}</p>',
        _list([*report.verdict.evidence, report.online]),
        _list(warnings(report)),
        f"<p>{_text(report.survives)}</p>",
        "<h2>Figures</h2>",
        *_figures(report, progress),
        "<h2>The paper's findings on this run</h2>",
        _table(findings_table(report.findings)),
        *_over_the_steps(report),
        *_estimate(report),
        *_as_it_went(report),
        "<h2>The strongest interactions</h2>",
        *_strongest(report),
        "<h2>Predicting with one class alone</h2>",
        "<p>Cross-entropy of the target in nats, mean over probes; then without the bias b.</p>",
        _table(backbone_table(report.backbone, report.chosen)),
        "<h2>How much depends on the choices</h2>",
        f"<p>Mean counts per probe under every τ rule; findings 1 to 5: ✓ holds, ✗ does not, ? undecided. "
        f"{_text(report.survives)}</p>",
        _table(sensitivity_table(report.sensitivity)),
        "<h2>Quality</h2>",
        _table(quality_table(report.quality, report.trends)),
        _list([sentence(part) for part in report.placebos]),
        _table(placebo_table(report.placebos)) if report.placebos else "",
        f"<p>{RESIDUE}</p>{_table(residue_table(report.residue))}" if report.residue else "",
        "<h2>Provenance</h2>",
        _table(provenance(report.evolution.history.run)),
    ]
    head = f'<meta charset="utf-8"><title>{_text(title(report))}</title><style>{_STYLE}</style>'
    viewport = '<meta name="viewport" content="width=device-width">'
    body = "\n".join(part for part in parts if part)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}{viewport}</head>\n<body>\n{body}\n</body></html>\n'


def _figures(report: Report, progress: Progress | None) -> list[str]:
    drawn = []
    wanted = figures(report)
    for done, (name, (caption, drawing)) in enumerate(wanted.items()):
        svg = inline_svg(name, draw(name, drawing, "svg"))
        drawn.append(f"<figure>{svg}<figcaption>{_text(caption)}</figcaption></figure>")
        if progress is not None:
            progress(done + 1, len(wanted), name)
    return drawn


def _over_the_steps(report: Report) -> list[str]:
    boundary, last = report.trends.boundary.index, len(report.trends.steps) - 1
    notes = {0: "base"} | ({} if boundary is None else {boundary: "end of denoising"})
    rows = shown_steps(report)
    legend = "Means over probes, against the first step: − removed, = preserved, + newly emerged; n count, "
    legend += f"Σ|I| strength, γu uncancelled ratio. {len(rows)} of {last + 1} steps."
    return ["<h2>Over the steps</h2>", f"<p>{legend}</p>", _table(trends_table(report.trends, rows, notes))]


def _estimate(report: Report) -> list[str]:
    if report.estimate is None:
        return []
    table = _table(estimate_table(report.estimate, shown_steps(report)))
    return [f"<h2>{ESTIMATE}</h2>", _list(estimate_lines(report.estimate)), table]


def _as_it_went(report: Report) -> list[str]:
    if not report.as_it_went:
        return []
    return [
        "<h2>What could be said at each checkpoint</h2>",
        f"<p>{AS_IT_WENT}</p>",
        _table(as_it_went_table(report.as_it_went)),
    ]


def _strongest(report: Report) -> list[str]:
    parts = []
    for part in report.evolution.history.probes:
        parts.append(f"<h3>{_text(part.probe.id)}</h3><p>{_text(safe_text(part.probe.text, max_length=400))}</p>")
        for diff, change, rows, total in strongest_rows(report, part.probe.id):
            parts.append(f"<p>Step {diff.step}, {change.value}: {len(rows)} of {total}</p>")
            if rows:
                parts.append(_table(changes_table(rows, diff.base_step, diff.step, with_probe=False)))
    return parts


def _table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        filled = [
            f"<{tag}{' class=l' if i in table.left else ''}>{_text(cell)}</{tag}>" for i, cell in enumerate(cells)
        ]
        return f"<tr>{''.join(filled)}</tr>"

    body = "\n".join(row(cells, "td") for cells in table.rows)
    return f'<div class="wide"><table><thead>{row(table.headers, "th")}</thead><tbody>\n{body}\n</tbody></table></div>'


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul>" if lines else ""


def _text(text: str) -> str:
    return escape(safe_text(text), quote=True)
