"""The files under deploy/, as far as they can be checked without a container engine or a cluster."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import PROJECT
from service.settings import ServeSettings

DEPLOY = PROJECT / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile.*"))
KINDS = {"base": 6, "ray": 7}


def program(name: str) -> str:
    """The path of a program; skips the test without it."""
    found = shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed; .ci/run says where it comes from")
    return found


def run(*command: str | Path, folder: Path = DEPLOY) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def expressions() -> list[str]:
    """The PromQL of the dashboard."""
    board = json.loads((DEPLOY / "grafana" / "zerotag.json").read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def metric_names() -> set[str]:
    """Every metric that the dashboard or an alert names."""
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
    texts = [*expressions(), *(rule["expr"] for rule in rules)]
    return {name for text in texts for name in re.findall(r"\b(?:zerotag|bentoml)_\w+", text)}


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_dockerfiles(file: Path) -> None:
    text = file.read_text()
    stages = re.findall(r"^FROM (\S+)(?: AS (\w+))?$", text, re.MULTILINE)
    assert [name for _, name in stages] == ["build", ""]
    last = text.rpartition("\nFROM ")[2]
    # By number, as Kubernetes checks that it is not root's.
    assert re.search(r"^USER 1000$", last, re.MULTILINE) and "RUN pip" not in last
    # What is copied is in the context, which .dockerignore keeps small.
    allowed = {line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for name in source.split():
            assert name in allowed and (PROJECT / name).exists(), name
    run(program("hadolint"), file)


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """compose.yaml as Docker Compose reads it."""
    lines = (DEPLOY / "env.example").read_text().replace("=\n", "=secret\n")
    environment = tmp_path_factory.mktemp("compose") / "env"
    environment.write_text(lines)
    command = [program("docker-compose"), "--file", "compose.yaml", "--env-file", str(environment)]
    return json.loads(run(*command, "config", "--format", "json"))


def test_compose(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {
        "postgres", "prefect-server", "prefect-worker", "minio", "minio-bucket", "zerotag", "prometheus", "grafana"
    }  # fmt: skip
    for name, service in services.items():
        # Nothing listens on other addresses than this machine's, and each image has a version.
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", []))
        assert "build" in service or ":" in service["image"], name
        for volume in service.get("volumes", []):
            source = Path(volume["source"])
            assert volume["type"] == "volume" or source.exists() or source.name == "images", source
        if build := service.get("build"):
            assert Path(build["context"]) == PROJECT and (PROJECT / build["dockerfile"]).is_file()
    assert services["prefect-server"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"][0]
    host, port = scraped["static_configs"][0]["targets"][0].split(":")
    assert host in services and port == "3000"


def test_compose_does_not_start_without_passwords(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("POSTGRES_PASSWORD=a\n")
    command = [program("docker-compose"), "--file", "compose.yaml", "--env-file", tmp_path / "env", "config", "--quiet"]
    done = subprocess.run(command, cwd=DEPLOY, capture_output=True, text=True, timeout=60)
    assert done.returncode and "required variable MINIO_PASSWORD is missing" in done.stderr


def objects(overlay: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(run(program("kubectl"), "kustomize", f"kubernetes/{overlay}")))


@pytest.mark.parametrize("overlay", KINDS)
def test_kubernetes(overlay: str, tmp_path: Path) -> None:
    found = objects(overlay)
    assert len(found) == KINDS[overlay]
    pods = [each["spec"]["template"] for each in found if each["kind"] == "Deployment"]
    own = [each for each in found if each["kind"] != "RayCluster"]
    for cluster in (each for each in found if each["kind"] == "RayCluster"):
        # Its resource definition is the operator's; its pods are Kubernetes' own.
        groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
        for number, group in enumerate(groups):
            pods.append(group["template"])
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"ray-{number}"}}
            own.append({**pod, "spec": group["template"]["spec"]})
    claims = {each["metadata"]["name"] for each in found if each["kind"] == "PersistentVolumeClaim"}
    for pod in pods:
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        for container in pod["spec"]["containers"]:
            assert container["image"].startswith("REGISTRY/zerotag-") and container["resources"]["requests"]
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= {volume["name"] for volume in pod["spec"]["volumes"]}
        for volume in pod["spec"]["volumes"]:
            assert volume.get("persistentVolumeClaim", {}).get("claimName", "checkout") in claims
    (tmp_path / "objects.yaml").write_text(yaml.safe_dump_all(own))
    said = run(program("kubernetes-validate"), "--strict", tmp_path / "objects.yaml")
    assert said.count("passed") == len(own), said


def test_the_service_is_selected_and_probed() -> None:
    by_kind = {(each["kind"], each["metadata"]["name"]): each for each in objects("base")}
    template = by_kind["Deployment", "zerotag"]["spec"]["template"]
    selector = by_kind["Service", "zerotag"]["spec"]["selector"]
    assert selector.items() <= template["metadata"]["labels"].items()
    (container,) = template["spec"]["containers"]
    probes = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert probes == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/livez"}  # as tests/test_service.py


def settings_named(text: str) -> Iterator[str]:
    for name in re.findall(r"\bZEROTAG_([A-Z_]+)", text):
        yield name.lower()


def test_settings_exist() -> None:
    known = {*ServeSettings.__dataclass_fields__, "user", "photos"}  # two of env.example's own
    for file in DEPLOY.rglob("*"):
        if file.is_file():
            assert set(settings_named(file.read_text())) <= known, file


def test_alerts() -> None:
    promtool = program("promtool")
    run(promtool, "check", "config", "prometheus/prometheus.yml")
    run(promtool, "test", "rules", "prometheus/alerts.test.yml")
    tested = yaml.safe_load((DEPLOY / "prometheus" / "alerts.test.yml").read_text())["tests"][-1]["alert_rule_test"]
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
    assert {each["alertname"] for each in tested if each["exp_alerts"]} == {rule["alert"] for rule in rules}


def test_the_dashboard_is_valid_promql_and_provisioned(tmp_path: Path, compose: dict[str, Any]) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expr.replace("$__rate_interval", "5m")}
        for number, expr in enumerate(expressions())
    ]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in run(program("promtool"), "check", "rules", tmp_path / "rules.yml")
    board = json.loads((DEPLOY / "grafana" / "zerotag.json").read_text())
    folder = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {source["uid"]}
    assert source["url"] == "http://prometheus:9090" and "prometheus" in compose["services"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "zerotag.yaml").read_text())["providers"]
    mounts = {volume["target"] for volume in compose["services"]["grafana"]["volumes"]}
    assert f"{provider['options']['path']}/zerotag.json" in mounts and "/etc/grafana/provisioning" in mounts
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
