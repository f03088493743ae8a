"""The draw against slow definitions, and the statistics of the numbers that decide it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rewardtune.policies.draw import GREEDY, Decoding, draw_tokens, restrict, uniforms

MASK = 0xFFFFFFFF
SAMPLING = Decoding()


def numbers(
    *, seed: int = 0, ordinals: Any = range(256), num_rollouts: int = 8, length: int = 64
) -> npt.NDArray[np.float64]:
    """Uniform numbers [ordinals, rollouts, length]."""
    ordinals = torch.as_tensor(list(ordinals))
    drawn = uniforms(
        seed=seed,
        ordinals_N=ordinals.repeat_interleave(num_rollouts),
        rollouts_N=torch.arange(num_rollouts).repeat(len(ordinals)),
        sequence_length=length,
    )
    assert drawn.dtype == torch.float32
    return drawn.double().numpy().reshape(-1, num_rollouts, length)


def hash_by_hand(seed: int, ordinal: int, rollout: int, position: int) -> int:
    """The same number in unbounded Python integers, times 2^24."""

    def mix(word: int) -> int:
        word ^= word >> 16
        word = word * 0x85EBCA6B & MASK
        word ^= word >> 13
        word = word * 0xC2B2AE35 & MASK
        return word ^ word >> 16

    def fold(state: int, word: int) -> int:
        return mix((state * 0x9E3779B1 + word + 0x7F4A7C15) & MASK)

    first, second = 0, 0x6A09E667
    for word in (seed & MASK, seed >> 32 & MASK, ordinal & MASK, ordinal >> 32, rollout):
        first, second = fold(first, word), fold(second, word)
    return mix((fold(first, position) + second) & MASK) >> 8


@pytest.mark.parametrize("seed", [0, 1, -1, 2**31, 2**63 - 1, -(2**63)])
def test_uniforms_equal_their_definition_in_unbounded_integers(seed: int) -> None:
    ordinals = [0, 1, 77, 2**31, 2**32 + 5, 2**62]
    found = numbers(seed=seed, ordinals=ordinals, num_rollouts=3, length=7) * 2**24
    expected = [
        [[hash_by_hand(seed, ordinal, r, p) for p in range(7)] for r in range(3)]
        for ordinal in ordinals
    ]
    np.testing.assert_array_equal(found, expected)


def test_uniforms_lie_on_their_grid_below_one() -> None:
    found = numbers() * 2**24
    np.testing.assert_array_equal(found, np.floor(found))
    assert found.min() >= 0
    assert found.max() < 2**24
    assert len(np.unique(found)) > 0.99 * found.size  # about 0.4% meet by chance


def test_uniforms_depend_on_neither_the_batch_nor_the_length() -> None:
    together = numbers(num_rollouts=8, length=600)
    alone = numbers(ordinals=[97], num_rollouts=8, length=600)
    np.testing.assert_array_equal(alone[0], together[97])
    np.testing.assert_array_equal(numbers(num_rollouts=2, length=64), together[:, :2, :64])
    shuffled = numbers(ordinals=[5, 3, 200], length=600)
    np.testing.assert_array_equal(shuffled, together[[5, 3, 200]])


def test_uniforms_have_the_moments_of_a_uniform_distribution() -> None:
    found = numbers()
    error = math.sqrt(1 / 12 / found.size)
    assert abs(found.mean() - 0.5) < 4 * error
    assert abs((found**2).mean() - 1 / 3) < 4 * math.sqrt(4 / 45 / found.size)
    for axis in range(3):  # a position, a rollout or an ordinal that is special would show here
        others = tuple({0, 1, 2} - {axis})
        means = found.mean(axis=others)
        spread = math.sqrt(1 / 12 / (found.size / len(means)))
        assert np.abs(means - 0.5).max() < 5 * spread


@pytest.mark.parametrize("num_bits", [1, 4, 8, 12])
@pytest.mark.parametrize("lowest", [False, True])
def test_every_bin_of_uniforms_is_as_full_as_the_others(num_bits: int, lowest: bool) -> None:
    integers = (numbers() * 2**24).astype(np.int64).ravel()
    bins = integers % 2**num_bits if lowest else integers >> (24 - num_bits)
    counts = np.bincount(bins, minlength=2**num_bits)
    expected = len(bins) / 2**num_bits
    chi_square = ((counts - expected) ** 2 / expected).sum()
    freedom = 2**num_bits - 1
    assert abs(chi_square - freedom) < 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("lag", [1, 2, 4])
@pytest.mark.parametrize("axis", ["ordinal", "rollout", "position", "seed", "high ordinal"])
def test_neighbouring_uniforms_are_unrelated(axis: str, lag: int) -> None:
    first, second = {
        "ordinal": lambda: (numbers(), numbers(ordinals=range(lag, 256 + lag))),
        "rollout": lambda: (
            numbers(num_rollouts=16)[:, :-lag],
            numbers(num_rollouts=16)[:, lag:],
        ),
        "position": lambda: (numbers()[..., :-lag], numbers()[..., lag:]),
        "seed": lambda: (numbers(), numbers(seed=lag)),
        "high ordinal": lambda: (numbers(), numbers(ordinals=range(lag << 32, (lag << 32) + 256))),
    }[axis]()
    x, y = first.ravel() - 0.5, second.ravel() - 0.5
    error = 1 / math.sqrt(len(x))
    assert abs(12 * (x * y).mean()) < 4 * error
    # And bit by bit: as often equal as not.
    bits = [(v.ravel() * 2**24).astype(np.int64) for v in (first, second)]
    for bit in range(24):
        agreement = 1 - ((bits[0] ^ bits[1]) >> bit & 1).mean()
        assert abs(agreement - 0.5) < 5 * error / 2
    # And jointly: a 16 by 16 table of both.
    table = np.bincount((bits[0] >> 20) * 16 + (bits[1] >> 20), minlength=256)
    expected = len(x) / 256
    chi_square = ((table - expected) ** 2 / expected).sum()
    assert abs(chi_square - 255) < 5 * math.sqrt(2 * 255)


def test_no_two_rollouts_of_a_long_run_share_their_numbers() -> None:
    drawn = numbers(ordinals=range(2**17), num_rollouts=2, length=3).reshape(-1, 3)
    assert len(np.unique(drawn, axis=0)) == len(drawn)


def draw_by_hand(probability_V: npt.NDArray[np.float32], uniform: np.float32) -> int:
    """First index whose cumulative probability exceeds uniform * total; never one without mass."""
    # torch sums in float64 and rounds each sum to float32.
    cumulative_V = np.cumsum(probability_V, dtype=np.float64).astype(np.float32)
    threshold = np.float32(uniform * cumulative_V[-1])
    last = int(np.flatnonzero(probability_V).max())
    beyond = np.flatnonzero(cumulative_V > threshold)
    return min(int(beyond[0]), last) if len(beyond) else last


@pytest.mark.parametrize(
    ("vocab_size", "scale"),
    # Of many tokens the total is off 1 by so much that a threshold of u alone would show.
    [(37, 0.1), (37, 3.0), (37, 30.0), (20_000, 3.0)],
)
def test_the_draw_equals_its_definition(vocab_size: int, scale: float) -> None:
    torch.manual_seed(0)
    logits_NV = torch.randn(800, vocab_size) * scale
    uniform_N = torch.randint(2**24, (800,)) * 2.0**-24
    uniform_N[:4] = torch.tensor([0.0, 2.0**-24, 1 - 2.0**-24, 0.5])
    probability_NV = logits_NV.softmax(-1).numpy()
    expected = [draw_by_hand(p, u) for p, u in zip(probability_NV, uniform_N.numpy(), strict=True)]
    assert draw_tokens(logits_NV, uniform_N, SAMPLING).tolist() == expected


def test_the_draw_follows_the_distribution() -> None:
    torch.manual_seed(0)
    logits_V = torch.randn(9) * 2
    uniform_N = (torch.arange(2**18) + 0.5) * 2.0**-18
    drawn = draw_tokens(logits_V.expand(2**18, 9), uniform_N, SAMPLING)
    share = torch.bincount(drawn, minlength=9) / 2**18
    torch.testing.assert_close(share, logits_V.softmax(-1), rtol=0, atol=2 * 2.0**-18)


def test_a_token_without_mass_is_never_drawn() -> None:
    logits_V = torch.tensor([-math.inf, 0.0, -math.inf, 1.0, -200.0, -math.inf])
    uniform_N = torch.cat([torch.arange(2000) / 2000, torch.tensor([1 - 2.0**-24, 1.0])])
    drawn = draw_tokens(logits_V.expand(len(uniform_N), 6), uniform_N, SAMPLING)
    assert set(drawn.tolist()) == {1, 3}
    assert drawn[0] == 1
    assert drawn[-2:].tolist() == [3, 3]


@pytest.mark.parametrize("vocab_size", [2, 3, 1084, 40_000])
def test_the_largest_uniform_draws_a_token_that_exists(vocab_size: int) -> None:
    largest = torch.full((4,), 1 - 2.0**-24)
    torch.manual_seed(0)
    drawn = draw_tokens(torch.randn(4, vocab_size), largest, SAMPLING)
    assert ((drawn >= 0) & (drawn < vocab_size)).all()
    certain = torch.full((4, vocab_size), -1e4)
    certain[:, 1] = 0
    assert draw_tokens(certain, largest, SAMPLING).tolist() == [1, 1, 1, 1]


def test_greedy_takes_the_first_of_the_most_likely() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0, 1.0], [5.0, 5.0, 5.0, 5.0], [-math.inf, -9.0, -8.0, -8]])
    assert draw_tokens(logits, torch.rand(3), GREEDY).tolist() == [1, 0, 2]
    torch.manual_seed(0)
    coarse = torch.randint(4, (200, 33)).float()
    expected = [row.index(max(row)) for row in coarse.tolist()]
    assert draw_tokens(coarse, torch.rand(200), GREEDY).tolist() == expected


def kept_by_hand(logits: list[float], decoding: Decoding) -> set[int]:
    """Indices that ``top_k`` or ``top_p`` leaves, by algorithm spec section 4."""
    tempered = [logit / decoding.temperature for logit in logits]
    order = sorted(range(len(logits)), key=lambda index: -tempered[index])  # stable
    if decoding.top_k is not None:
        return set(order[: decoding.top_k])
    assert decoding.top_p is not None
    weights = [math.exp(tempered[i] - tempered[order[0]]) for i in order]
    mass = 0.0
    cutoff = tempered[order[-1]]
    for index, weight in zip(order, weights, strict=True):
        mass += weight / sum(weights)
        if mass >= decoding.top_p:
            cutoff = tempered[index]
            break
    return {index for index, logit in enumerate(tempered) if logit >= cutoff}


# Whole and half numbers, so that ties are common.
LOGITS = st.lists(st.integers(-8, 8).map(lambda half: half / 2), min_size=1, max_size=12)


@given(
    logits=LOGITS,
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
    top_k=st.integers(1, 14) | st.none(),
    top_p=st.sampled_from([0.01, 0.123456, 0.4321, 0.77777, 0.96, 0.9999]),
)
def test_restriction_equals_its_definition(
    logits: list[float], temperature: float, top_k: int | None, top_p: float
) -> None:
    decoding = Decoding(
        temperature=temperature, top_k=top_k, top_p=None if top_k is not None else top_p
    )
    restricted = restrict(torch.tensor([logits]), decoding)[0]
    expected = kept_by_hand(logits, decoding)
    assert {i for i, logit in enumerate(restricted.tolist()) if logit > -math.inf} == expected
    for index in expected:
        assert restricted[index] == logits[index] / temperature
    uniform_N = torch.arange(64) / 64
    drawn = draw_tokens(torch.tensor([logits]).expand(64, -1), uniform_N, decoding)
    assert set(drawn.tolist()) <= expected


@pytest.mark.parametrize(
    ("decoding", "expected"),
    [
        (Decoding(top_k=1), {1}),
        (Decoding(top_k=2), {1, 3}),
        (Decoding(top_k=3), {0, 1, 3}),  # 0 and 2 are equal: the first is kept
        (Decoding(top_k=9), {0, 1, 2, 3}),
        (Decoding(top_p=0.4), {1}),
        (Decoding(top_p=0.41), {1, 3}),
        (Decoding(top_p=0.71), {0, 1, 2, 3}),  # 0 and 2 are equal: both are kept
        (Decoding(top_p=1.0), {0, 1, 2, 3}),
        (Decoding(temperature=0.1, top_p=0.9), {1}),
    ],
)
def test_restriction_by_example(decoding: Decoding, expected: set[int]) -> None:
    probability = torch.tensor([[0.15, 0.4, 0.15, 0.3]], dtype=torch.float64)
    restricted = restrict(probability.log(), decoding)[0]
    assert {i for i, logit in enumerate(restricted.tolist()) if logit > -math.inf} == expected


def test_of_many_equal_tokens_the_first_are_kept() -> None:
    torch.manual_seed(0)
    logits_NV = torch.randint(3, (4, 3000)).float()
    kept = restrict(logits_NV, Decoding(top_k=500)).isfinite()
    for row in range(4):
        best = (logits_NV[row] == 2).nonzero().flatten()
        assert len(best) > 500
        assert kept[row].nonzero().flatten().tolist() == best[:500].tolist()


def test_the_whole_mass_restricts_nothing() -> None:
    torch.manual_seed(0)
    logits_NV = torch.randn(20, 40_000) * 0.1
    torch.testing.assert_close(restrict(logits_NV, Decoding(top_p=1.0)), logits_NV)
    # Where rounding keeps the sum below top_p, the cutoff is the last token and not beyond it.
    almost = restrict(logits_NV, Decoding(top_p=math.nextafter(1.0, 0.0)))
    mass_N = (logits_NV.softmax(dim=-1) * almost.isfinite()).sum(dim=-1)
    torch.testing.assert_close(mass_N, torch.ones(20))


def test_temperature_sharpens_and_flattens() -> None:
    logits_V = torch.tensor([0.0, 1.0, 2.0])
    uniform_N = (torch.arange(4096) + 0.5) / 4096
    for temperature in (0.25, 1.0, 4.0):
        drawn = draw_tokens(logits_V.expand(4096, 3), uniform_N, Decoding(temperature=temperature))
        expected: Tensor = (logits_V / temperature).softmax(-1)
        share = torch.bincount(drawn, minlength=3) / 4096
        torch.testing.assert_close(share, expected, rtol=0, atol=2 / 4096)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive, got 0.0: .*use greedy"),
        ({"temperature": -1.0}, "temperature must be positive"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\], got 0.0"),
        ({"top_p": 1.5}, r"top_p must be in \(0, 1\], got 1.5"),
        ({"top_k": 3, "top_p": 0.5}, "top_k=3 and top_p=0.5 exclude each other"),
    ],
)
def test_decodings_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decoding(**options)
