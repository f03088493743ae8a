"""The paper's symptom: tuned without a scored end, captions break off; with it they do not.

People agree on what a picture shows and not on the rest, and some of their captions are cut short:
a captioner learns both. ``python -m studies.captioning_symptom`` makes such captions of the digit
scenes. One names the digits; three name them and what they lie beside, each another digit, drawn
at random; one in twenty ends after a word at which no sentence does. The shipped captioner learns
them by likelihood and is tuned to CIDEr-D, ends scored and not (three seeds each); what it says of
the validation scenes goes to evidence/studies/captioning_symptom.jsonl. Needs the scenes that
``make demo-captioning`` writes; works in ``runs/captioning_symptom``, half an hour on one core.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from bench.figure import EVIDENCE
from rewardtune.config.config_file import load_config
from rewardtune.datasets.coco.convert import convert_coco
from rewardtune.datasets.digits.captions import COLOURS
from rewardtune.datasets.digits.scenes import DIGIT_NAMES
from rewardtune.demo.table import DEMOS
from rewardtune.run.machine import machine
from rewardtune.tasks.captioning.caption_sources import captions_of
from rewardtune.tasks.captioning.cider.frequency_builder import (
    CountingOptions,
    build_document_frequencies,
)
from rewardtune.tasks.captioning.wording import FUNCTION_WORDS
from studies.controls import SEEDS, STUDIES, means, measured, policy_of

OUTPUT = EVIDENCE / "studies" / "captioning_symptom.jsonl"
SCENES = Path("data/digits_captions")
RUNS = Path("runs/captioning_symptom")
TUNE = DEMOS["captioning"].config
SPLITS = ("train", "holdout", "validation")
CUT_SHARE = 0.05
NUM_STEPS_OF_LIKELIHOOD = 2_000
NUM_STEPS = 150
METRICS = ("cider_d", "reward", "ends_in_function_word_ratio", "words_per_caption")
"""``reward`` is CIDEr-D as the row's runs score it, ``cider_d`` the official one, without ends."""
WAYS = {"ends scored": True, "ends not scored": False}


def main() -> None:
    data = RUNS / "data"
    if not data.exists():
        _write_data(data)
    start = _likelihood(data)
    rows: list[dict[str, object]] = []

    def add(row: str, policies: Sequence[Path], scores_end: bool) -> None:
        config = load_config(TUNE, _settings(data, scores_end=scores_end))
        found = [measured(config, policy, config.data.validation) for policy in policies]
        told = means([{name: figures[name] for name in METRICS} for figures in found])
        rows.append({"row": row, **told, "seeds": len(found), "machine": machine()})
        print(json.dumps(rows[-1]), flush=True)

    for name, scores_end in WAYS.items():
        add(f"likelihood, {name}", [start], scores_end)
        tuned = [_tuned(data, start, seed, scores_end=scores_end) for seed in SEEDS]
        add(f"tuned, {name}", tuned, scores_end)
    OUTPUT.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def cut_short(caption: str, rng: np.random.Generator) -> str:
    """A caption up to and including one of its words that end no sentence."""
    words = caption.split()
    places = [n for n, word in enumerate(words[:-1]) if n and word in FUNCTION_WORDS]
    return " ".join(words[: int(rng.choice(places)) + 1]) if places else caption


def _write_data(folder: Path) -> None:
    unfinished = folder.with_name("unfinished")
    unfinished.mkdir(parents=True, exist_ok=True)
    for number, split in enumerate(SPLITS):
        coco = SCENES / "coco" / split
        rng = np.random.default_rng(number)
        listed = json.loads((coco / "captions.json").read_text(encoding="utf-8"))
        listed["annotations"] = _careless(listed["annotations"], rng)
        captions = unfinished / f"{split}.json"
        captions.write_text(json.dumps(listed), encoding="utf-8")
        convert_coco(
            images=coco / "images",
            instances=coco / "instances.json",
            captions=captions,
            output=unfinished / split,
            overwrite=True,
        )
    for name, scores_end in WAYS.items():
        build_document_frequencies(
            captions_of(unfinished / "train"),
            unfinished / f"{name}.arrow",
            options=CountingOptions(end_of_sentence=scores_end),
        )
    unfinished.rename(folder)


def _careless(
    annotations: Sequence[Mapping[str, Any]], rng: np.random.Generator
) -> list[Mapping[str, Any]]:
    """Captions that agree on the digits of an image and not on what lies beside them."""
    rewritten = []
    for _, group in groupby(annotations, key=lambda annotation: annotation["image_id"]):
        plain, behind, *others = group
        digits, _, _ = behind["caption"].partition(" in front of ")
        rewritten.append(plain)
        for annotation in (behind, *others[:2]):
            side, colour = rng.choice(("left", "right")), rng.choice(COLOURS)
            caption = f"{digits} to the {side} of a {colour} {rng.choice(DIGIT_NAMES)}"
            if rng.random() < CUT_SHARE:
                caption = cut_short(caption, rng)
            rewritten.append({**annotation, "caption": caption})
    return rewritten


def _settings(data: Path, *, scores_end: bool) -> list[str]:
    name = next(name for name, way in WAYS.items() if way == scores_end)
    return [
        f"task_options.scores_end={str(scores_end).lower()}",
        f"task_options.document_frequencies={data / f'{name}.arrow'}",
        *(f"data.{split}={data / split}" for split in SPLITS),
    ]


def _likelihood(data: Path) -> Path:
    changes = [
        *_settings(data, scores_end=True),
        f"learner.num_steps={NUM_STEPS_OF_LIKELIHOOD}",
        "learner.optimizer.learning_rate=5e-4",
        "learner.schedule.decay=cosine",
        "evaluation.every_steps=1000",
    ]
    return policy_of(STUDIES["captioning"].continued, changes, RUNS / "likelihood")


def _tuned(data: Path, start: Path, seed: int, *, scores_end: bool) -> Path:
    changes = [
        *_settings(data, scores_end=scores_end),
        f"policy.checkpoint={start}",
        f"learner.num_steps={NUM_STEPS}",
        f"seed={seed}",
    ]
    way = "ends_scored" if scores_end else "ends_not_scored"
    return policy_of(TUNE, changes, RUNS / way / str(seed))


if __name__ == "__main__":
    main()
