"""config.json: documents that are ambiguous, too large, or say sizes beyond reason."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from tests.trust.hostile.case import CONVERT_CS, Case, Cases, Place

WHAT = "config.json"
FILE = "config.json"


def text(make: str | Callable[[], str]) -> Callable[[Place], None]:
    def build(place: Place) -> None:
        (place.copy("llama") / FILE).write_text(make() if callable(make) else make)

    return build


def saying(**changes: Any) -> Callable[[Place], None]:
    def build(place: Place) -> None:
        place.copy("llama")
        place.rewrite_config(**changes)

    return build


def with_more(make: Callable[[], str]) -> Callable[[Place], None]:
    """A sound config with a field `extra` that has this text for its value."""

    def build(place: Place) -> None:
        file = place.copy("llama") / FILE
        file.write_text(file.read_text().rstrip()[:-1] + ', "extra": ' + make() + "}")

    return build


def instead(make: Callable[[Place], object]) -> Callable[[Place], None]:
    """No file, but something else of its name."""

    def build(place: Place) -> None:
        (place.copy("llama") / FILE).unlink()
        make(place)

    return build


def pictures(place: Place) -> None:
    """A list of the tower's positions would take more than a hundred gigabytes."""
    place.copy("llava")
    place.rewrite_config(place.source / "image_model", image_size=65536, patch_size=1)


def cs_saying(field: str, value: str) -> Callable[[Place], None]:
    """A CS checkpoint whose params file says another thing of its model."""

    def build(place: Place) -> None:
        file = place.copy("cs") / "config.yaml"
        lines = [line for line in file.read_text().splitlines() if not line.strip().startswith(f"{field}:")]
        file.write_text("\n".join([*lines, f"    {field}: {value}"]) + "\n")

    return build


def own_code(place: Place) -> None:
    """What repositories with code of their own have: transformers would import it, if it were let."""
    saying(auto_map={"AutoModelForCausalLM": "modeling_payload.Payload"})(place)
    (place.source / "modeling_payload.py").write_text(f"open({str(place.out.parent / 'marker')!r}, 'w')")


HUGE = 1 << 40
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")

