"""A report says the same in every form: sections, sentences and numbers of the sample runs, in one order."""

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from sample_history import write_sample_run
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Evolution
from sftscope.foundation.safe_text import markdown_prose, safe_text
from sftscope.reporting import page
from sftscope.reporting.content import make_report
from sftscope.reporting.document import (
    Block,
    Document,
    Figure,
    Heading,
    Listing,
    Style,
    Text,
    markdown,
    plain_text,
)
from sftscope.reporting.outline import outline
from sftscope.reporting.tables import Table, as_text

RUNS = Path(__file__).parents[2] / "sample_runs"
SECTIONS = [
    "When should it have stopped?",
    "Figures",
    "The paper's findings on this run",
    "Over the steps",
    "What could be said at each checkpoint",
    "The strongest interactions",
    "Training rows behind the strongest newly emerged interactions",
    "Orders",
    "Predicting with one class alone",
    "How much depends on the threshold τ",
    "Quality",
    "Provenance",
]
Said = list[tuple[str, ...]]  # a kind and its texts: a heading, a sentence, the cells of a row


@pytest.fixture(scope="module", params=["smollm2", "gemma3", "made"])
def document(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Document:
    if request.param == "made":
        words = ["|a|", "<b>", "c\\", "# d", "- e", "![f](g)"]
        run = write_sample_run(tmp_path_factory.mktemp("runs") / "r<#|", n_steps=14, n_probes=2, n=6, words=words)
    else:
        run = RUNS / request.param
    return outline(make_report(Evolution(load_history(run))))


def said_by(block: Block) -> Said:
    """What a block says, as it is shown."""
    match block:
        case Heading(text, level):
            return [(f"h{level}", safe_text(text))]
        case Text(text) | Figure(_, text):
            return [("p", safe_text(text))]
        case Listing(lines):
            return [("p", safe_text(line)) for line in lines]
        case Table():
            return [("row", *(safe_text(cell) for cell in row)) for row in [block.headers, *block.rows]]


def said_in(document: Document) -> Said:
    return [part for block in document for part in said_by(block)]


def stripped(said: Said) -> Said:
    return [tuple(text.strip() for text in part) for part in said]


def read_markdown(text: str) -> Said:
    """What a Markdown page says; knows the few forms that reports use."""
    said: Said = []
    for line in filter(None, text.splitlines()):
        if line.startswith("|"):
            cells = re.split(r"(?<=[ ])\|(?=[ ]|$)", f" {line}")[1:-1]
            if not all(re.fullmatch(r" ?:?-+:? ?", cell) for cell in cells):
                said.append(("row", *map(unescaped, cells)))
        elif found := re.match(r"(#+) ", line):
            said.append((f"h{len(found[1])}", unescaped(line[found.end() :])))
        else:
            bare = re.sub(r"^\*\*(.*)\*\*$", r"\1", re.sub(r"^[->] ", "", line))
            said.append(("p", unescaped(bare)))
    return said


def unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


class _Page(HTMLParser):
    """What a page says outside its drawings."""

    def __init__(self) -> None:
        super().__init__()
        self.said: Said = []
        self.row: list[str] = []
        self.text, self.hidden = "", 0

    def handle_starttag(self, tag: str, attributes: Sequence[tuple[str, str | None]]) -> None:
        self.hidden += tag in ("svg", "style", "title")
        self.text = ""
        if tag == "tr":
            self.row = []

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_endtag(self, tag: str) -> None:
        if tag in ("svg", "style", "title"):
            self.hidden -= 1
        elif self.hidden:
            return
        elif tag in ("h1", "h2", "h3"):
            self.said.append((tag, self.text))
        elif tag in ("p", "li", "figcaption", "blockquote"):
            self.said.append(("p", self.text))
        elif tag in ("td", "th"):
            self.row.append(self.text)
        elif tag == "tr":
            self.said.append(("row", *self.row))


def read_page(text: str) -> Said:
    reader = _Page()
    reader.feed(text)
    return reader.said


def test_a_report_has_all_sections_and_something_in_each(document: Document) -> None:
    titles = [block.text for block in document if isinstance(block, Heading) and block.level == 2]
    assert titles == SECTIONS
    for first, second in pairwise(document):
        assert not (isinstance(first, Heading) and first.level > 1 and isinstance(second, Heading) and second.level < 3)


def test_markdown_says_what_the_document_says(document: Document) -> None:
    assert stripped(read_markdown(markdown(document))) == stripped(said_in(document))


def test_the_page_says_what_the_document_says(document: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "draw", lambda name, drawing, kind: b"<svg><text>drawn</text></svg>")
    text = page.html(document)
    assert stripped(read_page(text)) == stripped(said_in(document))
    assert text.count("<figure>") == sum(isinstance(block, Figure) for block in document) == 8


def test_plain_text_says_what_the_document_says(document: Document) -> None:
    text, at = plain_text(document), 0
    for block in document:
        wanted = [as_text(block)] if isinstance(block, Table) else [part[1] for part in said_by(block)]
        for part in wanted:
            at = text.index(part, at) + len(part)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


@pytest.mark.parametrize(
    "raw", ["[x](http://y)", "![x](y)", "<b>", "# x", "`x`", "**x**", "www.x.y", "a\n# b", "\x1b[2J|"]
)
def test_no_text_marks_up_or_breaks_its_line(raw: str) -> None:
    shown = [Heading(raw), Text(raw), Text(raw, Style.QUOTE), Text(raw, Style.ANSWER), Listing([raw, raw])]
    lines = markdown(shown).splitlines()
    assert len(lines) == 5 + 4 + 1
    assert all(line.isprintable() for line in lines)
    for bare in ("[x](", "![", "<b>", "`x`", "**x**", "http://", "www.x", "\x1b"):
        assert bare not in markdown_prose(raw)
        assert bare not in markdown([Heading(raw), Text(raw), Listing([raw])])
    assert not re.search(r"^(- |> )?#+ x", "\n".join(lines[2:]), re.MULTILINE)


def test_an_empty_list_is_nothing_in_every_form() -> None:
    shown = [Text("a"), Listing([]), Text("b")]
    assert (markdown(shown), plain_text(shown)) == ("a\n\nb\n", "a\n\nb\n")
    assert "<ul>" not in page.html(shown)
