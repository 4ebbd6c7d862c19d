"""A module is filled with the tensors of its names, byte for byte, or refused with the key that does not fit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mmconvert.dtypes import BY_NAME
from mmconvert.errors import InputRefused
from mmconvert.sources import TensorRef
from mmsimple import checkpoint
from mmsimple.checkpoint import InMemory, fill, memory_of, refs

Tensors = dict[str, Tensor]


class Small(nn.Module):
    """A norm under two names, a head that shares the embedding's weight, and a buffer."""

    position: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(6, 4)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.norm = nn.LayerNorm(4)
        self.ln_f = self.norm
        self.lm_head = nn.Linear(4, 6, bias=False)
        self.lm_head.weight = self.words.weight
        self.register_buffer("position", torch.arange(6))


def small(device: str = "meta") -> Small:
    with torch.device(device):
        return Small()


@dataclass(frozen=True)
class Unread:
    """A tensor that must not be read."""

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> None:
        raise AssertionError("it was read")


@dataclass(frozen=True)
class Counted:
    """A source that counts the bytes read from it."""

    inner: InMemory
    read: list[int] = field(default_factory=list)

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> None:
        self.read.append(sum(map(len, buffers)))
        self.inner.read_into(start, buffers)


def held(tensors: Mapping[str, Tensor], file: str = "weights") -> dict[str, TensorRef]:
    """Tensors as a file of this name would give them."""
    return {
        key: TensorRef(key, BY_NAME[str(each.dtype).removeprefix("torch.")], tuple(each.shape), InMemory(each), file)
        for key, each in tensors.items()
    }


@pytest.fixture
def saved() -> Tensors:
    """What a file with the weights of `Small` holds."""
    torch.manual_seed(0)
    return {key: each.clone() for key, each in small("cpu").state_dict().items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    def contents(tensors: Mapping[str, Tensor]) -> dict[str, object]:
        return {key: (each.dtype, each.shape, bytes(memory_of(each.contiguous()))) for key, each in tensors.items()}

    return contents(a) == contents(b)


# --- filling a module ---------------------------------------------------------------------------------------------


def test_every_tensor_is_put_in_its_place(saved: Tensors) -> None:
    module = small()
    fill(module, held(saved), "src")
    assert same(module.state_dict(), saved)


@pytest.mark.parametrize("block", [1, 24, 1 << 24])
def test_tensors_larger_than_a_block_are_read_whole(block: int, saved: Tensors, monkeypatch: Any) -> None:
    monkeypatch.setattr(checkpoint, "BLOCK", block)
    module = small()
    fill(module, held(saved), "src")
    assert same(module.state_dict(), saved)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5, 7)])
@pytest.mark.parametrize("name", BY_NAME)
def test_any_shape_and_element_type_is_kept(name: str, shape: tuple[int, ...]) -> None:
    dtype, module = getattr(torch, name), nn.Module()
    tensor = torch.arange(35).remainder(2)[: torch.Size(shape).numel()].reshape(shape).to(dtype)
    # Parameters are float32 as modules are built, whatever the file holds.
    if dtype.is_floating_point:
        module.register_parameter("it", nn.Parameter(torch.empty(shape, device="meta")))
    else:
        module.register_buffer("it", torch.empty(shape, dtype=dtype, device="meta"))
    fill(module, held({"it": tensor}), "src")
    assert same(module.state_dict(), {"it": tensor})


def test_each_tensor_keeps_the_type_of_its_own(saved: Tensors) -> None:
    for name in ("layers.1.weight", "layers.1.bias", "norm.bias", "ln_f.bias"):
        saved[name] = saved[name].to(torch.bfloat16)
    module = small()
    fill(module, held(saved), "src")
    assert same(module.state_dict(), saved)


def test_another_element_type_is_for_all_numbers_with_a_fraction(saved: Tensors) -> None:
    module = small()
    fill(module, held(saved), "src", dtype=torch.float16)
    wanted = {key: each.half() if each.is_floating_point() else each for key, each in saved.items()}
    assert same(module.state_dict(), wanted)


