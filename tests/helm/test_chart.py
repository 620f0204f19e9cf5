"""The chart is consistent with itself, with the services and with the image."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from apstream.service.settings import DaemonSettings, ServiceSettings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "apstream"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
TEMPLATES = {path.name: path.read_text() for path in sorted((CHART / "templates").iterdir())}
LOADERS = {"alert-producer": DaemonSettings.model_validate}
PER_SERVICE = VALUES["services"]["alert-producer"]


def refused(change: dict[str, Any]) -> bool:
    values = copy.deepcopy(VALUES)
    for dotted, value in change.items():
        scope = values
        *path, last = dotted.split("/")
        for name in path:
            scope = scope[name]
        scope[last] = value
    return not jsonschema.Draft7Validator(SCHEMA).is_valid(values)


def test_values_satisfy_the_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(VALUES, SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        {"imagePullPolicy": "Always"},
        {"image/pullPolicy": "Sometimes"},
        {"services/alert-producer/replicaz": 3},
        {"services/alert-producer/replicas": -1},
        {"services/alert-producer/autoscaling/topics": "x"},
        {"services/Alert_Producer": PER_SERVICE},
        {"podSecurityContext/runAsNonRoot": False},
        {"httpPort": 80},
    ],
    ids=str,
)
def test_wrong_values_are_refused(change: dict[str, Any]) -> None:
    assert refused(change)


def test_schema_is_closed_everywhere() -> None:
    def open_objects(node: Any, path: str) -> list[str]:
        if isinstance(node, list):
            return [hit for index, item in enumerate(node) for hit in open_objects(item, f"{path}/{index}")]
        if not isinstance(node, dict):
            return []
        closed = node.get("additionalProperties") is not None or path.endswith("podSecurityContext")
        mine = [path] if "properties" in node and node.get("type") == "object" and not closed else []
        return mine + [hit for name, item in node.items() for hit in open_objects(item, f"{path}/{name}")]

    assert not open_objects(SCHEMA, "")


def test_every_service_folder_has_a_deployment() -> None:
    folders = {path.parent.name.replace("_", "-") for path in (ROOT / "services").glob("*/main.py")}
    assert set(VALUES["services"]) == folders


def test_commands_name_modules_that_exist() -> None:
    for service in VALUES["services"].values():
        python, option, module = service["command"]
        assert (python, option) == ("python", "-m")
        assert (ROOT / (module.replace(".", "/") + ".py")).exists()


def test_settings_of_the_chart_load() -> None:
    for name, service in VALUES["services"].items():
        LOADERS[name](service["settings"])


def test_grace_period_follows_the_drain_time() -> None:
    default = re.findall(r'dig "service" "drain_s" (\d+) \$service.settings', TEMPLATES["deployment.yaml"])
    assert [float(word) for word in default] == [ServiceSettings().drain_s]


def test_templates_use_only_values_that_exist() -> None:
    for name, text in TEMPLATES.items():
        for dotted in re.findall(r"(?:\$|\s|\()\.?Values\.([\w.]+)", text):
            scope: Any = VALUES
            for part in dotted.split("."):
                assert part in scope, f"{name}: .Values.{dotted}"
                scope = scope[part]
        for dotted in re.findall(r"\$service\.([\w.]+)", text):
            scope = PER_SERVICE
            for part in dotted.split("."):
                assert part in scope, f"{name}: $service.{dotted}"
                scope = scope[part]


def test_every_value_is_used() -> None:
    text = "\n".join(TEMPLATES.values())
    unused = [name for name in PER_SERVICE if f"$service.{name}" not in text]
    unused += [name for name in VALUES if not re.search(rf"\.Values\.{name}\b", text)]
    assert not unused


def test_actions_are_balanced() -> None:
    for name, text in TEMPLATES.items():
        words = re.findall(r"\{\{-?\s*(?:/\*.*?\*/|(if|with|range|define|end)\b)", text)
        opened = sum(word in ("if", "with", "range", "define") for word in words)
        assert opened == words.count("end"), name


@pytest.mark.parametrize(
    "line",
    [
        "path: /startupz",
        "path: /livez",
        "path: /readyz",
        "readOnlyRootFilesystem: true",
        "allowPrivilegeEscalation: false",
        'drop: ["ALL"]',
        "automountServiceAccountToken: false",
        "checksum/settings: {{ $service.settings | toYaml | sha256sum }}",
        "terminationGracePeriodSeconds: {{ add (dig \"service\" \"drain_s\" 120 ",
    ],
)
def test_deployments_are_locked_down_and_probed(line: str) -> None:
    assert line in TEMPLATES["deployment.yaml"]


def test_image_runs_as_the_user_of_the_chart() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    user = VALUES["podSecurityContext"]
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}" in dockerfile
    assert f"EXPOSE {VALUES['httpPort']}" in dockerfile
    writable = set(re.findall(r"(?:HOME|NUMBA_CACHE_DIR)=(\S+)", dockerfile))
    assert all(path == "/tmp" or path.startswith("/tmp/") for path in writable)
    assert len(re.findall(r"^FROM ", dockerfile, re.MULTILINE)) == 2


def test_image_and_chart_start_the_same_service() -> None:
    (command,) = re.findall(r"^CMD (\[.*\])", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert json.loads(command) == PER_SERVICE["command"]
