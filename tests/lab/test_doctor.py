"""What must not be a dead end: a coordinator that was asleep, records and things that belong to nobody, hosts that hang."""
import contextlib
import http.client
import json
import os
import pathlib
import signal
import sqlite3
import subprocess
import time

import harness
from harness import LabTest, alive, domain_state, lab, labinfo, pid_of, settled_check, wait_until, where

SLOW = {"bandwidth_bytes_per_s": 16 << 20}
STORE = labinfo.BIG / "hosts" / "ctl" / "var" / "lib" / "lmo" / "lmod.db"
CTL = f"{labinfo.UNDERLAY}.{labinfo.OCTET['ctl']}"


def qemu_of(guest, incoming):
    """QEMU of the guest: the destination's, or the source's."""
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if any(w.startswith(b"guest=%s," % guest.encode()) for w in words) and (b"-incoming" in words) == incoming:
                    return int(entry.name)
    return None


def volume_op(kind, **fields):
    """An order about a volume, as a cloud's volume manager gives it: under no migration, without a term."""
    ident = f"test-{kind}-{time.monotonic_ns()}"
    body = json.dumps({"id": ident, "kind": kind, "vm": "", "epoch": 1, **fields})
    pki = labinfo.BIG / "pki"
    done = harness.run(harness.LAB, "exec", "ctl", "curl", "-sS", "--max-time", "20", "--cacert", str(pki / "ca.pem"), "--cert",
                       str(pki / "issued" / "coordinator-lab.pem"), "--key", str(pki / "issued" / "coordinator-lab.key"), "-X",
                       "PUT", "-H", "Content-Type: application/json", "--data-binary", body, f"https://{CTL}:7443/v1/ops/{ident}")
    answer = json.loads(done.stdout)
    assert answer.get("state") == "done", answer
    return answer


class DoctorTest(LabTest):
    def doctor(self, repair=False):
        status, body = self.rest.call("POST", "/v1/doctor", {"repair": repair})
        self.assertEqual(status, 200, body)
        return body

    def findings(self, kind=None):
        return [f for f in self.doctor()["findings"] if kind is None or f["kind"] == kind]

    def stopped(self, pid):
        """SIGSTOP, and SIGCONT whatever happens."""
        wake = harness.stop_now(pid)
        self.healers.append(wake)
        return wake


class Term(DoctorTest):
    def test_coordinator_asleep_while_another_took_over__the_other_finishes_and_the_first_ends_itself(self):
        self.create("--dirty-rate", "10")
        ident = self.rest.migrate(self.guest, "hv2", **SLOW)["id"]
        self.rest.copying(ident)
        old = pid_of("ctl.lmod")
        wake = self.stopped(old)
        harness.SecondCoordinator.configure()
        lmod = str(harness.BIN / "lmod")
        refused = harness.run(harness.LAB, "exec", "ctl", lmod, "--config", "/etc/lmo/second.conf", check=False, timeout=30)
        self.assertNotEqual(refused.returncode, 0)  # without being told to, nobody takes over
        self.assertIn("another coordinator uses", refused.stdout + refused.stderr)
        second = harness.SecondCoordinator()

        def end_second():
            second.end()
            harness.REST = (CTL, 8443)
        self.healers.append(end_second)
        harness.REST = (CTL, 8444)
        self.rest = harness.Rest()
        record = self.rest.ended(ident)
        self.assertEqual(record["phase"], "completed", record["reason"])
        wake()
        wait_until("the first coordinator to end itself", lambda: not pathlib.Path(f"/proc/{old}").exists() or
                   pathlib.Path(f"/proc/{old}/stat").read_text().rpartition(")")[2].split()[0] in "ZX", 10)
        text = (labinfo.BIG / "hosts" / "ctl" / "var" / "log" / "lmo" / "lmod.log").read_text(errors="replace")
        self.assertIn("taken over", text)
        self.assertEqual(where(self.guest), "hv2")
        alive(self.guest)
        self.assertEqual(self.rest.migration(ident)["phase"], "completed")
        self.assertEqual(self.findings(), [])
        settled_check(self.guest)
        self.heal()
        lab("lmod", "start")
        self.rest = harness.Rest()

    def test_worker_obeys_nobody_below_the_term_that_it_knows(self):
        pki = labinfo.BIG / "pki"

        def ask(host, *argv):
            done = harness.run(harness.LAB, "exec", "ctl", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert",
                               str(pki / "ca.pem"), "--cert", str(pki / "issued" / "coordinator-lab.pem"), "--key",
                               str(pki / "issued" / "coordinator-lab.key"), *argv,
                               f"https://{labinfo.UNDERLAY}.{labinfo.OCTET[host]}:7443/v1/observe/host")
            return done.stdout
        for host in ("hv1", "ctl"):
            wait_until("the worker to have heard of the coordinator", lambda h=host: ask(h) == "409")
            term = next(h["capabilities"]["term"] for h in self.rest.get("/v1/hosts")["hosts"] if h["name"] == "hv1")
            self.assertEqual(ask(host, "-H", "LMO-Term: 0"), "409")
            self.assertGreaterEqual(term, 0)


