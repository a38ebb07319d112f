"""A day with one model: what the verbs answer while it serves, is refused, is suspended, and is tampered with.

The tests build on each other, in order: they share one `mainspring up`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controller.clients.signing import Signer, Verifier
from tests.support.git_repos import Scratch
from tests.support.linear_model import TRAIN, csv, model, rows
from tests.support.local_mode import Answer, Local, condition

ROWS = rows()
ROW = '{"x1": 2.0, "x2": 1.0}'
CHECKS = [
    {"name": "x1-complete", "column": "x1", "maxNullFraction": 0.01},
    {"name": "x2-range", "column": "x2", "min": 0, "max": 10},
]
GATES = [
    {"name": "error", "metric": "rmse", "max": 2},
    {"name": "not-worse", "metric": "rmse", "champion": {"margin": -0.5, "mode": "Absolute"}},
]


class Day:
    """The running system, its repository, and the commits so far."""

    def __init__(self, local: Local, repository: Scratch) -> None:
        self.local, self.repository = local, repository
        self.commits: list[str] = []
        self.files: dict[str, bytes | tuple[str, bytes]] = {"train.py": TRAIN, "rows.csv": csv(ROWS)}

    def commit(self, subject: str, *, gates=GATES, checks=CHECKS, **files: bytes) -> str:
        """Commit the files of before with these changes."""
        self.files |= {name.replace("_", "."): content for name, content in files.items()}
        manifest = model(self.repository.url, gates=gates, checks=checks)
        self.files["deploy/line.yaml"] = json.dumps(manifest).encode()
        self.commits.append(self.repository.commit(dict(self.files), message=subject))
        return self.commits[-1]

    def ask(self, *verb: str) -> Answer:
        """Run a verb that must succeed."""
        answer = self.local.run(*verb)
        assert answer.code == 0, answer
        return answer

    def predict(self) -> dict:
        """Ask the model; it must answer."""
        found: dict = json.loads(self.ask("predict", "line", "--row", ROW, "-o", "json").out)
        return found

    @property
    def status(self) -> dict:
        """Status of the ModelSpec."""
        found: dict = self.local.model()["status"]
        return found


@pytest.fixture(scope="module")
def day(shared: Local, shared_repository: Scratch) -> Day:
    made = Day(shared, shared_repository)
    commit = made.commit("Fit a line")
    shared.start("--repo", str(shared_repository.path), "--path", "deploy", "--interval", "1s")
    shared.until_condition("Succeeded", commit=commit)
    return made


def test_predict_answers_and_names_who_did(day: Day):
    champion = day.status["champion"]

    text, found = day.ask("predict", "line", "--row", ROW).out, day.predict()

    assert champion["revision"] in text
    assert champion["commit"][:7] in text
    assert found["predictions"] == pytest.approx([4.0], abs=1.0)
    assert (found["revision"], found["commit"]) == (champion["revision"], champion["commit"])


def test_the_four_questions_are_answered(day: Day):
    champion, commit = day.status["champion"], day.commits[0]
    blob = day.repository.git("rev-parse", f"{commit}:rows.csv")

    text = day.ask("explain", "modelspec/line").out

    assert champion["revision"] in text, "what is served"
    assert commit[:7] in text, "from which commit"
    assert blob[:10] in text, "on which data"
    assert "error" in text, "why it was let through"
    assert "rmse" in text, "why it was let through"
    answer = json.loads(day.ask("get", "modelspec/line", "-o", "json").out)["status"]["champion"]
    assert (answer["commit"], answer["data"]) == (commit, [{"name": "train", "digest": f"gitblob:{blob}"}])
    assert (answer["gates"], answer["weight"]) == ("3/3", 100)
    assert champion["revision"] in day.ask("get", "modelspec").out
    history = day.ask("history", "line").out
    assert history.index("Admitted") > -1
    assert history.index("Promoted") > -1
    assert "fitted 1" in day.ask("logs", f"modelrevision/{champion['revision']}", "--step", "train").out


def test_a_signed_statement_in_mlflow_says_where_the_served_model_comes_from(day: Day):
    revision = next(r for r in day.local.all("ModelRevision"))
    evidence, commit = revision["status"]["evidence"], day.commits[0]
    run = day.status["champion"]["evidence"].removeprefix("mlflow:/").partition("/")[0]
    envelope = artifact(day, run, "mainspring/lineage.json").read_bytes()
    key = Signer.load_or_create(day.local.data / "signing-key.pem")

    opened = Verifier([key.public]).open(envelope, "application/vnd.in-toto+json")

    said = json.loads(opened.payload)
    assert said["subject"][0]["digest"]["sha256"] == day.status["champion"]["digest"].removeprefix("sha256:")
    chosen = said["predicate"]["buildDefinition"]
    assert chosen["externalParameters"]["source"]["commit"] == commit
    assert chosen["externalParameters"]["params"] == {"alpha": 1.0, "use": ["x1", "x2"]}
    assert chosen["externalParameters"]["seed"] == 42
    by_name = {d["name"]: d["digest"] for d in chosen["resolvedDependencies"]}
    assert by_name["source"] == {"gitCommit": commit}
    assert by_name["data/train"] == {"gitBlob": day.repository.git("rev-parse", f"{commit}:rows.csv")}
    record = next(v for k, v in said["predicate"].items() if k not in ("buildDefinition", "runDetails"))
    verdicts = [(v["gate"], v["outcome"]) for v in record["verdicts"]]
    assert verdicts == [("error", "Passed"), ("not-worse", "Passed"), ("data-checks", "Passed")]
    measured = {m["name"]: m.get("value") for m in evidence["metrics"]}
    assert record["evidence"]["metrics"]["rmse"]["value"] == measured["rmse"]
    assert record["evidence"]["holdout"]["digest"] == evidence["holdout"]


def test_no_holdout_row_is_anywhere_in_what_the_training_saw(day: Day):
    pod = next(p for p in (day.local.state / "pods" / "default").iterdir() if "-train-" in p.name)
    own = (pod / "volumes" / "work" / "rows.csv").read_text()
    held_out = [row for row in ROWS if row[0] not in own]
    assert len(held_out) == next(r for r in day.local.all("ModelRevision"))["status"]["evidence"]["holdoutRows"]
    assert 20 < len(held_out) < 60

    seen = [pod / "volumes" / v for v in ("work", "data", "inputs", "output")]
    files = [f for volume in seen for f in volume.rglob("*") if f.is_file()]
    files += [f for f in (pod / "scratch" / "train").rglob("*") if f.is_file()] + list(pod.glob("train*"))

    for file in files:
        content = file.read_bytes()
        assert not [row for row in held_out if any(part.encode() in content for part in row)], file


def test_plan_says_whether_anything_would_change(day: Day):
    calm = day.local.run("plan", "modelspec/line", "--detailed-exitcode")
    assert calm.code == 0, calm

    changed = model(day.repository.url, training={"command": ["python", "train.py"], "params": {"alpha": 2.0}})
    planned = day.local.run("plan", "-f", "-", "--detailed-exitcode", stdin=json.dumps(changed))

    assert planned.code == 2, planned
    assert "train" in planned.out
    assert len(day.local.all("ModelRevision")) == 1, "a plan changes nothing"


def test_bad_data_is_refused_with_numbers_and_not_tried_again(day: Day):
    serving = day.status["champion"]
    spoiled = [(i, "" if n % 4 == 0 else a, "11.5" if n == 7 else b, y) for n, (i, a, b, y) in enumerate(ROWS)]

    commit = day.commit("Take the export of today", rows_csv=csv(spoiled))
    found = day.local.until_condition("DataInvalid", commit=commit, type_="DataValid")

    said = condition(found, "DataValid")
    assert said["status"] == "False"
    assert "x1-complete" in said["message"]
    assert "25" in said["message"], "50 of 200 values are missing"
    assert "x2-range" in said["message"]
    assert "11.5" in said["message"]
    assert condition(found, "Stalled")["reason"] == "DataInvalid"
    assert len(day.local.jobs(found["status"]["source"]["wanted"])) == 1
    assert found["status"]["champion"]["digest"] == serving["digest"]
    assert day.predict()["revision"] == serving["revision"]


def test_a_comparison_that_cannot_be_sure_says_how_many_rows_would_decide(day: Day):
    serving = day.status["champion"]
    sure = [{"name": "better", "metric": "rmse", "champion": {"margin": 0.0, "confidence": 0.95}}]

    commit = day.commit(
        "Be sure",
        gates=sure,
        rows_csv=csv(ROWS),
        train_py=TRAIN.replace(b"fit(data", b"fit(data.head(60)").replace(b'data["y"]', b'data.head(60)["y"]'),
    )
    found = day.local.until_condition("GateInconclusive", commit=commit)

    assert condition(found, "Stalled")["reason"] == "GateInconclusive"
    assert "rows would decide" in condition(found, "Ready")["message"]
    assert found["status"]["champion"]["digest"] == serving["digest"]


def test_suspend_holds_everything_and_resume_goes_on(day: Day):
    serving = day.status["champion"]
    day.ask("suspend", "modelrepository/models")
    day.ask("suspend", "modelspec/line")
    day.local.until_condition("Suspended")
    commit = day.commit("A little more", train_py=TRAIN.replace(b"1.0", b"1.5"))

    day.ask("reconcile", "modelspec/line", "--wait")

    assert len(day.local.jobs()) == 3
    assert day.predict()["revision"] == serving["revision"]
    day.ask("resume", "modelrepository/models")
    day.ask("resume", "modelspec/line")
    found = day.local.until_condition("Succeeded", commit=commit)
    assert found["status"]["champion"]["commit"] == commit
    assert day.predict()["commit"] == commit


def test_one_flipped_byte_in_the_stored_model_is_never_served(day: Day):
    champion = day.status["champion"]
    run = champion["evidence"].removeprefix("mlflow:/").partition("/")[0]
    stored = artifact(day, run, "model.joblib")
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 1
    stored.write_bytes(bytes(content))
    assert day.predict()["revision"] == champion["revision"], "what was loaded before is sound"

    database_delete(day, "Deployment")
    found = day.local.until(
        "the new server to refuse",
        lambda: "ArtifactTampered" in json.dumps(day.status["conditions"]) and day.status,
    )

    assert found["champion"]["digest"] == champion["digest"]
    assert "ArtifactTampered" in day.ask("explain", "modelspec/line").out
    content[len(content) // 2] ^= 1
    stored.write_bytes(bytes(content))
    day.local.until_condition("Succeeded")
    assert day.predict()["revision"] == champion["revision"]


def artifact(day: Day, run: str, name: str) -> Path:
    """Find a file of a run where MLflow keeps it."""
    found = [p for p in (day.local.data / "mlflow" / "artifacts").rglob(Path(name).name) if run in str(p)]
    assert len(found) == 1, found
    return found[0]


def database_delete(day: Day, kind: str) -> None:
    """Delete all objects of a kind, as a person would who wants them made anew."""
    import asyncio

    from controller.api.meta import key_of
    from controller.local.store import Store

    store = Store.open(day.local.state / "objects.db")
    try:
        for manifest in asyncio.run(store.list(kind)):
            asyncio.run(store.delete(key_of(manifest)))
    finally:
        store.close()
