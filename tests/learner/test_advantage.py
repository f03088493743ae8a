import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.advantage import advantages

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
    got = advantages(
        torch.tensor(rewards, dtype=torch.float64), estimator="leave_one_out", has_baseline=True
    )
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))


@given(REWARDS)
def test_first_is_the_first_column_of_leave_one_out(rewards: list[list[float]]) -> None:
    reward_GS = torch.tensor(rewards, dtype=torch.float64)
    first = advantages(reward_GS, estimator="first", has_baseline=True)
    every = advantages(reward_GS, estimator="leave_one_out", has_baseline=True)
    torch.testing.assert_close(first, every[:, :1])


def test_without_baseline_the_advantage_is_the_reward() -> None:
    reward_GS = torch.tensor([[1.0, 2.0]])
    assert advantages(reward_GS, estimator="first", has_baseline=False).tolist() == [[1.0]]
    both = advantages(reward_GS, estimator="leave_one_out", has_baseline=False)
    assert both.tolist() == [[1.0, 2.0]]


def test_a_group_of_one_has_no_baseline() -> None:
    with pytest.raises(ValueError, match="at least 2 rollouts"):
        advantages(torch.zeros(3, 1), estimator="first", has_baseline=True)
