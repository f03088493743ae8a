import copy
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rewardtune.config.config_file import load_config, parse_config
from rewardtune.config.run_config import ConfigError, RunConfig, derived
from rewardtune.tasks.vocabulary import Vocabulary

TUNE: dict[str, Any] = {
    "task": "detection",
    "mode": "tune",
    "data": {"train": "somewhere/train"},
    "policy": {"checkpoint": "somewhere/policy.safetensors"},
    "learner": {
        "batch_size": 64,
        "num_steps": 100,
        "micro_batch": 16,
        "optimizer": {"kind": "adafactor", "learning_rate": 1e-6},
        "schedule": {"warmup": 10},
    },
}

TOML = """
task = "detection"
mode = "tune"
[data]
train = "somewhere/train"
[policy]
checkpoint = "somewhere/policy.safetensors"
[learner]
batch_size = 64
num_steps = 100
micro_batch = 16
optimizer = { kind = "adafactor", learning_rate = 1e-6 }
schedule = { warmup = 10 }
"""

SIZES = {
    "input_size": 48,
    "patch_size": 8,
    "width": 96,
    "num_heads": 3,
    "mlp_width": 384,
    "encoder_depth": 3,
    "decoder_depth": 2,
}


def changed(**keys: Any) -> dict[str, Any]:
    """TUNE with dotted keys (dots written as two underscores) set, or removed where None."""
    values = copy.deepcopy(TUNE)
    for key, value in keys.items():
        *tables, name = key.split("__")
        table = values
        for part in tables:
            table = table.setdefault(part, {})
        if value is None:
            table.pop(name, None)
        else:
            table[name] = value
    return values


def config(**keys: Any) -> RunConfig:
    return parse_config(changed(**keys), source="test")


