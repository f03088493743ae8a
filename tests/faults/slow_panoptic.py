"""Panoptic segmentation that decodes one image for longer than any lease lasts.

A small stage I decodes in a millisecond. Here it decodes the first image of the data set again
and again, as long as a large one would take: the worker must renew its lease meanwhile.
"""

from __future__ import annotations

import time

from rewardtune.datasets.frame import Framed, view_image
from rewardtune.datasets.images import decode_image
from rewardtune.records import Score
from rewardtune.tasks.panoptic.task import Maps, PanopticTask
from tests.faults.slow_scoring import slowly

LONG_SECONDS = 4.0
"""Of decoding the image below."""
LONG_IMAGE_ID = 1


class SlowPanoptic(PanopticTask):
    def score(self, decoded: Maps, framed: Framed) -> Score:
        if framed.example.image_id == LONG_IMAGE_ID:
            image_HWC = view_image(decode_image(framed.example.image), framed.frame)
            until = time.monotonic() + LONG_SECONDS
            while time.monotonic() < until:
                self.codec.decode_panoptic(decoded.tokens_ST, image_HWC)
        return slowly(super().score(decoded, framed), decoded.tokens_ST)


TASK = SlowPanoptic
