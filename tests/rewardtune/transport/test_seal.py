"""A seal fits what it was made for, and nothing else."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from rewardtune.transport.seal import SEAL_BYTES, RunSeal

SEAL = RunSeal("run", b"secret")
BODIES = st.binary(max_size=64)
NUMBERS = st.integers(0, 2**40)
Sealed = tuple[int, int, bytes]


@given(st.tuples(NUMBERS, NUMBERS, BODIES), st.tuples(NUMBERS, NUMBERS, BODIES))
def test_a_seal_is_of_one_group_of_one_run(one: Sealed, other: Sealed) -> None:
    made = SEAL.of_group(*one)
    assert len(made) == SEAL_BYTES
    assert SEAL.is_of_group(made, *one)
    assert SEAL.is_of_group(made, *other) == (one == other)
    assert not replace(SEAL, secret=b"another").is_of_group(made, *one)
    assert not replace(SEAL, run_id="another").is_of_group(made, *one)
    assert not SEAL.is_of_term(made, *one)
    assert not SEAL.is_of_group(b"", *one)


@given(st.tuples(NUMBERS, NUMBERS, BODIES), st.tuples(NUMBERS, NUMBERS, BODIES))
def test_a_seal_is_of_one_term_of_one_run(one: Sealed, other: Sealed) -> None:
    made = SEAL.of_term(*one)
    assert SEAL.is_of_term(made, *one)
    assert SEAL.is_of_term(made, *other) == (one == other)
    assert not replace(SEAL, secret=b"another").is_of_term(made, *one)


def test_numbers_cannot_run_into_one_another() -> None:
    assert SEAL.of_group(1, 12, b"3") != SEAL.of_group(11, 2, b"3")
    assert SEAL.of_group(1, 1, b"2 x") != SEAL.of_group(1, 12, b"x")


def test_the_secret_is_in_no_text() -> None:
    assert "secret" not in repr(SEAL)
