"""Whether Ray is spoken to with a token, as Ray's own variables of the environment say."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

MODE = "RAY_AUTH_MODE"
TOKEN, TOKEN_PATH = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
HOW_TO = f"set {TOKEN} or {TOKEN_PATH} to the token that the cluster's head was started with"


def settle_auth_mode(environment: MutableMapping[str, str]) -> str:
    """Set the mode unless it is set: by token where there is one.

    Left open, it would hang on a file in somebody's home folder, which Ray makes there itself.
    """
    has_token = bool(environment.get(TOKEN) or environment.get(TOKEN_PATH))
    return environment.setdefault(MODE, "token" if has_token else "disabled")


def settle_own_auth_mode() -> None:
    """The same for this process, which has imported Ray and not begun to use it."""
    was_open = MODE not in os.environ
    if settle_auth_mode(os.environ) == "token" and was_open:
        from ray._raylet import Config  # type: ignore[attr-defined]

        # Ray reads its variables once, when it is imported; its own commands do this as well.
        Config.initialize("")
