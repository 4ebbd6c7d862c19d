"""What `make clients` says of what it finds, and that it names every client; the clients themselves take their time."""

from __future__ import annotations

import re
from pathlib import Path
from subprocess import CalledProcessError
from typing import TYPE_CHECKING, Any

import pytest
import torch

import mmconvert
from mmconvert import Options, api
from tests.clients import __main__ as program
from tests.clients import environments, llava_hf, llava_hf_saved
from tests.clients.cerebras import differences
from tests.clients.commands import Checks
from tests.clients.environments import Environment
from tests.clients.hugging_face import Computed, Pair, compare
from tests.clients.inside import compute, states
from tests.clients.leaves import leaves

if TYPE_CHECKING:
    from tests.conftest import Make, Tensors

SAME = Pair("a model", Path("original"), Path("export"))
OTHER_RELEASE = Pair("a model", Path("original"), Path("export"), foreign=True)


def computed(value: float, **keys: list[str]) -> Computed:
    return Computed({"missing_keys": [], **keys}, {"logits": torch.tensor([2.0, value])})


def test_every_client_has_a_file_of_pinned_requirements() -> None:
    files = {file.stem: file.read_text("utf-8") for file in environments.HERE.glob("*.txt")}
    assert files.keys() == program.CLIENTS.keys()
    for name, text in files.items():
        program_name, release = name.split("-")
        assert re.search(rf"^{program_name}\w*=={re.escape(release)}\.\d+$", text, re.MULTILINE), name
        assert "://" not in text


def test_an_export_that_computes_the_same_passes() -> None:
    assert compare(SAME, computed(1.0), computed(1.0)) == ("a model", "")
    assert compare(OTHER_RELEASE, computed(1.0), computed(1.00001)) == ("a model", "")


@pytest.mark.parametrize("value", [1.00001, float("nan")])
def test_in_the_same_client_nothing_may_differ(value: float) -> None:
    assert "logits is off" in compare(SAME, computed(1.0), computed(value))[1]


@pytest.mark.parametrize("value", [1.001, float("nan")])
def test_of_another_release_little_may_differ(value: float) -> None:
    assert "logits is off" in compare(OTHER_RELEASE, computed(1.0), computed(value))[1]


@pytest.mark.parametrize("kind", ["missing_keys", "unexpected_keys", "mismatched_keys"])
def test_whatever_a_client_says_of_keys_is_a_fault(kind: str) -> None:
    found = Computed({kind: ["lm_head.weight"]}, computed(1.0).outputs)
    assert compare(SAME, computed(1.0), found) == ("a model", f"{kind}: lm_head.weight")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("logits", torch.zeros(1, 2, 4), "computes LLaVA's logits"),
        ("logits", torch.ones(1, 3, 4), "computes LLaVA's logits"),
        ("generated", torch.tensor([[5, 7]]), "generates what LLaVA does"),
        ("reply", torch.zeros(1, 0), "answers a picture from its processor"),
        ("pixels", torch.ones(1), "makes the same pixels as LLaVA"),
        ("ids", torch.ones(1), "makes the same ids as LLaVA"),
    ],
)
def test_each_thing_that_a_llava_computes_is_looked_at(name: str, value: torch.Tensor, said: str) -> None:
    expected = {"logits": torch.ones(1, 2, 3), "generated": torch.tensor([[1, 5, 6]])}
    zero = torch.zeros(1)
    found = {"logits": torch.ones(1, 2, 4), "generated": torch.tensor([[5, 6]]), "reply": zero}
    found |= {"pixels": zero, "pixels of the source": zero, "ids": zero, "ids of the source": zero}
    assert not any(problem for _, problem in llava_hf.compare(expected, Computed({}, found)))
    checks = dict(llava_hf.compare(expected, Computed({}, {**found, name: value})))
    assert [check for check, problem in checks.items() if problem] == [said]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("logits", torch.zeros(1, 2, 4), "logits are off by 1.0e+00"),
        ("logits", torch.full((1, 2, 4), torch.nan), "logits are off by nan"),
        ("pixels", torch.ones(2), "pixels are off by inf"),
        *((name, torch.tensor([5, 7]), f"{name}: [5, 7], not [5, 6]") for name in llava_hf_saved.SAME),
    ],
)
def test_each_thing_that_was_computed_before_saving_is_looked_at(name: str, value: torch.Tensor, said: str) -> None:
    same = {"logits": torch.ones(1, 2, 4), "pixels": torch.ones(1)}
    same |= dict.fromkeys(llava_hf_saved.SAME, torch.tensor([5, 6]))
    # What is not the language model's own may be anything.
    beside = {**same, "logits": torch.cat([same["logits"][..., :3], torch.zeros(1, 2, 1)], -1)}
    assert llava_hf_saved.compare(Computed({}, same), Computed({}, beside), 3) == ""
    assert llava_hf_saved.compare(Computed({}, same), Computed({}, {**same, name: value}), 3) == said
    found = Computed({"missing_keys": ["lm_head.weight"]}, same)
    assert llava_hf_saved.compare(Computed({}, same), found, 3) == "missing_keys: lm_head.weight"


