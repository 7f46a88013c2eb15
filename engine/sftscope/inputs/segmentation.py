"""Spans of a text that can become variables: words, phrases, sentences, characters, tokens.

Words are split at white space. Within scripts that have none between words, they are those of ICU's dictionaries where
icu4py is installed, else of the Unicode standard's own rules (UAX 29), by which each ideograph is a word.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import regex

Span = tuple[int, int]  # start, end in characters

# Function words that carry little of their own. Negations are content here: they flip an answer.
STOP_WORDS = frozenset(
    """a about am an and are as at be been being but by can could did do does doing for from had has have
    having he her hers him his how i if in into is it its just me my of on or our ours she should so some
    such than that the their theirs them then there these they this those to too up us was we were what
    when where which while who whom why will with would you your yours i'm it's i've you're he's she's
    they're we're that's""".split()  # noqa: SIM905
)
# The same of Chinese, Japanese and Thai. They end no phrase: where a character is a word they may be part of another.
PARTICLES = frozenset(
    """的 了 着 过 吗 呢 吧 啊 是 在 和 与 及 我 你 他 她 它 们 我们 你们 他们 这 那 个 一个 也 就 都 被 把 将 对
    は が を に へ と で の も や か ね よ な から まで より た だ て です ます する いる ある これ それ この その
    และ ที่ ของ ใน เป็น อยู่ ก็ ว่า นี้ นั้น ให้ ได้ จะ ครับ ค่ะ คะ""".split()  # noqa: SIM905
)
# Unicode categories of what a word can begin and end with: letters, digits, marks (the vowel signs of
# many scripts), and symbols such as emoji. Everything else at either end is punctuation.
_WORD_CATEGORIES = ("L", "N", "M", "So")
# what ends a sentence before white space (of English, Urdu and Arabic, Hindi), and what does anywhere
_ENDS, _CLOSES = r".!?…؟۔।॥", r"\"'”’»)\]"
_SENTENCE = re.compile(rf"\S.*?(?:[{_ENDS}]+[{_CLOSES}]*(?=\s|$)|[。！？]+[”’」』）]*|$)", re.MULTILINE)


def candidate_words(text: str) -> list[Span]:
    """Spans of the words of `text`: split at white space, punctuation at either end left outside.

    What has characters of a script without spaces is split further, see the module.
    """
    spans: list[Span] = []
    for match in re.finditer(r"\S+", text):
        start, end = match.span()
        while start < end and not _begins_word(text[start]):
            start += 1
        while start < end and not _begins_word(text[end - 1]):
            end -= 1
        if start < end:
            spans += _parts(text, start, end) if has_no_spaces(text[start:end]) else [(start, end)]
    return spans


def candidate_phrases(text: str) -> list[Span]:
    """Spans of the longest runs of words with only white space between them, of which none is a stop word.

    These are the candidate phrases of keyword extraction by RAKE: stop words, punctuation and line breaks end one.
    Between words of scripts without spaces, white space does too.
    """
    phrases: list[Span] = []
    joins = False  # whether the next content word belongs to the last phrase
    last: Span = (0, 0)
    for start, end in candidate_words(text):
        joins = joins and _is_within_phrase(text, last, (start, end))
        last = (start, end)
        if plain_word(text[start:end]) in STOP_WORDS:
            joins = False
            continue
        phrases.append((phrases.pop()[0] if joins else start, end))
        joins = True
    return phrases


def candidate_sentences(text: str) -> list[Span]:
    """Spans of the sentences of `text`, with the marks that end them; those without a word are left out.

    A sentence ends at a line break, at `.`, `!`, `?`, `…` and the like before white space (closing quotes and brackets
    go with it), and at the full stops of Chinese and Japanese. "Dr. Who" is two.
    """
    return [
        (match.start(), match.start() + len(match[0].rstrip()))
        for match in _SENTENCE.finditer(text)
        if has_word(match[0])
    ]


