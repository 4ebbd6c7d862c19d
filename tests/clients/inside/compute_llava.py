"""Load llava-hf folders as a user of transformers does, and keep what they compute. Runs in a client's environment.

Usage: python compute_llava.py JOBS. JOBS is a JSON list of objects: `folder`, the llava-hf folder; `source`, the two
folders of the LLaVA source repository that it was made of, if it was; `inputs`, recorded inputs in that repository's
form; `saved`, a folder for the model and its processor as this transformers saves them; and `target`, the safetensors
file to write. It gets logits and generated ids for the recorded inputs, a reply to a question in the folder's chat
template, and what processor and tokenizer make of a picture and a text beside what those of `source` make of them; and,
as its metadata, what transformers says of the keys that it did not find or had no use for.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

# The id that stands for a picture in the LLaVA source repository.
PICTURE = -200
# Without doubled spaces, which the recorded sentencepiece model drops and transformers' fast tokenizers keep.
TEXT = "What is it? ab cd ÄÖ 12"
NEW_TOKENS = 16


def picture() -> Image.Image:
    """Wider than high, so that cutting and scaling show."""
    image = Image.new("RGB", (50, 24), (90, 140, 200))
    ImageDraw.Draw(image).ellipse((6, 3, 30, 20), (220, 60, 30))
    return image


@dataclass(frozen=True)
class TwoParts:
    """What 4.37's `LlavaProcessor` does, which takes no tokenizer but a LLaMA's: users put the parts together so."""

    pixels: Any
    tokenizer: Any

    def __call__(self, text: str, images: Image.Image, return_tensors: str) -> dict[str, Any]:
        given = {"return_tensors": return_tensors}
        return {**self.tokenizer(text, **given), **self.pixels(images, **given)}

    def save_pretrained(self, folder: str) -> None:
        self.pixels.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def load_processor(transformers: Any, folder: Path) -> Any:
    """The processor of a folder; 4.37 has to be given its two parts.

    It takes every field of processor_config.json for an argument and knows none of them, whoever wrote the file; and
    newer releases cannot do without them.
    """
    if not transformers.__version__.startswith("4.37."):
        return transformers.AutoProcessor.from_pretrained(folder)
    pixels = transformers.AutoImageProcessor.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    is_llamas = isinstance(tokenizer, transformers.LlamaTokenizer | transformers.LlamaTokenizerFast)
    return (transformers.LlavaProcessor if is_llamas else TwoParts)(pixels, tokenizer)


def spelled_out(ids: torch.Tensor, placeholder: int, times: int) -> torch.Tensor:
    """Recorded ids, [1, length], with `times` placeholders where the picture is."""
    row: list[int] = []
    for token in ids[0].tolist():
        row += [placeholder] * times if token == PICTURE else [token]
    return torch.tensor([row])


def question(processor: Any, folder: Path) -> str:
    """A picture and a question about it, in the words of the folder's chat template."""
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": TEXT}]}]
    template = (folder / "chat_template.jinja").read_text("utf-8")
    said = {"chat_template": template, "add_generation_prompt": True, "tokenize": False}
    return str(processor.tokenizer.apply_chat_template(turns, **said))


def preprocessed(processor: Any, folder: Path) -> dict[str, torch.Tensor]:
    """A picture, a text and a question, as processor and tokenizer of the export have them."""
    return {
        "pixels": processor(text="<image>", images=picture(), return_tensors="pt")["pixel_values"].float(),
        "ids": torch.tensor(processor.tokenizer(TEXT)["input_ids"]),
        "question": torch.tensor(processor.tokenizer(question(processor, folder))["input_ids"]),
    }


def of_source(transformers: Any, source: Path) -> dict[str, torch.Tensor]:
    """The picture and the text, as processor and tokenizer of LLaVA's folders have them."""
    plain = transformers.CLIPImageProcessor.from_pretrained(source / "image_model")
    tokenizer = transformers.LlamaTokenizer.from_pretrained(source / "text_model_llava")
    return {
        "pixels of the source": plain(picture(), return_tensors="pt")["pixel_values"].float(),
        "ids of the source": torch.tensor(tokenizer(TEXT)["input_ids"]),
    }


def computed(model: Any, processor: Any, folder: Path, inputs: Path) -> dict[str, torch.Tensor]:
    placeholder = model.config.image_token_index
    prompt = processor(text=question(processor, folder), images=picture(), return_tensors="pt")
    # Older releases put all features of a picture in the place of one token, newer ones have a token for each.
    times = int((prompt["input_ids"] == placeholder).sum())
    recorded = load_file(inputs)
    ids = spelled_out(recorded["input_ids"], placeholder, times)
    asked = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": recorded["pixel_values"]}
    with torch.no_grad():
        logits = model(**asked).logits
        generated = model.generate(**asked, max_new_tokens=NEW_TOKENS, do_sample=False)[:, ids.shape[1] :]
        reply = model.generate(**prompt, max_new_tokens=NEW_TOKENS, do_sample=False)[:, prompt["input_ids"].shape[1] :]
    return {"logits": logits, "generated": generated, "reply": reply}


def main(jobs: list[dict[str, str]]) -> None:
    transformers: Any = importlib.import_module("transformers")
    for job in jobs:
        kind, folder = transformers.LlavaForConditionalGeneration, Path(job["folder"])
        # Releases differ in whether they follow the config's torch_dtype, which a model of several types cannot.
        model, info = kind.from_pretrained(folder, torch_dtype=torch.float32, output_loading_info=True)
        processor = load_processor(transformers, folder)
        outputs = computed(model.eval(), processor, folder, Path(job["inputs"]))
        outputs |= preprocessed(processor, folder)
        if "source" in job:
            outputs |= of_source(transformers, Path(job["source"]))
        said = {kind: json.dumps(sorted(map(str, keys))) for kind, keys in info.items()}
        save_file({name: value.clone() for name, value in outputs.items()}, job["target"], said)
        model.save_pretrained(job["saved"])
        processor.save_pretrained(job["saved"])


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text("utf-8")))