def test_weights_go_to_the_device(saved: Tensors) -> None:
    module = small("cpu")
    fill(module, held(saved), "src", device="meta")
    assert {each.device.type for each in module.state_dict().values()} == {"meta"}


def test_what_is_frozen_stays_frozen(saved: Tensors) -> None:
    module = small()
    module.layers[0].requires_grad_(False)
    fill(module, held(saved), "src")
    frozen = {name for name, each in module.named_parameters() if not each.requires_grad}
    assert frozen == {"layers.0.weight", "layers.0.bias"}
    assert isinstance(module.words.weight, nn.Parameter)


# --- two names for one tensor -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "left_out", [(), ("lm_head.weight", "ln_f.weight", "ln_f.bias"), ("words.weight", "norm.bias")]
)
def test_two_names_stay_one_tensor_whichever_the_file_has(left_out: tuple[str, ...], saved: Tensors) -> None:
    module = small()
    fill(module, held({key: each for key, each in saved.items() if key not in left_out}), "src")
    assert module.lm_head.weight is module.words.weight
    assert module.ln_f.bias is module.norm.bias
    assert same(module.state_dict(), saved)


def test_a_tensor_with_two_names_is_read_once_where_the_file_has_one(saved: Tensors) -> None:
    found = held(saved)
    del found["lm_head.weight"]
    source = Counted(InMemory(saved["words.weight"]))
    fill(small(), {**found, "words.weight": replace(found["words.weight"], source=source)}, "src")
    assert source.read == [saved["words.weight"].nbytes]


def test_a_second_copy_that_differs_is_refused_with_both_names(saved: Tensors) -> None:
    saved["lm_head.weight"][-1, -1] += 1
    wanted = r"^weights: lm_head\.weight differs from words\.weight, but the model has one tensor for both$"
    with pytest.raises(InputRefused, match=wanted):
        fill(small(), held(saved), "src")


def test_a_second_copy_of_another_type_is_refused(saved: Tensors) -> None:
    saved["ln_f.weight"] = saved["ln_f.weight"].half()
    with pytest.raises(InputRefused, match=r"ln_f\.weight differs from norm\.weight"):
        fill(small(), held(saved), "src")


# --- what does not fit --------------------------------------------------------------------------------------------


def test_a_tensor_that_is_missing_is_named_with_its_shape(saved: Tensors) -> None:
    del saved["layers.1.weight"]
    with pytest.raises(InputRefused, match=r"^src: layers\.1\.weight is missing \(4 x 4\)$"):
        fill(small(), held(saved), "src")


def test_one_that_is_missing_under_both_its_names_is_named_once(saved: Tensors) -> None:
    del saved["words.weight"], saved["lm_head.weight"]
    with pytest.raises(InputRefused, match=r"^src: words\.weight is missing \(6 x 4\)$"):
        fill(small(), held(saved), "src")


def test_others_that_are_missing_are_counted_and_near_names_are_told(saved: Tensors) -> None:
    for name in ("weight", "bias"):
        saved[f"layer.1.{name}"] = saved.pop(f"layers.1.{name}")
    with pytest.raises(InputRefused) as caught:
        fill(small(), held(saved), "src")
    assert str(caught.value).startswith("src: layers.1.weight is missing (4 x 4, and 1 more); near it are layer.1.weig")


