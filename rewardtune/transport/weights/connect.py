"""From a URL to the weight store behind it.

``ray://NAMESPACE/NAME`` names an actor of the Ray cluster that this process belongs to,
``file://PATH`` a folder.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from rewardtune.transport.weights.file_weights import FileWeightStore
from rewardtune.transport.weights.weight_store import WeightStore


def connect_weights(url: str) -> WeightStore:
    """A weight store that exists already.

    Raises:
        ValueError: no such kind of URL.
    """
    parts = urlsplit(url)
    if parts.scheme == "ray":
        from rewardtune.transport.weights.ray_weights import join_ray_weights

        return join_ray_weights(parts.path.lstrip("/"), parts.netloc)
    if parts.scheme == "file":
        return FileWeightStore(Path(parts.path))
    raise ValueError(f"'{url}' names no weight store: use ray://NAMESPACE/NAME, or file:///FOLDER")
