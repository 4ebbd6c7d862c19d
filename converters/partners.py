"""The formats of side a that every CS multimodal model is converted from and to."""

from __future__ import annotations

from . import llava_hf, llava_source

PARTNERS = (*llava_source.PARTNERS, llava_hf.PARTNER)
