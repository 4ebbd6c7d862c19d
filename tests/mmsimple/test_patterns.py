"""Patterns of names: which are searched for, and which are refused because the search may not end."""

from __future__ import annotations

from pathlib import Path
from time import process_time

import pytest
import torch

import mmsimple
from mmconvert.errors import InputRefused
from mmsimple import sections
from mmsimple.load import build
from mmsimple.patterns import compiled

PHASE_2 = Path(mmsimple.__file__).parent / "configs" / "params_mm_llava_llama2_7b_phase2.yaml"
# Each as slow as patterns may be, in a way of its own; none finds anything.
SLOWEST = [".*.*.?X", ".*?.*?.??X", ".*.*(?:.|.)X", ".??" * 9 + "X", "()?" * 9 + "X", "(?:.|.)" * 9 + "X"]


@pytest.fixture(scope="module")
def names() -> list[str]:
    """Of all parameters of LLaVA 7B."""
    with torch.device("meta"):
        return [name for name, _ in build(sections.read_file(PHASE_2)).named_parameters(remove_duplicate=False)]


@pytest.mark.parametrize(
    "pattern",
    [
        *("^text_model", r"layers\.\d+\.", ".*norm.*", "a+b{2,}", "x{3}y{3}z{3}", "[0-9]{1,2}[.][0-9]{1,2}", "a{,3}"),
        *("(?:image|text)?_model", "(norm1|norm3)", "(a)??b", f"layers.({'|'.join(map(str, range(32)))})[.]"),
        *(".*(?:weight|bias)$", "text_model.*norm.*(?:weight|bias)"),
        # What looks like repeats and groups.
        *(r"\+\+\+\+\+", r"\(\?x\)", "[*+?(]", "[]*+*+]", r"[^\]*+*+*+]", "a{}b{x}c{", r"\(?a"),
        *SLOWEST,
    ],
)
def test_what_ends_soon_is_fine(pattern: str) -> None:
    assert compiled(pattern, "freeze").pattern == pattern


@pytest.mark.parametrize(
    "pattern",
    [
        *("(a*)*", "(a|b)+c", "(a+)+$", "(?:a{2}){2}", "(a{1,9}){1,9}", "(?:a?){30}", "(a){2,}"),
        *("(?x)([a-z._0-9]+) +X", "(?i)text", "(?=a)", "(?!a)", "(?<=a)b", "(?<!a)b", "(?P<name>a)", "(?>a)", "(?#a)"),
        *(".*.*.*X", ".*.*.*.*X", "a+b+c+", "a*b+c{1,}", "a{,}b{,}c{,}", ".*?.*?.*?", ".*+.*+.*+", "(?:.*)?(?:.*.*)?"),
        # Nothing is repeated without bounds, but there are thousands of ways.
        *(".?" * 30 + "X", "(?:.?)?" * 20, "(?:.|.)" * 30, "(?:a|(?:b|.))" * 30, ".{0,80}.{0,80}.{0,80}X", "()?" * 40),
    ],
)
def test_what_may_run_away_is_refused(pattern: str) -> None:
    with pytest.raises(InputRefused, match=r"^freeze: '.*' may search for ever; write no \(\? but \(\?:"):
        compiled(pattern, "freeze")


@pytest.mark.parametrize("pattern", SLOWEST)
def test_the_slowest_search_of_a_model_of_7b_takes_a_moment(pattern: str, names: list[str]) -> None:
    search = compiled(pattern, "freeze").search
    start = process_time()
    assert not any(map(search, names))
    assert process_time() - start < 3


@pytest.mark.parametrize(
    ("pattern", "shown"),
    [
        ("[text", "'[text'"),
        ("a**", "'a**'"),
        ("a{1,99999999999999}", "'a{1,99999999999999}'"),
        (f"a{{{'9' * 5000}}}", f"'a{{{'9' * 58}'"),
        ("(" * 5000, f"'{'(' * 60}'"),
        ("(?\n)", r"'(?\n)'"),
    ],
)
def test_what_is_no_regular_expression_is_refused_in_a_short_line(pattern: str, shown: str) -> None:
    with pytest.raises(InputRefused) as refused:
        compiled(pattern, "x.yaml: freeze")
    assert str(refused.value).startswith(f"x.yaml: freeze: {shown} is no regular expression: ")
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 180
