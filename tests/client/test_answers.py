"""The client gives the model's own answers over REST and gRPC, and loads nothing heavy for it."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from transformers import PreTrainedTokenizerFast

from tests.client.peer import TEXTS, Connect, Peer
from tfmlm.errors import UserError
from tfmlm.results import Candidate


def test_answers_equal_predict_to_1e_5(
    url: str, connect: Connect, predicted: list[list[list[Candidate]]]
) -> None:
    for filled, masks, text in zip(connect(url).fill(TEXTS), predicted, TEXTS, strict=True):
        assert (filled.text, filled.note) == (text, "")
        assert len(filled.masks) == len(masks) == text.count("<mask>")
        for ours, theirs in zip(filled.masks, masks, strict=True):
            for candidate, other in zip(ours, theirs, strict=True):
                assert candidate["score"] == pytest.approx(other["score"], abs=1e-5)
                assert (candidate["token"], candidate["token_str"]) == (other["token"], other["token_str"])
                # The pipeline shows special tokens beside further masks, and `<mask>` eats a space.
                sequence = other["sequence"].removeprefix("<s>").removesuffix("</s>")
                assert candidate["sequence"].replace(" ", "") == sequence.replace(" ", "")
                if len(masks) == 1 and candidate["token_str"].startswith(" "):
                    assert candidate["sequence"] == sequence


def test_ids_equal_predict_to_1e_5(
    url: str,
    connect: Connect,
    predicted: list[list[list[Candidate]]],
    byte_tokenizer: PreTrainedTokenizerFast,
) -> None:
    rows = [byte_tokenizer(text)["input_ids"] for text in TEXTS]
    assert len({len(row) for row in rows}) > 1  # the client pads
    answers = connect(url).fill_ids(rows)
    ones = [[1] * len(row) for row in rows]
    assert connect(url).fill_ids(rows, ones) == answers
    for row, answer, masks in zip(rows, answers, predicted, strict=True):
        assert answer.positions == [index for index, token in enumerate(row) if token == 4]
        assert answer.token_ids == [[c["token"] for c in mask] for mask in masks]
        assert answer.tokens == [[c["token_str"] for c in mask] for mask in masks]
        for scores, mask in zip(answer.scores, masks, strict=True):
            assert scores == pytest.approx([c["score"] for c in mask], abs=1e-5)


def test_ids_that_fit_no_mask_are_refused(url: str, connect: Connect, peer: Peer) -> None:
    with pytest.raises(UserError, match="attention_mask and input_ids differ"):
        connect(url).fill_ids([[1, 2]], [[1]])
    assert peer.requests == []


def test_many_texts_go_in_batches_and_nothing_in_none(url: str, connect: Connect, peer: Peer) -> None:
    client = connect(url, texts_per_request=2)
    assert client.fill([]) == []
    assert peer.requests == []
    together = client.fill(TEXTS)
    assert [request.num_texts for request in peer.requests] == [2, 1]
    (alone,) = client.fill(TEXTS[2:])
    assert [c["token"] for c in alone.masks[0]] == [c["token"] for c in together[2].masks[0]]


def test_a_text_without_a_mask_has_a_note(url: str, connect: Connect) -> None:
    with_mask, without = connect(url).fill([TEXTS[0], "Return."])
    assert (without.masks, without.note) == ([], "no <mask> in it")
    assert len(with_mask.masks) == 1


def test_eight_threads_share_a_client(url: str, connect: Connect, peer: Peer) -> None:
    client = connect(url)
    expected = client.fill(TEXTS)
    with ThreadPoolExecutor(8) as threads:
        for filled in threads.map(client.fill, [TEXTS] * 24):
            for ours, theirs in zip(filled, expected, strict=True):
                assert [[c["sequence"] for c in m] for m in ours.masks] == [
                    [c["sequence"] for c in m] for m in theirs.masks
                ]
    assert len(peer.requests) == 25


@pytest.mark.parametrize(("end", "rest_end", "rpc_end"), [("", "", "0"), ("/versions/3", "/versions/3", "3")])
def test_a_version_is_asked_for(
    url: str, connect: Connect, peer: Peer, end: str, rest_end: str, rpc_end: str
) -> None:
    connect(url + end).fill(TEXTS)
    (request,) = peer.requests
    if url.startswith("http"):
        assert request.where == f"/v1/models/tiny{rest_end}:predict"
    else:
        assert request.where.rstrip("/0") == f"tiny/{rpc_end}".rstrip("/0")
    assert request.signature == "serving_default"


def test_a_label_is_asked_for(url: str, connect: Connect, peer: Peer) -> None:
    connect(f"{url}/labels/stable").fill(TEXTS)
    assert peer.requests[0].where in ("/v1/models/tiny/labels/stable:predict", "tiny/stable")


# === What it loads ===


def test_a_client_loads_no_heavy_library(url: str) -> None:
    code = (
        "import sys\nfrom tfmlm.client.client import FillMaskClient\n"
        f"assert len(FillMaskClient({url!r}).fill({TEXTS!r})) == 3\n"
        "heavy = {'tensorflow', 'tensorflow_serving', 'transformers', 'tokenizers', 'datasets', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "import tfmlm.client.local_tokenizer\nprint(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n") == ["[]", "['tokenizers']", ""]
    assert done.stderr == ""