def error(**keys: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        config(**keys)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "digits.toml"
    file.write_text(TOML)
    return file


def test_a_file_and_the_same_values_are_the_same_config(path: Path) -> None:
    read = load_config(path)
    assert read == config(operations__directory="runs/digits")
    assert read.learner.schedule.warmup == 10
    assert read.data.train == Path("somewhere/train")


def test_the_run_directory_is_named_after_the_file_unless_given(path: Path) -> None:
    assert load_config(path).operations.directory == Path("runs/digits")
    given = load_config(path, ["operations.directory=elsewhere"])
    assert given.operations.directory == Path("elsewhere")


@pytest.mark.parametrize(
    ("override", "section", "name", "value"),
    [
        ("learner.num_steps=200", "learner", "num_steps", 200),
        ("learner.num_steps = 2_000", "learner", "num_steps", 2000),
        ("learner.baseline=false", "learner", "baseline", False),
        ('compute.device="cpu"', "compute", "device", "cpu"),
        ("compute.device=cpu", "compute", "device", "cpu"),
        ("data.validation=a/b=c d.e", "data", "validation", Path("a/b=c d.e")),
        ("sampler.temperature=2", "sampler", "temperature", 2.0),
    ],
)
def test_an_override_is_a_toml_value_or_a_bare_word(
    path: Path, override: str, section: str, name: str, value: object
) -> None:
    assert getattr(getattr(load_config(path, [override]), section), name) == value


def test_overrides_reach_what_a_task_is_told(path: Path) -> None:
    read = load_config(path, ["task_options.iou_thresholds=[0.5, 0.75]", "task_options.a.b=1"])
    assert read.task_options == {"iou_thresholds": [0.5, 0.75], "a": {"b": 1}}


def test_the_last_override_wins_and_none_goes_back_to_the_default(path: Path) -> None:
    assert load_config(path, ["seed=1", "seed=2"]).seed == 2
    assert load_config(path, ["sampler.top_k=5", "sampler.top_k=none"]).sampler.top_k is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "--set seed: write it as key=value, such as learner.num_steps=100"),
        ("=3", "--set =3: write it as key=value"),
        ("learner..x=3", "write it as key=value"),
        ("task.x=3", "--set task.x=3: task is not a table"),
        ("task_options.x=[1", "--set task_options.x=[1: the value is not TOML"),
        ("seed=1\nseed2=3", "write one key=value per --set"),
    ],
)
def test_an_override_that_cannot_be_read_is_one_line(
    path: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(path, [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_that_was_renamed_says_what_it_is_called_now(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["cluster.redis=redis://127.0.0.1:6379"])
    assert 'cluster.redis = "redis://127.0.0.1:6379": it is called cluster.queue now' in str(
        caught.value
    )
    config = load_config(path, ["cluster.queue=redis://127.0.0.1:6379"])
    assert config.cluster.queue == "redis://127.0.0.1:6379"


@pytest.mark.parametrize(
    "override",
    [
        "cluster.queue=redis://learner:CANARY@127.0.0.1:6379",
        'cluster.queue="redis://127.0.0.1?password=CANARY"',
        "cluster.redis=redis://:CANARY@127.0.0.1:6379",
        "cluster.queu=redis://:CANARY@127.0.0.1:6379",
        'cluster.queue=["redis://:CANARY@127.0.0.1:6379"]',
        'cluster.queue="redis://:CANARY@127.0.0.1:6379',
        "task.x=redis://:CANARY@127.0.0.1:6379",
    ],
)
def test_a_password_in_a_config_is_refused_and_not_shown(path: Path, override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(path, [override])
    assert "CANARY" not in str(caught.value) and "\n" not in str(caught.value)


def test_where_a_password_is_found_is_what_a_config_says(path: Path) -> None:
    config = load_config(path, ["cluster.queue=env:REWARDTUNE_REDIS"])
    assert config.cluster.queue == "env:REWARDTUNE_REDIS"
    # Of one that was built by hand, what is stored has no password either.
    queue = "redis://learner:CANARY@127.0.0.1:6379"
    built = config.cluster.model_copy(update={"queue": queue})
    assert "CANARY" not in built.model_dump_json()
    named = config.cluster.model_copy(update={"queue": "redis://learner@127.0.0.1:6379"})
    assert "redis://learner@127.0.0.1:6379" in named.model_dump_json()


def test_security_is_operations_and_says_what_does_not_fit(path: Path) -> None:
    plain = load_config(path)
    guarded = load_config(path, ["security.ca=ca.pem", "security.token_file=token"])
    assert guarded.security.absolute().ca == Path("ca.pem").absolute()
    assert guarded.identity_hash() == plain.identity_hash()
    with pytest.raises(ConfigError, match=r"security\.certificate needs security\.key") as caught:
        load_config(path, ["security.certificate=a"])
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absent.toml cannot be read: No such file"):
        load_config(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("task = detection")
    with pytest.raises(ConfigError, match="broken.toml is not TOML: .*line 1"):
        load_config(broken)
    broken.write_bytes(b"task = '\xff'")
    with pytest.raises(ConfigError, match="broken.toml is not TOML"):
        load_config(broken)


def test_the_error_names_the_file(path: Path) -> None:
    with pytest.raises(ConfigError, match="digits.toml: mode = "):
        load_config(path, ["mode=train"])


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        # Unknown keys: the nearest valid one, and all of the table.
        (
            {"learner__batchsize": 3},
            ("unknown key learner.batchsize = 3", "did you mean learner.batch_size?", "num_steps"),
        ),
        ({"learner__num_samples": 3}, ("did you mean sampler.num_samples?",)),
        ({"batch_size": 3}, ("did you mean learner.batch_size?", "keys of the top level: task,")),
        ({"seeds": 3}, ("did you mean seed?",)),
        ({"zzz": 3}, ("unknown key zzz = 3: keys of the top level",)),
        (
            {"reward": {"sum": {"a": 1}, "parts": {"a": {"use": "m:f", "wieght": 2}}}},
            ("unknown key reward.parts.a.wieght = 2: keys of [reward.parts.a]: sum,", "use"),
        ),
        ({"reward": {"sums": {"a": 1}}}, ("unknown key reward.sums", "did you mean reward.sum?")),
        ({"reward": "poetry"}, ("reward = \"poetry\": must be 'task', 'module:function' or",)),
        ({"reward": {"sum": {"a": 1}}}, ("reward speaks of a part 'a' that is not there",)),
        (
            {"learner__optimizer__beta1": 0.9},
            ("unknown key learner.optimizer.beta1", "[learner.optimizer]: ", "beta2_cap"),
        ),
        ({"data__views__flip": 0.9}, ("did you mean data.views.flip_probability?",)),
        ({"zzz": 3, "mode": "x"}, ("unknown key zzz", "(and 1 more)")),
        # Wrong types and values: the key, the value, what would do.
        ({"mode": "train"}, ("mode = \"train\": must be 'pretrain' or 'tune'",)),
        ({"learner__batch_size": "64"}, ('learner.batch_size = "64": must be a valid integer',)),
        ({"learner__batch_size": True}, ("learner.batch_size = true: must be a valid integer",)),
        ({"learner__batch_size": 64.5}, ("learner.batch_size = 64.5: must be a valid integer",)),
        ({"learner__batch_size": 0}, ("learner.batch_size = 0: must be greater than 0",)),
        ({"learner__baseline": 1}, ("learner.baseline = 1: must be a valid boolean",)),
        ({"learner": 3}, ("learner = 3: must be a table",)),
        ({"depth": 3}, ("depth = 3: must be less than or equal to 2",)),
        ({"sampler__temperature": float("inf")}, ("sampler.temperature = Infinity",)),
        ({"sampler__temperature": 1e308}, ("sampler.temperature = 1e+308: must be less than",)),
        ({"evaluation__temperature": 1e-45}, ("evaluation.temperature = 1e-45: must be greater",)),
        (
            {"learner__optimizer__learning_rate": float("inf")},
            ("learner.optimizer.learning_rate = Infinity: must be a finite number",),
        ),
        ({"learner__optimizer__grad_clip_norm": float("inf")}, ("must be a finite number",)),
        ({"cluster__num_reward_workers": 10**8}, ("must be less than or equal to 1000",)),
        ({"sampler__top_p": 1.5}, ("sampler.top_p = 1.5: must be less than or equal to 1",)),
        (
            {"learner__optimizer__kind": "sgd"},
            ('learner.optimizer.kind = "sgd": must be one of "adafactor", "adamw"',),
        ),
        ({"learner__schedule__warmup": "soon"}, ('learner.schedule.warmup = "soon"', "2 epochs")),
        # What is missing.
        ({"data__train": None}, ("data.train is missing",)),
        ({"learner__optimizer__kind": None}, ('kind is missing: set it to one of "adafactor"',)),
        # Combinations.
        ({"policy__checkpoint": None}, ("policy.checkpoint is missing: mode = 'tune'",)),
        (
            {"mode": "pretrain", "policy": {"width": 96}},
            ("policy.input_size is missing", "decoder_depth"),
        ),
        ({"policy__input_size": 50, "policy__patch_size": 8}, ("policy.input_size = 50", "= 8")),
        ({"policy__width": 100, "policy__num_heads": 3}, ("policy.width = 100", "= 3")),
        ({"sampler__num_samples": 1}, ("sampler.num_samples = 1", "learner.baseline to false")),
        (
            {
                "sampler__num_samples": 1,
                "learner__baseline": False,
                "learner__estimator": "leave_one_out",
            },
            ("sampler.num_samples = 1", "'leave_one_out'"),
        ),
        ({"sampler__top_k": 5, "sampler__top_p": 0.5}, ("sampler.top_k = 5", "top_p = 0.5")),
        (
            {"learner__discount": 0.5, "reward": "my_rewards:brightness"},
            ("learner.discount = 0.5", "leave out learner.discount, or reward"),
        ),
        ({"learner__discount": 1.5}, ("learner.discount = 1.5",)),
        ({"sampler__micro_batch": 24}, ("batch_size = 64", "sampler.micro_batch = 24")),
        ({"learner__micro_batch": 24}, ("batch_size = 64", "micro_batch", "24 * 1")),
        ({"learner__gradient_shards": 8}, ("gradient_shards", "16 * 8")),
        ({"learner__schedule__warmup": 100}, ("warmup = 100 must be less than", "num_steps = 100")),
        ({"evaluation__top_p": 0.5}, ("evaluation.decoding = 'sample'",)),
        ({"data__views__min_scale": 2}, ("[data.views] min_scale 2.0 is larger",)),
    ],
)
def test_a_config_that_cannot_run_is_one_line_naming_key_value_and_remedy(
    keys: dict[str, Any], parts: tuple[str, ...]
) -> None:
    message = error(**keys)
    for part in parts:
        assert part in message


def test_one_sample_is_enough_without_baseline() -> None:
    assert config(sampler__num_samples=1, learner__baseline=False).sampler.num_samples == 1


def test_pretraining_needs_every_size_or_a_checkpoint() -> None:
    assert config(mode="pretrain", policy=SIZES).policy.width == 96
    assert config(mode="pretrain", sampler__num_samples=1).policy.width is None


def test_a_config_is_never_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        config().seed = 3  # type: ignore[misc]


def test_a_config_survives_json() -> None:
    read = config(task_options__reward="recall", learner__schedule__warmup="2 epochs")
    assert RunConfig.model_validate_json(read.model_dump_json()) == read


@pytest.mark.parametrize(
    "keys",
    [
        {"data__train": "elsewhere/train"},
        {"data__holdout": "elsewhere/holdout"},
        {"policy__checkpoint": "elsewhere/policy.safetensors"},
        {"operations__directory": "elsewhere"},
        {"operations__log_every": 10},
        {"evaluation__every_steps": 10},
        {"importance_weight": True},
    ],
)
def test_operations_leave_the_identity_alone(keys: dict[str, Any]) -> None:
    assert config(**keys).identity_hash() == config().identity_hash()
    assert config().diff(config(**keys)) == []


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"depth": 0}, "depth: 1 -> 0"),
        ({"importance_weight": False}, "importance_weight: true -> false"),
        ({"learner__batch_size": 32}, "learner.batch_size: 64 -> 32"),
        ({"sampler__micro_batch": 32}, "sampler.micro_batch: 16 -> 32"),
        ({"compute__threads": 1}, "compute.threads: 2 -> 1"),
        ({"task_options__reward": "recall"}, 'task_options.reward: null -> "recall"'),
        ({"data__train_digest": "ab"}, 'data.train_digest: null -> "ab"'),
        ({"reward": "m:f"}, "reward.sum.f: null -> 1.0"),
        ({"data__views__flip_probability": 0.5}, "data.views.flip_probability: 0.0 -> 0.5"),
        ({"policy__checkpoint_digest": "ab"}, 'policy.checkpoint_digest: null -> "ab"'),
    ],
)
def test_whatever_moves_weights_is_identity(keys: dict[str, Any], line: str) -> None:
    assert config(**keys).identity_hash() != config().identity_hash()
    assert line in config().diff(config(**keys))


