"""Small text documents: JSON and YAML, read strictly and written deterministically.

Configs come from strangers. What their parsers would let pass (a key given twice, a NaN, a bomb of aliases) is refused
here with `InputRefused`, naming the file, so that whoever holds a document holds plain data: mappings, lists, strings,
numbers, booleans and None, nested a bounded depth.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mmconvert.errors import InputRefused

if TYPE_CHECKING:
    import yaml

MAX_DEPTH = 64
# PyYAML reads 100 kB or 25,000 nodes a second; the configs of this world have a few kB and some hundred nodes.
MAX_YAML_BYTES = 256 << 10
MAX_YAML_NODES = 20_000

# In YAML 1.2 an exponent needs neither a point nor a sign; PyYAML follows 1.1 and takes `1e-4` for a string.
_YAML_12_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$")
_FLOAT_TAG = "tag:yaml.org,2002:float"
_TIMESTAMP_TAG = "tag:yaml.org,2002:timestamp"


@dataclass(frozen=True)
class Limits:
    """How large a JSON document may be, in bytes, in values, and in keys of mappings, which take the most memory.

    A small one can hold millions of them: an empty list takes three bytes, and twenty times as many to hold.
    """

    nbytes: int
    nodes: int
    keys: int


# For a config, and for what lists every token or tensor under a key: the largest tokenizers have 35 MB and 1.8 million
# values, of which 260,000 are tokens, and 6,400 added ones of seven fields each.
CONFIG_LIMITS = Limits(4 << 20, 100_000, 100_000)
LISTING_LIMITS = Limits(48 << 20, 2_000_000, 600_000)


def file_size(path: Path) -> int:
    """The size of a regular file in bytes; refuses what is missing and what is no file (a pipe would block us)."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise InputRefused(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputRefused(f"{path}: is not a regular file")
    return status.st_size


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """What the file at `path` holds; refuses what `file_size` refuses, and files over `max_bytes`."""
    if (size := file_size(path)) > max_bytes:
        raise InputRefused(f"{path}: has {size:,} bytes; a document of this kind has at most {max_bytes:,}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputRefused(f"{path}: cannot be read: {error.strerror}") from error


def read_json(path: Path, limits: Limits = CONFIG_LIMITS) -> Any:
    """The JSON document in `path`; refuses what `parse_json` refuses, and files over the limits."""
    return parse_json(read_bytes(path, limits.nbytes), str(path), limits=limits)


def parse_json(data: bytes, name: str, max_depth: int = MAX_DEPTH, limits: Limits = LISTING_LIMITS) -> Any:
    """The JSON document in `data`, RFC 8259 to the letter; `name` is what errors call it.

    Raises `InputRefused` for malformed text, invalid UTF-8, duplicate keys, numbers that are not finite, nesting over
    `max_depth`, and more values or keys than the `limits` allow.
    """
    # Each value but the first of a list or mapping follows a comma, each list or mapping opens a bracket, each key has
    # a colon. Those in texts count too, which are few; to parse and count takes a hundred times longer, and gigabytes.
    if data.count(b",") + data.count(b"[") + data.count(b"{") > limits.nodes:
        raise InputRefused(f"{name}: holds more than {limits.nodes:,} values, the most that are read")
    if data.count(b":") > limits.keys:
        raise InputRefused(f"{name}: holds more than {limits.keys:,} keys, the most that are read")
    try:
        document = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_float=_finite,
            parse_constant=_finite,
        )
    except RecursionError:
        raise InputRefused(f"{name}: is nested deeper than {max_depth} levels") from None
    except ValueError as error:  # covers malformed JSON, invalid UTF-8, and what the two hooks raise
        raise InputRefused(f"{name}: is not valid JSON: {_what(error)}") from error
    _check_depth(document, name, max_depth)
    if re.search(rb"\\u[dD][89a-fA-F]", data):
        _check_text(document, name)
    return document


def read_yaml(path: Path, max_bytes: int = MAX_YAML_BYTES) -> Any:
    """The YAML document in `path`; refuses what `parse_yaml` refuses, and files over `max_bytes`."""
    return parse_yaml(read_bytes(path, max_bytes), str(path))


def parse_yaml(data: bytes, name: str) -> Any:
    """The YAML document in `data`: anchors, aliases and merge keys work, `1e-4` is a number, a date stays text.

    `name` is what errors call it. Raises `InputRefused` for malformed text, invalid UTF-8, duplicate keys, tags,
    aliases that refer to themselves or expand to more than `MAX_YAML_NODES` nodes, and nesting over `MAX_DEPTH`.
    """
    import yaml

    try:
        document = yaml.load(data.decode("utf-8-sig"), Loader=_loader())
    except (yaml.YAMLError, ValueError, IndexError) as error:  # a scalar such as `0b_` breaks PyYAML's own constructors
        where = getattr(error, "problem_mark", None)
        line = f"line {where.line + 1}: " if where else ""
        raise InputRefused(f"{name}: cannot be read as YAML: {line}{_what(error)}") from error
    _check_depth(document, name, MAX_DEPTH)
    _check_text(document, name)
    return document


