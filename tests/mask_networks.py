"""Small random mask networks in the real architectures, saved as transformers saves them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import (
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    SamConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SwinConfig,
)
from transformers.models.mask2former.image_processing_pil_mask2former import (
    Mask2FormerImageProcessorPil,
)
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil


def segformer(folder: Path, names: Sequence[str], side: int = 64) -> Path:
    """A SegFormer that tells `names` apart by colour and place, at random."""
    torch.manual_seed(0)
    model = SegformerForSemanticSegmentation(
        SegformerConfig(
            num_encoder_blocks=4,
            depths=[1] * 4,
            hidden_sizes=[8, 8, 16, 16],
            num_attention_heads=[1, 1, 2, 2],
            decoder_hidden_size=8,
            id2label=dict(enumerate(names)),
        )
    )
    # One pass in training mode, so that the running statistics are not those of an untouched
    # BatchNorm, and a head that tells classes apart.
    model.train()(torch.randn(4, 3, side, side))
    torch.nn.init.normal_(model.decode_head.classifier.weight, std=1.0)
    model.save_pretrained(folder)
    SegformerImageProcessorPil(size={"height": side, "width": side}).save_pretrained(folder)
    return folder


def mask2former(folder: Path, names: Sequence[str], side: int = 64) -> Path:
    """A Mask2Former of a few queries on a Swin backbone."""
    torch.manual_seed(0)
    backbone = SwinConfig(
        image_size=side, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    model = Mask2FormerForUniversalSegmentation(
        Mask2FormerConfig(
            backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32,
            encoder_feedforward_dim=32, dim_feedforward=32, encoder_layers=1, decoder_layers=2,
            num_attention_heads=2, num_queries=6, id2label=dict(enumerate(names)),
        )
    )  # fmt: skip
    for value in model.parameters():
        if value.ndim > 1:
            torch.nn.init.normal_(value, std=0.3)
    model.save_pretrained(folder)
    Mask2FormerImageProcessorPil(size={"height": side, "width": side}).save_pretrained(folder)
    return folder


def sam(folder: Path, side: int = 64) -> Path:
    """A SAM that takes images of `side` pixels."""
    torch.manual_seed(0)
    vision = SamVisionConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=side, patch_size=8,
        output_channels=16, window_size=4, global_attn_indexes=[1], mlp_dim=32, num_pos_feats=8,
    )  # fmt: skip
    prompt = SamPromptEncoderConfig(
        hidden_size=16, image_size=side, patch_size=8, mask_input_channels=4
    )
    decoder = SamMaskDecoderConfig(
        hidden_size=16, mlp_dim=32, num_hidden_layers=1, num_attention_heads=2,
        iou_head_hidden_dim=16,
    )  # fmt: skip
    model = SamModel(
        SamConfig(
            vision_config=vision.to_dict(),
            prompt_encoder_config=prompt.to_dict(),
            mask_decoder_config=decoder.to_dict(),
        )
    )
    for name, value in model.named_parameters():
        if value.ndim > 1 and "positional" not in name:
            torch.nn.init.normal_(value, std=0.3)
    model.save_pretrained(folder)
    SamImageProcessorPil(
        size={"longest_edge": side}, pad_size={"height": side, "width": side}
    ).save_pretrained(folder)
    return folder
