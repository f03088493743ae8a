"""Tokens to pixels and labels to tokens, by a stage I that is mapped into memory once.

A code is a token less 1; token 0, which no annotation has, stands for the last code.

What a sequence decodes to depends on it, its image, and the settings alone: batches have one
shape, filled up with copies, and the number of threads is set for each call, whatever the
process does otherwise.

Axes: S sequences, U sequences of a batch, L codes of a sequence, H height, W width, T patches,
D width of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rewardtune.tasks.uvim.bfloat16_heads import BFloat16PanopticHeads
from rewardtune.tasks.uvim.bfloat16_trunk import BFloat16Trunk
from rewardtune.tasks.uvim.config import COLOUR, StageOneConfig
from rewardtune.tasks.uvim.panoptic_map import decode_panoptic
from rewardtune.tasks.uvim.patches import join_channels
from rewardtune.tasks.uvim.stage_one_file import LoadedStageOne, load_stage_one

Dtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class DecodeSettings:
    """What moves the bits of a decoded picture; part of the task's options."""

    dtype: Dtype = "float32"
    """Of the decoder's blocks and of the products for instance ids; classes and colours are always
    float32. bfloat16 copies the weights it uses: 2 bytes a value for each codec."""
    batch: int = 1
    """Sequences decoded together; fewer are filled up."""
    threads: int = 1


class StageOneCodec:
    """One stage I at work."""

    def __init__(self, loaded: LoadedStageOne, settings: DecodeSettings) -> None:
        self._network = loaded.network
        self._settings = settings
        self.class_names = loaded.class_names
        self.digest = loaded.digest
        decoder = self._network.decoder
        self._trunk: Callable[[Tensor], Tensor] = decoder.trunk.forward
        self._panoptic: Callable[..., Tensor] = partial(decode_panoptic, decoder)
        if settings.dtype == "bfloat16":
            # Packed on as many threads as will read it: their number decides how.
            with _threads(settings.threads):
                self._trunk = BFloat16Trunk(
                    decoder.trunk, batch=settings.batch, num_patches=self.config.num_patches
                )
                if self.config.kind == "panoptic":
                    self._panoptic = BFloat16PanopticHeads(decoder)

    @property
    def config(self) -> StageOneConfig:
        return self._network.config

    @property
    def vocab_size(self) -> int:
        return self.config.dict_size + 1

    @property
    def sequence_length(self) -> int:
        return self.config.code_length

    @torch.no_grad()
    def encode(
        self, labels: Mapping[str, NDArray[Any]], image_HWC: NDArray[np.float32]
    ) -> NDArray[np.int32]:
        """Tokens [L] of one picture's labels.

        Args:
            labels: for each output of the config, classes [H, W] or values [H, W, C].
            image_HWC: what the network sees beside them, in [-1, 1].
        """
        tensors = {name: torch.from_numpy(map_HW)[None] for name, map_HW in labels.items()}
        with _threads(self._settings.threads):
            code_1L = self._network.encode(tensors, torch.from_numpy(image_HWC)[None])
        return (code_1L[0] + 1).numpy().astype(np.int32)

    def decode_panoptic(
        self,
        tokens_SL: NDArray[np.int32],
        image_HWC: NDArray[np.float32],
        *,
        min_fraction: float = 0.0,
    ) -> NDArray[np.int32]:
        """Class and instance id at each pixel [S, H, W, 2]; class 0 is void.

        Raises:
            ValueError: tokens of another shape or vocabulary.
        """
        maps = [
            self._panoptic(state_UTD, min_fraction=min_fraction)
            for state_UTD in self._states(tokens_SL, image_HWC)
        ]
        size = self.config.input_size
        return torch.cat(maps).numpy() if maps else np.empty((0, size, size, 2), np.int32)

    def decode_colours(
        self, tokens_SL: NDArray[np.int32], image_HWC: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Pictures [S, H, W, 3] in [-1, 1].

        Raises:
            ValueError: tokens of another shape or vocabulary.
        """
        decoder = self._network.decoder
        pictures = [
            join_channels(decoder.heads[COLOUR](state_UTD), self.config.patch_size).clamp(-1, 1)
            for state_UTD in self._states(tokens_SL, image_HWC)
        ]
        size = self.config.input_size
        return torch.cat(pictures).numpy() if pictures else np.empty((0, size, size, 3), np.float32)

    def _states(
        self, tokens_SL: NDArray[np.int32], image_HWC: NDArray[np.float32]
    ) -> Iterator[Tensor]:
        """Decoder states of the sequences, some at a time; the image is embedded once."""
        codes_SL = torch.from_numpy(self._codes(tokens_SL))
        size = self._settings.batch
        with _threads(self._settings.threads), torch.no_grad():
            decoder = self._network.decoder
            context_1TD = decoder.context(torch.from_numpy(image_HWC)[None])
            for codes_UL in codes_SL.split(size):
                filled_UL = torch.cat([codes_UL, codes_UL[-1:].expand(size - len(codes_UL), -1)])
                codeword_ULE = self._network.codebook.lookup(filled_UL)
                state_UTD = self._trunk(decoder.embedded(codeword_ULE, context_1TD))
                yield state_UTD[: len(codes_UL)]

    def _codes(self, tokens_SL: NDArray[np.int32]) -> NDArray[np.int64]:
        if tokens_SL.ndim != 2 or tokens_SL.shape[1] != self.sequence_length:
            raise ValueError(
                f"sequences must be [S, {self.sequence_length}], got {list(tokens_SL.shape)}: "
                f"sampler and task must use the same stage I"
            )
        if tokens_SL.size and not 0 <= tokens_SL.min() <= tokens_SL.max() < self.vocab_size:
            raise ValueError(
                f"tokens must be in 0..{self.vocab_size - 1}, got {tokens_SL.min()}.."
                f"{tokens_SL.max()}: sampler and task must use the same stage I"
            )
        # Token 0 would be code -1: the last, as it is where the reference indexes by it.
        return (tokens_SL.astype(np.int64) - 1) % self.config.dict_size


def open_codec(path: Path, settings: DecodeSettings) -> StageOneCodec:
    """A stage I ready for work; the same one again for the same unchanged file.

    Raises:
        StageOneFileError: the file is missing, damaged, or no stage I.
    """
    try:
        facts = path.stat()
    except OSError:
        return StageOneCodec(load_stage_one(path), settings)  # says what is the matter
    return _opened(path.resolve(), facts.st_mtime_ns, facts.st_size, settings)


@cache
def _opened(path: Path, mtime: int, size: int, settings: DecodeSettings) -> StageOneCodec:
    return StageOneCodec(load_stage_one(path), settings)


@contextmanager
def _threads(wanted: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)
