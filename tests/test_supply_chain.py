"""What is depended on, within which bounds and why; and what nothing here ever calls."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("mmconvert", "mmsimple", "converters", "schemas")
SOURCES = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]
TEXT = (ROOT / "pyproject.toml").read_text("utf-8")
PROJECT = tomllib.loads(TEXT)["project"]

# Functions that run what they are given, or import what it names, by the names of their modules.
RUNNING = {"eval", "exec", "compile", "__import__", "importlib.import_module", "runpy.run_path", "runpy.run_module"}
RUNNING |= {f"{module}.{name}" for module in ("pickle", "dill", "marshal") for name in ("load", "loads", "Unpickler")}
RUNNING |= {"torch.load", "torch.hub.load", "torch.jit.load", "numpy.load", "shelve.open", "yaml.unsafe_load"}
RUNNING |= {"yaml.full_load", "torch.utils._pytree.treespec_loads", "os.system", "os.popen", "os.startfile"}
RUNNING |= {f"os.{kind}{ending}" for kind in ("exec", "spawn") for ending in ("l", "le", "lp", "lpe", "v", "ve", "vp")}
# Modules that reach other machines.
REACHING = {"socket", "ssl", "http", "ftplib", "smtplib", "requests", "httpx", "aiohttp", "huggingface_hub", "xmlrpc"}
REACHING |= {"urllib.request", "webbrowser"}
# The one name that is imported by a name which is put together: our own modules, one after the other.
OUR_OWN = "importlib.import_module(f'{__name__}.{module}')"


def modules(tree: ast.AST) -> dict[str, str]:
    """What names stand for that are imported, whatever they are called here: `t` for `torch` in `import torch as t`."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                first = each.name.partition(".")[0]
                found[each.asname or first] = each.name if each.asname else first
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            found |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    return found


def called(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call, after the whole name of what is called."""
    names = modules(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, dot, rest = ast.unparse(node.func).partition(".")
            yield f"{names.get(first, first)}{dot}{rest}".removeprefix("builtins."), node


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def suspicious(code: str) -> list[str]:
    """What in a program runs what it is given, reaches other machines, or has others do it."""
    tree = ast.parse(code)
    found = [name for name, call in called(tree) if name in RUNNING and ast.unparse(call) != OUR_OWN]
    for name, call in called(tree):
        given = {each.arg: ast.unparse(each.value) for each in call.keywords}
        for switch in ("shell", "trust_remote_code"):
            if given.get(switch, "False") != "False":
                found.append(f"{name}({switch}=...)")
        if name.endswith(".from_pretrained") and given.get("local_files_only") != "True":
            found.append(f"{name} without local_files_only")
        if name == "yaml.load" and given.get("Loader") != "_loader()":
            found.append("yaml.load with another loader")
    found += [name for name in imported(tree) if REACHING & {name, name.partition(".")[0]}]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_what_a_file_says_or_reaches_another_machine(path: Path) -> None:
    assert suspicious(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "code",
    [
        "eval(text)",
        "import pickle\npickle.loads(data)",
        "import torch\ntorch.load(path)",
        "subprocess.run(command, shell=True)",
        "AutoModel.from_pretrained(folder, local_files_only=True, trust_remote_code=given)",
        "AutoModel.from_pretrained(folder)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "from urllib.request import urlopen",
        "from urllib import request",
        "import http.client",
        "from pickle import loads\nloads(data)",
        "import pickle as tool\ntool.loads(data)",
        "from torch import load as take\ntake(path)",
        "import torch\ntorch.hub.load(name)",
        "import importlib\nimportlib.import_module(name)",
        "from importlib import import_module\nimport_module(name)",
        "import os\nos.execv(a, b)",
        "import builtins\nbuiltins.eval(text)",
        "Model.from_pretrained(folder, local_files_only=False)",
    ],
)
def test_what_would_is_found(code: str) -> None:
    assert len(suspicious(code)) == 1


def requirements() -> list[str]:
    """All that the project depends on, its own extras left out."""
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return [each for some in lists for each in some if not each.startswith("mmconvert[")]


@pytest.mark.parametrize("requirement", requirements())
def test_every_dependency_has_bounds_and_a_reason(requirement: str) -> None:
    assert re.fullmatch(r"[\w-]+>=\d[\d.]*(,<\d+)?", requirement)
    assert re.search(rf'^    "{re.escape(requirement)}",  # \S.{{4,}}$', TEXT, re.MULTILINE)


def test_the_lower_bounds_are_what_the_tests_were_run_with() -> None:
    lowest = dict(line.split("==") for line in (ROOT / "constraints/lowest.txt").read_text("utf-8").split())
    bounds = {name_of(each): each.partition(">=")[2].partition(",")[0] for each in requirements()}
    tried = {
        name for some in ("train", "plot", "test") for name in map(name_of, PROJECT["optional-dependencies"][some])
    }
    tried |= set(map(name_of, PROJECT["dependencies"]))
    assert lowest.keys() == tried - {"mmconvert"}
    for name, release in lowest.items():
        assert re.fullmatch(rf"{re.escape(bounds[name])}(\.0)*", release), name


def name_of(requirement: str) -> str:
    return re.split(r"[>\[]", requirement)[0]
