"""The commands as a person starts them: plans out, one clear line for every fault, the right exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.optimizer.dumps import pending, write_dump
from benchmarks.optimizer.machines import machines_csv, table
from benchmarks.optimizer.shapes import of_shapes
from planner.cli import main
from planner.cloud.tables import catalogue, read_machines
from planner.kube.reader import read_dump
from planner.kube.record import decode_record
from planner.model.forecast import Forecast
from planner.model.inputs import PlanningInputs
from planner.model.plan_json import encode_plan
from planner.model.resources import Resources
from planner.planning import make_plan
from planner.settings import Settings
from tests.kube.server import Answer, Server, kubeconfig
from tests.test_usage import FakePrometheus, matrix, measured, serving

DATA = Path(__file__).parent / "data"
ROOT = Path(__file__).parent.parent
DUMP, MACHINES = str(DATA / "cluster.json"), str(DATA / "machines.csv")
INPUTS = ("--cluster", DUMP, "--machines", MACHINES)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [*os.environ]:
        if name.startswith(("KINEMA_", "KUBE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def run(*arguments: str, stdin: bytes | None = None, program: str = "-m") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, program, "planner", *arguments], input=stdin, capture_output=True, timeout=120, cwd=ROOT
    )


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """Run a command that fails; return its one line on standard error, without the program's name."""
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("kinema: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err.removeprefix("kinema: ").rstrip("\n")


PROGRESS = re.compile(r"kinema: \d+\.\d s: best plan \d+\.\d{4} \$/h, (no bound yet|bound .+ \$/h, gap .+%)")


def assert_only_progress(complaints: bytes) -> None:
    lines = complaints.decode().splitlines()
    assert lines
    assert all(PROGRESS.fullmatch(line) for line in lines), lines


@pytest.fixture(scope="module")
def plan() -> bytes:
    done = run("plan", *INPUTS, "--output", "json")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def adjusted() -> bytes:
    """Return a plan that halves the requests of web by a roll-out, as the loop makes it from a forecast."""
    snapshot = read_dump(Path(DUMP).read_bytes(), DUMP)
    offers = catalogue(read_machines(MACHINES), None, snapshot)
    forecast = Forecast({"shop/Deployment/web": {"main": Resources(250, 256 * 1024**2)}})
    given = PlanningInputs(snapshot, offers, "i1", forecast=forecast)
    return encode_plan(make_plan(given, Settings(), lambda _: None))


def changed(plan: bytes, tmp_path: Path, path: str, value: object) -> str:
    """Write a copy of the plan with another value at a path such as "nodes.0.state"; return its name."""
    document = json.loads(plan)
    place: Any = document
    *steps, last = path.split(".")
    for step in steps:
        place = place[int(step)] if isinstance(place, list) else place[step]
    assert place[last] != value
    place[last] = value
    target = tmp_path / "changed.json"
    target.write_text(json.dumps(document))
    return str(target)


class TestPlan:
    def test_a_badly_packed_cluster_is_planned_on_one_node(self, plan: bytes) -> None:
        found = json.loads(plan)
        # Three m4 at 0.134; four pods of 500m and the agent's 100m take 2100m: too much for an m2, little for one m4.
        assert found["current_cost_usd_per_hour"] == 0.402
        assert found["cost_usd_per_hour"] == 0.134
        (kept,) = [n for n in found["nodes"] if n["state"] != "remove"]
        assert (kept["name"], kept["pods"]) == ("node-1", {"shop/Deployment/web": 4})
        objective = found["objective"]
        # 2 moves x 0.001 / 24 h; 2 removed nodes x 0.134 x 0.25 h / 24 h, each rounded down to nanodollars
        assert objective["terms"] == {"nodes": 0.134, "moves": 0.000083333, "boots": 0.002791666, "preferences": 0}
        assert objective["value"] == 0.136874999
        assert 0 < objective["lower_bound"] <= objective["value"]
        assert found["workloads"]["shop/Deployment/web"]["moves"] == 2
        assert found["timings_seconds"]["read"] >= 0

    def test_the_iteration_follows_from_the_inputs_and_is_a_label_value(self, plan: bytes, tmp_path: Path) -> None:
        iteration = json.loads(plan)["iteration"]
        assert iteration.isalnum()
        assert len(iteration) <= 63
        again = run("plan", "--cluster", "-", "--machines", MACHINES, "--output", "json", stdin=Path(DUMP).read_bytes())
        assert json.loads(again.stdout)["iteration"] == iteration
        dearer = tmp_path / "machines.csv"
        dearer.write_text(Path(MACHINES).read_text().replace("0.134", "0.135"))
        other = run("plan", "--cluster", DUMP, "--machines", str(dearer), "--output", "json")
        assert json.loads(other.stdout)["iteration"] != iteration

    def test_the_order_of_the_dump_changes_nothing(self, plan: bytes) -> None:
        document = json.loads(Path(DUMP).read_bytes())
        document["items"].reverse()
        turned = json.dumps(document).encode()
        again = run("plan", "--cluster", "-", "--machines", MACHINES, "--output", "json", stdin=turned)
        one, other = json.loads(plan), json.loads(again.stdout)
        del one["timings_seconds"], other["timings_seconds"]
        assert one == other

    def test_people_get_a_table(self) -> None:
        done = run("plan", *INPUTS)
        text = done.stdout.decode()
        assert done.returncode == 0
        for part in ("0.4020", "0.1340 (-66.7%)", "proven lower bound", "gap", "pods moved", "remove"):
            assert part in text

    def test_what_stays_is_told_with_its_reason(self, tmp_path: Path) -> None:
        document = json.loads(Path(DUMP).read_bytes())
        for item in document["items"]:
            if item["kind"] == "Pod" and item["metadata"]["name"] == "web-6d5f-3":
                item["metadata"]["annotations"] = {"kinema.io/do-not-disrupt": "true"}
            if item["kind"] == "Node" and item["metadata"]["name"] == "node-2":
                item["metadata"]["labels"]["node.kubernetes.io/instance-type"] = "exotic"
        cluster = tmp_path / "cluster.json"
        cluster.write_text(json.dumps(document))
        text = run("plan", "--cluster", str(cluster), "--machines", MACHINES).stdout.decode()
        assert 'is annotated kinema.io/do-not-disrupt: "true"' in text
        assert "shop/web-6d5f-3" in text
        assert "has the machine type 'exotic' (on-demand), which has no price" in text

    def test_pools_bound_the_plan(self, tmp_path: Path) -> None:
        pools = tmp_path / "pools.yaml"
        pools.write_text("[{name: other, machineType: m4}]")
        done = run("plan", *INPUTS, "--pools", str(pools), "--output", "json")
        # No node belongs to the pool, so none may be touched.
        assert {n["state"] for n in json.loads(done.stdout)["nodes"]} == {"keep"}

    def test_limits_beside_the_pools_and_of_the_settings_bound_the_plan(self, tmp_path: Path) -> None:
        pools, settings, path = tmp_path / "pools.yaml", tmp_path / "settings.yaml", tmp_path / "plan.json"
        pools.write_text("{pools: [{name: other, machineType: m4}], limits: {cpu: 100}, spot: {maxShare: 0.5}}")
        settings.write_text("{limits: {cpu: 50, nodes: 9}, move: {max_nodes_changed: 4}}")
        files = ["--pools", str(pools), "--settings", str(settings)]
        done = run("plan", *INPUTS, *files, "--output", "json")
        path.write_bytes(done.stdout)
        rows = {(r["kind"], r["scope"]) for r in json.loads(done.stdout)["certificate"]["rows"]}
        assert ("total-maximum", "nodes") in rows
        assert ("total-maximum", "cpu_millicores") in rows
        assert {kind for kind, _ in rows} >= {"spot-share", "nodes-changed"}
        assert run("verify", str(path), *INPUTS, *files).stdout.startswith(b"right: ")
        # By other settings the inputs know of no ceiling on change.
        other = run("verify", str(path), *INPUTS, "--pools", str(pools))
        assert (other.returncode, b"nodes-changed nodes: the inputs have no such constraint" in other.stdout) == (
            1,
            True,
        )

    def test_built_in_prices_need_no_table(self) -> None:
        done = run("plan", "--cluster", DUMP, "--cloud", "gcp", "--region", "us-central1", "--output", "json")
        # m4 is none of Google's machine types: its nodes have no price and stay.
        assert {n["price_usd_per_hour"] for n in json.loads(done.stdout)["nodes"] if n["state"] == "keep"} == {None}

    def test_a_reader_that_has_seen_enough_is_no_error(self, plan: bytes) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [sys.executable, "-m", "planner", "plan", *INPUTS, "--output", "json"],
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=120,
            cwd=ROOT,
        )
        os.close(writing)
        assert done.returncode == 0
        assert_only_progress(done.stderr)

    def test_progress_is_told_on_standard_error_and_no_word_of_it_on_standard_output(self) -> None:
        done = run("plan", *INPUTS, "--output", "json")
        assert_only_progress(done.stderr)
        assert json.loads(done.stdout)["kind"] == "Plan"


