"""Panoptic segmentation that decodes one image for longer than any lease lasts.

A small stage I decodes in a millisecond. Here it decodes the first image of the data set again
and again, as long as a large one would take: the worker must renew its lease meanwhile.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.example import Example
from rewardtune.datasets.images import decode_image
from rewardtune.datasets.view import view_image
from rewardtune.records import Score, View
from rewardtune.tasks.panoptic.task import PanopticTask
from tests.faults.slow_scoring import slowly

LONG_SECONDS = 4.0
"""Of decoding the image below."""
LONG_IMAGE_ID = 1


class SlowPanoptic(PanopticTask):
    def score(
        self, tokens_ST: NDArray[np.int32], example: Example, view: View, *, input_size: int
    ) -> Score:
        if example.image_id == LONG_IMAGE_ID:
            image_HWC = view_image(decode_image(example.image), view, input_size=input_size)
            until = time.monotonic() + LONG_SECONDS
            while time.monotonic() < until:
                self.codec.decode_panoptic(tokens_ST, image_HWC)
        return slowly(super().score(tokens_ST, example, view, input_size=input_size), tokens_ST)


TASK = SlowPanoptic
