"""Core-seconds that one sample of the paper's panoptic stage I takes to decode, heads included.

``python -m bench.uvim.decode``: random weights at 512 px, on one thread, processor time, the best
of several; a dozen instance ids to a picture. In turns with it, what the machine's matrix products
reach: a sample's floor is the time of its products at that rate. Prints the figures and writes
``uvim_decode.jsonl``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch

from bench.figure import EVIDENCE, Figure, figure, write
from rewardtune.tasks.uvim.codec import DecodeSettings, Dtype, StageOneCodec
from rewardtune.tasks.uvim.config import INSTANCES, SEMANTICS, StageOneConfig
from rewardtune.tasks.uvim.patches import PixelHead
from rewardtune.tasks.uvim.stage_one import StageOne
from rewardtune.tasks.uvim.stage_one_file import LoadedStageOne

RESULTS = EVIDENCE / "bench" / "uvim_decode.jsonl"
NUM_IDS = 12
BATCHES = (1, 2, 8)
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
        work: dict[str, Callable[[], object]] = {"product": partial(torch.matmul, matrix, matrix)}
        for batch in BATCHES:
            tokens = rng.integers(1, SIZES.dict_size + 1, (batch, SIZES.code_length))
            loaded = LoadedStageOne(random_stage_one(SIZES), None, "random", {})
            codec = StageOneCodec(loaded, DecodeSettings(dtype=dtype, batch=batch))
            work[str(batch)] = partial(codec.decode_panoptic, tokens.astype(np.int32), image)
        seconds = _seconds(work)
        product = seconds["product"]
        amount = 2e-9 * _MATRIX**3
        yield figure(f"uvim.matrix_product_{dtype}", product, amount=amount, unit="GFLOP/s")
        for batch in BATCHES:
            yield figure(
                f"uvim.decode_{dtype}_batch_{batch}",
                seconds[str(batch)] / batch,
                unit="core s/sample",
                floor_seconds=gflop(SIZES, batch=batch) / amount * product,
            )


def gflop(sizes: StageOneConfig, *, batch: int) -> float:
    """Of the products that a sample takes: blocks, stem, the image's share, ids, classes.

    Sums of states, which give the classes, are not among them: there are ways without products.
    """
    width, patches, pixels = sizes.width, sizes.num_patches, sizes.patch_size**2
    of_a_patch = 4 * width * width + 2 * width * sizes.mlp_width + 2 * patches * width
    blocks = sizes.decoder_depth * patches * of_a_patch
    stem = sizes.code_length * sizes.codeword_width * width
    context = patches * 3 * pixels * width / batch
    ids = patches * width * sizes.outputs[INSTANCES] * pixels
    classes = NUM_IDS * width * sizes.outputs[SEMANTICS] * pixels
    return 2e-9 * (blocks + stem + context + ids + classes)


def _seconds(work: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The least of each, taken in turns: what else the machine does then slows all alike."""
    best = dict.fromkeys(work, float("inf"))
    for _ in range(TIMES):
        for name, way in work.items():
            for _ in range(3 if name == "product" else 1):
                started = time.process_time()
                way()
                best[name] = min(best[name], time.process_time() - started)
    return best


def main() -> None:
    torch.set_num_threads(1)
    found = []
    for one in figures():
        share = "" if one.of_floor is None else f", {one.of_floor:.1%} of the products' rate"
        print(f"{one.name:<32} {one.value:8.3g} {one.unit}{share}", flush=True)
        found.append(one)
    write(found, RESULTS)


if __name__ == "__main__":
    main()
