"""The README keeps in step with the program: its commands, their options, its map of files, its links."""

import re
from pathlib import Path

import pytest
import typer

from sftscope_tui.cli import app

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands
# the first cell of each row of the command reference; a cell can name two commands
CELLS = [row.split(" | ")[0] for row in TEXT.splitlines() if row.startswith("| `sftscope ")]
PARTS = [part for cell in CELLS for part in re.findall(r"`sftscope ([^`]*)`", cell)]


def options_of(command):
    return {name for parameter in command.params for name in parameter.opts if name.startswith("--")}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_reference_has_each_command_with_the_options_it_has(name):
    rows = [part for part in PARTS if part.split()[0] == name]
    assert rows, f"no row for sftscope {name}"
    shown = {option for row in rows for option in re.findall(r"--[a-z][a-z-]*", row)}
    assert shown == options_of(COMMANDS[name])


def test_the_reference_names_no_command_that_is_not_there():
    assert {part.split()[0] for part in PARTS} <= set(COMMANDS)


def test_options_elsewhere_in_the_text_exist():
    known = {option for command in COMMANDS.values() for option in options_of(command)}
    used = {
        option
        for line in re.findall(r"sftscope [a-z]+[^\n`|]*", TEXT)
        for option in re.findall(r"(?<=\s)--[a-z][a-z-]*", line)
    }
    assert used - known == set()


def test_scripts_in_the_text_exist_and_have_the_options_shown():
    commands = re.findall(r"python (?:-m )?((?:tests/|sftscope\.)[a-z_./]+)([^\n`|]*)", TEXT)
    assert commands
    for name, rest in commands:
        file = ROOT / (name if name.endswith(".py") else f"engine/{name.replace('.', '/')}.py")
        assert file.is_file(), file
        source = file.read_text(encoding="utf-8")
        for option in re.findall(r"(?<=\s)--[a-z][a-z-]*", rest):
            assert f'"{option}"' in source, f"{name} {option}"


def test_test_files_in_the_text_exist():
    for name in re.findall(r"tests/[a-z_/]+\.py", TEXT):
        assert (ROOT / name).is_file(), name


def test_the_map_names_what_is_there():
    section = TEXT.split("## Map")[1].split("\n## ")[0]
    first_cells = [row.split(" | ")[0] for row in section.splitlines() if row.startswith("| `")]
    folder = ""
    for cell in first_cells:
        for name in re.findall(r"`([^`]+)`", cell):
            place = name if "/" in name else f"{folder}{name}"
            folder = place.rpartition("/")[0] + "/" if "/" in place else folder
            assert (ROOT / place).exists(), place


def test_every_file_that_is_linked_is_there():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT) + re.findall(r'src="([^"]+)"', TEXT):
        assert "://" not in target
        assert (ROOT / target).exists(), target
