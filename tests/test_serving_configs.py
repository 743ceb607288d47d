"""The files for TensorFlow Serving: each is what its reader takes, and together they agree."""

import http.server
import json
import subprocess
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tests.folders import CHECKOUT
from tests.preview.server import BatchingParameters, MonitoringConfig
from tfmlm.export.warmup import write_batching_parameters

SERVING = CHECKOUT / "configs" / "serving"
MESSAGES = {
    "batching.pbtxt": BatchingParameters,
    "models.config": ModelServerConfig,
    "monitoring.config": MonitoringConfig,
}


def parse(name: str) -> Any:
    return text_format.Parse((SERVING / name).read_text(), MESSAGES[name]())


def read_resources() -> dict[str, dict[str, Any]]:
    """The Kubernetes resources by kind."""
    resources = list(yaml.safe_load_all((SERVING / "kubernetes.yaml").read_text()))
    by_kind = {resource["kind"]: resource for resource in resources}
    assert len(by_kind) == len(resources)
    return by_kind


def read_pod() -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod's specification and its container."""
    pod = read_resources()["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def read_compose() -> dict[str, Any]:
    (service,) = yaml.safe_load((SERVING / "compose.yaml").read_text())["services"].values()
    return service


def read_flags() -> dict[str, str]:
    return dict(argument.removeprefix("--").split("=", 1) for argument in read_compose()["command"])


# === Each file ===


def test_every_file_is_read_by_a_test() -> None:
    assert {path.name for path in SERVING.iterdir()} == {*MESSAGES, "compose.yaml", "kubernetes.yaml"}


def test_labels_name_versions_that_are_served() -> None:
    (model,) = parse("models.config").model_config_list.config
    assert model.base_path == f"/models/{model.name}"
    assert model.model_platform == "tensorflow"
    assert set(model.version_labels.values()) <= set(model.model_version_policy.specific.versions)
    assert "stable" in model.version_labels


def test_batch_sizes_are_those_the_server_takes(tmp_path: Path) -> None:
    server = parse("batching.pbtxt")
    export = text_format.Parse(write_batching_parameters(tmp_path).read_text(), BatchingParameters())
    for parameters in (server, export):
        sizes = list(parameters.allowed_batch_sizes)
        assert sizes == sorted(set(sizes))
        assert sizes[-1] == parameters.max_batch_size.value  # the server refuses to start otherwise
        assert parameters.pad_variable_length_inputs  # tests/preview/test_batching.py shows why
    assert server.num_batch_threads.value > 0
    server.ClearField("num_batch_threads")
    assert server == export


@pytest.mark.parametrize("kubernetes", ["1.30", "1.37"])
def test_kubernetes_accepts_every_resource(kubernetes: str) -> None:
    resources = read_resources()
    assert set(resources) == {
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "Service",
    }
    for resource in resources.values():
        kubernetes_validate.validate(resource, kubernetes, strict=True)


def test_kubernetes_would_refuse_a_misspelt_field() -> None:
    deployment = read_resources()["Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["readynessProbe"] = container.pop("readinessProbe")
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(deployment, "1.37", strict=True)


# === Files together ===


def test_config_map_repeats_the_files() -> None:
    data = read_resources()["ConfigMap"]["data"]
    assert data == {name: (SERVING / name).read_text() for name in MESSAGES}


def test_image_and_flags_are_the_same_and_fit_the_messages() -> None:
    service, (_, container) = read_compose(), read_pod()
    assert service["image"] == container["image"]
    image, tag = service["image"].split(":")
    assert image == "tensorflow/serving"
    assert tag.split(".")[:2] == version("tensorflow-serving-api").split(".")[:2]
    assert service["command"] == container["args"]


def test_flags_name_the_files_that_are_mounted() -> None:
    flags = {value for name, value in read_flags().items() if name.endswith("_file")}
    assert flags == {f"/config/{name}" for name in MESSAGES}
    assert {".:/config:ro", "../../saved_models:/models:ro"} <= set(read_compose()["volumes"])
    assert (SERVING / "../../saved_models").is_dir()

    pod, container = read_pod()
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert mounts.keys() == volumes.keys()
    assert mounts["config"]["mountPath"] == "/config"
    assert mounts["models"]["mountPath"] == "/models"
    assert mounts["models"]["readOnly"]
    assert volumes["config"]["configMap"]["name"] == read_resources()["ConfigMap"]["metadata"]["name"]


def test_ports_and_probes_agree() -> None:
    assert read_compose()["ports"] == ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"]
    _, container = read_pod()
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": 8500, "http": 8501}
    service = read_resources()["Service"]["spec"]["ports"]
    assert {port["targetPort"]: port["port"] for port in service} == ports

    (model,) = parse("models.config").model_config_list.config
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": f"/v1/models/{model.name}", "port": "http"}
    assert f"GET /v1/models/{model.name} " in read_compose()["healthcheck"]["test"][-1]

    annotations = read_resources()["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == "8501"
    assert annotations["prometheus.io/path"] == parse("monitoring.config").prometheus_config.path
    assert parse("monitoring.config").prometheus_config.enable


def test_resources_find_the_pods() -> None:
    resources = read_resources()
    name = resources["Deployment"]["metadata"]["name"]
    labels = resources["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert resources["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert resources["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert resources["Service"]["spec"]["selector"] == labels
    scaler = resources["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    assert scaler["minReplicas"] > resources["PodDisruptionBudget"]["spec"]["maxUnavailable"]
    assert "replicas" not in resources["Deployment"]["spec"]  # each apply would undo the scaler's choice


def test_threads_fit_the_cores_and_the_batch() -> None:
    flags, batching = read_flags(), parse("batching.pbtxt")
    cores = read_compose()["deploy"]["resources"]["limits"]["cpus"]
    assert cores == read_pod()[1]["resources"]["limits"]["cpu"]
    assert int(cores) == batching.num_batch_threads.value == int(flags["tensorflow_session_parallelism"])
    threads = 2 * batching.max_batch_size.value
    assert int(flags["rest_api_num_threads"]) == int(flags["grpc_max_threads"]) == threads


def test_nothing_runs_as_root_or_writes() -> None:
    service, (pod, container) = read_compose(), read_pod()
    assert pod["securityContext"]["runAsNonRoot"]
    user, group = (pod["securityContext"][key] for key in ("runAsUser", "runAsGroup"))
    assert service["user"] == f"{user}:{group}"
    assert user != 0
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


# === The health check of compose.yaml, run ===


class ModelStatus(http.server.BaseHTTPRequestHandler):
    """Answers like TensorFlow Serving's REST port."""

    state = "LOADING"

    def do_GET(self) -> None:
        known = self.path == "/v1/models/quickstart"
        status = {"version": "1", "state": self.state, "status": {"error_code": "OK", "error_message": ""}}
        body = json.dumps({"model_version_status": [status]} if known else {"error": "not found"}).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Prints nothing."""


def run_health_check(port: int) -> int:
    kind, *command = read_compose()["healthcheck"]["test"]
    assert kind == "CMD"
    command[-1] = command[-1].replace("127.0.0.1/8501", f"127.0.0.1/{port}")
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode


def test_health_check_waits_until_the_model_is_available() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), ModelStatus) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            codes = {}
            for ModelStatus.state in ("LOADING", "AVAILABLE", "END"):
                codes[ModelStatus.state] = run_health_check(server.server_port)
        finally:
            server.shutdown()
            thread.join()
    assert codes["AVAILABLE"] == 0
    assert codes["LOADING"] != 0
    assert codes["END"] != 0
    assert run_health_check(server.server_port) != 0  # nobody listens now
