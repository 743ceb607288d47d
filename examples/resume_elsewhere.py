"""Trains on machines that may be taken away: each checkpoint goes to a branch of the Hub.

Run the same line on the next machine, and the run goes on from the last checkpoint there:

    python examples/resume_elsewhere.py configs/scratch.yaml me/my-model train.max_steps=20000

The token comes from `hf auth login` or HF_TOKEN. On SIGTERM the step is saved and pushed before it ends.
"""

import sys

from tfmlm.config.load import load_config
from tfmlm.errors import PreemptedError, UserError
from tfmlm.library_logging import quieten_libraries, show_progress_lines
from tfmlm.run import run


def main(config_file: str, repo_id: str, overrides: list[str]) -> int:
    hub = ["hub.push=true", f"hub.repo_id={repo_id}", "hub.checkpoints=training"]
    config = load_config(config_file, [*overrides, *hub])
    quieten_libraries()
    show_progress_lines()
    try:
        finished = run(config)
    except PreemptedError as error:
        print(f"{error}; run the same line on another machine", file=sys.stderr)
        return 1
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"perplexity {finished.result.perplexity:.2f}, {finished.unpushed or 'the model is on the Hub'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
