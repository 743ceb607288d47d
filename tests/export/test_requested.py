"""What a text asks for is what `predict` finds, whatever the tokenizer and whoever is in the same batch."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from tests.finished import Finished
from tfmlm.client.answers import Answer, read_answers, read_target_answers
from tfmlm.config import ExportConfig
from tfmlm.export.target_words import TargetWords
from tfmlm.graph_tokenizer.tokenizer import GraphTokenizer
from tfmlm.inference.fill import load_predictor, load_target_predictor
from tfmlm.inference.targets import find_targets
from tfmlm.training.model import load_model_folder

MAX_TOP_K = ExportConfig().max_top_k

Outputs = dict[str, NDArray[Any]]


class Served(NamedTuple):
    """An export, with its model and tokenizer to compute the same by hand."""

    run: Finished
    signatures: dict[str, Any]
    model: Any
    tokenizer: PreTrainedTokenizerFast

    def ask(self, texts: list[str], top_k: list[int], targets: list[list[str]]) -> Outputs:
        outputs = self.signatures["text_options"](
            texts=tf.constant(texts), top_k=tf.constant(top_k, tf.int32), targets=tf.constant(targets)
        )
        return {name: value.numpy() for name, value in outputs.items()}


@pytest.fixture(scope="module")
def served(any_run: Finished) -> Served:
    loaded = tf.saved_model.load(str(any_run.version))
    # The graph of a signature does not keep what it was loaded with.
    signatures = dict(loaded.signatures)
    signatures["loaded"] = loaded
    return Served(any_run, signatures, *load_model_folder(any_run.model_dir))


def compute(served: Served, text: str, top_k: int, target_ids: list[int]) -> list[tuple[Any, ...]]:
    """Position, best ids with scores, and the targets' scores of each mask, in NumPy, for one text."""
    ids = served.tokenizer(text, return_tensors="np")["input_ids"]
    logits = served.model(ids).logits.numpy()[0]
    answers = []
    for position in np.flatnonzero(ids[0] == served.tokenizer.mask_token_id):
        exponentials = np.exp(logits[position] - logits[position].max())
        probabilities = exponentials / exponentials.sum()
        best = np.argsort(-probabilities, kind="stable")[:top_k]
        scores = [0.0 if token_id < 0 else probabilities[token_id] for token_id in target_ids]
        answers.append((position, best, probabilities[best], scores))
    return answers


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_each_text_gets_what_it_asks_for(served: Served, data: st.DataObject) -> None:
    mask = served.tokenizer.mask_token
    vocabulary = sorted(served.tokenizer.get_vocab())
    words = st.sampled_from(["Return the", "size", mask, "of the list.", "  x", "É", "\n"])
    texts = data.draw(st.lists(st.lists(words, max_size=8).map(" ".join), min_size=1, max_size=4))
    top_k = data.draw(st.lists(st.integers(0, MAX_TOP_K), min_size=len(texts), max_size=len(texts)))
    width = data.draw(st.integers(1, 4))
    target = st.one_of(st.just(""), st.sampled_from(vocabulary))
    targets = [data.draw(st.lists(target, min_size=width, max_size=width)) for _ in texts]
    outputs = served.ask(texts, top_k, targets)

    num_words = len(served.tokenizer)
    for row, text in enumerate(texts):
        ids = [served.tokenizer.get_vocab()[word] if word else -1 for word in targets[row]]
        assert outputs["target_ids"][row].tolist() == ids
        decoded = [served.tokenizer.decode([token_id]) if token_id >= 0 else "" for token_id in ids]
        assert [token.decode() for token in outputs["target_tokens"][row]] == decoded
        expected = compute(served, text, top_k[row], ids)
        assert outputs["notes"][row].decode() == ("" if expected else f"no {mask} in it")
        for number, (position, best, scores, target_scores) in enumerate(expected):
            assert outputs["positions"][row, number] == position
            mine = outputs["token_ids"][row, number]
            num_candidates = min(top_k[row], num_words)
            # Where two words are nearly as probable, rounding decides which comes first.
            assert (mine[:num_candidates] >= 0).all()
            np.testing.assert_allclose(outputs["scores"][row, number, :num_candidates], scores, atol=1e-5)
            is_clear = np.abs(np.diff(scores, append=-1, prepend=2)) > 1e-5
            is_clear = is_clear[:-1] & is_clear[1:]
            assert (mine[:num_candidates][is_clear] == best[is_clear]).all()
            assert (mine[num_candidates:] == -1).all()
            assert (outputs["scores"][row, number, num_candidates:] == 0).all()
            assert (outputs["tokens"][row, number, num_candidates:] == b"").all()
            np.testing.assert_allclose(outputs["target_scores"][row, number], target_scores, atol=1e-5)
        num_masks = len(expected)
        assert (outputs["positions"][row, num_masks:] == -1).all()
        assert (outputs["target_scores"][row, num_masks:] == 0).all()


