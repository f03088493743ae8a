"""``rewardtune import-checkpoint``: what big_vision published, as files of our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rewardtune.cli.task_options import task_options

if TYPE_CHECKING:
    from rewardtune.tasks.task import Task

Stage = Literal["one", "two", "encoder"]


def import_checkpoint(
    checkpoint: Annotated[
        str, typer.Argument(help="An .npz file; file.npz:img takes what lies below img/.")
    ],
    output: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    stage: Annotated[
        Stage | None,
        typer.Option(help="UViM's stage I or II, or a plain ViT; by default as it looks."),
    ] = None,
    task: Annotated[str | None, typer.Option(help="What a stage II or an encoder is for.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="The task's own key=value; may be repeated.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of a data set: what its classes are called.")
    ] = None,
    input_size: Annotated[
        int | None, typer.Option(min=1, help="Side of the image; positions are resampled.")
    ] = None,
    decoder_depth: Annotated[
        int | None, typer.Option(min=1, help="Blocks of the decoder that an encoder gets.")
    ] = None,
    code_length: Annotated[
        int | None, typer.Option(min=1, help="Codes of a stage I's picture; 256 if unknown.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the decoder that an encoder gets.")] = 0,
) -> None:
    """Read a checkpoint that big_vision published: UViM's stage I or II, or a ViT (AugReg's too).

    Names, layouts and stacked layers of older versions are understood. What does not fit is
    listed: missing, unexpected and misshapen arrays.
    """
    from rewardtune.layers.published import load_npz

    names = load_npz(checkpoint).keys()
    looks = _stage_of(names, checkpoint)
    if stage is not None and stage != looks:
        raise ValueError(
            f"checkpoint {checkpoint} looks like stage '{looks}', not '{stage}': leave out "
            f"--stage, or name the right file"
        )
    provenance: dict[str, Any] = {"imported_from": Path(checkpoint).name}
    options = task_options(option or ())
    if looks == "one":
        _import_stage_one(
            checkpoint, output, data=data, code_length=code_length, provenance=provenance
        )
    else:
        if task is None:
            raise ValueError(f"a stage '{looks}' needs the task that it is for: give --task")
        if looks == "two":
            # UViM squeezes pictures into the square input.
            provenance["keep_aspect"] = False
        _import_policy(
            checkpoint,
            output,
            task=_load(task, options, data),
            input_size=input_size,
            decoder_depth=decoder_depth,
            seed=seed,
            provenance={**provenance, "task": task, "task_options": options},
        )
    typer.echo(f"{output}: stage {looks} of {checkpoint}")


def _stage_of(names: Sequence[str] | Any, checkpoint: str) -> Stage:
    tops = {name.partition("/")[0] for name in names}
    if "ctx_dec_embedding" in tops or "state" in tops:
        return "one"
    if "EmbedPatches" in tops:
        return "two"
    if "Transformer" in tops or {"embedding", "encoder"} <= tops:
        return "encoder"
    raise ValueError(
        f"checkpoint {checkpoint} is no network that is known here: it holds "
        f"{', '.join(sorted(tops)[:8])}. For a part of it write {checkpoint}:PART"
    )


def _load(name: str, options: Mapping[str, Any], data: Path | None) -> Task:
    from rewardtune.datasets.shards.dataset import open_dataset
    from rewardtune.tasks.task import load_task

    categories = open_dataset(data).categories if data is not None else ()
    return load_task(name, options, categories=categories)


def _import_stage_one(
    checkpoint: str,
    output: Path,
    *,
    data: Path | None,
    code_length: int | None,
    provenance: Mapping[str, Any],
) -> None:
    from rewardtune.datasets.shards.dataset import open_dataset
    from rewardtune.tasks.uvim.big_vision import import_stage_one
    from rewardtune.tasks.uvim.config import SEMANTICS
    from rewardtune.tasks.uvim.stage_one_file import save_stage_one

    network = import_stage_one(checkpoint, code_length=code_length)
    names = None
    if data is not None and network.config.kind == "panoptic":
        names = [category.name for category in open_dataset(data).categories]
        needed = network.config.outputs[SEMANTICS] - 1
        if len(names) != needed:
            raise ValueError(
                f"checkpoint {checkpoint} knows {needed} classes but data set {data} has "
                f"{len(names)}: name the data set that it was trained on"
            )
    save_stage_one(output, network, class_names=names, provenance=provenance)


def _import_policy(
    checkpoint: str,
    output: Path,
    *,
    task: Task,
    input_size: int | None,
    decoder_depth: int | None,
    seed: int,
    provenance: Mapping[str, Any],
) -> None:
    import torch

    from rewardtune.policies.kinds.import_policy import import_policy
    from rewardtune.policies.policy_file import save_policy

    torch.manual_seed(seed)
    policy = import_policy(
        checkpoint,
        vocab_size=task.vocabulary.size,
        sequence_length=task.vocabulary.max_tokens,
        input_size=input_size,
        decoder_depth=decoder_depth,
    )
    vocabulary = task.vocabulary.describe()
    save_policy(output, policy, vocabulary=vocabulary, provenance=provenance)
