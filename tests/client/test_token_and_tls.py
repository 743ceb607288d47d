"""The token goes to its server alone and is never shown; certificates are checked."""

import json
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from tests.client.peer import TEXTS, TOKEN, Connect, Fault, Peer, ServedModel, fail, serve_grpc, serve_rest
from tfmlm.client.client import FillMaskClient
from tfmlm.client.options import ClientOptions
from tfmlm.errors import UserError


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