class Doctor(DoctorTest):
    def test_lab_in_order_has_no_findings_before_and_after_a_move(self):
        self.create("--dirty-rate", "10")
        self.assertEqual(self.doctor()["findings"], [])
        record = self.rest.ended(self.rest.migrate(self.guest, "hv2")["id"])
        self.assertEqual(record["phase"], "completed", record["reason"])
        self.assertEqual(self.doctor()["findings"], [])
        record = self.rest.ended(self.rest.migrate(self.guest, "hv3", max_downtime_ms=1, convergence_timeout_ms=2000,
                                                   bandwidth_bytes_per_s=1 << 20)["id"])
        self.assertEqual(record["phase"], "aborted")
        self.assertEqual(self.doctor()["findings"], [])
        states = {r["state"] for r in record["resources"]}
        self.assertEqual(states, {"undone"}, record["resources"])

    def test_export_of_nobody_is_found_and_withdrawn_but_not_while_a_host_is_unseen(self):
        self.create()
        volume = self.rest.get(f"/v1/vms/{self.guest}")["volumes"][0]["volume"]
        volume_op("attach", epoch=4711, host="hv3", volumes=[{"volume": volume, "target": "vda"}])
        lab("worker", "kill", "hv3")
        wait_until("hv3 to be unseen", lambda: self.hosts_up() == 3)
        found = self.findings("export_of_nobody")
        self.assertEqual([f["repair"] for f in found], [None], found)
        self.assertEqual(len(self.findings("host_not_seen")), 1)
        lab("worker", "start", "hv3")
        wait_until("hv3 to be back", lambda: self.hosts_up() == 4)
        found = self.findings()
        self.assertEqual([(f["kind"], f["repair"]) for f in found], [("export_of_nobody", "detach")], found)
        self.assertEqual(lab("lmo", "doctor", check=False).returncode, 8)
        mended = lab("lmo", "doctor", "--repair", check=False)
        self.assertEqual(mended.returncode, 0, mended.stdout + mended.stderr)
        self.assertIn("mended", mended.stdout)
        self.assertEqual(self.findings(), [])
        lines = self.rest.get("/v1/audit?limit=20")["audit"]
        self.assertTrue(any(line["action"].startswith("repair detach") and line["principal"] == "operator:lab" and
                            line["outcome"] == "ok" for line in lines), lines)
        alive(self.guest)

    def test_binding_of_nobody_is_found_and_made_single_again(self):
        self.create()
        port = self.rest.get(f"/v1/vms/{self.guest}")["ports"][0]["id"]
        labinfo.command("ctl", "ovn-nbctl", "lsp-set-options", port, "requested-chassis=hv1,hv2")
        found = wait_until("the finding", lambda: self.findings("binding_of_nobody"))
        self.assertEqual(found[0]["repair"], "single")
        body = self.doctor(repair=True)
        self.assertEqual([r["outcome"] for r in body["repairs"]], ["ok"], body)
        self.assertEqual(body["findings"], [])
        alive(self.guest)

    def test_guest_defined_on_a_second_host_is_told_and_left_alone(self):
        self.create()
        xml = harness.virsh("hv1", "dumpxml", "--inactive", self.guest)
        (labinfo.BIG / "hosts" / "hv3" / "etc" / "lmo" / "second.xml").write_text(xml)
        harness.virsh("hv3", "define", "/etc/lmo/second.xml")
        self.healers.append(lambda: harness.virsh("hv3", "undefine", self.guest, check=False))
        found = self.findings()
        self.assertEqual([(f["kind"], f["repair"]) for f in found], [("guest_defined_twice", None)], found)
        self.doctor(repair=True)
        self.assertEqual(domain_state("hv3", self.guest), "shut off")

    def test_record_that_cannot_be_read_is_set_aside_and_all_others_go_on(self):
        self.create("--dirty-rate", "10")
        ident = self.rest.migrate(self.guest, "hv2", **SLOW)["id"]
        self.rest.copying(ident)
        lab("lmod", "kill")
        with sqlite3.connect(STORE) as db:
            text = db.execute("SELECT record FROM migration WHERE id = ?", (ident,)).fetchone()[0]
            db.execute("UPDATE migration SET record = ? WHERE id = ?", (text.replace('"epoch"', '"epok"', 1), ident))
        db.close()
        lab("lmod", "start")
        wait_until("every worker to be up", lambda: self.hosts_up() == 4)
        found = self.findings("record_set_aside")
        self.assertEqual([f["migration"] for f in found], [ident])
        self.assertEqual(found[0]["severity"], "critical")
        status, body = self.rest.call("POST", "/v1/migrations", {"vm": self.guest, "destination": "hv3"})
        self.assertEqual((status, "set aside" in body["detail"]), (409, True), body)
        lab("lmod", "kill")
        with sqlite3.connect(STORE) as db:
            db.execute("UPDATE migration SET record = ? WHERE id = ?", (text, ident))
        db.close()
        lab("lmod", "start")
        record = self.rest.ended(ident)
        self.assertIn(record["phase"], ("completed", "aborted"))
        wait_until("no findings", lambda: self.hosts_up() == 4 and self.findings() == [])

    def test_who_changed_what_is_on_record(self):
        status, body = self.rest.call("POST", "/v1/migrations", {"vm": "nobody", "destination": "hv2"},
                                      headers={"X-Request-Id": "lab-request-1"})
        self.assertEqual(status, 404, body)
        with self.assertRaises((AssertionError, OSError, http.client.HTTPException)):
            harness.Rest("viewer").migrate("nobody", "hv2")
        lines = self.rest.get("/v1/audit?limit=10")["audit"]
        mine = [line for line in lines if line["request"] == "lab-request-1"]
        self.assertEqual([line["outcome"] for line in mine], ["not_found", "asked"])
        self.assertEqual({line["principal"] for line in mine}, {"operator:lab"})
        wait_until("the viewer's refusal on record", lambda: any(
            line["principal"] == "viewer:lab" and line["outcome"] == "forbidden"
            for line in self.rest.get("/v1/audit?limit=10")["audit"]), 10)


