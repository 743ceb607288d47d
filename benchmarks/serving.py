"""Row: texts a second of the preview server under 32 clients; the peer is the export in process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from statistics import median, quantiles
from threading import Barrier, Thread
from typing import Any, NamedTuple

import tensorflow as tf

from benchmarks.fill_mask import EXPORT_NAME, NUM_TEXTS, read_sentences
from benchmarks.material import open_material
from benchmarks.measure import Row, Size, run_alone
from tfmlm.library_logging import quieten_libraries

_NUM_CLIENTS = 32


class Load(NamedTuple):
    """What the clients saw.

    Attributes:
        rate: texts a second.
        seconds: of each request.
        num_errors: requests without a whole answer.
        response_bytes: of an answer.
        logits_bytes: of the answer of the signature `logits` to the same text.
    """

    rate: float
    seconds: list[float]
    num_errors: int
    response_bytes: int
    logits_bytes: int


def measure(folder: Path, size: Size) -> Row:
    """Each client sends one sentence, waits for the answer, and sends the next."""
    run_alone("benchmarks.fill_mask:write_export", folder, size)
    rates = run_alone("benchmarks.serving:measure_batch_rate", folder, size)
    load = run_alone("benchmarks.serving:measure_load", folder, size)
    rates.append(run_alone("benchmarks.serving:measure_batch_rate", folder, size)[0])
    milliseconds = [1000 * second for second in load.seconds]
    return Row(
        unit="texts/s",
        ours=[load.rate],
        peer=rates,
        higher_is_better=True,
        notes=[
            f"the peer is the export in process, {NUM_TEXTS} texts at once",
            f"{_NUM_CLIENTS} clients for {size.serving_seconds} s: {load.num_errors} errors",
            f"p50 {median(milliseconds):.0f} ms, p99 {quantiles(milliseconds, n=100)[98]:.0f} ms",
            f"{load.response_bytes:,} bytes an answer; logits would be {load.logits_bytes:,}",
        ],
    )


def measure_batch_rate(folder: Path, size: Size) -> list[float]:
    """Texts a second of the export in this process, in a list of one."""
    quieten_libraries()
    texts = tf.constant(read_sentences(folder, size))
    fill = tf.saved_model.load(str(folder / EXPORT_NAME / "1")).signatures["text"]
    for _ in range(3):
        fill(texts=texts)
    start = time.perf_counter()
    num_calls = 0
    while time.perf_counter() - start < size.serving_seconds / 6:
        fill(texts=texts)
        num_calls += 1
    return [num_calls * len(texts) / (time.perf_counter() - start)]


def measure_load(folder: Path, size: Size) -> Load:
    """Starts `tfmlm serve` and the clients, which are threads of this process."""
    texts = read_sentences(folder, size)
    command = [sys.executable, "-m", "tfmlm", "serve", str(folder / EXPORT_NAME)]
    with subprocess.Popen(
        [*command, "--port", "0", "--grpc-port", "0"], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout
            banner = ""
            while "preview" not in banner:
                banner += server.stdout.readline()
            words = banner.split()
            address = words[words.index("page") + 1].removeprefix("http://").rstrip("/")
            return _ask_all(
                address, texts, open_material(folder, size).tokenizer(texts[0])["input_ids"], size
            )
        finally:
            server.terminate()


def _ask_all(address: str, texts: list[str], ids: list[int], size: Size) -> Load:
    seconds: list[float] = []
    errors: list[str] = []
    start_together = Barrier(_NUM_CLIENTS + 1)

    def be_client(number: int) -> None:
        connection = HTTPConnection(address, timeout=60)
        _ask(connection, "text", {"texts": [texts[number % len(texts)]]})
        start_together.wait()
        end = time.perf_counter() + size.serving_seconds
        while (start := time.perf_counter()) < end:
            answer = json.loads(_ask(connection, "text", {"texts": [texts[number % len(texts)]]}))
            if "outputs" not in answer:
                errors.append(str(answer))
            seconds.append(time.perf_counter() - start)
        connection.close()

    threads = [Thread(target=be_client, args=(number,)) for number in range(_NUM_CLIENTS)]
    for thread in threads:
        thread.start()
    start_together.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    rate = len(seconds) / (time.perf_counter() - start)
    connection = HTTPConnection(address, timeout=60)
    response_bytes = len(_ask(connection, "text", {"texts": texts[:1]}))
    inputs = {"input_ids": [ids], "attention_mask": [[1] * len(ids)]}
    return Load(rate, seconds, len(errors), response_bytes, len(_ask(connection, "logits", inputs)))


def _ask(connection: HTTPConnection, signature: str, inputs: dict[str, Any]) -> bytes:
    body = json.dumps({"signature_name": signature, "inputs": inputs})
    connection.request("POST", f"/v1/models/{EXPORT_NAME}:predict", body)
    return connection.getresponse().read()
