"""What README states as measured, passage by passage, and which record each figure is read from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from deploy.check_dashboards import HERE
from deploy.dashboard import Dashboard

EVIDENCE = Path(__file__).resolve().parents[1] / "evidence"
SECTIONS = ("Two commands", "Your own data", "What was measured")

Record = list[dict[str, Any]]
Read = Callable[["Records"], Sequence[float]]


class Records:
    """The lines of records, by their path in the folder."""

    def __init__(self, folder: Path = EVIDENCE) -> None:
        self._folder = folder

    def __call__(self, path: str) -> Record:
        return [json.loads(line) for line in (self._folder / path).read_text().splitlines()]

    def one(self, path: str, **wanted: Any) -> dict[str, Any]:
        """The only line with these values."""
        (found,) = (line for line in self(path) if wanted.items() <= line.items())
        return found


@dataclass(frozen=True)
class Held:
    """A passage of README; each # in it is a figure, in the order of what ``read`` gives."""

    text: str
    read: Read


@dataclass(frozen=True)
class Bounded:
    """A passage whose figures were found by tests, which assert the bounds named here."""

    text: str
    bounds: Sequence[tuple[str, str]]
    """Of each figure the test's file and a pattern of its line, whose group is the bound."""


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    return fmean(values), stdev(values) / len(values) ** 0.5


def table2(row: str, figure: str = "map") -> Callable[[Records], tuple[float, float]]:
    def read(records: Records) -> tuple[float, float]:
        lines = records("studies/table2.jsonl")
        return mean_and_error([line[figure] for line in lines if line["row"] == row])

    return read


def of_start(records: Records) -> dict[str, Any]:
    return records.one("studies/table2.jsonl", row="mle")


def tuned(records: Records) -> list[float]:
    figures = []
    for figure in ("map", "ar100"):
        mean, error = table2("map", figure)(records)
        figures += [mean, error, 100 * (mean / of_start(records)[figure] - 1)]
    return figures


def fresh(records: Records) -> list[float]:
    lines = records("studies/fresh_scenes.jsonl")
    start = [line for line in lines if line["policy"] == "likelihood"]
    ours = [line["map"] for line in lines if line["policy"] != "likelihood"]
    gain = fmean(ours) / fmean(line["map"] for line in start) - 1
    return [sum(line["num_scenes"] for line in start), 100 * gain]


def without_reward(records: Records) -> list[float]:
    start = of_start(records)
    recall = {round(start["best_decoding_ar100"], 2)} | {
        round(table2(row, "ar100")(records)[0], 2) for row in ("mle_continued", "confidence_only")
    }
    (all_of_them,) = recall
    best_use = start["best_decoding_map"]
    continued, confidences = table2("mle_continued")(records), table2("confidence_only")(records)
    return [*continued, *confidences, best_use, all_of_them]


def summary(task: str, *figures: str) -> Read:
    names = {"detection": "detection_map", "captioning": "captioning_cider"}
    path = f"logs/{task}/digits_{names.get(task, f'{task}_tune')}_summary.json"
    return lambda records: [records(path)[0][figure] for figure in figures]


def demo(task: str, metric: str) -> Read:
    """Likelihood, tuned with its error, and the seconds of the demo."""

    def read(records: Records) -> list[float]:
        path = f"studies/{task}_controls.jsonl"
        name = "tuned, ends scored" if task == "captioning" else "tuned"
        start, end = (records.one(path, row=row)[metric] for row in ("likelihood", name))
        return [start[0], *end, *summary(task, "seconds")(records)]

    return read


def no_better(records: Records) -> list[float]:
    rows = ("likelihood continued", "likelihood, top-p 0.5")
    found = [records.one("studies/captioning_controls.jsonl", row=row) for row in rows]
    (both,) = {round(line["cider_d"][0], 2) for line in found}
    return [both]


