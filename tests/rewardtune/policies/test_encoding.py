from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rewardtune.policies.encoding import encode_timed


def test_the_time_is_that_of_the_encoder_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def encode(images_GHWC: Tensor) -> Tensor:
        now[0] += 2.5
        return images_GHWC.flatten(1, 2)

    encoded = encode_timed(encode, torch.ones(3, 2, 2, 1))
    assert encoded.context_GPD.shape == (3, 4, 1)
    assert encoded.seconds == 2.5
