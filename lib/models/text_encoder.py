"""Prompts as a U-Net takes them: the text encoder's last hidden states, computed once at start.

Shape suffixes: M tokens, E entries of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lib.models.checkpoint import Text
from lib.models.conditioning import load_tokenizer, max_tokens
from lib.models.transformers_folder import TransformersFolder
from lib.models.transformers_weights import load_weights


@torch.no_grad()
def prompt_embeddings(text: Text, prompts: Sequence[str]) -> list[Tensor]:
    """(1, M, E) for every prompt, float32, CPU: padded to the encoder's length, after its final
    layer norm, as Stable Diffusion was trained. The encoder is freed again.

    Raises:
        ModelProblem: the tokenizer or the encoder's weights cannot be read or do not fit.
    """
    from transformers import CLIPTextModel

    part = text.encoder
    found = TransformersFolder(part.folder, part.config, part.weights, text.files)
    encoder = load_weights(CLIPTextModel, found, "a CLIP text encoder")
    tokenizer = load_tokenizer(text)
    length = max_tokens(text, tokenizer)
    embeddings = []
    for prompt in prompts:
        tokens = tokenizer(
            prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        mask = tokens.attention_mask if part.config.get("use_attention_mask") else None
        embeddings.append(encoder(tokens.input_ids, attention_mask=mask)[0].float())
    return embeddings
