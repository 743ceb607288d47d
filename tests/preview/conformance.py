"""What TensorFlow Serving's REST interface answers, case by case, with the place in its sources that says so.

`python -m tests.preview.conformance > docs/rest-conformance.md` writes the table. A case in which the preview
answers otherwise has that answer, too, and the reason.
"""

import gzip
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tfmlm.preview.metrics import METRICS_PATH

NAME = "half_plus_two"
VERSION = 123
LABEL = "stable"
MAX_BODY_BYTES = 20_000
MAX_TEXTS = 64

BASE = f"/v1/models/{NAME}"
PREDICT = f"{BASE}:predict"

HANDLER = "http_rest_api_handler.cc: "
HANDLER_TEST = "http_rest_api_handler_test.cc: "
UTIL = "http_rest_api_util.cc: "
UTIL_TEST = "http_rest_api_util_test.cc: "
SERVER = "http_server.cc: "
JSON = "json_tensor.cc: "
JSON_TEST = "json_tensor_test.cc: "
STATUS = "get_model_status_impl.cc: "
CORE = "server_core.cc: "
REQUEST = "evhttp_request.cc: "
REQUEST_TEST = "evhttp_request_test.cc: "
EXPORTER_TEST = "prometheus_exporter_test.cc: "
READER = "RapidJSON's reader.h: "
ABSEIL = "Abseil's escaping.cc: "
SHOWN_CHARACTERS = 120
CONTROLS = {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}


@dataclass(frozen=True)
class Answer:
    """A status and either what the error says or the whole JSON; neither where only the status is known."""

    status: int
    says: str = ""
    value: Any = None

    def show(self) -> str:
        if self.value is not None:
            return f"{self.status} {show(json.dumps(self.value, ensure_ascii=False))}"
        return f"{self.status} {show(self.says)}" if self.says else str(self.status)


@dataclass(frozen=True)
class Case:
    """A request, TensorFlow Serving's answer with its source, and the preview's where it differs."""

    what: str
    path: str
    theirs: Answer
    source: str
    body: str | bytes | None = None
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    ours: Answer | None = None
    why: str = ""

    @property
    def expected(self) -> Answer:
        return self.ours or self.theirs

    def show_request(self) -> str:
        parts = [f"{self.method} {self.path}" if self.path != PREDICT or self.method != "POST" else ""]
        parts += [f"{name}: {value}" for name, value in self.headers.items()]
        parts += [self.body if isinstance(self.body, str) else repr(self.body) if self.body else ""]
        if isinstance(self.body, bytes) and self.body.startswith(b"\x1f\x8b"):
            parts[-1] = "(gzip)"  # its bytes are another zlib's choice
        return " ".join(show(part) for part in parts if part)


def show(text: str) -> str:
    """As code in a cell of a table, shortened."""
    short = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
    fence = "``" if "`" in short else "`"
    return f"{fence}{short}{fence}".replace("|", "\\|").translate(CONTROLS)


def ok(**value: Any) -> Answer:
    return Answer(200, value=value)


def bad(says: str = "") -> Answer:
    return Answer(400, says)


def get(what: str, path: str, theirs: Answer, source: str, **more: Any) -> Case:
    return Case(what, path, theirs, source, method="GET", **more)


def post(what: str, path: str, theirs: Answer, source: str, **more: Any) -> Case:
    return Case(what, path, theirs, source, **({"body": '{"instances": [1.0, 2.0]}'} | more))


def predict(what: str, body: str | bytes, theirs: Answer, source: str, **more: Any) -> Case:
    return Case(what, PREDICT, theirs, source, body, **more)


def run(signature: str, form: str) -> str:
    """The body that asks a signature of the export; `form` is what comes after the name."""
    return f'{{"signature_name": "{signature}", {form}}}'


HALF_PLUS_TWO = ok(predictions=[2.5, 3.0])
MALFORMED = "Malformed request"
IS_WRONG_METHOD = "HTTP asks for 405 and `Allow` where a path has other methods; the message is the same"
EMPTY = "JSON Parse error: The document is empty"


def wrong_method(what: str, method: str, path: str, **more: Any) -> Case:
    return Case(
        what,
        path,
        bad(MALFORMED),
        HANDLER + "ProcessRequest",
        method=method,
        ours=Answer(405, "" if method == "HEAD" else MALFORMED),
        why=IS_WRONG_METHOD,
        **more,
    )


PATHS = [
    post("predict", PREDICT, HALF_PLUS_TWO, HANDLER_TEST + "Predict"),
    post(
        "predict with capital letters in the path",
        f"/V1/MODELS/{NAME}/VERSIONS/{VERSION}:predict",
        HALF_PLUS_TWO,
        UTIL + "kPredictionApiGegex",
    ),
    post("a method in capital letters", f"{BASE}:PREDICT", bad(MALFORMED), HANDLER + "ProcessRequest"),
    post(
        "a name in percent escapes",
        "/v1/models/half%5Fplus%5Ftwo:predict",
        HALF_PLUS_TWO,
        UTIL_TEST + "TestParseModelInfoForPost",
    ),
    get(
        "a name with escaped slashes is one name",
        f"/v1/models/{NAME}%2Fversions%2F{VERSION}",
        Answer(404, f"Could not find any versions of model {NAME}/versions/{VERSION}"),
        UTIL_TEST + "TestParseModelInfoForGet",
    ),
    get(
        "a name with reserved characters",
        "/v1/models/modelname%21%23%24%25%26%27%28%29%2A%2B%2C%2F%3A%3B%3D%3F%40%5B%5D",
        Answer(404, "of model modelname!#$%&'()*+,/:;=?@[]"),
        UTIL_TEST + "TestParseModelInfoForGet",
    ),
    post(
        "an escaped colon is no colon",
        f"{BASE}%3Apredict",
        bad(MALFORMED),
        UTIL + "kPredictionApiGegex",
        ours=Answer(405, MALFORMED),
        why=IS_WRONG_METHOD,
    ),
    post("a query after a method", f"{PREDICT}?a=1", bad(MALFORMED), REQUEST_TEST + "RequestUri"),
    get(
        "a query after a name is part of the name",
        f"{BASE}?a=1",
        Answer(404, f"Could not find any versions of model {NAME}?a=1"),
        REQUEST_TEST + "RequestUri",
    ),
    get("nothing below /v1", "/v1/", bad(MALFORMED), HANDLER_TEST + "UnsupportedApiCalls"),
    get("/v1 without a slash", "/v1", Answer(404), "http_rest_api_util.h: kHTTPRestApiHandlerPathRegex"),
    get("another path", "/statuspage", Answer(404), HANDLER_TEST + "kPathRegex"),
    get("another path below /v1", "/v1/foo", bad(MALFORMED), HANDLER_TEST + "UnsupportedApiCalls"),
    post("another path below /v1, posted", "/v1/foo", bad(MALFORMED), HANDLER_TEST + "UnsupportedApiCalls"),
    get("no name", "/v1/models", bad("Missing model name"), HANDLER_TEST + "UnsupportedApiCalls"),
    get("no name after a slash", "/v1/models/", bad(MALFORMED), UTIL + "kModelStatusApiRegex"),
    get(
        "a version of no name",
        "/v1/models/versions/1",
        bad("Missing model name in request."),
        UTIL + "kModelStatusApiRegex",
    ),
    get(
        "a model that is called metadata",
        "/v1/models/metadata",
        Answer(404, "Could not find any versions of model metadata"),
        UTIL + "kModelStatusApiRegex",
    ),
    post(
        "no name, posted",
        "/v1/models",
        bad(MALFORMED),
        HANDLER_TEST + "UnsupportedApiCalls",
    ),
    post("an empty name", "/v1/models/:predict", bad(MALFORMED), UTIL + "kPredictionApiGegex"),
    get(
        "something else below a model",
        "/v1/models/debug/model_name",
        bad(MALFORMED),
        HANDLER_TEST + "UnsupportedApiCalls",
    ),
    get(
        "a misspelt version that is got",
        "/v1/models/foo/version/50:predict",
        bad(MALFORMED),
        HANDLER_TEST + "UnsupportedApiCalls",
    ),
    post(
        "a misspelt version",
        "/v1/models/foo/version/50:regress",
        bad(MALFORMED),
        HANDLER_TEST + "UnsupportedApiCalls",
    ),
    post(
        "a misspelt label",
        "/v1/models/foo/label/some_label:regress",
        bad(MALFORMED),
        HANDLER_TEST + "UnsupportedApiCalls",
    ),
    post(
        "an unknown method",
        f"{BASE}:explain",
        bad(MALFORMED),
        UTIL + "kPredictionApiGegex",
    ),
    wrong_method("predict that is got", "GET", PREDICT),
    wrong_method("metadata that is posted", "POST", f"{BASE}/metadata", body="{}"),
    wrong_method("PUT", "PUT", BASE, body="{}"),
    wrong_method("DELETE", "DELETE", BASE),
    wrong_method("PATCH", "PATCH", PREDICT, body="{}"),
    wrong_method("HEAD", "HEAD", BASE),
    Case(
        "a preflight request of a page elsewhere",
        PREDICT,
        Answer(200),
        SERVER + "RestApiRequestDispatcher::ProcessRequest",
        method="OPTIONS",
        headers={"Origin": "https://example.org"},
        ours=Answer(403),
        why="the preview is for this machine: no other site's page may ask it",
    ),
    Case(
        "OPTIONS without an origin",
        PREDICT,
        Answer(400),
        SERVER + "RestApiRequestDispatcher::ProcessRequest",
        method="OPTIONS",
        ours=Answer(405, MALFORMED),
        why=IS_WRONG_METHOD,
    ),
]

