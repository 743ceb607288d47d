"""A served model, over REST and over gRPC, and clients of it."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.client.peer import QUICK, TEXTS, Peer, ServedModel, serve_grpc, serve_rest
from tests.finished import Finished
from tfmlm.client.client import FillMaskClient
from tfmlm.client.options import ClientOptions
from tfmlm.inference.fill import load_predictor
from tfmlm.results import Candidate


@pytest.fixture(scope="package")
def version(byte_run: Finished) -> Path:
    return byte_run.version


@pytest.fixture(scope="package")
def model(version: Path) -> ServedModel:
    return ServedModel(version)


@pytest.fixture(scope="package")
def predicted(version: Path) -> list[list[list[Candidate]]]:
    """What `tfmlm predict` finds for `TEXTS`: for each text, the candidates of each mask."""
    return load_predictor(str(version), top_k=5)(TEXTS)


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