def test_targets_alone_and_nothing_at_all(served: Served) -> None:
    text, mask = f"Return the {served.tokenizer.mask_token}.", served.tokenizer.mask_token
    outputs = served.ask([text], [0], [[mask]])
    assert outputs["token_ids"].tolist() == [[[-1]]]
    ((_, _, _, scores),) = compute(served, text, 0, [served.tokenizer.mask_token_id])
    np.testing.assert_allclose(outputs["target_scores"][0, 0], scores, atol=1e-6)
    nothing = served.signatures["text_options"](
        texts=tf.constant([], tf.string), top_k=tf.constant([], tf.int32), targets=tf.zeros([0, 0], tf.string)
    )
    shapes = {name: tuple(value.shape) for name, value in nothing.items()}
    assert shapes["scores"] == (0, 1, 1)
    assert shapes["target_scores"] == (0, 1, 0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="targets have no values"):
        served.signatures["text_options"](
            texts=tf.constant([text]), top_k=tf.constant([1]), targets=tf.zeros([1, 0], tf.string)
        )


def test_equals_predict_on_the_same_model(served: Served) -> None:
    mask = served.tokenizer.mask_token
    texts = [f"Return the {mask} size.", f"Load the {mask} of the {mask}, if it exists."]
    by_predict = load_predictor(str(served.run.model_dir), top_k=17)(texts)
    words = [word for word in sorted(served.tokenizer.get_vocab()) if word.isalpha()][:5]
    predict_targets, _ = load_target_predictor(str(served.run.model_dir), words, None)
    outputs = served.ask(texts, [17, 17], [words, words])
    for row, (masks, masks_of_targets) in enumerate(zip(by_predict, predict_targets(texts), strict=True)):
        for number, (candidates, of_targets) in enumerate(zip(masks, masks_of_targets, strict=True)):
            assert outputs["token_ids"][row, number].tolist() == [each["token"] for each in candidates]
            tokens = [token.decode() for token in outputs["tokens"][row, number]]
            assert tokens == [each["token_str"] for each in candidates]
            scores = dict(zip(outputs["target_ids"][row], outputs["target_scores"][row, number], strict=True))
            expected = {each["token"]: pytest.approx(each["score"], abs=1e-5) for each in of_targets}
            assert scores == expected


def test_ids_are_answered_as_their_text_is(served: Served) -> None:
    text = f"Return the {served.tokenizer.mask_token} of the list."
    of_text = served.ask([text], [3], [[served.tokenizer.mask_token, ""]])
    encoded = served.tokenizer(text, return_tensors="tf")
    inputs = {name: tf.cast(encoded[name], tf.int32) for name in ("input_ids", "attention_mask")}
    target_ids = [[served.tokenizer.mask_token_id, -1]]
    of_ids = served.signatures["ids_options"](
        **inputs, top_k=tf.constant([3]), target_ids=tf.constant(target_ids)
    )
    assert of_text.keys() - of_ids.keys() == {"notes"}
    for name, value in of_ids.items():
        if name.endswith("scores"):
            np.testing.assert_allclose(value.numpy(), of_text[name], atol=1e-6)
        else:
            np.testing.assert_array_equal(value.numpy(), of_text[name])


def pad(rows: list[list[Any]], length: int) -> list[list[Any]]:
    """As a server makes the rows of a request longer: with the first value of the request's tensor."""
    return [row + [rows[0][0]] * (length - len(row)) for row in rows]


def read(outputs: dict[str, Any], row: int, num_targets: int) -> list[Answer]:
    """What a client reads of its row: candidates, and then targets."""
    mine = {name: value[row : row + 1].numpy() for name, value in outputs.items()}
    decode = np.vectorize(lambda token: token.decode() if isinstance(token, bytes) else token, otypes="O")
    lists = {name: decode(value).tolist() for name, value in mine.items()}
    return [*read_answers(lists, 1), *read_target_answers(lists, 1, num_targets, None)]