def figures(path: str, name: str, *parts: str) -> Read:
    """Of a line of a benchmark; shares as per cent."""

    def read(records: Records) -> list[float]:
        line = records.one(path, name=name)
        return [100 * line[part] if part == "of_floor" else line[part] for part in parts]

    return read


def several(*reads: Read) -> Read:
    return lambda records: [value for read in reads for value in read(records)]


def seconds_to_new_groups(records: Records) -> list[float]:
    found = {line["name"]: line for line in records("faults/recovery.jsonl")}
    names = ("reward worker", "sampler", "learner", "Redis")
    leases = {line["lease_seconds"] for line in found.values()}
    return [*leases, *(max(found[name]["through_seconds"]) for name in names)]


def scaling(records: Records) -> list[float]:
    line = records.one("faults/scaling.jsonl", name="rate")
    assert line["redeliveries"] == line["duplicate_commits"] == 0
    return [*line["workers"], line["score_seconds"], 100 * min(line["of_linear"])]


def soak(records: Records) -> list[float]:
    last = records("faults/reward_soak.jsonl")[-1]
    return [last[name] for name in ("groups", "slope", "slope_low", "slope_high")]


def simulated(records: Records) -> list[float]:
    (line,) = records("faults/simulation.jsonl")
    return [line["schedules"], line["violations"]]


def worker_memory(records: Records) -> list[float]:
    last = records("bench/reward_worker_memory.jsonl")[-1]
    return [last["groups"], last["megabytes"]]


def dashboards(records: Records) -> list[float]:
    last = records("deploy/dashboards.jsonl")[-1]
    read = [Dashboard.read(path) for path in HERE.glob("grafana/dashboards/*.json")]
    num_gpu = sum(target.needs_gpu for dashboard in read for target in dashboard.targets())
    return [last["queries"] - len(last["problems"]), last["queries"], num_gpu]


def tune_step(records: Records) -> list[float]:
    first = records("bench/full_size.jsonl")[0]
    return [first["parameters"] / 1e6, first["seconds"], first["peak_memory_gb"]]


RESULTS = "bench/results.jsonl"
HELD = (
    Held("it took # s and ended with", summary("detection", "seconds")),
    Held(
        '"map_before": #, "map_after": #, "ar100_before": #, "ar100_after": #, '
        '"reward_before": #, "reward_after": #, "seconds": #}',
        summary(
            "detection",
            *(
                f"{name}_{when}"
                for name in ("map", "ar100", "reward")
                for when in ("before", "after")
            ),
            "seconds",
        ),
    ),
    Held("mAP is # ± # after tuning (+#%) and AR@100 # ± # (+#%);", tuned),
    Held("on # freshly drawn scenes mAP rises by #%.", fresh),
    Held(
        "likelihood continued reaches # ± #, confidences alone # ± #, its best use, with repeated "
        "boxes dropped (non-maximum suppression), #, all at an AR@100 of #.",
        without_reward,
    ),
    Held(
        "scenes that pretraining has not seen likelihood gains too, # ± #.",
        table2("mle_continued_new_scenes"),
    ),
    Held(
        "| PQ # | # ± # | # | likelihood continued # ± #,",
        several(
            demo("panoptic", "pq"),
            lambda records: records.one(
                "studies/panoptic_controls.jsonl", row="likelihood continued"
            )["pq"],
        ),
    ),
    Held("| colour reward # | # ± # | # |", demo("colorization", "colour_reward")),
    Held("| CIDEr-D # | # ± # | # |", demo("captioning", "cider_d")),
    Held("likelihood continued and the best sampling stay at #:", no_better),
    Held("delays, drops, wipes: # schedules | # violations |", simulated),
    Held("one scorer, after # groups | # MB |", worker_memory),
    Held("| # of # have data; # more need a GPU |", dashboards),
    Held("| # -> # -> # reward workers in mid-run, scorers that sleep # s | #% of", scaling),
    Held("a worker (lease # s), sampler, learner, Redis | #, #, #, # |", seconds_to_new_groups),
    Held("over # groups | slope # bytes a group, 95% interval # to # |", soak),
    Held("(# M parameters, 1280 px, 600 tokens, bf16) | # s, peak # GB |", tune_step),
    Held(
        "against transformers' `generate()` | # times its speed, #% of the floor |",
        figures(RESULTS, "sampler.demo.k8", "ratio", "of_floor"),
    ),
    Held(
        "| # core-seconds, #% of the machine's matrix products |",
        figures("bench/uvim_decode.jsonl", "uvim.decode_bfloat16_batch_2", "value", "of_floor"),
    ),
    Held(
        "one core each | #, #, # times their speed |",
        several(
            *(
                figures(RESULTS, f"reward.{name}", "ratio")
                for name in ("cider", "panoptic", "colour")
            )
        ),
    ),
    Held(
        "learner that do nothing | # ms |",
        lambda records: [1e3 * records.one(RESULTS, name="machinery.noop.seconds")["value"]],
    ),
)

