"""Texts as the tokens of a CLIP model, apart from its weights: whether a text fits is known before
anything is loaded.
"""

from __future__ import annotations

from typing import Any

from lib.models.transformers_folder import TransformersFolder
from lib.problems import ConfigProblem, ModelProblem


class TextTokens:
    """A tokenizer that refuses what it would cut."""

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = min(max_tokens, int(tokenizer.model_max_length))

    def read(self, text: str) -> list[int]:
        """Token numbers of a text, with those of its beginning and end.

        Raises:
            ConfigProblem: the text is empty or longer than the model can read.
        """
        if not text.strip():
            raise ConfigProblem("text guidance: expected a text, got an empty one")
        tokens: list[int] = self._tokenizer(text)["input_ids"]
        if len(tokens) > self._max_tokens:
            raise ConfigProblem(
                f"text guidance: the text {text[:40]!r}… has {len(tokens)} tokens, the model reads"
                f" {self._max_tokens}; shorten it"
            )
        return tokens


def load_text_tokens(found: TransformersFolder) -> TextTokens:
    """The tokenizer of a CLIP folder, and its length of texts from config.json; no weights.

    Raises:
        ModelProblem: the tokenizer cannot be read.
    """
    from transformers import AutoConfig, CLIPTokenizer

    try:
        config = AutoConfig.from_pretrained(
            str(found.folder), local_files_only=True, trust_remote_code=False
        )
        tokenizer = CLIPTokenizer.from_pretrained(
            str(found.folder), local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelProblem(
            f"{found.folder}: expected a CLIP tokenizer, got: {' '.join(str(error).split()[:50])}"
        ) from error
    return TextTokens(tokenizer, int(config.text_config.max_position_embeddings))
