"""The client gives the model's own answers over REST and gRPC, and every fault ends in one line."""

import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from transformers import PreTrainedTokenizerFast

from tests.pytorch_folder import write_hub_folder
from tests.serving_peer import Fault, Peer, ServedModel, serve_grpc, serve_rest
from tfmlm.cli import main
from tfmlm.config import ExportConfig
from tfmlm.errors import UserError
from tfmlm.export.predict import load_predictor
from tfmlm.export.saved_model import TOKENIZER_DIR, export_saved_model
from tfmlm.serving.client import FilledText, FillMaskClient
from tfmlm.serving.options import ClientOptions

TEXTS = [
    "Return the <mask> size.",
    "Load the default <mask> of the <mask> file, if it exists.",
    "Compute the first<mask> of the given array.",
]
QUICK = {"backoff_seconds": 0.05, "timeout_seconds": 20.0}
TOKEN = "sesame-1f9a"

REST_BUSY, GRPC_BUSY = Fault(503, '{"error": "not ready"}'), Fault(grpc.StatusCode.UNAVAILABLE, "not ready")


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path_factory.mktemp("client")
    write_hub_folder(folder / "model", byte_tokenizer)
    return export_saved_model(folder / "model", ExportConfig(dir=str(folder / "exports")), "tiny").path


@pytest.fixture(scope="module")
def model(version: Path, byte_tokenizer: PreTrainedTokenizerFast) -> ServedModel:
    return ServedModel(version)


@pytest.fixture
def rest(model: ServedModel) -> Iterator[Peer]:
    with serve_rest(model) as peer:
        yield peer


@pytest.fixture
def rpc(model: ServedModel) -> Iterator[Peer]:
    with serve_grpc(model) as peer:
        yield peer


