"""Mistakes in serving a model and in asking it."""

from tests.commands.bad_input.arrange import write
from tests.commands.bad_input.case import Case

FREE_PORTS = "--port 0 --grpc-port 0"

SERVER = [
    Case("no version", f"serve {{folder}} {FREE_PORTS}", "has no version"),
    Case(
        "no folder",
        f"serve {{folder}}/none {FREE_PORTS}",
        "is no folder; give one that `tfmlm export` wrote",
    ),
    Case(
        "a version for its folder",
        f"serve {{folder}}/saved/1 {FREE_PORTS}",
        "is one version; give the folder above it",
        write("saved/1/saved_model.pb", ""),
    ),
    Case(
        "a version that does not load",
        f"serve {{folder}}/saved {FREE_PORTS}",
        "no version in",
        write("saved/1/saved_model.pb", "nothing"),
    ),
    Case("a label of no number", "serve {folder} --label new", "--label is 'new'; it must be like stable=1"),
    Case("a batch of nothing", "serve {folder} --max-batch 0", "--max-batch is 0; it must be 1 or more"),
    Case(
        "a port that there is not",
        "serve {folder} --port 70000",
        "--port is 70000; it must be 0 to 65535",
    ),
    Case(
        "a host that there is not",
        f"serve {{folder}} {FREE_PORTS} --host 192.0.2.1",
        "cannot listen on 192.0.2.1",
    ),
    Case(
        "a name with a slash",
        "serve {folder} --name a/b",
        "--name is 'a/b'; it must be a name without / and :",
    ),
]

CLIENT = [
    Case("no URL", "query nowhere <mask>", "does not name a served model; write http(s)://"),
    Case("a password in the URL", "query http://me:secret@localhost:1/v1/models/a <mask>", "leave it out"),
    Case(
        "a port that there is not",
        "query http://localhost:99999/v1/models/a <mask>",
        "the URL of the server is not valid",
    ),
    Case(
        "nobody listens (REST)",
        "query http://127.0.0.1:9/v1/models/a <mask> --max-attempts 1",
        "cannot reach http://127.0.0.1:9",
    ),
    Case(
        "nobody listens (gRPC)",
        "query grpc://127.0.0.1:9/a <mask> --max-attempts 1 --timeout 5",
        "grpc://127.0.0.1:9/a",
    ),
    Case("no time", "query http://127.0.0.1:9/v1/models/a <mask> --timeout 0", "it must be above 0"),
    Case(
        "too many attempts",
        "query http://127.0.0.1:9/v1/models/a <mask> --max-attempts 9",
        "it must be 1 to 5",
    ),
    Case(
        "no certificate",
        "query https://127.0.0.1:9/v1/models/a <mask> --ca-file {folder}/texts.txt",
        "holds no certificate",
    ),
    Case(
        "no tokenizer",
        "query http://127.0.0.1:9/v1/models/a <mask> --tokenizer {folder}",
        "has no tokenizer.json",
    ),
    Case(
        "a tokenizer that is none",
        "query http://127.0.0.1:9/v1/models/a <mask> --tokenizer {folder}",
        "cannot be read",
        write("tokenizer.json", "[]"),
    ),
    Case(
        "a text that is no UTF-8, tokenized here",
        "query http://127.0.0.1:9/v1/models/a \ud800 --tokenizer {folder}/tokens",
        "has bytes that are not UTF-8",
    ),
    Case(
        "a text that is no UTF-8",
        "query http://127.0.0.1:9/v1/models/a \ud800",
        "has bytes that are not UTF-8",
    ),
]
