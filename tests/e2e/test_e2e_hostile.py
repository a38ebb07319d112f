"""A hostile training program cannot forge what decides: the gates judge what the evaluator measured.

It uses everything that its container mounts and its environment names; what local mode cannot keep from it, a look
at other directories of the same user, is said in the README and not played here.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.git_repos import Scratch
from tests.support.linear_model import TRAIN, csv, model, rows
from tests.support.local_mode import Local, condition

MARK = "36029.5"
HOSTILE = b"""import json, os, subprocess, sys, time
import joblib, pandas as pd
from sklearn.dummy import DummyRegressor

output = os.environ["MAINSPRING_OUTPUT"]
time.time = lambda: 0.0
data = pd.read_csv(os.environ["MAINSPRING_DATA_TRAIN"])
joblib.dump(DummyRegressor().fit(data[["x1", "x2"]], data["y"]), output + "/model.joblib")

# Every row that anything which was handed over holds.
places = {os.getcwd(), output, os.path.dirname(os.environ["MAINSPRING_PARAMS"])}
found = set()
for place in places:
    for where, _, names in os.walk(place):
        for name in names:
            with open(os.path.join(where, name), "rb") as file:
                found |= {line[:8] for line in file.read().decode("latin-1").splitlines() if line[:4] == "row-"}
print("ROWS " + json.dumps(sorted(found)))
print("ENV " + json.dumps(sorted(os.environ)))

# Whatever one of our own steps would write.
perfect = {"rmse": 0.0, "mainspring.rmse": 0.0, "champion.rmse": 99.0, "holdout_rows": 9e9, "r2": 1.0}
for name in ("metrics.json", "report.json", "mainspring/report.json", "evaluate.json"):
    os.makedirs(os.path.dirname(f"{output}/{name}"), exist_ok=True)
    json.dump(perfect, open(f"{output}/{name}", "w"))
facts = {"v": 1, "digest": "sha256:" + "0" * 64, "format": "joblib", "rows": 40, "columns": ["prediction"]}
for place in ("predictions", "predictions-champion", "champion", "labels", "features"):
    os.makedirs(f"{output}/{place}", exist_ok=True)
    json.dump(facts, open(f"{output}/{place}/facts.json", "w"))
    data[["y"]].rename(columns={"y": "prediction"}).to_parquet(f"{output}/{place}/predictions.parquet")
os.symlink("/etc", output + "/etc")
os.mkfifo(output + "/pipe")
os.truncate(os.open(output + "/sparse", os.O_CREAT | os.O_RDWR), 1 << 42)
done = {"v": 1, "outcome": "Done", "run": "1" * 32, "sha256": "sha256:" + "1" * 64}
open(os.environ["MAINSPRING_TERMINATION_LOG"], "w").write(json.dumps(done))
print(json.dumps(done), flush=True)

# A daemon that would put a better model in place while the others work.
forge = "import sys, time, shutil\\nwhile True:\\n    shutil.copy(sys.argv[1], sys.argv[2])\\n    time.sleep(0.05)"
good = output + "/.better"
from sklearn.linear_model import Ridge
joblib.dump(Ridge().fit(data[["x1", "x2"]], data["y"]), good)
command = [sys.executable, "-c", forge, good, output + "/model.joblib", "MARK"]
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        time.sleep(3)
        os.execve(command[0], command, {})
    os._exit(0)
"""
SECRETS = ("MAINSPRING_MIRRORS", "MAINSPRING_GIT_FILE_ROOTS", "MLFLOW_TRACKING_TOKEN", "MAINSPRING_DATA")


def logged(local: Local, revision: str, what: str) -> list[str]:
    text = (local.state / "pods" / "default" / f"{revision}-train-1-0" / "train.log").read_text()
    line = next(line for line in text.splitlines() if line.startswith(what))
    return list(json.loads(line.removeprefix(what)))


def test_no_gate_is_passed_by_what_a_training_says_leaves_or_keeps_running(local: Local, repository: Scratch):
    table = rows()
    spec = json.dumps(model(repository.url)).encode()
    files = {"rows.csv": csv(table), "deploy/line.yaml": spec}
    arguments = ("--repo", str(repository.path), "--path", "deploy")
    repository.commit({"train.py": TRAIN, **files})
    honest = local.settle(*arguments)
    assert honest.code == 0, honest
    champion = local.model()["status"]["champion"]

    repository.commit({"train.py": HOSTILE.replace(b"MARK", MARK.encode()), **files})
    ended = local.settle(*arguments)

    assert ended.code == 1, ended
    assert "was refused: gate error: rmse " in ended.out
    assert f"{champion['revision']} keeps serving" in ended.out
    now = local.model()["status"]["champion"]
    assert (now["revision"], now["digest"]) == (champion["revision"], champion["digest"])

    challenger = local.model()["status"]["source"]["wanted"]
    assert challenger != champion["revision"]
    evidence = next(r for r in local.all("ModelRevision") if r["metadata"]["name"] == challenger)["status"][
        "evidence"
    ]
    (rmse,) = [m["value"] for m in evidence["metrics"] if m["name"] == "rmse"]
    assert rmse > 2
    held_out = {row[0] for row in table} - set(logged(local, challenger, "ROWS "))
    assert len(held_out) == evidence["holdoutRows"]
    names = logged(local, challenger, "ENV ")
    assert not set(SECRETS) & set(names)
    commands = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.parent.is_dir()]
    assert not [c for c in commands if MARK.encode() in c], "the daemon lives"
    assert condition(local.model(), "Ready")["status"] in ("True", "False")