@pytest.fixture(params=["rest", "rpc"])
def peer(request: pytest.FixtureRequest) -> Peer:
    """Each way in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
            ),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(chain)),
        ],
        check=True,
        capture_output=True,
    )
    return chain, key


def url_of(peer: Peer, request: pytest.FixtureRequest) -> str:
    if "rpc" in request.fixturenames or request.node.callspec.params.get("peer") == "rpc":
        return f"grpc://localhost:{peer.port}/tiny"
    return f"http://localhost:{peer.port}/v1/models/tiny"


@pytest.fixture
def url(peer: Peer, request: pytest.FixtureRequest) -> str:
    return url_of(peer, request)


@pytest.fixture
def connect() -> Iterator[Callable[..., FillMaskClient]]:
    with ExitStack() as stack:
        yield lambda url, **options: stack.enter_context(
            FillMaskClient(url, ClientOptions(**QUICK | options))
        )


Connect = Callable[..., FillMaskClient]


def fail(client: FillMaskClient, texts: list[str] = TEXTS) -> str:
    """The one line that asking ends in."""
    with pytest.raises(UserError) as caught:
        client.fill(texts)
    message = str(caught.value)
    assert "\n" not in message
    assert TOKEN not in message
    assert caught.value.__cause__ is None
    return message


# === Answers ===


def test_answers_equal_predict_to_1e_5(url: str, connect: Connect, version: Path) -> None:
    expected = load_predictor(str(version), top_k=5)(TEXTS)
    for filled, masks, text in zip(connect(url).fill(TEXTS), expected, TEXTS, strict=True):
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
    url: str, connect: Connect, version: Path, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [byte_tokenizer(text)["input_ids"] for text in TEXTS]
    assert len({len(row) for row in rows}) > 1  # the client pads
    answers = connect(url).fill_ids(rows)
    ones = [[1] * len(row) for row in rows]
    assert connect(url).fill_ids(rows, ones) == answers
    for row, answer, masks in zip(rows, answers, load_predictor(str(version), 5)(TEXTS), strict=True):
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


# === Faults ===


def test_what_may_pass_is_asked_again(url: str, connect: Connect, peer: Peer) -> None:
    busy = REST_BUSY if url.startswith("http") else GRPC_BUSY
    peer.faults += [busy, busy]
    assert len(connect(url).fill(TEXTS)) == 3
    assert len(peer.requests) == 3


@pytest.mark.parametrize("seconds", [1e-12, 1e-3, 1e300])
def test_any_wait_that_is_allowed_goes_over_grpc(seconds: float, rpc: Peer, connect: Connect) -> None:
    rpc.faults += [GRPC_BUSY] * (seconds < 1)
    client = connect(
        f"grpc://localhost:{rpc.port}/tiny", backoff_seconds=seconds, max_backoff_seconds=seconds
    )
    assert len(client.fill(TEXTS)) == 3
    assert len(rpc.requests) == 1 + (seconds < 1)


def test_a_server_that_stays_busy_is_given_up(url: str, connect: Connect, peer: Peer) -> None:
    peer.faults += [REST_BUSY if url.startswith("http") else GRPC_BUSY] * 9
    assert "not ready" in fail(connect(url, max_attempts=3))
    assert len(peer.requests) == 3
    assert "not ready" in fail(connect(url, max_attempts=1))
    assert len(peer.requests) == 4


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (400, grpc.StatusCode.INVALID_ARGUMENT, "--tokenizer FOLDER"),
        (404, grpc.StatusCode.NOT_FOUND, "check the model's name and version"),
        (401, grpc.StatusCode.UNAUTHENTICATED, "TFMLM_SERVING_TOKEN"),
        (500, grpc.StatusCode.INTERNAL, "the server's log"),
    ],
)
def test_what_stays_wrong_is_asked_once(
    url: str, connect: Connect, peer: Peer, status: int, code: grpc.StatusCode, says: str
) -> None:
    said = "no\nsuch thing"
    is_rest = url.startswith("http")
    peer.faults += [Fault(status, json.dumps({"error": said})) if is_rest else Fault(code, said)] * 2
    message = fail(connect(url))
    assert message.startswith(f"{url} answered {f'HTTP {status}' if is_rest else code.name}: no such thing; ")
    assert says in message
    assert len(peer.requests) == 1


@pytest.mark.parametrize("max_attempts", [1, 4])
def test_a_server_that_never_answers_costs_no_more_than_the_deadline(
    url: str, connect: Connect, peer: Peer, max_attempts: int
) -> None:
    peer.faults += [Fault("silent")] * 9
    start = time.monotonic()
    assert "did not answer within 0.5 s" in fail(connect(url, timeout_seconds=0.5, max_attempts=max_attempts))
    assert 0.4 < time.monotonic() - start < 2.5
    assert len(peer.requests) == 1


def test_a_server_that_drips_costs_no_more_than_the_deadline(rest: Peer, connect: Connect) -> None:
    rest.faults += [Fault("drip")]
    start = time.monotonic()
    client = connect(f"http://localhost:{rest.port}/v1/models/tiny", timeout_seconds=0.5)
    assert "did not answer within 0.5 s" in fail(client)
    assert time.monotonic() - start < 2.5


def test_the_deadline_holds_for_all_batches_together(url: str, connect: Connect, peer: Peer) -> None:
    client = connect(url, timeout_seconds=1.0, texts_per_request=1)
    client.fill(TEXTS)
    peer.faults += [Fault("silent")]
    start = time.monotonic()
    assert "within 1 s" in fail(client)
    assert time.monotonic() - start < 3.0
    assert len(peer.requests) == 4


def test_a_servers_wish_to_wait_is_granted(rest: Peer, connect: Connect) -> None:
    url = f"http://localhost:{rest.port}/v1/models/tiny"
    rest.faults += [Fault(429, "", {"Retry_After": "1"})]
    start = time.monotonic()
    assert len(connect(url).fill(TEXTS)) == 3
    assert time.monotonic() - start >= 1.0
    rest.faults += [Fault(429, "", {"Retry_After": "nonsense"})]
    assert len(connect(url).fill(TEXTS)) == 3


def test_a_wish_to_wait_beyond_the_deadline_ends_at_once(rest: Peer, connect: Connect) -> None:
    rest.faults += [Fault(503, "", {"Retry_After": "3600"})]
    start = time.monotonic()
    assert "HTTP 503; the server is busy" in fail(connect(f"http://localhost:{rest.port}/v1/models/tiny"))
    assert time.monotonic() - start < 5.0
    assert len(rest.requests) == 1


def test_a_cut_connection_is_opened_again(rest: Peer, connect: Connect) -> None:
    client = connect(f"http://localhost:{rest.port}/v1/models/tiny")
    rest.faults += [Fault("cut"), Fault("cut")]
    assert len(client.fill(TEXTS)) == 3
    assert len(rest.requests) == 3
    rest.faults += [Fault("cut")] * 9
    assert fail(client).startswith("cannot reach http://localhost:")


def test_a_server_that_comes_back_is_found(connect: Connect, model: ServedModel) -> None:
    for serve, form in (
        (serve_grpc, "grpc://127.0.0.1:{}/tiny"),
        (serve_rest, "http://127.0.0.1:{}/v1/models/tiny"),
    ):
        with serve(model) as first:
            client = connect(form.format(first.port))
            assert len(client.fill(TEXTS)) == 3
        assert "cannot reach" in fail(client)
        with serve(model, port=first.port):
            assert len(fill_in_time(client)) == 3


def fill_in_time(client: FillMaskClient) -> list[FilledText]:
    """gRPC waits between its own attempts to connect, longer each time."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return client.fill(TEXTS)
        except UserError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.mark.parametrize("form", ["http://localhost:{}/v1/models/tiny", "grpc://localhost:{}/tiny"])
