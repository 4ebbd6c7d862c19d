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

# Names that run what they are given, or import what it names.
RUNNING = {"eval", "exec", "compile", "__import__"}
RUNNING |= {f"{module}.{name}" for module in ("pickle", "dill", "marshal") for name in ("load", "loads", "Unpickler")}
RUNNING |= {"torch.load", "os.system", "os.popen", "runpy.run_path", "shelve.open", "numpy.load", "np.load"}
RUNNING |= {"yaml.unsafe_load", "yaml.full_load", "pytree.treespec_loads"}
# Modules that reach other machines.
REACHING = {"socket", "ssl", "http", "ftplib", "smtplib", "requests", "httpx", "aiohttp", "huggingface_hub"}
REACHING |= {"urllib.request", "xmlrpc", "webbrowser"}


def called(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def suspicious(code: str) -> list[str]:
    """What in a program runs what it is given, reaches other machines, or has others do it."""
    tree = ast.parse(code)
    found = [name for name, _ in called(tree) if name in RUNNING]
    for name, call in called(tree):
        given = {each.arg: each.value for each in call.keywords}
        for switch in ("shell", "trust_remote_code"):
            if switch in given and ast.unparse(given[switch]) != "False":
                found.append(f"{name}({switch}=...)")
        if name.endswith(".from_pretrained") and "local_files_only" not in given:
            found.append(f"{name} without local_files_only")
        if name == "yaml.load" and ast.unparse(given.get("Loader", ast.Constant(None))) != "_loader()":
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
        "torch.load(path)",
        "subprocess.run(command, shell=True)",
        "AutoModel.from_pretrained(folder, local_files_only=True, trust_remote_code=given)",
        "AutoModel.from_pretrained(folder)",
        "yaml.load(text, Loader=yaml.Loader)",
        "from urllib.request import urlopen",
        "from urllib import request",
        "import http.client",
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
        assert f"{release}.".startswith(f"{bounds[name]}."), name


def name_of(requirement: str) -> str:
    return re.split(r"[>\[]", requirement)[0]
