#!/usr/bin/python3
"""The harness itself: what it must refuse, and that its judges see what is wrong. The last class drives a fleet of simulated
workers as if it were somebody's cluster (build with fault points: LMO_FAULTS_BUILD)."""
import json
import os
import pathlib
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[0] / "lab")]
sys.dont_write_bytecode = True
import checks  # noqa: E402
import report  # noqa: E402
import scenario  # noqa: E402
import soak  # noqa: E402
from targets import cluster, simworkers  # noqa: E402
from targets.base import Guest  # noqa: E402

BUILD = os.environ.get("LMO_FAULTS_BUILD", str(HERE.parents[1] / "build" / "faults"))


def world(**changes):
    copy = {"host": "hv3", "process": True, "runs": True, "defined": True, "prepared": False, "incoming": False,
            "loaded": False, "stopped": False, "paused_by_owner": False}
    guest = {"name": "g", "copies": [copy | changes.pop("copy", {})], "job": False, "single": "hv3", "dual": False,
             "exports": [{"volume": "v", "export": "v.hv3.e2", "host": "hv3"}]}
    violation = changes.pop("violation", "")
    return {"guests": [guest | changes], "violation": violation}


class WorldCheck(unittest.TestCase):
    guest = Guest("g", "hv2", "hv3")

    def judged(self, outcome="completed", **changes):
        return checks.of_world(world(**changes), self.guest, outcome)

    def test_in_order(self):
        self.assertEqual(self.judged(), [])

    def test_everything_that_is_not_in_order_is_said(self):
        other = world()["guests"][0]["copies"][0] | {"host": "hv2"}
        for changes in ({"violation": "two copies"}, {"copies": []}, {"copies": [*world()["guests"][0]["copies"], other]},
                        {"copy": {"runs": False}}, {"copy": {"defined": False}}, {"copy": {"loaded": True}}, {"job": True},
                        {"dual": True}, {"single": "hv2"}, {"exports": []},
                        {"exports": [{"volume": "v", "export": "v.hv2.e1", "host": "hv2"}]}):
            with self.subTest(changes):
                self.assertTrue(self.judged(**changes))
        self.assertTrue(self.judged("aborted"))


class History(unittest.TestCase):
    record = {"id": "M1", "vm": {"name": "g", "uuid": "u"}, "vm_name": "g", "phase": "completed", "source": "hv1",
              "destination": "hv2", "reason": None, "waiting_for": None}

    def judged(self, answers, records):
        return soak.judge_history([soak.Request(f"k{i}", "g", {}, a) for i, a in enumerate(answers)], records)

    def test_in_order(self):
        self.assertEqual(self.judged([[(0, None), (202, "M1"), (202, "M1")], [(409, "conflict")]], [self.record]), [])

    def test_lost_doubled_and_unasked_effects_are_said(self):
        second = self.record | {"id": "M2"}
        self.assertTrue(self.judged([[(202, "M1")]], []))                                     # lost
        self.assertTrue(self.judged([[(202, "M1"), (202, "M2")]], [self.record, second]))     # twice
        self.assertTrue(self.judged([[(202, "M1")]], [self.record, second]))                  # by nobody
        self.assertTrue(self.judged([[(202, "M1")], [(202, "M1")]], [self.record]))           # one effect for two
        self.assertTrue(self.judged([[(202, "M1"), (404, "not_found")]], [self.record]))      # acknowledged, then refused
        self.assertTrue(self.judged([[(202, "M1")]], [self.record | {"phase": "attention"}]))
        self.assertTrue(self.judged([[(202, "M1")]], [self.record | {"vm": {"name": "h"}, "vm_name": "h"}]))

    def test_places_follow_from_completed_moves(self):
        wrong = []
        records = [self.record, self.record | {"id": "M2", "phase": "aborted", "source": "hv2", "destination": "hv3"},
                   self.record | {"id": "M3", "source": "hv2", "destination": "hv4"}]
        self.assertEqual((soak.judge_places(records, {"g": "hv1"}, wrong), wrong), ({"g": "hv4"}, []))
        soak.judge_places(records[1:], {"g": "hv1"}, wrong)
        self.assertEqual(len(wrong), 1)


