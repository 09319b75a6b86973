"""Images as the image models of transformers want them: through the model's own processor.

They go in as 8-bit pictures, with PIL resampling: the published codes fed [-1, 1] images to
networks trained on normalised [0, 1] ones, and their scores were unreliable.

Shape suffixes: B batch, C colours, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lib.models.transformers_folder import TransformersFolder
from lib.models.transformers_weights import brief
from lib.problems import ModelProblem


class ImageProcessor:
    """The processor of a folder; raises ModelProblem where it cannot run on PIL."""

    def __init__(self, found: TransformersFolder) -> None:
        from transformers import AutoConfig, AutoImageProcessor

        local = {"local_files_only": True, "trust_remote_code": False}
        try:
            # With the config, a processor of a name that is no more (SegformerFeatureExtractor, in
            # many face parsers) is found by the kind of model.
            config = AutoConfig.from_pretrained(str(found.folder), **local)
            # The PIL backend also where torchvision is installed: scores must not depend on that.
            self._processor = AutoImageProcessor.from_pretrained(
                str(found.folder), config=config, backend="pil", **local
            )
        except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
            raise ModelProblem(
                f"{found.folder}: expected an image processor that runs on PIL, got: {brief(error)}"
            ) from error

    def setting(self, name: str) -> object:
        """A key of its configuration; None where it has none of that name."""
        return self._processor.to_dict().get(name)

    def semantic_labels(self, answer: object, sizes: Sequence[tuple[int, ...]]) -> Tensor:
        """labels_BHW int64 on the CPU: the class at every pixel of images of `sizes`, of the
        answer of a segmenter; raises ModelProblem where the processor cannot tell.
        """
        decode = getattr(self._processor, "post_process_semantic_segmentation", None)
        if decode is None:
            raise ModelProblem(
                f"{type(self._processor).__name__}: expected a processor of a semantic segmenter,"
                " which turns scores into classes"
            )
        maps = decode(answer, target_sizes=list(sizes))
        return torch.stack([labels_HW.cpu() for labels_HW in maps])

    def __call__(self, image_BCHW: Tensor) -> Tensor:
        """pixels_BCHW float32 on the CPU, of RGB images in [-1, 1], which are rounded to 8 bits;
        raises ValueError unless they are finite RGB batches.
        """
        check_images(image_BCHW)
        bytes_BCHW = (image_BCHW.detach().cpu() + 1).mul(127.5).round().clamp(0, 255).byte()
        pictures = list(bytes_BCHW.permute(0, 2, 3, 1).contiguous().numpy())
        pixels_BCHW: Tensor = self._processor(
            images=pictures, return_tensors="pt", input_data_format="channels_last"
        )["pixel_values"]
        return pixels_BCHW.float()


def check_images(image_BCHW: Tensor) -> None:
    """Raises ValueError unless they are finite RGB batches."""
    if image_BCHW.ndim != 4 or image_BCHW.shape[1] != 3:
        raise ValueError(f"expected images (B, 3, H, W), got {tuple(image_BCHW.shape)}")
    if not bool(torch.isfinite(image_BCHW).all()):
        raise ValueError("expected finite images for the model, got NaN or infinity")
