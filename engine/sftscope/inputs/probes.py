"""Probes: the prompts whose words become the input variables, and the choice of these words.

A probe is a row of JSONL, `{"id", "instruction", "input", "response", "words": [[start, end], …]}`.
The words are chosen once per probe and reused for every checkpoint and every other LLM; they are
character spans, so this module knows nothing of tokens.
"""

import itertools
import json
import random
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sftscope.files.json_text import refuse_deep
from sftscope.files.opening import failed_to_read, opened
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text

MAX_ROW_BYTES = 2**25  # of a probe or a training row: some hundred times the longest conversation
MAX_VARIABLES = 64  # of more than 16 the masked states are sampled
Span = tuple[int, int]

# Function words that carry little of their own. Negations are content here: they flip an answer.
STOP_WORDS = frozenset(
    """a about am an and are as at be been being but by can could did do does doing for from had has have
    having he her hers him his how i if in into is it its just me my of on or our ours she should so some
    such than that the their theirs them then there these they this those to too up us was we were what
    when where which while who whom why will with would you your yours i'm it's i've you're he's she's
    they're we're that's""".split()  # noqa: SIM905
)
# Unicode categories of what a word can begin and end with: letters, digits, marks (the vowel signs of
# many scripts), and symbols such as emoji. Everything else at either end is punctuation.
_WORD_CATEGORIES = ("L", "N", "M", "So")


@dataclass(frozen=True)
class Probe:
    """One prompt with its variables.

    `words` are (start, end) character spans, in text order, into `input`, or into `instruction`
    where there is no input. `response` is the answer whose first content token is scored.
    """

    id: str
    instruction: str
    input: str
    response: str
    words: tuple[Span, ...] = ()

    @property
    def text(self) -> str:
        """The field that the words are taken from."""
        return self.input or self.instruction

    @property
    def variables(self) -> tuple[str, ...]:
        """The words as text, variable 0 first."""
        return tuple(self.text[start:end] for start, end in self.words)

    @property
    def prompt(self) -> str:
        """The user's message: the instruction, a line break, the input."""
        return f"{self.instruction}\n{self.input}" if self.instruction and self.input else self.text

    @property
    def text_start(self) -> int:
        """Where `text` begins in `prompt`."""
        return len(self.prompt) - len(self.text)

    def as_row(self) -> dict[str, Any]:
        """The probe as a JSON object."""
        return {
            "id": self.id,
            "instruction": self.instruction,
            "input": self.input,
            "response": self.response,
            "words": [list(span) for span in self.words],
        }


def candidate_words(text: str) -> list[Span]:
    """Spans of the words of `text`: split at white space, punctuation at either end left outside."""
    spans = []
    for match in re.finditer(r"\S+", text):
        start, end = match.span()
        while start < end and not _begins_word(text[start]):
            start += 1
        while start < end and not _begins_word(text[end - 1]):
            end -= 1
        if start < end:
            spans.append((start, end))
    return spans


def candidate_phrases(text: str) -> list[Span]:
    """Spans of the longest runs of words with only white space between them, of which none is a stop word.

    These are the candidate phrases of keyword extraction by RAKE: stop words, punctuation and line breaks end one.
    """
    phrases: list[Span] = []
    joins = False  # whether the next content word belongs to the last phrase
    last = 0
    for start, end in candidate_words(text):
        joins = joins and re.fullmatch(r"[^\S\n\r]+", text[last:start]) is not None
        last = end
        if _plain(text[start:end]) in STOP_WORDS:
            joins = False
            continue
        phrases.append((phrases.pop()[0] if joins else start, end))
        joins = True
    return phrases


def candidate_sentences(text: str) -> list[Span]:
    """Spans of the sentences of `text`, with the marks that end them; those without a word are left out.

    A sentence ends at a line break, at `.`, `!`, `?` or `…` before white space (closing quotes and brackets go with
    it), and at the full stops of Chinese and Japanese. "Dr. Who" is two.
    """
    spans = []
    for match in re.finditer(r"\S.*?(?:[.!?…]+[\"'”’»)\]]*(?=\s|$)|[。！？]+[”’」』）]*|$)", text, re.MULTILINE):
        if any(_begins_word(character) for character in match[0]):
            spans.append((match.start(), match.start() + len(match[0].rstrip())))
    return spans


# how [probes] variables names what becomes a variable
_CANDIDATES: Mapping[str, Callable[[str], list[Span]]] = {
    "phrases": candidate_phrases,
    "sentences": candidate_sentences,
}


def _begins_word(character: str) -> bool:
    return unicodedata.category(character).startswith(_WORD_CATEGORIES)


