"""CIDEr-D of whole batches at native speed: one compiled call, one thread.

Computes what ``definition.py`` defines. All compiled functions of captioning stand in this file:
numba would not notice a change of one that is called from another.

References are cooked once into a record, a stretch of cells that several arrays view (integers of
64, 32 and 16 bits, float64): lengths, norms, a table of the references' n-grams (laid out as
``ngram_table.py`` says), and for each n-gram its idf and its count in each reference. A candidate's
n-grams are looked up there, and only those that the references lack in the table of
frequencies, which is larger than any cache. Those look-ups are begun together, so that they wait
for memory at the same time.

Axes: W words of all captions, C captions, R references, E n-grams of a caption (by length, then by
place), K document frequencies.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rewardtune.tasks.kernel import compiled

# A record, in cells from its beginning: 0 references, 1 home shift, 2 to 5 where the filter, the
# table, the row of each slot, and the rows begin, 6 cells of a row; then lengths [R] and inverse
# norms [4, R]. The filter has one bit for each value of a key's top bits: where it is 0 the
# references lack the n-gram. A row is an n-gram's idf and its count in each reference, in 16 bits.


@compiled
def mix(key: np.uint64) -> np.uint64:
    """A one-to-one function of 64 bits; 0 stays 0."""
    key ^= key >> np.uint64(32)
    key *= np.uint64(0x9E3779B97F4A7C15)
    key ^= key >> np.uint64(29)
    key *= np.uint64(0xBF58476D1CE4E5B9)
    return key


@compiled
def _with_word(
    first: np.uint64, second: np.uint64, word: int, place: int, is_wide: bool
) -> tuple[np.uint64, np.uint64]:
    """A key that is not mixed yet, with one more word."""
    value = np.uint64(word + 1)
    if not is_wide:
        return first | value << np.uint64(16 * place), second
    if place < 2:
        return first | value << np.uint64(32 * place), second
    return first, second | value << np.uint64(32 * (place - 2))


@compiled
def ngram_key(
    word_W: NDArray[np.int32], at: int, length: int, is_wide: bool
) -> tuple[np.uint64, np.uint64]:
    """The mixed key of ``word_W[at : at + length]``, in two parts; a narrow one's second is 0."""
    first, second = np.uint64(0), np.uint64(0)
    for k in range(length):
        first, second = _with_word(first, second, word_W[at + k], k, is_wide)
    if is_wide:
        first ^= mix(second)
    return mix(first), second


@compiled
def find(
    cell: NDArray[np.uint64],
    at: int | np.int64,
    stride: int,
    is_wide: bool,
    first: np.uint64,
    second: np.uint64,
) -> int | np.int64:
    """The cell where the key's entry begins, searching from its home at ``at``; -1: none."""
    while cell[at] < first:
        at += stride
    if is_wide:
        while cell[at] == first and cell[at + 1] < second:
            at += stride
        if cell[at + 1] != second:
            return -1
    return at if cell[at] == first else -1


@compiled
def unsorted_rows(
    word_W: NDArray[np.int32],
    length_C: NDArray[np.int64],
    image_C: NDArray[np.int64],
    is_wide: bool,
    longest: int,
) -> NDArray[np.uint64]:
    """One row for each caption and each of its n-grams: key (one or two columns), image."""
    num_rows = 0
    for length in length_C:
        num_rows += 1
        for n in range(longest):
            num_rows += max(0, length - n)
    num_keys = 2 if is_wide else 1
    row_KN = np.zeros((num_keys + 1, num_rows), dtype=np.uint64)
    row, start = 0, 0
    for c in range(len(length_C)):
        row_KN[num_keys, row] = image_C[c]
        row += 1
        for n in range(1, longest + 1):
            for i in range(length_C[c] - n + 1):
                first, second = ngram_key(word_W, start + i, n, is_wide)
                row_KN[0, row] = first
                if is_wide:
                    row_KN[1, row] = second
                row_KN[num_keys, row] = image_C[c]
                row += 1
        start += length_C[c]
    return row_KN


@compiled
def keys_of(ngram_N4: NDArray[np.int32], is_wide: bool) -> NDArray[np.uint64]:
    """The mixed keys of n-grams that are filled up with -1: one row, or two if they are wide."""
    key_KN = np.zeros((2 if is_wide else 1, len(ngram_N4)), dtype=np.uint64)
    for i in range(len(ngram_N4)):
        length = 0
        while length < ngram_N4.shape[1] and ngram_N4[i, length] >= 0:
            length += 1
        first, second = ngram_key(ngram_N4[i], 0, length, is_wide)
        key_KN[0, i] = first
        if is_wide:
            key_KN[1, i] = second
    return key_KN


