"""JSON and YAML that are damaged word by word: the same for the same seed, and often still a document."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from random import Random

import yaml

from tests.trust.mutations_bytes import INTEGERS, how_many, mutate_bytes
from tests.trust.mutations_tree import STRINGS, mutate_tree

NUMBERS = (
    *(*map(str, INTEGERS), "-1", "-0", "0.0", "-0.5", "1.5", "1e5", "1e-5", "1e-320", "1e308", "1e999", "-1e999"),
    *("NaN", "Infinity", "-Infinity", ".inf", ".nan", "01", "0x10", "0b_", "1_000", "1:30", "9" * 400, "9" * 5000),
)
WORDS = (
    *(
        "true",
        "false",
        "null",
        "~",
        "yes",
        "NaN",
        "{}",
        "[]",
        '""',
        "0",
        "!!python/object:os.system",
        "!!str",
        "!!float",
    ),
    *(
        "&a [1]",
        "*a",
        "<<: *a",
        "- - - -",
        "? x",
        "|",
        ">",
        "%YAML 1.1",
        "---",
        "...",
        "2024-01-01",
        "\t",
        "\x00",
        "\ufeff",
    ),
    *("[" * 70, "{" * 70, "[" * 70 + "]" * 70),
)
_TOKEN = re.compile(
    r'"(?:[^"\\]|\\.)*"|\'[^\']*\'|[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|[^\W\d]\w*|[ ]+|\n[ ]*|[^\w\s]|.', re.DOTALL
)


def mutate_text(data: bytes, draw: Random) -> bytes:
    """A mutant of the JSON or YAML document `data`, mostly one that still is a document."""
    if draw.random() < 0.5:
        # What is none any more, since it was damaged before, is damaged word by word.
        with suppress(ValueError, RecursionError, yaml.YAMLError):
            return mutate_tree(data, draw)
    tokens = _TOKEN.findall(data.decode())
    for _ in range(how_many(draw)):
        if tokens:
            draw.choice(TEXT_MUTATIONS)(tokens, draw)
    # Half of a surrogate pair is among the tokens' texts as an escape only, so this cannot fail.
    mutant = "".join(tokens).encode()
    return mutate_bytes(mutant, draw) if draw.random() < 0.15 else mutant


def _pick(tokens: list[str], draw: Random, wanted: Callable[[str], object]) -> int:
    """The place of one of the tokens that are `wanted`, or of any if there are none."""
    return draw.choice([at for at, token in enumerate(tokens) if wanted(token)] or range(len(tokens)))


def _is_number(token: str) -> bool:
    return token[-1].isdecimal() and not token[0].isalpha()


def _is_string(token: str) -> bool:
    return token[0] in "\"'" or token[0].isalpha()


def _change_number(tokens: list[str], draw: Random) -> None:
    tokens[_pick(tokens, draw, _is_number)] = draw.choice(NUMBERS)


def _nudge_number(tokens: list[str], draw: Random) -> None:
    at = _pick(tokens, draw, lambda token: token.isdecimal() and len(token) < 20)
    if tokens[at].isdecimal() and len(tokens[at]) < 20:
        tokens[at] = str(int(tokens[at]) * draw.choice((1, 1, 2, -1)) + draw.choice((-8, -1, 1, 8)))


def _change_string(tokens: list[str], draw: Random) -> None:
    at = _pick(tokens, draw, _is_string)
    others = [token for token in tokens if _is_string(token)]
    text = f'"{draw.choice(STRINGS)}"'
    tokens[at] = draw.choice(others) if others and draw.random() < 0.5 else text


def _change_word(tokens: list[str], draw: Random) -> None:
    tokens[_pick(tokens, draw, lambda token: _is_string(token) or _is_number(token))] = draw.choice(WORDS)


def _drop_token(tokens: list[str], draw: Random) -> None:
    del tokens[_pick(tokens, draw, str.strip)]


def _drop_mark(tokens: list[str], draw: Random) -> None:
    del tokens[_pick(tokens, draw, lambda token: token in "[]{},:-")]


def _double_mark(tokens: list[str], draw: Random) -> None:
    at = _pick(tokens, draw, lambda token: token in "[]{},:-")
    tokens.insert(at, tokens[at])


def _swap_tokens(tokens: list[str], draw: Random) -> None:
    first, second = _pick(tokens, draw, str.strip), _pick(tokens, draw, str.strip)
    tokens[first], tokens[second] = tokens[second], tokens[first]


def _repeat_key(tokens: list[str], draw: Random) -> None:
    """Give a key of JSON a second time, in front of the first."""
    keys = [at for at, token in enumerate(tokens[:-1]) if _is_string(token) and tokens[at + 1] == ":"]
    if keys:
        at = draw.choice(keys)
        tokens[at:at] = [tokens[at], ":", draw.choice(("0", "null", '""', "[]", "{}")), ","]


def _repeat_line(tokens: list[str], draw: Random) -> None:
    """Give a line a second time, which for YAML is a key given twice or an entry that comes twice."""
    starts = [at for at, token in enumerate(tokens) if token[0] == "\n"]
    if len(starts) > 1:
        number = draw.randrange(len(starts) - 1)
        begin, end = starts[number : number + 2]
        tokens[end:end] = tokens[begin:end]


def _indent(tokens: list[str], draw: Random) -> None:
    """Have a line of YAML stand deeper, or less deep."""
    at = _pick(tokens, draw, lambda token: token[0] == "\n")
    tokens[at] = "\n" + " " * draw.randrange(12)


def _splice(tokens: list[str], draw: Random) -> None:
    """Put a piece from elsewhere in the document in front of, or in place of, another one."""
    begin, place = draw.randrange(len(tokens)), draw.randrange(len(tokens))
    piece = tokens[begin : begin + draw.choice((1, 3, 10, 30))]
    tokens[place : place + draw.choice((0, len(piece)))] = piece


TEXT_MUTATIONS: tuple[Callable[[list[str], Random], None], ...] = (
    *(_change_number, _change_number, _change_number, _nudge_number, _nudge_number, _change_string, _change_string),
    *(_change_word, _change_word, _drop_token, _drop_mark, _double_mark, _swap_tokens, _repeat_key, _repeat_line),
    *(_indent, _splice),
)
