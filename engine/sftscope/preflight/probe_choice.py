"""`sftscope probes`: probes from the rows of a data set, so that nobody has to write them by hand.

Held-out rows by default: what interactions emerge there is what the training teaches beyond its own rows. With a model
each candidate is tried: one that the words of its prompt hardly move is left out.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.progress import progress, say
from sftscope.foundation.safe_text import safe_text
from sftscope.inputs.probes import DEFAULT_WORDS, Probe, choose_variables, write_probes
from sftscope.inputs.setting_paths import resolve_path
from sftscope.inputs.settings import (
    DataSettings,
    ExtractionSettings,
    ModelSettings,
    load_settings,
    resolve_paths,
)
from sftscope.store import write_atomically
from sftscope.training.data.probe_rows import as_probe, candidates
from sftscope.training.data.rows import read_side
from sftscope.training.data.sources import Side

Group = Literal["held-out", "train", "both"]
GROUPS: dict[Group, tuple[tuple[str, Side], ...]] = {
    "held-out": (("held-out", "eval"),),
    "train": (("train", "train"),),
    "both": (("held-out", "eval"), ("train", "train")),
}
LEAST_RANGE = 1.0  # log-odds between the whole prompt and none of its words
_TRIED = 4  # candidates for each probe that is wanted, at most


@dataclass(frozen=True)
class Sources:
    """Where rows are, with paths resolved; the model that they are tried on, None: none; and how it is scored."""

    data: DataSettings
    model: ModelSettings | None = None
    extraction: ExtractionSettings = field(default_factory=ExtractionSettings)


@dataclass(frozen=True)
class Choice:
    """The probes, and how many candidates were left out since their words hardly move the answer."""

    probes: tuple[Probe, ...]
    left_out: int


def sources_of(given: Path, model: str) -> Sources:
    """The data and the model of a config, or a data set (whose rows are of the group asked for) and the model named."""
    if given.suffix == ".toml":
        written = load_settings(given, [f"probes.file={given.absolute()}"])  # the probes are yet to be written
        settings = resolve_paths(written, given.absolute().parent, source=str(given))
        return Sources(settings.data, settings.model, settings.extraction)
    name = resolve_path(str(given), "data", Path.cwd(), "DATA", "the working folder")
    llm = (
        ModelSettings(path=resolve_path(model, "or-name", Path.cwd(), "--model", "the working folder"))
        if model
        else None
    )
    return Sources(DataSettings(train=name, eval=name), llm)


def choose_probes(sources: Sources, *, count: int, group: Group, seed: int) -> Choice:
    """`count` probes from the rows of `sources`, of each group the same number.

    SftscopeError where there are no rows of a group, or fewer than asked for.
    """
    sides = GROUPS[group]
    found: list[Probe] = []
    left_out = 0
    for number, (name, side) in enumerate(sides):
        wanted = count // len(sides) + (number < count % len(sides))
        rows = read_side(sources.data, side, note=say)
        if not rows:
            raise SftscopeError("no held-out rows: [data] eval is empty; add it, or take --group train")
        every = (as_probe(rows[place], f"{name}-{place + 1}", name) for place in candidates(rows, wanted, seed))
        chosen, passed = _those_that_react(every, wanted, sources)
        if len(chosen) < wanted:
            raise SftscopeError(
                f"{len(chosen)} of the {wanted} {name} probes asked for: there are no more rows that can be one "
                "(one prompt and one answer, whose words move the answer); lower --count"
            )
        found += chosen
        left_out += passed
    return Choice(tuple(found), left_out)


def refuse_if_there(out: Path) -> None:
    """SftscopeError where a file is there already: runs may rest on it."""
    if out.exists():
        raise SftscopeError(f"{out}: is there already; name another file with --out, or move it away")


def write(choice: Choice, out: Path) -> None:
    """Write a probes file that is not there yet."""
    refuse_if_there(out)
    write_atomically(out, write_probes(choice.probes).encode())


def _those_that_react(every: Iterator[Probe], wanted: int, sources: Sources) -> tuple[list[Probe], int]:
    if sources.model is None:
        return list(islice(every, wanted)), 0
    tried = list(islice(every, wanted * _TRIED))
    ranges = _ranges(tried, wanted, sources.model, sources.extraction)
    moved = [probe for probe, range_ in zip(tried, ranges, strict=False) if range_ >= LEAST_RANGE][:wanted]
    return moved, len(ranges) - len(moved)


def _ranges(probes: Sequence[Probe], wanted: int, model: ModelSettings, extraction: ExtractionSettings) -> list[float]:
    """|v(x_N) - v(x_∅)| of the probes on the base model, until as many react as are wanted."""
    from sftscope.llm.loading import load_llm
    from sftscope.llm.prompting.probe_tokens import token_spans
    from sftscope.llm.prompting.prompts import resolve_template
    from sftscope.scoring.masking import baseline_vector, mask_probe
    from sftscope.scoring.scorer import Scorer

    llm = load_llm(model)
    template = resolve_template(llm.tokenizer, model.template)
    scorer = Scorer(llm.model, baseline_vector(llm.model, extraction.baseline_vector, llm.tokenizer), 1e9)
    found: list[float] = []
    with progress("probes") as report:
        for number, probe in enumerate(probes):
            try:
                tokens = token_spans(llm.tokenizer, template, probe)
                words = choose_variables(probe.text, "words", DEFAULT_WORDS, random.Random(probe.id), tokens)
                prompt = mask_probe(replace(probe, words=words), llm.tokenizer, template, extraction.target)
            except SftscopeError:  # such as no word at all: no probe
                found.append(0.0)
                continue
            whole = (1 << prompt.n_variables) - 1
            none, all_ = scorer.score_naively(prompt, [0, whole])
            found.append(abs(float(all_ - none)))
            react = sum(range_ >= LEAST_RANGE for range_ in found)
            report(min(react, wanted), wanted, f"{number + 1} rows tried")
            if react == wanted:
                break
    return found


def in_words(choice: Choice, out: Path, tried: bool) -> str:
    """What was written, for the user."""
    groups = sorted({probe.group for probe in choice.probes})
    counted = ", ".join(f"{sum(probe.group == name for probe in choice.probes)} {name}" for name in groups)
    answers = len({probe.response for probe in choice.probes})
    lines = [f"{out}: {len(choice.probes)} probes ({counted}), {answers} different answers"]
    if choice.left_out:
        lines.append(
            f"{choice.left_out} rows were left out: with all words masked their score changes by less than "
            f"{LEAST_RANGE:g} log-odds"
        )
    if not tried:
        lines.append("whether a model reacts to them was not tried: name one with --model")
    return "\n".join(safe_text(line, max_length=400) for line in lines)
