"""Panoptic segmentation: official panoptic quality, COCO's files, the per-image reward."""

from tasks.panoptic.task import PanopticTask

TASK = PanopticTask