def test_weights_that_come_back_are_the_towers_that_count(tmp_path: Path) -> None:
    folders = environments.ROOT / "tests" / "golden" / "llava"
    source = folders / "tiny_src_tower_tuned"
    api.convert(source, tmp_path / "hf", "llava-hf", options=Options(take="text"), fsync=False)
    api.convert(tmp_path / "hf", tmp_path / "llava", "llava", fsync=False)
    assert llava_hf.same_weights(source, tmp_path / "llava") == ""
    assert "vision_model.embeddings.class_embedding differs" in llava_hf.same_weights(
        folders / "tiny_src", tmp_path / "llava"
    )


def test_outputs_that_one_has_alone_are_a_fault() -> None:
    assert "outputs []" in compare(SAME, computed(1.0), Computed({}, {}))[1]


def test_leaves_differ_by_value_and_kind_and_presence() -> None:
    assert differences({"a": 1, "b": None}, {"a": 1, "b": None}) == ""
    assert differences({"a": 1}, {"a": True}) == "a is true, not 1"
    assert differences({"a": 1}, {"b": 1}) == "without a; with b"


def test_both_sides_call_the_leaves_of_a_state_the_same(tmp_path: Path, llama: Path) -> None:
    tensors = mmconvert.open(llama)
    name, ref = next(iter(tensors.items()))
    mmconvert.write_state(tmp_path / "x.mdl", {"model": {name: ref}, "list": [1, {"b": None}]})
    value = torch.frombuffer(bytearray(ref.read()), dtype=torch.bfloat16).reshape(ref.shape)
    assert leaves(tmp_path / "x.mdl") == dict(states.flattened({"model": {name: value}, "list": (1, {"b": None})}))


def test_a_tower_is_loaded_by_the_class_that_its_config_names(clip: Path) -> None:
    model, info = compute.load(clip)
    assert type(model).__name__ == "CLIPVisionModelWithProjection"
    assert not any(found != "[]" for found in info.values())
    assert {"image_embeds", "last_hidden_state", "hidden_states.3"} <= compute.outputs(model).keys()


def test_a_tensor_that_a_folder_lacks_is_told(tmp_path: Path, make_llama: Make) -> None:
    def without_norm(tensors: Tensors) -> None:
        del tensors["model.norm.weight"]

    _, info = compute.load(make_llama(tmp_path / "llama", edit=without_norm))
    assert "model.norm.weight" in info["missing_keys"]


def test_a_client_that_is_not_to_be_had_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(name: str) -> Environment:
        raise CalledProcessError(1, ["pip", "install"])

    monkeypatch.setattr(program, "build", build)
    assert program.main(["cerebras-2.10"]) == 1
    assert "FAIL cerebras-2.10: installation: cannot be installed" in capsys.readouterr().out


def test_a_part_that_stops_fails_after_what_it_had_checked(capsys: pytest.CaptureFixture[str]) -> None:
    def part(environment: Environment, folder: Path) -> Checks:
        yield "first", ""
        yield "second", "is wrong"
        raise CalledProcessError(1, ["python"])

    assert program.try_part(Environment("a client", Path("python")), part) == 2
    said = capsys.readouterr().out
    assert [line.split(":")[0] for line in said.splitlines()[:3]] == ["pass a client", "FAIL a client", "FAIL a client"]


def test_an_unknown_client_is_refused_with_those_there_are() -> None:
    with pytest.raises(SystemExit, match=r"no such client: x; there are transformers-4\.37"):
        program.main(["x"])


def test_an_environment_is_built_anew_when_its_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[Any] = []

    def run(command: list[str], **_: Any) -> None:
        commands.append(command)
        (tmp_path / "home" / "client").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(environments, "HOME", tmp_path / "home")
    monkeypatch.setattr(environments, "HERE", tmp_path)
    monkeypatch.setattr("subprocess.run", run)
    (tmp_path / "client.txt").write_text("one==1")
    environments.build("client")
    environments.build("client")
    assert len(commands) == 2
    (tmp_path / "client.txt").write_text("one==2")
    environments.build("client")
    assert len(commands) == 4