CASES: Cases = {
    **{f"{field} of 2^40": Case(saying(**{field: HUGE}), [FILE]) for field in SIZES},
    **{f"{field} of zero": Case(saying(**{field: 0}), [FILE, field]) for field in SIZES},
    **{f"{field} below zero": Case(saying(**{field: -1}), [FILE, field]) for field in SIZES[:4]},
    "layers of a billion": Case(saying(num_hidden_layers=10**9), [FILE, "num_hidden_layers"]),
    "more layers than any model has": Case(saying(num_hidden_layers=1025), [FILE, "num_hidden_layers", "maximum"]),
    "pictures of 65,536 by 65,536 patches": Case(
        pictures, [FILE, "4,294,967,297 rows"], "llava-to-cs --src {source} --out {out}"
    ),
    "heads of 2^40 in a hidden_size of 2^40": Case(saying(hidden_size=HUGE, num_attention_heads=HUGE), [FILE]),
    "a head_dim of 2^40": Case(saying(head_dim=HUGE), [FILE, "head_dim"]),
    "num_key_value_heads of 2^40": Case(saying(num_key_value_heads=HUGE), [FILE, "num_key_value_heads"]),
    "max_position_embeddings of 2^80": Case(saying(max_position_embeddings=1 << 80), [FILE, "maximum"]),
    "a text where a size belongs": Case(saying(hidden_size="48"), [FILE, "hidden_size", "integer"]),
    "a fraction where a size belongs": Case(saying(num_hidden_layers=2.0), [FILE, "num_hidden_layers", "integer"]),
    "true where a size belongs": Case(saying(num_hidden_layers=True), [FILE, "num_hidden_layers", "integer"]),
    "a list where a size belongs": Case(saying(hidden_size=[1] * 90_000), [FILE, "hidden_size"]),
    "null where a size belongs": Case(saying(hidden_size=None), [FILE, "hidden_size"]),
    "a model_type that is a list": Case(saying(model_type=["llama"]), [FILE, "model_type"]),
    "a model_type of a megabyte": Case(saying(model_type="x" * 1_000_000), [FILE, "model_type"]),
    "a model_type that clears the terminal": Case(saying(model_type="\x1b[2J\x1b]0;owned\x07"), [FILE, "model_type"]),
    "a rope_scaling that is a text": Case(saying(rope_scaling="x" * 100_000), [FILE, "rope_scaling"]),
    "a key twice": Case(
        text('{"model_type": "llama", "model_type": "mistral"}'), [FILE, "'model_type' is given twice"]
    ),
    "a NaN": Case(text('{"model_type": "llama", "rms_norm_eps": NaN}'), [FILE, "NaN is not a finite number"]),
    "an infinite number": Case(text('{"model_type": "llama", "rms_norm_eps": 1e999}'), [FILE, "not a finite number"]),
    "a number of 5,000 digits": Case(with_more(lambda: "1" * 5000), [FILE, "digits"]),
    "half a surrogate": Case(text('{"model_type": "\\ud800"}'), [FILE, "surrogate"]),
    "bytes that are no text": Case(lambda place: not_text(place), [FILE, "utf-8"]),
    "a depth of 90,000": Case(text(lambda: '{"a":' * 90_000), [FILE, "deeper than 64"]),
    "a depth of 100": Case(with_more(lambda: "[" * 100 + "]" * 100), [FILE, "deeper than 64"]),
    "60 MB of brackets": Case(with_more(lambda: "[" + "[]," * 20_000_000 + "[]]"), [FILE, "at most"]),
    "three megabytes of numbers": Case(with_more(lambda: "[" + "1," * 1_500_000 + "1]"), [FILE, "values"]),
    "60 MB of one text": Case(with_more(lambda: '"' + "x" * 60_000_000 + '"'), [FILE, "at most"]),
    "three megabytes of brackets": Case(with_more(lambda: "[" + "[]," * 1_000_000 + "[]]"), [FILE, "values"]),
    "fields without number": Case(
        with_more(lambda: "1," + ",".join(f'"f{at}": 1' for at in range(100_000))), [FILE, "values"]
    ),
    "as many fields as are read": Case(
        with_more(lambda: "1," + ",".join(f'"f{at}": 1' for at in range(99_000))), ["tensors"], code=0
    ),
    "as many brackets as are read": Case(with_more(lambda: "[" + "[]," * 49_000 + "[]]"), ["tensors"], code=0),
    "as many bytes as are read": Case(with_more(lambda: '"' + "x" * 4_100_000 + '"'), ["tensors"], code=0),
    "nothing in it": Case(text(""), [FILE, "not valid JSON"]),
    "a list": Case(text("[]"), [FILE, "holds no mapping"]),
    "a folder": Case(instead(lambda place: (place.source / FILE).mkdir()), [FILE, "not a regular file"]),
    "a pipe": Case(instead(lambda place: os.mkfifo(place.source / FILE)), [FILE, "not a regular file"]),
    "a link to a device": Case(
        instead(lambda place: (place.source / FILE).symlink_to("/dev/zero")), [FILE, "not a regular file"]
    ),
    "a link to a secret": Case(
        instead(lambda place: (place.source / FILE).symlink_to("../foreign/secret")), [FILE, "links out of its folder"]
    ),
    "code of its own": Case(own_code, ["auto_map is dropped"], code=0),
    "a quantization_config": Case(saying(quantization_config={"quant_method": "gptq"}), [FILE, "quantization_config"]),
    **{
        f"CS {field} of 2^40": Case(cs_saying(field, "1099511627776"), ["config.yaml"], CONVERT_CS)
        for field in ("vocab_size", "hidden_size", "num_hidden_layers", "num_heads", "filter_size")
    },
    "CS hidden_size of zero": Case(cs_saying("hidden_size", "0"), ["config.yaml", "hidden_size"], CONVERT_CS),
    "CS hidden_size that is a text": Case(cs_saying("hidden_size", "big"), ["config.yaml", "hidden_size"], CONVERT_CS),
}


def not_text(place: Place) -> None:
    (place.copy("llama") / FILE).write_bytes(json.dumps({"model_type": "llama"}).encode()[:-1] + b',"a":"\xff"}')


# The cases of every run of the tests; the others are for `make trust`.
USUAL = (
    "num_hidden_layers of 2^40",
    "hidden_size of 2^40",
    "vocab_size of zero",
    "a text where a size belongs",
    "a key twice",
    "a NaN",
    "a depth of 90,000",
    "60 MB of one text",
    "three megabytes of brackets",
    "a pipe",
    "a link to a secret",
    "code of its own",
    "CS num_hidden_layers of 2^40",
    "pictures of 65,536 by 65,536 patches",
)
