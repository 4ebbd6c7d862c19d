"""Checks for converters: a sound one passes all of them, and each kind of broken one is refused by name."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmconvert import api, registry, testing
from mmconvert.configs import ConfigTable, Space
from mmconvert.converter import Converter, Format
from mmconvert.releases import Release, span
from mmconvert.rows import RowRule, roll_cls
from mmconvert.rules import ANYTHING, ConfigRow, const, group, renamed
from mmconvert.schema import Schema
from mmconvert.spec import A, B, Config, Row, Sizes, key, only, table, twin
from mmconvert.spellings import Change

HF, CS = A, B
SIZE = {"type": "integer", "minimum": 1}
SCHEMA_HF = Schema(
    "hf-toy",
    {
        "type": "object",
        "properties": {
            "width": {**SIZE, "default": 4},
            "depth": {**SIZE, "default": 2},
            "act": {"type": "string", "default": "gelu"},
            "norm": {"enum": ["layer", "rms", "group"], "default": "layer"},
            "model_type": {"type": "string"},
        },
    },
)
SCHEMA_CS = Schema(
    "cs-toy",
    {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "name": {"enum": ["toy", "llama"]},
            "hidden_size": {**SIZE, "default": 8},
            "layers": {**SIZE, "default": 1},
            "deep": {"type": "boolean", "default": False},
            "nonlinearity": {"enum": ["gelu", "silu", "relu"], "default": "relu"},
            "norm_type": {"enum": ["layernorm", "rmsnorm"], "default": "layernorm"},
            "seed": {"type": "integer", "deprecated": True},
        },
    },
)
CONFIG: dict[str, Any] = {"model_type": "toy", "width": 6, "depth": 3}


def sizes(config: Config) -> Sizes:
    return {"H": config["hidden_size"], "i": config["layers"]}


def _older(config: Config) -> Config:
    return {name: value for name, value in config.items() if name != "name"}


ROWS: tuple[Row, ...] = (
    key("embed.weight", "embedding.weight", "H H", roll_cls),
    key("layers.{i}.up.{p}", "blocks.{i}.up.{p}", "H H", bias=True),
    twin(CS, "embedding_copy.weight", of="embedding.weight", why="stored twice"),
    only(HF, "layers.{i}.cache", why="a buffer"),
)
FIELDS: dict[str, ConfigRow] = {
    "width": renamed("width", "hidden_size"),
    "depth": renamed("depth", "layers"),
    "act": renamed("act", "nonlinearity", {"gelu": "gelu", "silu": "silu"}),
    "norm": renamed("norm", "norm_type", {"layer": "layernorm", "rms": "rmsnorm"}),
    "model_type": const(HF, "model_type", "toy"),
    "name": const(CS, "name", "toy"),
}
NAMED = Change(Release(2, 4), "it has a name", lambda config: {"name": "toy", **config}, _older)
SOUND = Converter(
    model="toy",
    a=Format("hf", {"": lambda config: config.get("model_type") == "toy"}),
    b=Format("cs", {"": lambda config: "layers" in config}, changes=(NAMED,)),
    tables=(table(*ROWS, sizes=sizes),),
    configs=ConfigTable(tuple(FIELDS.values()), Space(lambda _: {"": SCHEMA_HF}), Space(lambda _: {"": SCHEMA_CS})),
    b_releases=span("2.3", "2.5"),
)


def with_rows(*rows: Row) -> Converter:
    """The sound converter with further rows."""
    return replace(SOUND, tables=(table(*ROWS, *rows, sizes=sizes),))


def with_fields(**fields: ConfigRow) -> Converter:
    """The sound converter with other rules, by the names of those that they replace."""
    return replace(SOUND, configs=replace(SOUND.configs, rows=tuple({**FIELDS, **fields}.values())))


def spelled_otherwise(config: Config, names: frozenset[str]) -> Config:
    return {"hidden_size" if name == "size" else name: value for name, value in config.items()}


# What a rule may get wrong: its two directions, by what is wrong with them.
LOST = group(["depth"], ["layers"], lambda a: {"layers": a["depth"]}, lambda b: {})
MISSPELT = group(["width"], ["hidden_size"], lambda a: {"hiden_size": a["width"]}, lambda b: {"width": 6})
SPELLED_BACK_ONLY = replace(
    with_fields(
        width=group(["width"], ["hidden_size"], lambda a: {"size": a["width"]}, lambda b: {"width": b["hidden_size"]})
    ),
)
UNREAD_FIELD = group(
    ["depth"],
    ["layers"],
    lambda a: {"layers": a["depth"], **({"deep": True} if a["depth"] > 3 else {})},
    lambda b: {"depth": b["layers"]},
)
DEPRECATED = group(["depth"], ["layers"], lambda a: {"layers": a["depth"], "seed": 1}, lambda b: {"depth": b["layers"]})

BROKEN = {
    "a capture on one side only": (
        testing.captures_agree,
        with_rows(key("layers.{i}.down", "down", "H")),
        r"the row of layers\.\{i\}\.down and down captures i on the one side and nothing on the other",
    ),
    "no tensors": (
        testing.captures_agree,
        replace(SOUND, tables=(table(only(HF, "x", why="y")),)),
        "no tensor on both sides",
    ),
    "two rows for one name of side a": (
        testing.no_name_stands_for_two_tensors,
        with_rows(key("embed.weight", "other.weight", "H")),
        r"hf: 2 rows give embed\.weight",
    ),
    "two rows for one name of side b": (
        testing.no_name_stands_for_two_tensors,
        with_rows(key("other.weight", "embedding_copy.weight", "H")),
        r"cs: 2 rows give embedding_copy\.weight",
    ),
    "a name both expected and left behind": (
        testing.no_name_stands_for_two_tensors,
        with_rows(only(CS, "embedding.*", why="a mistake")),
        r"cs: embedding\.weight is expected, and left behind \(a mistake\)",
    ),
    "a name in no part": (
        testing.no_name_stands_for_two_tensors,
        replace(SOUND, a=replace(SOUND.a, parts={"text": lambda config: True, "image": lambda config: True})),
        r"hf: embed\.weight is in none of the parts image, text",
    ),
    "a twin of nothing": (
        testing.twins_repeat_what_is_there,
        with_rows(twin(CS, "copy.weight", of="norm.weight", why="stored twice")),
        r"cs: copy\.weight repeats norm\.weight, which is not there",
    ),
    "a size that nobody gives": (
        testing.twins_repeat_what_is_there,
        with_rows(key("head.weight", "head.weight", "V H")),
        "a size that cannot be had: KeyError: 'V'",
    ),
    "a row taken twice": (
        testing.rows_are_permuted,
        with_rows(key("x", "y", "H", RowRule("first row everywhere", (), lambda rows: [0] * rows))),
        r"y: first row everywhere: not each of its 6 rows is taken once",
    ),
    "a row left out": (
        testing.rows_are_permuted,
        with_rows(key("x", "y", "H", RowRule("all but one", (), lambda rows: range(rows - 1)))),
        r"y: all but one: not each",
    ),
    "two choices that become one": (
        testing.no_two_values_become_one,
        with_fields(
            norm=group(
                ["norm"],
                ["norm_type"],
                lambda a: {"norm_type": "layernorm" if a["norm"] == "layer" else "rmsnorm"},
                lambda b: {"norm": "layer" if b["norm_type"] == "layernorm" else "rms"},
            )
        ),
        r"norm 'rms' and 'group' both become",
    ),
    "two numbers that become one": (
        testing.no_two_values_become_one,
        with_fields(
            depth=group(
                ["depth"],
                ["layers"],
                lambda a: {"layers": min(a["depth"], 3)},
                lambda b: {"depth": b["layers"]},
            )
        ),
        r"depth 3 and 4 both become",
    ),
    "a field lost on the way": (testing.configs_come_back, with_fields(depth=LOST), r"depth is 3.*become 2"),
    "a field that may be anything, and changes what is written": (
        testing.configs_come_back,
        with_fields(
            depth=replace(
                group(["depth"], ["layers"], lambda a: {"layers": a["depth"]}, lambda b: {"depth": 1}), also=(ANYTHING,)
            )
        ),
        r"cs, there and back: layers is 1, expected 3",
    ),
    "a field that side b cannot read back, written for deep models only": (
        testing.configs_come_back,
        with_fields(depth=UNREAD_FIELD),
        r"deep is True, which has no counterpart",
    ),
    "an unknown field": (testing.sections_are_valid, with_fields(width=MISSPELT), r"hiden_size: no such field"),
    "a field that only our own reader takes": (
        testing.sections_are_valid,
        replace(
            SPELLED_BACK_ONLY,
            configs=replace(SPELLED_BACK_ONLY.configs, b=Space(lambda _: {"": SCHEMA_CS}, spelled_otherwise)),
        ),
        r"size: no such field",
    ),
    "a deprecated field": (
        testing.sections_are_valid,
        with_fields(depth=DEPRECATED),
        r"cs: seed is written, though no class reads it",
    ),
    "a release that cannot be read back": (
        testing.every_release_says_the_same,
        replace(SOUND, b=replace(SOUND.b, changes=(replace(NAMED, newer=lambda config: {**config, "name": "llama"}),))),
        r"release 2\.3: name is 'llama', expected 'toy'",
    ),
    "a config of side a that its own format does not know": (
        testing.configs_are_recognised,
        replace(SOUND, a=replace(SOUND.a, parts={"": lambda config: "n_layer" in config})),
        r"hf: a config is not recognised as its own",
    ),
    "a section that is known by a name which older releases lack": (
        testing.configs_are_recognised,
        replace(SOUND, b=replace(SOUND.b, parts={"": lambda config: config.get("name") == "toy"})),
        r"cs: a config of release 2\.3 is not recognised as its own",
    ),
    "a section that another model takes for its own": (
        testing.configs_are_recognised,
        with_fields(name=const(CS, "name", "llama")),
        r"cs: a config of release 2\.4 is also recognised as that of llama",
    ),
}


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Converter:
    """The sound converter, as if it were installed."""
    register(SOUND, monkeypatch)
    return SOUND


def register(converter: Converter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "converters", lambda: (converter,))
    monkeypatch.setattr(registry, "edges", lambda: (converter, converter.between_releases()))


def test_a_sound_converter_passes_every_check() -> None:
    testing.check(SOUND, [CONFIG, {**CONFIG, "act": "silu"}])


def test_what_leads_from_release_to_release_passes_every_check() -> None:
    section = SOUND.configs.translate(A, CONFIG).target
    testing.check(SOUND.between_releases(), [section])


@pytest.mark.parametrize(("check", "converter", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_converter_is_refused_with_what_is_at_fault(
    check: testing.Check, converter: Converter, message: str
) -> None:
    with pytest.raises(AssertionError, match=f"^toy: .*{message}"):
        check(converter, [CONFIG])
    with pytest.raises(AssertionError):
        testing.check(converter, [CONFIG])


def test_every_check_is_seen_to_fail() -> None:
    assert {check for check, _, _ in BROKEN.values()} == set(testing.CHECKS)


def test_a_format_that_is_recognised_by_name_may_look_like_another_model_s() -> None:
    converter = with_fields(name=const(CS, "name", "llama"))
    testing.configs_are_recognised(replace(converter, b=replace(converter.b, by_name=True)), [CONFIG])


def test_to_check_nothing_is_refused() -> None:
    with pytest.raises(AssertionError, match="no config is given"):
        testing.check(SOUND, [])


def test_a_random_checkpoint_goes_there_and_back(registered: Converter, tmp_path: Path) -> None:
    testing.round_trip(registered, CONFIG, tmp_path)
    assert sorted(each.name for each in (tmp_path / "hf").iterdir()) == ["back", "cs", "source"]
    assert sorted(each.name for each in (tmp_path / "cs").iterdir()) == ["back", "hf", "source"]
    assert set(api.open(tmp_path / "cs/source")) >= {"embedding_copy.weight", "blocks.2.up.bias"}


def test_random_checkpoints_are_the_same_for_the_same_seed(registered: Converter, tmp_path: Path) -> None:
    first, same, other = (
        testing.write_checkpoint(registered, A, CONFIG, tmp_path / name, seed=seed)
        for name, seed in (("first", 1), ("same", 1), ("other", 2))
    )
    weights = [(each / "model.safetensors").read_bytes() for each in (first, same, other)]
    assert weights[0] == weights[1] != weights[2]


def test_a_tensor_that_does_not_come_back_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = with_rows(key("x", "y", "H", RowRule("first row everywhere", (), lambda rows: [0] * rows)))
    register(broken, monkeypatch)
    with pytest.raises(AssertionError, match="toy: hf to cs and back: x does not come back"):
        testing.round_trip(broken, CONFIG, tmp_path)


def test_a_conversion_that_is_refused_fails_the_round_trip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = replace(SOUND, b=replace(SOUND.b, parts={"": lambda config: False}))
    register(broken, monkeypatch)
    with pytest.raises(AssertionError, match=r"toy: hf to cs and back: .*none that is known here"):
        testing.round_trip(broken, CONFIG, tmp_path)


def test_a_round_trip_needs_a_registered_converter(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"toy is not registered: .* mmconvert\.converters"):
        testing.round_trip(SOUND, CONFIG, tmp_path)


def test_no_large_checkpoint_is_written(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="not of a small model"):
        testing.write_checkpoint(SOUND, A, {**CONFIG, "width": 2**14}, tmp_path / "large")
    assert not (tmp_path / "large").exists()


def test_a_checkpoint_is_compared_with_what_was_recorded(registered: Converter, tmp_path: Path) -> None:
    folder = testing.write_checkpoint(registered, A, {**CONFIG, "depth": 1}, tmp_path / "toy")
    recorded: dict[str, testing.Recorded] = {
        name: (list(ref.shape), "float32", hashlib.sha256(ref.read()).hexdigest())
        for name, ref in api.open(folder).items()
    }
    testing.matches_golden(folder, recorded)
    shape, dtype, digest = recorded["embed.weight"]
    for wrong, message in {
        ((6, 1), dtype, digest): r"embed\.weight is float32 \[6, 6\] .*, expected float32 \[6, 1\]",
        (tuple(shape), "bfloat16", digest): r"embed\.weight is float32 .*, expected bfloat16",
        (tuple(shape), dtype, "0" * 64): r"embed\.weight is .*, expected .* digest 000000000000",
    }.items():
        with pytest.raises(AssertionError, match=message):
            testing.matches_golden(folder, {**recorded, "embed.weight": wrong})
    with pytest.raises(AssertionError, match=r"more\.weight is absent, expected"):
        testing.matches_golden(folder, {**recorded, "more.weight": recorded["embed.weight"]})
    with pytest.raises(AssertionError, match=r"embed\.weight is float32 .*, expected absent"):
        testing.matches_golden(folder, {name: each for name, each in recorded.items() if name != "embed.weight"})


def test_it_needs_no_test_framework_and_no_torch() -> None:
    program = (
        "import sys; banned = ('pytest', 'torch', 'hypothesis', 'numpy'); sys.modules.update(dict.fromkeys(banned)); "
        "import mmconvert.testing; assert mmconvert.testing.CHECKS"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
