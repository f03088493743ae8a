"""Panoptic segmentation: official panoptic quality, COCO's files, the per-image reward."""

from rewardtune.tasks.panoptic.task import PanopticTask

TASK = PanopticTask