def test_what_is_there_is_identity_and_not_where_it_is() -> None:
    def holding(path: str, held: str) -> RunConfig:
        part = {"use": "m:f", "options": {"model": path}}
        given = config(reward={"sum": {"a": 1}, "parts": {"a": part}})
        key = "reward.parts.a.options.model"
        return given.pinned(device="cpu", num_train=100, train="ab", contents={key: held})

    here, moved, changed = (
        holding(*each) for each in (("x", "sha256:1"), ("y", "sha256:1"), ("x", "sha256:2"))
    )
    assert here.identity_hash() == moved.identity_hash() != changed.identity_hash()
    assert here.diff(changed) == [
        'reward.parts.a.options.model: "sha256:1" -> "sha256:2"',
    ]


def test_identity_has_the_parts_that_design_names() -> None:
    assert set(config().identity()) == {
        "task",
        "mode",
        "seed",
        "depth",
        "importance_weight",
        "task_options",
        "reward",
        "data",
        "policy",
        "sampler",
        "learner",
        "compute",
    }


def test_pinning_fills_in_what_only_a_started_run_knows() -> None:
    pinned = config().pinned(device="cpu", num_train=100, train="aa", checkpoint="cc")
    assert pinned.compute.device == "cpu"
    assert (pinned.data.train_digest, pinned.data.holdout_digest) == ("aa", None)
    assert pinned.policy.checkpoint_digest == "cc"
    assert pinned.pinned(device="cpu", num_train=100, train="aa", checkpoint="cc") == pinned