def test_where_nobody_listens(form: str, connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    message = fail(connect(form.format(port)))
    assert message.startswith(f"cannot reach {form.format(port)} (")
    assert "refused" in message
    assert message.endswith("check the address, and that a server runs there")


def test_the_wrong_ports_are_told(rest: Peer, rpc: Peer, connect: Connect) -> None:
    assert "cannot reach" in fail(connect(f"http://localhost:{rpc.port}/v1/models/tiny"))
    assert "cannot reach" in fail(connect(f"grpc://localhost:{rest.port}/tiny"))


@pytest.mark.parametrize(
    "answer", ["<html>hello</html>", "[]", '{"predictions": []}', '{"outputs": {"scores": [1]}}']
)
def test_another_service_is_told(rest: Peer, connect: Connect, answer: str) -> None:
    rest.faults += [Fault(200, answer)]
    with pytest.raises(UserError, match=r"something else than TensorFlow|not those of a tfmlm export"):
        connect(f"http://localhost:{rest.port}/v1/models/tiny").fill(TEXTS)


# === Token and TLS ===


def test_the_token_is_sent_and_never_shown(
    url: str, connect: Connect, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(url).fill(TEXTS)
    monkeypatch.setenv("TFMLM_SERVING_TOKEN", TOKEN)
    connect(url).fill(TEXTS)
    without, with_token = ({k.lower(): v for k, v in r.headers.items()} for r in peer.requests)
    assert "authorization" not in without
    assert with_token["authorization"] == f"Bearer {TOKEN}"
    echo = f"bad header Bearer {TOKEN}"
    is_rest = url.startswith("http")
    peer.faults += [
        Fault(403, json.dumps({"error": echo})) if is_rest else Fault(grpc.StatusCode.PERMISSION_DENIED, echo)
    ]
    assert "bad header Bearer ***; check the token" in fail(connect(url))


def test_a_token_goes_to_no_other_server(
    rest: Peer, connect: Connect, model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFMLM_SERVING_TOKEN", TOKEN)
    with serve_rest(model) as other:
        rest.faults += [Fault(307, "", {"Location": f"http://localhost:{other.port}/v1/models/tiny:predict"})]
        assert "answered HTTP 307" in fail(connect(f"http://localhost:{rest.port}/v1/models/tiny"))
        assert other.requests == []


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "schlüssel"])
def test_an_odd_token_is_refused_without_showing_it(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFMLM_SERVING_TOKEN", token)
    with pytest.raises(UserError, match="TFMLM_SERVING_TOKEN") as caught:
        FillMaskClient("http://localhost:1/v1/models/tiny")
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize(
    ("serve", "form"),
    [(serve_rest, "https://localhost:{}/v1/models/tiny"), (serve_grpc, "grpcs://localhost:{}/tiny")],
)
def test_tls_with_a_certificate_of_ones_own(
    serve: Callable[..., object],
    form: str,
    certificate: tuple[Path, Path],
    model: ServedModel,
    connect: Connect,
) -> None:
    with serve(model, certificate) as peer:
        url = form.format(peer.port)
        assert len(connect(url, ca_file=certificate[0]).fill(TEXTS)) == 3
        assert "--ca-file" in fail(connect(url))
        assert len(peer.requests) == 1


def test_a_bad_ca_file_is_told(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.pem"
    damaged.write_text("-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n")
    (tmp_path / "empty.pem").touch()
    for path, says in ((damaged, "damaged"), (tmp_path / "empty.pem", "no certificate"), (tmp_path, "read")):
        with pytest.raises(UserError, match=says):
            FillMaskClient("https://localhost:1/v1/models/tiny", ClientOptions(ca_file=path))


# === The command ===


def ask(url: str, *arguments: str) -> int:
    return main(["query", url, *arguments])


def test_query_prints_what_predict_prints(
    url: str, version: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["predict", str(version), *TEXTS]) == 0
    expected = capsys.readouterr().out
    assert ask(url, *TEXTS) == 0
    assert capsys.readouterr().out == expected
    lines = "\n".join([*TEXTS[1:], "", ""]).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert ask(url, TEXTS[0], "-", "--texts-per-request", "1") == 0
    assert capsys.readouterr().out == expected


def test_query_with_a_tokenizer_equals_predict(
    url: str, version: Path, peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(version), *TEXTS, "--json"]) == 0
    expected = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ask(url, *TEXTS, "--json", "--tokenizer", str(version / TOKENIZER_DIR)) == 0
    assert peer.requests[0].signature == "ids"
    ours = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for mine, theirs in zip(ours, expected, strict=True):
        for candidates, others in zip(mine, theirs, strict=True):
            for candidate, other in zip(candidates, others, strict=True):
                assert candidate == other | {"score": pytest.approx(other["score"], abs=1e-5)}


def test_query_tells_notes(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(url, "Return.") == 0
    assert capsys.readouterr().out == "Return.\n  note: no <mask> in it\n"
    assert ask(url, "Return.", "--json") == 0
    printed = capsys.readouterr()
    assert printed.out == "[]\n"
    assert printed.err == "tfmlm: 'Return.': no <mask> in it\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["http://localhost:8501", "a"], "write http(s)://HOST:PORT/v1/models/NAME or grpc(s)://"),
        (["grpc://localhost/tiny", "a"], "write http(s)://HOST:PORT/v1/models/NAME or grpc(s)://"),
        (["http://me:secret@localhost:1/v1/models/tiny", "a"], "has a user or password in it"),
        (["http://localhost:99999/v1/models/tiny", "a"], "not valid"),
        (["http://localhost:1/v1/models/tiny", "a", "--timeout", "0"], "timeout_seconds is 0.0"),
        (["http://localhost:1/v1/models/tiny", "a", "--max-attempts", "6"], "max_attempts is 6"),
        (["http://localhost:1/v1/models/tiny", "a", "--texts-per-request", "0"], "texts_per_request is 0"),
        (["http://localhost:1/v1/models/tiny", "a", "--tokenizer", "nowhere"], "no tokenizer.json"),
        (["http://localhost:1/v1/models/tiny", "\udcff"], "not UTF-8"),
    ],
)
def test_what_is_wrong_before_asking(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["query", *arguments]) == 2
    line = capsys.readouterr().err
    assert says in line
    assert line.count("\n") == 1
    assert "secret" not in line


@pytest.mark.parametrize("form", ["https://localhost:{}/v1/models/tiny", "grpcs://localhost:{}/tiny"])
def test_a_query_that_fails_prints_one_line(
    form: str, certificate: tuple[Path, Path], model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFMLM_SERVING_TOKEN", TOKEN)
    with (serve_rest if "http" in form else serve_grpc)(model, certificate) as peer:
        command = [sys.executable, "-m", "tfmlm", "query", form.format(peer.port), TEXTS[0]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tfmlm: ")
    assert done.stderr.count("\n") == 1
    assert "--ca-file" in done.stderr
    assert TOKEN not in done.stderr


# === What it loads ===


def test_a_client_loads_no_heavy_library(url: str) -> None:
    code = (
        "import sys\nfrom tfmlm.serving.client import FillMaskClient\n"
        f"assert len(FillMaskClient({url!r}).fill({TEXTS!r})) == 3\n"
        "heavy = {'tensorflow', 'tensorflow_serving', 'transformers', 'tokenizers', 'datasets', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "import tfmlm.serving.local_tokenizer\nprint(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n") == ["[]", "['tokenizers']", ""]
    assert done.stderr == ""