VERSIONS = [
    post("a version", f"{BASE}/versions/{VERSION}:predict", HALF_PLUS_TWO, HANDLER_TEST + "Predict"),
    post("a label", f"{BASE}/labels/{LABEL}:predict", HALF_PLUS_TWO, HANDLER_TEST + "Predict"),
    post(
        "a label in percent escapes",
        f"{BASE}/labels/%73table:predict",
        HALF_PLUS_TWO,
        UTIL_TEST + "TestParseModelInfoForPost",
    ),
    post(
        "a version with zeros before it",
        f"{BASE}/versions/{VERSION:030d}:predict",
        HALF_PLUS_TWO,
        UTIL + "ParseModelInfo",
    ),
    post(
        "another model",
        "/v1/models/foo:predict",
        Answer(404, "Servable not found for request: Latest(foo)"),
        HANDLER_TEST + "PredictModelNameVersionErrors",
    ),
    post(
        "a version of another model",
        "/v1/models/foo/versions/50:predict",
        Answer(404, "Servable not found for request: Specific(foo, 50)"),
        HANDLER_TEST + "PredictModelNameVersionErrors",
    ),
    post(
        "a name with a number after it",
        f"{BASE}99:predict",
        Answer(404, "Servable not found"),
        HANDLER_TEST + "PredictModelNameVersionErrors",
    ),
    post(
        "another version",
        f"{BASE}/versions/99:predict",
        Answer(404, f"Servable not found for request: Specific({NAME}, 99)"),
        CORE + "ServableRequestFromModelSpec",
    ),
    post(
        "a version beyond 64 bits",
        f"/v1/models/foo/versions/{2**64 - 1}:regress",
        bad("Failed to convert version"),
        HANDLER_TEST + "UnsupportedApiCalls",
    ),
    post(
        "the first version beyond 63 bits",
        f"{BASE}/versions/{2**63}:predict",
        bad(f"Failed to convert version: {2**63} to numeric."),
        UTIL + "ParseModelInfo",
    ),
    post(
        "a version that is a word",
        "/v1/models/foo/versions/HELLO:regress",
        bad(MALFORMED),
        HANDLER_TEST + "UnsupportedApiCalls",
    ),
    post("a negative version", f"{BASE}/versions/-1:predict", bad(MALFORMED), UTIL + "kPredictionApiGegex"),
    post(
        "a version and a label",
        "/v1/models/foo/versions/50/labels/some_label:regress",
        bad(MALFORMED),
        HANDLER_TEST + "UnsupportedApiCalls",
    ),
    post(
        "a label that nobody set",
        f"{BASE}/labels/Version_Nonexistent:predict",
        bad("Unrecognized servable version label"),
        HANDLER_TEST + "PredictRequestErrors",
    ),
    post(
        "a label of another model",
        f"/v1/models/foo/labels/{LABEL}:predict",
        bad(f"Unrecognized servable version label: {LABEL}"),
        CORE + "GetModelVersionForLabel",
    ),
    post(
        "bad JSON for a model that there is not",
        "/v1/models/foo:predict",
        bad("JSON Parse error"),
        JSON + "FillPredictRequestFromJson",
        body="{",
    ),
]

NO_DUPLICATES = "which of the two is meant is a guess, and readers of JSON guess differently"
NO_DEPTH = "nothing in a request is nested so deeply, and reading it would take the stack"

