"""A weight manifest as JSON, for stores made of files."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardtune.records import CanaryLogProbs, Published, TensorLayout, WeightManifest


def manifest_to_json(manifest: WeightManifest) -> str:
    canary = manifest.canary
    return json.dumps(
        {
            "term": manifest.published.term,
            "policy_version": manifest.published.policy_version,
            "digest": manifest.digest,
            "num_bytes": manifest.num_bytes,
            "tensors": [asdict(tensor) for tensor in manifest.tensors],
            "canary": None
            if canary is None
            else {
                "ordinals": list(canary.ordinals),
                "tokens": _array_to_json(canary.tokens_GST.astype("<i4")),
                "log_probs": _array_to_json(canary.log_probs_GST.astype("<f4")),
            },
        }
    )


def manifest_from_json(text: str) -> WeightManifest:
    """Raises:
    ValueError: this is no manifest.
    """
    try:
        read = json.loads(text)
        return WeightManifest(
            published=Published(int(read["term"]), int(read["policy_version"])),
            digest=str(read["digest"]),
            num_bytes=int(read["num_bytes"]),
            tensors=tuple(_layout_from_json(tensor) for tensor in read["tensors"]),
            canary=_canary_from_json(read["canary"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _layout_from_json(read: dict[str, Any]) -> TensorLayout:
    return TensorLayout(
        name=str(read["name"]),
        dtype=str(read["dtype"]),
        shape=tuple(int(size) for size in read["shape"]),
        offset=int(read["offset"]),
        num_bytes=int(read["num_bytes"]),
    )


def _canary_from_json(read: dict[str, Any] | None) -> CanaryLogProbs | None:
    if read is None:
        return None
    return CanaryLogProbs(
        ordinals=tuple(int(ordinal) for ordinal in read["ordinals"]),
        tokens_GST=_array_from_json(read["tokens"], np.dtype("<i4")),
        log_probs_GST=_array_from_json(read["log_probs"], np.dtype("<f4")),
    )


def _array_to_json(array: NDArray[Any]) -> dict[str, Any]:
    return {"shape": list(array.shape), "bytes": base64.b64encode(array.tobytes()).decode()}


def _array_from_json(read: dict[str, Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(read["bytes"]), dtype).reshape(read["shape"]).copy()