def candidate_characters(text: str) -> list[Span]:
    """Spans of the characters of `text` as readers see them (grapheme clusters), without punctuation."""
    clusters = _regex().finditer(r"\X", text)
    return [match.span() for match in clusters if has_word(match[0])]


def tokens_as_spans(text: str, tokens: Iterable[Span]) -> list[Span]:
    """Spans of the tokens in `text`, without outer white space; those that share a character are one."""
    spans: list[Span] = []
    for start, end in sorted((max(start, 0), min(end, len(text))) for start, end in tokens):
        part = text[start:end] if start < end else ""
        if not part.strip():
            continue
        span = end - len(part.lstrip()), start + len(part.rstrip())
        if spans and span[0] < spans[-1][1]:
            first, last = spans.pop()
            span = first, max(last, span[1])
        spans.append(span)
    return spans


def joined_by_tokens(text: str, spans: Sequence[Span], tokens: Iterable[Span]) -> list[Span]:
    """`spans`, in order, where no two without white space between them share a token: such neighbours become one.

    A token is masked as a whole. English words have white space between them, so that they stay as they are.
    """
    inside = sorted(token for token in tokens if token[0] < token[1])
    joined: list[Span] = []
    at = 0
    for start, end in spans:
        while at < len(inside) and inside[at][1] <= start:  # of those left, none ends before this span
            at += 1
        shared = at < len(inside) and joined and inside[at][0] < joined[-1][1]
        apart = bool(joined) and any(map(str.isspace, text[joined[-1][1] : start]))
        joined.append((joined.pop()[0], end) if shared and not apart else (start, end))
    return joined


def has_no_spaces(text: str) -> bool:
    """Whether `text` has characters of a script that writes no spaces between words."""
    return not text.isascii() and _unspaced().search(text) is not None


def has_word(text: str) -> bool:
    """Whether `text` has a letter, digit, mark or symbol."""
    return any(map(_begins_word, text))


def plain_word(word: str) -> str:
    """`word` as `STOP_WORDS` spells it: lower case, straight apostrophes."""
    return word.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")


def word_rules() -> str:
    """What splits scripts without spaces here: icu, or unicode."""
    return "icu" if _icu() else "unicode"


def _is_within_phrase(text: str, left: Span, right: Span) -> bool:
    between = text[left[1] : right[0]]
    if not between:
        return True
    unspaced = has_no_spaces(text[slice(*left)]) and has_no_spaces(text[slice(*right)])
    return re.fullmatch(r"[^\S\n\r]+", between) is not None and not unspaced


def _parts(text: str, start: int, end: int) -> Iterator[Span]:
    """Spans of the words in a run without white space."""
    for part in _segments(text[start:end]):
        if has_word(part):
            yield start, start + len(part)
        start += len(part)


def _segments(text: str) -> Sequence[str]:
    if breaker := _icu():
        return list(breaker(text, "root"))
    module = _regex()
    return module.split(r"\b", text, flags=module.VERSION1 | module.WORD)


def _begins_word(character: str) -> bool:
    return unicodedata.category(character).startswith(_WORD_CATEGORIES)


@cache
def _icu() -> Callable[[str, str], Iterable[str]] | None:
    try:
        from icu4py.breakers import WordBreaker
    except ImportError:
        return None
    return WordBreaker


def _regex() -> Any:
    import regex  # of the engine: who only reads runs has their words

    return regex


@cache
def _unspaced() -> "regex.Pattern[str]":
    """Line breaks of these depend on words (Thai, Lao, Khmer, Burmese …), or come anywhere (Chinese, Japanese)."""
    return _regex().compile(r"[\p{Line_Break=Complex_Context}\p{Ideographic}\p{Hiragana}\p{Katakana}]")


# how [probes] variables names what becomes a variable; words are chosen by rules of their own, tokens by the LLM
CANDIDATES: Mapping[str, Callable[[str], list[Span]]] = {
    "phrases": candidate_phrases,
    "sentences": candidate_sentences,
    "characters": candidate_characters,
}
