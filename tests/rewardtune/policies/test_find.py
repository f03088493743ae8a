from __future__ import annotations

import pytest

from rewardtune.policies.find import OURS, policy_class
from rewardtune.policies.kinds.parallel import ParallelPolicy


def test_names_of_ours_and_classes_by_place_are_found() -> None:
    assert {policy_class(kind).kind for kind in OURS} == set(OURS)
    assert policy_class("rewardtune.policies.kinds.parallel:ParallelPolicy") is ParallelPolicy


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("florence", "kind 'florence' is unknown: use one of encoder_decoder"),
        ("no_such_module:Policy", "there is no module no_such_module here: put its folder on"),
        ("json:JSONDecoder", "JSONDecoder of json is no subclass of rewardtune.policies.policy"),
        ("json:Nothing", "Nothing of json is no subclass"),
    ],
)
def test_what_is_no_policy_is_one_clear_line(kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        policy_class(kind)