def choose_words(text: str, n_words: int, rng: random.Random) -> tuple[Span, ...]:
    """At most `n_words` spans of `text` in text order.

    Stop words are left out while enough others remain; a surplus is cut by a random choice. Returns
    fewer than `n_words` spans where the text has fewer words.
    """
    candidates = candidate_words(text)
    content = [span for span in candidates if _plain(text[span[0] : span[1]]) not in STOP_WORDS]
    if len(content) >= n_words:
        return tuple(sorted(rng.sample(content, n_words)))
    stop = sorted(set(candidates).difference(content))
    extra = rng.sample(stop, min(n_words - len(content), len(stop)))
    return tuple(sorted(content + extra))


def choose_variables(text: str, kind: str, n: int, rng: random.Random) -> tuple[Span, ...]:
    """At most `n` spans of `text` in text order; kind: words, phrases or sentences.

    Of more phrases or sentences than `n` a random choice is left as text that is never masked, as of words.
    """
    if kind == "words":
        return choose_words(text, n, rng)
    if kind not in _CANDIDATES:
        raise SftscopeError(f"variables {safe_text(repr(kind), max_length=40)}: expected words, phrases or sentences")
    candidates = _CANDIDATES[kind](text)
    return tuple(sorted(rng.sample(candidates, min(n, len(candidates)))))


def _plain(word: str) -> str:
    """`word` as `STOP_WORDS` spells it: lower case, straight apostrophes."""
    return word.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")


def read_probes(path: Path, *, n_words: int, seed: int, variables: str = "words") -> tuple[Probe, ...]:
    """The probes in a JSONL file, each with its variables (chosen where the row names none).

    variables: words, phrases or sentences; `n_words` of them, or as many as there are of the latter two, two at least.
    Raises SftscopeError with file, line and field for a row that cannot be used.
    """
    probes: list[Probe] = []
    for number, row in read_jsonl(path):
        where = f"{path}, line {number}"
        probe = _probe_from_row(row, where, default_id=f"p{len(probes):02d}")
        if not probe.words:
            rng = random.Random(f"{seed}:{probe.id}")
            probe = replace(probe, words=choose_variables(probe.text, variables, n_words, rng))
            least = n_words if variables == "words" else min(2, n_words)
            if len(probe.words) < least:
                raise SftscopeError(
                    f"{where}: too few {variables} in probe {safe_text(probe.id)!r}: {len(probe.words)} of the "
                    f"{least} asked for; use a longer text or "
                    + ("a smaller [probes] n_words" if variables == "words" else '[probes] variables = "words"')
                )
        probes.append(probe)
    if not probes:
        raise SftscopeError(f"{path}: expected at least one probe, got an empty file")
    _check_unique(path, probes)
    return tuple(probes)


def write_probes(probes: Iterable[Probe], targets: Sequence[dict[str, Any]] = ()) -> str:
    """The probes as JSONL text; `targets[i]`, where given, is stored as row i's `target`."""
    rows = [probe.as_row() for probe in probes]
    for row, target in zip(rows, targets, strict=False):
        row["target"] = target
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, parsed value) of each line of a JSONL file that is not blank, read line by line.

    Numbers of any size, as data has.
    """
    try:
        with opened(path) as file:
            lines = iter(lambda: file.readline(MAX_ROW_BYTES + 1), b"")
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, _row(line, f"{path}, line {number}", "utf-8-sig" if number == 1 else "utf-8")
    except FileNotFoundError:
        raise SftscopeError(f"{path}: no such file") from None
    except OSError as error:
        raise failed_to_read(path, error) from None


def _row(line: bytes, where: str, encoding: str) -> Any:
    if len(line) > MAX_ROW_BYTES:
        raise SftscopeError(f"{where}: longer than {MAX_ROW_BYTES >> 20} MiB; expected one row a line")
    try:
        value = json.loads(line.decode(encoding))
        refuse_deep(value)
    except UnicodeDecodeError:
        raise SftscopeError(f"{where}: not valid UTF-8; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise SftscopeError(f"{where}: not valid JSON: {error.msg} at character {error.pos + 1}") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, thousands of brackets
        raise SftscopeError(f"{where}: not usable JSON: too long or too deep") from None
    return value


def _probe_from_row(row: Any, where: str, default_id: str) -> Probe:
    if not isinstance(row, dict):
        raise SftscopeError(f"{where}: expected a JSON object, got {type(row).__name__}")
    probe = Probe(
        id=_text_field(row, "id", default_id, where),
        instruction=_text_field(row, "instruction", "", where),
        input=_text_field(row, "input", "", where),
        response=_text_field(row, "response", "", where),
    )
    if not probe.id.strip():
        raise SftscopeError(f"{where}: field 'id': expected a name, got nothing; without the field one is made")
    if not probe.response.strip():
        raise SftscopeError(f"{where}: field 'response': expected the answer to score, got nothing")
    if not probe.text.strip():
        raise SftscopeError(f"{where}: expected text in 'input' or 'instruction', got nothing")
    given = row.get("words")
    return replace(probe, words=_spans([] if given is None else given, probe.text, where))


def _text_field(row: Mapping[str, Any], name: str, default: str, where: str) -> str:
    value = row.get(name, default)
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
