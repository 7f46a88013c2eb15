"""Which training rows contain a word, a phrase or a sentence.

A variable is in a row where its text is in the row's prompt, in any case and with any white space, and begins and ends
at the borders of words: "hot" is not in "hotel". Scripts that put no space between words have no such borders.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sftscope.foundation.errors import SftscopeError
from sftscope.training.data.shapes import Row

Ints = NDArray[np.int64]
# a letter or digit of a script with spaces: not Thai to Lao, Myanmar, Khmer, Kana, Han
_SPACED = r"[^\W_\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, eq=False)
class RowIndex:
    """N training rows, to be searched; `normal` makes text comparable. Found places are kept, in order."""

    rows: Sequence[Row]
    normal: Callable[[str], str]
    _texts: list[str]
    _answers: list[str]
    _found: dict[str, Ints] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Sequence[Row], *, stem: str = "") -> "RowIndex":
        """An index of rows. stem: the language whose endings do not count, such as "english"; empty: all count.

        SftscopeError where the stemmer is not installed, or does not know the language.
        """
        normal = _stemmed(stem) if stem else _normal
        return cls(rows, normal, [normal(row.prompt) for row in rows], [_normal(row.response) for row in rows])

    def containing(self, text: str) -> Ints:
        """The places of the rows that contain `text`, ascending; none for a text without a letter or digit."""
        wanted = self.normal(text)
        if wanted not in self._found:
            self._found[wanted] = self._search(wanted)
        return self._found[wanted]

    def holds(self, place: int, text: str) -> bool:
        """Whether the row at `place` contains `text`."""
        found = self.containing(text)
        at = int(np.searchsorted(found, place))
        return at < found.size and int(found[at]) == place

    def answering(self, response: str) -> Ints:
        """The places of the rows whose whole answer is `response`, in any case and with any white space."""
        wanted = _normal(response)
        return np.array([place for place, answer in enumerate(self._answers) if answer == wanted], dtype=np.int64)

    def answers(self, places: Ints) -> list[str]:
        """The answers of rows, comparable."""
        return [self._answers[place] for place in places.tolist()]

    def _search(self, wanted: str) -> Ints:
        if not _WORD.search(wanted):
            return np.zeros(0, dtype=np.int64)
        before = f"(?<!{_SPACED})" if re.match(_SPACED, wanted) else ""
        after = f"(?!{_SPACED})" if re.match(_SPACED, wanted[-1]) else ""
        pattern = re.compile(before + re.escape(wanted) + after)
        # plain search first: on 50,000 rows 15 times as fast, as most do not have the word
        found = (place for place, text in enumerate(self._texts) if wanted in text and pattern.search(text))
        return np.fromiter(found, dtype=np.int64)


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())


def _stemmed(language: str) -> Callable[[str], str]:
    try:
        import snowballstemmer
    except ImportError:
        raise SftscopeError("--stem needs snowballstemmer; install it with: pip install 'sftscope[stem]'") from None
    if language not in snowballstemmer.algorithms():
        known = ", ".join(sorted(snowballstemmer.algorithms()))
        raise SftscopeError(f"--stem: no stemmer for {language!r}; expected one of {known}")
    stemmer = snowballstemmer.stemmer(language)
    return lambda text: _WORD.sub(lambda match: str(stemmer.stemWord(match[0])), _normal(text))
