"""``rewardtune data cider-stats``: count in how many images each n-gram occurs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer


def cider_stats(
    captions: Annotated[
        Path, typer.Argument(help="COCO captions JSON, or the folder of a data set.")
    ],
    output: Annotated[Path, typer.Argument(help="File to write, such as train.arrow.")],
    splitting: Annotated[
        Literal["ptb", "blanks"],
        typer.Option(help="How captions become words: as COCO's tokenizer does, or at blanks."),
    ] = "ptb",
    vocabulary: Annotated[
        Path | None,
        typer.Option(help="Count a model's tokens instead: its tokenizer.json, vocab.txt, folder."),
    ] = None,
    stop: Annotated[str, typer.Option(help="The token that ends a caption.")] = "[SEP]",
    end_of_sentence: Annotated[
        bool, typer.Option("--end-of-sentence", help="Count the end as every caption's last word.")
    ] = False,
    min_count: Annotated[
        int, typer.Option(min=1, help="Words that occur less often become UNK.")
    ] = 1,
    max_words: Annotated[
        int | None, typer.Option(min=1, help="Keep so many words, others become UNK.")
    ] = None,
) -> None:
    """Count the document frequencies that CIDEr-D weighs n-grams by.

    Rewards are scored with those of the training set. A corpus may be larger than memory.
    """
    from rewardtune.run.progress import counting
    from rewardtune.tasks.captioning.caption_sources import captions_of
    from rewardtune.tasks.captioning.cider.frequency_builder import (
        CountingOptions,
        build_document_frequencies,
    )

    options = CountingOptions(
        splitting=splitting if vocabulary is None else "ids",
        end_of_sentence=end_of_sentence,
        min_count=min_count,
        max_words=max_words,
    )
    encode: Callable[[str], list[int]] | None = None
    pieces: tuple[str, ...] = ()
    if vocabulary is not None:
        from rewardtune.tasks.captioning.piece_ids import piece_encoder

        encode, pieces = piece_encoder(vocabulary, stop=stop)
    with counting("captions") as progress:
        frequencies = build_document_frequencies(
            captions_of(captions),
            output,
            options=options,
            encode=encode,
            pieces=pieces,
            progress=lambda done: progress(done, done),
        )
    typer.echo(
        f"{output}: {frequencies.num_ngrams} n-grams of {len(frequencies.vocabulary)} words in "
        f"{frequencies.num_images} images, digest {frequencies.digest}"
    )
