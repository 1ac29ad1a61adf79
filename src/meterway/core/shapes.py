"""Shapes of values on the wire that were checked before: the same text, only with other numbers in it.

A meter sends the same properties over and over, so ``wire`` reads the values of its first messages with all care, and
later ones by cutting the numbers out of a text that it knows. What is valid is decided in ``wire`` alone: a shape is
trusted when its text, filled with two sets of probe numbers, gives exactly these numbers when read with all care, each
in its place, and all else as before. A number that is cut out has the plain spelling of ``NUMBER``, which ``wire``
accepts whatever its digits are.

Bounded: ``LIMIT_SHAPES`` shapes of at most ``LIMIT_SHAPE_BYTES`` are kept; at the bound all are forgotten and learned
again. A shape is learned when it comes the second time, so that texts that are never repeated cost little. Values with
times of their own are not learned, since those change.
"""

import re
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest
from typing import Final, NamedTuple

from meterway.core.columns import PropertySet, ValueColumns
from meterway.core.errors import BadDataError

NUMBER: Final = r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,20})?"
"""The numbers that are cut out: no exponent, no leading zero, at most 40 characters."""

LIMIT_SHAPES: Final = 2048
LIMIT_SHAPE_CHARACTERS: Final = 16 * 1024
_LIMIT_SEEN: Final = 65_536

_INTRODUCTIONS: Final = ("", " ", '"', ' "')
"""What stands between colon and number: nothing, or what other JSON writers put there."""


class Split(NamedTuple):
    """A text, cut at its numbers."""

    key: tuple[str, ...]
    """The introduction of the numbers, and the text between them."""
    numbers: Sequence[str]


class Shape(NamedTuple):
    """What a text says besides its numbers."""

    property_set: PropertySet
    text_values: tuple[str | None, ...] | None

    def filled(self, numbers: Sequence[str]) -> ValueColumns:
        """Return the values with ``numbers`` in their places."""
        if self.text_values is None:
            return ValueColumns(self.property_set, tuple(numbers))
        left = iter(numbers)
        digits = [next(left) if text is None else None for text in self.text_values]
        return ValueColumns(self.property_set, tuple(digits), self.text_values)


class Shapes:
    """The shapes that were learned."""

    def __init__(self, field: str, decode: Callable[[str], ValueColumns]) -> None:
        """Cut out the numbers of the JSON field ``field``; ``decode`` reads values with all care."""
        self._name = f'"{field}":'
        self._cuts = {each: re.compile(f"{self._name}{each}({NUMBER})").split for each in _INTRODUCTIONS}
        self._decode = decode
        self._shapes: dict[tuple[str, ...], Shape | None] = {}
        self._seen: set[int] = set()

    def split(self, text: str) -> Split:
        """Cut ``text`` at its numbers, which are introduced as the first of them is."""
        start = text.find(self._name) + len(self._name)
        after = text[start : start + 2]
        introduction = after[: len(after) - len(after.lstrip(' "'))]
        if introduction not in self._cuts:
            return Split(("", text), ())
        parts = self._cuts[introduction](text)
        return Split((introduction, *parts[::2]), parts[1::2])

    def find(self, split: Split) -> Shape | None:
        """Return the shape of a text if it is known and trusted."""
        return self._shapes.get(split.key)

    def learn(self, split: Split, columns: ValueColumns) -> None:
        """Take note of a text that was read with all care, and said ``columns``."""
        key = split.key
        if columns.dates or key in self._shapes or sum(map(len, key)) > LIMIT_SHAPE_CHARACTERS:
            return
        mark = hash(key)
        if mark not in self._seen:
            if len(self._seen) >= _LIMIT_SEEN:
                self._seen.clear()
            self._seen.add(mark)
            return
        if len(self._shapes) >= LIMIT_SHAPES:
            self._shapes.clear()
        shape = Shape(columns.property_set, columns.text_values)
        count = len(columns.numerical_values) - columns.numerical_values.count(None)
        is_trusted = len(split.numbers) == count and self._gives_back(shape, key, count)
        self._shapes[key] = shape if is_trusted else None

    def _gives_back(self, shape: Shape, key: tuple[str, ...], count: int) -> bool:
        """Return whether numbers put into the text come out in their places."""
        introduction, *between = key
        for first in (1, 1 + count):
            probes = [str(number) for number in range(first, first + count)]
            introduced = [f"{self._name}{introduction}{probe}" for probe in probes]
            text = "".join(chain.from_iterable(zip_longest(between, introduced, fillvalue="")))
            try:
                if self._decode(text) != shape.filled(probes):
                    return False
            except BadDataError:
                return False
        return True
