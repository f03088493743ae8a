"""``rewardtune data``: make data sets and look at them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rewardtune.cli.cider_stats import cider_stats

# As rewardtune.datasets.digits.scenes and rewardtune.datasets.digits.files have them, which would
# load numpy for --help.
Ink = Literal["tinted", "vivid"]
Annotations = Literal["instances", "panoptic"]

app = typer.Typer(
    no_args_is_help=True, help="Make data sets and look at them.", pretty_exceptions_enable=False
)
app.command("cider-stats")(cider_stats)


@app.command()
def digits(
    output: Annotated[Path, typer.Argument(help="Folder to make; the same scenes are reused.")],
    scenes_train: Annotated[int, typer.Option(min=0, help="Scenes to train on.")] = 8000,
    scenes_holdout: Annotated[int, typer.Option(min=0, help="Scenes to choose by.")] = 500,
    scenes_validation: Annotated[int, typer.Option(min=0, help="Scenes to report on.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other scenes.")] = 0,
    first_scene: Annotated[
        int, typer.Option(min=0, help="Index of the first training scene: skips those before it.")
    ] = 0,
    min_digits: Annotated[int, typer.Option(min=0, help="Fewest digits of a scene.")] = 2,
    max_digits: Annotated[int, typer.Option(min=1, help="Most digits of a scene.")] = 9,
    min_digit_size: Annotated[
        float, typer.Option(min=4, max=20, help="Height of the smallest digits, in pixels.")
    ] = 11.0,
    ink: Annotated[Ink, typer.Option(help="Nearly white, or saturated colours.")] = "tinted",
    annotations: Annotated[
        Annotations, typer.Option(help="Data sets of boxes and captions, or of panoptic maps.")
    ] = "instances",
) -> None:
    """Compose scenes of handwritten digits, as COCO files and as data sets.

    OUTPUT/coco/SPLIT holds COCO files (instances, panoptic, captions), OUTPUT/SPLIT the data
    set. No digit of one split is in another.
    """
    from rewardtune.datasets.digits.files import write_digits
    from rewardtune.datasets.digits.scenes import SceneStyle
    from rewardtune.run.progress import counting

    if min_digits > max_digits:
        raise ValueError(
            f"--min-digits {min_digits} is more than --max-digits {max_digits}: swap them"
        )
    style = SceneStyle(
        min_digits=min_digits, max_digits=max_digits, min_digit_size=min_digit_size, ink=ink
    )
    with counting("digit scenes") as progress:
        is_new = write_digits(
            output,
            num_scenes={
                "train": scenes_train,
                "holdout": scenes_holdout,
                "validation": scenes_validation,
            },
            seed=seed,
            first_scene=first_scene,
            style=style,
            annotations=annotations,
            progress=progress,
        )
    typer.echo(f"{output}: {'written' if is_new else 'there already, nothing to do'}")


@app.command()
def coco(
    images: Annotated[Path, typer.Option(help="Folder of pictures.")],
    output: Annotated[Path, typer.Option(help="Folder for the data set.")],
    instances: Annotated[Path | None, typer.Option(help="COCO instances JSON.")] = None,
    panoptic: Annotated[Path | None, typer.Option(help="COCO panoptic JSON.")] = None,
    panoptic_images: Annotated[
        Path | None, typer.Option(help="Panoptic PNGs; by default the JSON's name as a folder.")
    ] = None,
    captions: Annotated[Path | None, typer.Option(help="COCO captions JSON.")] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave broken things out and list them.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the data set in OUTPUT.")
    ] = False,
) -> None:
    """Convert pictures and COCO annotations (also Objects365, LVIS) to a data set."""
    from rewardtune.datasets.coco.convert import convert_coco
    from rewardtune.run.progress import counting

    with counting("converting") as progress:
        report = convert_coco(
            images=images,
            output=output,
            instances=instances,
            panoptic=panoptic,
            panoptic_images=panoptic_images,
            captions=captions,
            skip_broken=skip_broken,
            overwrite=overwrite,
            progress=progress,
        )
    for broken in report.skipped:
        typer.echo(f"skipped: {broken}", err=True)
    typer.echo(f"{output}: {report.num_examples} examples, digest {report.digest}")


@app.command()
def karpathy(
    source: Annotated[Path, typer.Argument(help="dataset_coco.json.")],
    output: Annotated[Path, typer.Argument(help="Folder for train.json, val.json, test.json.")],
) -> None:
    """Write the Karpathy split of COCO as COCO captions files, for ``data coco``."""
    from rewardtune.json_file import write_json
    from rewardtune.tasks.captioning.karpathy import karpathy_splits

    for split, coco in karpathy_splits(source).items():
        write_json(output / f"{split}.json", coco)
        typer.echo(f"{output / split}.json: {len(coco['images'])} images")


@app.command()
def vocabulary(
    directory: Annotated[Path, typer.Argument(help="Folder of a data set with captions.")],
    output: Annotated[Path, typer.Argument(help="File to write, such as vocab.txt.")],
    size: Annotated[int, typer.Option(min=6, help="Word pieces at most.")] = 1000,
) -> None:
    """Learn the word pieces of a data set's captions.

    For models that start from nothing. One that is pretrained brings its own vocabulary.
    """
    from rewardtune.datasets.shards.dataset import open_dataset
    from rewardtune.tasks.captioning.vocabulary import train_vocabulary, write_vocabulary

    dataset = open_dataset(directory)
    captions = (text for index in range(len(dataset)) for text in dataset.example(index).captions)
    pieces = train_vocabulary(captions, size=size)
    write_vocabulary(pieces, output)
    typer.echo(f"{output}: {len(pieces)} word pieces")


@app.command()
def info(
    directory: Annotated[Path, typer.Argument(help="Folder of a data set.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Hash every shard, not only its size.")
    ] = False,
) -> None:
    """Tell what a data set holds."""
    from rewardtune.datasets.shards.dataset import open_dataset

    dataset = open_dataset(directory, verify=verify)
    shards, categories = dataset.manifest.shards, dataset.categories
    num_instances = sum(category.num_instances for category in categories)
    lines = {
        "source": dataset.manifest.source,
        "digest": dataset.digest,
        "examples": len(dataset),
        "shards": f"{len(shards)} ({sum(shard.num_bytes for shard in shards) / 1e6:.1f} MB)",
        "objects": f"{num_instances} ({num_instances / max(1, len(dataset)):.2f} per example)",
        "categories": len(categories),
    }
    for name, value in lines.items():
        typer.echo(f"{name:<10}  {value}")
    for category in categories:
        kind = "" if category.is_thing else "  (stuff)"
        typer.echo(f"  {category.id:>5}  {category.name:<20} {category.num_instances:>9}{kind}")
