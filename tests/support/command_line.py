"""sftscope as a command, in this process or one of its own, and what a user's error must look like."""

import contextlib
import io
import subprocess
import sys

import typer

from sftscope_tui.cli import app, exit_code_of

COMMANDS = typer.main.get_command(app).commands


def command(*arguments: object) -> list[str]:
    """What starts `sftscope ARGUMENTS` with this Python."""
    return [sys.executable, "-c", "from sftscope_tui.cli import main; main()", *map(str, arguments)]


def sftscope(*arguments: object) -> subprocess.CompletedProcess[str]:
    """How `sftscope ARGUMENTS` ended, in this process: the libraries that a command needs are imported once.

    What only a process of its own can show (streams, signals, threads, what is imported) is tested with `command`.
    """
    given = [str(argument) for argument in arguments]
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        code = exit_code_of(given)
    return subprocess.CompletedProcess(given, code, stdout.getvalue(), stderr.getvalue())


def fails_with_one_line(*arguments: object) -> str:
    """The line on stderr, which is all that the command says."""
    result = sftscope(*arguments)
    assert result.returncode == 1, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("sftscope: ")
    return line
