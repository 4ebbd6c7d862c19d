"""The chat template of llava-hf exports: LLaVA 1.5's turns, with the tokens that its own tools give.

These tools tokenize what stands around a picture in pieces, and a piece begins with a space. In transformers one after
`<image>` begins so only where the tokenizer is `legacy`; else the space must be said.
"""

from __future__ import annotations

# As Vicuna was trained; pictures stand where they are given.
VICUNA = """\
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}{{ said(message) }}{{ ' ' }}
{%- elif message['role'] == 'user' -%}USER: {{ said(message) }}{{ ' ' }}
{%- else -%}ASSISTANT: {{ said(message) }}{{ '</s>' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}ASSISTANT:{%- endif -%}
"""
MISTRAL = """\
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}[INST] {{ said(message) }} [/INST]{{ ' ' }}
{%- elif message['role'] == 'user' -%}[INST] {{ said(message) }} [/INST]
{%- else -%}{{ ' ' }}{{ said(message) }}{{ '</s>' }}
{%- endif -%}
{%- endfor -%}
"""
# Content is a string, or a list of parts, of which some are pictures.
SAID = """\
{%- macro said(message) -%}
{%- if message['content'] is string -%}{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{ '<image>\\n' }}
{%- elif part['type'] == 'text' -%}{{ part['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
"""


def chat_template(*, mistral: bool, space: bool, end: str) -> bytes:
    """The template for a Vicuna or LLaMA, or for a `mistral`, with a `space` after each picture or without.

    `end` is the token that ends an answer.
    """
    said = SAID.replace("<image>", "<image> ") if space else SAID
    turns = MISTRAL if mistral else VICUNA
    return (said + turns.replace("'</s>'", repr(end))).encode()
