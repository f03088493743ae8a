import json

import pytest

from learner.ledger import Ledger
from learner.term import claim_term, latest_term


def test_admitted_is_trained_plus_invalid_plus_skipped() -> None:
    ledger = Ledger(batch_size=4)
    ledger.consume(range(4), invalid=[1], is_skipped=False)
    ledger.consume(range(4, 8), invalid=[4, 6], is_skipped=True)
    ledger.consume(range(8, 12), invalid=[], is_skipped=False)
    assert (ledger.invalid, ledger.skipped) == ([1, 4, 6], [5, 7])
    assert ledger.num_admitted == 12
    assert ledger.num_trained == 12 - 3 - 2


@pytest.mark.parametrize(
    "ordinals", [range(1, 5), range(3), [0, 1, 1, 3], [0, 2, 1, 3], range(5), []]
)
def test_only_the_next_batch_in_order_is_consumed(ordinals: list[int]) -> None:
    with pytest.raises(ValueError, match=r"batch 0 is ordinals 0\.\.3"):
        Ledger(batch_size=4).consume(ordinals, invalid=[], is_skipped=False)


def test_state_survives_json() -> None:
    ledger = Ledger(batch_size=2)
    ledger.consume(range(2), invalid=[0], is_skipped=True)
    assert Ledger.from_state(json.loads(json.dumps(ledger.to_state()))) == ledger


def test_terms_are_claimed_once_each(tmp_path_factory: pytest.TempPathFactory) -> None:
    run = tmp_path_factory.mktemp("run")
    assert latest_term(run) == -1
    assert [claim_term(run) for _ in range(3)] == [0, 1, 2]
    assert latest_term(run) == 2