class Hangs(DoctorTest):
    """The destination's QEMU, or its libvirtd, stops answering. The guest is never without a host, the record says what it
    waits for, and it ends by itself when the hang is over."""

    def comes_back(self, ident, wake, seconds=60):
        # Its host alone is asked: who asks the hung one hangs, too.
        wait_until("the guest to run at its source", lambda: domain_state("hv1", self.guest) == "running", seconds)
        alive(self.guest)
        record = self.rest.migration(ident)
        if record["phase"] not in harness.ENDS:
            wait_until("the record to say what it waits for",
                       lambda: self.rest.migration(ident)["waiting_for"] or
                       self.rest.migration(ident)["phase"] in harness.ENDS, seconds)
        wake()
        record = self.rest.ended(ident)
        self.assertEqual(record["phase"], "aborted", record)
        self.assertEqual(where(self.guest), "hv1")
        self.assertEqual({r["state"] for r in record["resources"]}, {"undone"}, record["resources"])
        wait_until("nothing left behind", lambda: self.hosts_up() == 4 and self.findings() == [])

    def test_destinations_qemu_hangs_in_precopy(self):
        self.create("--dirty-rate", "10")
        ident = self.rest.migrate(self.guest, "hv2", convergence_timeout_ms=15000, **SLOW)["id"]
        self.rest.copying(ident)
        wake = self.stopped(wait_until("its QEMU", lambda: qemu_of(self.guest, True)))
        self.comes_back(ident, wake)

    def test_destinations_libvirtd_hangs_in_precopy(self):
        self.create("--dirty-rate", "10")
        ident = self.rest.migrate(self.guest, "hv2", convergence_timeout_ms=15000, **SLOW)["id"]
        self.rest.copying(ident)
        wake = self.stopped(pid_of("hv2.libvirtd"))
        self.comes_back(ident, wake)

    def test_destinations_libvirtd_hangs_at_the_pause__one_copy_runs_whatever_happens(self):
        self.create("--dirty-rate", "10")
        hung = []
        source = self.at_the_pause("hv1", lambda: hung.append(self.stopped(pid_of("hv2.libvirtd"))))
        ident = self.rest.migrate(self.guest, "hv2")["id"]
        source.wait("SUSPENDED/MIGRATED")
        wait_until("libvirtd to be stopped", lambda: hung)
        time.sleep(8)  # long enough for keepalives to give up and for whoever would act too early to act
        self.assertEqual(domain_state("hv1", self.guest), "running")  # libvirt's keepalive has given up there
        hung[0]()
        record = self.rest.ended(ident)
        self.assertIn(record["phase"], ("completed", "aborted"), record)
        self.assertEqual(where(self.guest), "hv2" if record["phase"] == "completed" else "hv1")
        alive(self.guest)
        wait_until("nothing left behind", lambda: self.hosts_up() == 4 and self.findings() == [])

    def test_destinations_qemu_hangs_at_the_pause__one_copy_runs_whatever_happens(self):
        self.create("--dirty-rate", "10")
        hung = []
        source = self.at_the_pause("hv1", lambda: hung.append(self.stopped(qemu_of(self.guest, True))))
        ident = self.rest.migrate(self.guest, "hv2")["id"]
        source.wait("SUSPENDED/MIGRATED")
        wait_until("QEMU to be stopped", lambda: hung)
        time.sleep(8)
        hung[0]()
        record = self.rest.ended(ident)
        self.assertIn(record["phase"], ("completed", "aborted"), record)
        self.assertEqual(where(self.guest), "hv2" if record["phase"] == "completed" else "hv1")
        alive(self.guest)
        wait_until("nothing left behind", lambda: self.hosts_up() == 4 and self.findings() == [])
