"""The verdict on a run with the checkpoint to use: for the terminal, as JSON, as an exit code.

All forms hold the same `Verdict`: its sentence as it is, and in JSON all of its fields.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftscope.analysis.conclusions.verdict import Decision, Verdict, verdict_of
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.views import as_plain
from sftscope.analysis.trust.caveats import caveats
from sftscope.files.json_text import lookup
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import first_of_each_kind, safe_text
from sftscope.reporting.document import Block, Listing, Text, plain_text
from sftscope.reporting.show import model_name
from sftscope.store import RunFolder
from sftscope.store.checkpoints import Checkpoint

SCHEMA = "sftscope-answer"
VERSION = 1
# what `verdict --fail-on` can name, and its exit code: none that another outcome has (1, 2, 3, 126 and above)
EXIT_CODES = {"stop": 10, "do-not-stop": 11, "not-enough": 12}


@dataclass(frozen=True)
class Answer:
    """What there is to say of a run in a few lines.

    steps: those extracted. checkpoint: the folder with the weights of the step to stop at or by, or the base model's
    name for step 0; None without such a step, or where its weights are not to be found. left_out: files that were not
    read, and why. caveats: what to know before trusting the numbers.
    """

    run: str
    model: str
    steps: tuple[int, ...]
    verdict: Verdict
    checkpoint: str | None
    left_out: tuple[str, ...]
    caveats: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        fields: dict[str, Any] = as_plain(self)
        return {"schema": SCHEMA, "version": VERSION, **fields}

    def as_text(self) -> str:
        """The sentence, what it rests on, and the checkpoint to use."""
        blocks: list[Block] = [
            Text(self.verdict.sentence),
            Listing(self.verdict.evidence),
            Listing([f"left out: {reason}" for reason in first_of_each_kind(self.left_out)]),
            Listing(self.caveats),
            Text(self.use),
        ]
        return plain_text(blocks)

    @property
    def use(self) -> str:
        """One line: the checkpoint to use."""
        verdict = self.verdict
        if verdict.stop_by is not None:
            where = self.checkpoint or f"that of step {verdict.stop_by}; its weights are not in the run"
            return f"Checkpoint to use: {where}"
        lowest = ""
        if verdict.held_out is not None and verdict.held_out.best_step != verdict.held_out.last_step:
            lowest = f"; held-out loss is lowest at step {verdict.held_out.best_step}"
        return f"Checkpoint to use: none can be named yet{lowest}"


def answer_of(path: Path, evolution: Evolution, *, looks: bool = False) -> Answer:
    """The answer of the run in the folder `path`. looks: as of `verdict_of`."""
    history, verdict = evolution.history, verdict_of(evolution, looks=looks)
    return Answer(
        run=history.name,
        model=safe_text(model_name(history.run), max_length=60),
        steps=tuple(history.steps.tolist()),
        verdict=verdict,
        checkpoint=None if verdict.stop_by is None else weights_of(path, history.run, verdict.stop_by),
        left_out=tuple(history.left_out),
        caveats=tuple(caveats(history)),
    )


def weights_of(path: Path, run: Mapping[str, Any], step: int) -> str | None:
    """Where the weights of a step are: in the run, or at the training that it was attached to; None in neither.

    run: the content of run.toml.
    """
    if step == 0:
        base = lookup(run, "settings", "model", "path")
        return base if isinstance(base, str) and base else None
    folders = [RunFolder(path).checkpoints]
    if isinstance(attached := lookup(run, "attached", "checkpoints"), str):
        folders.append(Path(attached))
    for folder in folders:
        if _has_weights(Checkpoint(step, folder / f"checkpoint-{step}")):
            return str(folder / f"checkpoint-{step}")
    return None


def exit_code(verdict: Verdict, fail_on: Collection[str]) -> int:
    """The exit code of `verdict --fail-on`: 0 where the verdict is none of these.

    stop: the run has checkpoints after the step to stop at or by.
    """
    kinds = {Decision.DO_NOT_STOP: "do-not-stop", Decision.NOT_ENOUGH: "not-enough"}
    kind = kinds.get(verdict.decision, "stop" if verdict.past_stop else "")
    return EXIT_CODES[kind] if kind in fail_on else 0


def _has_weights(checkpoint: Checkpoint) -> bool:
    try:
        return checkpoint.is_ready()
    except SftscopeError:  # cannot be read now: no reason to withhold the verdict
        return False
