"""Bound the work that a regular expression can cause.

A model's config.json may come from anywhere, and Python's `re` takes exponential time on patterns such as `(a+)+$`.
This file bounds the number of ways in which the pattern of a config.json can be tried at one place, and the time that
any pattern takes for all paths of a model.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

from spikeplug.errors import SpikeplugError, shown

#: Longest pattern, in characters: room for a few hundred module paths in full.
LONGEST = 1 << 16
#: Most ways to try a pattern at one place: three repeats, or eighteen alternatives of two.
MOST_WAYS = 1 << 18
#: Most seconds that a pattern may take for all paths of a model. The ways bound what one path can take on top.
MOST_SECONDS = 5.0
#: Ways of one repeat: the length of a module path.
_REPEAT = 64
_DEEPEST = 20


def check_pattern(pattern: str) -> None:
    """Raise SpikeplugError if a regular expression does not compile, is too long, or could take too long to search."""
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
            f"exclude={shown!r} has {error}, which a config.json may not use: use only plain characters, classes, "
            "groups, alternatives and repeats of one character."
        ) from error
    if ways > MOST_WAYS:
        raise SpikeplugError(f"exclude={shown!r} could take too long to search: use fewer repeats or alternatives.")


def matching(pattern: str | None, paths: Iterable[str]) -> frozenset[str]:
    """Return the paths in which the regular expression `pattern` is found; the empty set if `pattern` is None.

    Errors: SpikeplugError if the search takes more than `MOST_SECONDS` of processor time.
    """
    if pattern is None:
        return frozenset()
    search, found, begin = re.compile(pattern).search, set(), time.thread_time()
    for path in dict.fromkeys(paths):
        if search(path):
            found.add(path)
        if time.thread_time() - begin > MOST_SECONDS:
            raise SpikeplugError(
                f"exclude={shown(pattern)} takes too long to search in all module paths: use fewer repeats or "
                "alternatives."
            )
    return frozenset(found)


class _UnboundedError(Exception):
    """Say that a pattern has a construct whose search time cannot be bounded; the message names the construct."""


@dataclass
class _Reader:
    """Count the ways in which the search can try a pattern at one place, an upper bound of its work.

    Ways multiply along a sequence and add up over alternatives. A repeat counts as 64 ways.

    pattern  regular expression that `re` has compiled without an error
    place    index of the next character to read
    """

    pattern: str
    place: int = 0

    def alternatives(self, depth: int) -> int:
        """Read alternatives up to the end or a closing parenthesis, and return in how many ways they can be tried.

        depth  number of groups around them

        Errors: _UnboundedError if groups are nested too deep.
        """
        if depth > _DEEPEST:
            raise _UnboundedError(f"groups nested more than {_DEEPEST} deep")
        total, product = 0, 1
        while self.place < len(self.pattern) and self.pattern[self.place] != ")":
            if self.pattern[self.place] == "|":
                total, product = total + product, 1
                self.place += 1
                continue
            product = min(product * self._item(depth), MOST_WAYS + 1)
        return min(total + product, MOST_WAYS + 1)

    def _item(self, depth: int) -> int:
        """Read one character, class or group with its repeat, and return in how many ways it can be tried.

        Errors: _UnboundedError for a repeated group, a group that begins with (? except (?:, and a back reference.
        """
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
        # Python takes a "{" without a count for a plain character. Here it counts as a repeat, which raises the bound.
        while self.place < len(self.pattern) and self.pattern[self.place] in "*+?{":
            if group:
                raise _UnboundedError("a repeated group")
            self.place = self._end_of_repeat()
            ways = min(ways * _REPEAT, MOST_WAYS + 1)
        return ways

    def _end_of_repeat(self) -> int:
        """Return the index after the repeat (`*`, `+`, `?` or `{2,5}`) that begins at `self.place`."""
        count = re.compile(r"\{[\d,]*\}").match(self.pattern, self.place)
        return count.end() if count else self.place + 1

    def _skip_class(self) -> None:
        """Move `self.place` from the `[` of a character class to the `]` that ends it.

        A bracket that comes first in a class is a plain character.
        """
        self.place += 2 if self.pattern.startswith("^", self.place + 1) else 1
        first = self.place
        while self.pattern[self.place] != "]" or self.place == first:
            self.place += 2 if self.pattern[self.place] == "\\" else 1
