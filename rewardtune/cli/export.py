"""``rewardtune export``: a tuned model back in the form that its own library loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_BEST, _LAST = "best.safetensors", "policy.safetensors"


def export(
    source: Annotated[
        Path,
        typer.Argument(help="A policy, or the folder of a run: its best policy, else its last."),
    ],
    output: Annotated[Path, typer.Option(help="Folder to write; new or empty.")],
) -> None:
    """Write a tuned model as its own library loads it: Hugging Face's, by from_pretrained.

    With the tokenizer and image processor that it came with.
    """
    from rewardtune.policies.policy_file import load_policy

    path = policy_of(source)
    loaded = load_policy(path)
    loaded_by = loaded.policy.export(output)
    typer.echo(f"{output}: {path} as {loaded_by} loads it")


def policy_of(source: Path) -> Path:
    """The policy file that a run's folder is meant to stand for; a file is itself.

    Raises:
        ValueError: the folder has none.
    """
    if not source.is_dir():
        return source
    for name in (_BEST, _LAST):
        if (source / name).is_file():
            return source / name
    raise ValueError(
        f"{source} holds neither {_BEST} nor {_LAST}: give a policy file, or the folder of a run "
        "that has been evaluated or is finished"
    )
