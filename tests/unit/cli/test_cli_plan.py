"""`mainspring plan`: says what the controller would do, before it does it, and changes nothing."""

from __future__ import annotations

import asyncio
import json

import pytest
import yaml

from controller.api.meta import Key
from controller.cli.overlay import ReadOnlyKube
from controller.cli.plan import answer
from controller.clients.errors import Denied, Unavailable
from tests.support.cli_session import failed, mainspring, model, put, refused, serving, simulation, snapshot, tell
from tests.support.git_repos import Scratch


def planned(s, manifest=None, **options):
    """Plan the stored ModelSpec, or a file's, in the world of a story."""
    if manifest is not None:
        manifest["metadata"].setdefault("namespace", "default")
        options["from_file"] = True
    wanted = manifest or asyncio.run(s.model())
    return asyncio.run(answer(s.world, wanted, **options))


def test_a_commit_that_was_not_seen_yet_is_trained_gated_and_rolled_out(tmp_path):
    s = tell(tmp_path, serving)
    s.git.commit("More trees", {"quality": b"50"})
    assert planned(s).lines() == [
        "ModelSpec bikes",
        "  + CreateRevision bikes-f68bd5cd56 because NewInputs: commit 949043f: More trees makes bikes-f68bd5cd56",
        "  + StartTraining bikes-f68bd5cd56-train-1 (attempt 1) because NewRevision: "
        "commit 949043f: More trees has no trained model",
        "    then gates: rmse <= 100 · rmse against the champion >= +0",
        "    then canary: 10% → 50% → 100%, 60s each, errors <= 0.01 of the requests",
        "  inputs dd1196040a → f68bd5cd56 (code of commit c506f45 → 949043f): bikes-f68bd5cd56 is trained",
    ]


def test_what_was_planned_is_what_is_done(tmp_path):
    s = tell(tmp_path, serving)
    s.git.commit("More trees", {"quality": b"50"})
    steps = planned(s).steps
    asyncio.run(s.settle())
    assert [step.action for step in steps] == ["CreateRevision", "StartTraining"]
    assert s.jobs_started[-1] == steps[1].what.split()[0]
    assert asyncio.run(s.store.get(Key("ModelRevision", "default", steps[0].what))) is not None


def test_a_model_that_serves_what_git_asks_for_needs_nothing(tmp_path):
    s = tell(tmp_path, serving)
    found = planned(s)
    assert found.lines() == [
        "ModelSpec bikes",
        "  nothing to do: Succeeded: bikes-dd1196040a version 1 of commit c506f45 serves all requests, "
        "as main@sha1:c506f45 asks",
    ]
    assert not found.changes


def test_a_file_with_other_parameters_trains_and_says_which_moved(tmp_path):
    s = tell(tmp_path, serving)
    found = planned(s, model(training={"command": ["python", "train.py"], "params": {"depth": 7}}))
    lines = found.lines()
    assert lines[1] == "  ~ spec: training.params.depth absent → 7"
    assert [step.action for step in found.steps] == ["CreateRevision", "StartTraining"]
    assert lines[-1].startswith("  inputs dd1196040a → ")
    assert lines[-1].endswith(f" (training.params.depth absent → 7): {found.steps[0].what} is trained")


def test_a_file_with_other_gates_judges_stored_evidence_and_trains_nothing(tmp_path):
    s = tell(tmp_path, refused)
    found = planned(s, model(gates=[{"name": "good-enough", "metric": "rmse", "max": 130}]))
    lines = found.lines()
    assert lines[1:3] == ["  ~ spec: gates.good-enough.max 100 → 130", "  ~ spec: gates.not-worse removed"]
    assert [step.action for step in found.steps] == ["RecordVerdict"]
    assert "  = reuse bikes-4b78198ae3, version 2: trained and measured before; nothing is trained" in lines
    assert any(
        line.startswith("  gates d5af7a92a4 → ")
        and line.endswith(": bikes-4b78198ae3 is judged again from its stored evidence; nothing is trained")
        for line in lines
    )
    assert "    good-enough               Passed    rmse 120 <= 130 on 1,729 hold-out rows" in lines
    assert lines[-1] == "  then blocked: GateFailed: by the gates above"


def test_gates_that_would_let_it_through_lead_to_a_canary(tmp_path):
    s = tell(tmp_path, refused)
    loose = {"name": "close", "metric": "rmse", "champion": {"margin": -100, "mode": "Absolute"}}
    found = planned(s, model(gates=[loose]))
    assert [(step.action, step.what) for step in found.steps] == [
        ("RecordVerdict", "Admitted bikes-4b78198ae3 (entry 4)")
    ]
    assert found.then == ("canary: 10% → 50% → 100%, 60s each, errors <= 0.01 of the requests",)


