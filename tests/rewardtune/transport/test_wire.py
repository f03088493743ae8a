import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from protos.v1 import group_pb2 as pb
from rewardtune.records import Group, Published, Score, ScoredGroup, View, Window
from rewardtune.transport import wire

counts = st.integers(0, 2**64 - 1)
numbers = st.floats(allow_nan=False)
windows = st.none() | st.builds(Window, aspect=numbers, min_area=numbers, size=numbers)
views = st.builds(
    View, flip=st.booleans(), scale=numbers, offset_y=numbers, offset_x=numbers, window=windows
)
names = st.text(max_size=10)


def floats(shape: tuple[int, ...], dtype: type[np.floating[Any]]) -> st.SearchStrategy[Any]:
    return hnp.arrays(dtype, shape, elements={"allow_nan": True})


@st.composite
def groups(draw: st.DrawFn, num_rollouts: int | None = None) -> Group:
    num_tokens, num_probes = draw(st.integers(0, 5)), draw(st.integers(0, 2))
    rollouts = draw(st.integers(0, 4)) if num_rollouts is None else num_rollouts
    return Group(
        ordinal=draw(counts),
        example=draw(counts),
        view=draw(views),
        published=Published(term=draw(counts), policy_version=draw(counts)),
        tokens_ST=draw(hnp.arrays(np.int32, (rollouts, num_tokens))),
        log_probs_ST=draw(floats((rollouts, num_tokens), np.float32)),
        probe_log_probs_STQ=draw(floats((rollouts, num_tokens, num_probes), np.float32)),
    )


@st.composite
def scores(draw: st.DrawFn, num_rollouts: int | None = None) -> Score:
    rollouts = draw(st.integers(0, 4)) if num_rollouts is None else num_rollouts
    width = draw(st.integers(0, 3))
    return Score(
        reward_S=draw(floats((rollouts,), np.float64)),
        components=draw(st.dictionaries(names, floats((rollouts,), np.float64), max_size=3)),
        aux=draw(st.dictionaries(names, floats((rollouts, width), np.float64), max_size=3)),
        is_valid=draw(st.booleans()),
    )


def a_group(num_rollouts: int = 2) -> Group:
    return Group(
        ordinal=7,
        example=3,
        view=View(flip=True, scale=0.5, offset_y=0.25),
        published=Published(term=1, policy_version=6),
        tokens_ST=np.arange(num_rollouts * 3, dtype=np.int32).reshape(num_rollouts, 3),
        log_probs_ST=np.full((num_rollouts, 3), -0.5, np.float32),
        probe_log_probs_STQ=np.zeros((num_rollouts, 3, 1), np.float32),
    )


def a_score(num_rollouts: int = 2) -> Score:
    return Score(reward_S=np.arange(num_rollouts, dtype=np.float64))