@compiled
def _idf(count: np.int64, idf_K: NDArray[np.float64]) -> float:
    """log N - log max(1, count), of which ``idf_K`` holds the first; its entry 0 is log N."""
    if count < len(idf_K):
        return float(idf_K[count])
    return float(idf_K[0] - math.log(float(count)))


@compiled
def _sorted_keys(
    word_W: NDArray[np.int32], length_R: NDArray[np.int64], is_wide: bool
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """Key (two parts), reference and length of each n-gram of each reference, in order of keys."""
    total = 0
    for length in length_R:
        for n in range(4):
            total += max(np.int64(0), length - n)
    first_E = np.empty(total, dtype=np.uint64)
    second_E = np.empty(total, dtype=np.uint64)
    reference_E = np.empty(total, dtype=np.int64)
    length_E = np.empty(total, dtype=np.int64)
    e, start = 0, 0
    for r in range(len(length_R)):
        for n in range(1, 5):
            for i in range(length_R[r] - n + 1):
                first_E[e], second_E[e] = ngram_key(word_W, start + i, n, is_wide)
                reference_E[e] = r
                length_E[e] = n
                e += 1
        start += length_R[r]
    order_E = np.argsort(first_E)
    # The second part decides among next to none.
    for i in range(1, total if is_wide else 0):
        k = i
        while k > 0:
            below, above = order_E[k - 1], order_E[k]
            if first_E[below] != first_E[above] or second_E[below] <= second_E[above]:
                break
            order_E[k - 1], order_E[k] = above, below
            k -= 1
    return first_E[order_E], second_E[order_E], reference_E[order_E], length_E[order_E]


@compiled
def cook(
    word_W: NDArray[np.int32],
    length_R: NDArray[np.int64],
    is_wide: bool,
    frequency_cell: NDArray[np.uint64],
    frequency_shift: int,
    idf_K: NDArray[np.float64],
) -> NDArray[np.uint64]:
    """The record of one image's references, which stand one behind the other in ``word_W``."""
    first_E, second_E, reference_E, length_E = _sorted_keys(word_W, length_R, is_wide)
    total, num_references = len(first_E), len(length_R)
    # Where the entries of each n-gram begin.
    begin_N = np.empty(total + 1, dtype=np.int64)
    num_distinct = 0
    for e in range(total):
        if e == 0 or first_E[e] != first_E[e - 1] or second_E[e] != second_E[e - 1]:
            begin_N[num_distinct] = e
            num_distinct += 1
    begin_N[num_distinct] = total

    num_key_cells = 2 if is_wide else 1
    num_bits = 4
    while 2**num_bits < 2 * num_distinct:
        num_bits += 1
    shift = np.uint64(64 - num_bits)
    num_slots = np.int64(0)
    for n in range(num_distinct):
        num_slots = max(np.int64(first_E[begin_N[n]] >> shift), num_slots) + np.int64(1)
    # A search may begin at any home, and ends at the latest behind the last of them.
    num_slots = max(num_slots, np.int64(2**num_bits)) + np.int64(1)

    lengths = 7
    norms = lengths + num_references
    bitmap = norms + 4 * num_references
    table = bitmap + 2 ** (num_bits - 4)
    row_of_slot = table + num_slots * num_key_cells
    rows = row_of_slot + (num_slots + 1) // 2
    row_cells = 1 + (num_references + 3) // 4
    cell = np.zeros(rows + num_distinct * row_cells, dtype=np.uint64)
    value, half, quarter = cell.view(np.float64), cell.view(np.uint32), cell.view(np.uint16)
    cell[0], cell[1], cell[2] = num_references, shift, bitmap
    cell[3], cell[4], cell[5], cell[6] = table, row_of_slot, rows, row_cells
    for r in range(num_references):
        cell[lengths + r] = max(length_R[r] - 1, np.int64(0))

    slot = np.int64(0)
    for n in range(num_distinct):
        e, row = begin_N[n], rows + n * row_cells
        first, second = first_E[e], second_E[e]
        stride = num_key_cells + 1
        home = np.int64(first >> np.uint64(frequency_shift)) * stride
        at = find(frequency_cell, home, stride, is_wide, first, second)
        idf = idf_K[0]
        if at >= 0:
            idf = _idf(np.int64(frequency_cell[at + num_key_cells]), idf_K)
        value[row] = idf
        for k in range(e, begin_N[n + 1]):
            quarter[4 * (row + 1) + reference_E[k]] += np.uint16(1)
        for r in range(num_references):
            weight = quarter[4 * (row + 1) + r] * idf
            value[norms + (length_E[e] - 1) * num_references + r] += weight * weight
        bit = first >> (shift - np.uint64(2))
        cell[bitmap + np.int64(bit >> np.uint64(6))] |= np.uint64(1) << (bit & np.uint64(63))
        last_slot = max(np.int64(first >> shift), slot)
        while slot <= last_slot:
            cell[table + slot * num_key_cells] = first
            if is_wide:
                cell[table + slot * num_key_cells + 1] = second
            half[2 * row_of_slot + slot] = row
            slot += 1
    while slot < num_slots:
        for k in range(num_key_cells):
            cell[table + slot * num_key_cells + k] = np.uint64(0xFFFFFFFFFFFFFFFF)
        slot += 1
    for k in range(norms, norms + 4 * num_references):
        if value[k] > 0.0:
            value[k] = 1.0 / math.sqrt(value[k])
    return cell


@compiled
def _count_repeats(
    word_W: NDArray[np.int32],
    start: int,
    length: int,
    count_E: NDArray[np.int32],
    root_E: NDArray[np.int32],
    last_H: NDArray[np.int32],
    before_W: NDArray[np.int32],
) -> None:
    """Into ``count_E``, how often each n-gram occurs: at its first place; 0 at the others.

    Args:
        root_E: the first place of each n-gram that stands at another. Scratch.
        last_H: of each hash of a word the last place, plus one; all 0, and left so. Scratch.
        before_W: of each place the one before with the same hash. Scratch.
    """
    for e in range(4 * length):
        count_E[e] = 1
    for i in range(length):
        word = word_W[start + i]
        bucket = word & 255
        before_W[i] = last_H[bucket] - 1
        last_H[bucket] = i + 1
        num_done = 0
        j = before_W[i]
        while j >= 0 and num_done < 4:
            common = 0
            while (
                common < 4
                and i + common < length
                and word_W[start + j + common] == word_W[start + i + common]
            ):
                common += 1
            for n in range(num_done, common):
                root = root_E[n * length + j] if count_E[n * length + j] == 0 else j
                root_E[n * length + i] = root
                count_E[n * length + root] += 1
                count_E[n * length + i] = 0
            num_done = max(num_done, common)
            j = before_W[j]
    for i in range(length):
        last_H[word_W[start + i] & 255] = 0


@compiled
def score(
    word_W: NDArray[np.int32],
    offset_C: NDArray[np.int64],
    record_C: NDArray[np.int64],
    cell: NDArray[np.uint64],
    limit: int,
    is_wide: bool,
    counts_end: bool,
    frequency_cell: NDArray[np.uint64],
    frequency_shift: int,
    idf_K: NDArray[np.float64],
    penalty_D: NDArray[np.float64],
) -> NDArray[np.float64]:
    """CIDEr-D of each caption.

    Args:
        offset_C: caption c is ``word_W[offset_C[c] : offset_C[c + 1]]``, up to its first 0.
        record_C: where the record of its image begins in ``cell``.
        limit: n-grams with a word from here on are in no table.
        counts_end: the 0 that ends a caption is a word of it.
        penalty_D: exp(-d^2 / 72) for a difference of d words; 0 beyond.
    """
    num_captions = len(record_C)
    score_C = np.zeros(num_captions)
    max_length, max_references = np.int64(0), np.int64(0)
    for c in range(num_captions):
        max_length = max(max_length, offset_C[c + 1] - offset_C[c])
        max_references = max(max_references, np.int64(cell[record_C[c]]))
    value, half, quarter = cell.view(np.float64), cell.view(np.uint32), cell.view(np.uint16)
    packed_W = np.empty(max_length, dtype=np.uint64)
    packed_second_W = np.empty(max_length, dtype=np.uint64)
    first_E = np.empty(4 * max_length, dtype=np.uint64)
    second_E = np.zeros(4 * max_length, dtype=np.uint64)
    peek_E = np.empty(4 * max_length, dtype=np.uint64)
    idf_E = np.empty(4 * max_length)
    count_E = np.empty(4 * max_length, dtype=np.int32)
    root_E = np.empty(4 * max_length, dtype=np.int32)
    before_W = np.empty(max_length, dtype=np.int32)
    last_H = np.zeros(256, dtype=np.int32)
    reach_W = np.zeros(max_length + 1, dtype=np.int64)
    product_R = np.empty(max_references)
    factor_R = np.empty(max_references)
    num_key_cells = 2 if is_wide else 1
    stride = num_key_cells + 1
    up = np.uint64(frequency_shift)

    for c in range(num_captions):
        start = offset_C[c]
        capacity = offset_C[c + 1] - start
        length = 0
        while length < capacity and word_W[start + length] != 0:
            length += 1
        if counts_end and length < capacity:
            length += 1
        record = record_C[c]
        num_references = np.int64(cell[record])
        shift = cell[record + 1]
        bitmap = record + np.int64(cell[record + 2])
        table = record + np.int64(cell[record + 3])
        row_of_slot = 2 * (record + np.int64(cell[record + 4]))
        norms = record + 7 + num_references

        _count_repeats(word_W, start, length, count_E, root_E, last_H, before_W)
        # How many words from here on tables can know.
        reach_W[length] = 0
        for i in range(length - 1, -1, -1):
            reach_W[i] = reach_W[i + 1] + 1 if word_W[start + i] < limit else 0
            packed_W[i] = np.uint64(0)
            packed_second_W[i] = np.uint64(0)
        for n in range(4):
            for i in range(length - n):
                first, second = _with_word(
                    packed_W[i], packed_second_W[i], word_W[start + i + n], n, is_wide
                )
                packed_W[i] = first
                packed_second_W[i] = second
                if is_wide:
                    first ^= mix(second)
                    second_E[n * length + i] = second
                first = mix(first)
                first_E[n * length + i] = first
                # Read now, needed later: the waits for memory overlap.
                peek_E[n * length + i] = frequency_cell[np.int64(first >> up) * stride]

        excess_words = max(length - 1, 0)
        for r in range(num_references):
            excess = abs(excess_words - np.int64(cell[record + 7 + r]))
            factor_R[r] = penalty_D[excess] if excess < len(penalty_D) else 0.0
        total = 0.0
        for n in range(4):
            for r in range(num_references):
                product_R[r] = 0.0
            num_hits = 0
            for i in range(length - n):
                e = n * length + i
                first, count = first_E[e], count_E[e]
                idf_E[e] = idf_K[0]
                if reach_W[i] <= n:
                    continue
                bit = first >> (shift - np.uint64(2))
                is_near = (
                    cell[bitmap + np.int64(bit >> np.uint64(6))] >> (bit & np.uint64(63))
                ) & np.uint64(1)
                if is_near != 0:
                    at = table + np.int64(first >> shift) * num_key_cells
                    found = find(cell, at, num_key_cells, is_wide, first, second_E[e])
                    row = np.int64(0)
                    if found >= 0:
                        row = np.int64(half[row_of_slot + (found - table) // num_key_cells])
                    # Row 0, the record's own beginning, is that of the entry behind the last.
                    if row > 0:
                        row += record
                        idf = value[row]
                        idf_E[e] = idf
                        num_hits += 1
                        if idf < 0.0:
                            for r in range(num_references):
                                in_reference = np.int64(quarter[4 * (row + 1) + r])
                                # The smaller weight is that of the larger count.
                                clipped = max(np.int64(count), in_reference)
                                if count > 0:
                                    product_R[r] += clipped * in_reference * (idf * idf)
                        else:
                            for r in range(num_references):
                                in_reference = np.int64(quarter[4 * (row + 1) + r])
                                clipped = min(np.int64(count), in_reference)
                                product_R[r] += clipped * in_reference * (idf * idf)
                        continue
                if peek_E[e] <= first:
                    at = np.int64(first >> up) * stride
                    at = find(frequency_cell, at, stride, is_wide, first, second_E[e])
                    if at >= 0:
                        idf_E[e] = _idf(np.int64(frequency_cell[at + num_key_cells]), idf_K)
            if num_hits == 0:
                continue
            norm = 0.0
            for e in range(n * length, n * length + length - n):
                weight = count_E[e] * idf_E[e]
                norm += weight * weight
            if norm > 0.0:
                similarity = 0.0
                for r in range(num_references):
                    inverse = value[norms + n * num_references + r]
                    similarity += product_R[r] * inverse * factor_R[r]
                total += similarity / math.sqrt(norm)
        score_C[c] = 10.0 * total / 4.0 / num_references
    return score_C