def test_a_refused_commit_is_blocked_by_gates_with_their_numbers(tmp_path):
    found = planned(tell(tmp_path, refused))
    lines = found.lines()
    assert "    good-enough   Failed    rmse 120 > 100 on 1,729 hold-out rows" in lines
    assert lines[-1] == "  blocked: GateFailed: by the gates above"
    assert found.stalled


def test_a_training_that_failed_for_good_is_not_said_to_be_coming(tmp_path):
    found = planned(tell(tmp_path, failed))
    assert not found.changes
    assert found.then == ()
    assert found.moves[0].means == "bikes-d494407cfd was asked for before and could not be trained"
    assert "  blocked: TrainingFailed: bikes-d494407cfd: the training program ended" in "\n".join(found.lines())


def test_a_training_under_way_is_waited_for_and_what_follows_is_told(tmp_path):
    s = tell(tmp_path, serving)
    s.git.commit("More trees", {"quality": b"50"})
    asyncio.run(s.settle())
    lines = planned(s).lines()
    assert lines[1].startswith("  waiting: Training: bikes-f68bd5cd56: attempt 1, ")
    assert lines[2] == "    then gates: rmse <= 100 · rmse against the champion >= +0"
    assert lines[-1].endswith(": bikes-f68bd5cd56 is being trained")


def test_a_new_object_is_planned_before_it_exists(tmp_path):
    s = tell(tmp_path, serving)
    found = planned(s, model("boats"))
    assert found.lines()[1] == "  + the object itself, from the file"
    assert [step.action for step in found.steps] == ["CreateRevision", "StartTraining"]
    assert found.then[1] == "no canary: nothing serves yet, the first that passes gets all requests"
    assert asyncio.run(s.store.get(Key("ModelSpec", "default", "boats"))) is None


def test_an_old_commit_is_reused_without_training_or_canary(tmp_path):
    s = tell(tmp_path, serving)
    old = s.git.commits[0][0].commit
    s.git.commit("More trees", {"quality": b"50"})
    asyncio.run(s.run(240))
    found = planned(s, ref={"commit": old})
    lines = found.lines()
    assert "  = reuse bikes-dd1196040a, version 1: trained and measured before; nothing is trained" in lines
    assert found.then == ("no canary: it was champion before",)
    assert {step.action for step in found.steps} == {"ApplyManifest"}


def test_git_that_is_away_means_that_nothing_can_be_told(tmp_path):
    s = tell(tmp_path, serving)
    s.git.error = Unavailable("the host 'git.example.com' cannot be resolved", reason="GitUnavailable")
    assert planned(s).lines() == [
        "ModelSpec bikes",
        "  cannot tell: GitUnavailable: the host 'git.example.com' cannot be resolved",
    ]


def test_nothing_is_written_by_planning_and_every_write_is_refused(tmp_path):
    s = tell(tmp_path, refused)
    before = snapshot(tmp_path)
    planned(s, model(gates=[]))
    assert snapshot(tmp_path) == before
    kube, key = ReadOnlyKube(s.store), Key("ModelSpec", "default", "bikes")
    for write in (
        kube.apply({**model(), "metadata": {"name": "bikes", "namespace": "default"}}),
        kube.create({**model(), "metadata": {"name": "bikes", "namespace": "default"}}),
        kube.patch_status(key, {}, uid="uid-1"),
        kube.patch_spec(key, {"suspend": True}),
        kube.annotate(key, {"a": "b"}),
        kube.delete(key),
    ):
        with pytest.raises(Denied, match="a plan changes nothing, and was about to write ModelSpec/default/bikes"):
            asyncio.run(write)
    assert snapshot(tmp_path) == before


def test_laid_objects_are_listed_in_place_of_stored_ones(tmp_path):
    s = tell(tmp_path, serving)
    kube = ReadOnlyKube(s.store)
    laid = {**model("boats"), "metadata": {"name": "boats", "namespace": "default", "labels": {"team": "sea"}}}
    kube.lay(laid)
    kube.lay({**asyncio.run(s.model()), "spec": {"laid": True}})
    found = asyncio.run(kube.list("ModelSpec", namespace="default"))
    assert [m["metadata"]["name"] for m in found] == ["bikes", "boats"]
    assert found[0]["spec"] == {"laid": True}
    assert asyncio.run(kube.list("ModelSpec", labels={"team": "sea"})) == (laid,)
    assert asyncio.run(kube.list("ModelSpec", namespace="other")) == ()


# -- the verb itself, on a real repository ------------------------------------------------------------------------


