"""The documents keep in step with the program, lead where they say, and are written in plain English."""

import ast
import io
import re
import tokenize
import tomllib
from functools import cache
from pathlib import Path

import pytest
import typer

from sftscope.inputs.settings import settings_from_tables
from sftscope_tui.cli import app
from write_reference_pages import pages

ROOT = Path(__file__).parents[1]
ENGINE, EXPLORER = ROOT / "engine" / "sftscope", ROOT / "tui" / "sftscope_tui"
DOCUMENTS = [
    ROOT / "README.md",
    *sorted(path for name in ("engine", "tui", "tests", "sample_runs") for path in (ROOT / name).rglob("*.md")),
]
COMMANDS = typer.main.get_command(app).commands
TRY = "pip install --constraint tests/tested-versions.txt '.[engine]' && sftscope demo"
TEST = "pip install --constraint tests/tested-versions.txt --editable '.[engine,dev]' && pytest"

# Words of our own that readers stumble over, and what to write.
WORDS = {
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\b(go|goes|went|going|gone) on\b": "resumes, continues",
    r"\btold\b(?! friends)": "determined, said, chosen",  # friends: a sentence of the demo's data
    r"\bdear\b": "expensive",
    r"\bso many\b": "at most N, N",
    r"\b(make|makes|made|making)( \w+)? (again|anew)\b": "recompute",
    r"\bat work on\b": "processing",
    r"\bbeside\b": "next to",
    r"\b(is|are|be|being|was|were|not|stays?|files) whole\b|\bwhole or (absent|not)\b|\bwritten whole\b": "intact",
    r"\b(taking|take|takes|taken) along\b": "copy and export",
    r"\bwhat (it )?survives?\b": "failure handling; conclusions that hold under every choice",
    r"\bover since\b": "ended at",
    r"\bhangs? on\b": "depends on",
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def code_in(text: str) -> list[str]:
    """The lines of code blocks, and the code within sentences."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [*(line for block in blocks for line in block.splitlines()), *re.findall(r"`([^`\n]+)`", rest)]


def options_of(command: typer.core.TyperCommand) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts if name.startswith("--")}


@cache
def anchors_of(path: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```", "", text_of(path), flags=re.DOTALL | re.MULTILINE)
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.strip().lower()).replace(" ", "-") for head in heads}


def test_the_main_page_can_be_read_in_three_minutes() -> None:
    assert len(text_of(ROOT / "README.md").split()) <= 900


@pytest.mark.parametrize("command", [TRY, TEST])
def test_the_main_page_has_both_commands_as_they_are_tested(command: str) -> None:
    assert f"```\n{command}\n```" in text_of(ROOT / "README.md")


@pytest.mark.parametrize("path", pages(), ids=name_of)
def test_commands_settings_and_keys_are_those_of_the_program(path: Path) -> None:
    assert text_of(path) == pages()[path], "run: python tests/write_reference_pages.py"


def test_every_page_can_be_reached_from_the_main_page_by_two_clicks() -> None:
    """Records of decisions, which have a list of their own, by three."""
    reached, new = set(), {ROOT / "README.md"}
    for _ in range(3):
        reached |= new
        new = {target for path in new for target, _ in links_of(path) if target.suffix == ".md"} - reached
    assert {path for path in DOCUMENTS if path.parent.name != "decisions"} <= reached


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_command_in_a_page_is_there_with_its_options(path: Path) -> None:
    for line in code_in(text_of(path)):
        for name, rest in re.findall(r"(?<![\w./'\"-])(?<!from )sftscope ([a-z]+)(?![\w.])([^|#]*)", line):
            assert name in COMMANDS, line
            assert set(re.findall(r"(?<=[\s\[])--[a-z][a-z-]*", rest)) <= options_of(COMMANDS[name]), line


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_script_in_a_page_is_there_with_its_options(path: Path) -> None:
    for line in code_in(text_of(path)):
        for name, rest in re.findall(r"python (?:-m )?((?:tests/|sftscope\.)[a-z_./]+)([^\n|]*)", line):
            file = ROOT / (name if name.endswith(".py") else f"engine/{name.replace('.', '/')}.py")
            for option in re.findall(r"(?<=\s)--[a-z][a-z-]*", rest):
                assert f'"{option}"' in text_of(file), line
        for name in re.findall(r"tests/[a-z_/]+\.py", line):
            assert (ROOT / name).is_file(), line


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_python_name_in_a_page_is_there(path: Path) -> None:
    """`sftscope.a.b` and `from sftscope.a import b`; what `import sftscope` offers by its list of public names."""
    lines = "\n".join(code_in(text_of(path)))
    names = {f"{module}.{each}" for module, each in re.findall(r"from (sftscope[\w.]*) import (\w+)", lines)}
    for name in names | set(re.findall(r"(?<![\w/-])sftscope(?:\.[a-z_]\w*)+", lines)):
        assert is_there(name.split(".")[1:]), name


def is_there(parts: list[str]) -> bool:
    """Whether a dotted name below `sftscope` is a module, or something that a module defines."""
    place = ENGINE
    while parts and ((place / parts[0]).is_dir() or (place / f"{parts[0]}.py").is_file()):
        place /= parts.pop(0)
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return not parts or bool(re.search(rf"\b{parts[0]}\b", text_of(file)))


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_config_in_a_page_is_accepted(path: Path) -> None:
    for block in re.findall(r"^```toml\n(.*?)^```", text_of(path), re.DOTALL | re.MULTILINE):
        tables = tomllib.loads(block)
        for table, needed in (("model", "path"), ("data", "train"), ("probes", "file")):
            tables.setdefault(table, {}).setdefault(needed, "a name")  # a page shows what it is about
        settings_from_tables(tables)


def links_of(path: Path) -> list[tuple[Path, str]]:
    """(file, anchor) of every link of a page that leads into the repository."""
    text = re.sub(r"^```.*?^```", "", text_of(path), flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [
        ((path.parent / file).resolve() if file else path, anchor)
        for file, _, anchor in (target.partition("#") for target in targets if "://" not in target)
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    for target, anchor in links_of(path):
        assert target.exists(), target
        assert not anchor or anchor in anchors_of(target), f"{target}#{anchor}"


@pytest.mark.parametrize("root", [ENGINE, EXPLORER], ids=lambda root: root.name)
def test_the_map_has_every_room_and_every_module_it_names_is_there(root: Path) -> None:
    page = text_of(root.parent / "README.md").split("\n## Map")[1]
    rows = [row.strip("| ").split(" | ") for row in page.splitlines() if row.startswith("| `")]
    rooms = {row[0].strip("`").strip("/"): row[2] for row in rows}
    places = {folder.relative_to(root).as_posix() for folder in (file.parent for file in root.rglob("*.py"))}
    assert places - {"."} - {place for place in places if place.startswith("inputs/presets")} <= set(rooms)
    for room, cell in rooms.items():
        assert (root / room).exists(), room
        for name in re.findall(r"`([\w/]+\.py|[\w/]+/)`", cell):
            assert (root / room / name).exists(), f"{room}: {name}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_a_page_has_none_of_our_old_words(path: Path) -> None:
    assert old_words(text_of(path)) == []


def old_words(text: str) -> list[str]:
    """Every old word in its surroundings, with what to write."""
    flat = " ".join(text.split())
    return [
        f"…{flat[max(0, found.start() - 40) : found.end() + 40]}… write: {better}"
        for word, better in WORDS.items()
        for found in re.finditer(word, flat, re.IGNORECASE)
    ]


def old_words_of_the_program() -> dict[str, list[str]]:
    """Old words in what the program says: help, messages, docstrings, comments."""
    found = {}
    for file in sorted([*ENGINE.rglob("*.py"), *EXPLORER.rglob("*.py")]):
        nodes = ast.walk(ast.parse(text_of(file)))
        said = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        tokens = tokenize.generate_tokens(io.StringIO(text_of(file)).readline)
        said += [token.string for token in tokens if token.type == tokenize.COMMENT]
        if words := [word for text in said if " " in text for word in old_words(text)]:
            found[name_of(file)] = words
    return found


def test_the_program_says_none_of_our_old_words() -> None:
    assert old_words_of_the_program() == {}


def test_no_test_module_imports_another() -> None:
    """What several of them use is in tests/support."""
    found = []
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(text_of(file))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
            found += [f"{name_of(file)}: {name}" for name in names if name.startswith("test_")]
    assert found == []
