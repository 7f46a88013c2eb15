"""Probes: the prompts whose words become the input variables, and the choice of these words.

A probe is a row of JSONL, `{"id", "instruction", "input", "response", "words": [[start, end], …]}`.
The words are chosen once per probe and reused for every checkpoint and every other LLM. They are
spans of characters; the caller gives those of the LLM's tokens, and measures influence where it decides.
"""

import itertools
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.inputs.row_files import read_rows
from sftscope.inputs.segmentation import (
    CANDIDATES,
    PARTICLES,
    STOP_WORDS,
    Span,
    candidate_words,
    has_no_spaces,
    joined_by_tokens,
    plain_word,
    tokens_as_spans,
    word_rules,
)
from sftscope.inputs.word_influence import Influence, influence_in

MAX_VARIABLES = 64  # of more than 16 the masked states are sampled
PROBE_GROUPS = ("held-out", "train")  # of which rows a probe is one
DEFAULT_WORDS = 10  # at most, where nobody gives a number
PROMPT = "prompt"  # of `words_in`
_LITTLE = STOP_WORDS | PARTICLES
Influential = Callable[["Probe", Sequence[Span], int], "Probe"]


@dataclass(frozen=True)
class Probe:
    """One prompt with its variables.

    `words` are (start, end) character spans, in text order, into `input`, or into `instruction`
    where there is no input; into the whole prompt where `words_in` is `prompt`. `response` is the answer of which a
    part is scored. `words_by` is what found words in a script without spaces, icu or unicode. `group` says which rows
    it is one of: held-out, train, or unknown. influence: how far the words move v, where it was measured.
    """

    id: str
    instruction: str
    input: str
    response: str
    words: tuple[Span, ...] = ()
    words_by: str = ""
    group: str = ""
    words_in: str = ""
    influence: Influence | None = None

    @property
    def text(self) -> str:
        """The text that the words are taken from."""
        return self.prompt if self.words_in == PROMPT else self.input or self.instruction

    @property
    def variables(self) -> tuple[str, ...]:
        """The words as text, variable 0 first."""
        return tuple(self.text[start:end] for start, end in self.words)

    @property
    def prompt(self) -> str:
        """The user's message: the instruction, a line break, the input."""
        return "\n".join(filter(None, (self.instruction, self.input)))

    @property
    def text_start(self) -> int:
        """Where `text` begins in `prompt`."""
        return len(self.prompt) - len(self.text)

    @property
    def influence_in_words(self) -> str:
        """How far the words move v, as a safe line; empty where it was not measured."""
        return "" if self.influence is None else self.influence.in_words(len(self.words))

    def as_row(self) -> dict[str, Any]:
        """The probe as a JSON object."""
        return {
            "id": self.id,
            "instruction": self.instruction,
            "input": self.input,
            "response": self.response,
            "words": [list(span) for span in self.words],
            **({"words_in": self.words_in} if self.words_in else {}),
            **({"words_by": self.words_by} if self.words_by else {}),
            **({"group": self.group} if self.group else {}),
            **({"influence": self.influence.as_row()} if self.influence else {}),
        }


def choose_words(text: str, n_words: int, rng: random.Random, tokens: Sequence[Span] = ()) -> tuple[Span, ...]:
    """At most `n_words` spans of `text` in text order.

    Stop words are left out while enough others remain; a surplus is cut by a random choice. Returns
    fewer than `n_words` spans where the text has fewer words. tokens: as of `choose_variables`.
    """
    candidates = candidate_spans(text, "words", tokens)
    content = [span for span in candidates if plain_word(text[slice(*span)]) not in _LITTLE]
    if len(content) >= n_words:
        return tuple(sorted(rng.sample(content, n_words)))
    stop = sorted(set(candidates).difference(content))
    extra = rng.sample(stop, min(n_words - len(content), len(stop)))
    return tuple(sorted(content + extra))


def choose_variables(text: str, kind: str, n: int, rng: random.Random, tokens: Sequence[Span] = ()) -> tuple[Span, ...]:
    """At most `n` spans of `text` in text order; kind: words, phrases, sentences, characters or tokens.

    Of more phrases, sentences, characters or tokens than `n` a random choice is left as text that is never masked, as
    of words. tokens: the spans of the LLM's tokens in `text`, where they are known: what shares one is one variable.
    """
    if kind == "words":
        return choose_words(text, n, rng, tokens)
    candidates = candidate_spans(text, kind, tokens)
    return tuple(sorted(rng.sample(candidates, min(n, len(candidates)))))


