"""JSON and YAML that say something else, and still are documents: the same for the same seed."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

from tests.trust.mutations_bytes import INTEGERS, how_many

STRINGS = (
    *(
        "",
        " ",
        ".",
        "..",
        "../x",
        "/etc/passwd",
        "a/b",
        "a\\\\b",
        "\\u0000",
        "\\n",
        "\\u001b[31m",
        "\\ud800",
        "\\udc00",
    ),
    *("\u202e", "é", "\U0001f600", "__metadata__", "__class__", "None", "true", "0", "-1", "1e5", "x" * 2000),
    *("float32", "BF16", "F64", "I8", "BOOL", "llama", "clip", "mistral", "model", "{}", "[]", "<image>"),
)
# What may stand where something else does, in a tree that any writer can write down.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0.0, -0.5, 1.5, 1e-320, 1e308, float("nan"), float("inf"), 10**400),
    *(
        *INTEGERS,
        -1,
        -(1 << 63),
        "",
        " ",
        "..",
        "/etc/passwd",
        "a/b",
        "\0",
        "\n",
        "\x1b[31m",
        "x" * 2000,
        "1e5",
        "None",
    ),
    *("\u202e", "é", "\U0001f600", "float32", "bfloat16", "BF16", "llama", "clip_vision_model", "LlamaForCausalLM"),
    *([], {}, [[]], [0], [1, 2, 3], [None], {"a": 1}, {"": None}, {"content": "<s>"}, ["<s>", 0.0], [[], {}]),
)


def mutate_tree(data: bytes, draw: Random) -> bytes:
    """A mutant of the JSON or YAML document `data` that is one for sure: values and keys are others, gone or moved."""
    import yaml

    is_json = data.lstrip()[:1] in (b"{", b"[", b'"')
    holder = [json.loads(data) if is_json else yaml.safe_load(data)]
    for _ in range(how_many(draw)):
        draw.choice(TREE_MUTATIONS)(*_place(holder, draw), draw)
    if is_json:
        return json.dumps(holder[0] if holder else None, indent=draw.choice((None, 1, 2))).encode()
    return yaml.safe_dump(holder[0] if holder else None, allow_unicode=True, sort_keys=False).encode()


def _place(node: Any, draw: Random) -> tuple[Any, Any]:
    """Where in a tree a value stands: the list or mapping, and the index or key. Long lists have no more places."""
    stays = 0.03
    while True:
        key = draw.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if not isinstance(node[key], (dict, list)) or not node[key] or draw.random() < stays:
            return node, key
        node, stays = node[key], 0.2


def _new_value(draw: Random) -> Any:
    return deepcopy(draw.choice(VALUES))


def _change_value(node: Any, key: Any, draw: Random) -> None:
    node[key] = _new_value(draw)


def _change_number_value(node: Any, key: Any, draw: Random) -> None:
    """Another number where one stands, near the one that is there or far from it; or whatever else elsewhere."""
    value = node[key]
    if isinstance(value, (int, float)):
        node[key] = draw.choice((value + 1, value - 1, -value, value * 2, value // 3, str(value), bool(value), [value]))
    else:
        _change_value(node, key, draw)


def _drop_value(node: Any, key: Any, draw: Random) -> None:
    # The document itself stays.
    if isinstance(node, dict) or len(node) > 1:
        del node[key]


def _rename_key(node: Any, key: Any, draw: Random) -> None:
    if isinstance(node, dict):
        other = draw.choice((*STRINGS, *map(str, node)))
        items = [(str(other) if name == key else name, value) for name, value in node.items()]
        node.clear()
        node.update(items)


def _add_value(node: Any, key: Any, draw: Random) -> None:
    if isinstance(node, dict):
        node[draw.choice(STRINGS)] = _new_value(draw)
    elif len(node) < 1000:
        node[key:key] = [deepcopy(node[key]) for _ in range(draw.choice((1, 2, 100)))]


def _wrap_value(node: Any, key: Any, draw: Random) -> None:
    """A list or mapping around a value, or many."""
    for _ in range(draw.choice((1, 1, 2, 70))):
        node[key] = draw.choice(([node[key]], {"a": node[key]}))


def _exchange_values(node: Any, key: Any, draw: Random) -> None:
    other = draw.choice(list(node) if isinstance(node, dict) else range(len(node)))
    node[key], node[other] = node[other], node[key]


TREE_MUTATIONS: tuple[Callable[[Any, Any, Random], None], ...] = (
    *(_change_value, _change_value, _change_number_value, _change_number_value, _change_number_value),
    *(_drop_value, _rename_key, _add_value, _wrap_value, _exchange_values),
)
