"""The node runs pods as clusters do: Jobs, Deployments behind Services, names, logs, exec; and leaves nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.cluster.build import SOURCES
from tests.cluster.node import Node
from tests.cluster.processes import NotReady, wait_until

SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
HELLO = """
import http.server, os
class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["HOSTNAME"].encode())
http.server.ThreadingHTTPServer(("", 8080), Hello).serve_forever()
"""
# Asks until both replicas have answered; a request that fails fails the pod.
ASK = """
import urllib.request
seen = set()
for _ in range(300):
    seen.add(urllib.request.urlopen("http://hello:80/", timeout=10).read().decode())
    if len(seen) == 2: break
print(*sorted(seen))
"""


def container(name, image, *command, user=None, **more):
    security = SECURITY | ({} if user is None else {"runAsUser": user})
    return {"name": name, "image": image, "command": list(command), "securityContext": security, **more}


def apply(node, place, *objects):
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    file = node.directory / f"{place}.json"
    file.write_text(text)
    node.kubectl("apply", f"--namespace={place}", f"--filename={file}")


def pod(name, *containers, **spec):
    spec = {"containers": list(containers), "restartPolicy": "Never", **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def finished(node: Node, place: str, name: str) -> tuple[int, str]:
    """Wait for the end of a pod's only container; its exit code and what it printed."""

    def ended() -> list[int]:
        status = node.plane.request("GET", f"/api/v1/namespaces/{place}/pods/{name}")["status"]
        states = [each["state"] for each in status.get("containerStatuses", [])]
        return [state["terminated"]["exitCode"] for state in states if "terminated" in state]

    wait_until(ended, f"waiting for pod {name} to end", 120)
    return ended()[0], node.kubectl("logs", f"--namespace={place}", name)


@pytest.fixture
def hello(node, restricted, images):
    """Two replicas behind a Service, both ready."""
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    server = container(
        "hello",
        images["base"],
        *("python3", "-c", HELLO),
        user=1000,
        readinessProbe=probe,
        livenessProbe=probe,
        ports=[{"containerPort": 8080}],
    )
    labels = {"app": "hello"}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "hello"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [server]}},
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "hello"},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    apply(node, restricted, deployment, service)
    node.kubectl(
        "rollout", "status", "deployment/hello", f"--namespace={restricted}", "--timeout=120s", seconds=150
    )
    return restricted


def test_a_restricted_job_runs_its_steps_in_turn_to_completion(node, restricted, images):
    shared = {"name": "shared", "emptyDir": {}}
    mount = [{"name": "shared", "mountPath": "/shared"}]
    first = container(
        "first", images["base"], "sh", "-c", "echo written > /shared/note", user=1000, volumeMounts=mount
    )
    main = container("main", images["base"], "sh", "-c", "cat /shared/note; id -u", user=1000, volumeMounts=mount)
    template = {
        "spec": {
            "restartPolicy": "Never",
            "initContainers": [first],
            "containers": [main],
            "volumes": [shared],
            "securityContext": {"fsGroup": 1000},
        }
    }
    metadata = {"name": "steps"}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template}}
    apply(node, restricted, job)
    node.kubectl(
        "wait", "--for=condition=Complete", "job/steps", f"--namespace={restricted}", "--timeout=120s", seconds=150
    )
    assert node.kubectl("logs", "job/steps", f"--namespace={restricted}").split() == ["written", "1000"]


def test_a_pod_that_is_not_restricted_is_refused(node, restricted, images):
    with pytest.raises(NotReady, match="violates PodSecurity"):
        apply(node, restricted, pod("careless", {"name": "main", "image": images["base"]}))


def test_a_service_answers_by_name_with_every_replica(node, hello, images):
    apply(node, hello, pod("client", container("main", images["base"], "python3", "-c", ASK, user=1000)))
    code, said = finished(node, hello, "client")
    replicas = node.plane.request("GET", f"/api/v1/namespaces/{hello}/pods?labelSelector=app=hello")["items"]
    assert (code, said.split()) == (0, sorted(replica["metadata"]["name"] for replica in replicas))


