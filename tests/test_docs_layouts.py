"""The tables of names in docs/layouts/ are those by which checkpoints are converted: each row, and all of them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest

from mmconvert import registry
from mmconvert.cli import cli
from mmconvert.converter import Converter
from mmconvert.paths import get, put
from mmconvert.spec import A, B, Expansion, Pair, Side, expand
from tests.converters.test_conformance import DECODERS, JOINED, TOWER

FOLDER = Path(__file__).parent.parent / "docs/layouts"
# Whose tables a page shows, as (model, format of side a); the page on CS is about side b, of all models.
PAGES = {
    "clip": [("clip-vit", "hf"), ("clip-encoder", "hf")],
    "llama": [("llama", "hf"), ("mistral", "hf"), ("llama-headless", "hf")],
    "components": [("mmsimple-llava", "hf"), ("llava", "hf")],
    "llava": [("mmsimple-llava", "llava"), ("llava", "llava")],
    "llava-hf": [("mmsimple-llava", "llava-hf"), ("llava", "llava-hf")],
}
SECTIONS = {"Files", "Keys", "Config", "What is lost, and why", "Commands"}
CAPTURE = re.compile(r"\{(\d*)([a-z])\}")
# What the third column says of rows that move, and what the table's rule says.
MOVED = {"rotary interleave": "rotary rows interleaved", "class-token roll": "class-token row"}

every_layout = pytest.mark.parametrize(
    ("page", "model", "form"), [(page, *each) for page, found in PAGES.items() for each in found]
)
every_page = pytest.mark.parametrize("page", [*PAGES, "cs"])


# --- pages ------------------------------------------------------------------------------------------------------------


def lines(page: str) -> list[str]:
    return (FOLDER / f"{page}.md").read_text("utf-8").splitlines()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def tables(page: str) -> Iterator[list[list[str]]]:
    """Every table of a page: its head, and its rows."""
    found: list[list[str]] = []
    for line in [*lines(page), ""]:
        if line.startswith("|"):
            found.append(cells(line))
        elif found:
            yield [found[0], *found[2:]]
            found = []


@dataclass(frozen=True)
class Row:
    """A row as one model has it: the names of a tensor on each side, none where that side has no room for it."""

    a: tuple[str, ...]
    b: tuple[str, ...]
    moved: str

    def names(self, side: Side) -> tuple[str, ...]:
        return self.a if side == A else self.b


@cache
def rows(page: str, model: str) -> list[Row]:
    found = []
    for head, *body in tables(page):
        if head[2:] != ["moved"]:
            continue
        before = [prefix(cell, model) for cell in head[:2]]
        for a, b, moved in body:
            left, right = names(a, model), names(b, model)
            if (left, right) == (("*",), ("*",)):
                for each in listed(re.findall(r"\]\((\w+)\.md\)", moved)[0]):
                    found.append(after(each, *before))
            else:
                found.append(after(Row(left, right, moved), *before))
    return found


def listed(page: str) -> list[Row]:
    """The rows of a page's first table, for another page that sets them under prefixes of its own."""
    _, *body = next(table for table in tables(page) if table[0][2:] == ["moved"])
    found = [Row(names(a, ""), names(b, ""), moved) for a, b, moved in body]
    return [row for row in found if row.a and row.b]


def after(row: Row, a: str, b: str) -> Row:
    return replace(row, a=tuple(a + name for name in row.a), b=tuple(b + name for name in row.b))


def prefix(cell: str, model: str) -> str:
    """What a table's head sets before the names of a column: a part's folder, and a prefix, by model or for all."""
    folder = re.search(r"`(image_model|text_model)\w*/`", cell)
    under = re.findall(r"under (?:`([^`]+)`|none)((?: \([^)]*\))?)", cell)
    found = [name for name, models in under if not models or f"`{model}`" in models]
    return (f"{folder[1]}/" if folder else "") + (found[0] if found else "")


def names(cell: str, model: str) -> tuple[str, ...]:
    if cell.startswith("nothing") or f"(`{model}`: nothing)" in cell:
        return ()
    return tuple(re.findall(r"`([^`]+)`", cell.partition(" (")[0]))


# --- tables -----------------------------------------------------------------------------------------------------------


def converter(model: str, form: str) -> Converter:
    (found,) = (each for each in registry.converters() if (each.model, each.a.name) == (model, form))
    return found


