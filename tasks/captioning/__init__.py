"""Captioning: word pieces, CIDEr-D as reward, the metrics of the COCO caption server."""

from tasks.captioning.task import CaptioningTask

TASK = CaptioningTask