def assert_same_array(got: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    # By bytes: the sign of a zero and the payload of a nan survive too.
    assert got.tobytes() == expected.tobytes()


def assert_same_group(got: Group, expected: Group) -> None:
    for name in ("ordinal", "example", "view", "published"):
        assert getattr(got, name) == getattr(expected, name)
    for name in ("tokens_ST", "log_probs_ST", "probe_log_probs_STQ"):
        assert_same_array(getattr(got, name), getattr(expected, name))


def assert_same_score(got: Score, expected: Score) -> None:
    assert got.is_valid == expected.is_valid
    assert_same_array(got.reward_S, expected.reward_S)
    for mine, theirs in ((got.components, expected.components), (got.aux, expected.aux)):
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert_same_array(mine[name], theirs[name])


@given(groups())
def test_a_group_comes_back_as_it_went(group: Group) -> None:
    assert_same_group(wire.group_from_bytes(wire.group_to_bytes(group)), group)


@given(groups(), st.integers(0, 4))
def test_a_group_is_cut_to_its_longest_rollout_and_comes_back_padded(
    group: Group, num_unused: int
) -> None:
    length = group.tokens_ST.shape[1] + num_unused
    arrays: dict[str, Any] = {}
    for name in ("tokens_ST", "log_probs_ST", "probe_log_probs_STQ"):
        array = getattr(group, name)
        arrays[name] = np.zeros((len(array), length, *array.shape[2:]), array.dtype)
        arrays[name][:, : length - num_unused] = array
    padded = replace(group, **arrays)
    data = wire.group_to_bytes(padded)
    assert_same_group(wire.group_from_bytes(data), padded)
    assert wire.group_to_bytes(wire.group_from_bytes(data)) == data
    assert pb.Group.FromString(data).tokens.shape[1] <= length - num_unused


def test_what_ends_early_takes_less_room_and_what_does_not_has_the_bytes_that_it_had() -> None:
    whole = a_group()
    assert pb.Group.FromString(wire.group_to_bytes(whole)).num_tokens == 0
    # The first rollout ends after one token, the second after two; the probes say no more.
    tokens_ST = np.array([[5, 0, 0, 0], [4, 5, 0, 0]], np.int32)
    log_probs_ST = np.array([[-1, 0, 0, 0], [-1, -2, 0, 0]], np.float32)
    short = replace(
        whole,
        tokens_ST=tokens_ST,
        log_probs_ST=log_probs_ST,
        probe_log_probs_STQ=np.zeros((2, 4, 0), np.float32),
    )
    message = pb.Group.FromString(wire.group_to_bytes(short))
    assert (message.num_tokens, list(message.tokens.shape)) == (4, [2, 2])
    # A drawn token of log-prob -0.0, were there one, is no padding.
    short.log_probs_ST[0, 3] = -0.0
    assert pb.Group.FromString(wire.group_to_bytes(short)).num_tokens == 0


@pytest.mark.parametrize(
    ("num_tokens", "complaint"),
    [(3, "num_tokens = 3 but holds 3 tokens"), (2**31, "at num_tokens = 2147483648, but a")],
)
def test_a_group_of_an_impossible_length_is_refused(num_tokens: int, complaint: str) -> None:
    message = pb.Group.FromString(wire.group_to_bytes(a_group()))
    message.num_tokens = num_tokens
    with pytest.raises(ValueError, match=complaint):
        wire.group_from_bytes(message.SerializeToString())


@given(scores())
def test_a_score_comes_back_as_it_went(score: Score) -> None:
    assert_same_score(wire.score_from_bytes(wire.score_to_bytes(score)), score)


@given(st.integers(0, 3).flatmap(lambda s: st.builds(ScoredGroup, groups(s), scores(s))))
def test_a_scored_group_comes_back_as_it_went(scored: ScoredGroup) -> None:
    got = wire.scored_group_from_bytes(wire.scored_group_to_bytes(scored))
    assert_same_group(got.group, scored.group)
    assert_same_score(got.score, scored.score)


@given(scores())
def test_bytes_do_not_depend_on_the_order_of_names(score: Score) -> None:
    backwards = Score(
        reward_S=score.reward_S,
        components=dict(reversed(list(score.components.items()))),
        aux=dict(reversed(list(score.aux.items()))),
        is_valid=score.is_valid,
    )
    assert wire.score_to_bytes(backwards) == wire.score_to_bytes(score)


def test_arrays_lie_little_endian_in_c_order() -> None:
    message = pb.Group.FromString(wire.group_to_bytes(a_group()))
    assert message.tokens.data == b"".join(i.to_bytes(4, "little") for i in range(6))
    transposed = np.asfortranarray(a_group().tokens_ST)
    assert np.ascontiguousarray(transposed).tobytes() == message.tokens.data


def test_a_view_without_window_has_the_bytes_that_it_had_before_there_were_any() -> None:
    message = pb.Group.FromString(wire.group_to_bytes(a_group()))
    # flip; scale and offset_y as doubles; an offset of 0 takes no bytes.
    expected = b"\x08\x01" + b"\x11" + struct.pack("<d", 0.5) + b"\x19" + struct.pack("<d", 0.25)
    assert message.view.SerializeToString(deterministic=True) == expected


def test_a_window_of_the_whole_image_is_told_from_none() -> None:
    group = replace(a_group(), view=View(window=Window()))
    assert wire.group_from_bytes(wire.group_to_bytes(group)).view == View(window=Window())


def test_arrays_that_came_over_the_wire_can_be_written_to() -> None:
    assert wire.group_from_bytes(wire.group_to_bytes(a_group())).tokens_ST.flags.writeable


def test_a_score_without_its_flag_is_invalid_rather_than_a_reward() -> None:
    message = pb.Score.FromString(wire.score_to_bytes(a_score()))
    message.ClearField("is_valid")
    assert not wire.score_from_bytes(message.SerializeToString()).is_valid


@given(groups(), st.data())
def test_cut_off_bytes_are_a_value_error(group: Group, data: st.DataObject) -> None:
    whole = wire.group_to_bytes(group)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(ValueError, match=r"."):
        wire.group_from_bytes(cut)


@given(st.binary(max_size=200))
def test_garbage_is_a_value_error(garbage: bytes) -> None:
    readers: list[Callable[[bytes], object]] = [
        wire.group_from_bytes,
        wire.score_from_bytes,
        wire.scored_group_from_bytes,
    ]
    for read in readers:
        with pytest.raises(ValueError, match=r"."):
            read(garbage)


def _no_view(message: pb.Group) -> None:
    message.ClearField("view")


def _short_tokens(message: pb.Group) -> None:
    message.tokens.data = message.tokens.data[:-1]


def _wide_tokens(message: pb.Group) -> None:
    message.tokens.shape[:] = [6, 1]


def _flat_tokens(message: pb.Group) -> None:
    message.tokens.shape[:] = [6]


def _other_dtype(message: pb.Group) -> None:
    message.tokens.dtype = pb.DTYPE_FLOAT32


def _huge_shape(message: pb.Group) -> None:
    message.tokens.shape[:] = [2**32 - 1] * 4


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_view, "needs its field 'view'"),
        (_short_tokens, "tokens of shape .* needs 24 bytes, got 23"),
        (_wide_tokens, "group 7 needs tokens"),
        (_flat_tokens, "group 7 needs tokens"),
        (_other_dtype, "tokens must be DTYPE_INT32"),
        (_huge_shape, "needs [0-9]+ bytes, got 24"),
    ],
)
def test_a_damaged_group_says_what_is_wrong(
    damage: Callable[[pb.Group], None], message: str
) -> None:
    group = pb.Group.FromString(wire.group_to_bytes(a_group()))
    damage(group)
    with pytest.raises(ValueError, match=message):
        wire.group_from_bytes(group.SerializeToString())