def candidate_spans(text: str, kind: str, tokens: Sequence[Span] = ()) -> list[Span]:
    """All spans of `text` that can become variables, in text order; kind, tokens: as of `choose_variables`."""
    if kind == "tokens":
        return tokens_as_spans(text, tokens)
    if kind not in ("words", *CANDIDATES):
        shown = safe_text(repr(kind), max_length=40)
        raise SftscopeError(f"variables {shown}: expected words, {', '.join(CANDIDATES)} or tokens")
    found = candidate_words(text) if kind == "words" else CANDIDATES[kind](text)
    return joined_by_tokens(text, found, tokens)


def read_probes(
    path: Path,
    *,
    n_words: int,
    seed: int,
    variables: str = "words",
    tokens_of: Callable[[Probe], Sequence[Span]] = lambda _: (),
    chosen: Iterable[Probe] = (),
    influential: Influential | None = None,
    measured: bool = False,
    note: Callable[[str], object] = lambda _: None,
) -> tuple[Probe, ...]:
    """The probes in a JSON file, each with its variables (chosen where the row names none).

    n_words: of them; 0: as many as a probe has, at most 10. variables: words, phrases, sentences, characters or tokens;
    of all but words `n_words`, where given, is the most too; two phrases or sentences at least. tokens_of: the spans of
    the LLM's tokens in the text of a probe. chosen: probes whose variables were chosen before, and stay. influential:
    chooses words of a prompt by their influence, given its candidates and how many at most, and measures it; None:
    choice by `choose_variables`. measured: whether the influence that the file has is that of this run, and stays.
    note: takes what to tell of the choice, in lines. SftscopeError with file, line and field for a row that cannot be
    used.
    """
    probes: list[Probe] = []
    before = {_key(probe): probe for probe in chosen}
    choice = _Choice(n_words, seed, variables, tokens_of, influential)
    for where, row in read_rows(path):
        probe = _probe_from_row(row, where, default_id=f"p{len(probes):02d}")
        if not measured:
            probe = replace(probe, influence=None)
        earlier = before.get(_key(probe))
        if earlier and (not probe.words or (probe.words, probe.words_in) == (earlier.words, earlier.words_in)):
            probe = replace(probe, influence=earlier.influence) if probe.words else earlier
        elif influential or not probe.words:
            probe = choice.make(probe, where)
        probes.append(probe)
    if not probes:
        raise SftscopeError(f"{path}: expected at least one probe, got an empty file")
    _check_unique(path, probes)
    for line in choice.notes(len(probes)):
        note(line)
    return tuple(probes)


def read_prompts(path: Path) -> tuple[str, ...]:
    """The user's messages of the probes in a file, without a choice of variables."""
    return tuple(_probe_from_row(row, where, "p").prompt for where, row in read_rows(path))


def _key(probe: Probe) -> tuple[str, ...]:
    """All of a probe but its words."""
    return probe.id, probe.prompt, probe.input or probe.instruction, probe.response


@dataclass
class _Choice:
    """Chooses the variables of probes, and remembers what there is to tell of them."""

    n_words: int
    seed: int
    variables: str
    tokens_of: Callable[[Probe], Sequence[Span]]
    influential: Influential | None = None
    fewer: list[Probe] = field(default_factory=list)
    single: list[Probe] = field(default_factory=list)  # whose words are mostly single characters

    @property
    def most(self) -> int:
        return self.n_words or DEFAULT_WORDS

    def make(self, probe: Probe, where: str) -> Probe:
        """The probe with its variables; those that it names stay, and their influence is measured."""
        if self.influential and probe.words:
            return self._by_influence(probe)
        made = self._by_influence(probe) if self.influential else self._spread(probe)
        self._check(len(made.words), probe, where)
        by = word_rules() if self.variables in ("words", "phrases") and has_no_spaces(made.text) else ""
        made = replace(made, words_by=by)
        if len(made.words) < self.most and self.variables == "words":
            self.fewer.append(made)
        if by == "unicode" and self.variables == "words":
            self.single.append(made)
        return made

    def _spread(self, probe: Probe) -> Probe:
        rng = random.Random(f"{self.seed}:{probe.id}")
        return replace(probe, words=choose_variables(probe.text, self.variables, self.most, rng, self.tokens_of(probe)))

    def _by_influence(self, probe: Probe) -> Probe:
        assert self.influential
        whole = replace(probe, words_in=PROMPT)
        return self.influential(probe, candidate_spans(whole.text, self.variables, self.tokens_of(whole)), self.most)

    def _check(self, found: int, probe: Probe, where: str) -> None:
        if self.variables == "words" and self.n_words:
            least, remedy = self.n_words, "a smaller [probes] n_words (--words), or none: then fewer are taken"
        elif self.variables in ("phrases", "sentences"):
            least, remedy = min(2, self.most), '[probes] variables = "words"'
        else:
            least, remedy = 1, "words of its own"
        if found < least:
            raise SftscopeError(
                f"{where}: too few {self.variables} in probe {safe_text(probe.id)!r}: {found} of the "
                f"{least} asked for; use a longer text or {remedy}"
            )

    def notes(self, total: int) -> Iterator[str]:
        """What to tell of all of them, in lines."""
        if self.fewer:
            few = ", ".join(f"{safe_text(probe.id, max_length=40)}: {len(probe.words)}" for probe in self.fewer[:4])
            more = ", …" if len(self.fewer) > 4 else ""
            yield (
                f"{len(self.fewer)} of {total} probes have fewer than {self.most} words, the default: "
                f"all of theirs are variables ({few}{more})"
            )
        if self.single:
            yield (
                f"in {len(self.single)} of {total} probes words are single characters where the script has no spaces; "
                "pip install 'sftscope[scripts]' finds those of a dictionary"
            )


