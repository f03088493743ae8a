"""Colorization: pictures from their grey versions, rewarded for vivid and diverse colour."""

from rewardtune.tasks.colorization.task import ColorizationTask

TASK = ColorizationTask
