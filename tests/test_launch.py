"""The launch files: what they set `TF_CONFIG` to, by running their shell with stand-ins for the cluster."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.folders import CHECKOUT

LAUNCH = CHECKOUT / "configs" / "launch"


@pytest.fixture
def stand_ins(tmp_path: Path) -> dict[str, str]:
    """Programs that say what they were given, and the path that finds them first."""
    programs = {
        "scontrol": 'if [[ $1 == show ]]; then printf "node1\\nnode2\\n"; else echo "scontrol $*"; fi',
        "srun": 'for SLURM_PROCID in 0 1; do export SLURM_PROCID; "$@"; done',
        ".venv/bin/tfmlm": 'echo "$TF_CONFIG|$*"; exit "${EXIT_CODE:-0}"',
    }
    for name, body in programs.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    return os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


def test_slurm_starts_a_worker_a_node(stand_ins: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", LAUNCH / "slurm.sh", "a.yaml", "train.epochs=2"],
        env=stand_ins | {"SLURM_JOB_NODELIST": "node[1-2]"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    for number, line in enumerate(done.stdout.splitlines()):
        config, arguments = line.split("|")
        assert json.loads(config) == {
            "cluster": {"worker": ["node1:12345", "node2:12345"]},
            "task": {"type": "worker", "index": number},
        }
        assert arguments == "train a.yaml train.epochs=2"
    assert number == 1


@pytest.mark.parametrize(
    ("exit_code", "restarts", "requeued"),
    [(0, 0, False), (2, 0, False), (70, 3, False), (75, 0, True), (143, 99, True), (143, 100, False)],
)
def test_slurm_starts_again_what_was_told_to_end_or_lost_a_worker(
    exit_code: int, restarts: int, requeued: bool, stand_ins: dict[str, str], tmp_path: Path
) -> None:
    done = subprocess.run(
        ["bash", LAUNCH / "slurm.sh", "a.yaml"],
        env=stand_ins
        | {
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_JOB_ID": "17",
            "SLURM_RESTART_COUNT": str(restarts),
            "EXIT_CODE": str(exit_code),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == exit_code
    assert ("scontrol requeue 17" in done.stdout) == requeued


def test_kubernetes_names_its_pods(stand_ins: dict[str, str], tmp_path: Path) -> None:
    service, job = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    assert service["metadata"]["name"] == pod["subdomain"]
    (worker,) = pod["containers"]
    done = subprocess.run(
        worker["command"],
        env=stand_ins | {"JOB_COMPLETION_INDEX": "2"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    config, arguments = done.stdout.strip().split("|")
    workers = [f"tfmlm-{number}.tfmlm:12345" for number in range(job["spec"]["completions"])]
    assert json.loads(config) == {
        "cluster": {"worker": workers},
        "task": {"type": "worker", "index": 2},
    }
    assert arguments.startswith("train configs/multi_gpu.yaml ")
    assert {mount["name"] for mount in worker["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }
