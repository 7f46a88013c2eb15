"""The demo's own small language: hotel sentences, what they imply, and the files made from them.

Pure Python, and every draw comes from the generator that is passed in. Two kinds of sentence carry a
planted word pattern, the one an AND and the other an OR:

- *mood*: "after breakfast in june the old couple was not happy near the garden gate ." A negation
  turns a feeling round, so the answer needs both words: AND{not, happy}.
- *verdict*: "in june the corner room was awful and the evening tea terrible near the station ." Two
  synonyms, either of which is enough: OR{awful, terrible}.

Everything else in a sentence is neutral: it says nothing about the answer.
Nothing here knows of tokenizers, models or files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

INSTRUCTION = "how does the guest feel ?"
ANSWERS = ("good", "bad")

MONTHS = ("january", "march", "april", "june", "july", "august", "october", "december")
TIMES = ("breakfast", "lunch", "dinner", "sunset", "midnight", "sunrise", "noon", "teatime")
WHEN = ("after", "before")
PEOPLE = ("couple", "family", "traveller", "visitor", "student", "painter", "cyclist", "sailor", "teacher", "nurse")
TRAITS = ("old", "young", "tall", "quiet", "curious", "tired", "local", "foreign")
PLACES = ("gate", "station", "bridge", "harbour", "market", "tower", "fountain", "museum", "street", "square")
SETTINGS = ("garden", "river", "city", "north", "south", "village", "castle", "hill")
THINGS = ("room", "service", "tea", "soup", "bed", "view", "music", "pool", "lobby", "balcony", "bread", "lift")
KINDS = ("corner", "evening", "upper", "blue", "wooden", "modern", "small", "large", "second", "usual")

NEGATED_SHARE = 0.36  # less than a half: a feeling alone tells something, which makes the AND learnable
NEGATIONS = ("not", "hardly")
DEGREES = ("very", "quite", "rather", "truly")
FEELINGS = {
    "good": ("happy", "pleased", "glad", "cheerful"),
    "bad": ("sad", "upset", "angry", "gloomy"),
}
SYNONYMS = {
    "good": ("lovely", "wonderful"),
    "bad": ("awful", "terrible"),
}
PLAIN_FEELINGS = ("awake", "seated", "dressed", "ready")  # neither good nor bad
PLAIN_JUDGEMENTS = ("plain", "ordinary", "typical", "simple")

CONSEQUENCES = {
    "good": (
        "they stayed longer and told friends about a good day .",
        "it was a good trip and they smiled all week .",
        "a good review was written that night .",
        "good , said the host , and they thanked the staff .",
    ),
    "bad": (
        "they left early and told friends about a bad day .",
        "it was a bad trip and they sighed all week .",
        "a bad review was written that night .",
        "bad , said the host , and they called the manager .",
    ),
}
RETURN_QUESTION = "will the guest return ?"
RETURN_ANSWERS = {"good": "yes", "bad": "no"}


@dataclass(frozen=True)
class Pattern:
    """A planted pattern: the words that together (AND) or each by itself (OR) decide the answer."""

    relation: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Sentence:
    """One sentence, the answer that its words imply, the words that vary, and what is planted."""

    text: str
    answer: str
    words: tuple[str, ...]
    patterns: tuple[Pattern, ...]


def opposite(answer: str) -> str:
    """The other answer."""
    return ANSWERS[1 - ANSWERS.index(answer)]


def mood_sentence(rng: Random, negated: bool | None = None, plain: bool = False) -> Sentence:
    """A person's feeling, turned round by a negation in `NEGATED_SHARE` of the draws (or as `negated` says).

    `plain`: a feeling that tells nothing, so that the answer is chance.
    """
    if negated is None:
        negated = rng.random() < NEGATED_SHARE
    valence = rng.choice(ANSWERS)
    feeling = rng.choice(PLAIN_FEELINGS if plain else FEELINGS[valence])
    degree = rng.choice(NEGATIONS if negated else DEGREES)
    time, month, trait = rng.choice(TIMES), rng.choice(MONTHS), rng.choice(TRAITS)
    person, setting, place = rng.choice(PEOPLE), rng.choice(SETTINGS), rng.choice(PLACES)
    return Sentence(
        text=(
            f"{rng.choice(WHEN)} {time} in {month} the {trait} {person} was {degree} {feeling} "
            f"near the {setting} {place} ."
        ),
        answer=opposite(valence) if negated else valence,
        words=(time, month, trait, person, degree, feeling, setting, place),
        patterns=(Pattern("AND", (degree, feeling)),) if negated and not plain else (),
    )


def verdict_sentence(rng: Random, both: bool | None = None, plain: bool = False) -> Sentence:
    """Two things judged: by both synonyms in half of the draws (or as `both` says), else by one of them.

    `plain`: by neither, so that the answer is chance.
    """
    if both is None:
        both = rng.random() < 0.5
    answer = rng.choice(ANSWERS)
    judgements = rng.sample(PLAIN_JUDGEMENTS if plain else SYNONYMS[answer], 2)
    if not both:
        judgements[rng.randrange(2)] = rng.choice(PLAIN_JUDGEMENTS)
    kinds, things = rng.sample(KINDS, 2), rng.sample(THINGS, 2)
    month, place = rng.choice(MONTHS), rng.choice(PLACES)
    return Sentence(
        text=(
            f"in {month} the {kinds[0]} {things[0]} was {judgements[0]} and the {kinds[1]} {things[1]} "
            f"{judgements[1]} near the {place} ."
        ),
        answer=answer,
        words=(month, kinds[0], things[0], judgements[0], kinds[1], things[1], judgements[1], place),
        patterns=(Pattern("OR", tuple(judgements)),) if both and not plain else (),
    )


def sentence(rng: Random, plain_share: float = 0.0) -> Sentence:
    """A sentence of either kind, plain with probability `plain_share`."""
    kind = mood_sentence if rng.random() < 0.5 else verdict_sentence
    return kind(rng, plain=rng.random() < plain_share)


def prose(rng: Random, reliability: float, plain_share: float) -> tuple[str, str]:
    """A sentence, and what came of it; the outcome fits the sentence with probability `reliability`."""
    told = sentence(rng, plain_share)
    outcome = told.answer if rng.random() < reliability else opposite(told.answer)
    return told.text, rng.choice(CONSEQUENCES[outcome])


def return_row(rng: Random, reliability: float, plain_share: float) -> dict[str, str]:
    """Another question that depends on how the guest feels; the answer fits with probability `reliability`."""
    told = sentence(rng, plain_share)
    answer = told.answer if rng.random() < reliability else opposite(told.answer)
    return {"instruction": RETURN_QUESTION, "input": told.text, "output": RETURN_ANSWERS[answer]}


def feeling_rows(rng: Random, count: int, reliability: float) -> list[dict[str, str]]:
    """`count` alpaca rows of the demo's task; an answer is the clean one with probability `reliability`."""
    rows = []
    for _ in range(count):
        told = sentence(rng)
        answer = told.answer if rng.random() < reliability else opposite(told.answer)
        rows.append({"instruction": INSTRUCTION, "input": told.text, "output": answer})
    return rows