def pinned_with(vocabulary: Vocabulary, **keys: Any) -> RunConfig:
    return config(**keys).pinned(
        device="cpu", num_train=100, train="aa", checkpoint="cc", vocabulary=vocabulary
    )


BOXES = Vocabulary(
    task="detection", size=50, max_tokens=12, step_length=6, has_readout=True, readout_seen_as=2
)


def test_what_a_readout_reads_is_the_tasks_and_its_identity_that_of_the_keys_of_before() -> None:
    told, spelled = (
        pinned_with(BOXES, **keys)
        for keys in (
            {"policy__readout": True},
            {"policy__readout_every": 6, "policy__readout_seen_as": 2},
        )
    )
    assert (told.policy.readout_every, told.policy.readout_seen_as) == (6, 2)
    assert told.identity_hash() == spelled.identity_hash() != pinned_with(BOXES).identity_hash()
    # A service is told the pinned config, and pins it again.
    again = told.pinned(device="cpu", num_train=100, train="aa", checkpoint="cc", vocabulary=BOXES)
    assert again == told
    # Before the task is known, as in the plan of a sweep, two variants differ all the same.
    assert config(policy__readout=True).identity_hash() != config().identity_hash()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"policy__readout_every": 3},
            "policy.readout_every = 3 but task 'detection' has 6: leave",
        ),
        ({"policy__readout_seen_as": 1}, "policy.readout_seen_as = 1 but task 'detection' has 2"),
    ],
)
def test_a_readout_that_the_task_does_not_have_is_refused(
    keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        pinned_with(BOXES, policy__readout=True, **keys)
    with pytest.raises(ConfigError, match="task 'words' has nothing to read out"):
        pinned_with(Vocabulary(task="words", size=5, max_tokens=4), policy__readout=True)


def test_pinning_refuses_data_that_changed_since() -> None:
    pinned = config().pinned(device="cpu", num_train=100, train="aa")
    with pytest.raises(ConfigError, match=r"data.train = somewhere/train has digest bb .* aa"):
        pinned.pinned(device="cpu", num_train=100, train="bb")


def test_stale_rollouts_are_weighed_wherever_there_are_any() -> None:
    assert [config(depth=depth).weighs_importance for depth in (0, 1, 2)] == [False, True, True]
    assert config(depth=0, importance_weight=True).weighs_importance


def test_derived_sizes_of_tuning() -> None:
    sizes = derived(
        config(sampler__num_samples=8, policy__input_size=48, policy__patch_size=8),
        sequence_length=60,
        num_train=1000,
    )
    assert sizes == {
        "images_per_step": 64,
        "images_total": 6400,
        "learner_micro_batches_per_step": 4,
        "rollouts_per_step": 512,
        "rollouts_total": 51200,
        "sampler_micro_batches_per_step": 4,
        "groups_in_flight_at_most": 128,
        "sampled_tokens_per_step": 30720,
        "trained_sequences_per_step": 64,
        "trained_tokens_per_step": 3840,
        "image_tokens": 36,
        "epochs": 6.4,
    }


def test_leave_one_out_trains_on_every_rollout() -> None:
    sizes = derived(config(sampler__num_samples=8, learner__estimator="leave_one_out"))
    assert sizes["trained_sequences_per_step"] == 512


def test_pretraining_draws_nothing() -> None:
    sizes = derived(config(mode="pretrain"))
    assert "rollouts_per_step" not in sizes
    assert sizes["trained_sequences_per_step"] == 64