def test_a_service_answers_the_machine_at_its_address(node, hello):
    address = node.plane.request("GET", f"/api/v1/namespaces/{hello}/services/hello")["spec"]["clusterIP"]
    assert httpx.get(f"http://{address}/", timeout=10).text.startswith("hello-")


def test_commands_run_in_containers(node, hello):
    said = node.kubectl("exec", f"--namespace={hello}", "deployment/hello", "--", "sh", "-c", "echo user $(id -u)")
    assert said == "user 1000\n"


@pytest.mark.parametrize(
    ("target", "command", "code", "says"),
    [
        ("operator", ["python", "-m", "controller.reconcile"], 2, "MAINSPRING_TRACKING_URI is not set"),
        ("operator", ["mainspring", "--version"], 0, "mainspring "),
        ("jobs", ["mainspring", "--version"], 0, "mainspring "),
        (
            "jobs",
            ["python", "-c", "import mlflow, pandas, sklearn.linear_model; print('imported')"],
            0,
            "imported",
        ),
        ("server", ["python", "-m", "controller.serving.server", "--help"], 0, "usage: controller.serving.server"),
        (
            "server",
            ["python", "-c", "import lightgbm, onnxruntime, xgboost, skops.io; print('imported')"],
            0,
            "imported",
        ),
    ],
    ids=[
        "the operator tells which setting is missing",
        "the operator's image has the command line",
        "the jobs' image has the command line",
        "the jobs' image has what training programs import by default",
        "the server's image starts the server",
        "the server's image reads every format",
    ],
)
def test_images_start_as_nobody_on_a_root_that_cannot_be_written(
    node, restricted, images, target, command, code, says
):
    scratch = {"volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}
    main = container("main", images[target], *command, **scratch)
    apply(node, restricted, pod("main", main, volumes=[{"name": "tmp", "emptyDir": {}}]))
    ended, said = finished(node, restricted, "main")
    assert says in said
    assert ended == code


LOOK = """
id -u; id -g
touch /opt/mainspring/here 2>/dev/null && echo 'could write'
python -m pip --version >/dev/null 2>&1 && echo 'has pip'
python3 -m ensurepip --version >/dev/null 2>&1 && echo 'has ensurepip'
for program in pip pip3 uv gcc cc make; do command -v $program; done
find / -xdev -perm /4000 -type f -user 65532 2>/dev/null
find /tmp /etc/pip.conf /etc/uv -mindepth 1 -not -empty 2>/dev/null
exit 0
"""


@pytest.mark.parametrize("target", ["operator", "jobs", "server"])
def test_images_hold_nothing_that_builds_or_installs(node, restricted, images, target):
    apply(node, restricted, pod("main", container("main", images[target], "sh", "-c", LOOK)))
    assert finished(node, restricted, "main") == (0, "65532\n65532\n")


KILLED = """
import pathlib, sys
from tests.cluster.node import Node
node = Node.start(pathlib.Path(sys.argv[1]))
print(node.sandbox.number, flush=True)
sys.stdin.read()
"""


def test_a_killed_run_leaves_nothing_that_a_second_start_would_meet(tmp_path):
    root = SOURCES.parent.parent
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed")]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        number = int(run.stdout.readline())
        run.send_signal(signal.SIGKILL)
    device = Path(f"/sys/class/net/mainspring{number}")
    wait_until(lambda: not device.exists(), "waiting for the devices of the killed node", 30)
    second = Node.start(tmp_path / "second")
    try:
        assert second.sandbox.number == number
        assert "mainspring.test/pause:1" in second.images()
    finally:
        second.stop()
    assert not device.exists()
    assert not list(Path("/sys/fs/cgroup").rglob(f"mainspring-{number}"))
    assert f"{tmp_path}/" not in Path("/proc/self/mountinfo").read_text()