@pytest.fixture
def real(tmp_path):
    """Make a state with one ModelSpec on a real repository; MLflow was never started."""
    repo = Scratch.create(tmp_path / "repos" / "bikes.git")
    repo.commit({"train.py": b"fit()", "quality": b"60", "data.csv": b"1,2"})
    state = tmp_path / "state"
    source = {"url": repo.url, "ref": {"branch": "main"}, "paths": ["train.py", "quality"]}
    put(state, model(source=source))
    (state / "git-roots").write_text(f"{tmp_path / 'repos'}\n")
    return state, repo, source


def test_the_exit_code_says_whether_something_would_change(real):
    state, _, _ = real
    assert mainspring(state, "plan").code == 0
    assert mainspring(state, "plan", "bikes", "--detailed-exitcode").code == 2


def test_the_last_line_promises_that_nothing_was_changed_and_it_holds(real):
    state, _, _ = real
    before = snapshot(state)
    answered = mainspring(state, "plan", "bikes")
    assert answered.lines[0] == "ModelSpec bikes"
    assert answered.lines[1].startswith("  + CreateRevision bikes-")
    assert answered.lines[-1] == "Nothing was changed."
    assert snapshot(state) == before


def test_json_has_actions_hashes_and_what_follows(real):
    state, _, _ = real
    found = json.loads(mainspring(state, "plan", "bikes", "-o", "json").out)
    assert found["changes"] is True
    plan = found["plans"][0]
    assert [a["action"] for a in plan["actions"]] == ["CreateRevision", "StartTraining"]
    assert plan["actions"][0]["reason"] == "NewInputs"
    assert plan["hashes"][0]["hash"] == "inputs"
    assert plan["then"][0] == "gates: rmse <= 100 · rmse against the champion >= +0"


def test_another_branch_tag_or_commit_can_be_planned(real):
    state, repo, _ = real
    other = repo.commit({"train.py": b"fit(2)", "quality": b"50", "data.csv": b"1,2"}, branch="topic")
    repo.tag("v2", other)
    plain = mainspring(state, "plan", "bikes").lines[1]
    planned_ones = [
        mainspring(state, "plan", "bikes", *args).lines[1]
        for args in (["--ref", "topic"], ["--ref", "v2"], ["--ref", "refs/heads/topic"], ["--commit", other])
    ]
    names = {line.split()[2] for line in planned_ones}
    assert len(names) == 1
    assert plain.split()[2] not in names


def test_a_file_that_cannot_be_realised_is_an_error(real, tmp_path):
    state, _, source = real
    file = tmp_path / "bikes.yaml"
    file.write_text(yaml.safe_dump(model(source={**source, "paths": ["trian.py"]})))
    answered = mainspring(state, "plan", "-f", str(file), "--detailed-exitcode")
    assert "PathNotFound: source.paths: trian.py is not in main@sha1:" in answered.out
    assert "the nearest are train.py" in answered.out
    # The file itself would change the object: that is a change, however little it would lead to.
    assert answered.code == 2
    put(state, model(source={**source, "paths": ["trian.py"]}))
    assert mainspring(state, "plan").code == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["bikes", "-f", "x.yaml"], "error: give a NAME or -f FILE, not both\n"),
        (["--commit", "1" * 40, "--ref", "main"], "error: give --commit or --ref, not both\n"),
        (
            ["bikes", "--commit", "HEAD"],
            "error: --commit HEAD: 40 or 64 hex digits are wanted; git rev-parse prints them\n",
        ),
    ],
    ids=["name and file", "commit and ref", "no full commit"],
)
def test_a_wrong_call_is_a_usage_error(args, said, real):
    answered = mainspring(real[0], "plan", *args)
    assert (answered.code, answered.err) == (2, said)


def test_a_repository_is_planned_with_the_objects_of_its_files(real, tmp_path):
    state, repo, source = real
    repo.commit({"models/boats.yaml": yaml.safe_dump(model("boats", source=source)).encode()}, branch="specs")
    put(
        state,
        {
            "apiVersion": "mainspring.dev/v1alpha1",
            "kind": "ModelRepository",
            "metadata": {"name": "team"},
            "spec": {"url": repo.url, "ref": {"branch": "specs"}, "path": "models"},
        },
    )
    lines = mainspring(state, "plan", "mrepo/team").lines
    assert lines[0] == "ModelRepository team"
    assert lines[1].startswith(
        "  + ApplyModelSpec ModelSpec boats because New: ModelSpec boats is in models/boats.yaml"
    )


def test_the_simulated_world_is_not_needed_to_say_that_there_is_nothing(tmp_path):
    simulation(tmp_path).store.close()
    answered = mainspring(tmp_path, "plan")
    assert answered.err == "error: no ModelSpec in namespace default; plan a file with mainspring plan -f FILE\n"
