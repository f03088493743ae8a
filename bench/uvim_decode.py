"""Core-seconds that one sample of the paper's panoptic stage I takes to decode, heads included.

``python -m bench.uvim_decode``: random weights at 512 px, on one thread, processor time, the best
of several; a dozen instance ids to a picture. Beside it, in the same process, what the machine's
matrix products reach. Prints the figures and writes ``uvim_decode.jsonl``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch

from bench.figure import Figure, figure, write
from tasks.uvim.codec import DecodeSettings, Dtype, StageOneCodec
from tasks.uvim.config import INSTANCES, SEMANTICS, StageOneConfig
from tasks.uvim.patches import PixelHead
from tasks.uvim.stage_one import StageOne
from tasks.uvim.stage_one_file import LoadedStageOne

RESULTS = Path(__file__).with_suffix(".jsonl")
NUM_IDS = 12
BATCHES = (1, 2)
TIMES = 3
_MATRIX = 2048

SIZES = StageOneConfig(
    input_size=512,
    patch_size=16,
    width=768,
    num_heads=12,
    mlp_width=3072,
    encoder_depth=1,  # does not decode
    decoder_depth=12,
    code_length=256,
    dict_size=4096,
    codeword_width=768,
    outputs={SEMANTICS: 134, INSTANCES: 100},
)


def random_stage_one(sizes: StageOneConfig) -> StageOne:
    """Every patch shows ``NUM_IDS`` instance ids, or all where there are fewer.

    Panoptic decoding looks at the ids that occur: a hundred of them, as heads without any bias
    give, never stand on one picture.
    """
    torch.manual_seed(0)
    network = StageOne(sizes).requires_grad_(False).eval()
    for name, head in network.decoder.heads.items():
        assert isinstance(head, PixelHead)
        torch.nn.init.normal_(head.kernel, std=0.02)
        if name == INSTANCES:
            num_ids, num_pixels = head.bias.shape
            pixel_P = torch.arange(num_pixels)
            head.bias[pixel_P % min(NUM_IDS, num_ids), pixel_P] = 100.0
    return network


def figures() -> Iterator[Figure]:
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (SIZES.input_size, SIZES.input_size, 3)).astype(np.float32)
    dtypes: tuple[Dtype, ...] = ("float32", "bfloat16")
    for dtype in dtypes:
        matrix = torch.randn(_MATRIX, _MATRIX).to(getattr(torch, dtype))
        product = _seconds(partial(torch.matmul, matrix, matrix), times=3 * TIMES)
        yield figure(
            f"uvim.matrix_product_{dtype}", product, amount=2e-9 * _MATRIX**3, unit="GFLOP/s"
        )
        for batch in BATCHES:
            tokens = rng.integers(1, SIZES.dict_size + 1, (batch, SIZES.code_length))
            loaded = LoadedStageOne(random_stage_one(SIZES), None, "random", {})
            codec = StageOneCodec(loaded, DecodeSettings(dtype=dtype, batch=batch))
            drawn = tokens.astype(np.int32)
            seconds = _seconds(partial(codec.decode_panoptic, drawn, image), times=TIMES)
            yield figure(
                f"uvim.decode_{dtype}_batch_{batch}", seconds / batch, unit="core s/sample"
            )


def _seconds(work: Callable[[], object], *, times: int) -> float:
    best = float("inf")
    for _ in range(times):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best


def main() -> None:
    torch.set_num_threads(1)
    found = []
    for one in figures():
        print(f"{one.name:<32} {one.value:8.3g} {one.unit}", flush=True)
        found.append(one)
    write(found, RESULTS)


if __name__ == "__main__":
    main()