def dump_json(document: Any) -> bytes:
    """`document` as JSON: two spaces of indent, keys in the order given, one newline at the end.

    Raises `InputRefused` for NaN and infinities, which JSON cannot say.
    """
    for key in _non_finite(document, ""):
        raise InputRefused(f"{key or 'the value'}: is not a finite number, which JSON cannot say")
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def dump_yaml(document: Any) -> bytes:
    """`document` as YAML in block style: sorted keys, four spaces of indent, no aliases.

    Read by any YAML 1.1 or 1.2 reader, a float comes back as a float and a string as a string.
    """
    import yaml

    text: str = yaml.dump(
        document, Dumper=_dumper(), default_flow_style=False, indent=4, sort_keys=True, allow_unicode=True
    )
    return text.encode()


def _what(error: Exception) -> str:
    """What a parser says, without Python's advice to those who call it."""
    said = str(getattr(error, "problem", None) or error).splitlines() or [type(error).__name__]
    return said[0].partition("; use sys.")[0]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"key {key!r} is given twice")
    return mapping


def _finite(literal: str) -> float:
    number = float(literal)
    if not math.isfinite(number):
        raise ValueError(f"{literal[:40]} is not a finite number")
    return number


def _check_depth(document: Any, name: str, max_depth: int) -> None:
    # Level by level, so that the check itself needs no stack; an alias counts wherever it stands.
    level = [document]
    for _ in range(max_depth + 1):
        nested = [node for node in level if isinstance(node, (dict, list))]
        if not nested:
            return
        level = [child for node in nested for child in (node.values() if isinstance(node, dict) else node)]
    raise InputRefused(f"{name}: is nested deeper than {max_depth} levels")


def _check_text(document: Any, name: str) -> None:
    """Refuse text with half a surrogate pair: it could be read, shown and compared, but never written."""
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InputRefused(
            f"{name}: holds half of a surrogate pair, \\u{ord(error.object[error.start]):04x}"
        ) from error
    except ValueError as error:  # Python writes no integer of so many digits, though YAML may have it in another base
        raise InputRefused(f"{name}: holds a number of thousands of digits") from error


def _non_finite(node: Any, key: str) -> Iterator[str]:
    """The dotted keys below `node`, itself at `key`, whose values are NaN or infinite."""
    if isinstance(node, float) and not math.isfinite(node):
        yield key
    for name, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from _non_finite(child, f"{key}.{name}" if key else str(name))


@cache
def _loader() -> type[yaml.SafeLoader]:
    """PyYAML's safe loader, stricter; made when first asked for, because importing PyYAML takes a while."""
    import yaml

    class StrictLoader(yaml.SafeLoader):
        def __init__(self, text: str) -> None:
            super().__init__(text)
            self.depth = 0
            self.count = 0  # of nodes so far, with those that aliases stand for
            self.counts: dict[yaml.Node, int] = {}  # of the nodes in each finished node

        def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
            event = self.peek_event()  # type: ignore[no-untyped-call]
            before = self.count
            if isinstance(event, yaml.AliasEvent):
                node = super().compose_node(parent, index)
                if node not in self.counts:
                    _refuse(event, f"the alias *{event.anchor} refers to itself")
                self.count += self.counts[node]
            else:
                if event.tag is not None:
                    _refuse(event, f"the tag {event.tag} is not allowed: a config is plain data")
                self.depth += 1
                self.count += 1
                if self.depth > MAX_DEPTH:
                    _refuse(event, f"nested deeper than {MAX_DEPTH} levels")
                node = super().compose_node(parent, index)
                self.depth -= 1
                assert node is not None
                self.counts[node] = self.count - before
            if self.count > MAX_YAML_NODES:
                _refuse(event, f"more than {MAX_YAML_NODES:,} nodes")
            return node

        def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
            # Before merge keys are resolved: a key that stands here may well override one that is merged in.
            node = super().compose_mapping_node(anchor)
            seen = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    _refuse(key, "a key is a list or a mapping")
                if (key.tag, key.value) in seen:
                    _refuse(key, f"key {key.value!r} is given twice")
                seen.add((key.tag, key.value))
            return node

    def _refuse(at: Any, why: str) -> NoReturn:
        raise yaml.MarkedYAMLError(problem=why, problem_mark=at.start_mark)

    StrictLoader.add_implicit_resolver(_FLOAT_TAG, _YAML_12_FLOAT, list("-+.0123456789"))
    StrictLoader.add_constructor(_TIMESTAMP_TAG, StrictLoader.construct_yaml_str)  # type: ignore[type-var]
    return StrictLoader


@cache
def _dumper() -> type[yaml.SafeDumper]:
    """PyYAML's safe dumper without aliases, which quotes the strings that only `_loader` takes for numbers."""
    import yaml

    class PlainDumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    PlainDumper.add_implicit_resolver(_FLOAT_TAG, _YAML_12_FLOAT, list("-+.0123456789"))
    return PlainDumper
