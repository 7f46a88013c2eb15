"""`sftscope inspect`: what a config does to one training row and one probe, token by token; where mistakes of
templates and data are found before anything is trained. Loads the tokenizer only, and the base where words are chosen
by influence; writes nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.inputs.presets import title
from sftscope.inputs.probes import Probe
from sftscope.inputs.settings import RunSettings, load_settings, resolve_paths
from sftscope.inputs.word_influence import influence_in, influence_warnings
from sftscope.llm.loading import load_positions, model_name, templated_tokenizer
from sftscope.llm.prompting.label_collisions import collision_warning
from sftscope.llm.prompting.probe_tokens import chosen_probes
from sftscope.llm.prompting.prompts import Template, resolve_template, template_hash
from sftscope.llm.prompting.targets import target_texts, target_warnings
from sftscope.scoring.influential_words import InfluentialWords
from sftscope.scoring.masking import mask_probe
from sftscope.scoring.position_limits import position_warnings, refuse_beyond_positions
from sftscope.training.data.examples import IGNORED, count_cut, cut_in_words, make_examples
from sftscope.training.data.examples import Example as TokenExample
from sftscope.training.data.labels import find_collisions
from sftscope.training.data.markers import Markers, find_markers
from sftscope.training.data.row_limit import row_limit, row_warnings
from sftscope.training.data.rows import read_side

SCHEMA = "sftscope-inspect"
VERSION = 1
_WIDTH = 100
_MOST_SHOWN = 600  # tokens of the text form; JSON has all
AnyToken = TypeVar("AnyToken", bound="Token")


@dataclass(frozen=True)
class Token:
    """One token of a prompt."""

    id: int
    text: str


@dataclass(frozen=True)
class ExampleToken(Token):
    """trained: whether it counts in the loss."""

    trained: bool


@dataclass(frozen=True)
class ProbeToken(Token):
    """variable: the number of the one that owns it."""

    variable: int | None


@dataclass(frozen=True)
class Example:
    """A row as training sees it. prompt_cut: tokens that are cut off. ends: whether the answer is complete."""

    row: int
    where: str
    trained: int
    prompt_cut: int
    ends: bool
    tokens: list[ExampleToken]


@dataclass(frozen=True)
class MaskedProbe:
    """The probe as scoring sees it. influence: as probes.jsonl has it; None where none was measured."""

    id: str
    response: str
    variables: list[str]
    influence: dict[str, Any] | None
    targets: list[Token]
    tokens: list[ProbeToken]


@dataclass(frozen=True)
class UsedTemplate:
    """The template that prompts are written with."""

    kind: str
    sha256: str


@dataclass(frozen=True)
class Cut:
    """How many of all rows are cut by [training] cutoff."""

    cutoff: int
    prompts: int
    answers: int


@dataclass(frozen=True)
class Inspected:
    """rows, probes: how many there are. notes: what to know of their reading, in lines."""

    schema: str
    version: int
    model: str
    template: UsedTemplate
    rows: int
    cut: Cut
    markers: Markers
    example: Example
    probes: int
    probe: MaskedProbe
    collisions: dict[str, list[str]]
    warnings: list[str]
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def inspect(config: Path, *, sets: Sequence[str] = (), row: int = 1, probe: str = "") -> Inspected:
    """Row number `row` of the training data and the probe with the id `probe` (default: the first).

    sets: as of `load_settings`.
    """
    settings = resolve_paths(load_settings(config, sets), config.absolute().parent, source=title(config))
    notes: list[str] = []
    rows = read_side(settings.data, "train", note=notes.append)
    if not 1 <= row <= len(rows):
        raise SftscopeError(f"--row {row}: expected 1…{len(rows)}, the training rows of {title(config)}")
    tokenizer = templated_tokenizer(settings.model)
    template = resolve_template(tokenizer, settings.model.template)
    influential = InfluentialWords(settings, tokenizer, template)
    probes = chosen_probes(settings.probes, tokenizer, template, influential=influential, note=notes.append)
    chosen = _probe(probes, probe, settings)
    training, positions = settings.training, load_positions(settings.model.path)
    cutoff, trained_end = row_limit(training.cutoff, positions), training.trained_end
    masked = [mask_probe(each, tokenizer, template, settings.extraction.target) for each in probes]
    ids = [each.id for each in probes]
    refuse_beyond_positions(masked, ids, positions)
    prompts_cut, answers_cut = count_cut(rows, tokenizer, template, cutoff=cutoff, trained_end=trained_end)
    (example,) = make_examples([rows[row - 1]], tokenizer, template, cutoff=cutoff, trained_end=trained_end)
    return Inspected(
        schema=SCHEMA,
        version=VERSION,
        model=model_name(settings.model.path),
        template=UsedTemplate(template, template_hash(tokenizer, template)),
        rows=len(rows),
        cut=Cut(cutoff, prompts_cut, answers_cut),
        markers=find_markers(rows, tokenizer),
        example=_shown_example(example, row, rows[row - 1].where, tokenizer),
        probes=len(probes),
        probe=_masked(chosen, tokenizer, template, settings.extraction.target),
        collisions=find_collisions(settings, [each.response for each in probes], tokenizer),
        warnings=[
            *target_warnings(probes, target_texts(probes, tokenizer, settings.extraction.target)),
            *position_warnings(masked, ids, positions),
            *influence_warnings(probes),
            *row_warnings(rows, tokenizer, template, cutoff=training.cutoff, positions=positions),
        ],
        notes=notes,
    )


def render(found: Inspected) -> str:
    """What `inspect` found as text."""
    example, probe = found.example, found.probe
    lines = [
        f"{safe_text(found.model)}, {found.template.kind} template {found.template.sha256[:12]}",
        "",
        f"row {example.row} of {found.rows:,} ({safe_text(example.where)}): {len(example.tokens)} tokens, "
        f"the {example.trained} in [ ] are trained",
        *_wrapped(
            (f"[{text}]" if token is not None and token.trained else text) for token, text in _shown(example.tokens)
        ),
    ]
    if example.prompt_cut:
        lines.append(f"warning: the user's text is cut by {example.prompt_cut} tokens at its end ([training] cutoff)")
    if not example.ends:
        lines.append("warning: the answer is longer than [training] cutoff: its end is cut off")
    cut = found.cut
    cut_lines = cut_in_words(cut.prompts, cut.answers, found.rows, cut.cutoff)
    lines += [f"warning: {line}" for line in (*cut_lines, *found.markers.in_words())]
    influence = influence_in({"influence": probe.influence})
    targets = ", ".join(f"{_text(token)} (id {token.id})" for token in probe.targets)
    lines += [
        "",
        f"probe {safe_text(probe.id)} of {found.probes}: {len(probe.tokens)} tokens, "
        f"{len(probe.variables)} variables as [number text]",
        *_wrapped(
            text if token is None or token.variable is None else f"[{token.variable} {text}]"
            for token, text in _shown(probe.tokens)
        ),
        "variables: " + ", ".join(f"{i} {safe_text(word, max_length=60)}" for i, word in enumerate(probe.variables)),
        *([f"influence: {influence.in_words(len(probe.variables))}"] if influence else []),
        f"answer: {safe_text(probe.response, max_length=200)}",
        f"target: {targets}",
    ]
    told = [*found.warnings, *filter(None, [collision_warning(found.collisions)])]
    lines += [f"warning: {line}" for line in told]
    return "\n".join([*lines, *(f"note: {line}" for line in found.notes)])


def _probe(probes: Sequence[Probe], wanted: str, settings: RunSettings) -> Probe:
    for probe in probes:
        if wanted in ("", probe.id):
            return probe
    known = ", ".join(safe_text(probe.id, max_length=40) for probe in probes[:8])
    raise SftscopeError(f"--probe {safe_text(wanted)}: not in {settings.probes.file}; there are {known}")


def _shown_example(example: TokenExample, number: int, where: str, tokenizer: Any) -> Example:
    trained = [label != IGNORED for label in example.labels]
    return Example(
        row=number,
        where=where,
        trained=sum(trained),
        prompt_cut=example.prompt_cut,
        ends=not example.answer_cut,
        tokens=[
            ExampleToken(token, tokenizer.decode([token]), flag)
            for token, flag in zip(example.input_ids, trained, strict=True)
        ],
    )


def _masked(probe: Probe, tokenizer: Any, template: Template, target: str) -> MaskedProbe:
    prompt = mask_probe(probe, tokenizer, template, target)
    return MaskedProbe(
        id=probe.id,
        response=probe.response,
        variables=list(probe.variables),
        influence=None if probe.influence is None else probe.influence.as_row(),
        targets=[Token(token, tokenizer.decode([token])) for token in prompt.targets],
        tokens=[
            ProbeToken(token, tokenizer.decode([token]), None if owner < 0 else owner)
            for token, owner in zip(prompt.ids, prompt.owner, strict=True)
        ],
    )


def _text(token: Token) -> str:
    return safe_text(token.text, max_length=60) or f"id {token.id}"


def _shown(tokens: Sequence[AnyToken]) -> Iterable[tuple[AnyToken | None, str]]:
    """The tokens with their texts; of very many the first and the last, and None for those between."""
    if len(tokens) <= _MOST_SHOWN:
        return [(token, _text(token)) for token in tokens]
    half = _MOST_SHOWN // 2
    return [
        *((token, _text(token)) for token in tokens[:half]),
        (None, f" … {len(tokens) - 2 * half:,} tokens … "),
        *((token, _text(token)) for token in tokens[-half:]),
    ]


def _wrapped(parts: Iterable[str]) -> list[str]:
    """Tokens apart by bars, in indented lines."""
    lines, line = [], ""
    for part in parts:
        if line and len(line) + len(part) > _WIDTH:
            lines.append(line)
            line = ""
        line += ("│" if line else "  ") + part
    return [*lines, line]
