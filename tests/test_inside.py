"""Nothing outside of a folder is read because of what is in it, whichever part of it leads outside."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from transformers import PreTrainedTokenizerFast

from tests.tiny import write_hub_folder
from tfmlm.client.local_tokenizer import load_local_tokenizer
from tfmlm.config import HubConfig
from tfmlm.data.tokenizers import load_tokenizer
from tfmlm.errors import UserError
from tfmlm.hub.push import push_model
from tfmlm.inside import read_json, stays_inside
from tfmlm.remote_folders import bring_folder
from tfmlm.training.model import load_model_folder

INDEX = "model.safetensors.index.json"


@pytest.fixture
def model(tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path / "model"
    write_hub_folder(folder, byte_tokenizer)
    byte_tokenizer.save_pretrained(folder)
    return folder


def refuse(folder: Path, says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_model_folder(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
)
@pytest.mark.parametrize("is_relative", [False, True])
def test_a_link_out_of_a_model_folder_is_refused(name: str, is_relative: bool, model: Path) -> None:
    outside = model.parent / name
    (model / name).rename(outside)
    (model / name).symlink_to(f"../{name}" if is_relative else outside)
    refuse(model, f"{name} is a link out of its folder")


def test_a_folder_that_is_a_link_itself_is_read(model: Path) -> None:
    link = model.with_name("link")
    link.symlink_to(model)
    assert load_model_folder(link)[1].mask_token == "<mask>"


def test_a_configuration_names_no_other_file(model: Path) -> None:
    """As the library's own loader may take `config.4.0.0.json` instead."""
    fields = json.loads((model / "config.json").read_text())
    for name in ("../config.4.0.0.json", str(model.parent / "config.4.0.0.json")):
        (model.parent / "config.4.0.0.json").write_text(json.dumps(fields | {"stolen": "secret"}))
        (model / "config.json").write_text(json.dumps(fields | {"configuration_files": [name]}))
        assert not hasattr(load_model_folder(model)[0].config, "stolen")


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/passwd", "a/../../b", "..", "", 3, None, "a/b"]
)
def test_an_index_names_only_files_beside_it(name: Any, model: Path) -> None:
    (model / "model.safetensors").rename(model.parent / "model.safetensors")
    (model / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    refuse(model, "names .+, which is no file beside it")


def test_a_shard_that_is_a_link_is_refused(model: Path) -> None:
    (model / "model.safetensors").rename(model.parent / "one.safetensors")
    (model / "one.safetensors").symlink_to("../one.safetensors")
    (model / INDEX).write_text(json.dumps({"weight_map": {"a": "one.safetensors"}}))
    refuse(model, r"one\.safetensors is a link out of its folder")


@pytest.mark.parametrize("kind", ["external", "virtual", "link"])
def test_weights_of_hdf5_that_lie_in_another_file_are_refused(kind: str, model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    name, values = next((name, values) for name, values in tensors.items() if values.ndim == 1)
    secret = model.parent / "secret"
    secret.write_bytes(values.tobytes())
    with h5py.File(model.parent / "secret.h5", "w") as other:
        other[name] = values
    with h5py.File(model / "tf_model.h5", "w") as file:
        for each, of in tensors.items():
            if each != name:
                file[each] = of
        if kind == "external":
            file.create_dataset(name, values.shape, np.float32, external=[(str(secret), 0, values.nbytes)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout(values.shape, np.float32)
            layout[:] = h5py.VirtualSource(str(model.parent / "secret.h5"), name, values.shape)
            file.create_virtual_dataset(name, layout)
        else:
            file[name] = h5py.ExternalLink(str(model.parent / "secret.h5"), name)
    refuse(model, "lack .* tensors" if kind == "link" else "lies in another file")


def test_a_field_that_is_a_method_is_refused(model: Path) -> None:
    fields = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(fields | {"to_dict": 1}))
    refuse(model, "has 'to_dict', which is no field")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_the_clients_tokenizer_is_no_link_out_of_its_folder(name: str, model: Path) -> None:
    (model / name).rename(model.parent / name)
    (model / name).symlink_to(model.parent / name)
    with pytest.raises(UserError, match=f"{name} is a link out of its folder"):
        load_local_tokenizer(model)


def test_a_tokenizers_model_configuration_names_no_file(model: Path) -> None:
    (model / "tokenizer_config.json").unlink()
    (model / "config.json").write_text(
        '{"model_type": "roberta", "configuration_files": ["/a/config.4.0.0.json"]}'
    )
    assert load_tokenizer(model).mask_token == "<mask>"


@pytest.mark.parametrize("place", ["", "sub"])
def test_a_push_publishes_nothing_that_a_link_leads_to(place: str, model: Path) -> None:
    secret = model.parent / "id_rsa"
    secret.write_text("secret")
    (model / place).mkdir(exist_ok=True)
    (model / place / "notes.txt").symlink_to(secret)
    with pytest.raises(UserError, match=r"notes\.txt' is a link out of the model folder"):
        push_model(model, HubConfig(repo_id="me/mine"), "tfmlm push")


@pytest.mark.parametrize("name", ["../stolen", "/tmp/stolen-by-tfmlm", "a/../../stolen"])
def test_a_remote_folder_writes_only_into_its_copy(name: str, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    (remote / "a").mkdir(parents=True)
    (tmp_path / "stolen").write_text("x")
    (remote / "manifest.json").write_text(json.dumps({name: 1}))
    copy = tmp_path / "copies" / "copy"
    copy.mkdir(parents=True)
    with pytest.raises(UserError, match="its files lie elsewhere"):
        bring_folder(f"file://{remote}", copy)
    assert not [path for path in copy.parent.rglob("*") if path.is_file()]
    assert not Path("/tmp/stolen-by-tfmlm").exists()


@given(name=st.text("a./\\\0", max_size=8))
def test_a_name_that_stays_inside_does_so(name: str) -> None:
    if stays_inside(name):
        assert (Path("/x/y") / name).resolve().is_relative_to("/x/y")
        assert (Path("/x/y") / name).resolve() != Path("/x/y")


def test_settings_of_any_size_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(2 * 10**8)
    with pytest.raises(ValueError, match=r"config\.json has more than 100,000,000 bytes"):
        read_json(path)


def test_the_fixture_is_a_model(model: Path) -> None:
    assert load_model_folder(model)[1].mask_token == "<mask>"
