from rewardtune.tasks.probe import ProbedTask as ProbedTask
from rewardtune.tasks.results_files import ResultsTask as ResultsTask
from rewardtune.tasks.task import BoundedTask as BoundedTask
from rewardtune.tasks.task import CuttingTask as CuttingTask
from rewardtune.tasks.task import InputTask as InputTask
from rewardtune.tasks.task import PicturedTask as PicturedTask
from rewardtune.tasks.task import Task as Task
from rewardtune.tasks.task import TokenRewardsTask as TokenRewardsTask
from rewardtune.tasks.task import load_task as load_task

__all__ = [
    "BoundedTask",
    "CuttingTask",
    "InputTask",
    "PicturedTask",
    "ProbedTask",
    "ResultsTask",
    "Task",
    "TokenRewardsTask",
    "load_task",
]
