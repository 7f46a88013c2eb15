"""sftscope as a command in a process of its own, and what a user's error must look like."""

import subprocess
import sys

import typer

from sftscope_tui.cli import app

COMMANDS = typer.main.get_command(app).commands


def command(*arguments: object) -> list[str]:
    """What starts `sftscope ARGUMENTS` with this Python."""
    return [sys.executable, "-c", "from sftscope_tui.cli import main; main()", *map(str, arguments)]


def sftscope(*arguments: object) -> subprocess.CompletedProcess[str]:
    """How `sftscope ARGUMENTS` ended."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False)


def fails_with_one_line(*arguments: object) -> str:
    """The line on stderr, which is all that the command says."""
    result = sftscope(*arguments)
    assert result.returncode == 1, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("sftscope: ")
    return line
