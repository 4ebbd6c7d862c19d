"""Patterns of parameter names: regular expressions, but only those whose search ends soon. Nothing here needs torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mmconvert.errors import InputRefused
from mmconvert.excerpt import excerpt

# What a pattern is made of. Escaped characters and sets of characters come first: what looks special there is not.
TOKEN = re.compile(
    r"""
      (?P<character> \\. | \[\^?\]?(?:[^\]\\]|\\.)*\] )
    | (?P<open>      \((?:\?:)? )
    | (?P<close>     \) )
    | (?P<or>        \| )
    | (?P<optional>  \?[?+]? )
    | (?P<repeat>    (?:[*+] | \{\d+\} | \{(?P<least>\d*),(?P<most>\d*)\})[?+]? )
    | .
    """,
    re.VERBOSE | re.DOTALL,
)
# Ways to match a pattern in one place, an unbounded repeat being reckoned as so many: two of these fit, and not three.
# With as many as that, `.*.*.?X` or nine `.?` and an `X`, a search through all 687 names of LLaVA 7B took 0.3 to 1.5 s,
# with four times as many 4.
MOST_WAYS, ENDLESS = 1000, 22


def compiled(pattern: str, where: str) -> re.Pattern[str]:
    """A pattern to search names with. Raises InputRefused for one that is broken, or whose search may never end.

    No `(?` but `(?:` may stand in it, no group may be repeated except by `?`, and two repeats at most may be unbounded.
    """
    try:
        found = re.compile(pattern)
    except (re.error, OverflowError, RecursionError, ValueError) as error:
        raise InputRefused(f"{where}: '{excerpt(pattern)}' is no regular expression: {excerpt(error)}") from error
    if not _ends_soon(pattern):
        raise InputRefused(
            f"{where}: '{excerpt(pattern)}' may search for ever; write no (? but (?:, repeat no group except by ?, "
            "use * and + twice at most, and make several patterns of one with many choices"
        )
    return found


@dataclass
class _Group:
    """The ways to match a group: those of its finished alternatives, and of the one being read.

    `last` are the ways of the item that a repeat would belong to, `before` those of all items in front of it.
    """

    finished: int = 0
    before: int = 1
    last: int = 1

    @property
    def ways(self) -> int:
        return self.finished + self.before * self.last

    def append(self, ways: int) -> None:
        self.before, self.last = self.before * self.last, ways


def _ends_soon(pattern: str) -> bool:
    groups, previous = [_Group()], None
    for token in TOKEN.finditer(pattern):
        kind = token.lastgroup
        match kind:
            case "open":
                groups.append(_Group())
            case "close":
                ways = groups.pop().ways
                groups[-1].append(ways)
            case "or":
                groups[-1] = _Group(finished=groups[-1].ways)
            case "optional":
                # At the beginning of a group it is no repeat, but the sign of a special one.
                if previous == "open":
                    return False
                groups[-1].last += 1
            case "repeat":
                if previous == "close":
                    return False
                groups[-1].last = _choices(token)
            case _:
                groups[-1].append(1)
        previous = kind
    return groups[0].ways <= MOST_WAYS


def _choices(repeat: re.Match[str]) -> int:
    """Among how many numbers of times a repeat chooses: 4 of `{2,5}`."""
    if repeat["most"]:
        return int(repeat["most"]) - int(repeat["least"] or 0) + 1
    is_fixed = repeat["most"] is None and repeat[0].startswith("{")
    return 1 if is_fixed else ENDLESS