@pytest.mark.parametrize("name", ["text_options", "ids_options"])
def test_requests_that_a_server_joins_are_answered_as_alone(name: str, served: Served) -> None:
    """Of other lengths, `top_k` and numbers of targets; a last row is repeated up to an allowed size."""
    mask, mask_id = served.tokenizer.mask_token, served.tokenizer.mask_token_id
    texts = [
        f"Return the {mask}.",
        f"Load the {mask} of the {mask}, if it exists, and return the list.",
        "No.",
    ]
    top_k = [1, 6, 3]
    words = [[mask], ["", "the" if "the" in served.tokenizer.get_vocab() else mask, mask], [mask, ""]]
    rows = [served.tokenizer(text)["input_ids"] for text in texts]
    vocabulary = served.tokenizer.get_vocab() | {"": -1}
    requests = [
        {"texts": [text], "top_k": [k], "targets": [targets]}
        if name == "text_options"
        else {
            "input_ids": [ids],
            "attention_mask": [[1] * len(ids)],
            "top_k": [k],
            "target_ids": [[vocabulary[word] for word in targets]],
        }
        for text, ids, k, targets in zip(texts, rows, top_k, words, strict=True)
    ]
    ask = served.signatures[name]
    joined: dict[str, list[Any]] = {key: [] for key in requests[0]}
    for request in [*requests, requests[-1]]:
        for key, values in request.items():
            length = max(len(np.atleast_1d(other[key][0])) for other in requests)
            joined[key] += pad(values, length) if isinstance(values[0], list) else values
    together = ask(**{key: tf.constant(values) for key, values in joined.items()})
    assert all(value.shape[0] == 4 for value in together.values())
    for row, request in enumerate(requests):
        alone = ask(**{key: tf.constant(values) for key, values in request.items()})
        num_targets = len(words[row])
        for mine, other in zip(read(together, row, num_targets), read(alone, 0, num_targets), strict=True):
            assert (mine.positions, mine.token_ids, mine.tokens) == (
                other.positions,
                other.token_ids,
                other.tokens,
            )
            for scores, expected in zip(mine.scores, other.scores, strict=True):
                np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert mask_id in read(together, 1, 3)[1].token_ids[0]
    # The first dimension of everything is the batch, else nothing would be joined.
    assert all(spec.shape[0] is None for spec in ask.structured_outputs.values())


def test_what_cannot_be_answered_is_refused(served: Served) -> None:
    text = f"Return the {served.tokenizer.mask_token}."
    for top_k in (-1, MAX_TOP_K + 1, 2**31 - 1):
        says = rf"top_k must be 0 to {MAX_TOP_K} \(export.max_top_k\), and is\] \[{top_k}"
        with pytest.raises(tf.errors.InvalidArgumentError, match=says):
            served.ask([text], [top_k], [[""]])
    for word in ("two words", "x" * 30 + "yz", "\U0001f600"):
        with pytest.raises(tf.errors.InvalidArgumentError, match="a target must be one token"):
            served.ask([text], [1], [[served.tokenizer.mask_token, word]])
    with pytest.raises(tf.errors.InvalidArgumentError, match="need a row for each text"):
        served.ask([text, text], [1], [[""], [""]])
    encoded = served.tokenizer(text, return_tensors="tf")
    inputs = {name: tf.cast(encoded[name], tf.int32) for name in ("input_ids", "attention_mask")}
    for token_id in (-2, served.model.config.vocab_size):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"target_ids must be -1 \(none\) or 0 to"):
            served.signatures["ids_options"](
                **inputs, top_k=tf.constant([1]), target_ids=tf.constant([[token_id]])
            )


@pytest.mark.parametrize("name", ["word_tokenizer", "byte_tokenizer", "piece_tokenizer"])
def test_a_word_is_found_as_predict_finds_it_or_refused(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(name)
    find = tf.function(
        TargetWords(tokenizer, GraphTokenizer(tokenizer)).__call__,
        input_signature=[tf.TensorSpec([None, None], tf.string)],
        autograph=False,
    )
    # Entries of the vocabulary, parts of them, and words with spaces and capitals, of which some are entries.
    entries = sorted(tokenizer.get_vocab())
    plain = sorted({entry.strip("Ġ▁#") for entry in entries} - {""})
    drawn = [*entries, *plain, *(f" {word}" for word in plain), *(word.title() for word in plain), "zzz", "É"]
    pieces = tokenizer(drawn, add_special_tokens=False)["input_ids"]
    is_found = [
        word in entries or (len(ids) == 1 and ids != [tokenizer.unk_token_id])
        for word, ids in zip(drawn, pieces, strict=True)
    ]
    found = [word for word, is_one in zip(drawn, is_found, strict=True) if is_one]
    expected = [[-1, *find_targets([word], tokenizer).token_ids] for word in found]
    assert find(tf.constant([["", word] for word in found])).numpy().tolist() == expected
    refused = [word for word, is_one in zip(drawn, is_found, strict=True) if not is_one]
    assert len(refused) > 20
    for word in refused[:: len(refused) // 20]:
        with pytest.raises(tf.errors.InvalidArgumentError, match="a target must be one token"):
            find(tf.constant([["", word]]))
