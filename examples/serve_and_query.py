"""Serves an export on this machine and asks it over REST and gRPC; TensorFlow Serving is asked alike.

python examples/serve_and_query.py saved_models/quickstart "The [MASK] of the model."
"""

import re
import subprocess
import sys
from pathlib import Path

from tfmlm.client import FillMaskClient


def main(folder: str, texts: list[str]) -> int:
    command = [sys.executable, "-m", "tfmlm", "serve", folder, "--port", "0", "--grpc-port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        banner = ""
        while not (found := re.search(r"REST  (\S+)\s+gRPC  (\S+)\n", banner)):
            line = server.stdout.readline()
            if not line:  # it said why on standard error
                return server.wait()
            banner += line
        rest, address = found.groups()
        for url in (rest, f"grpc://{address}/{Path(folder).resolve().name}"):
            with FillMaskClient(url) as client:
                for filled in client.fill(texts):
                    words = [[candidate["token_str"] for candidate in mask] for mask in filled.masks]
                    print(url.split(":")[0], filled.text, words, filled.note)
        return 0
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