def configs(model: str, form: str) -> list[dict[str, Any]]:
    """Small configs, with biases and without, tied and not, and with projectors of every depth."""
    if form == "llava-hf":
        return JOINED
    if model.startswith("clip"):
        return [TOWER]
    if model in ("llama", "mistral"):
        return [{"model_type": model, **each} for each in DECODERS]
    if model == "llama-headless":
        return [{"model_type": "llama", "architectures": ["LlamaModel"], **each} for each in DECODERS]
    kind = "llama" if form == "hf" else "llava_llama"
    joined = {"model_type": kind, "mm_vision_select_layer": -2, "mm_hidden_size": TOWER["hidden_size"]}
    return [
        {"image_model": TOWER, "text_model": {**joined, **each, "mm_projector_type": depth}}
        for each, depth in zip(DECODERS, ("linear", "mlp2x_gelu", "mlp3x_gelu"), strict=True)
    ]


def sections(model: str, form: str) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The configs of both sides."""
    space = converter(model, form).configs
    for config in configs(model, form):
        translated = space.translate(A, config)
        yield translated.source, space.b.read(translated.target)


@cache
def expansions(model: str, form: str) -> list[Expansion]:
    return [expand(converter(model, form).tables, b, a) for a, b in sections(model, form)]


def pattern(name: str) -> str:
    """A name with captures, as a regular expression; `{2j}` is caught as it stands."""
    parts = CAPTURE.split(name)
    found = re.escape(parts[0])
    for factor, letter, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        found += (f"(?P<{letter}>weight|bias)" if letter == "p" else rf"(?P<{letter}{factor}>\d+)") + re.escape(text)
    return found.replace(r"\*", ".*")


def pairs_up(row: Row, pair: Pair) -> bool:
    """Whether a row is of this tensor, by both of its names."""
    if not row.a or not row.b:
        return False
    left, right = (re.fullmatch(pattern(each[0]), name) for each, name in ((row.a, pair.a), (row.b, pair.b)))
    return left is not None and right is not None and values(left) == values(right)


def values(match: re.Match[str]) -> dict[str, int | str]:
    """The captures by their letters: of `{2j}`, half of what was found."""
    found: dict[str, int | str] = {}
    for name, value in match.groupdict().items():
        letter, factor = name[0], name[1:]
        found[letter] = value if letter == "p" else int(value) // int(factor or 1)
    return found


def says(row: Row, side: Side, name: str) -> bool:
    return any(re.fullmatch(pattern(each), name) for each in row.names(side))


def leaves(row: Row, side: Side, left: str) -> bool:
    """Whether a row says of a name, with `*` for captures, that the other side has no room for it."""
    other = B if side == A else A
    return not row.names(other) and any(CAPTURE.sub("*", name) == left for name in row.names(side))


def covers(row: Row, expansion: Expansion) -> bool:
    """Whether there is anything that a row is of."""
    return (
        any(pairs_up(row, pair) for pair in expansion.pairs if not pair.b_only)
        or any(says(row, twin.side, twin.key) for twin in expansion.twins)
        or any(leaves(row, each.side, each.pattern) for each in expansion.left_behind)
    )


# --- tests ------------------------------------------------------------------------------------------------------------


@every_layout
def test_every_row_is_of_a_tensor_by_both_names(page: str, model: str, form: str) -> None:
    found = expansions(model, form)
    assert [row for row in rows(page, model) if not any(covers(row, each) for each in found)] == []


@every_layout
def test_every_tensor_has_one_row(page: str, model: str, form: str) -> None:
    for expansion in expansions(model, form):
        for pair in expansion.pairs:
            if not pair.b_only:
                assert len([row for row in rows(page, model) if pairs_up(row, pair)]) == 1, pair


@every_layout
def test_second_copies_and_what_is_left_behind_have_a_row(page: str, model: str, form: str) -> None:
    for expansion in expansions(model, form):
        for twin in expansion.twins:
            assert any(says(row, twin.side, twin.key) for row in rows(page, model)), twin
        for each in expansion.left_behind:
            assert any(leaves(row, each.side, each.pattern) for row in rows(page, model)), each


@every_layout
def test_a_row_says_what_is_moved(page: str, model: str, form: str) -> None:
    for expansion in expansions(model, form):
        for row in rows(page, model):
            for pair in (each for each in expansion.pairs if pairs_up(row, each)):
                said = [rule for words, rule in MOVED.items() if words in row.moved]
                assert [rule for rule in MOVED.values() if rule in pair.rule] == said, row
                assert ("rows: more" in row.moved) == (pair.a_rows is not None), row


def test_every_spelling_of_llava_hf_is_shown() -> None:
    _, *body = next(tables("llava-hf"))
    shown = {(other, written) for first, *rest in body for written in names(first, "") for other in names_in(rest)}
    assert shown == set(converter("mmsimple-llava", "llava-hf").a.aliases)


def names_in(found: list[str]) -> list[str]:
    return [name for cell in found for name in names(cell, "")]


def test_the_page_on_cs_has_every_name() -> None:
    head, *body = next(tables("cs"))
    assert head[0] == "part"
    for models, *column in zip(*[head, *body], strict=True):
        said = {name for cell in column for name in re.findall(r"`([^`]+)`", cell)}
        for model in re.findall(r"`([^`]+)`", models):
            found = cs_names(model)
            used = {name for name in said if any(re.fullmatch(pattern(name), key) for key in found)}
            assert said - used == set()
            assert {key for key in found if not any(re.fullmatch(pattern(name), key) for name in said)} == set()


def cs_names(model: str) -> set[str]:
    """The names of a model's tensors in CS; of several encoders too, one with a projection of its own."""
    own = "image_model_list.image_models"
    found = set()
    for each in registry.converters():
        if each.model != model or each.a.name == "llava-hf":
            continue
        for a, b in sections(model, each.a.name):
            whole = b
            if model == "mmsimple-llava":
                (encoder,) = get(b, own)
                projection = get(b, "image_model_list.global_image_projection")
                whole = put(dict(b), own, [encoder, {**encoder, "projection_layer": projection}])
            expansion = expand(each.tables, whole, a)
            found |= {pair.b for pair in expansion.pairs} | {twin.key for twin in expansion.twins if twin.side == B}
    return found


