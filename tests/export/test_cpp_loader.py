"""An export runs without Python: a C++ program loads it as TensorFlow Serving does and answers the same."""

import copy
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.framework import op_def_registry
from transformers import PreTrainedTokenizerFast

from tests.export.test_warmup import read_inputs, read_requests
from tests.finished import Finished
from tfmlm.export.warmup import make_samples, write_warmup_requests

SOURCE = Path(__file__).parent / "cpp" / "serve_proof.cc"
OP_LIBRARIES = sorted((Path(tensorflow_text.__file__).parent / "python" / "ops").glob("*.so"))


class CountWords(tf.Module):
    """Takes texts, with an op of tensorflow-text."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="texts")])
    def text(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        words = tensorflow_text.WhitespaceTokenizer().tokenize(texts)
        return {"words": words.to_tensor(), "num_words": words.row_lengths()}


@pytest.fixture(scope="module")
def text_version(tmp_path_factory: pytest.TempPathFactory, word_tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "words" / "1"
    module = CountWords()
    tf.saved_model.save(module, str(folder), signatures={"text": module.text})
    tokenizer = copy.deepcopy(word_tokenizer)
    tokenizer.model_max_length = 64
    write_warmup_requests(folder, "words", make_samples(tokenizer))
    return folder


@pytest.fixture(scope="module")
def roberta_version(byte_run: Finished) -> Path:
    return byte_run.version


@pytest.fixture(scope="module")
def bert_version(word_run: Finished) -> Path:
    return word_run.version


@pytest.fixture(params=["roberta_version", "bert_version", "text_version"])
def version(request: pytest.FixtureRequest) -> Path:
    """Each of the exports."""
    return request.getfixturevalue(request.param)


# === What the graph is made of ===


def read_meta_graph(version: Path) -> MetaGraphDef:
    (meta_graph,) = SavedModel.FromString((version / "saved_model.pb").read_bytes()).meta_graphs
    return meta_graph


def walk_nodes(meta_graph: MetaGraphDef) -> Iterator[NodeDef]:
    yield from meta_graph.graph_def.node
    for function in meta_graph.graph_def.library.function:
        yield from function.node_def


def find_strange_ops(meta_graph: MetaGraphDef) -> set[str]:
    """Ops that TensorFlow Serving has not: it has TensorFlow's and tensorflow-text's, and no Python."""
    functions = {function.signature.name for function in meta_graph.graph_def.library.function}
    ops = {node.op for node in walk_nodes(meta_graph)} - functions
    # TensorFlow's and tensorflow-text's are what this process has loaded.
    return {op for op in ops if op_def_registry.get(op) is None or re.search("py_?func", op, re.IGNORECASE)}


def find_compiled(meta_graph: MetaGraphDef) -> list[str]:
    """Functions and calls that XLA must compile, which the server refuses to do."""
    named = [*meta_graph.graph_def.library.function, *walk_nodes(meta_graph)]
    return [str(each) for each in named if each.attr["_XlaMustCompile"].b]


def test_graph_needs_neither_python_nor_xla(version: Path) -> None:
    meta_graph = read_meta_graph(version)
    assert any(node.op == "StatefulPartitionedCall" for node in walk_nodes(meta_graph))
    assert find_strange_ops(meta_graph) == set()
    assert find_compiled(meta_graph) == []


def test_python_and_xla_are_found_where_they_are(tmp_path: Path) -> None:
    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
        def python(self, values: tf.Tensor) -> tf.Tensor:
            return tf.numpy_function(lambda array: array + 1, [values], tf.int32)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)], jit_compile=True)
        def compiled(self, values: tf.Tensor) -> tf.Tensor:
            return values + 1

    module = Module()
    tf.saved_model.save(module, str(tmp_path), {"python": module.python, "compiled": module.compiled})
    meta_graph = read_meta_graph(tmp_path)
    assert find_strange_ops(meta_graph) == {"PyFunc"}
    assert len(find_compiled(meta_graph)) > 0


# === The program ===


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """serve_proof.cc, built against the libraries of the TensorFlow wheel."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    libraries = Path(tf.sysconfig.get_lib())
    built = tmp_path_factory.mktemp("cpp") / "serve_proof"
    # --no-as-needed: kernels register themselves when their library is loaded, and nothing refers to them.
    link = ["-Wl,--no-as-needed", f"-L{libraries}", f"-Wl,-rpath,{libraries}"]
    names = ["-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2", "-ldl"]
    # Warnings are those of TensorFlow's own headers.
    command = ["g++", "-w", *tf.sysconfig.get_compile_flags(), str(SOURCE), "-o", str(built), *link, *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return built


def write_requests(version: Path, folder: Path) -> None:
    """The warm-up requests as `<number>/<signature>/<input>`, each a serialized TensorProto."""
    for number, request in enumerate(read_requests(version)):
        signature = folder / str(number) / request.model_spec.signature_name
        signature.mkdir(parents=True)
        for name, value in request.inputs.items():
            (signature / name).write_bytes(value.SerializeToString())


def run_program(program: Path, version: Path, folder: Path, libraries: list[Path]) -> tuple[int, str]:
    """Exit code and error output."""
    command = [program, version, folder / "requests", folder / "answers", *libraries]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(command, env=quiet, stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    return done.returncode, done.stderr


@pytest.mark.long
def test_answers_without_python_are_the_same(version: Path, program: Path, tmp_path: Path) -> None:
    write_requests(version, tmp_path / "requests")
    code, message = run_program(program, version, tmp_path, OP_LIBRARIES)
    assert code == 0, message

    loaded = tf.saved_model.load(str(version))
    answered = set()
    for number, request in enumerate(read_requests(version)):
        name = request.model_spec.signature_name
        answers = {
            path.name: tf.make_ndarray(TensorProto.FromString(path.read_bytes()))
            for path in (tmp_path / "answers" / str(number) / name).iterdir()
        }
        expected = loaded.signatures[name](**read_inputs(request))
        assert answers.keys() == expected.keys()
        for output, value in expected.items():
            if value.dtype == tf.float32:
                np.testing.assert_allclose(answers[output], value.numpy(), atol=1e-5, err_msg=output)
            else:
                np.testing.assert_array_equal(answers[output], value.numpy(), err_msg=output)
        answered.add(name)
    assert answered == set(loaded.signatures)


@pytest.mark.long
def test_text_needs_the_op_libraries_and_nothing_else(
    text_version: Path, program: Path, tmp_path: Path
) -> None:
    write_requests(text_version, tmp_path / "requests")
    code, message = run_program(program, text_version, tmp_path, [])
    assert code == 1
    assert "Op type not registered 'TFText>" in message


@pytest.mark.long
def test_an_unknown_signature_is_an_error(text_version: Path, program: Path, tmp_path: Path) -> None:
    (tmp_path / "requests" / "0" / "other").mkdir(parents=True)
    code, message = run_program(program, text_version, tmp_path, OP_LIBRARIES)
    assert code == 1
    assert "no such signature" in message
