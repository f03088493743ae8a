"""Four points of every object: where it ends at the top, left, bottom and right."""

from keypoints.task import KeypointTask

TASK = KeypointTask
