from __future__ import annotations

from pathlib import Path

import pytest

from rewardtune.config.config_file import load_config
from rewardtune.datasets.digits.files import write_digits
from rewardtune.datasets.shards.dataset import open_dataset
from rewardtune.demo.table import DEMOS, caption_facts


@pytest.mark.parametrize("name", DEMOS)
def test_a_demo_tunes_a_shipped_policy_on_its_own_scenes(name: str) -> None:
    demo = DEMOS[name]
    config = load_config(demo.config)
    assert (config.task, config.mode) == (name, "tune")
    assert config.policy.checkpoint is not None and config.policy.checkpoint.is_file()
    folders = {config.data.train.parent, Path(config.data.holdout or "").parent}
    assert len(folders) == 1, "the demo writes the scenes of one folder"


def test_demos_do_not_write_other_scenes_over_each_others() -> None:
    scenes: dict[Path, object] = {}
    for demo in DEMOS.values():
        made_of = (demo.num_scenes, demo.style, demo.annotations)
        folder = load_config(demo.config).data.train.parent
        assert scenes.setdefault(folder, made_of) == made_of


# pycocotools is older than the numpy it runs with.
@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_caption_facts_hold_captions_against_their_own_scenes(tmp_path: Path) -> None:
    demo = DEMOS["captioning"]
    write_digits(tmp_path / "digits", num_scenes={"validation": 20}, style=demo.style)
    scenes = open_dataset(tmp_path / "digits" / "validation")
    records = [{"image_id": example.image_id, "caption": example.captions[2]} for example in scenes]
    true = caption_facts(records[::-1], scenes)
    assert set(true.values()) == {1.0}
    assert set(true) < set(demo.figures.values())
    of_another = [
        {**record, "caption": other["caption"]}
        for record, other in zip(records, records[1:] + records[:1], strict=True)
    ]
    assert caption_facts(of_another, scenes)["digit_precision"] < 0.5