def test_near_names_are_looked_for_among_no_more_than_a_model_has(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["strange", "layers.1.weight"]
    monkeypatch.setattr(checkpoint, "SEARCHED", 2)
    assert checkpoint._near("layers.2.weight", names) == "; near it are layers.1.weight"
    monkeypatch.setattr(checkpoint, "SEARCHED", 1)
    assert checkpoint._near("layers.2.weight", names) == ""


def test_a_tensor_of_no_parameter_is_named_with_its_file(saved: Tensors) -> None:
    saved["layers.3.weight"] = torch.zeros(2)
    with pytest.raises(
        InputRefused, match=r"^weights: layers\.3\.weight is no tensor of the model \(2\); near it are "
    ):
        fill(small(), held(saved), "src")


def test_another_shape_is_told_with_the_one_that_is_demanded(saved: Tensors) -> None:
    saved["layers.2.bias"] = torch.zeros(2, 2)
    with pytest.raises(InputRefused, match=r"^weights: layers\.2\.bias is 2 x 2, but the config demands 4$"):
        fill(small(), held(saved), "src")


@pytest.mark.parametrize(("key", "dtype"), [("layers.0.bias", torch.int8), ("position", torch.float32)])
def test_another_kind_of_number_is_refused(key: str, dtype: torch.dtype, saved: Tensors) -> None:
    saved[key] = saved[key].to(dtype)
    with pytest.raises(InputRefused, match=f"weights: {key} is {dtype}; it must be".replace("torch.", "")):
        fill(small(), held(saved), "src")


def test_headers_are_refused_before_anything_is_read(saved: Tensors) -> None:
    found = {key: replace(ref, source=Unread()) for key, ref in held(saved).items()}
    last = [*found][-1]
    with pytest.raises(InputRefused, match=f"{last} is 9, but the config demands 6"):
        fill(small(), {**found, last: replace(found[last], shape=(9,))}, "src")


def test_tensors_of_no_file_are_told_of_by_the_callers_words(saved: Tensors) -> None:
    saved["layers.2.bias"] = torch.zeros(2, 2)
    with pytest.raises(InputRefused, match=r"^src: layers\.2\.bias is 2 x 2"):
        fill(small(), held(saved, file=""), "src")


# --- memory -------------------------------------------------------------------------------------------------------

MEMORY = """
import sys
from pathlib import Path
import torch
from torch import nn
from mmconvert import api
from mmconvert.containers import safetensors
from mmsimple.checkpoint import fill, refs

def now(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))

source, out, dtype = sys.argv[1:]
# Whatever is imported late is imported here.
api.write(out + "-first", "llama", {}, [], options=api.Options(container="safetensors"), fsync=False)
with torch.device("meta"):
    module = nn.ModuleList(nn.Linear(2500, 2500, bias=False) for _ in range(8))
    module[7].weight = module[0].weight
before = now("VmRSS")
fill(module, safetensors.read_file(Path(source)), "src", dtype=getattr(torch, dtype))
print(now("VmHWM") - before)
api.write(out, "llama", {}, list(refs(module)), options=api.Options(container="safetensors"), fsync=False)
print(now("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell the largest memory so")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loading_and_saving_need_little_more_memory_than_the_model(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {f"{number}.weight": torch.full((2500, 2500), number % 7, dtype=dtype) for number in range(8)}
    save_file(tensors, tmp_path / "model.safetensors")
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "model.safetensors"), str(tmp_path / "out"), "float32"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    loaded, written = map(int, done.stdout.split())
    model = 7 * 4 * 2500**2
    assert 0.9 * model < loaded < 1.1 * model + (64 << 20)
    assert written < 1.1 * model + (96 << 20)


# --- tensors in memory as sources ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int64])
def test_a_tensor_in_memory_is_read_from_any_byte_on(dtype: torch.dtype) -> None:
    tensor = torch.arange(12).reshape(3, 4).to(dtype)
    whole = bytes(memory_of(tensor))
    for start in range(len(whole)):
        for end in range(start, len(whole) + 1):
            first, second = bytearray((end - start) // 2), bytearray(end - start - (end - start) // 2)
            InMemory(tensor).read_into(start, [memoryview(first), memoryview(second)])
            assert first + second == whole[start:end]


def test_a_tensor_that_lies_in_another_order_is_given_in_its_own() -> None:
    module = nn.Linear(3, 2, bias=False)
    module.weight = nn.Parameter(torch.arange(6.0).reshape(3, 2).T)
    (ref,) = refs(module)
    assert (ref.key, ref.shape) == ("weight", (2, 3))
    assert ref.read() == torch.tensor([[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]).numpy().tobytes()