class Scenarios(unittest.TestCase):
    def test_all_campaigns_can_be_meant(self):
        cells = scenario.load()
        self.assertGreater(len(cells), 150)
        self.assertEqual(len([c for c in cells if c.hard]), 8)

    def test_what_cannot_be_meant_is_refused(self):
        good = {"phase": "cutover", "point": "frozen", "outcome": ["completed"], "actions": [{"do": "kill", "who": "source"}]}
        scenario.make("t", "good", good)
        for change in ({"phase": "nowhere"}, {"point": "somewhere"}, {"outcome": []}, {"outcome": ["fine"]}, {"targets": ["moon"]},
                       {"actions": [{"do": "explode"}]}, {"actions": [{"do": "kill"}]}, {"actions": [{"do": "kill", "who": "bob"}]},
                       {"actions": [{"do": "cancel", "for_s": 1}]}, {"surprise": 1}, {"point": "sent"}):
            with self.subTest(change), self.assertRaises(scenario.Wrong):
                scenario.make("t", "bad", {**good, **change})


class Cluster(unittest.TestCase):
    def config(self, **changes):
        file = tempfile.NamedTemporaryFile("w", suffix=".json", delete=False)
        self.addCleanup(os.unlink, file.name)
        with file:
            json.dump({"pre_production": True, "coordinator": "https://127.0.0.1:1", "ca": "ca", "certificate": "c", "key": "k",
                       "hosts": {"hv1": {"run": ["sh", "-c"]}}, "guest": "g", **changes}, file)
        return file.name

    def test_a_file_that_is_not_marked_or_not_whole_is_refused(self):
        cluster.load(self.config())
        for changes in ({"pre_production": False}, {"pre_production": "yes"}, {"hosts": {"hv1": {}}}, {"more": 1},
                        {"commands": {"format_disks": {}}}):
            with self.subTest(changes), self.assertRaises(cluster.Refused):
                cluster.load(self.config(**changes))

    def test_a_dry_run_asks_and_does_nothing(self):
        said, marker = [], pathlib.Path(tempfile.mktemp())
        path = self.config(hosts={"hv1": {"run": ["sh", "-c"]}, "hv2": {"run": ["sh", "-c"]}},
                           commands={"kill": {"worker": {"do": f"touch {marker}"}}})
        target = cluster.Cluster(path, True, said.append)
        cell = scenario.make("t", "cell", {"phase": "precopy", "point": "entered", "outcome": ["completed"],
                                           "actions": [{"do": "kill", "who": "source"}]})
        target.up()
        target.carry_out(cell, report.Result("cell", "t", "", "", "", "cluster"))
        self.assertFalse(marker.exists())
        self.assertTrue(any("touch" in line for line in said), said)


class ClusterOfSimulatedWorkers(unittest.TestCase):
    def setUp(self):
        self.fleet = simworkers.SimWorkers(BUILD, guests_per_host=2)
        self.addCleanup(self.fleet.down)
        self.fleet.up()
        pki = self.fleet.dir / "pki"
        pids = {name: process.process.pid for name, process in self.fleet.processes.items()}
        orders = {"file": str(self.fleet.orders_path), "write": "printf '%s\\n' {text} > {file}.new && mv {file}.new {file}",
                  "read": "cat {file} 2>/dev/null || true"}
        stop = {"worker": {"do": f"kill -STOP {pids['hv3']}", "undo": f"kill -CONT {pids['hv3']}"}}
        self.config = {"pre_production": True, "coordinator": f"https://127.0.0.1:{self.fleet.base + 3}", "ca": str(pki / "ca.pem"),
                       "certificate": str(pki / "issued/operator-fleet.pem"), "key": str(pki / "issued/operator-fleet.key"),
                       "guest": "guest-1", "volumes_host": "hv1", "orders": orders, "commands": {"stop": stop},
                       "hosts": {name: {"run": ["sh", "-c"]} for name in ("coordinator", "hv1", "hv2", "hv3")}}
        self.path = self.fleet.dir / "cluster.json"
        self.path.write_text(json.dumps(self.config))

    def test_a_cell_is_carried_out_by_commands(self):
        target = cluster.Cluster(self.path)
        target.up()
        cell = scenario.make("t", "cell", {"phase": "cutover", "point": "frozen", "outcome": ["completed"],
                                           "actions": [{"do": "stop", "who": "destination", "for_s": 1}]})
        result = report.Result("cell", "t", "", "", "", "cluster")
        target.carry_out(cell, result)
        self.assertEqual((result.problems, result.outcome), ([], "completed"))
        self.assertGreater(result.resolve_ms, 900)

    def test_a_coordinator_that_does_not_say_so_itself_is_left_alone(self):
        target = cluster.Cluster(self.path)
        true_get = cluster.rest.Rest.get
        self.addCleanup(setattr, cluster.rest.Rest, "get", true_get)
        cluster.rest.Rest.get = lambda client, path: {**true_get(client, path), "pre_production": False}
        with self.assertRaises(cluster.Refused):
            target.up()


if __name__ == "__main__":
    unittest.main()
