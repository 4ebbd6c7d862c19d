"""What a model card says of each layout: how programs load it, and the commands that evaluate it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mmconvert.converter import Usage
from mmconvert.spec import Config

RELEASES = "transformers (4.36 and later)"


def decoder(config: Config) -> Sequence[Usage]:
    return [
        Usage(
            RELEASES,
            """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("DIR", torch_dtype="auto")
tokenizer = AutoTokenizer.from_pretrained("DIR")
```""",
        )
    ]


def headless(config: Config) -> Sequence[Usage]:
    return [replace(each, text=each.text.replace("AutoModelForCausalLM", "AutoModel")) for each in decoder(config)]


def tower(config: Config) -> Sequence[Usage]:
    return [
        Usage(
            RELEASES,
            """\
```python
from transformers import CLIPImageProcessor, CLIPVisionModel

tower = CLIPVisionModel.from_pretrained("DIR")
processor = CLIPImageProcessor.from_pretrained("DIR")
```""",
        )
    ]


def components(config: Config) -> Sequence[Usage]:
    return [
        Usage(
            RELEASES,
            """\
The tower is in `image_model`; the language model in `text_model`, and with it the projector (`model.mm_projector.*`),
which transformers leaves unread.

```python
from transformers import AutoModelForCausalLM, CLIPVisionModel

tower = CLIPVisionModel.from_pretrained("DIR/image_model")
language_model = AutoModelForCausalLM.from_pretrained("DIR/text_model", torch_dtype="auto")
```

All three joined: `mmconvert convert --to llava-hf --src DIR --out NEW` for transformers, `--to llava` for the LLaVA
source repository.""",
        )
    ]


def projector(config: Config) -> Sequence[Usage]:
    return [
        Usage(
            "LLaVA source repository",
            """\
It is loaded together with its language model, `LANGUAGE_MODEL`, and the tower that `mm_vision_tower` in `config.json`
names. LLaVA asks for the word `llava` in the folder's name.

```sh
python -m llava.serve.cli --model-path DIR --model-base LANGUAGE_MODEL --image-file cat.jpg
```""",
        )
    ]


def llava(config: Config) -> Sequence[Usage]:
    mistral = config["text_model"]["model_type"] == "llava_mistral"
    folder, mode = ("text_model_llava_mistral", "mistral_instruct") if mistral else ("text_model_llava", "vicuna_v1")
    text = f"DIR/{folder}"
    return [
        Usage(
            "LLaVA source repository (1.1 and later)",
            f"""\
The language model with the projector is in `{folder}`, the tower in `image_model`; `mm_vision_tower` in the
`config.json` of the former names the latter. After the folder has been moved or copied: `mmconvert relocate DIR`.

```sh
python -m llava.serve.cli --model-path {text} --image-file cat.jpg
```

```python
from llava.mm_utils import get_model_name_from_path
from llava.model.builder import load_pretrained_model

tokenizer, model, image_processor, context_len = load_pretrained_model(
    "{text}", None, get_model_name_from_path("{text}")
)
```""",
        ),
        Usage(
            "Evaluation with LLaVA's scripts",
            f"""\
From LLaVA's repository, with its evaluation data under `playground/data/eval`; here TextVQA.

```sh
python -m llava.eval.model_vqa_loader --model-path {text} \\
    --question-file playground/data/eval/textvqa/llava_textvqa_val_v051_ocr.jsonl \\
    --image-folder playground/data/eval/textvqa/train_images \\
    --answers-file playground/data/eval/textvqa/answers/{folder}.jsonl \\
    --temperature 0 --conv-mode {mode}
python -m llava.eval.eval_textvqa \\
    --annotation-file playground/data/eval/textvqa/TextVQA_0.5.1_val.json \\
    --result-file playground/data/eval/textvqa/answers/{folder}.jsonl
```""",
        ),
        Usage(
            "Evaluation with lmms-eval",
            f"""\
Where LLaVA is installed beside it:

```sh
python -m lmms_eval --model llava --model_args pretrained={text},conv_template={mode} \\
    --tasks mme --batch_size 1
```""",
        ),
    ]


def llava_hf(config: Config) -> Sequence[Usage]:
    return [
        Usage(
            RELEASES,
            """\
```python
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

model = LlavaForConditionalGeneration.from_pretrained("DIR", torch_dtype="auto")
processor = AutoProcessor.from_pretrained("DIR")
turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}
prompt = processor.tokenizer.apply_chat_template(
    [turn], chat_template=open("DIR/chat_template.jinja").read(), tokenize=False, add_generation_prompt=True
)
inputs = processor(images=Image.open("cat.jpg"), text=prompt, return_tensors="pt")
print(processor.decode(model.generate(**inputs, max_new_tokens=64)[0], skip_special_tokens=True))
```

From 4.43 on `processor.apply_chat_template([turn], add_generation_prompt=True)` is enough for the prompt. Early
releases, such as 4.37, stop at `processor_config.json`, which later ones need; there the processor is
`LlavaProcessor(AutoImageProcessor.from_pretrained("DIR"), AutoTokenizer.from_pretrained("DIR"))`.""",
        ),
        Usage(
            "Evaluation with lmms-eval",
            """\
```sh
python -m lmms_eval --model llava_hf --model_args pretrained=DIR --tasks mme --batch_size 1
```""",
        ),
    ]
