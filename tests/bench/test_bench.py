"""That every benchmark runs, at toy sizes, and what its record looks like."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from bench.__main__ import table
from bench.figure import Figure, figure, machine, write
from bench.full_size import __main__ as full_size
from bench.networks.floor import Product, Read, Stage, drawing, encoding, floor, training
from bench.networks.learner import step_figure
from bench.networks.log_probs import log_probs_figure
from bench.networks.sampler import sampler_figures
from bench.networks.sizes import TINY
from bench.rewards.colour import colour_figures, made_pictures
from bench.rewards.detection import detection_figures, made_scenes
from bench.timing import interleaved
from rewardtune.policies.policy import TokenQueries

pytestmark = pytest.mark.slow

FIELDS = ["name", "value", "unit", "peer", "peer_value", "ratio", "floor", "of_floor", "machine"]


def test_a_record_has_the_agreed_fields_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    write([figure("a.b", 0.123456), figure("c", 2.0, amount=10, unit="tokens/s")], path)
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert list(first) == FIELDS
    assert first["value"] == 0.1235
    assert first["unit"] == "s"
    assert [first[k] for k in ("peer", "peer_value", "ratio", "floor", "of_floor")] == [None] * 5
    assert second["value"] == 5.0


def test_ratio_and_share_of_the_floor_point_the_same_way_for_times_and_rates() -> None:
    options = {"peer": "them", "peer_seconds": 4.0, "floor_seconds": 1.0}
    time = figure("t", 2.0, **options)  # type: ignore[arg-type]
    rate = figure("r", 2.0, amount=8, unit="tokens/s", **options)  # type: ignore[arg-type]
    assert (time.value, time.peer_value, time.floor) == (2.0, 4.0, 1.0)
    assert (rate.value, rate.peer_value, rate.floor) == (4.0, 2.0, 8.0)
    for found in (time, rate):
        assert found.ratio == 2.0
        assert found.of_floor == 0.5


def test_the_machine_is_named_without_date_or_host() -> None:
    assert f"{torch.get_num_threads()} threads, torch {torch.__version__}" in machine()
    assert os.uname().nodename not in machine()


def test_ways_take_turns_and_the_median_counts() -> None:
    order = []

    def way(name: str, seconds: list[float]) -> float:
        order.append(name)
        return seconds.pop(0)

    a, b = [99.0, 1.0, 9.0, 2.0], [99.0, 5.0, 3.0, 4.0]
    found = interleaved({"a": lambda: way("a", a), "b": lambda: way("b", b)}, num_rounds=3)
    assert found == {"a": 2.0, "b": 4.0}
    assert order == ["a", "b"] * 4


def test_the_floor_counts_every_product_of_the_network() -> None:
    """By hand: multiplications of one image's encoding, of drawing and of training."""

    def multiplications(stage: Stage) -> float:
        each = [
            p.batch * p.rows * p.features_in * p.features_out
            for p in stage.pieces
            if isinstance(p, Product)
        ]
        return sum(each) * stage.repeats

    width, mlp, patches, length = TINY.width, TINY.mlp_width, TINY.grid_size**2, 6
    attention = 2 * patches**2 * width
    context = patches * width * 2 * width
    encoded = patches * (8 * 8 * 3 * width + 4 * width**2 + 2 * width * mlp) + attention + context
    assert multiplications(encoding(TINY, num_images=1, dtype=torch.float32)) == encoded
    token = 6 * width**2 + 2 * patches * width + 2 * width * mlp + width * TINY.vocab_size
    drawn = drawing(TINY, num_images=1, num_samples=5, dtype=torch.float32)
    assert multiplications(drawn) == 5 * length * token
    reads = [p.num_bytes for p in drawn.pieces if isinstance(p, Read)]
    assert sum(reads) * length == 5 * 2 * width * 4 * sum(range(1, length + 1))
    trained = multiplications(training(TINY, num_images=1, num_samples=5))
    assert trained == 3 * (encoded + 5 * length * token + 5 * 2 * length**2 * width)


