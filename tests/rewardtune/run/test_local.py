"""The whole loop in one process, on a detector that runs in a second."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from learner.checkpoint import (
    CheckpointError,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from learner.estimators.estimator import Losses
from learner.learner import Learner
from learner.not_finite import NotFinite
from learner.term import claim_term
from reward_workers.scoring.reward import RewardFailed
from reward_workers.scoring.score import score_group
from rewardtune.config.run_config import ConfigError, RunConfig
from rewardtune.records import Group, Score, ScoredGroup
from rewardtune.run.local import pretrain, tune
from rewardtune.run.log import CombinedLog, RunLog
from rewardtune.run.result import RunResult
from tests.rewardtune.tiny_run import (
    SILENT,
    tiny_config,
    tiny_tune,
    weight_digest,
)

pytestmark = pytest.mark.slow


class _Recorder:
    """A RunLog that keeps what it hears, and may pull the plug at one step."""

    def __init__(self, *, dies_at: int | None = None) -> None:
        self.steps: list[dict[str, float]] = []
        self.evaluations: list[dict[str, float]] = []
        self.messages: list[str] = []
        self._dies_at = dies_at

    def step(self, record: Mapping[str, float]) -> None:
        self.steps.append(dict(record))
        if record["step"] == self._dies_at:
            raise _PulledPlug

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        self.evaluations.append({"step": step, **metrics})

    def message(self, text: str) -> None:
        self.messages.append(text)

    def close(self) -> None: ...


class _PulledPlug(Exception):
    """The process dies here: between a step and its checkpoint."""


def final_weights(result: RunResult) -> str:
    return weight_digest(result.directory / "policy.safetensors")


@pytest.fixture(scope="module")
def undisturbed(
    data: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """Digest of the final weights of a run that nothing happens to, by depth."""
    root = tmp_path_factory.mktemp("undisturbed")
    return [
        final_weights(tune(tiny_tune(data, pretrained, root / f"{depth}", depth=depth), SILENT))
        for depth in (0, 1, 2)
    ]


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_the_same_run_twice_gives_the_same_weights(
    data: Path, pretrained: Path, tmp_path: Path, depth: int
) -> None:
    digests = {
        final_weights(tune(tiny_tune(data, pretrained, tmp_path / name, depth=depth), SILENT))
        for name in ("a", "b")
    }
    other = tune(tiny_tune(data, pretrained, tmp_path / "seed", depth=depth, seed=6), SILENT)
    assert len(digests) == 1
    assert final_weights(other) not in digests
    assert weight_digest(pretrained) not in digests


@pytest.mark.alone
def test_two_threads_give_the_same_weights_twice(
    data: Path, pretrained: Path, tmp_path: Path
) -> None:
    """They share the work anew each time. With something beside them they take very long."""
    digests = {
        final_weights(
            tune(tiny_tune(data, pretrained, tmp_path / name, compute={"threads": 2}), SILENT)
        )
        for name in ("a", "b")
    }
    assert len(digests) == 1


def test_depths_differ(undisturbed: list[str]) -> None:
    assert undisturbed[0] != undisturbed[1]


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("dies_at", [1, 2, 3, 5])
def test_a_run_that_died_at_any_step_ends_with_the_same_weights(
    data: Path,
    pretrained: Path,
    tmp_path: Path,
    undisturbed: list[str],
    depth: int,
    dies_at: int,
) -> None:
    config = tiny_tune(data, pretrained, tmp_path / "died", depth=depth)
    with pytest.raises(_PulledPlug):
        tune(config, _Recorder(dies_at=dies_at))
    resumed = _Recorder()
    result = tune(config, resumed)
    assert resumed.steps[0]["step"] == (dies_at - 1) // 2 * 2 + 1
    assert final_weights(result) == undisturbed[depth]


def test_pretraining_resumes_to_the_same_weights(data: Path, tmp_path: Path) -> None:
    undisturbed = pretrain(tiny_config(data, tmp_path / "whole"), SILENT)
    config = tiny_config(data, tmp_path / "died")
    with pytest.raises(_PulledPlug):
        pretrain(config, _Recorder(dies_at=5))
    assert final_weights(pretrain(config, SILENT)) == final_weights(undisturbed)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_staleness_is_the_depth_once_the_pipeline_is_full(
    data: Path, pretrained: Path, tmp_path: Path, depth: int
) -> None:
    log = _Recorder()
    tune(tiny_tune(data, pretrained, tmp_path / "run", depth=depth), log)
    assert [record["staleness"] for record in log.steps] == [min(b, depth) for b in range(6)]


def test_sampler_and_learner_agree_on_the_log_probs(
    data: Path, pretrained: Path, tmp_path: Path
) -> None:
    log = _Recorder()
    tune(tiny_tune(data, pretrained, tmp_path / "run", depth=0), log)
    assert all(record["log_prob_gap"] < 1e-5 for record in log.steps)


def test_sampler_and_learner_agree_on_the_log_probs_at_the_samplers_temperature(
    data: Path, pretrained: Path, tmp_path: Path
) -> None:
    log = _Recorder()
    config = tiny_tune(data, pretrained, tmp_path / "run", depth=0, sampler={"temperature": 0.5})
    tune(config, log)
    assert all(record["log_prob_gap"] < 1e-5 for record in log.steps)


def test_importance_weights_are_one_on_policy(data: Path, pretrained: Path, tmp_path: Path) -> None:
    log = _Recorder()
    config = tiny_tune(data, pretrained, tmp_path / "run", depth=0, importance_weight=True)
    tune(config, log)
    assert all(
        record["importance_weight_mean"] == pytest.approx(1.0, abs=1e-3) for record in log.steps
    )


def test_gradient_shards_sum_the_same_gradient(
    data: Path, pretrained: Path, tmp_path: Path
) -> None:
    """Another order of summation: not the same bits, but the same numbers."""
    logs = [_Recorder(), _Recorder()]
    for shards, log in zip((1, 2), logs, strict=True):
        learner = {"gradient_shards": shards, "num_steps": 1}
        tune(tiny_tune(data, pretrained, tmp_path / f"{shards}", learner=learner), log)
    norms = [log.steps[0]["grad_norm"] for log in logs]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_reward_rises(data: Path, tmp_path: Path) -> None:
    """Rewarded for predicting few boxes, the policy learns to."""
    start = pretrain(tiny_config(data, tmp_path / "mle"), SILENT)
    log = _Recorder()
    config = tiny_tune(
        data,
        start.policy_path,
        tmp_path / "tuned",
        task="tests.rewardtune.few_boxes",
        depth=0,
        sampler={"num_samples": 8, "micro_batch": 8},
        learner={
            "num_steps": 40,
            "estimator": "leave_one_out",
            "optimizer": {"kind": "adamw", "learning_rate": 1e-2},
        },
    )
    tune(config, log)
    rewards = [record["reward"] for record in log.steps]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.3


def test_a_changed_identity_is_refused_with_a_diff_unless_forked(
    data: Path, pretrained: Path, tmp_path: Path
) -> None:
    tune(tiny_tune(data, pretrained, tmp_path, learner={"num_steps": 2}), SILENT)
    longer = tiny_tune(data, pretrained, tmp_path, learner={"num_steps": 4})
    with pytest.raises(ConfigError, match=r"learner\.num_steps: 2 -> 4.*--fork"):
        tune(longer, SILENT)
    log = _Recorder()
    tune(longer, log, fork=True)
    assert [record["step"] for record in log.steps] == [3, 4]


def test_operations_may_change_on_resume(data: Path, pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(_PulledPlug):
        tune(tiny_tune(data, pretrained, tmp_path), _Recorder(dies_at=3))
    changed = tiny_tune(data, pretrained, tmp_path, operations={"checkpoint_every": 3})
    moved = changed.model_copy(
        update={"operations": changed.operations.model_copy(update={"directory": tmp_path})}
    )
    assert tune(moved, SILENT).is_finished


def test_weights_of_another_network_are_refused(
    data: Path, pretrained: Path, tmp_path: Path
) -> None:
    with pytest.raises(_PulledPlug):
        tune(tiny_tune(data, pretrained, tmp_path), _Recorder(dies_at=3))
    root = tmp_path / "checkpoints"
    found = latest_checkpoint(root, on_damaged=pytest.fail)
    assert found is not None
    del found.files["weights"]["decoder.norm.scale"]
    save_checkpoint(root, found.step, found.files, found.state)
    with pytest.raises(CheckpointError, match=r"another network, .* in decoder\.norm\.scale: go"):
        tune(tiny_tune(data, pretrained, tmp_path), SILENT)


def test_data_that_changed_since_the_run_began_are_refused(
    data: Path, pretrained: Path, tmp_path: Path
) -> None:
    with pytest.raises(_PulledPlug):
        tune(tiny_tune(data, pretrained, tmp_path), _Recorder(dies_at=3))
    other = tiny_tune(data, pretrained, tmp_path)
    elsewhere = other.data.model_copy(update={"train": data / "validation"})
    other = other.model_copy(update={"data": elsewhere})
    with pytest.raises(ConfigError, match="train_digest"):
        tune(other, SILENT)


def test_a_newer_start_ends_the_older_one_before_it_writes(
    data: Path, pretrained: Path, tmp_path: Path
) -> None:
    class Superseded(_Recorder):
        def step(self, record: Mapping[str, float]) -> None:
            if record["step"] == 3:
                claim_term(tmp_path)

    with pytest.raises(RuntimeError, match="taken over"):
        tune(tiny_tune(data, pretrained, tmp_path), Superseded())
    assert [p.name for p in sorted(tmp_path.glob("checkpoints/*"))] == ["checkpoint-00000002"]


def test_damaged_checkpoints_are_an_error_that_names_them(
    data: Path, pretrained: Path, tmp_path: Path
) -> None:
    with pytest.raises(_PulledPlug):
        tune(tiny_tune(data, pretrained, tmp_path), _Recorder(dies_at=5))
    for weights in tmp_path.glob("checkpoints/*/weights.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-7])
    with pytest.raises(CheckpointError, match="checkpoint-00000004, checkpoint-00000002"):
        tune(tiny_tune(data, pretrained, tmp_path), SILENT)


def test_a_checkpoint_of_another_vocabulary_is_refused(
    data: Path, pretrained: Path, tmp_path: Path
) -> None:
    config = tiny_tune(data, pretrained, tmp_path, task_options={"max_boxes": 2})
    with pytest.raises(ValueError, match="sequence_length"):
        tune(config, SILENT)
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize("depth", [0, 1])
def test_confidences_are_learned_beside_boxes_that_stay(
    data: Path, pretrained: Path, tmp_path: Path, depth: int
) -> None:
    """Through a readout: nothing but its own weights has a part in them."""
    from rewardtune.policies.policy_file import load_policy

    log = _Recorder()
    config = tiny_tune(
        data,
        pretrained,
        tmp_path,
        depth=depth,
        policy={"readout": True},
        learner={"reward_weight": 0.0, "optimizer": {"kind": "adamw", "learning_rate": 1e-2}},
    )
    result = tune(config, log)
    assert all(record["log_prob_gap"] < 1e-5 for record in log.steps if not record["staleness"])
    before = load_policy(pretrained).policy.tensors()
    after = load_policy(result.directory / "policy.safetensors").policy.tensors()
    own = after.keys() - before.keys()
    assert own and all(name.startswith("decoder.readout.") for name in own)
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name
    for name in own:
        start = before.get(name.replace("decoder.readout.", "decoder."), torch.zeros(()))
        assert not torch.equal(after[name], start.expand_as(after[name])), name

    from_here = {"checkpoint": str(result.directory / "policy.safetensors")}
    config = tiny_tune(
        data, pretrained, tmp_path / "other", policy={**from_here, "readout_every": 3}
    )
    with pytest.raises(ConfigError, match="policy.readout_every = 3 but the checkpoint has 6"):
        tune(config, SILENT)
    other = {**from_here, "readout_every": 6, "readout_seen_as": 1}
    config = tiny_tune(data, pretrained, tmp_path / "other", policy=other)
    with pytest.raises(ConfigError, match="policy.readout_seen_as = 1 but the checkpoint has 2"):
        tune(config, SILENT)
    other = {"readout_every": 6, "readout_seen_as": 5000}
    config = tiny_tune(data, pretrained, tmp_path / "other", policy=other)
    with pytest.raises(ConfigError, match="policy.readout_seen_as = 5000 is none of the policy's"):
        tune(config, SILENT)
    with pytest.raises(ValueError, match="readout_seen_as = 2 but nothing is read out"):
        tiny_tune(data, pretrained, tmp_path / "other", policy={"readout_seen_as": 2})
    config = tiny_tune(data, pretrained, tmp_path / "odd", policy={"readout_every": 4})
    with pytest.raises(ConfigError, match="does not divide the 18 tokens of a sequence: set"):
        tune(config, SILENT)
    config = tiny_config(
        data, tmp_path / "at_once", policy={"readout_every": 6, "kind": "parallel"}
    )
    with pytest.raises(
        ConfigError, match="needs a policy of kind 'encoder_decoder', got 'parallel'"
    ):
        pretrain(config, SILENT)


def test_invalid_groups_move_nothing_and_are_counted(
    data: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_every_third(group: object, **parts: object) -> ScoredGroup:
        scored = score_group(group, **parts)  # type: ignore[arg-type]
        if scored.group.ordinal % 3:
            return scored
        return ScoredGroup(scored.group, Score(reward_S=scored.score.reward_S, is_valid=False))

    monkeypatch.setattr("rewardtune.run.local.score_group", fail_every_third)
    tune(tiny_tune(data, pretrained, tmp_path), SILENT)
    state = json.loads((tmp_path / "checkpoints/checkpoint-00000006/state.json").read_text())
    assert state["ledger"]["invalid"] == list(range(0, 48, 3))
    assert state["ledger"]["num_batches"] == 6


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("gradient", r"step 4: the gradient norm is not finite \(nan\)"),
        ("weight", r"step 4: the loss is not finite \(nan\)"),
        ("learning rate", r"step 4: the norm of the update is not finite \(inf\)"),
    ],
)
@pytest.mark.parametrize("mode", ["tune", "pretrain"])
def test_a_run_that_leaves_the_numbers_ends_at_that_step_with_the_weights_before_it(
    data: Path,
    pretrained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    where: str,
    said: str,
) -> None:
    def config(directory: str, **learner: Any) -> RunConfig:
        made = {"learner": learner} if learner else {}
        if mode == "tune":
            return tiny_tune(data, pretrained, tmp_path / directory, **made)
        return tiny_config(data, tmp_path / directory, **made)

    start = tune if mode == "tune" else pretrain
    start(config("good", num_steps=3), SILENT)
    monkeypatch.setattr(Learner, "_accumulate", _poisoned(where, before_version=3))
    log = _Recorder()
    with pytest.raises(NotFinite, match=said) as raised:
        start(config("bad"), log)
    assert [record["step"] for record in log.steps] == [1, 2, 3]
    checkpoint = tmp_path / "bad/checkpoints/checkpoint-00000003"
    assert f"the last good checkpoint is step 3: {checkpoint}. Go on" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "bad/policy.safetensors").exists()
    # What the step before it left, optimizer and all: the run goes on as if nothing had been.
    monkeypatch.undo()
    expected = load_checkpoint(tmp_path / "good/checkpoints/checkpoint-00000003")
    found = load_checkpoint(checkpoint)
    assert found.state["ledger"] == expected.state["ledger"]
    assert found.files.keys() == expected.files.keys()
    for name, tensors in expected.files.items():
        assert tensors.keys() == found.files[name].keys()
        assert all(torch.equal(found.files[name][key], t) for key, t in tensors.items())


def _poisoned(where: str, *, before_version: int) -> Callable[..., object]:
    """Gradients of a learner that goes wrong in the step after this version."""
    accumulate = Learner._accumulate

    def poisoned(self: Learner, loss: Callable[[slice], Losses]) -> object:
        if self.policy_version != before_version:
            return accumulate(self, loss)
        parameter = self.policy.get_parameter("encoder.norm.scale")
        kept = parameter.detach().clone()
        if where == "weight":
            parameter.data[0] = float("nan")
        if where == "learning rate":
            self._optimizer._learning_rates = [1e38] * len(self._optimizer._learning_rates)
        sums = accumulate(self, loss)
        parameter.data.copy_(kept)
        if where == "gradient":
            assert parameter.grad is not None
            parameter.grad[0] = float("nan")
        return sums

    return poisoned


def test_a_batch_without_a_valid_group_is_skipped_and_consumed(
    data: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_third_batch(group: Group, **parts: Any) -> ScoredGroup:
        scored = score_group(group, **parts)
        return replace(scored, score=replace(scored.score, is_valid=not 16 <= group.ordinal < 24))

    monkeypatch.setattr("rewardtune.run.local.score_group", fail_third_batch)
    log = _Recorder()
    config = tiny_tune(data, pretrained, tmp_path)
    assert tune(config, log).is_finished
    assert [record["is_skipped"] for record in log.steps] == [0, 0, 1, 0, 0, 0]
    assert "loss" not in log.steps[2] and "loss" in log.steps[3]


_FAILS_ON_SEVEN = """
def reward(predictions, example):
    if example.image_id == 7:
        raise LookupError("seven is beyond me")
    return [float(len(boxes)) for boxes in predictions]

