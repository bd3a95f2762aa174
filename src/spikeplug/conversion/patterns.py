"""How much work a regular expression can cause, found without running it.

A model's config.json may come from anywhere, and Python's `re` takes exponential time on patterns such as `(a+)+$`. So
what a config.json may exclude by is bounded here: the number of ways in which the pattern can be tried at one place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from spikeplug.errors import SpikeplugError

#: Longest pattern, in characters: room for a few hundred module paths in full.
LONGEST = 1 << 16
#: Most ways to try a pattern at one place: three repeats, or eighteen choices of two.
MOST_WAYS = 1 << 18
#: Ways of one repeat: the length of a module path.
_REPEAT = 64
_DEEPEST = 20


def check_pattern(pattern: str) -> None:
    """Errors: SpikeplugError if the pattern does not compile, is too long, or could take too long to search."""
    if len(pattern) > LONGEST:
        raise SpikeplugError(f"exclude has {len(pattern)} characters: shorten it to {LONGEST}.")
    shown = pattern if len(pattern) <= 80 else f"{pattern[:77]}..."
    ways = 0
    try:
        re.compile(pattern)
        ways = _Reader(pattern).alternatives(0)
    except (re.error, OverflowError, RecursionError) as error:
        raise SpikeplugError(f"exclude={shown!r} is not a regular expression ({error}): correct it.") from error
    except _UnboundedError as error:
        raise SpikeplugError(
            f"exclude={shown!r} has {error}, which a config.json may not use: give plain characters, classes, groups, "
            "alternatives and repeats of one character."
        ) from error
    if ways > MOST_WAYS:
        raise SpikeplugError(f"exclude={shown!r} could take too long to search: use fewer repeats or alternatives.")


class _UnboundedError(Exception):
    """A construct whose cost is not bounded here."""


@dataclass
class _Reader:
    """Reads a pattern that `re` has compiled. Ways multiply along a sequence and add up over alternatives."""

    pattern: str
    place: int = 0

    def alternatives(self, depth: int) -> int:
        if depth > _DEEPEST:
            raise _UnboundedError("groups in groups in groups")
        total, product = 0, 1
        while self.place < len(self.pattern) and self.pattern[self.place] != ")":
            if self.pattern[self.place] == "|":
                total, product = total + product, 1
                self.place += 1
                continue
            product = min(product * self._item(depth), MOST_WAYS + 1)
        return min(total + product, MOST_WAYS + 1)

    def _item(self, depth: int) -> int:
        """One character, class or group, and its repeat."""
        ways, group = 1, self.pattern[self.place] == "("
        if group:
            self.place += 1
            if self.pattern.startswith("?:", self.place):
                self.place += 2
            elif self.pattern.startswith("?", self.place):
                raise _UnboundedError("a group beginning with (?")
            ways = self.alternatives(depth + 1)
        elif self.pattern[self.place] == "[":
            self._skip_class()
        elif self.pattern[self.place] == "\\":
            self.place += 1
            if self.pattern[self.place] in "123456789":
                raise _UnboundedError("a reference to a group")
        self.place += 1
        # "{" that begins no count is a plain character; it is taken for a repeat here, which only raises the bound.
        while self.place < len(self.pattern) and self.pattern[self.place] in "*+?{":
            if group:
                raise _UnboundedError("a repeated group")
            self.place = self._end_of_repeat()
            ways = min(ways * _REPEAT, MOST_WAYS + 1)
        return ways

    def _end_of_repeat(self) -> int:
        count = re.compile(r"\{[\d,]*\}").match(self.pattern, self.place)
        return count.end() if count else self.place + 1

    def _skip_class(self) -> None:
        """To the bracket that ends the class: the first in a class is a plain character."""
        self.place += 2 if self.pattern.startswith("^", self.place + 1) else 1
        first = self.place
        while self.pattern[self.place] != "]" or self.place == first:
            self.place += 2 if self.pattern[self.place] == "\\" else 1
