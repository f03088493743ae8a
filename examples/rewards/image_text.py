"""A pretrained image-text scorer of transformers: how well the words fit the picture.

The weights are a folder on disk, as ``save_pretrained`` wrote it (a CLIP model with its tokenizer
and image processor, say); nothing is downloaded. In a run's config::

    [reward]
    sum = { task = 1.0, fits = 0.5 }

    [reward.parts.fits]
    use = "image_text:ImageTextFit"
    options = { model = "models/clip-vit-base-patch32" }

Predictions may be captions, or detected boxes, whose names are put into a sentence. Reward
workers then need torch and transformers: ``pip install rewardtune[torch,huggingface]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from rewardtune.datasets.example import Example
from rewardtune.datasets.images import decode_image


class ImageTextFit:
    """The cosine between a picture's and a text's embedding, in [-1, 1]. Loads once."""

    def __init__(self, *, model: str) -> None:
        self._model = AutoModel.from_pretrained(model, local_files_only=True).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
        self._images = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            model, local_files_only=True, backend="pil"
        )

    @staticmethod
    def artefacts(options: Mapping[str, Any]) -> Mapping[str, Path]:
        """By what it holds the model is part of the run's identity, wherever it lies."""
        return {"model": Path(options["model"])}

    @torch.no_grad()
    def __call__(self, predictions: Sequence[Any], example: Example) -> NDArray[np.float64]:
        image = Image.fromarray(decode_image(example.image))
        pixels = self._images(images=image, return_tensors="pt")
        texts = [_sentence(prediction) for prediction in predictions]
        tokens = self._tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        found = self._model(**tokens, **pixels)
        image_D = torch.nn.functional.normalize(found.image_embeds, dim=-1)[0]
        text_SD = torch.nn.functional.normalize(found.text_embeds, dim=-1)
        cosine_S: NDArray[np.float64] = (text_SD @ image_D).double().numpy()
        return cosine_S


def _sentence(prediction: Any) -> str:
    if isinstance(prediction, str):
        return prediction
    names = sorted(box.name for box in prediction)
    return f"a photo of {', '.join(names)}" if names else "a photo of nothing"
