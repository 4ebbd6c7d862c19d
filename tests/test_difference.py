"""What differs between two checkpoints, and that nothing that differs is passed over."""

from __future__ import annotations

import json
import math
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import mmconvert
from mmconvert import difference as module
from mmconvert.containers.mdl_chunks import Chunked
from mmconvert.difference import Apart, Difference, difference
from mmconvert.errors import InputRefused, NoConversion, UsageError
from mmconvert.layouts import Hints
from mmconvert.paths import ABSENT

Make = Callable[..., Path]
Tensors = dict[str, torch.Tensor]
Compare = Callable[[torch.Tensor, torch.Tensor], Difference]

MDL = Path(__file__).parent / "golden" / "mdl"
INF, NAN = math.inf, math.nan


@pytest.fixture
def compare(tmp_path: Path) -> Compare:
    """`compare(a, b)`: what differs between two files that hold one tensor, `w`."""

    def run(a: torch.Tensor, b: torch.Tensor) -> Difference:
        for name, tensor in {"a": a, "b": b}.items():
            (tmp_path / name).mkdir()
            save_file({"w": tensor}, tmp_path / name / "model.safetensors")
        return difference(tmp_path / "a", tmp_path / "b")

    return run


def folder(path: Path, tensors: Tensors, config: Any = None) -> Path:
    path.mkdir()
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, path / "model.safetensors")
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    return path


# --- keys, shapes, element types ------------------------------------------------------------------------------------


def test_a_copy_is_equal_however_it_is_sharded(llama: Path, make_llama: Make, tmp_path: Path) -> None:
    found = difference(llama, make_llama(tmp_path / "copy"))
    assert found.equal
    assert (found.tensors, found.nbytes) == (21, sum(ref.nbytes for ref in mmconvert.open(llama).values()))


def test_keys_shapes_and_element_types_that_differ_are_named(tmp_path: Path) -> None:
    x = torch.ones(2, 3)
    a = folder(tmp_path / "a", {"here": x, "same": x, "shape": x, "type": x, "both": x})
    b = folder(
        tmp_path / "b", {"there": x, "same": x, "shape": x.T.contiguous(), "type": x.half(), "both": x[0].half()}
    )
    found = difference(a, b)
    assert (found.only_a, found.only_b) == (("here",), ("there",))
    assert found.shapes == {"shape": ((2, 3), (3, 2)), "both": ((2, 3), (3,))}
    assert {key: tuple(map(str, pair)) for key, pair in found.dtypes.items()} == {
        "type": ("float32", "float16"),
        "both": ("float32", "float16"),
    }
    assert found.values == {}
    assert found.tensors == 2
    assert not found.equal


# --- values ---------------------------------------------------------------------------------------------------------

