"""Params files: YAML that expands, refers to itself, or names Python's objects."""

from __future__ import annotations

from collections.abc import Callable

from mmconvert.documents import dump_yaml, read_yaml
from tests.trust.hostile.case import CONVERT_CS, Case, Cases, Place

WHAT = "YAML"
FILE = "config.yaml"


def text(make: str | Callable[[], str]) -> Callable[[Place], None]:
    def build(place: Place) -> None:
        (place.copy("cs") / FILE).write_text(make() if callable(make) else make)

    return build


def with_more(make: str | Callable[[], str]) -> Callable[[Place], None]:
    """A sound params file with a field `extra` beside the model's section."""

    def build(place: Place) -> None:
        file = place.copy("cs") / FILE
        file.write_text(file.read_text() + "extra: " + (make() if callable(make) else make) + "\n")

    return build


def saying(old: str, new: str) -> Callable[[Place], None]:
    def build(place: Place) -> None:
        file = place.copy("cs") / FILE
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new, 1))

    return build


def encoders(place: Place) -> None:
    """A fifth of a megabyte that demands three million tensors."""
    file = place.copy("cs llava") / FILE
    document = read_yaml(file)
    (model,) = document["model"]["image_model_list"]["image_models"]
    model["image_encoder"]["num_hidden_layers"] = 1024
    document["model"]["image_model_list"]["image_models"] = [model] * 200
    file.write_bytes(dump_yaml(document))


def aliases(levels: int, each: int = 10) -> str:
    """Lists of lists: `each` to the power of `levels` texts."""
    lines = ["&a0 [lol]"] + [f"&a{at} [{', '.join([f'*a{at - 1}'] * each)}]" for at in range(1, levels)]
    return "".join(f"\n  - {line}" for line in lines)


def merges(levels: int, each: int = 9) -> str:
    """Mappings that are merged into each other, `each` times."""
    lines = ["a0: &a0 {k: v}"] + [
        f"a{at}: &a{at} {{<<: [{', '.join([f'*a{at - 1}'] * each)}]}}" for at in range(1, levels)
    ]
    return "".join(f"\n  {line}" for line in lines)


CASES: Cases = {
    name: Case(build, [FILE, *words], CONVERT_CS)
    for name, (build, words) in {
        "a bomb of aliases": (with_more(lambda: aliases(10)), ["nodes"]),
        "a bomb of merge keys": (
            with_more(lambda: merges(9)),
            ["nodes"],
        ),
        "a list that contains itself": (with_more("&a [*a]"), ["refers to itself"]),
        "a mapping that contains itself": (with_more("&a {b: *a}"), ["refers to itself"]),
        "an alias of nothing": (with_more("*nothing"), ["alias"]),
        "a call of os.system": (with_more("!!python/object/apply:os.system [touch marker]"), ["tag"]),
        "a call of eval": (with_more("!!python/object/apply:builtins.eval [1]"), ["tag"]),
        "a module": (with_more("!!python/module:payload"), ["tag"]),
        "a name": (with_more("!!python/name:payload.run"), ["tag"]),
        "an object": (with_more("!!python/object:payload.Run {}"), ["tag"]),
        "a binary": (with_more("!!binary gIAB"), ["tag"]),
        "a key twice": (with_more("{a: 1, a: 2}"), ["'a' is given twice"]),
        "a key that is a list": (with_more("{? [a] : 1}"), ["a key is a list"]),
        "a depth of 100,000 in brackets": (with_more(lambda: "[" * 100_000), ["deeper than 64"]),
        "a depth of 1,000 in lines": (
            with_more(lambda: "".join("\n" + " " * (2 + at) + "a:" for at in range(600))),
            ["deeper than 64"],
        ),
        "a megabyte of texts": (with_more(lambda: "\n- a" * 260_000), ["at most"]),
        "a number of 100,000 digits": (with_more("1" * 100_000), []),
        "a sexagesimal of 10,000 digits": (with_more("1" + ":59" * 10_000), []),
        "a number in base 16 of 100,000 digits": (with_more("0x" + "f" * 100_000), ["thousands of digits"]),
        "bytes that are no text": (lambda place: not_text(place), []),
        "a control character": (with_more('"\x07"'), []),
        "nothing in it": (text(""), []),
        "a text alone": (text("just a text"), []),
    }.items()
} | {
    # Beside the model's section a params file may say anything: these take the longest of what is accepted.
    **{
        name: Case(build, ["tensors"], CONVERT_CS, code=0)
        for name, build in {
            "as many texts as are read": with_more(lambda: "[" + "a," * 19_000 + "a]"),
            "as many brackets as are read": with_more(lambda: "[" + "[]," * 19_000 + "[]]"),
            "as many keys as are read": with_more(lambda: "{" + ",".join(f"k{at}: " for at in range(9_900)) + "}"),
            "as many aliases as are read": with_more(lambda: "\n  - &a []" + "\n  - *a" * 19_000),
            "one text of as many bytes as are read": with_more(lambda: '"' + "\\x41" * 60_000 + '"'),
            "comments without end": with_more(lambda: "1\n" + "#\n" * 120_000),
        }.items()
    },
    "200 encoders of 1,024 layers": Case(encoders, [FILE, "10,000 tensors"], "cs-to-cs --src {source} --out {out}"),
    "an exponent without a point": Case(
        saying("layer_norm_epsilon: 1.0e-05", "layer_norm_epsilon: 1e-5"), ["tensors"], CONVERT_CS, code=0
    ),
}


def not_text(place: Place) -> None:
    (place.copy("cs") / FILE).write_bytes(b"model: \xff\xfe\n")


# The cases of every run of the tests; the others are for `make trust`.
USUAL = (
    "a bomb of aliases",
    "a list that contains itself",
    "a call of os.system",
    "a key twice",
    "a depth of 100,000 in brackets",
    "a megabyte of texts",
    "as many keys as are read",
    "an exponent without a point",
)
