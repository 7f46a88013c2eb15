"""A document as one HTML page: no address is fetched, figures are inline SVG, readable in print and dark mode.

All text is made safe to show and escaped here; a table cell, a caption and a heading alike.
"""

from collections.abc import Sequence
from html import escape

from sftscope.foundation.progress import Progress
from sftscope.foundation.safe_text import safe_lines, safe_text
from sftscope.reporting.document import Block, Document, Figure, Heading, Listing, Style, Text
from sftscope.reporting.figures import draw, inline_svg, need_matplotlib
from sftscope.reporting.tables import Table

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c1c1a; background: #fff; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; } h3 { font-size: 1.05rem; }
blockquote { margin: 1em 0; }
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


def html(document: Document, progress: Progress | None = None) -> str:
    """The page, named by its first heading. SftscopeError where matplotlib is missing."""
    need_matplotlib()
    names = [block.name for block in document if isinstance(block, Figure)]
    parts = []
    for block in document:
        parts.append(_html(block))
        if isinstance(block, Figure) and progress is not None:
            progress(names.index(block.name) + 1, len(names), block.name)
    title = next((block.text for block in document if isinstance(block, Heading)), "")
    head = f'<meta charset="utf-8"><title>{_text(title)}</title><style>{_STYLE}</style>'
    viewport = '<meta name="viewport" content="width=device-width">'
    body = "\n".join(filter(None, parts))
    return safe_lines(
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}{viewport}</head>\n<body>\n{body}\n</body></html>\n'
    )


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{_text(text)}</h{level}>"
        case Text(text, Style.ANSWER):
            return f'<p class="answer">{_text(text)}</p>'
        case Text(text, Style.QUOTE):
            return f"<blockquote>{_text(text)}</blockquote>"
        case Text(text):
            return f"<p>{_text(text)}</p>"
        case Listing(lines):
            return f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul>" if lines else ""
        case Table():
            return _table(block)
        case Figure(name, caption, drawing):
            svg = inline_svg(name, draw(name, drawing, "svg"))
            return f"<figure>{svg}<figcaption>{_text(caption)}</figcaption></figure>"


def _table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        filled = [
            f"<{tag}{' class=l' if i in table.left else ''}>{_text(cell)}</{tag}>" for i, cell in enumerate(cells)
        ]
        return f"<tr>{''.join(filled)}</tr>"

    body = "\n".join(row(cells, "td") for cells in table.rows)
    return f'<div class="wide"><table><thead>{row(table.headers, "th")}</thead><tbody>\n{body}\n</tbody></table></div>'


def _text(text: str) -> str:
    return escape(safe_text(text), quote=True)
