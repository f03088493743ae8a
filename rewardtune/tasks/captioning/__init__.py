"""Captioning: word pieces, CIDEr-D as reward, the metrics of the COCO caption server."""

from rewardtune.tasks.captioning.task import CaptioningTask

TASK = CaptioningTask