@every_page
def test_pages_have_one_structure_and_are_short(page: str) -> None:
    found = [line.removeprefix("## ") for line in lines(page) if line.startswith("## ")]
    assert {*found} - {"Releases"} == SECTIONS
    assert [each for each in found if each in ("Files", "Keys", "Config")] == ["Files", "Keys", "Config"]
    assert 60 <= len(lines(page)) <= 120


@every_page
def test_commands_have_the_options_that_are_shown(page: str) -> None:
    """They are parsed, and nothing is run."""
    text = "\n".join(lines(page)).rpartition("## Commands")[2]
    shown = [shlex.split(line, comments=True) for line in text.splitlines() if line.startswith("mmconvert ")]
    assert shown
    for _, name, *arguments in shown:
        command = cli.commands[name]
        context = click.Context(command, info_name=name)
        given, _, _ = command.make_parser(context).parse_args(arguments)
        for option in command.params:
            if isinstance(option.type, click.Choice) and option.name in given:
                option.type.convert(given[option.name], option, context)


@pytest.mark.parametrize("folder", ["layouts", "journeys"])
def test_links_lead_somewhere(folder: str) -> None:
    for page in sorted((FOLDER.parent / folder).glob("*.md")):
        text = page.read_text("utf-8")
        for link, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", text):
            target = (page.parent / link).resolve() if link else page
            assert target.exists(), f"{page.name}: {link}"
            heads = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.M) if anchor else []
            anchors = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
            assert not anchor or anchor in anchors, f"{page.name}: {anchor}"


def test_the_index_leads_to_every_page() -> None:
    index = (FOLDER / "README.md").read_text("utf-8")
    assert {page.name for page in FOLDER.glob("*.md")} == {f"{page}.md" for page in (*PAGES, "cs", "README")}
    assert [page for page in (*PAGES, "cs") if f"]({page}.md)" not in index] == []


@every_layout
def test_a_name_that_is_wrong_would_be_noticed(page: str, model: str, form: str) -> None:
    found, both = expansions(model, form), [row for row in rows(page, model) if row.a and row.b]
    assert len(both) >= 11
    for row in both:
        for wrong in (replace(row, a=(f"{row.a[0]}s",)), replace(row, b=(f"other.{row.b[0]}",))):
            assert not any(pairs_up(wrong, pair) for each in found for pair in each.pairs)