def write_probes(probes: Iterable[Probe], targets: Sequence[dict[str, Any]] = ()) -> str:
    """The probes as JSONL text; `targets[i]`, where given, is stored as row i's `target`."""
    rows = [probe.as_row() for probe in probes]
    for row, target in zip(rows, targets, strict=False):
        row["target"] = target
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _probe_from_row(row: Any, where: str, default_id: str) -> Probe:
    if not isinstance(row, dict):
        raise SftscopeError(f"{where}: expected a JSON object, got {type(row).__name__}")
    probe = Probe(
        id=_text_field(row, "id", default_id, where),
        instruction=_text_field(row, "instruction", "", where),
        input=_text_field(row, "input", "", where),
        response=_text_field(row, "response", "", where),
        words_by=row["words_by"] if row.get("words_by") in ("icu", "unicode") else "",
        group=_group(row, where),
        words_in=_place_of_words(row, where),
        influence=influence_in(row),
    )
    if not probe.id.strip():
        raise SftscopeError(f"{where}: field 'id': expected a name, got nothing; without the field one is made")
    if not probe.response.strip():
        raise SftscopeError(f"{where}: field 'response': expected the answer to score, got nothing")
    if not probe.text.strip():
        raise SftscopeError(f"{where}: expected text in 'input' or 'instruction', got nothing")
    given = row.get("words")
    return replace(probe, words=_spans([] if given is None else given, probe.text, where))


def _group(row: Mapping[str, Any], where: str) -> str:
    group = _text_field(row, "group", "", where)
    if group not in ("", *PROBE_GROUPS):
        shown = safe_text(repr(group), max_length=60)
        raise SftscopeError(f"{where}: field 'group': expected {' or '.join(PROBE_GROUPS)}, got {shown}")
    return group


def _place_of_words(row: Mapping[str, Any], where: str) -> str:
    given = row.get("words_in", "")
    if given not in ("", PROMPT):
        shown = safe_text(repr(given), max_length=60)
        raise SftscopeError(f"{where}: field 'words_in': expected \"{PROMPT}\", or no such field, got {shown}")
    return PROMPT if given and row.get("words") else ""


def _text_field(row: Mapping[str, Any], name: str, default: str, where: str) -> str:
    value = row.get(name)
    if value is None:
        return default
    if type(value) is int:  # as in training rows
        return str(value)
    if not isinstance(value, str):
        shown = safe_text(repr(value), max_length=60)
        raise SftscopeError(f"{where}: field {name!r}: expected text, got {shown}")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair; no file and no tokenizer takes it
        raise SftscopeError(f"{where}: field {name!r}: expected text, got half a surrogate pair") from None
    return value


def _spans(given: Any, text: str, where: str) -> tuple[Span, ...]:
    if not isinstance(given, list) or len(given) > MAX_VARIABLES:
        raise SftscopeError(f"{where}: field 'words': expected at most {MAX_VARIABLES} [start, end] pairs")
    spans = []
    for pair in given:
        whole = isinstance(pair, list) and len(pair) == 2 and all(type(edge) is int for edge in pair)
        if not whole or not 0 <= pair[0] < pair[1] <= len(text):
            shown = safe_text(repr(pair), max_length=60)
            raise SftscopeError(f"{where}: field 'words': expected [start, end] within 0…{len(text)}, got {shown}")
        if not text[pair[0] : pair[1]].strip():
            raise SftscopeError(f"{where}: field 'words': {pair} holds white space only")
        spans.append((pair[0], pair[1]))
    spans.sort()
    for left, right in itertools.pairwise(spans):
        if right[0] < left[1]:
            raise SftscopeError(f"{where}: field 'words': {list(left)} and {list(right)} overlap")
    return tuple(spans)


def _check_unique(path: Path, probes: Sequence[Probe]) -> None:
    seen: set[str] = set()
    for probe in probes:
        if probe.id in seen:
            raise SftscopeError(f"{path}: two probes have the id {safe_text(probe.id)!r}; ids must differ")
        seen.add(probe.id)
