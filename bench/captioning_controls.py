"""Whether the digit captioner's gain is REINFORCE's own: tuned, and what else one could do.

``python -m bench.captioning_controls`` makes every run that is not there yet under
``runs/captioning_controls`` (three seeds each, about 25 minutes on one core), measures all on the
validation scenes and writes ``bench/captioning_controls.jsonl``. Decoding is chosen on the holdout
scenes. Needs the scenes that ``make demo-captioning`` writes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from policies.draw import GREEDY, Decoding
from rewardtune.config import RunConfig
from rewardtune.config_file import load_config
from rewardtune.demo_table import caption_facts
from rewardtune.evaluation import evaluate_policy
from rewardtune.local import pretrain, tune
from rewardtune.machine import machine
from rewardtune.predict import policy_for_data
from rewardtune.run_log import open_run_log
from tasks.shards import open_dataset

OUTPUT = Path(__file__).with_name("captioning_controls.jsonl")
RUNS = Path("runs/captioning_controls")
TUNE = Path("configs/digits_captioning_cider.toml")
CONTINUED = Path("configs/digits_captioning_mle_continued.toml")
NO_ENDS = (
    "task_options.scores_end=false",
    "task_options.document_frequencies=data/digits_captions/frequencies.arrow",
)
SEEDS = (0, 1, 2)
DECODINGS = {
    **{f"temperature {t}": Decoding(temperature=t) for t in (0.25, 0.5, 0.75, 1.0)},
    **{f"top-p {p}": Decoding(top_p=p) for p in (0.5, 0.8, 0.9, 0.95)},
}


def main() -> None:
    config = load_config(TUNE)
    start = config.policy.checkpoint
    assert start is not None and config.data.holdout and config.data.validation
    rows: list[dict[str, object]] = []

    def add(row: str, policies: Sequence[Path], decoding: Decoding = GREEDY) -> None:
        found = [
            _measured(config, policy, config.data.validation, decoding, seed=seed)
            for seed, policy in enumerate(policies)
        ]
        rows.append({"row": row, **_means(found), "seeds": len(found)})
        print(json.dumps(rows[-1]), flush=True)

    add("likelihood", [start])
    scores = {
        name: _measured(config, start, config.data.holdout, decoding)["cider_d"]
        for name, decoding in DECODINGS.items()
    }
    best = max(scores, key=lambda name: scores[name])
    print("on the holdout scenes:", json.dumps(scores), flush=True)
    add(f"likelihood, {best}", [start] * len(SEEDS), DECODINGS[best])
    for name, path, changes in (
        ("likelihood continued", CONTINUED, ()),
        ("tuned, ends scored", TUNE, ()),
        ("tuned, ends not scored", TUNE, NO_ENDS),
    ):
        add(name, [_policy_of(name, path, changes, seed) for seed in SEEDS])
    for row in rows:
        row["machine"] = machine()
    OUTPUT.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def _policy_of(name: str, path: Path, changes: Sequence[str], seed: int) -> Path:
    """After the last step, so that nothing is chosen."""
    directory = RUNS / name.replace(",", "").replace(" ", "_") / str(seed)
    config = load_config(path, [*changes, f"seed={seed}", f"operations.directory={directory}"])
    start = pretrain if config.mode == "pretrain" else tune
    with contextlib.closing(open_run_log(config, config.learner.num_steps)) as log:
        start(config, log)
    return directory / "policy.safetensors"


def _measured(
    config: RunConfig, policy: Path, data: Path | None, decoding: Decoding, *, seed: int = 0
) -> dict[str, float]:
    assert data is not None
    scenes = open_dataset(data)
    ready = policy_for_data(
        policy,
        open_dataset(config.data.train),
        task=config.task,
        options=config.task_options,
        threads=config.compute.threads,
    )
    evaluation = evaluate_policy(
        ready.policy,
        ready.task,
        scenes,
        indices=range(len(scenes)),
        decoding=decoding,
        seed=seed,
    )
    (records,) = evaluation.results.values()
    return {**evaluation.metrics, **caption_facts(records, scenes)}


def _means(found: Sequence[Mapping[str, float]]) -> dict[str, object]:
    """Each figure's mean and standard error over seeds."""
    means: dict[str, object] = {}
    for name in found[0]:
        values = np.array([figures[name] for figures in found])
        error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
        means[name] = [round(float(values.mean()), 4), round(float(error), 4)]
    return means


if __name__ == "__main__":
    main()