BODIES = [
    predict(
        "rows, a list each",
        '{"instances": [[1.0, 2.0], [3.0, 4.0]]}',
        ok(predictions=[[2.5, 3.0], [3.5, 4.0]]),
        HANDLER_TEST + "Predict",
    ),
    predict("columns", '{"inputs": [3.0, 4.0]}', ok(outputs=[3.5, 4.0]), HANDLER_TEST + "Predict"),
    predict(
        "rows as objects",
        '{"instances": [{"x": 1.0}, {"x": 2.0}]}',
        HALF_PLUS_TWO,
        JSON + "FillTensorMapFromInstancesList",
    ),
    predict(
        "columns as an object",
        run("int32", '"inputs": {"x": [[[1,2],[3,4],[5,6]]]}'),
        ok(outputs=[[[1, 2], [3, 4], [5, 6]]]),
        JSON_TEST + "SingleUnnamedTensorColumnarFormat",
    ),
    predict(
        "columns as nested lists",
        run("int32", '"inputs": [[[1,2],[3,4],[5,6]]]'),
        ok(outputs=[[[1, 2], [3, 4], [5, 6]]]),
        JSON_TEST + "SingleUnnamedTensorColumnarFormat",
    ),
    predict(
        "rows as nested lists",
        run("int32", '"instances": [[1,2],[3,4],[5,6]]'),
        ok(predictions=[[1, 2], [3, 4], [5, 6]]),
        JSON_TEST + "SingleUnnamedTensor",
    ),
    predict(
        "one number as the input",
        run("int32", '"inputs": 7'),
        ok(outputs=7),
        JSON + "GetDenseTensorShape",
    ),
    predict("an empty body", "", bad(EMPTY), HANDLER_TEST + "PredictRequestErrors"),
    predict("spaces as the body", " \t\r\n", bad(EMPTY), READER + "kParseErrorDocumentEmpty"),
    predict(
        "no JSON",
        "instances = [1, 2]",
        bad("JSON Parse error: Invalid value"),
        HANDLER_TEST + "PredictRequestErrors",
    ),
    predict("JSON that ends early", '{"instances": [1', bad("JSON Parse error"), JSON + "ParseJson"),
    predict("a comma too many", '{"instances": [1,]}', bad("JSON Parse error"), JSON + "ParseJson"),
    predict("a comment", '{"instances": [1]/**/}', bad("JSON Parse error"), JSON + "ParseJson"),
    predict("single quotes", "{'instances': [1]}", bad("JSON Parse error"), JSON + "ParseJson"),
    predict(
        "a line break in a string",
        run("string", '"instances": ["a\nb"]'),
        bad("JSON Parse error"),
        READER + "ParseStringToStream",
    ),
    predict(
        "text after the end",
        '{"instances": [1.0, 2.0]} and more',
        HALF_PLUS_TWO,
        JSON + "ParseJson (kParseStopWhenDoneFlag)",
    ),
    predict(
        "NUL after the end",
        b'{"instances": [1.0, 2.0]}\0',
        HALF_PLUS_TWO,
        JSON + "ParseJson (kParseStopWhenDoneFlag)",
    ),
    predict(
        "a byte order mark",
        b'\xef\xbb\xbf{"instances": [1.0, 2.0]}',
        HALF_PLUS_TWO,
        JSON + "ParseJson (EncodedInputStream)",
    ),
    predict(
        "UTF-16",
        '{"instances": [1.0, 2.0]}'.encode("utf-16"),
        bad("JSON Parse error"),
        JSON + "ParseJson",
    ),
    predict(
        "a string that is no UTF-8",
        b'{"signature_name": "bytes", "instances": ["\xff"]}',
        ok(predictions=[{"b64": "/w=="}]),
        JSON + "ParseJson (no kParseValidateEncodingFlag)",
        ours=bad("JSON Parse error: not UTF-8 at offset: 43"),
        why="JSON is UTF-8; other bytes are sent as `b64`",
    ),
    predict("a list as the body", "[]", bad("Is not object"), JSON + "ParseJson"),
    predict("a number as the body", "3", bad("JSON Value: 3 Is not object"), JSON + "ParseJson"),
    predict(
        "neither form", "{}", bad("Missing 'inputs' or 'instances' key"), JSON + "FillPredictRequestFromJson"
    ),
    predict(
        "both forms",
        '{"instances": [[1,2],[3,4],[5,6,7]], "inputs": [[1,2],[3,4],[5,6,7]]}',
        bad("Not formatted correctly"),
        JSON_TEST + "SingleUnnamedTensorErrors",
    ),
    predict(
        "rows that are no list",
        '{"instances": 3}',
        bad("Expecting 'instances' to be an list/array"),
        JSON + "FillPredictRequestFromJson",
    ),
    predict(
        "rows that are null",
        '{"instances": null}',
        bad("Expecting 'instances' to be an list/array"),
        JSON + "FillPredictRequestFromJson",
    ),
    predict(
        "no rows",
        '{"instances": []}',
        bad("No values in 'instances' array"),
        JSON + "FillPredictRequestFromJson",
    ),
    predict(
        "other keys beside",
        '{"instances": [1.0, 2.0], "output_filter": ["y"], "x": {"y": [null]}}',
        HALF_PLUS_TWO,
        JSON + "FillPredictRequestFromJson",
    ),
    predict(
        "a key twice",
        '{"instances": [1.0, 2.0], "instances": [3.0]}',
        HALF_PLUS_TWO,
        JSON + "FillPredictRequestFromJson (FindMember)",
        ours=bad("an object has a key twice"),
        why=NO_DUPLICATES,
    ),
    predict(
        "a key that is nested 9,000 deep and not read",
        '{"instances": [1.0, 2.0], "nested": ' + "[" * 9000 + "]" * 9000 + "}",
        HALF_PLUS_TWO,
        JSON_TEST + "DeeplyNestedWellFormed",
        ours=bad("nested too deeply"),
        why=NO_DEPTH,
    ),
    predict(
        "a signature name that is nested 9,000 deep",
        '{"signature_name": ' + "[" * 9000 + "]" * 9000 + "}",
        bad("key must be a string value"),
        JSON_TEST + "DeeplyNestedMalformed",
        ours=bad("nested too deeply"),
        why=NO_DEPTH,
    ),
    predict(
        "another Content-Type",
        '{"instances": [1.0, 2.0]}',
        HALF_PLUS_TWO,
        HANDLER + "ProcessRequest (headers are not read)",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    ),
    predict(
        "another Accept",
        '{"instances": [1.0, 2.0]}',
        HALF_PLUS_TWO,
        HANDLER + "ProcessRequest (headers are not read)",
        headers={"Accept": "text/html"},
    ),
    predict(
        "an answer in gzip is asked for",
        '{"instances": [1.0, 2.0]}',
        HALF_PLUS_TWO,
        "httpserver_interface.h: RequestHandlerOptions (compression is to be added)",
        headers={"Accept-Encoding": "gzip"},
    ),
    predict(
        "a body that is larger than --max-body-bytes",
        '{"instances": [1.0, 2.0]}' + " " * MAX_BODY_BYTES,
        HALF_PLUS_TWO,
        "evhttp_server.cc: Initialize (sets no limit)",
        ours=Answer(413, f"the request is larger than {MAX_BODY_BYTES} bytes"),
        why="a request must not take the memory of all others",
    ),
    predict(
        "more rows than --max-texts",
        run("batch", f'"instances": {[1] * (MAX_TEXTS + 1)}'),
        ok(predictions=[1] * (MAX_TEXTS + 1)),
        JSON + "FillTensorMapFromInstancesList",
        ours=bad(f"{MAX_TEXTS + 1} texts; at most {MAX_TEXTS}"),
        why="a limit of the server; TensorFlow Serving has one if it batches (max_batch_size)",
    ),
]

