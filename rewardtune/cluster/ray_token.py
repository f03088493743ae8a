"""Whether Ray is spoken to with a token, as Ray's own variables of the environment say."""

from __future__ import annotations

from collections.abc import MutableMapping

MODE = "RAY_AUTH_MODE"
TOKEN, TOKEN_PATH = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def settle_auth_mode(environment: MutableMapping[str, str]) -> str:
    """Set the mode, before Ray reads it, unless it is set: by token where there is one.

    Left open, Ray would make a token in the home folder, which later starts then insist on.
    """
    has_token = bool(environment.get(TOKEN) or environment.get(TOKEN_PATH))
    return environment.setdefault(MODE, "token" if has_token else "disabled")


def is_refusal(message: str) -> bool:
    """Whether Ray says so of a token that is missing or wrong."""
    lowered = message.lower()
    return any(word in lowered for word in ("401", "403", "unauthorized", "forbidden", "token"))


HOW_TO = (
    f"set {TOKEN} or {TOKEN_PATH} to the cluster's token, the one that its head was started with"
)