def test_arrays_of_another_type_are_refused_rather_than_cut() -> None:
    group = a_group()
    wide = Group(
        ordinal=7,
        example=3,
        view=group.view,
        published=group.published,
        tokens_ST=group.tokens_ST.astype(np.int64),
        log_probs_ST=group.log_probs_ST,
        probe_log_probs_STQ=group.probe_log_probs_STQ,
    )
    with pytest.raises(ValueError, match="tokens must be int32, got int64"):
        wire.group_to_bytes(wide)


def test_group_and_score_must_speak_of_as_many_rollouts() -> None:
    with pytest.raises(ValueError, match="group 7 has 2 rollouts but its score has 3 rewards"):
        wire.scored_group_to_bytes(ScoredGroup(a_group(2), a_score(3)))


def test_a_component_of_another_length_is_refused() -> None:
    score = Score(reward_S=np.zeros(2), components={"recall": np.zeros(3)})
    with pytest.raises(ValueError, match="component 'recall' must be"):
        wire.score_to_bytes(score)


def test_messages_over_the_limit_are_refused_on_both_sides() -> None:
    with pytest.raises(ValueError, match="group 7 takes .* draw fewer samples"):
        wire.group_to_bytes(a_group(wire.MAX_MESSAGE_BYTES // 24))
    with pytest.raises(ValueError, match="refused a Group of"):
        wire.group_from_bytes(bytes(wire.MAX_MESSAGE_BYTES + 1))
