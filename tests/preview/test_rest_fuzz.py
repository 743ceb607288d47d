"""The preview server under bodies of JSON that are almost right: it answers in JSON, and never fails."""

import http.client
import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.finished import Finished
from tests.fuzzing import fuzzed
from tests.mutated_json import mutations
from tests.preview.server import Server, run_server
from tests.waiting import WAIT_SECONDS

TEXT = "Return the <mask> of the given array."
BODIES = [
    {"inputs": [TEXT]},
    {"instances": [TEXT, {"b64": "PG1hc2s+"}], "signature_name": "text"},
    {"instances": [{"texts": TEXT}]},
    {"inputs": {"input_ids": [[0, 4, 2]], "attention_mask": [[1, 1, 1]]}, "signature_name": "ids"},
    {"inputs": {"input_ids": [[0, 4, 2]], "attention_mask": [[1, 1, 1]]}, "signature_name": "logits"},
]
KEYS = ("inputs", "instances", "signature_name", "b64", "input_ids", "texts")


@pytest.fixture(scope="module")
def server(byte_run: Finished) -> Iterator[Server]:
    with run_server(byte_run.version.parent, "--name", "tiny") as running:
        yield running
        assert post(running, json.dumps(BODIES[0]).encode())[0] == 200
        assert "Traceback" not in running.log.read_text(encoding="utf-8")


def post(server: Server, body: bytes) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(server.rest, timeout=WAIT_SECONDS)
    try:
        connection.request("POST", "/v1/models/tiny:predict", body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@fuzzed(num_examples=60, deadline=60_000)
@given(data=st.data())
def test_any_body_of_a_request(data: st.DataObject, server: Server) -> None:
    body = json.dumps(data.draw(mutations(data.draw(st.sampled_from(BODIES)), KEYS))).encode()
    if data.draw(st.integers(0, 4)) == 0:
        body = body[: data.draw(st.integers(0, len(body)))] + data.draw(st.binary(max_size=4))
    status, answer = post(server, body)
    assert status in (200, 400, 404, 413)
    fields = json.loads(answer)
    assert (status == 200) == ("error" not in fields)
