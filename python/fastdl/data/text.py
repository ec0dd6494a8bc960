"""Text as numbers: words, vocabularies."""

import functools
import re
import unicodedata

import numpy as np

from .._arguments import positive


@functools.cache
def _pattern(ascii_only):
    """A word with apostrophes and hyphens inside, a number, or any other visible sign on its own."""
    letters = r"[^\W\d_]+"
    if not ascii_only:  # accents and vowel signs may be characters of their own, which re counts among no letters
        planes = (*range(0x300, 0x20000), *range(0xE0100, 0xE01F0))
        marks = "".join(c for c in map(chr, planes) if unicodedata.category(c)[0] == "M")
        letters = rf"{letters}(?:[\u200c\u200d{marks}]+[^\W\d_]*)*"
    return re.compile(rf"{letters}(?:['\u2019-]{letters})*|\d+(?:[.,]\d+)*|[^\w\s]|_")


def words(text):
    """The words, numbers and signs of a text, in order.

    Examples
    --------
    >>> from fastdl import data
    >>> data.words("Don't stop: it's 3.5 miles!")
    ["Don't", 'stop', ':', "it's", '3.5', 'miles', '!']
    """
    if not isinstance(text, str):
        raise TypeError(f"text: expected a string; got {type(text).__name__}")
    return _pattern(text.isascii()).findall(text)


def _symbol(name, s):
    """A symbol, as dictionaries can hold it."""
    try:
        hash(s)
    except TypeError:
        raise TypeError(f"{name}: expected symbols such as characters and words; got {type(s).__name__}") from None
    return s


class Vocabulary:
    """Symbols (characters, words, labels) and their numbers.

    Parameters
    ----------
    symbols : iterable of str
        In the order of their numbers; each once.
    unknown : str, optional
        The symbol that stands for all others; added at the end if it is not among them. Without it an unseen symbol is
        an error.

    Examples
    --------
    >>> from fastdl.data import Vocabulary
    >>> v = Vocabulary.of("abracadabra")
    >>> v.encode("cab").tolist()
    [2, 0, 1]
    >>> v.decode([3, 0, 1])
    ['d', 'a', 'b']
    """

    def __init__(self, symbols, unknown=None):
        if not hasattr(symbols, "__iter__"):
            raise TypeError(f"symbols: expected some, one after another; got {type(symbols).__name__}")
        self.symbols = list(symbols)
        if unknown is not None and _symbol("unknown", unknown) not in self.symbols:
            self.symbols.append(unknown)
        self.unknown = unknown
        self._number = {_symbol("symbols", s): i for i, s in enumerate(self.symbols)}
        if not self.symbols:
            raise ValueError("symbols: expected one or more; got an empty vocabulary")
        if len(self._number) != len(self.symbols):
            twice = next(s for i, s in enumerate(self.symbols) if self._number[s] != i)
            raise ValueError(f"symbols: expected each symbol once; got {twice!r} twice")

    @classmethod
    def of(cls, *sequences, least=1, most=None, unknown=None):
        """The symbols that occur in sequences (texts, or lists of words).

        Parameters
        ----------
        least : int
            Symbols that are seen less often are left out.
        most : int, optional
            Keep the most frequent ones only, `unknown` counted.
        unknown : str, optional
            Needed where something is left out.

        Returns
        -------
        Vocabulary
            All symbols in sorted order; the most frequent first where `most` is given.
        """
        from collections import Counter

        positive("least", least)
        if most is not None:
            positive("most", most)
        counts = Counter()
        for i, sequence in enumerate(sequences):
            if not hasattr(sequence, "__iter__"):
                raise TypeError(f"sequences[{i}]: expected a text or a list of words; got {type(sequence).__name__}")
            counts.update(_symbol(f"sequences[{i}]", s) for s in sequence)
        try:
            kept = sorted(s for s, n in counts.items() if n >= least and s != unknown)
        except TypeError:
            kinds = " and ".join(sorted({type(s).__name__ for s in counts}))
            raise TypeError(f"sequences: expected symbols that have an order; got {kinds}") from None
        if most is not None:
            kept = sorted(kept, key=lambda s: -counts[s])[: most - (unknown is not None)]
        if len(kept) < len(counts) - (unknown in counts) and unknown is None:
            raise ValueError("unknown: expected a symbol for those that are left out (least, most); got None")
        return cls(kept, unknown)

    def __len__(self):
        return len(self.symbols)

    def __contains__(self, symbol):
        return symbol in self._number

    def __repr__(self):
        return f"Vocabulary({len(self)} symbols{'' if self.unknown is None else f', unknown {self.unknown!r}'})"

    def encode(self, sequence):
        """int64 [T] of a sequence of symbols.

        Raises
        ------
        ValueError
            A symbol that is not in the vocabulary, where no `unknown` stands for it; the message says which and where.
        """
        return self._encode(sequence, "sequence")

    def _encode(self, sequence, name):
        """`encode`, for a caller whose argument has another name."""
        if not hasattr(sequence, "__iter__"):
            raise TypeError(f"{name}: expected a text or a list of symbols; got {type(sequence).__name__}")
        sequence = sequence if isinstance(sequence, str) else list(sequence)
        other = None if self.unknown is None else self._number[self.unknown]
        codes = [self._number.get(_symbol(name, s), other) for s in sequence]
        if other is None and None in codes:
            at = codes.index(None)
            raise ValueError(f"{name}[{at}]: expected a symbol of the vocabulary; got {sequence[at]!r}")
        return np.array(codes, np.int64)

    def decode(self, codes):
        """The list of symbols that numbers, 0 to len - 1, stand for."""
        if not hasattr(codes, "__iter__"):
            raise TypeError(f"codes: expected numbers, one after another; got {type(codes).__name__}")
        found = []
        for i, c in enumerate(codes):
            try:
                at = int(c)
            except (TypeError, ValueError, OverflowError):  # no number, NaN, infinity
                at = -1
            if not 0 <= at < len(self.symbols) or at != c:
                raise ValueError(f"codes[{i}]: expected a number from 0 to {len(self.symbols) - 1}; got {c}")
            found.append(self.symbols[at])
        return found
