"""What a U-Net is told besides the image: a prompt, and how strongly to follow it.

No torch here, so that `plan` refuses a prompt that the model cannot take.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lib.models.checkpoint import Checkpoint, Text
from lib.problems import ConfigProblem, ModelProblem


@dataclass(frozen=True, slots=True)
class Conditioning:
    """Nothing at all for an unconditional model; the empty prompt for one that takes text."""

    prompt: str = ""
    negative_prompt: str = ""
    """In the place of the empty prompt in guidance."""
    guidance_scale: float = 1.0
    """g in eps_u + g (eps_c - eps_u); 1 is the prompt alone."""

    @property
    def passes(self) -> int:
        """Network passes an evaluation."""
        return 1 if self.guidance_scale == 1.0 else 2


UNCONDITIONED = Conditioning()


def check_conditioning(checkpoint: Checkpoint, conditioning: Conditioning) -> None:
    """Whether the checkpoint can be conditioned so.

    Raises:
        ConfigProblem: a prompt or guidance for a model that takes none, a prompt that is longer
            than the text encoder reads, or guidance between equal prompts.
        ModelProblem: the tokenizer cannot be read.
    """
    if checkpoint.text is None:
        given = {
            "prompt": conditioning.prompt,
            "negative_prompt": conditioning.negative_prompt,
            "guidance_scale": conditioning.guidance_scale if conditioning.passes > 1 else None,
        }
        for key, value in given.items():
            if value:
                raise ConfigProblem(
                    f"model.{key}: {checkpoint.folder} is an unconditional model, which takes no"
                    f" prompt and no guidance; expected no {key}, got {value!r}"
                )
        return
    if conditioning.passes > 1 and conditioning.prompt == conditioning.negative_prompt:
        raise ConfigProblem(
            "model.guidance_scale: guidance leads from negative_prompt to prompt, and both are"
            f" {conditioning.prompt!r}; expected different ones, or guidance_scale 1"
        )
    if conditioning.passes == 1 and conditioning.negative_prompt:
        raise ConfigProblem(
            "model.negative_prompt: without guidance it is not used; expected guidance_scale above"
            " 1, or no negative_prompt"
        )
    for key in ("prompt", "negative_prompt"):
        if text := getattr(conditioning, key):
            _expect_short(checkpoint.text, key, text)


def load_tokenizer(text: Text) -> Any:
    """transformers' CLIPTokenizer of the checkpoint; raises ModelProblem if it cannot be read."""
    from transformers import CLIPTokenizer

    try:
        return CLIPTokenizer.from_pretrained(str(text.tokenizer), local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelProblem(
            f"{text.tokenizer}: expected the files of a CLIP tokenizer, got:"
            f" {' '.join(str(error).split()[:40])}"
        ) from error


def max_tokens(text: Text, tokenizer: Any) -> int:
    """Tokens of a prompt with its two ends: what the encoder was trained on."""
    return min(int(tokenizer.model_max_length), text.encoder.number("max_position_embeddings", 77))


def _expect_short(text: Text, key: str, prompt: str) -> None:
    tokenizer = load_tokenizer(text)
    count, most = len(tokenizer(prompt).input_ids), max_tokens(text, tokenizer)
    if count > most:
        raise ConfigProblem(
            f"model.{key}: expected at most {most} tokens with the two that mark its ends, got"
            f" {count}; the text encoder reads no further"
        )
