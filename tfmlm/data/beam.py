"""Writes shards on Apache Beam: the same bytes as on one machine, from as many as the runner has.

Packing is one stream of tokens cut every `block_size`. Workers tokenize batches of texts on their own; the
lengths of all batches, added up, say where in the stream each lies, and so which shard each piece of it
belongs to. A shard is then put together from its pieces alone.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr
from itertools import accumulate
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from tfmlm.data.files import BadRow
from tfmlm.data.packing import TokenStream, make_blocks, make_stream_tokenizer, slice_stream
from tfmlm.data.shard_job import ShardJob
from tfmlm.data.shards import SPLITS, Shard, write_shard
from tfmlm.errors import UserError

_RUNNERS = {
    "dataflow": "DataflowRunner",
    "direct": "DirectRunner",
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
}

_Place = tuple[int, int]
"""Of a batch of texts: its part of the source and its number in the part."""


class _Piece(NamedTuple):
    """Tokens of one batch that lie in one shard, and where in the whole stream they begin."""

    start: int
    stream: TokenStream


def make_pipeline(runner: str, beam_flags: list[str]) -> beam.Pipeline:
    """An empty pipeline.

    Args:
        runner: a runner that Beam knows, `direct` for this machine.
        beam_flags: Beam's own, such as `--project=...`.

    Raises:
        UserError: Beam does not know the runner, or a flag's value is wrong.
    """
    printed = io.StringIO()
    try:
        options = PipelineOptions([f"--runner={_RUNNERS.get(runner, runner)}", *beam_flags])
        with redirect_stderr(printed):
            options.get_all_options()  # parses every flag; Beam itself would do it after the start
        return beam.Pipeline(options=options)
    except (ValueError, SystemExit, ImportError, AttributeError) as error:
        # Before it exits, `argparse` prints the usage, a hundred lines, and then the reason.
        lines = printed.getvalue().splitlines() if isinstance(error, SystemExit) else str(error).splitlines()
        flags = " ".join([f"--runner {runner}", *beam_flags])
        raise UserError(f"Apache Beam does not take {flags}: {lines[-1] if lines else error!r}") from error


def write_with_beam(job: ShardJob, pipeline: beam.Pipeline) -> None:
    """Runs the pipeline to its end; the manifest is its last step.

    Args:
        job: what to write. Workers must reach the source and the folder, and have tfmlm installed.
        pipeline: an empty one.
    """
    with pipeline:
        written = [_write_split(pipeline, job, split) for split in SPLITS]
        _ = written | beam.Flatten() | "List" >> beam.combiners.ToList() | "Finish" >> beam.Map(_finish, job)


def _write_split(pipeline: beam.Pipeline, job: ShardJob, split: str) -> beam.PCollection:
    """The shards of a split and the bad rows of its source."""
    texts = job.open_texts()
    num_parts = (texts.train if split == "train" else texts.validation).num_parts
    tokenized = (
        pipeline
        | f"{split}: parts" >> beam.Create(range(num_parts))
        | f"{split}: spread" >> beam.Reshuffle()
        | f"{split}: tokenize"
        >> beam.ParDo(_TokenizePart(job, split)).with_outputs("bad_rows", main="batches")
    )
    # Two readers follow; without this the runner could tokenize twice.
    batches = tokenized.batches | f"{split}: keep" >> beam.Reshuffle()
    starts = (
        batches
        | f"{split}: measure" >> beam.Map(lambda batch: (batch[0], len(batch[1].token_ids)))
        | f"{split}: lengths" >> beam.combiners.ToList()
        | f"{split}: add up" >> beam.Map(_add_up)
    )
    tokens_a_shard = job.blocks_per_shard * job.block_format.block_size
    shards = (
        batches
        | f"{split}: cut" >> beam.FlatMap(_cut_at_shards, beam.pvalue.AsSingleton(starts), tokens_a_shard)
        | f"{split}: gather" >> beam.GroupByKey()
        | f"{split}: write" >> beam.FlatMap(_write_shard, job, split)
    )
    return (shards, tokenized.bad_rows) | f"{split}: report" >> beam.Flatten()


class _TokenizePart(beam.DoFn):
    """Reads a part of the source and tokenizes it, a batch at a time."""

    def __init__(self, job: ShardJob, split: str) -> None:
        self._job = job
        self._split = split

    def setup(self) -> None:
        texts = self._job.open_texts()
        self._texts = texts.train if self._split == "train" else texts.validation
        self._tokenize = make_stream_tokenizer(self._job.tokenizer, self._job.block_format)

    def process(self, part: int) -> Iterator[Any]:
        for number, batch in enumerate(filter(None, self._texts.read_part(part))):
            yield (part, number), self._tokenize(batch)
        for bad_row in self._texts.bad_rows.values():
            yield beam.pvalue.TaggedOutput("bad_rows", bad_row)


def _add_up(lengths: Iterable[tuple[_Place, int]]) -> dict[_Place, int]:
    """Where in the stream each batch begins."""
    ordered = sorted(lengths)
    starts = accumulate((length for _, length in ordered), initial=0)
    return {place: start for (place, _), start in zip(ordered, starts, strict=False)}


def _cut_at_shards(
    batch: tuple[_Place, TokenStream], starts: dict[_Place, int], tokens_a_shard: int
) -> Iterator[tuple[int, _Piece]]:
    place, stream = batch
    start, end = starts[place], starts[place] + len(stream.token_ids)
    for shard in range(start // tokens_a_shard, -(-end // tokens_a_shard)):
        first, last = max(start, shard * tokens_a_shard), min(end, (shard + 1) * tokens_a_shard)
        yield shard, _Piece(first, slice_stream(stream, slice(first - start, last - start)))


def _write_shard(
    shard: tuple[int, Iterable[_Piece]], job: ShardJob, split: str
) -> Iterator[tuple[str, Shard]]:
    index, pieces = shard
    streams = [piece.stream for piece in sorted(pieces, key=lambda piece: piece.start)]
    blocks = list(make_blocks(streams, job.block_format, first_id=index * job.blocks_per_shard))
    if blocks:  # the last shard may hold one short block, which was dropped
        yield split, write_shard(job.folder, job.name_shard(split, index), blocks)


def _finish(written: list[tuple[str, Shard] | BadRow], job: ShardJob) -> None:
    # Both splits read the same source, and a part may be read twice.
    bad_rows = {item.file: item for item in written if isinstance(item, BadRow)}
    shards = [item for item in written if not isinstance(item, BadRow)]
    splits = {
        split: sorted((shard for name, shard in shards if name == split), key=lambda shard: shard.name)
        for split in SPLITS
    }
    job.finish(splits, bad_rows.values())