def test_a_floor_takes_time_and_scales_what_it_left_out() -> None:
    calls = floor(Stage([Product(64, 64, 64), Read(2**22)], repeats=10), max_repeats=2)
    assert calls() > 0


def test_the_sampler_is_measured_against_the_same_function() -> None:
    found = list(
        sampler_figures(
            "tiny", TINY, dtype=torch.float32, num_images=2, num_rounds=1, samples=(1, 3)
        )
    )
    assert [f.name for f in found] == ["tiny.k1", "tiny.k1.seconds", "tiny.k3", "tiny.k3.seconds"]
    for f in found:
        assert f.peer is not None
        assert "generate()" in f.peer
        assert f.value > 0
        assert f.ratio is not None
        assert f.of_floor is not None
    assert found[2].value == pytest.approx(2 * 3 * 6 / found[3].value)


def test_bfloat16_and_quick_runs_are_measured_too() -> None:
    half = list(
        sampler_figures(
            "tiny", TINY, dtype=torch.bfloat16, num_images=1, num_rounds=1, samples=(2,)
        )
    )
    alone = list(
        sampler_figures(
            "tiny",
            TINY,
            dtype=torch.float32,
            num_images=1,
            num_rounds=1,
            samples=(2,),
            compares=False,
        )
    )
    assert half[0].ratio is not None
    assert alone[0].ratio is None


@pytest.mark.parametrize("num_trained", [1, 3])
def test_the_learner_is_measured(num_trained: int) -> None:
    found = step_figure("step", TINY, num_images=2, num_trained=num_trained, num_rounds=1)
    assert found.unit == "s"
    assert found.of_floor is not None


def test_log_probs_are_measured_beside_their_definition() -> None:
    logits_NTV = torch.randn(4, 6, 11)
    tokens_GST = torch.randint(11, (2, 2, 6))
    queries = TokenQueries(torch.tensor([1, 5]), torch.tensor([3, 4]))
    found = log_probs_figure(logits_NTV, tokens_GST, queries, num_rounds=1)
    assert found.ratio is not None and found.of_floor is not None


def test_the_detection_reward_is_measured_against_its_definition() -> None:
    scenes = made_scenes(num_images=3, num_samples=2, max_boxes=5)
    found = list(detection_figures(scenes, num_compared=2, num_rounds=1))
    assert [f.name.removeprefix("reward.detection_reward") for f in found] == [
        "",
        ".images",
        ".groups",
    ]
    assert found[0].value == pytest.approx(2 * found[1].value)
    assert all(f.ratio is not None and f.of_floor is not None for f in found)


def test_the_colour_reward_is_measured() -> None:
    found = list(colour_figures(made_pictures(2, size=16), num_rounds=1))
    # OpenCV is a peer that need not be installed.
    assert [f.name for f in found if f.name != "reward.colour.opencv"] == [
        "reward.colour",
        "reward.colour.float32",
        "reward.colour.noise",
        "reward.colour.table",
    ]
    assert found[0].of_floor is not None


def test_figures_print_whole_names() -> None:
    name = "sampler.vit_b.bfloat16.k8.seconds"
    shown = table([Figure(name=name, value=1.0, unit="s")])
    assert shown.columns[0].no_wrap


def test_the_full_size_step_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "full_size.jsonl"
    for dtype in ("float32", "bfloat16"):
        full_size.main(["--tiny", "--dtype", dtype, "--output", str(output)])
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [r["dtype"] for r in records] == ["float32", "bfloat16"]
    for record in records:
        phases = [record[f"{p}_seconds"] for p in ("publish", "sample", "score", "update")]
        assert record["seconds"] == pytest.approx(sum(phases), abs=0.03)
        assert record["peak_memory_gb"] > 0.05
    assert "update" in capsys.readouterr().out
