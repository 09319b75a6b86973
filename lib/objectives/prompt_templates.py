"""Sentences that a text is put into: the mean over several describes what is meant and less how it
was worded (Radford et al. 2021). No torch, so that a config can be checked in a light process.
"""

from __future__ import annotations

PLAIN = ("{}",)
"""The text as it is."""
IMAGENET = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of my {}.",
    "a photo of one {}.",
    "a good photo of a {}.",
    "a good photo of the {}.",
    "a bad photo of a {}.",
    "a bright photo of a {}.",
    "a dark photo of the {}.",
    "a close-up photo of a {}.",
    "a cropped photo of the {}.",
    "a blurry photo of a {}.",
    "a low resolution photo of a {}.",
    "a black and white photo of the {}.",
    "a jpeg corrupted photo of a {}.",
    "a rendering of a {}.",
    "a painting of the {}.",
    "a drawing of a {}.",
)
"""Of those that OpenAI wrote for ImageNet's classes, the ones that also fit faces and scenes."""
NAMED = {"imagenet": IMAGENET}
"""Sets that a config may name."""


def filled(templates: tuple[str, ...], text: str) -> tuple[str, ...]:
    """The text in each template, at its `{}`."""
    return tuple(template.replace("{}", text) for template in templates)
