"""Shards give back the blocks that were written, in an order of seed and position."""

import tempfile
import uuid
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tensorflow.core.framework.graph_pb2 import GraphDef
from transformers import PreTrainedTokenizerFast

from tests.data.sharded import BLOCK_SIZE, join, of_shards, read_columns, write_source
from tfmlm.config import Config, MaskingConfig
from tfmlm.data import blocks as blocks_module
from tfmlm.data.blocks import ShardedBlocks
from tfmlm.data.masking import MaskableVocabulary, MaskingCollator
from tfmlm.data.packing import Columns
from tfmlm.data.pipeline import make_evaluation_batches, make_training_batches
from tfmlm.data.prepare import prepare_data
from tfmlm.data.shard_writing import prepare_shards
from tfmlm.data.shards import hash_file, write_shard
from tfmlm.errors import UserError

SHARD_SIZES = (7, 1, 40, 20, 3)
NUM_BLOCKS = sum(SHARD_SIZES)
SEED = 5


@st.composite
def random_blocks(draw: st.DrawFn) -> list[Columns]:
    length, with_words = draw(st.integers(1, 9)), draw(st.booleans())

    def draw_columns(num_rows: int) -> Columns:
        rows = (num_rows, length)
        columns: Columns = {
            "input_ids": draw(arrays(np.int32, rows, elements=st.integers(0, 2**31 - 1))),
            "special_tokens_mask": draw(arrays(np.bool_, rows)),
            "num_tokens": draw(arrays(np.int32, num_rows, elements=st.integers(0, length))),
            "example_id": draw(arrays(np.int64, num_rows, elements=st.integers(0, 2**63 - 1))),
            "num_text_tokens": draw(arrays(np.int32, num_rows, elements=st.integers(0, length))),
            "num_unknown": draw(arrays(np.int32, num_rows, elements=st.integers(0, length))),
        }
        return columns | ({"starts_word": draw(arrays(np.bool_, rows))} if with_words else {})

    return [draw_columns(num_rows) for num_rows in draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))]


def assert_same(left: Columns, right: Columns) -> None:
    assert left.keys() == right.keys()
    for name, column in left.items():
        np.testing.assert_array_equal(column, right[name], err_msg=name)


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> ShardedBlocks:
    """Shards of several sizes; each token of a block is its number."""
    folder = str(tmp_path_factory.mktemp("shards"))
    ids = np.split(np.arange(NUM_BLOCKS), np.cumsum(SHARD_SIZES)[:-1])
    shards = [
        write_shard(
            folder,
            f"{number}.tfrecord",
            [
                {
                    "input_ids": np.repeat(part[:, np.newaxis], BLOCK_SIZE, axis=1),
                    "special_tokens_mask": np.zeros((len(part), BLOCK_SIZE), np.bool_),
                    "num_tokens": np.full(len(part), BLOCK_SIZE),
                    "example_id": part,
                    "num_text_tokens": np.full(len(part), BLOCK_SIZE),
                    "num_unknown": np.zeros(len(part), int),
                }
            ],
        )
        for number, part in enumerate(ids)
    ]
    return ShardedBlocks(folder, tuple(shards), BLOCK_SIZE, with_words=False)


