import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.estimators.advantage import discounted_returns
from learner.estimators.config import EstimatorConfig
from learner.estimators.first import First
from learner.estimators.leave_one_out import LeaveOneOut

FIRST = First(EstimatorConfig())
EVERY = LeaveOneOut(EstimatorConfig(estimator="leave_one_out"))
NO_BASELINE = EstimatorConfig(baseline=False)
REWARDS = st.integers(2, 8).flatmap(
    lambda size: st.lists(
        st.lists(st.floats(-50, 50), min_size=size, max_size=size), min_size=1, max_size=5
    )
)


@given(REWARDS)
def test_leave_one_out_equals_its_definition_computed_the_slow_way(
    rewards: list[list[float]],
) -> None:
    expected = [
        [r - (sum(row[:i]) + sum(row[i + 1 :])) / (len(row) - 1) for i, r in enumerate(row)]
        for row in rewards
    ]
    reward_GSP = torch.tensor(rewards, dtype=torch.float64)[..., None]
    got = EVERY.advantages(reward_GSP)
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64)[..., None])


def test_each_step_has_the_other_rollouts_same_step_as_its_baseline() -> None:
    return_GSP = torch.randn(2, 4, 3, dtype=torch.float64)
    got = EVERY.advantages(return_GSP)
    for step in range(3):
        alone = return_GSP[..., step : step + 1]
        expected = EVERY.advantages(alone)
        torch.testing.assert_close(got[..., step : step + 1], expected)


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=6), st.floats(0, 1))
def test_a_step_answers_for_itself_and_discounted_for_what_follows(
    rewards: list[float], discount: float
) -> None:
    expected = [
        sum(discount ** (later - step) * rewards[later] for later in range(step, len(rewards)))
        for step in range(len(rewards))
    ]
    got = discounted_returns(torch.tensor([[rewards]], dtype=torch.float64), discount=discount)
    torch.testing.assert_close(got, torch.tensor([[expected]], dtype=torch.float64))


@given(REWARDS)
def test_first_is_the_first_column_of_leave_one_out(rewards: list[list[float]]) -> None:
    reward_GSP = torch.tensor(rewards, dtype=torch.float64)[..., None]
    first = FIRST.advantages(reward_GSP)
    every = EVERY.advantages(reward_GSP)
    torch.testing.assert_close(first, every[:, :1])


def test_without_baseline_the_advantage_is_the_reward() -> None:
    reward_GSP = torch.tensor([[[1.0], [2.0]]])
    assert First(NO_BASELINE).advantages(reward_GSP).tolist() == [[[1.0]]]
    both = LeaveOneOut(NO_BASELINE).advantages(reward_GSP)
    assert both.tolist() == [[[1.0], [2.0]]]


def test_a_group_of_one_has_no_baseline() -> None:
    with pytest.raises(ValueError, match="at least 2 rollouts"):
        FIRST.advantages(torch.zeros(3, 1, 1))
