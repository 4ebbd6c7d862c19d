"""The tokens that follow a prompt, one at a time: the likeliest each time, or drawn.

Shape letters: S positions of the prompt, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from mmconvert.errors import UsageError
from mmsimple.cache import KeyValueCache
from mmsimple.model import Batch, MultimodalModel


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen from its logits; with a `temperature` of 0 it is the likeliest.

    Otherwise logits are divided by the temperature, and one is drawn of the `top_k` likeliest (None: all) that together
    have `top_p` of the probability; `seed` makes the draws the same every time.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise UsageError for numbers that say nothing: NaN is neither more nor less than anything."""
        if not 0 <= self.temperature < inf:
            raise UsageError(f"temperature {self.temperature}: must be a number from 0 on")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p {self.top_p}: must be above 0 and at most 1")


GREEDY = Sampling()


def generate(
    model: MultimodalModel,
    prompt: Batch,
    *,
    max_new_tokens: int,
    eos_ids: Collection[int] = (),
    sampling: Sampling = GREEDY,
) -> Iterator[int]:
    """The token ids that follow the one sample of a batch, which has no padding; after one of `eos_ids`, no more.

    Ends earlier where the model has no more positions. Raises ValueError for a prompt that is longer than that.
    """
    length = prompt.text_input_ids.shape[1]
    longest = model.config.text_model.max_position_embeddings
    if length > longest:
        raise ValueError(f"the prompt takes {length} positions, and the model has {longest}")
    # The last token is not read again.
    count = min(max_new_tokens, longest - length + 1)
    cache = KeyValueCache(model.config.text_model.num_hidden_layers, length + count - 1)
    device = prompt.text_input_ids.device
    generator = torch.Generator(device).manual_seed(sampling.seed)
    logits = _next_logits(model, prompt, cache)
    for number in range(1, count + 1):
        chosen = choose(logits, sampling, generator)
        yield chosen
        if chosen in eos_ids or number == count:
            return
        token = torch.tensor([[chosen]], device=device)
        logits = _next_logits(model, Batch(token, token_modality_idx=torch.zeros_like(token)), cache)


@torch.inference_mode()
def _next_logits(model: MultimodalModel, batch: Batch, cache: KeyValueCache) -> Tensor:
    """Logits [V] in float32 of what follows the last position of a batch."""
    hidden_states = model.hidden_states(batch, cache)  # [1, S, H]
    logits: Tensor = model.text_model.lm_head(hidden_states[0, -1])
    return logits.float()


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """A token id by its logits, [V]."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    # In float64, with the largest at 0, no temperature leaves what can be computed with.
    logits = (logits.double() - logits.max()) / sampling.temperature
    if sampling.top_k is not None:
        least = logits.topk(min(sampling.top_k, len(logits))).values[-1]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p < 1:
        ordered, places = logits.softmax(-1).sort(descending=True)
        # The one that reaches the share belongs to them; the likeliest always does.
        before = ordered.cumsum(-1) - ordered
        logits = logits.index_fill(0, places[1:][before[1:] >= sampling.top_p], -torch.inf)
    return int(logits.softmax(-1).multinomial(1, generator=generator))
