"""``python -m tests.faults.damaged_policies``: policy files with damage at seeded random places.

Each is refused in one line that names it, or loads as it was written; the exit code is 1 if one is
not. Half of the damage is to the header, which is a hundredth of a file. For comparison the same is
done to a file of before digests. Adds a line for each to damaged_policies.jsonl.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from bench.figure import EVIDENCE, machine
from rewardtune.layers.weight_file import METADATA_KEY
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from rewardtune.policies.policy_file import LoadedPolicy, PolicyFileError, load_policy, save_policy

RESULTS = EVIDENCE / "faults" / "damaged_policies.jsonl"
GOOD = ("refused", "unchanged")
_FORMER = 2372
"""As many files as were damaged when 349 of them still loaded as something else."""
_VOCABULARY = {"task": "detection", "vocab_size": 17, "class_names": ["cat", "dog", "Käfer"]}


def write_policy(path: Path, *, has_digest: bool = True) -> None:
    """A small policy of random weights."""
    torch.manual_seed(0)
    policy = EncoderDecoder(
        EncoderDecoderConfig(
            input_size=16,
            patch_size=8,
            width=16,
            num_heads=2,
            mlp_width=16,
            encoder_depth=1,
            decoder_depth=1,
            vocab_size=17,
            sequence_length=6,
        )
    )
    save_policy(path, policy, vocabulary=_VOCABULARY, provenance={"step": 12, "seed": 0})
    if not has_digest:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = json.loads(file.metadata()[METADATA_KEY])
        del metadata["digest"]
        tensors = safetensors.torch.load_file(path)
        safetensors.torch.save_file(tensors, path, metadata={METADATA_KEY: json.dumps(metadata)})


def damaged(raw: bytes, rng: np.random.Generator) -> bytes:
    """One damage: bits, bytes, a page, a lost or a repeated piece, or the end cut off."""
    header = 8 + int.from_bytes(raw[:8], "little")
    at = int(rng.integers(header if rng.random() < 0.5 else len(raw)))
    length = int(rng.integers(1, 65))
    kinds: Sequence[Callable[[], bytes]] = (
        lambda: raw[:at] + bytes([raw[at] ^ 1 << int(rng.integers(8))]) + raw[at + 1 :],
        lambda: raw[:at] + rng.bytes(length) + raw[at + length :],
        lambda: raw[:at] + bytes(min(512, len(raw) - at)) + raw[at + 512 :],
        lambda: raw[:at] + raw[at + length :],
        lambda: raw[:at] + raw[at : at + length] + raw[at:],
        lambda: raw[:at],
    )
    return kinds[int(rng.integers(len(kinds)))]()


def outcome(path: Path, written: LoadedPolicy) -> str:
    """ "refused", "unchanged", or what should not be: "silent", "unclear", the error's type."""
    try:
        found = load_policy(path)
    except PolicyFileError as error:
        return "refused" if str(path) in str(error) and "\n" not in str(error) else "unclear"
    except Exception as error:
        return type(error).__name__
    is_same = (found.vocabulary, found.provenance) == (written.vocabulary, written.provenance)
    is_same = is_same and found.policy.config == written.policy.config
    expected = written.policy.tensors()
    same = all(torch.equal(tensor, expected[n]) for n, tensor in found.policy.tensors().items())
    return "unchanged" if is_same and same else "silent"


def damage_many(folder: Path, seeds: range, *, has_digest: bool = True) -> Mapping[str, int]:
    """How many of the files, each with one damage, came to what."""
    path = folder / "policy.safetensors"
    write_policy(path, has_digest=has_digest)
    raw, written = path.read_bytes(), load_policy(path)
    outcomes: Counter[str] = Counter()
    for seed in seeds:
        broken = damaged(raw, np.random.default_rng(seed))
        path.write_bytes(broken)
        outcomes[outcome(path, written)] += 1
    return outcomes


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.damaged_policies")
    parser.add_argument("--files", type=int, default=_FORMER)
    parser.add_argument("--output", type=Path, default=RESULTS)
    told = parser.parse_args(arguments)
    torch.set_num_threads(1)
    lines: list[dict[str, Any]] = []
    for has_digest in (True, False):
        with tempfile.TemporaryDirectory(prefix="rt-damaged-") as folder:
            outcomes = damage_many(Path(folder), range(told.files), has_digest=has_digest)
        lines.append(
            {
                "name": "damaged_policies",
                "has_digest": has_digest,
                "files": told.files,
                **dict(sorted(outcomes.items())),
                "machine": machine(),
            }
        )
        print(json.dumps(lines[-1]), flush=True)
    with told.output.open("a") as output:
        output.writelines(json.dumps(line) + "\n" for line in lines)
    has_failed = sum(lines[0].get(good, 0) for good in GOOD) != told.files
    return int(has_failed)


if __name__ == "__main__":
    sys.exit(main())
