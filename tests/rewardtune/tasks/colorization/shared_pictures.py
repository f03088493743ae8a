"""Pictures with their official rewards, where they lie beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[4].parent / "shared" / "data" / "colour"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs the shared pictures beside the checkout"
)
