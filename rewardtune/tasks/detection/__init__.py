"""Object detection: COCO-style boxes, the recall and mAP rewards, COCO AP."""

from rewardtune.tasks.detection.task import DetectionTask

TASK = DetectionTask
