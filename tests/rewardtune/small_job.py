"""The config of a job that a test starts by the command line: a tiny detector, as a file has it."""

from __future__ import annotations

from pathlib import Path

_CONFIG = """
task = "{task}"
mode = "tune"
task_options = {{ max_boxes = 3 }}
data = {{ train = "{data}/train" }}
policy = {{ checkpoint = "{policy}" }}
compute = {{ device = "cpu", threads = 1 }}
sampler = {{ num_samples = 2, micro_batch = 4 }}

[cluster]
num_reward_workers = 1
metrics_port = 0

[operations]
progress = false
checkpoint_every = 100000

[learner]
batch_size = 4
micro_batch = 4
num_steps = {num_steps}
estimator = "leave_one_out"
optimizer = {{ kind = "adamw", learning_rate = 1e-3 }}
"""


def small_job(
    data: Path,
    policy: Path,
    *,
    num_steps: int,
    task: str = "detection",
    queue: str | None = None,
    directory: Path | None = None,
) -> str:
    """TOML; a checkpoint is written where the run ends, and not before.

    Args:
        queue, directory: left to the command where they are None.
    """
    text = _CONFIG.format(task=task, data=data, policy=policy, num_steps=num_steps)
    if queue is not None:
        text = text.replace("[cluster]\n", f'[cluster]\nqueue = "{queue}"\n')
    if directory is not None:
        text = text.replace("[operations]\n", f'[operations]\ndirectory = "{directory}"\n')
    return text
