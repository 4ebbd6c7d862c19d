"""One side of `train.py`, in a process of its own: trains, and prints as JSON what it saw.

    python benchmarks/train_sides.py SIDE FOLDER PHASE UPDATES DEVICE DTYPE

SIDE is `mmsimple`, `features` (mmsimple, with `cache: features`), `transformers`, or `accumulation` (transformers, with
micro batches as small as those of mmsimple). Seconds are those from the end of
one update to the end of the next, losses those of the updates, memory the peak of this process, or of the GPU.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import resource
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from train_material import BATCH_SIZE, MICRO_BATCH_SIZE

import mmconvert
from mmsimple.checkpoint import read_tensor
from mmsimple.data.dataset import MultimodalDataset
from mmsimple.data.h5 import ROWS
from mmsimple.data.order import Plain
from mmsimple.data.section import DataConfig
from mmsimple.train.metrics import read_metrics
from mmsimple.train.reading import read_run_file
from mmsimple.train.run import run

IGNORED = -100
# So small that it does not matter where in AdamW's rule it stands, which is where the two differ.
EPS = 1e-15
HALVES = {"bf16": "bfloat16", "fp16": "float16"}


def ours(folder: Path, phase: int, updates: int, device: str, dtype: str, cache: str) -> dict[str, Any]:
    out = Path(tempfile.mkdtemp(dir=folder))
    # Gradients are cut as transformers does it by default.
    precision = {"enabled": dtype in HALVES, "fp16_type": HALVES.get(dtype, "bfloat16"), "max_gradient_norm": 1.0}
    settings = {
        "loop": {"max_steps": updates},
        "optimizer": {"AdamW": {"eps": EPS}},
        "precision": precision,
        "performance": {"cache": cache, "cache_dir": str(folder / "features")},
    }
    given = [f"trainer.init.{name}={json.dumps(value)}" for name, value in settings.items()]
    times: list[float] = []
    made = ""

    def say(line: str) -> None:
        nonlocal made
        if line.startswith("update "):
            times.append(perf_counter())
        elif "features" in line:
            made = line.removeprefix(f"{folder}/")

    config = read_run_file(folder / f"phase{phase}.yaml", given)
    run(config, out, mode="train", init_from=folder / "cs", resume="never", device=device, say=say)
    metrics = list(read_metrics(out))
    shutil.rmtree(out)
    seen = {"losses": [each["loss"] for each in metrics], "tokens": [each["tokens"] for each in metrics]}
    return {"times": times, **seen, "made": made}


# --- transformers -----------------------------------------------------------------------------------------------------


class Samples(Dataset[dict[str, Any]]):
    """Samples as mmsimple reads them, pictures and all, in its order, with the labels that transformers wants."""

    def __init__(self, config: DataConfig, count: int, image_id: int) -> None:
        self.samples, self.image_id = MultimodalDataset(config), image_id
        order = Plain(len(self.samples), config.shuffle_seed)
        epochs = (order.epoch(number).tolist() for number in itertools.count())
        self.order = list(itertools.islice(itertools.chain.from_iterable(epochs), count))

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.samples[self.order[index]]
        assert sample.row is not None
        fields = dict(zip(ROWS, torch.from_numpy(sample.row.data).long(), strict=True))
        length = int((fields["key_padding_mask"] == 0).sum())
        ids = fields["text_input_ids"].masked_fill(fields["token_modality_idx"] == 1, self.image_id)[:length]
        # Ours stand at the token that is to say them, and the last is no token of ours; theirs at what is to be said.
        said = fields["labels"].masked_fill(fields["loss_mask"] == 0, IGNORED)[:length]
        last = fields["labels"][length - 1 : length]
        return {
            "input_ids": torch.cat([ids, last]),
            "labels": torch.cat([torch.tensor([IGNORED]), said]),
            "pixel_values": sample.pictures[0],
        }


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Padded to the longest text of the batch."""
    lengths = [len(each["input_ids"]) for each in samples]

    def padded(name: str, value: int) -> Tensor:
        return nn.utils.rnn.pad_sequence([each[name] for each in samples], batch_first=True, padding_value=value)

    positions = torch.arange(max(lengths))
    return {
        "input_ids": padded("input_ids", 0),
        "labels": padded("labels", IGNORED),
        "attention_mask": (positions < torch.tensor(lengths)[:, None]).long(),
        "pixel_values": torch.stack([each["pixel_values"] for each in samples]),
    }


def llava(folder: Path) -> Any:
    """transformers' LLaVA of the same weights."""
    from transformers import CLIPVisionModel, LlamaForCausalLM, LlavaConfig, LlavaForConditionalGeneration

    tower = CLIPVisionModel.from_pretrained(folder / "hub" / "clip")
    text = LlamaForCausalLM.from_pretrained(folder / "hub" / "llama")
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=text.config,
        image_token_index=text.config.vocab_size - 1,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.language_model.load_state_dict(text.model.state_dict())
    model.lm_head.load_state_dict(text.lm_head.state_dict())
    checkpoint, projector = mmconvert.open(folder / "cs"), model.model.multi_modal_projector
    with torch.no_grad():
        for number, linear in enumerate((projector.linear_1, projector.linear_2)):
            for name, parameter in linear.named_parameters():
                parameter.copy_(read_tensor(checkpoint[f"image_model.projection.ffn.{number}.linear_layer.{name}"]))
    return model


def theirs(folder: Path, phase: int, updates: int, device: str, dtype: str, parts: int) -> dict[str, Any]:
    from torch.utils.data import SequentialSampler
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class InOrder(Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    times: list[float] = []

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(perf_counter())

    data = read_run_file(folder / f"phase{phase}.yaml").train_data
    assert data is not None
    model = llava(folder)
    model.model.vision_tower.requires_grad_(False)
    if phase == 1:
        model.model.language_model.requires_grad_(False)
        model.lm_head.requires_grad_(False)
    arguments = TrainingArguments(
        output_dir=str(folder / "transformers"),
        per_device_train_batch_size=data.batch_size // parts,
        gradient_accumulation_steps=parts,
        max_steps=updates,
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        adam_epsilon=EPS,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        remove_unused_columns=False,
        dataloader_num_workers=data.num_workers,
        use_cpu=device == "cpu",
        bf16=dtype == "bf16",
        fp16=dtype == "fp16",
        disable_tqdm=True,
    )
    samples = Samples(data, updates * data.batch_size, model.config.image_token_index)
    trainer = InOrder(model, arguments, data_collator=collate, train_dataset=samples, callbacks=[Watch()])
    with contextlib.redirect_stdout(sys.stderr):
        trainer.train()
    losses = [each["loss"] for each in trainer.state.log_history if "loss" in each]
    return {"times": times, "losses": losses}


def memory(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    side, folder, phase, updates, device, dtype = sys.argv[1:]
    given = Path(folder), int(phase), int(updates), device, dtype
    match side:
        case "transformers":
            found = theirs(*given, 1)
        case "accumulation":
            found = theirs(*given, BATCH_SIZE // MICRO_BATCH_SIZE)
        case "mmsimple":
            found = ours(*given, "none")
        case "features":
            found = ours(*given, "features")
        case _:
            sys.exit(f"no such side: {side}")
    print(json.dumps({**found, "memory": memory(device)}))


if __name__ == "__main__":
    main()
