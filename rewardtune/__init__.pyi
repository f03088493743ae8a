from rewardtune.config.config_file import load_config as load_config
from rewardtune.config.run_config import RunConfig as RunConfig
from rewardtune.datasets.shards.dataset import open_dataset as open_dataset
from rewardtune.evaluation.evaluate import evaluate_policy as evaluate
from rewardtune.evaluation.results_files import score as score
from rewardtune.policies.policy_file import load_policy as load_policy
from rewardtune.run.local import pretrain as pretrain
from rewardtune.run.local import tune as tune
from rewardtune.run.log import open_run_log as open_run_log
from rewardtune.tasks.task import load_task as load_task

__all__ = [
    "RunConfig",
    "evaluate",
    "load_config",
    "load_policy",
    "load_task",
    "open_dataset",
    "open_run_log",
    "pretrain",
    "score",
    "tune",
]