EVERY_TYPE = (
    *("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
    *("float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "float32", "float64"),
)


@pytest.mark.parametrize("dtype", EVERY_TYPE)
def test_the_largest_difference_and_the_first_place_are_found(compare: Compare, dtype: str) -> None:
    kind: torch.dtype = getattr(torch, dtype)
    a, b = torch.tensor([[1.0, 2, 3], [4, 5, 6]]).to(kind), torch.tensor([[1.0, 2, 4], [1, 5, 8]]).to(kind)
    assert compare(a, b).values == {"w": Apart(max_abs=3, first=2, nan=0)}


def test_booleans_are_0_and_1(compare: Compare) -> None:
    assert compare(torch.tensor([True, False]), torch.tensor([True, True])).values == {"w": Apart(1, 1, 0)}


@pytest.mark.parametrize(
    ("a", "b", "apart"), [(2**53, 2**53 + 1, 1), (-(2**63), 2**63 - 1, 2.0**64), (2**62, -(2**62), 2.0**63)]
)
def test_large_integers_are_not_rounded_before_they_are_subtracted(
    compare: Compare, a: int, b: int, apart: float
) -> None:
    assert compare(torch.tensor([a]), torch.tensor([b])).values == {"w": Apart(apart, 0, 0)}


def test_zeros_of_two_signs_differ_in_bytes_only(compare: Compare) -> None:
    found = compare(torch.tensor([1.0, 0.0]), torch.tensor([1.0, -0.0]))
    assert found.values == {"w": Apart(0, 1, 0)}
    assert not found.equal


def test_nan_on_both_sides_is_equal(compare: Compare) -> None:
    assert compare(torch.tensor([NAN, 1.0]), torch.tensor([NAN, 1.0])).equal


def test_nans_of_two_kinds_differ_in_bytes_only(compare: Compare) -> None:
    quiet, other = (torch.tensor([bits], dtype=torch.int32).view(torch.float32) for bits in (0x7FC00000, 0x7FC00001))
    assert compare(quiet, other).values == {"w": Apart(0, 0, 0)}


@pytest.mark.parametrize("swapped", [False, True])
def test_nan_on_one_side_is_infinitely_far_and_counted(compare: Compare, swapped: bool) -> None:
    a, b = torch.tensor([NAN, 1.0, NAN, NAN, 2.0]), torch.tensor([NAN, 1.0, 5.0, INF, 3.0])
    assert compare(*((b, a) if swapped else (a, b))).values == {"w": Apart(INF, 2, 2)}


def test_equal_infinities_are_not_apart_and_others_are(compare: Compare) -> None:
    a = torch.tensor([INF, -INF, 1.0])
    assert compare(a, torch.tensor([INF, -INF, 1.5])).values == {"w": Apart(0.5, 2, 0)}


@pytest.mark.parametrize("other", [-INF, 1.0])
def test_an_infinity_is_infinitely_far_from_anything_else(compare: Compare, other: float) -> None:
    assert compare(torch.tensor([INF]), torch.tensor([other])).values == {"w": Apart(INF, 0, 0)}


@pytest.mark.parametrize("dtype", [name for name in EVERY_TYPE if name != "float32"])
def test_equal_values_of_two_element_types_differ_in_type_only(compare: Compare, dtype: str) -> None:
    values = torch.tensor([0.0, -0.0, 3.0, 96.0])
    found = compare(values, values.to(getattr(torch, dtype)))
    assert (list(found.dtypes), found.values) == (["w"], {})
    assert not found.equal


def test_values_of_two_element_types_are_compared(compare: Compare) -> None:
    a = torch.tensor([1.0, 0.1, NAN], dtype=torch.float32)
    found = compare(a, a.to(torch.bfloat16))
    assert found.values == {"w": Apart(abs(a[1].item() - a[1].bfloat16().item()), 1, 0)}


def test_blocks_of_a_long_tensor_add_up(compare: Compare) -> None:
    a = torch.zeros(700_000)
    b = a.clone()
    b[300_001], b[310_000], b[699_999] = 1, -5, 2
    assert compare(a, b).values == {"w": Apart(5, 300_001, 0)}


def test_nans_of_all_blocks_are_counted(compare: Compare) -> None:
    a = torch.zeros(700_000)
    b = a.clone()
    b[300_001] = b[699_999] = NAN
    assert compare(a, b).values == {"w": Apart(INF, 300_001, 2)}


def test_blocks_of_two_element_types_are_of_the_same_elements(compare: Compare) -> None:
    a = torch.arange(400_000, dtype=torch.float64)
    b = a.to(torch.float32)
    b[399_999] += 8
    assert compare(a, b).values == {"w": Apart(8, 399_999, 0)}


def test_tensors_without_elements_and_without_axes_are_compared(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {"none": torch.ones(0, 3), "one": torch.tensor(1.0)})
    b = folder(tmp_path / "b", {"none": torch.ones(0, 3), "one": torch.tensor(3.0)})
    assert difference(a, b).values == {"one": Apart(2, 0, 0)}


def test_memory_does_not_grow_with_a_tensor(compare: Compare) -> None:
    a = torch.zeros(1 << 24, dtype=torch.uint8).view(torch.bfloat16)
    tracemalloc.start()
    try:
        assert compare(a, a + 1).values["w"].max_abs == 1
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_progress_hears_of_every_byte(llama: Path) -> None:
    heard: list[int] = []

    class Watch:
        def start(self, total_bytes: int) -> None:
            heard.append(-total_bytes)

        def advance(self, nbytes: int) -> None:
            heard.append(nbytes)

        def finish(self) -> None:
            heard.append(0)

    found = difference(llama, llama, progress=Watch())
    assert heard[0] == -found.nbytes
    assert (sum(heard), heard[-1]) == (0, 0)


def test_what_is_compressed_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[tuple[str, int]] = []
    decode = Chunked._decode

    def counted(self: Chunked, index: int) -> memoryview:
        decoded.append((self.key, index))
        return decode(self, index)

    monkeypatch.setattr(Chunked, "_decode", counted)
    monkeypatch.setattr(module, "BLOCK", 1 << 10)
    file = MDL / "clip_proj_cs-2.4.mdl"
    assert difference(file, file).equal
    assert len(decoded) == 2 * len(set(decoded))


# --- configs --------------------------------------------------------------------------------------------------------


def test_config_fields_are_compared_by_dotted_path(tmp_path: Path) -> None:
    tensors = {"w": torch.ones(1)}
    one: dict[str, Any] = {
        "same": 1,
        "number": 1,
        "flag": True,
        "null": None,
        "inner": {"x": [1, {"y": 2}], "gone": {"z": 0}},
        "e": [],
    }
    two = {"same": 1, "number": 1.0, "flag": 1, "inner": {"x": [1, {"y": 3}, 4]}, "e": {}}
    found = difference(folder(tmp_path / "a", tensors, one), folder(tmp_path / "b", tensors, two))
    assert found.config == {
        "flag": (True, 1),
        "null": (None, ABSENT),
        "inner.x.1.y": (2, 3),
        "inner.gone.z": (0, ABSENT),
        "e": ([], {}),
        "inner.x.2": (ABSENT, 4),
    }
    assert not found.equal


def test_the_configs_of_recognised_checkpoints_are_compared(llama: Path, make_llama: Make, tmp_path: Path) -> None:
    found = difference(llama, make_llama(tmp_path / "other", rms_norm_eps=1e-6))
    assert found.config == {"rms_norm_eps": (1e-5, 1e-6)}
    assert found.values == {}


def test_params_files_are_compared_by_their_model_section(clip: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        mmconvert.convert(clip, tmp_path / name, "cs", fsync=False)
    params = tmp_path / "b" / "config.yaml"
    params.write_text(params.read_text().replace("initializer_range: 0.02", "initializer_range: 0.5"))
    assert difference(tmp_path / "a", tmp_path / "b").config == {"initializer_range": (0.02, 0.5)}


# --- what can be compared -------------------------------------------------------------------------------------------


def test_another_format_is_for_verify(clip: Path, tmp_path: Path) -> None:
    mmconvert.convert(clip, tmp_path / "cs", "cs", fsync=False)
    with pytest.raises(NoConversion, match=f"mmconvert verify {clip} {tmp_path / 'cs'}"):
        difference(clip, tmp_path / "cs")


def test_another_model_is_refused(clip: Path, llama: Path) -> None:
    with pytest.raises(NoConversion, match=r"clip-vit.*llama"):
        difference(clip, llama)


def test_bare_files_are_compared_whatever_holds_them(tmp_path: Path) -> None:
    tensors = {"w": torch.ones(2)}
    save_file(tensors, tmp_path / "a.safetensors")
    torch.save(tensors, tmp_path / "b.bin")
    found = difference(tmp_path / "a.safetensors", tmp_path / "b.bin")
    assert found.equal
    assert found.tensors == 1
    assert found.notes == (
        f"no configs are compared: none is known for {tmp_path / 'a.safetensors'} and {tmp_path / 'b.bin'}",
    )


@pytest.mark.parametrize(("name", "tensors"), [("plain_minimal.mdl", 2), ("rich.mdl", 16)])
def test_an_mdl_without_params_or_of_another_model_is_compared(tmp_path: Path, name: str, tensors: int) -> None:
    (tmp_path / "x").mkdir()
    file = Path(shutil.copy(MDL / name, tmp_path / "x"))
    for path in (file, file.parent):
        with pytest.raises((UsageError, InputRefused)):
            mmconvert.open(path)
        found = difference(path, path)
        assert found.equal
        assert found.tensors == tensors


def test_models_that_are_not_known_are_compared_with_their_configs(tmp_path: Path) -> None:
    tensors = {"w": torch.ones(2)}
    a = folder(tmp_path / "a", tensors, {"model_type": "unheard_of", "depth": 1})
    b = folder(tmp_path / "b", tensors, {"model_type": "unheard_of", "depth": 2})
    for one, two in ((a, b), (a / "model.safetensors", b / "model.safetensors")):
        found = difference(one, two)
        assert found.config == {"depth": (1, 2)}
        assert found.notes == ()


def test_a_checkpoint_is_compared_with_bare_tensors(llama: Path, make_llama: Make, tmp_path: Path) -> None:
    copy = make_llama(tmp_path / "copy")
    (copy / "config.json").unlink()
    found = difference(llama, copy)
    assert found.equal
    assert found.notes == (f"no configs are compared: none is known for {copy}",)


def test_what_is_set_aside_is_said(tmp_path: Path) -> None:
    file = MDL / "mmsimple_trainer_checkpoint_3.mdl"
    params = MDL / "mmsimple_trainer_params.yaml"
    found = difference(file, file, Hints(config=params), Hints(config=params))
    assert found.equal
    assert ["are no tensors of the model" in note for note in found.notes] == [True, True]


def test_a_broken_config_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {"w": torch.ones(2)})
    (a / "config.json").write_text("{")
    with pytest.raises(InputRefused, match=r"config\.json: is not valid JSON"):
        difference(a, a)


def test_files_that_lead_out_of_their_folder_are_refused(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {"w": torch.ones(2)})
    (tmp_path / "private").write_text("{}")
    (a / "config.json").symlink_to("../private")
    with pytest.raises(InputRefused, match=r"config\.json: links out of its folder"):
        difference(a, a)
    b = tmp_path / "b"
    b.mkdir()
    (b / "model.mdl").symlink_to(MDL / "mmsimple_trainer_checkpoint_3.mdl")
    for path in (b, b / "model.mdl"):
        with pytest.raises(InputRefused, match=r"model\.mdl: links out of its folder"):
            difference(path, path)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {"w": torch.ones(2)})
    file = a / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputRefused, match="truncated"):
        difference(a, a)


def test_hints_that_do_not_fit_are_not_ignored(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {"w": torch.ones(2)}, {"model_type": "unheard_of"})
    with pytest.raises(InputRefused, match="leave the hint out"):
        difference(a, a, Hints(model="llama"))


def test_where_there_is_nothing_to_compare_that_is_said(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="absent: no such file or folder"):
        difference(clip, tmp_path / "absent")
    with pytest.raises(InputRefused, match="no checkpoint is recognised here"):
        difference(clip, tmp_path)
    for name in ("1.mdl", "2.mdl"):
        shutil.copy(MDL / "rich.mdl", tmp_path / name)
    with pytest.raises(UsageError, match=r"holds 2 \.mdl files; name one"):
        difference(tmp_path, tmp_path)