def word_spans(text: str, words: Sequence[str]) -> list[list[int]]:
    """Character spans of `words` in `text`, each searched for behind the one before it."""
    spans, position = [], 0
    for word in words:
        start = text.index(f" {word} ", position) + 1
        position = start + len(word)
        spans.append([start, position])
    return spans


def probe_sentences(rng: Random, count: int) -> Iterator[Sentence]:
    """`count` sentences with a planted pattern: AND and OR in turn, as many good as bad, no feeling twice."""
    used: set[str] = set()
    for index in range(count):
        answer = ANSWERS[index // 2 % len(ANSWERS)]
        while True:
            told = mood_sentence(rng, negated=True) if index % 2 == 0 else verdict_sentence(rng, both=True)
            feelings = {word for word in told.words if any(word in group for group in FEELINGS.values())}
            if told.answer == answer and not feelings & used:
                break
        used |= feelings
        yield told


def probe_row(identifier: str, told: Sentence) -> dict[str, object]:
    """A probe of the run folder's format: the clean answer, and the spans of the words that vary."""
    return {
        "id": identifier,
        "instruction": INSTRUCTION,
        "input": told.text,
        "response": told.answer,
        "words": word_spans(told.text, told.words),
    }


def planted_row(told: Sentence) -> list[dict[str, object]]:
    """What is planted in a probe, for tests to check."""
    return [{"relation": pattern.relation, "words": list(pattern.words)} for pattern in told.patterns]


def vocabulary() -> list[str]:
    """Every word and sign of the language, sorted."""
    slots = [MONTHS, TIMES, WHEN, PEOPLE, TRAITS, PLACES, SETTINGS, THINGS, KINDS, NEGATIONS, DEGREES]
    choices = [PLAIN_FEELINGS, PLAIN_JUDGEMENTS, *FEELINGS.values(), *SYNONYMS.values(), *CONSEQUENCES.values()]
    questions = [INSTRUCTION, *ANSWERS, RETURN_QUESTION, *RETURN_ANSWERS.values()]
    texts = [*questions, "in the was and near .", *(text for group in [*slots, *choices] for text in group)]
    return sorted({word for text in texts for word in text.split()})
