"""How the codebook follows its batches, and the dropping of codes."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardtune.tasks.uvim.codebook import Codebook, code_dropout, standardised
from tests.rewardtune.tasks.uvim.reference import arrays, network


def test_sums_and_revivals_are_the_reference_s() -> None:
    stored, net = arrays("stage1_train_step"), network("stage1_train_step")
    vector, code = torch.from_numpy(stored["out/bottleneck"]), torch.from_numpy(stored["out/code"])
    use = net.codebook.follow(
        vector,
        code.long(),
        momentum=float(stored["cfg/dict_momentum"]),
        min_count=float(stored["cfg/min_count"]),
        generator=torch.Generator().manual_seed(0),
    )
    assert use.num_revivals == int(stored["out/num_revivals"]) == 2
    assert use.max_share == float(stored["out/codebook_max_ratio"])
    assert use.unused_share == float(stored["out/codebook_zeros_ratio"])
    counts = torch.from_numpy(stored["out/counts_after"])
    torch.testing.assert_close(net.codebook.counts, counts, rtol=1e-6, atol=0)
    dictionary = torch.from_numpy(stored["out/dictionary_after"])
    torch.testing.assert_close(net.codebook.dictionary, dictionary, rtol=3e-3, atol=1e-6)
    before = torch.from_numpy(stored["out/counts_before_revival"])
    untouched = counts == before
    assert 0 < int(untouched.sum()) < len(counts)
    torch.testing.assert_close(
        net.codebook.dictionary[untouched], dictionary[untouched], rtol=1e-6, atol=1e-6
    )


def test_nearest_is_the_least_distance() -> None:
    torch.manual_seed(3)
    book = Codebook(13, 6)
    book.counts.uniform_(0.5, 20)
    vector = standardised(torch.randn(4, 5, 6))
    distance = (vector[:, :, None] - book.codewords()).square().sum(-1)
    assert torch.equal(book.nearest(vector), distance.argmin(-1))


def test_code_minus_one_is_the_last_codeword() -> None:
    book = Codebook(5, 4)
    assert torch.equal(book.lookup(torch.tensor([[-1, 4]]))[:, 0], book.codewords()[4:])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.booleans())
def test_every_share_of_codes_is_as_likely_to_be_kept(seed: int, is_ordered: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    kept = code_dropout(4000, 16, is_ordered=is_ordered, generator=generator)
    share = kept.sum(1).float()
    assert abs(float(share.mean()) - 8) < 0.5
    # Nearly uniform over 0..16, of variance 24.
    assert abs(float(share.var()) - 24) < 3
    falls = bool((kept[:, :-1] >= kept[:, 1:]).all())
    assert falls == is_ordered


def test_a_batch_of_one_code_revives_all_others_from_it() -> None:
    torch.manual_seed(0)
    book = Codebook(4, 3)
    vector = standardised(torch.randn(8, 16, 3))
    code = torch.zeros(8, 16, dtype=torch.int64)
    use = book.follow(
        vector, code, momentum=0.0, min_count=0.1, generator=torch.Generator().manual_seed(1)
    )
    assert (use.max_share, use.unused_share, use.num_revivals) == (1.0, 0.75, 3)
    assert float(book.counts.sum()) == 128
    torch.testing.assert_close(
        book.codewords(), book.codewords()[:1].expand(4, -1), rtol=0, atol=2e-3
    )
