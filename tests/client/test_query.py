"""`tfmlm query` prints what `tfmlm predict` prints, or one line."""

import io
import json
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from tests.client.peer import TEXTS, TOKEN, Peer, ServedModel, serve_grpc, serve_rest
from tests.finished import Finished
from tfmlm.cli.main import main
from tfmlm.client.answers import read_answers
from tfmlm.errors import UserError
from tfmlm.export.saved_model import TOKENIZER_DIR
from tfmlm.results import Candidate


@pytest.fixture(scope="module")
def printed(version: Path) -> dict[str, str]:
    """What `tfmlm predict` prints, without and with `--json`."""
    outputs = {}
    for flag in ("", "--json"):
        with redirect_stdout(io.StringIO()) as output:
            assert main(["predict", str(version), *TEXTS, *filter(None, [flag])]) == 0
        outputs[flag] = output.getvalue()
    return outputs


def ask(url: str, *arguments: str) -> int:
    return main(["query", url, *arguments])


def test_query_prints_what_predict_prints(
    url: str, printed: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = printed[""]
    assert ask(url, *TEXTS) == 0
    assert capsys.readouterr().out == expected
    lines = "\n".join([*TEXTS[1:], "", ""]).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert ask(url, TEXTS[0], "-", "--texts-per-request", "1") == 0
    assert capsys.readouterr().out == expected


def test_query_with_a_tokenizer_equals_predict(
    url: str, printed: dict[str, str], version: Path, peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = [json.loads(line) for line in printed["--json"].splitlines()]
    assert ask(url, *TEXTS, "--json", "--tokenizer", str(version / TOKENIZER_DIR)) == 0
    assert peer.requests[0].signature == "ids"
    ours = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for mine, theirs in zip(ours, expected, strict=True):
        for candidates, others in zip(mine, theirs, strict=True):
            for candidate, other in zip(candidates, others, strict=True):
                assert candidate == other | {"score": pytest.approx(other["score"], abs=1e-5)}


Wished = tuple[list[str], list[list[list[Candidate]]]]


@pytest.fixture(
    scope="module",
    params=[["--top-k", "7"], ["--targets", "Ġsize,Ġpath,a,Ġsize,Ġname", "--top-k", "3"]],
    ids=" ".join,
)
def wished(request: pytest.FixtureRequest, byte_run: Finished) -> Wished:
    """What is asked for, and what `tfmlm predict` finds with the model folder."""
    with redirect_stdout(io.StringIO()) as output:
        assert main(["predict", str(byte_run.model_dir), *TEXTS, "--json", *request.param]) == 0
    return request.param, [json.loads(line) for line in output.getvalue().splitlines()]


@pytest.mark.parametrize("tokenizes", [False, True], ids=["texts", "ids"])
def test_query_gives_what_is_asked_for_as_predict_does(
    wished: Wished, tokenizes: bool, url: str, version: Path, peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    wish, expected = wished
    tokenizer = ["--tokenizer", str(version / TOKENIZER_DIR)] if tokenizes else []
    assert ask(url, *TEXTS, "--json", *wish, *tokenizer) == 0
    assert {request.signature for request in peer.requests} == {
        "ids_options" if tokenizes else "text_options"
    }
    ours = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for mine, theirs in zip(ours, expected, strict=True):
        for candidates, others in zip(mine, theirs, strict=True):
            for candidate, other in zip(candidates, others, strict=True):
                # The text as it was given, and not as the tokenizer decodes it.
                sequence = other["sequence"] if tokenizes else candidate["sequence"]
                score = pytest.approx(other["score"], abs=1e-5)
                assert candidate == other | {"score": score, "sequence": sequence}


@pytest.mark.parametrize("tokenizes", [False, True], ids=["texts", "ids"])
def test_a_target_that_is_not_one_token_is_refused(
    tokenizes: bool, url: str, version: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = ["--tokenizer", str(version / TOKENIZER_DIR)] if tokenizes else []
    assert ask(url, TEXTS[0], "--targets", "Ġsize,two words", "--max-attempts", "1", *tokenizer) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    if tokenizes:
        assert line == ("tfmlm: target 'two words' is not one token of the vocabulary; choose another word\n")


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
        (["http://localhost:1/v1/models/tiny", "a", "--top-k", "0"], "top_k is 0; it must be 1 or more"),
        (["http://localhost:1/v1/models/tiny", "a", "--targets", "b,"], "targets are ['b', '']; give words"),
        (["http://localhost:1/v1/models/tiny", "a", "--targets", "\udcff"], "not UTF-8"),
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


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("Write [MASK] as <mask> of the file.", "Write [MASK] as {} of the file."),
        ("<mask> and [MASK] and [MASK]", "{} and [MASK] and [MASK]"),
        ("[MASK] [MASK] <mask> <mask>", "[MASK] [MASK] {} {}"),
    ],
)
def test_the_models_own_mask_is_filled_where_a_text_has_another_too(
    text: str, filled: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(url, text, "--json") == 0
    masks = json.loads(capsys.readouterr().out)
    assert len(masks) == filled.count("{}")
    for number, candidates in enumerate(masks):
        words = ["<mask>"] * len(masks)
        words[number] = candidates[0]["token_str"].strip()
        assert candidates[0]["sequence"].split() == filled.format(*words).split()


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_no_answer(score: float) -> None:
    outputs = {
        "positions": [[1]],
        "token_ids": [[[3, 4]]],
        "tokens": [[["a", "b"]]],
        "scores": [[[score, 0.1]]],
    }
    with pytest.raises(UserError, match="the server's scores are not finite"):
        read_answers(outputs, 1)
