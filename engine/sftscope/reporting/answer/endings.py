"""How commands that made a run end, and what `status` says of it: the answer, where there is one."""

from pathlib import Path
from typing import Any

from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.views import as_plain
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import own_command, safe_text
from sftscope.reporting.answer.run_answer import Answer, answer_of
from sftscope.store.sharing.run_status import RunStatus


def closing_lines(path: Path) -> list[str]:
    """The verdict, the checkpoint to use, and the two commands that come next."""
    answer = _answer(path)
    lines = [_verdict_line(answer)]
    if isinstance(answer, Answer):
        lines.append(answer.use)
    run = _argument(path)
    return [
        *lines,
        f"Look at it: {own_command('explore', run)}",
        f"Report: {own_command('report', run, '--out', f'{run}-report')}",
    ]


def status_text(path: Path, status: RunStatus) -> str:
    """The verdict on what is extracted, then the workers."""
    return f"{_verdict_line(_answer(path))}\n{status.as_text()}"


def status_json(path: Path, status: RunStatus) -> dict[str, Any]:
    """The status with the verdict; `no_verdict` says why there is none."""
    answer = _answer(path)
    if isinstance(answer, Answer):
        return {**status.as_dict(), "verdict": as_plain(answer.verdict), "no_verdict": ""}
    return {**status.as_dict(), "verdict": None, "no_verdict": answer}


def _answer(path: Path) -> Answer | str:
    """The answer, or why there is none: nothing that a command has done may fail by it."""
    try:
        return answer_of(path, Evolution(load_history(path)))
    except SftscopeError as error:
        return safe_text(str(error))


def _verdict_line(answer: Answer | str) -> str:
    return f"Verdict: {answer.verdict.sentence if isinstance(answer, Answer) else f'none yet: {answer}'}"


def _argument(path: Path) -> str:
    """The path as an argument; one that begins with a hyphen would be an option."""
    return f"./{path}" if str(path).startswith("-") else str(path)