TESTS = "tests/rewardtune"
BOUNDED = (
    Bounded(
        "REINFORCE gradients | #, exact, # |",
        (
            (f"{TESTS}/policies/kinds/test_encoder_decoder.py", r"\*, atol: float = (\S+)\)"),
            (f"{TESTS}/policies/kinds/test_encoder_decoder.py", r"assert_near\(gradient.*=(\S+)\)"),
        ),
    ),
    Bounded(
        "published variant, 10 steps | # |",
        (("tests/learner/test_adafactor.py", r'\("plain_f32mom", (\S+)\)'),),
    ),
    Bounded(
        "published function, both aggregates | #, counts exact |",
        ((f"{TESTS}/tasks/detection/test_kernel.py", r'/reward"\], rtol=0, atol=(\S+)\)'),),
    ),
    Bounded(
        "against official outputs | #, exact counts, #, #, exact counts |",
        (
            (
                f"{TESTS}/tasks/captioning/cider/test_definition.py",
                r"approx\(official, abs=(\S+)\)",
            ),
            (f"{TESTS}/tasks/detection/test_metric.py", r"approx\(expected\[name\], abs=(\S+)\)"),
            (f"{TESTS}/tasks/detection/test_kernel.py", r'/reward"\], rtol=0, atol=(\S+)\)'),
        ),
    ),
    Bounded(
        "logits, codes, one training step | #, exact, # |",
        (
            (f"{TESTS}/tasks/uvim/test_stage_one.py", r"\(vector, expected, rtol=0, atol=(\S+)\)"),
            (f"{TESTS}/tasks/uvim/test_stage_one.py", r"stored\[name\]\), rtol=(\S+), atol"),
        ),
    ),
    Bounded(
        "within # standard errors",
        (
            (
                "tests/learner/estimators/test_estimator.py",
                r"/ error\[moves\]\)\.abs\(\)\.max\(\) < (\S+)$",
            ),
        ),
    ),
)

NOT_MEASURED: Mapping[str, str] = {
    r"AR@100": "a metric's name",
    r"AVX-512|Apache-2\.0": "a name",
    r"Python 3\.11\+": "what is required",
    r"`[^`]*`": "a command or a path",
    r"on 500 scenes|of 500 validation scenes": "how many there are to measure on",
    r"by 100,000 steps on photographs, are 38% and 25%": "the paper's own figures",
    r"depth 0, 1, 2|at depth 0 and 1": "settings; records: see the test below",
    r"95% interval": "which interval it is",
    r"1280 px, 600 tokens": "sizes of configs/paper/detection_coco_map.toml",
    r"512 px": "the size of what was measured",
    r"10 steps \|": "how long the comparison is",
    r"8 samples per image": "the setting that the record's name has (k8)",
    r"Objects365": "a data set's name",
    r"of 205 its mAP was 0\.000 after 3,000 steps": "a run of which no record was kept",
}
"""Numbers of these sections that no record is asked for, and why."""