@pytest.fixture(scope="module")
def config(word_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Config:
    return write_source(tmp_path_factory.mktemp("source"), word_tokenizer)


# === Writing and reading ===


@settings(deadline=None, max_examples=40)
@given(random_blocks())
def test_blocks_come_back_as_they_were_and_give_the_same_bytes_again(chunks: list[Columns]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shards = [write_shard(folder, name, chunks) for name in ("a.tfrecord", "b.tfrecord")]
        assert {path.name for path in Path(folder).iterdir()} == {"a.tfrecord", "b.tfrecord"}
        assert Path(folder, "a.tfrecord").read_bytes() == Path(folder, "b.tfrecord").read_bytes()
        assert shards[0] == replace(shards[1], name="a.tfrecord")

        expected = join(chunks)
        counts = {name: expected.pop(name).sum() for name in ("num_text_tokens", "num_unknown")}
        length, with_words = expected["input_ids"].shape[1], "starts_word" in expected
        read_back = read_columns(ShardedBlocks(folder, (shards[0],), length, with_words).read_in_order())
        assert_same(read_back, expected)
        assert {name: column.dtype for name, column in read_back.items()} == {
            name: np.int64 if name == "example_id" else np.int32 for name in expected
        }
        assert shards[0].num_blocks == len(expected["example_id"])
        assert shards[0].num_tokens == expected["num_tokens"].sum()
        assert {name: getattr(shards[0], name) for name in counts} == counts


def test_the_order_of_the_shards_is_that_of_the_manifest(blocks: ShardedBlocks) -> None:
    assert blocks.num_blocks == NUM_BLOCKS
    assert read_columns(blocks.read_in_order())["example_id"].tolist() == list(range(NUM_BLOCKS))


# === Order ===


@pytest.fixture(params=[(16_384, 256), (16, 7)], ids=["one window", "several windows and chunks"])
def windows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    window, chunk = request.param
    monkeypatch.setattr(blocks_module, "WINDOW_BLOCKS", window)
    monkeypatch.setattr(blocks_module, "BLOCKS_A_CHUNK", chunk)


def test_every_epoch_has_every_block_once_in_an_order_of_its_own(
    blocks: ShardedBlocks, windows: None
) -> None:
    seen = read_columns(blocks.read_shuffled(SEED, 0, 3 * NUM_BLOCKS))
    np.testing.assert_array_equal(seen["epoch"], np.repeat(np.arange(3), NUM_BLOCKS))
    assert (seen["input_ids"] == seen["example_id"][:, np.newaxis]).all()
    orders = seen["example_id"].reshape(3, NUM_BLOCKS).tolist()
    for order in orders:
        assert sorted(order) == list(range(NUM_BLOCKS))
    assert len(set(map(tuple, [*orders, range(NUM_BLOCKS)]))) == 4


@pytest.mark.parametrize(
    "first", [0, 1, 16, NUM_BLOCKS - 1, NUM_BLOCKS, NUM_BLOCKS + 1, 2 * NUM_BLOCKS, 2 * NUM_BLOCKS + 33]
)
def test_starting_later_equals_skipping(first: int, blocks: ShardedBlocks, windows: None) -> None:
    last = 2 * NUM_BLOCKS + 50
    whole = read_columns(blocks.read_shuffled(SEED, 0, last), last)
    rest = read_columns(blocks.read_shuffled(SEED, first, last), last - first)
    assert_same(rest, {name: column[first:] for name, column in whole.items()})


def test_the_same_seed_gives_the_same_order_whatever_tensorflows_seed_is(blocks: ShardedBlocks) -> None:
    orders = []
    for global_seed in (1, 2):
        tf.random.set_seed(global_seed)
        orders.append(read_columns(blocks.read_shuffled(SEED, 0, 2 * NUM_BLOCKS)))
    assert_same(*orders)


def test_another_seed_gives_another_order(blocks: ShardedBlocks) -> None:
    seeds = (0, 1, 2**31, 2**62, -1)
    orders = {
        tuple(read_columns(blocks.read_shuffled(seed, 0, NUM_BLOCKS))["example_id"].tolist())
        for seed in seeds
    }
    assert len(orders) == len(seeds)


def test_a_window_mixes_several_shards(blocks: ShardedBlocks) -> None:
    shards = np.repeat(np.arange(len(SHARD_SIZES)), SHARD_SIZES)
    start = read_columns(blocks.read_shuffled(SEED, 0, NUM_BLOCKS))["example_id"][:20]
    assert len(set(shards[start].tolist())) > 2


# === Batches ===


@pytest.fixture(scope="module")
def collator(word_tokenizer: PreTrainedTokenizerFast) -> MaskingCollator:
    return MaskingCollator(MaskableVocabulary.from_tokenizer(word_tokenizer), MaskingConfig(rate=0.5), SEED)


def test_training_batches_have_static_shapes_and_depend_on_the_step_alone(
    blocks: ShardedBlocks, collator: MaskingCollator
) -> None:
    whole = make_training_batches(blocks, collator, SEED, 0, 40, global_batch_size=4)
    column = tf.TensorSpec([4, BLOCK_SIZE], tf.int32)
    assert whole.element_spec == {"input_ids": column, "attention_mask": column, "labels": column}
    batches = list(whole.as_numpy_iterator())
    assert len(batches) == 40
    rest = make_training_batches(blocks, collator, SEED, 17, 40, global_batch_size=4)
    assert_same(read_columns(rest), join(batches[17:]))


def list_ops(dataset: tf.data.Dataset) -> set[str]:
    """The operations of a dataset's graph and of every function in it."""
    graph = GraphDef()
    graph.ParseFromString(tf.raw_ops.DatasetToGraphV2(input_dataset=dataset._variant_tensor).numpy())
    functions = [node for function in graph.library.function for node in function.node_def]
    return {node.op for node in [*graph.node, *functions]}


PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc", "GeneratorDataset"}


def test_no_python_runs_in_the_loop(blocks: ShardedBlocks, collator: MaskingCollator, config: Config) -> None:
    training = list_ops(make_training_batches(blocks, collator, SEED, 3, 40, global_batch_size=4))
    evaluation = list_ops(make_evaluation_batches(blocks, collator, global_batch_size=4))
    assert not PYTHON_OPS & (training | evaluation)
    assert any("TFRecord" in op for op in training)
    packed = prepare_data(config).train
    assert PYTHON_OPS & list_ops(make_training_batches(packed, collator, SEED, 0, 4, global_batch_size=4))


# === Input pipelines ===


def order_slowly(blocks: ShardedBlocks, seed: int, last: int) -> list[int]:
    """The blocks at the positions below `last`, a position at a time; draws are TensorFlow's."""
    first_of_shard = np.cumsum([0, *(shard.num_blocks for shard in blocks.shards)])
    total, num_lanes = int(first_of_shard[-1]), blocks.num_lanes
    window_blocks = max(1, blocks_module.WINDOW_BLOCKS // num_lanes)
    shuffle, fold_in = tf.random.experimental.stateless_shuffle, tf.random.fold_in
    order: list[int] = []
    for epoch in range(-(-last // total)):
        epoch_seed = tf.constant([seed, epoch], tf.int64)
        shards = shuffle(tf.range(len(blocks.shards)), epoch_seed).numpy()
        sequence = [block for shard in shards for block in range(*first_of_shard[shard : shard + 2])]
        lanes = []
        for lane in range(num_lanes):
            length = len(range(lane, total, num_lanes))
            own, sequence = sequence[:length], sequence[length:]
            lanes.append([])
            for number, begin in enumerate(range(0, length, window_blocks)):
                window = own[begin : begin + window_blocks]
                lane_seed = tf.random.fold_in(epoch_seed, tf.constant(lane, tf.int64))
                places = shuffle(tf.range(len(window)), fold_in(lane_seed, tf.constant(number, tf.int64)))
                lanes[-1] += [window[place] for place in places.numpy()]
        order += [lanes[place % num_lanes][place // num_lanes] for place in range(total)]
    return order[:last]


def read_share(blocks: ShardedBlocks, number: int, num_pipelines: int, first: int, last: int) -> list[int]:
    share = blocks.of_pipeline(number, num_pipelines)
    num_rows = len(range(first + (number - first) % num_pipelines, last, num_pipelines))
    return read_columns(share.read_shuffled(SEED, first, last), num_rows)["example_id"].tolist()


@pytest.mark.parametrize(
    ("num_pipelines", "max_lanes"), [(1, 1), (1, 4), (2, 1), (2, 4), (3, 4), (4, 2), (4, 4), (6, 4)]
)
def test_pipelines_share_one_sequence(
    num_pipelines: int, max_lanes: int, blocks: ShardedBlocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of blocks, 71, is a prime, so that no lane or share fits into it."""
    monkeypatch.setattr(blocks_module, "WINDOW_BLOCKS", 16)
    monkeypatch.setattr(blocks_module, "BLOCKS_A_CHUNK", 7)
    monkeypatch.setattr(blocks_module, "MAX_LANES", max_lanes)
    assert blocks.num_lanes == max_lanes
    last = 3 * NUM_BLOCKS + 5
    order = order_slowly(blocks, SEED, last)
    for first in (36, 2 * NUM_BLOCKS - 1):
        for number in range(num_pipelines):
            expected = [order[place] for place in range(first, last) if place % num_pipelines == number]
            assert read_share(blocks, number, num_pipelines, first, last) == expected


@settings(deadline=None, max_examples=10)
@given(num_pipelines=st.integers(1, 5), bounds=st.tuples(*[st.integers(0, 4 * NUM_BLOCKS)] * 2).map(sorted))
def test_any_part_of_the_sequence(num_pipelines: int, bounds: list[int], blocks: ShardedBlocks) -> None:
    first, last = bounds[0], bounds[1] + num_pipelines
    order = order_slowly(blocks, SEED, last)
    for number in range(num_pipelines):
        expected = [order[place] for place in range(first, last) if place % num_pipelines == number]
        assert read_share(blocks, number, num_pipelines, first, last) == expected


@pytest.mark.parametrize("num_pipelines", [2, 3, 4])
def test_a_step_sees_the_same_rows_however_many_pipelines(
    num_pipelines: int, blocks: ShardedBlocks, collator: MaskingCollator
) -> None:
    def read_steps(share: ShardedBlocks) -> Columns:
        batches = make_training_batches(share, collator, SEED, 3, 15, global_batch_size=12)
        return {name: rows.reshape(12, -1, BLOCK_SIZE) for name, rows in read_columns(batches).items()}

    shares = [read_steps(blocks.of_pipeline(number, num_pipelines)) for number in range(num_pipelines)]
    for name, steps in read_steps(blocks).items():
        joined = np.concatenate([share[name] for share in shares], axis=1)
        np.testing.assert_array_equal(np.sort(joined, axis=1), np.sort(steps, axis=1), err_msg=name)


@pytest.fixture(scope="module")
def many_shards(tmp_path_factory: pytest.TempPathFactory) -> ShardedBlocks:
    """32 shards, the last a short one, of long blocks."""
    folder, length = str(tmp_path_factory.mktemp("many")), 1024
    shards = [
        write_shard(
            folder,
            f"{number}.tfrecord",
            [
                {
                    "input_ids": np.full((num_rows, length), 300),
                    "special_tokens_mask": np.zeros((num_rows, length), np.bool_),
                    "num_tokens": np.full(num_rows, length),
                    "example_id": 70 * number + np.arange(num_rows),
                    "num_text_tokens": np.full(num_rows, length),
                    "num_unknown": np.zeros(num_rows, int),
                }
            ],
        )
        for number, num_rows in enumerate([70] * 31 + [9])
    ]
    return ShardedBlocks(folder, tuple(shards), length, with_words=False)


def measure_bytes(blocks: ShardedBlocks, first: int, last: int) -> int:
    """Bytes that this process reads from files meanwhile."""

    def read_so_far() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    chunks = blocks.read_shuffled(SEED, first, last)
    before = read_so_far()
    for _ in chunks:
        pass
    return read_so_far() - before


def test_a_pipeline_reads_its_share_alone(
    many_shards: ShardedBlocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The buffers of the real size would hold whole shards.
    monkeypatch.setattr(blocks_module, "_BUFFER_BYTES", 2**12)
    num_bytes = sum(shard.num_bytes for shard in many_shards.shards)
    for num_pipelines in (1, 2, 4, 8):
        for number in range(num_pipelines):
            share = many_shards.of_pipeline(number, num_pipelines)
            assert measure_bytes(share, 0, many_shards.num_blocks) <= 1.1 * num_bytes / num_pipelines


def test_a_start_late_in_an_epoch_reads_the_rest_of_it(
    many_shards: ShardedBlocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks_module, "_BUFFER_BYTES", 2**12)
    monkeypatch.setattr(blocks_module, "WINDOW_BLOCKS", 128)
    num_bytes = sum(shard.num_bytes for shard in many_shards.shards)
    num_blocks = many_shards.num_blocks
    assert measure_bytes(many_shards, num_blocks * 9 // 10, num_blocks) <= 0.2 * num_bytes


def test_shards_of_a_manifest_without_offsets(blocks: ShardedBlocks, windows: None) -> None:
    earlier = replace(blocks, shards=tuple(replace(shard, offsets=[0]) for shard in blocks.shards))
    for first in (0, 50):
        assert_same(*(read_columns(each.read_shuffled(SEED, first, 200)) for each in (earlier, blocks)))


def test_offsets_that_are_none_of_blocks(blocks: ShardedBlocks) -> None:
    shards = list(blocks.shards)
    shards[2] = replace(shards[2], offsets=[0, *(offset + 1 for offset in shards[2].offsets[1:])])
    wrong = replace(blocks, shards=tuple(shards))
    with pytest.raises(tf.errors.DataLossError) as failure:
        read_columns(wrong.read_shuffled(SEED, 0, NUM_BLOCKS))
    assert "2.tfrecord' is corrupt: it holds no such blocks" in str(wrong.explain(failure.value))


def test_a_number_of_pipelines_that_does_not_fit_is_told(
    blocks: ShardedBlocks, caplog: pytest.LogCaptureFixture
) -> None:
    for num_pipelines in (1, 2, 4):
        blocks.of_pipeline(0, num_pipelines)
    assert not caplog.messages
    blocks.of_pipeline(0, 6)
    assert "6 input pipelines share 5 shards, so each reads 1/2 of the bytes" in caplog.text


# === A remote file system ===


def test_shards_on_another_file_system(config: Config, collator: MaskingCollator, tmp_path: Path) -> None:
    remote = f"ram://{uuid.uuid4().hex}/shards"
    manifest, notes = prepare_shards(config, remote, 50, None, [])
    assert not notes
    assert asdict(prepare_shards(config, str(tmp_path / "local"), 50, None, [])[0]) == asdict(manifest)
    for shard in [*manifest.splits["train"], *manifest.splits["validation"]]:
        assert (
            hash_file(f"{remote}/{shard.name}")
            == shard.sha256
            == hash_file(str(tmp_path / "local" / shard.name))
        )

    data = prepare_data(of_shards(config, remote))
    local = prepare_data(of_shards(config, tmp_path / "local"))
    batches, expected = (
        read_columns(make_training_batches(source.train, collator, SEED, 2, 20, global_batch_size=4))
        for source in (data, local)
    )
    assert_same(batches, expected)
    assert prepare_shards(config, remote, 50, None, []) == (manifest, [])


def test_a_remote_folder_that_is_not_there(config: Config) -> None:
    with pytest.raises(UserError, match=r"'ram://nowhere' holds no manifest\.json"):
        prepare_data(of_shards(config, "ram://nowhere"))