INTEGERS = {
    "int8": (-(2**7), 2**7 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint8": (0, 2**8 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}


def beyond(name: str, value: int, wrapped: int | None = None) -> Case:
    refusal = bad(f"out of range for {name}")
    more = {} if wrapped is None else {"ours": refusal, "why": "a number must not become another in silence"}
    return predict(
        f"{value} for {name}",
        run(name, f'"inputs": [{value}]'),
        # Their message names the type of JSON; the range is what is wrong.
        bad() if wrapped is None else ok(outputs=[wrapped]),
        JSON + ("AddValueToTensor" if wrapped is None else "AddValueToTensor (as int_val, which is cut)"),
        **more,
    )


def wrong_type(name: str, value: str, kind: str, shown: str) -> Case:
    return predict(
        f"{kind} for {name}",
        run(name, f'"inputs": [{value}]'),
        bad(f"JSON Value: {value} Type: {kind} is not of expected type: {shown}"),
        JSON + "AddValueToTensor, TypeError",
    )


def unsupported(name: str, shown: str) -> Case:
    return predict(
        f"an input of {name}",
        run(name, '"inputs": [1]'),
        Answer(501, f"to type: {shown}"),
        JSON + "AddValueToTensor",
    )


NUMBERS = [
    *(
        predict(
            f"the least and the largest {name}",
            run(name, f'"inputs": [{least}, {largest}]'),
            ok(outputs=[least, largest]),
            JSON + "AddValueToTensor",
        )
        for name, (least, largest) in INTEGERS.items()
    ),
    beyond("int8", 300, 44),
    beyond("uint8", -1, 255),
    beyond("int16", 70_000, 4464),
    beyond("int32", 2**31),
    beyond("int64", 2**63),
    beyond("uint32", -1),
    beyond("uint64", 2**64),
    wrong_type("int32", "2.0", "Number", "int32"),
    predict(
        "a whole number with an exponent for int32",
        run("int32", '"inputs": [1e2]'),
        bad("JSON Value: 100.0 Type: Number is not of expected type: int32"),
        JSON + "AddValueToTensor, TypeError",
    ),
    wrong_type("int32", "true", "True", "int32"),
    wrong_type("int32", "false", "False", "int32"),
    wrong_type("int32", "null", "Null", "int32"),
    wrong_type("int32", '"1"', "String", "int32"),
    wrong_type("int32", '{"b64": "AA=="}', "Object", "int32"),
    wrong_type("float", "true", "True", "float"),
    wrong_type("float", '"x"', "String", "float"),
    wrong_type("double", '"x"', "String", "double"),
    wrong_type("bool", "1", "Number", "bool"),
    wrong_type("bool", '"true"', "String", "bool"),
    wrong_type("string", "1", "Number", "string"),
    wrong_type("string", "null", "Null", "string"),
    predict(
        "booleans",
        run("bool", '"inputs": [true, false]'),
        ok(outputs=[True, False]),
        JSON + "AddValueToTensor",
    ),
    predict(
        "whole numbers and fractions for float",
        run("float", '"instances": [1, 2.0, 3, 4, 5.003, 0.007, 0.0]'),
        ok(predictions=[1.0, 2.0, 3.0, 4.0, 5.003, 0.007, 0.0]),
        JSON_TEST + "MixedInputForFloatTensor",
    ),
    predict(
        "whole numbers and fractions for double",
        run("double", '"instances": [1.0, 2, 3, 4, 0.662, 0, 0.0]'),
        ok(predictions=[1.0, 2.0, 3.0, 4.0, 0.662, 0.0, 0.0]),
        JSON_TEST + "MixedInputForDoubleTensor",
    ),
    predict(
        "a whole number that float cannot hold",
        run("float", '"instances": [1435774380]'),
        ok(predictions=[1.43577434e9]),
        JSON_TEST + "FloatTensorWithPrecisionLoss",
    ),
    predict(
        "the same with a fraction",
        run("float", '"instances": [1435774380.0]'),
        ok(predictions=[1.43577434e9]),
        JSON_TEST + "FloatTensorWithPrecisionLoss",
    ),
    predict(
        "the largest double for float",
        run("float", '"instances": [1.79769e+308, -1.79769e+308]'),
        ok(predictions=[float("inf"), float("-inf")]),
        JSON_TEST + "FloatTensorThatExceedsMaxReturnsInf",
    ),
    predict(
        "the least double for float",
        run("float", '"instances": [2.22507e-308, -2.22507e-308]'),
        ok(predictions=[0.0, -0.0]),
        JSON_TEST + "FloatTensorThatExceedsMinReturnsZero",
    ),
    predict(
        "NaN and Infinity for float",
        run("float", '"instances": [NaN, Infinity, -Infinity, 1]'),
        ok(predictions=[float("nan"), float("inf"), float("-inf"), 1.0]),
        JSON_TEST + "MultipleNamedTensor",
    ),
    predict(
        "NaN for double",
        run("double", '"instances": [NaN, 2.0]'),
        ok(predictions=[float("nan"), 2.0]),
        JSON_TEST + "MultipleNamedTensor",
    ),
    predict(
        "NaN for an integer",
        run("int32", '"instances": [NaN]'),
        bad("Type: Number is not of expected type: int32"),
        JSON + "AddValueToTensor",
    ),
    predict(
        "Inf, in short",
        run("float", '"instances": [Inf]'),
        ok(predictions=[float("inf")]),
        READER + "ParseNumber (kParseNanAndInfFlag)",
        ours=bad("JSON Parse error: Invalid value."),
        why="no writer of JSON writes it so, and Python's reader has no place for it",
    ),
    predict(
        "a number beyond double",
        run("float", '"instances": [1e400]'),
        bad("Number too big to be stored in double."),
        READER + "kParseErrorNumberTooBig",
    ),
    predict(
        "a number with 400 digits",
        run("float", f'"instances": [{"9" * 400}]'),
        bad(),
        READER + "kParseErrorNumberTooBig",
    ),
    predict(
        "a whole number of 20 digits for float",
        run("double", '"instances": [100000000000000000000]'),
        ok(predictions=[1e20]),
        READER + "ParseNumber",
    ),
    predict(
        "a zero before a number",
        run("int32", '"inputs": [01]'),
        bad("JSON Parse error"),
        READER + "ParseNumber",
    ),
    predict(
        "a plus before a number",
        run("int32", '"inputs": [+1]'),
        bad("JSON Parse error"),
        READER + "ParseNumber",
    ),
    predict(
        "a point without a fraction",
        run("float", '"inputs": [1.]'),
        bad("JSON Parse error"),
        READER + "ParseNumber",
    ),
    predict(
        "minus zero for an integer", run("int32", '"inputs": [-0]'), ok(outputs=[0]), READER + "ParseNumber"
    ),
    unsupported("half", "half"),
    unsupported("bfloat16", "bfloat16"),
    unsupported("uint16", "uint16"),
    unsupported("complex64", "complex64"),
]

WITHOUT_BATCH = "an empty batch is a mistake; what a model makes of it is not defined"


def base64_text(
    what: str, text: str, decoded: str | None, source: str = ABSEIL + "Base64UnescapeInternal"
) -> Case:
    body = run("string", f'"inputs": [{{"b64": {json.dumps(text)}}}]')
    return predict(
        what, body, ok(outputs=[decoded]) if decoded is not None else bad("Unable to base64 decode"), source
    )


STRINGS = [
    predict(
        "texts",
        run("string", '"inputs": ["", "naïve 𝄞", "\\u00e9\\ud834\\udd1e", "a\\u0000b"]'),
        ok(outputs=["", "naïve 𝄞", "é𝄞", "a\0b"]),
        JSON + "AddValueToTensor",
    ),
    predict(
        "base64",
        run("string", '"instances": [{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}]'),
        ok(predictions=["hello", "world"]),
        JSON_TEST + "SingleUnnamedTensorBase64Scalars",
    ),
    predict(
        "base64 in lists",
        run("string", '"instances": [[{"b64": "aGVsbG8="}], [{"b64": "d29ybGQ="}]]'),
        ok(predictions=[["hello"], ["world"]]),
        JSON_TEST + "SingleUnnamedTensorBase64Lists",
    ),
    predict(
        "base64 by name",
        run("string", '"instances": [{"x": [[{"b64": "aGVsbG8="}], [{"b64": "d29ybGQ="}]]}]'),
        ok(predictions=[[["hello"], ["world"]]]),
        JSON_TEST + "SingleNamedTensorBase64",
    ),
    predict(
        "base64 as the only input",
        run("string", '"inputs": {"b64": "aGVsbG8="}'),
        ok(outputs="hello"),
        JSON + "FillTensorMapFromInputsMap",
    ),
    predict(
        "base64 beside text",
        run("string", '"instances": ["hello", {"b64": "d29ybGQ="}]'),
        ok(predictions=["hello", "world"]),
        JSON + "FillTensorMapFromInstancesList",
    ),
    base64_text("base64 without padding", "aGVsbG8", "hello"),
    base64_text("base64 of one byte without padding", "aA", "h"),
    base64_text("base64 padded with dots", "aA..", "h"),
    base64_text("base64 with spaces and lines", " aGVs\nbG 8=\t", "hello"),
    base64_text("base64 of nothing", "", ""),
    base64_text("base64 with half of its padding", "aA=", None),
    base64_text("base64 with more than its padding", "aGVs=", None),
    base64_text("base64 of 6 bits", "a", None),
    base64_text("base64 with text after the padding", "aA==aA==", None),
    base64_text("base64 with other characters", "a*==", None),
    base64_text("base64 with letters that are not ASCII", "aé==", None),
    base64_text(
        "base64 for URLs",
        "_-8=",
        None,
        JSON + "JsonDecodeBase64Object (Base64Unescape, not WebSafeBase64Unescape)",
    ),
    predict(
        "b64 and another key",
        run("string", '"inputs": [{"b64": "aGVsbG8=", "x": 1}]'),
        bad("not formatted correctly for base64 data"),
        JSON + "Base64FormatError",
    ),
    predict(
        "b64 that is a number",
        run("string", '"inputs": [{"b64": 1}]'),
        bad("not formatted correctly for base64 data"),
        JSON + "Base64FormatError",
    ),
    predict(
        "half a surrogate pair",
        run("string", '"inputs": ["\\ud800"]'),
        bad(),
        READER + "kParseErrorStringUnicodeSurrogateInvalid",
    ),
    predict(
        "an escape that there is not",
        run("string", '"inputs": ["\\x41"]'),
        bad("JSON Parse error"),
        READER + "kParseErrorStringEscapeInvalid",
    ),
]

ROW = '{"int_tensor": [[1,2],[3,4],[5,6]], "str_tensor": ["foo", "bar"]}'


def instances(*rows: str) -> str:
    return run("two", f'"instances": [{", ".join(rows)}]')


LISTS = [
    predict(
        "rows of other lengths",
        run("int32", '"instances": [[1,2],[3,4],[5,6,7]]'),
        bad("Expecting tensor size: 2 but got: 3"),
        JSON_TEST + "SingleUnnamedTensorErrors",
    ),
    predict(
        "a row that is nested deeper",
        run("int32", '"instances": [[1,2],[3,4],[[5,6]]]'),
        bad("Expecting shape [2] but got: [1,2]"),
        JSON_TEST + "SingleUnnamedTensorErrors",
    ),
    predict(
        "a number and a list",
        run("int32", '"instances": [1, [1]]'),
        bad("Expecting shape [] but got: [1]"),
        JSON_TEST + "SingleUnnamedTensorErrors",
    ),
    predict(
        "a row of another type",
        run("int32", '"instances": [[1,2],["a", "b"]]'),
        bad("not of expected type"),
        JSON_TEST + "SingleUnnamedTensorErrors",
    ),
    predict(
        "a row that is ragged in itself",
        run("int32", '"instances": [[[1,2],[3]]]'),
        bad("Encountered list at unexpected size: 1"),
        JSON + "FillTensorProto",
    ),
    predict(
        "ragged columns",
        run("int32", '"inputs": [[1,2],[3]]'),
        bad("Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        JSON + "FillTensorProto",
    ),
    predict(
        "a list among numbers",
        run("int32", '"inputs": [1,[2]]'),
        bad(),
        JSON + "FillTensorProto",
    ),
    predict(
        "a number among lists",
        run("int32", '"inputs": [[1],2]'),
        bad("found at incorrect level"),
        JSON + "FillTensorProto",
    ),
    predict(
        "rows of several inputs",
        run(
            "named",
            '"instances": [{"int_tensor": [[1,2],[3,4]], "str_tensor": ["foo"], "float_tensor": [1.0, NaN], '
            '"dbl_tensor": [NaN]}, {"int_tensor": [[7,8],[9,0]], "str_tensor": ["baz"], '
            '"float_tensor": [2.0, Infinity], "dbl_tensor": [2.0]}]',
        ),
        ok(
            predictions=[
                {
                    "int_tensor": [[1, 2], [3, 4]],
                    "str_tensor": ["foo"],
                    "float_tensor": [1.0, float("nan")],
                    "dbl_tensor": [float("nan")],
                },
                {
                    "int_tensor": [[7, 8], [9, 0]],
                    "str_tensor": ["baz"],
                    "float_tensor": [2.0, float("inf")],
                    "dbl_tensor": [2.0],
                },
            ]
        ),
        JSON_TEST + "MultipleNamedTensor",
    ),
    predict(
        "columns of several inputs",
        run(
            "columns",
            '"inputs": {"int_tensor": [[[1,2],[3,4],[5,6]]], "str_tensor": ["foo", "bar"], '
            '"bin_tensor": {"b64": "aGVsbG8="}}',
        ),
        ok(
            outputs={
                "int_tensor": [[[1, 2], [3, 4], [5, 6]]],
                "str_tensor": ["foo", "bar"],
                "bin_tensor": "hello",
            }
        ),
        JSON_TEST + "MultipleNamedTensorColumnarFormat",
    ),
    predict(
        "rows of several inputs, one nested deeper",
        instances(ROW, '{"int_tensor": [[[7,8],[9,0],[1,2]]], "str_tensor": ["baz", "bat"]}'),
        bad(
            "Failed to process element: 1 key: int_tensor of 'instances' list. "
            "Error: INVALID_ARGUMENT: Expecting shape [3,2] but got: [1,3,2]"
        ),
        JSON_TEST + "MultipleNamedTensorErrors",
    ),
    predict(
        "rows of several inputs, one longer",
        instances('{"int_tensor": [[1,2],[3,4],[5,6],[7,8]], "str_tensor": ["foo", "bar"]}', ROW),
        bad("Expecting tensor size: 8 but got: 6"),
        JSON_TEST + "MultipleNamedTensorErrors",
    ),
    predict(
        "a list among objects",
        instances(ROW, "[1, 20, 30]", ROW),
        bad("Expecting object but got list at item 1"),
        JSON_TEST + "MultipleNamedTensorErrors",
    ),
    predict(
        "an object among lists",
        run("string", '"instances": [["baz", "bar"], {"x": ["baz", "bat"]}]'),
        bad("Expecting value/list but got object at item 1"),
        JSON_TEST + "MultipleNamedTensorErrors",
    ),
    predict(
        "a row without an input",
        instances('{"int_tensor": [1]}'),
        bad("keys must be equal to: int_tensor,str_tensor"),
        JSON + "FillTensorMapFromInstancesList",
    ),
    predict(
        "a row with another input",
        instances('{"int_tensor": [1], "str_tensor": ["a"], "other": 1}'),
        bad(
            "key: other of 'instances' list. "
            "Error: INVALID_ARGUMENT: JSON object: does not have named input: other"
        ),
        JSON + "AddInstanceItem",
    ),
    predict(
        "lists for several inputs, in rows",
        instances("1"),
        bad("instances is a plain list, but expecting list of objects"),
        JSON + "FillTensorMapFromInstancesList",
    ),
    predict(
        "a list for several inputs, in columns",
        run("two", '"inputs": [1]'),
        bad("inputs is a plain value/list, but expecting an object"),
        JSON + "FillTensorMapFromInputsMap",
    ),
    predict(
        "columns without an input",
        run("two", '"inputs": {"int_tensor": [1]}'),
        bad("Missing named input: str_tensor in 'inputs' object."),
        JSON + "FillTensorMapFromInputsMap",
    ),
    predict(
        "columns with another input",
        run("two", '"inputs": {"int_tensor": [1], "str_tensor": ["a"], "other": 1}'),
        ok(outputs={"int_tensor": [1], "str_tensor": ["a"]}),
        JSON + "FillTensorMapFromInputsMap",
    ),
    predict(
        "an empty batch",
        run("batch", '"inputs": []'),
        ok(outputs=[]),
        JSON + "GetDenseTensorShape",
        ours=bad("input x has no values"),
        why=WITHOUT_BATCH,
    ),
    predict(
        "rows of nothing",
        run("int32", '"instances": [[], []]'),
        ok(predictions=[[], []]),
        JSON + "GetDenseTensorShape",
        ours=bad("input x has no values"),
        why=WITHOUT_BATCH,
    ),
]

NO_METHOD = (
    "no export has such a signature, so nothing of the body can be of use; the message says that first"
)


def without_signature(method: str, what: str, form: str, says: str, source: str) -> Case:
    kind = {"classify": "classification", "regress": "regression"}[method]
    return post(
        f"{method}: {what}",
        f"{BASE}:{method}",
        bad(says),
        source,
        body=f"{{{form}}}",
        ours=bad(f"Expected {kind} signature method_name to be tensorflow/serving/{method}"),
        why=NO_METHOD,
    )


JSON_ERRORS = JSON_TEST + "ClassifyRegressRequestTest.JsonErrors"

SIGNATURES = [
    predict(
        "a signature by name",
        '{"signature_name": "serving_default", "instances": [3.0, 4.0]}',
        ok(predictions=[3.5, 4.0]),
        HANDLER_TEST + "Predict",
    ),
    predict(
        "an empty name",
        '{"signature_name": "", "instances": [3.0, 4.0]}',
        ok(predictions=[3.5, 4.0]),
        HANDLER + "GetInfoMap",
    ),
    predict(
        "a number as the name",
        '{"signature_name": 100}',
        bad("'signature_name' key must be a string value."),
        HANDLER_TEST + "PredictRequestErrors",
    ),
    predict(
        "null as the name",
        '{"signature_name": null, "instances": [1.0]}',
        bad("'signature_name' key must be a string value."),
        JSON + "FillSignature",
    ),
    predict(
        "a signature that there is not",
        '{"signature_name": "none", "instances": [1.0]}',
        bad('Serving signature name: "none" not found in signature def'),
        HANDLER + "GetInfoMap",
    ),
    predict(
        "a name in other letters",
        '{"signature_name": "Serving_Default", "instances": [1.0]}',
        bad('Serving signature name: "Serving_Default" not found in signature def'),
        HANDLER + "GetInfoMap",
    ),
    predict(
        "a signature without inputs",
        run("constant", '"inputs": {}'),
        bad("Failed to get input map for signature: constant"),
        JSON + "FillPredictRequestFromJson",
    ),
    post(
        "classify with a signature to predict",
        f"{BASE}:classify",
        bad(
            "Expected classification signature method_name to be tensorflow/serving/classify. "
            "Was: tensorflow/serving/predict"
        ),
        "classifier.cc: GetClassificationSignatureDef",
        body='{"examples": [{"x": 20.0}]}',
    ),
    post(
        "regress with a signature to predict",
        f"{BASE}:regress",
        bad(
            "Expected regression signature method_name to be tensorflow/serving/regress. "
            "Was: tensorflow/serving/predict"
        ),
        "regressor.cc: GetRegressionSignatureDef",
        body='{"examples": [{"x": 80.0}]}',
    ),
    post(
        "classify: a signature that there is not",
        f"{BASE}:classify",
        bad("No signature was found with the name: none"),
        "classifier.cc: GetClassificationSignatureDef",
        body='{"signature_name": "none", "examples": [{"x": 20.0}]}',
        ours=bad('Serving signature name: "none" not found in signature def'),
        why="the words of predict",
    ),
    post(
        "classify: a list as the name",
        f"{BASE}:classify",
        bad("'signature_name' key must be a string"),
        JSON_ERRORS,
        body='{"signature_name": ["hello"], "examples": [{"names": ["foo"]}]}',
    ),
    post("classify: an empty body", f"{BASE}:classify", bad(EMPTY), JSON + "ParseJson", body=""),
    post("regress: no JSON", f"{BASE}:regress", bad("JSON Parse error"), JSON + "ParseJson", body="{"),
    without_signature(
        "classify",
        "no examples",
        '"a": 1',
        "'examples' is expected and was not found",
        JSON + "FillClassifyRegressRequestFromJson",
    ),
    without_signature(
        "classify", "a context that is a list", '"context": [{}]', "Example must be JSON object", JSON_ERRORS
    ),
    without_signature("regress", "examples that are no list", '"examples": {}', "list/array", JSON_ERRORS),
    without_signature(
        "regress",
        "an example that is a list",
        '"examples": [[{}]]',
        "Example must be JSON object",
        JSON_ERRORS,
    ),
    without_signature(
        "classify",
        "null in a feature",
        '"examples": [{"names": [10, null]}]',
        "unexpected JSON type: Null",
        JSON_ERRORS,
    ),
    without_signature(
        "regress",
        "numbers of two types",
        '"examples": [{"names": [10, 10.0]}]',
        "expecting type: int64",
        JSON_ERRORS,
    ),
]

OUTPUTS = [
    predict(
        "several outputs in rows",
        run("outputs", '"instances": [0, 1]'),
        ok(
            predictions=[
                {
                    "double_scalar_tensor": 8.0,
                    "float_tensor": [1.0],
                    "int_tensor": [[1, 2], [3, 4], [5, 6]],
                    "str_tensor": ["foo", "bar"],
                    "str_tensor_bytes": [{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}],
                },
                {
                    "double_scalar_tensor": 9.0,
                    "float_tensor": [2.0],
                    "int_tensor": [[7, 8], [9, 0], [1, 2]],
                    "str_tensor": ["baz", "bat"],
                    "str_tensor_bytes": [{"b64": "dGY="}, {"b64": "c2VydmluZw=="}],
                },
            ]
        ),
        JSON_TEST + "FromJsonMultipleNamedTensors",
    ),
    predict(
        "several outputs in columns",
        run("outputs", '"inputs": [0, 1]'),
        ok(
            outputs={
                "double_scalar_tensor": [8.0, 9.0],
                "float_tensor": [[1.0], [2.0]],
                "int_tensor": [[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 0], [1, 2]]],
                "str_tensor": [["foo", "bar"], ["baz", "bat"]],
                "str_tensor_bytes": [
                    [{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}],
                    [{"b64": "dGY="}, {"b64": "c2VydmluZw=="}],
                ],
            }
        ),
        JSON_TEST + "FromJsonMultipleNamedTensors",
    ),
    predict(
        "one output whose name ends in _bytes",
        run("bytes", '"instances": [["hello", "world"], ["tf", "serving"]]'),
        ok(
            predictions=[
                [{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}],
                [{"b64": "dGY="}, {"b64": "c2VydmluZw=="}],
            ]
        ),
        JSON_TEST + "FromJsonSingleBytesTensor",
    ),
    predict(
        "bytes that are no UTF-8, as _bytes",
        run("bytes", '"inputs": [{"b64": "/wA="}]'),
        ok(outputs=[{"b64": "/wA="}]),
        JSON + "AddSingleValueAndAdvance",
    ),
    predict(
        "bytes that are no UTF-8, as text",
        run("string", '"inputs": [{"b64": "/2E="}]'),
        Answer(200),
        JSON + "AddSingleValueAndAdvance (writes the byte FF, which is no JSON)",
        ours=ok(outputs=["\ufffda"]),
        why="the answer stays JSON, with U+FFFD for the byte; `_bytes` has the bytes themselves",
    ),
    predict(
        "numbers whose name does not matter",
        run("numbers_bytes", '"inputs": [1]'),
        ok(outputs=[1]),
        JSON + "IsNamedTensorBytes",
    ),
    predict(
        "six digits of float",
        run("float", '"instances": [[9000000, 999999, 0.50000], [0.0003, 0.00003, 555557.5]]'),
        ok(predictions=[[9e06, 999999.0, 0.5], [0.0003, 3e-05, 555557.5]]),
        JSON_TEST + "FromJsonSingleFloatTensorSixDigitPrecision",
    ),
    predict(
        "a float that six digits are",
        run("float", '"inputs": [0.2, 0.1, 3.14159]'),
        ok(outputs=[0.2, 0.1, 3.14159]),
        JSON + "WriteDecimal",
    ),
    predict(
        "a float that needs nine digits",
        run("float", '"inputs": [0.1234567, 16777215, 3.1415927]'),
        ok(outputs=[0.123456702, 16777215.0, 3.14159274]),
        JSON + "WriteDecimal",
    ),
    predict(
        "floats that are very large and very small",
        run("float", '"inputs": [3.4e38, 1e-45, 1.17549435e-38]'),
        ok(outputs=[3.4e38, 1.4013e-45, 1.17549435e-38]),
        JSON + "WriteDecimal",
    ),
    predict(
        "doubles",
        run("double", '"inputs": [0.1, 1e-300, 0.30000000000000004, 123456789012]'),
        ok(outputs=[0.1, 1e-300, 0.30000000000000004, 123456789012.0]),
        JSON + "WriteDecimal",
    ),
    predict(
        "numbers that are not finite",
        run("float", '"instances": [[NaN, Infinity], [3, -Infinity]]'),
        ok(predictions=[[float("nan"), float("inf")], [3.0, float("-inf")]]),
        JSON_TEST + "FromJsonSingleFloatTensorNonFinite",
    ),
    predict(
        "one number as the output, in columns",
        run("total", '"inputs": [1.0, 2.5]'),
        ok(outputs=3.5),
        JSON + "AddTensorValues",
    ),
    predict(
        "one number as the output, in rows",
        run("total", '"instances": [1.0, 2.5]'),
        bad("Tensor name: total has no shape information"),
        JSON_TEST + "FromJsonSingleTensorErrors",
    ),
    predict(
        "outputs of different lengths, in rows",
        run("uneven", '"instances": [1.0, 2.0]'),
        bad("inconsistent batch size"),
        JSON_TEST + "FromJsonMultipleNamedTensorsErrors",
    ),
    predict(
        "outputs of different lengths, in columns",
        run("uneven", '"inputs": [1.0, 2.0]'),
        ok(outputs={"all": [1.0, 2.0], "first": [1.0]}),
        JSON + "MakeColumnarFormatJsonFromTensors",
    ),
    predict(
        "no rows as the output",
        run("no_rows", '"instances": [1.0]'),
        ok(predictions=[]),
        JSON_TEST + "FromJsonSingleZeroBatchTensor",
    ),
    predict(
        "no rows as the output, in columns",
        run("no_rows", '"inputs": [1.0]'),
        ok(outputs=[]),
        JSON + "AddTensorValues",
    ),
    predict(
        "no rows in several outputs",
        run("no_rows_twice", '"instances": [1.0]'),
        ok(predictions=[]),
        JSON_TEST + "FromJsonMultipleZeroBatchTensors",
    ),
    predict(
        "no rows in one of several outputs",
        run("no_rows_once", '"instances": [1.0]'),
        bad("inconsistent batch size"),
        JSON_TEST + "FromJsonMultipleZeroBatchTensorsErrors",
    ),
    predict(
        "complex numbers as the output",
        run("to_complex", '"instances": [1.0]'),
        bad("tensor type: complex64"),
        JSON_TEST + "FromJsonSingleTensorErrors",
    ),
    predict(
        "float16 as the output",
        run("to_half", '"inputs": [1.0]'),
        bad("Failed to write JSON value for tensor type: half"),
        JSON + "AddSingleValueAndAdvance",
    ),
    predict(
        "an error of the model",
        run("refuse", '"instances": [-1.0]'),
        bad(),
        SERVER + "ToHTTPStatusCode",
    ),
    predict(
        "quotes in an error",
        '{"signature_name": "a\\"b", "instances": [1]}',
        bad('"a"b" not found'),
        JSON_TEST + "MakeJsonFromTensors.StatusError",
    ),
]

AVAILABLE = ok(
    model_version_status=[
        {"version": str(VERSION), "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ]
)


def describe(dtype: str, name: str) -> dict[str, Any]:
    dim = [{"size": "-1", "name": ""}]
    return {"dtype": dtype, "tensor_shape": {"dim": dim, "unknown_rank": False}, "name": name}


STATUSES = [
    get("status", BASE, AVAILABLE, HANDLER_TEST + "GetStatus"),
    get("status of a version", f"{BASE}/versions/{VERSION}", AVAILABLE, HANDLER_TEST + "GetStatus"),
    get("status of a label", f"{BASE}/labels/{LABEL}", AVAILABLE, HANDLER_TEST + "GetStatus"),
    get(
        "status of a label that nobody set",
        f"{BASE}/labels/none",
        AVAILABLE,
        STATUS + "GetModelStatusWithModelSpec (labels are not read)",
        ours=bad("Unrecognized servable version label: none"),
        why="a wrong label is told at once; theirs lists all versions whatever the label",
    ),
    get(
        "status of another version",
        f"{BASE}/versions/9",
        Answer(404, f"Could not find version 9 of model {NAME}"),
        STATUS + "GetModelStatusWithModelSpec",
    ),
    get(
        "status of another model",
        "/v1/models/other",
        Answer(404, "Could not find any versions of model other"),
        STATUS + "GetModelStatusWithModelSpec",
    ),
    get(
        "status with capital letters in the path",
        f"/V1/Models/{NAME}/Versions/{VERSION}",
        AVAILABLE,
        UTIL + "kModelStatusApiRegex",
    ),
    get(
        "metadata in capital letters is status",
        f"{BASE}/METADATA",
        AVAILABLE,
        HANDLER + "ProcessRequest",
    ),
    get(
        "metadata of another model",
        "/v1/models/other/metadata",
        Answer(404, "Servable not found for request: Latest(other)"),
        "get_model_metadata_impl.cc: SavedModelGetSignatureDef",
    ),
    get(
        "metadata of another version",
        f"{BASE}/versions/9/metadata",
        Answer(404, f"Servable not found for request: Specific({NAME}, 9)"),
        "get_model_metadata_impl.cc: SavedModelGetSignatureDef",
    ),
    get(
        "metadata of a label that nobody set",
        f"{BASE}/labels/none/metadata",
        bad("Unrecognized servable version label: none"),
        CORE + "GetModelVersionForLabel",
    ),
]

METADATA_PATHS = [
    f"{BASE}/metadata",
    f"{BASE}/versions/{VERSION}/metadata",
    f"{BASE}/labels/{LABEL}/metadata",
]
"""Of these only a part of the answer is compared: the name, the version and one signature."""

METADATA = {
    "model_spec": {"name": NAME, "signature_name": "", "version": str(VERSION)},
    "signature": {
        "inputs": {"x": describe("DT_INT32", "batch_x:0")},
        "outputs": {"y": describe("DT_INT32", "StatefulPartitionedCall:0")},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    },
}

SMALL = gzip.compress(b'{"instances": [1.0, 2.0]}', mtime=0)
BOMB = gzip.compress(b'{"instances": [1.0, 2.0]}' + b" " * 2**24, mtime=0)
GZIP = {"Content-Encoding": "gzip"}
SAYS_WHY = "the same status; the message says what is wrong with the body"
NO_GZIP = bad("the body is not in gzip")


def zipped(what: str, body: bytes, theirs: Answer, source: str, **more: Any) -> Case:
    return predict(what, body, theirs, source, **({"headers": GZIP} | more))


GZIPPED = [
    zipped("a body in gzip", SMALL, HALF_PLUS_TWO, REQUEST_TEST + "ValidGzipPost"),
    zipped(
        "another word with gzip in it",
        SMALL,
        HALF_PLUS_TWO,
        REQUEST_TEST + "ValidGzipPost",
        headers={"Content-Encoding": "my_gzip"},
    ),
    zipped(
        "GZIP in capital letters is not read",
        SMALL,
        bad("JSON Parse error"),
        REQUEST + "NeedUncompressGzipContent",
        headers={"Content-Encoding": "GZIP"},
    ),
    zipped(
        "deflate is not read",
        SMALL,
        bad("JSON Parse error"),
        REQUEST + "NeedUncompressGzipContent",
        headers={"Content-Encoding": "deflate"},
    ),
    zipped(
        "gzip that is not told",
        SMALL,
        bad("JSON Parse error"),
        REQUEST + "NeedUncompressGzipContent",
        headers={},
    ),
    zipped(
        "a body that is not gzip",
        b"abcde",
        bad(EMPTY),
        REQUEST_TEST + "InvalidGzipPost",
        ours=NO_GZIP,
        why=SAYS_WHY,
    ),
    zipped(
        "gzip that ends early",
        SMALL[:-9],
        bad(EMPTY),
        REQUEST + "UncompressGzipBody",
        ours=NO_GZIP,
        why=SAYS_WHY,
    ),
    zipped(
        "gzip whose checksum is wrong",
        SMALL[:-8] + b"\0\0\0\0" + SMALL[-4:],
        bad(EMPTY),
        "gzip_zlib.cc: UncompressChunkDone",
        ours=NO_GZIP,
        why=SAYS_WHY,
    ),
    zipped(
        "gzip with text after it",
        SMALL + b"text",
        bad(EMPTY),
        "gzip_zlib.cc: UncompressGzipAndAllocate",
        ours=NO_GZIP,
        why=SAYS_WHY,
    ),
    zipped(
        "gzip larger than the limit when inflated",
        BOMB,
        bad(EMPTY),
        REQUEST_TEST + "GzipExceedingLimit",
        ours=Answer(413, f"the request is larger than {MAX_BODY_BYTES} bytes"),
        why="the limit is --max-body-bytes instead of 100 MiB, and the status says what is wrong",
    ),
    zipped(
        "a wrong value in gzip",
        gzip.compress(b'{"instances": ["x"]}', mtime=0),
        bad("not of expected type: float"),
        HANDLER_TEST + "PredictRequestErrors",
    ),
    Case(
        "gzip for status, which has no body",
        BASE,
        AVAILABLE,
        REQUEST + "ReadRequestBytes",
        method="GET",
        headers=GZIP,
    ),
]

TABLE = {
    "Paths and methods": PATHS,
    "Versions and labels": VERSIONS,
    "Bodies": BODIES,
    "Types and numbers": NUMBERS,
    "Strings and bytes": STRINGS,
    "Lists, rows and columns": LISTS,
    "Signatures, classify and regress": SIGNATURES,
    "Outputs": OUTPUTS,
    "Status and metadata": STATUSES,
    "gzip": GZIPPED,
}

SERVING, BATCHING = ":tensorflow:serving:", ":tensorflow:serving:batching_session:"
LOADING = ":tensorflow:cc:saved_model:"
COUNTERS, BATCHES = "servables/tensorflow/util.cc", "batching/batching_util.h"
SESSION, LOADER = "batching/batching_session.cc", "TensorFlow's cc/saved_model/loader.cc"

METRICS = [
    (
        SERVING + "request_count",
        "`model_name`, `status`",
        COUNTERS,
        "REST below /v1; gRPC Predict, Classify, Regress",
    ),
    (
        SERVING + "request_latency",
        "`model_name`, `API`, `entrypoint`",
        COUNTERS,
        "of the same, those that were answered",
    ),
    (
        SERVING + "runtime_latency",
        "`model_name`, `API`, `runtime`",
        COUNTERS,
        "REST and gRPC, from the queue on",
    ),
    (BATCHING + "input_batch_size", "none", BATCHES, "rows of a request"),
    (BATCHING + "processed_batch_size", "none", BATCHES, "rows that are run together"),
    (BATCHING + "queuing_latency", "`thread_pool_name`", SESSION, "until a request's turn"),
    (BATCHING + "wrapped_run_count", "none", SESSION, "runs of the model"),
    (LOADING + "load_attempt_count", "`model_path`, `status`", LOADER, "`success` and `fail`"),
    (LOADING + "load_latency", "`model_path`", LOADER, "a sum, as theirs, with the warm-up"),
]
"""Name, labels, where TensorFlow Serving has them from, and what the preview counts by them."""

INTRODUCTION = """\
# The preview against TensorFlow Serving's REST interface

{num_cases} cases: what TensorFlow Serving answers, by its own sources and tests, and what `tfmlm serve`
answers. In {num_alike} they are the same; in {num_unlike} the preview differs, and the last column says why.
An answer is a status with the whole JSON, compared value by value, or with a part of the error. No server
binary was at hand: the answers are read from the sources, not from a running server.

Every case is asked over a socket by `tests/preview/test_conformance.py`, and the page is made from them:
`python -m tests.preview.conformance > docs/rest-conformance.md`.

The model `{name}` computes x / 2 + 2; the other signatures give back what they get. Requests are
`POST {predict}` unless they say otherwise.
"""

METRICS_INTRODUCTION = """
`GET …/metadata` answers with `model_spec` and the `SignatureDefMap`, every field of it, as in
`saved_model_half_plus_two_2_versions_metadata.json` of their tests. When too many requests wait, both answer
503 (theirs if it batches: UNAVAILABLE of the queue, `http_server.cc: ToHTTPStatusCode`).

## Metrics

`GET {path}` answers in Prometheus' text format, as
`prometheus_exporter.cc` does: names with `:` for `/`, times in microseconds, their labels and buckets. It
differs in three things. A value at a bucket's limit is counted in that bucket, as Prometheus has it;
TensorFlow counts it in the next (`prometheus_exporter_test.cc: Histogram`). Names of other models are counted
as the name `""`, for clients could make up names without end. A query after the path is not read; theirs is
answered with 400 (`http_server.cc: ProcessPrometheusRequest`).

| Metric | Labels | Source | What the preview counts |
| --- | --- | --- | --- |
"""

HEAD = "| Case | Request | TensorFlow Serving | Source | Preview |\n| --- | --- | --- | --- | --- |\n"


def list_cases() -> list[Case]:
    return [case for cases in TABLE.values() for case in cases]


def write_row(case: Case) -> str:
    preview = "the same" if case.ours is None else f"{case.ours.show()}: {case.why}"
    cells = [case.what, case.show_request(), case.theirs.show(), case.source, preview]
    return f"| {' | '.join(cells)} |\n"


def write_page() -> str:
    """The tables as Markdown."""
    cases = list_cases()
    num_unlike = sum(case.ours is not None for case in cases)
    page = INTRODUCTION.format(
        num_cases=len(cases),
        num_alike=len(cases) - num_unlike,
        num_unlike=num_unlike,
        name=NAME,
        predict=PREDICT,
    )
    for area, listed in TABLE.items():
        page += f"\n## {area}\n\n{HEAD}" + "".join(map(write_row, listed))
    page += METRICS_INTRODUCTION.format(path=METRICS_PATH)
    return page + "".join(f"| `{name}` | {' | '.join(rest)} |\n" for name, *rest in METRICS)


if __name__ == "__main__":
    sys.stdout.write(write_page())
