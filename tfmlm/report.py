"""What a person reads: the summary of a run, filled masks, and the list of settings."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tfmlm.config.keys import list_keys
from tfmlm.results import Candidate

if TYPE_CHECKING:  # importing it at run time would bring TensorFlow
    from tfmlm.data.shards import Manifest
    from tfmlm.inference.score import TextScore
    from tfmlm.preview.server import Running
    from tfmlm.run import FinishedRun


def describe_run(finished: FinishedRun) -> str:
    """The summary that ends a run."""
    result = finished.result
    lines = [
        f"perplexity   {result.initial_perplexity:,.2f} before, {result.perplexity:,.2f} after training",
        f"accuracy     {result.eval_top_1:.1%} at the first guess, {result.eval_top_5:.1%} within five",
        f"training     {result.steps:,} steps, {result.tokens:,} tokens, {result.train_seconds:,.0f} s",
        f"speed        {result.step_seconds_median:.3f} s a step, {result.tokens_per_second:,.0f} tokens/s",
        f"model        {result.model_dir}",
    ]
    if result.saved_model_dir:
        lines.append(f"SavedModel   {result.saved_model_dir}")
    lines += [f"note         {note}" for note in result.notes]
    for text, masks in finished.samples.items():
        lines += ["", *describe_masks(text, masks)]
    example = next(iter(finished.samples), "TEXT WITH A MASK")
    lines += ["", f"next         tfmlm predict {result.model_dir} {example!r}"]
    return "\n".join(lines)


def describe_shards(folder: str, manifest: Manifest) -> str:
    """The summary that ends `tfmlm prepare`."""
    from tfmlm.data.files import describe_bad_row

    lines = [
        f"{split:<12} {sum(shard.num_blocks for shard in shards):,} blocks of {manifest.block_size} tokens, "
        f"{sum(shard.num_tokens for shard in shards):,} tokens, {len(shards):,} shards"
        for split, shards in manifest.splits.items()
    ]
    lines += [f"note         {describe_bad_row(row)}" for row in manifest.bad_rows]
    return "\n".join([*lines, "", f"next         tfmlm train CONFIG data.source={folder}"])


def describe_masks(text: str, masks: Sequence[Sequence[Candidate]]) -> Iterator[str]:
    """A text and, for each of its masks, the candidates with their probabilities."""
    yield text
    for number, candidates in enumerate(masks, start=1):
        words = ", ".join(
            f"{candidate['token_str'].strip()} {candidate['score']:.0%}" for candidate in candidates
        )
        yield f"  {f'{number}. ' if len(masks) > 1 else ''}{words}"


def describe_score(score: TextScore) -> str:
    """Score, tokens and text, in columns."""
    return f"{score['score']:>10.3f}  {score['tokens']:>5}  {score['text']}"


def describe_keys() -> str:
    """Every key of the configuration with its default and meaning."""
    return "\n".join(
        f"{name}.{key} = {default!r}\n{textwrap.indent(textwrap.fill(meaning, 88), '    ')}"
        for name, key, default, meaning in list_keys()
    )


def describe_server(running: Running) -> str:
    """The banner of the preview server, with a warning if other machines can reach it."""
    newest, *others = running.versions
    also = f" (also {', '.join(map(str, others))})" if others else ""
    lines = [f"{running.name} version {newest}{also}"]
    if not running.is_local:
        lines.append("  warning: other machines can reach it, and it asks for no password")
    lines += [
        f"  REST  {running.rest_url}/v1/models/{running.name}",
        f"  gRPC  {running.grpc_address}",
        f"  page  {running.rest_url}/",
        "This is a preview: production is TensorFlow Serving. Ctrl-C stops it.",
    ]
    return "\n".join(lines)
