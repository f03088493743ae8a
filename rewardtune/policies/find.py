"""The class of a policy by its kind: a name of ours, or anybody's ``module:Class``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rewardtune.policies.policy import Policy

OURS = {
    "encoder_decoder": "rewardtune.policies.kinds.encoder_decoder:EncoderDecoder",
    "parallel": "rewardtune.policies.kinds.parallel:ParallelPolicy",
    "hugging_face": "rewardtune.policies.hugging_face.policy:HuggingFacePolicy",
}
"""Modules are imported when needed: one of them needs transformers."""
FRESH = "encoder_decoder"
"""What a run without kind and checkpoint starts."""
OF_FOLDER = "hugging_face"
"""What a checkpoint that is a folder holds where no kind is given."""


def is_from_outside(kind: str) -> bool:
    """Whether a kind is a class of somebody else's, named as ``module:Class``."""
    return ":" in kind


def is_kind(kind: str) -> bool:
    """Whether it names a class at all: whether that is there shows when it is imported."""
    return kind in OURS or is_from_outside(kind)


def policy_class(kind: str) -> type[Policy]:
    """The class of a policy.

    Args:
        kind: one of ``OURS``, or "module:Class" of any module that can be imported.

    Raises:
        ValueError: there is no such class, or it is no ``Policy``.
        Exception: whatever the module raises while it is imported.
    """
    from rewardtune.policies.policy import Policy

    if not is_kind(kind):
        raise ValueError(
            f"policy kind '{kind}' is unknown: use one of {', '.join(OURS)}, or 'module:Class' of "
            "a class of your own"
        )
    module_name, _, name = OURS.get(kind, kind).partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and something that it imports is not
        raise ValueError(
            f"policy kind '{kind}': there is no module {module_name} here: put its folder on "
            "PYTHONPATH (RUN/code of a run has a copy)"
        ) from None
    found = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, Policy)):
        raise ValueError(
            f"policy kind '{kind}': {name} of {module_name} is no subclass of "
            "rewardtune.policies.policy.Policy: name the class of a policy"
        )
    return found