def nothing(predictions, example):
    return [float("nan")] * len(predictions) if example.image_id > 3 else [0.0] * len(predictions)
"""


@pytest.fixture
def _custom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "fails_on_seven.py").write_text(_FAILS_ON_SEVEN)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "code")])


@pytest.mark.usefixtures("_custom")
def test_a_group_that_the_runs_reward_fails_on_trains_nothing_and_the_run_goes_on(
    data: Path, pretrained: Path, tmp_path: Path
) -> None:
    log = _Recorder()
    config = tiny_tune(data, pretrained, tmp_path / "run", reward="fails_on_seven:reward")
    assert tune(config, log).is_finished
    state = json.loads((tmp_path / "run/checkpoints/checkpoint-00000006/state.json").read_text())
    lost = state["ledger"]["invalid"]
    assert len(lost) == 2  # 48 groups of 24 examples
    where = "reward 'reward' (fails_on_seven:reward), image "
    told = [message for message in log.messages if "trains nothing" in message]
    for ordinal, message in zip(lost, told, strict=True):
        assert message.startswith(f"group {ordinal} trains nothing: {where}")
        assert message.endswith("(id 7): LookupError: seven is beyond me")


@pytest.mark.usefixtures("_custom")
def test_a_run_ends_with_the_reason_where_most_groups_cannot_be_scored(
    data: Path, pretrained: Path, tmp_path: Path
) -> None:
    config = tiny_tune(data, pretrained, tmp_path / "run", reward="fails_on_seven:nothing")
    with pytest.raises(RewardFailed, match="more than half of the groups.*gave nan, not a finite"):
        tune(config, SILENT)


@pytest.mark.usefixtures("_custom")
def test_a_reward_that_was_edited_is_another_run(
    data: Path, pretrained: Path, tmp_path: Path
) -> None:
    config = tiny_tune(data, pretrained, tmp_path / "run", reward="fails_on_seven:reward")
    tune(config, SILENT)
    source = tmp_path / "code" / "fails_on_seven.py"
    source.write_text(source.read_text() + "# edited\n")
    with pytest.raises(ConfigError, match="differs in reward.parts.reward.use"):
        tune(config, SILENT)


def _parameters(result: RunResult) -> list[torch.Tensor]:
    from rewardtune.policies.policy_file import load_policy

    return list(load_policy(result.policy_path).policy.parameters())


def test_a_recorder_is_a_run_log() -> None:
    log: RunLog = CombinedLog([_Recorder()])
    log.message("heard")