def start_long_plan(folder: Path) -> subprocess.Popen[bytes]:
    """Start to plan 1,000 pods of 100 shapes, which takes far more than a test may, and wait for its first plan."""
    offers = table("e2", "n2")
    write_dump(folder / "cluster.json", pending(of_shapes(1000, 100, seed=1)))
    (folder / "machines.csv").write_text(machines_csv(offers))
    # A shell's background job, as this test may be one, ignores interrupts, and its children inherit that.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from planner.cli import main; sys.exit(main())"
    )
    files = ("--cluster", str(folder / "cluster.json"), "--machines", str(folder / "machines.csv"))
    planner = subprocess.Popen(
        [sys.executable, "-c", code, "plan", *files, "--time-limit", "100", "--output", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    assert planner.stderr is not None
    assert b"best plan" in planner.stderr.readline()
    return planner


class TestInterrupts:
    def test_the_first_one_returns_the_best_plan_so_far_with_its_true_gap(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        planner = start_long_plan(tmp_path)
        planner.send_signal(signal.SIGINT)
        printed, complaints = planner.communicate(timeout=60)
        assert planner.returncode == 0
        objective = json.loads(printed)["objective"]
        assert complaints.decode().endswith(
            f"kinema: interrupted: this is the best plan so far, {objective['relative_gap']:.2%} from its lower bound\n"
        )
        assert 0 < objective["lower_bound"] < objective["value"]
        (tmp_path / "plan.json").write_bytes(printed)
        files = ("--cluster", f"{tmp_path}/cluster.json", "--machines", f"{tmp_path}/machines.csv")
        # The knapsacks of a bound that was cut short are hard; what is right or wrong of the plan shows before them.
        assert main(("verify", str(tmp_path / "plan.json"), *files, "--time-limit", "5")) in (0, 3)
        assert "wrong" not in capsys.readouterr().out

    def test_the_second_one_ends_at_once_without_a_plan(self, tmp_path: Path) -> None:
        planner = start_long_plan(tmp_path)
        # Two that come at once are one; the second needs the first to have been heard of.
        planner.send_signal(signal.SIGINT)
        time.sleep(0.05)
        planner.send_signal(signal.SIGINT)
        printed, _ = planner.communicate(timeout=60)
        assert (planner.returncode, printed) == (130, b"")


class TestObjective:
    """Four pods of web, 500m of CPU each, on three m4 of 3920m; the agent of each node requests 100m."""

    @pytest.fixture
    def files(self, tmp_path: Path) -> tuple[str, ...]:
        settings, usage = tmp_path / "settings.yaml", tmp_path / "usage.csv"
        settings.write_text(
            "objective: {windows: [{name: office, when: Mon-Fri 06:30-20:30 Europe/Berlin, cpu_utilization_cap: 0.4}]}"
        )
        usage.write_text("workload,cpu_millicores\nshop/Deployment/web,450\n")
        return "--settings", str(settings), "--usage", str(usage)

    def test_a_window_is_tried_by_its_name_or_at_a_time(self, files: tuple[str, ...]) -> None:
        by_name = json.loads(run("plan", *INPUTS, *files, "--objective", "office", "--output", "json").stdout)
        assert by_name["objective"]["name"] == "cost under cpu utilization <= 0.4"
        assert by_name["objective"]["cpu_utilization"] == {
            "cap": 0.4,
            "window": "office",
            "predicted_cpu_millicores": {"kube-system/DaemonSet/agent": 100, "shop/Deployment/web": 450},
            "above_cap_millicores": {},
        }
        # 0.4 x 3920 = 1568: the agent and three pods take 1450; the fourth gets an m2.
        stay = [n for n in by_name["nodes"] if n["state"] != "remove"]
        uses = {n["machine_type"]: n["predicted_cpu_millicores"] for n in stay}
        assert uses == {"m4": 1450, "m2": 550}
        by_time = run("plan", *INPUTS, *files, "--at", "2026-11-24T09:00+01:00", "--output", "json").stdout
        assert json.loads(by_time)["iteration"] == by_name["iteration"]

    def test_outside_of_all_windows_the_objective_is_cost(self, files: tuple[str, ...], plan: bytes) -> None:
        for choice in (("--at", "2026-11-24T20:30+01:00"), ("--objective", "cost")):
            found = json.loads(run("plan", *INPUTS, *files, *choice, "--output", "json").stdout)
            assert found["objective"]["name"] == "cost"
            assert found["iteration"] == json.loads(plan)["iteration"]

    def test_people_see_objective_window_and_use(self, files: tuple[str, ...]) -> None:
        text = run("plan", *INPUTS, *files, "--objective", "office").stdout.decode()
        assert "objective (cost under cpu utilization <= 0.4, window office), $/h" in text
        # Before, one node has two pods and the agent: 1000 of 3920; after, 1450.
        assert re.search(r"highest predicted CPU of a node .* 25.5% .* 37.0%", text)

    def test_a_plan_is_verified_by_its_own_cap_or_by_that_of_the_arguments(
        self, files: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "plan.json"
        path.write_bytes(run("plan", *INPUTS, *files, "--objective", "office", "--output", "json").stdout)
        assert main(("verify", str(path), *INPUTS)) == 0
        assert main(("verify", str(path), *INPUTS, *files, "--objective", "office")) == 0
        assert capsys.readouterr().out.count("right: the plan costs") == 2
        assert main(("verify", str(path), *INPUTS, *files, "--objective", "cost")) == 1
        assert "wrong: the plan has a cap on predicted CPU\n" in capsys.readouterr().out
        usage = Path(files[3])
        usage.write_text(usage.read_text().replace("450", "540"))
        assert main(("verify", str(path), *INPUTS, *files)) == 1
        out = capsys.readouterr().out
        assert "workload shop/Deployment/web: a pod uses 450 millicores by the plan, 540 by the inputs" in out

    def test_nodes_that_stay_above_the_cap_are_told(self, files: tuple[str, ...], tmp_path: Path) -> None:
        usage, machines = Path(files[3]), tmp_path / "machines.csv"
        usage.write_text(usage.read_text().replace("450", "2000"))
        machines.write_text("".join(Path(MACHINES).read_text().splitlines(keepends=True)[:3]))  # without m8
        given = ("--cluster", DUMP, "--machines", str(machines), *files, "--objective", "office")
        # 2 CPU are more than 0.4 of an m4: pods stay where they are.
        assert "Nodes that stay above the cap on predicted CPU" in run("plan", *given).stdout.decode()
        path = tmp_path / "plan.json"
        path.write_bytes(run("plan", *given, "--output", "json").stdout)
        done = run("verify", str(path), *given)
        assert done.stdout.decode().rstrip().endswith("; 3 nodes stay above its cap")

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (("--objective", "night"), "--objective must be one of cost, office, not 'night'"),
            (("--objective", "cost", "--at", "2026-11-24T09:00Z"), "give --objective or --at, not both"),
            (("--at", "9:00"), "argument --at: must be a time with its offset such as 2026-11-24T09:00+01:00, not"),
            (("--at", "2026-11-24T09:00"), "argument --at: must be a time with its offset such as"),
            (("--usage", "/nowhere.csv"), "/nowhere.csv: cannot be read: No such file or directory"),
        ],
    )
    def test_a_wrong_choice_is_refused(
        self, files: tuple[str, ...], arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert refusal(capsys, "plan", *INPUTS, *files, *arguments).startswith(says)


class TestVerify:
    def test_a_right_plan_is_right(self, plan: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "plan.json"
        path.write_bytes(plan)
        assert main(("verify", str(path), *INPUTS)) == 0
        assert capsys.readouterr().out.startswith("right: the plan costs 0.136874999 $/h")

    def test_the_plan_may_come_from_standard_input(self, plan: bytes) -> None:
        assert run("verify", "-", *INPUTS, stdin=plan).returncode == 0

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("nodes.0.pods", {"shop/Deployment/web": 3}),
            ("nodes.0.price_usd_per_hour", 0.067),
            ("nodes.0.state", "remove"),
            ("nodes.0.allocatable", {"cpu_millicores": 99999, "memory_bytes": 2**40, "pods": 110}),
            ("objective.lower_bound", 0.1369),  # above the value
            ("objective.value", 0.1),
            ("objective.relative_gap", 0),
            ("objective.relative_gap", None),
            ("objective.relative_gap", 10**400),
            ("objective.payback_hours", 0),
            ("objective.move_cost_usd", -0.001),
            ("objective.boot_overlap_minutes", -15),
            ("objective.preference_usd_per_hour", -0.00001),
            ("objective.preference_ceiling_usd_per_hour", -0.001),
            ("current_cost_usd_per_hour", 0.5),
        ],
    )
    def test_a_planted_fault_is_found(
        self, plan: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str, value: object
    ) -> None:
        assert main(("verify", changed(plan, tmp_path, path, value), *INPUTS)) == 1
        out = capsys.readouterr().out
        assert out
        assert all(line.startswith("wrong: ") for line in out.splitlines())

    def test_a_plan_that_changes_requests_is_right(
        self, adjusted: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "plan.json"
        path.write_bytes(adjusted)
        assert main(("verify", str(path), *INPUTS)) == 0, capsys.readouterr().out
        # 4 x 250 and the agent's 100 fit an m2 of 1930.
        assert json.loads(adjusted)["cost_usd_per_hour"] == 0.067

    @pytest.mark.parametrize(
        ("path", "value", "says"),
        [
            ("containers", {}, "its planned requests are not its requests before with the change of its containers"),
            ("containers.main.cpu_millicores", 200, "its planned requests are not its requests before"),
            ("containers.main.cpu_millicores", 0, "of the container main: cpu_millicores must be above 0"),
            ("requests.cpu_millicores", 260, "its planned requests are not its requests before"),
            ("requests_before.cpu_millicores", 510, "requests_before is what none of its pods requests"),
            ("strategy", "evict", "new requests need a roll-out"),
        ],
    )
    def test_a_fault_in_changed_requests_is_found(
        self,
        adjusted: bytes,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        path: str,
        value: object,
        says: str,
    ) -> None:
        planted = changed(adjusted, tmp_path, f"workloads.shop/Deployment/web.{path}", value)
        assert main(("verify", planted, *INPUTS)) == 1
        out = capsys.readouterr().out
        assert says in out
        assert all(line.startswith("wrong: ") for line in out.splitlines())

    def test_a_file_that_is_no_plan_is_bad_input(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "is no JSON" in refusal(capsys, "verify", MACHINES, *INPUTS)
        assert refusal(capsys, "verify", DUMP, *INPUTS).endswith(
            "cluster.json: apiVersion must be 'kinema.io/v1alpha1', not 'v1'"
        )

    def test_only_one_thing_comes_from_standard_input(self, capsys: pytest.CaptureFixture[str]) -> None:
        text = refusal(capsys, "verify", "-", "--cluster", "-", "--machines", MACHINES)
        assert text == "PLAN and --cluster cannot both be read from standard input"


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ((), "the following arguments are required: COMMAND; see kinema --help"),
            (("frob",), "argument COMMAND: invalid choice: 'frob'"),
            (("plan", "--frob"), "unrecognized arguments: --frob"),
            (("plan", "--output", "xml"), "argument --output: invalid choice: 'xml'"),
            (("plan", "--time-limit", "-1"), "argument --time-limit: must be seconds above 0, not '-1'"),
            (("plan", "--time-limit", "nan"), "argument --time-limit: must be seconds above 0, not 'nan'"),
            (("plan", "--cluster", DUMP), "there are no machine types: give --machines CSV, or --cloud gcp"),
            (("plan", "--cluster", "/absent", "--machines", MACHINES), "/absent: cannot be read: No such file"),
            (("plan", "--cluster", DUMP, "--machines", "/absent"), "/absent: cannot be read: "),
            (("plan", *INPUTS, "--cloud", "gcp"), "give --machines or --cloud, not both"),
            (("plan", "--cluster", DUMP, "--cloud", "gcp"), "--cloud gcp needs a --region, such as us-central1"),
            (("plan", *INPUTS, "--region", "x"), "--region says whose prices --cloud means; give --cloud too"),
            (("plan", "--cluster", DUMP, "--cloud", "gcp", "--region", "x"), "region 'x': only the prices of"),
            (("plan", *INPUTS, "--settings", "/absent"), "/absent: cannot be read: "),
            (("plan", *INPUTS, "--solver", "a b"), "--solver: optimizer.solver must be a solver's name"),
            (("plan", *INPUTS, "--solver", "NOPE"), "optimizer.solver: 'NOPE' is no installed"),
            (("plan", "--machines", MACHINES), "~/.kube/config: there is no such kubeconfig; "),
            (("run", "--once"), "cloud.machines must be a CSV file of machine types where cloud.provider is none"),
            (("run", "--once", "--mode", "apply"), "mode must be recommend where cloud.provider is none, not apply"),
            (("verify",), "the following arguments are required: PLAN"),
        ],
    )
    def test_each_fault_is_one_line_and_exit_code_2(
        self, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
    ) -> None:
        assert refusal(capsys, *arguments).startswith(says)

    @pytest.mark.parametrize(
        ("cluster", "machines", "says"),
        [
            (b"nodes", None, "cluster.json: is no JSON: "),
            (b'{"kind": "Status"}', None, "cluster.json: is no Kubernetes List, its kind is 'Status'; "),
            (
                Path(DUMP).read_bytes().replace(b'"512Mi"', b'"12x"', 1),
                None,
                "cluster.json: Deployment shop/web: spec.template.spec.containers[0].resources.requests.memory must be",
            ),
            (
                Path(DUMP).read_bytes().replace(b'"pods": "110"', b'"x": "110"', 1),
                None,
                "cluster.json: Node node-1: the field status.allocatable.pods is missing",
            ),
            (
                None,
                Path(MACHINES).read_bytes().replace(b"0.268", b"-0.268"),
                "machines.csv: line 4: price_usd_per_hour must be an amount between 0 and 1000000 USD, not '-0.268'",
            ),
            (None, Path(MACHINES).read_bytes().replace(b"0.268", b"NaN"), "machines.csv: line 4: price_usd_per_hour"),
            (None, Path(MACHINES).read_bytes().replace(b"0.268", b""), "machines.csv: line 4: price_usd_per_hour"),
            (None, Path(MACHINES).read_bytes().replace(b",0.268", b""), "machines.csv: line 4: has not as many values"),
        ],
    )
    def test_a_bad_file_is_named(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        cluster: bytes | None,
        machines: bytes | None,
        says: str,
    ) -> None:
        (tmp_path / "cluster.json").write_bytes(cluster or Path(DUMP).read_bytes())
        (tmp_path / "machines.csv").write_bytes(machines or Path(MACHINES).read_bytes())
        files = ("--cluster", f"{tmp_path}/cluster.json", "--machines", f"{tmp_path}/machines.csv")
        assert refusal(capsys, "plan", *files).startswith(f"{tmp_path}/{says}")
        assert {path.name for path in tmp_path.iterdir()} == {"cluster.json", "machines.csv"}


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


class TestLiveClusters:
    @pytest.fixture(autouse=True)
    def connected(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KUBECONFIG", kubeconfig(tmp_path / "config", server.url))

    @staticmethod
    def listing(path: str) -> Answer:
        kinds = {f"{kind.lower()}s": kind for kind in ("Node", "Pod", "Deployment", "ReplicaSet", "DaemonSet")}
        kind = kinds.get(path.rpartition("/")[2])
        items = [item for item in json.loads(Path(DUMP).read_bytes())["items"] if item["kind"] == kind]
        return 200, json.dumps({"metadata": {"resourceVersion": "1"}, "items": items}).encode(), {}

    def test_without_a_dump_the_kubeconfigs_cluster_is_planned(
        self, server: Server, capsysbinary: pytest.CaptureFixture[bytes]
    ) -> None:
        missing = json.dumps({"message": "not found"}).encode()
        server.answer = lambda _, path, __: (404, missing, {}) if "configmaps" in path else self.listing(path)
        assert main(("plan", "--machines", MACHINES, "--output", "json")) == 0
        assert json.loads(capsysbinary.readouterr().out)["cost_usd_per_hour"] == 0.134
        assert {method for method, *_ in server.requests} == {"GET"}

    def keeping(self, server: Server) -> dict[str, bytes]:
        """Let the server have the dump's objects and keep what is written, by its path; return what is kept."""
        stored: dict[str, bytes] = {}

        def answer(method: str, path: str, _: dict[str, str]) -> Answer:
            body = next(sent for m, p, _, sent, _ in reversed(server.requests) if (m, p) == (method, path))
            if method == "GET" and not path.startswith(("/api/v1/namespaces", "/apis/coordination.k8s.io")):
                return self.listing(path)
            if method != "GET":
                name = f"/{body['metadata']['name']}" if method == "POST" else ""
                stored[path + name] = json.dumps(body).encode()
                return 201, stored[path + name], {}
            missing = json.dumps({"message": "not found"}).encode()
            return (200, stored[path], {}) if path in stored else (404, missing, {})

        server.answer = answer
        return stored

    def test_without_a_cloud_the_loop_recommends_from_a_table_and_writes_lease_plan_and_event(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stored = self.keeping(server)
        monkeypatch.setenv("KINEMA_CLOUD_MACHINES", MACHINES)
        monkeypatch.setenv("KINEMA_METRICS_PORT", "0")
        done = run("run", "--once")
        assert done.returncode == 0, done.stderr
        assert b"iteration ended: recommended" in done.stderr
        lease = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kinema-planner"
        kept = "/api/v1/namespaces/kube-system/configmaps/kinema-plan"
        (event,) = stored.keys() - {lease, kept}
        assert event.startswith("/api/v1/namespaces/kube-system/events/kinema-plan.")
        assert json.loads(stored[event])["reason"] == "PlanRecommended"
        record = decode_record(stored[kept])
        assert (record.mode, record.phase) == ("recommend", "done")
        # Three m4 at 0.134 become one, as in `kinema plan`.
        assert record.plan.cost_nanousd_per_hour == 134_000_000

    def test_within_a_window_the_loop_reads_what_pods_use_although_requests_stay(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stored = self.keeping(server)
        monkeypatch.setenv("KINEMA_CLOUD_MACHINES", MACHINES)
        monkeypatch.setenv("KINEMA_METRICS_PORT", "0")
        always = "[{name: always, when: Mon-Sun 00:00-24:00 UTC, cpu_utilization_cap: 0.4}]"
        monkeypatch.setenv("KINEMA_OBJECTIVE_WINDOWS", always)
        times = [time.time() - 300 * i for i in range(24)]
        flat = tuple((at, "0.45") for at in sorted(times))
        with serving(FakePrometheus({"cpu": matrix(measured("web-6d5f-0", *flat, namespace="shop"))})) as prometheus:
            monkeypatch.setenv("KINEMA_PREDICTOR_PROMETHEUS_URL", prometheus.url)
            done = run("run", "--once")
        assert done.returncode == 0, done.stderr
        assert b"(cost under cpu utilization <= 0.4, window always): 0.402 -> 0.201 $/h" in done.stderr
        cap = decode_record(stored["/api/v1/namespaces/kube-system/configmaps/kinema-plan"]).plan.objective.cap
        assert cap is not None
        # The agent is not measured, so that it counts with its request.
        assert cap.usage_millicores == {"kube-system/DaemonSet/agent": 100, "shop/Deployment/web": 450}

    @pytest.mark.parametrize(("table", "says"), [("/absent", "/absent: cannot be read: "), (DUMP, f"{DUMP}: line 1: ")])
    def test_a_table_that_cannot_be_read_ends_the_loop_before_it_asks_the_cluster(
        self,
        server: Server,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        table: str,
        says: str,
    ) -> None:
        monkeypatch.setenv("KINEMA_CLOUD_MACHINES", table)
        assert refusal(capsys, "run", "--once").startswith(says)
        assert server.requests == []

    def test_one_refused_list_ends_with_exit_code_1_and_nothing_is_written(
        self, server: Server, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = 'replicasets.apps is forbidden: User "k" cannot list resource "replicasets"'
        refused = json.dumps({"message": words}).encode()
        server.answer = lambda _, path, __: (403, refused, {}) if "replicasets" in path else self.listing(path)
        text = refusal(capsys, "plan", "--machines", MACHINES, code=1)
        assert text == f"cannot list replicasets: {words} (grant the right by RBAC)"
        assert {method for method, *_ in server.requests} == {"GET"}


def test_the_effective_settings_are_printed_as_a_file_that_can_be_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINEMA_OPTIMIZER_SOLVER", "GLPK_MI")
    monkeypatch.setenv("KINEMA_CLOUD_POOLS", "web,batch")
    assert main(("settings",)) == 0
    printed = capsys.readouterr().out
    found = yaml.safe_load(printed)
    assert (found["optimizer"]["solver"], found["cloud"]["pools"]) == ("GLPK_MI", ["web", "batch"])
    path = tmp_path / "settings.yaml"
    path.write_text(printed)
    monkeypatch.delenv("KINEMA_OPTIMIZER_SOLVER")
    assert main(("settings", "--settings", str(path))) == 0
    assert capsys.readouterr().out == printed


def test_as_a_plugin_of_kubectl_it_names_itself_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/kubectl-kinema"])
    assert refusal(capsys, "plan", "--frob").endswith("see kubectl kinema --help")


@pytest.mark.parametrize("arguments", [("--help",), ("plan", "--help"), ("settings",)])
def test_help_and_settings_load_no_solver_and_no_client(arguments: tuple[str, ...]) -> None:
    heavy = ["cvxpy", "numpy", "google.cloud", "kubernetes", "rich", "flask"]
    code = (
        "import sys\nfrom planner.cli import main\n"
        f"try:\n    main({list(arguments)!r})\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.stderr == "[]\n"
