"""What a run writes on its groups and terms, so that it knows its own again.

A queue stores whatever somebody with its password puts there, and Redis cannot tell a worker's
script from the same commands sent by hand. So the learner trusts no stored hash: whoever draws
groups signs each with the run's secret, which reward workers are never told, and the learner takes
no group back without that signature. Keyed BLAKE2b (RFC 7693).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

SEAL_BYTES = 32
# Of more at once Python lets go of its lock, and gets it back only when other threads are idle.
_PIECE_BYTES = 2047


@dataclass(frozen=True, slots=True)
class RunSeal:
    """One run's. Equal on every process that was told the same secret."""

    run_id: str
    """Names the run wherever it shares a server with others; no secret."""
    secret: bytes

    def __repr__(self) -> str:
        return f"RunSeal(run_id={self.run_id!r})"

    def of_group(self, term: int, ordinal: int, body: bytes) -> bytes:
        """Says that this run drew these bytes for this place."""
        return self._sign(b"group %d %d " % (term, ordinal) + body)

    def of_term(self, number: int, capacity: int, spec: bytes) -> bytes:
        """Says that a learner of this run claimed this term."""
        return self._sign(b"term %d %d " % (number, capacity) + spec)

    def is_of_group(self, seal: bytes, term: int, ordinal: int, body: bytes) -> bool:
        return hmac.compare_digest(seal, self.of_group(term, ordinal, body))

    def is_of_term(self, seal: bytes, number: int, capacity: int, spec: bytes) -> bool:
        return hmac.compare_digest(seal, self.of_term(number, capacity, spec))

    def _sign(self, text: bytes) -> bytes:
        mac = hashlib.blake2b(key=self.secret, digest_size=SEAL_BYTES)
        message = self.run_id.encode() + b" " + text
        for start in range(0, len(message), _PIECE_BYTES):
            mac.update(message[start : start + _PIECE_BYTES])
        return mac.digest()
