"""What a data set on disk consists of, in its ``manifest.json``."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rewardtune.datasets.example import Category

MANIFEST_NAME = "manifest.json"


class DatasetError(ValueError):
    """A data set on disk is missing, damaged, or not what its manifest says."""


class ShardInfo(BaseModel):
    """One shard, as the manifest lists it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^shard-\d+\.arrow$")
    num_examples: int
    num_bytes: int
    sha256: str


class Manifest(BaseModel):
    """What a data set consists of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    source: str
    """Where the examples came from, in words."""
    num_examples: int
    categories: tuple[Category, ...]
    shards: tuple[ShardInfo, ...]

    @functools.cached_property
    def digest(self) -> str:
        """Names the data set's content: sha256 of the manifest as canonical JSON."""
        return hashlib.sha256(
            json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()


def read_manifest(path: Path) -> Manifest:
    """The manifest in a data set's folder.

    Raises:
        DatasetError: there is none, or it contradicts itself.
    """
    file = path / MANIFEST_NAME
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        what = "has no manifest.json" if path.is_dir() else "does not exist"
        raise DatasetError(
            f"{path} {what}: expected a data set made by 'rewardtune data' "
            "(a conversion that failed leaves none)"
        ) from None
    except UnicodeDecodeError:
        raise DatasetError(
            f"{file} is no manifest of a data set (it is not text in UTF-8): convert the data set "
            "anew"
        ) from None
    try:
        content = json.loads(text)
        version = content.get("format_version") if isinstance(content, dict) else None
        if isinstance(version, int) and version != 1:
            raise DatasetError(
                f"{file} has format version {version}, this program reads version 1: "
                "convert the data set anew, or use the program that wrote it"
            )
        manifest = Manifest.model_validate(content)
    except (json.JSONDecodeError, RecursionError, ValidationError) as error:
        reason = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise DatasetError(
            f"{file} is no manifest of a data set ({reason}): convert the data set anew"
        ) from error
    if sum(shard.num_examples for shard in manifest.shards) != manifest.num_examples:
        raise DatasetError(
            f"{file} says {manifest.num_examples} examples, but its shards hold "
            f"{sum(shard.num_examples for shard in manifest.shards)}: convert the data set anew"
        )
    return manifest
