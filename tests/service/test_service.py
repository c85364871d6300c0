#!/usr/bin/python3
"""lmod and lmo-worker as services: what the service manager hears, reload, end, log files. Real processes, simulated hosts."""
import os
import signal
import sqlite3
import subprocess
import tempfile
import unittest
import pathlib

import fleet
from fleet import Fleet, Manager, wait_until

SLOW = {"bandwidth_bytes_per_s": 8 << 20}  # of 64 MiB: some seconds of pre-copy


class Coordinator(unittest.TestCase):
    def setUp(self):
        self.fleet = Fleet(limits="max_migrations = 1\nmax_outgoing = 3")
        self.scratch = tempfile.TemporaryDirectory(prefix="lmo-service-")
        self.manager = Manager(pathlib.Path(self.scratch.name) / "notify")
        self.fleet.extra["lmod"] = self.manager.environment(watchdog_ms=900)
        self.fleet.up()
        self.addCleanup(self.scratch.cleanup)
        self.addCleanup(self.manager.close)
        self.addCleanup(lambda: self.assertEqual(self.fleet.down(), []))

    def test_ready_status_watchdog_and_the_end(self):
        self.manager.until("READY=1")
        self.manager.until("STATUS=0 open migrations, 3 of 3 hosts up")
        self.manager.until("WATCHDOG=1")
        self.manager.until("WATCHDOG=1")
        self.assertEqual(self.fleet.ends("lmod"), 0)
        self.manager.until("STOPPING=1")

    def test_watchdog_is_not_fed_while_the_store_cannot_commit(self):
        self.manager.until("WATCHDOG=1")
        holder = sqlite3.connect(self.fleet.dir / "lmod/lmod.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")  # nobody else commits
        wait_until("lmod to say so", lambda: "the watchdog is not fed" in self.fleet.log(), 30)
        self.manager.forget()
        self.manager.seen.clear()
        before = self.fleet.log().count("the watchdog is not fed")
        wait_until("another look", lambda: self.fleet.log().count("the watchdog is not fed") > before, 30)
        self.manager.forget()
        self.assertNotIn("WATCHDOG=1", self.manager.seen)
        holder.execute("ROLLBACK")
        self.manager.until("WATCHDOG=1")
        holder.close()

    def test_sighup_applies_other_limits_to_what_waits(self):
        first = self.fleet.rest.migrate("guest-1", "hv3", **SLOW)["id"]
        self.fleet.rest.in_phase(first, "precopy")
        second = self.fleet.rest.migrate("guest-4", "hv3", **SLOW)["id"]
        self.assertEqual(self.fleet.rest.migration(second)["phase"], "queued")
        self.fleet.limits = "max_migrations = 2\nmax_outgoing = 7"
        self.fleet.configure(False)
        self.manager.forget()
        self.fleet.processes["lmod"].signal(signal.SIGHUP)
        self.assertRegex(self.manager.until("RELOADING=1"), r"\nMONOTONIC_USEC=\d+")
        self.manager.until("READY=1")
        self.fleet.rest.in_phase(second, "precopy")
        self.assertEqual(self.fleet.rest.migration(first)["phase"], "precopy")
        self.assertEqual(self.fleet.rest.get("/v1/hosts/hv2")["limits"]["max_outgoing"], 7)
        for ident in (first, second):
            self.fleet.rest.call("POST", f"/v1/migrations/{ident}/cancel")
            self.assertEqual(self.fleet.rest.ended(ident)["phase"], "aborted")

    def test_a_bad_file_changes_nothing_and_says_why(self):
        good = (self.fleet.dir / "lmod.conf").read_text()
        for bad, why in ((good.replace("max_outgoing = 3", "max_outgoing = many"), "[limits] max_outgoing: 'many' is not a whole number"),
                         (good.replace("max_outgoing = 3", "max_outgoing = 5\nmax_outgoing = 6"), "is there twice"),
                         (good + "[limit]\n", "unknown section [limit]"),
                         (good.replace("max_outgoing = 3", "max_outgoing = 5\n[coordinator]"), "section [coordinator] is there twice")):
            with self.subTest(why):
                (self.fleet.dir / "lmod.conf").write_text(bad)
                self.manager.forget()
                self.fleet.processes["lmod"].signal(signal.SIGHUP)
                self.manager.until("RELOADING=1")
                self.manager.until("READY=1")
                self.assertIn("reload failed, nothing has changed", self.fleet.log())
                self.assertIn(why, self.fleet.log())
                self.assertEqual(self.fleet.rest.get("/v1/hosts/hv2")["limits"]["max_outgoing"], 3)
        (self.fleet.dir / "lmod.conf").write_text(good.replace("max_outgoing = 3", "max_outgoing = 4"))
        key = self.fleet.dir / "pki/issued/coordinator-fleet.key"
        kept = key.read_bytes()
        key.write_bytes(b"no key\n")
        self.fleet.processes["lmod"].signal(signal.SIGHUP)
        self.manager.until("RELOADING=1")
        self.manager.until("READY=1")
        self.assertEqual(self.fleet.rest.get("/v1/hosts/hv2")["limits"]["max_outgoing"], 3)
        key.write_bytes(kept)

    def test_sigterm_ends_all_programs_and_the_migration_survives(self):
        ident = self.fleet.rest.migrate("guest-1", "hv3", **SLOW)["id"]
        self.fleet.rest.in_phase(ident, "precopy")
        for name in ("lmod", "hv2", "hv3"):
            self.assertEqual(self.fleet.ends(name), 0, name)
        self.manager.until("STOPPING=1")
        self.fleet.settle()
        record = self.fleet.rest.ended(ident)
        self.assertEqual((record["phase"], record["reason"]), ("completed", None))
        self.assertEqual(self.fleet.doctor(), [])


class Files(unittest.TestCase):
    def test_log_file_is_opened_anew(self):
        one = Fleet()
        with tempfile.TemporaryDirectory() as scratch:
            path = pathlib.Path(scratch) / "lmod.log"
            one.more = f"log_file = {path}"
            with one:
                wait_until("lines", lambda: "lmod ready" in path.read_text(), 10)
                path.rename(path.with_suffix(".1"))
                one.processes["lmod"].signal(signal.SIGHUP)
                wait_until("the new file", lambda: path.exists() and "reloaded" in path.read_text(), 10)
                self.assertEqual(path.stat().st_mode & 0o777, 0o640 & ~current_umask())
                self.assertIn("lmod ready", path.with_suffix(".1").read_text())
                self.assertNotIn("lmod ready", one.log())
            self.assertEqual(one.wrong, [])


class Worker(unittest.TestCase):
    """The program itself; it needs no hypervisor to be a service."""

    def test_what_the_manager_hears(self):
        with tempfile.TemporaryDirectory() as scratch:
            d = pathlib.Path(scratch)
            lmo = str(fleet.BUILD / "bin/lmo")
            for argv in (["pki", "init", str(d / "pki")],
                         ["pki", "issue", "--dir", str(d / "pki"), "--role", "worker", "--name", "hv1"]):
                subprocess.run([lmo, *argv], check=True, capture_output=True, timeout=30)
            (d / "worker.conf").write_text(f"""[worker]
host = hv1
listen = 127.0.0.1:{fleet.free_port()}
state_dir = {d}/state
log_file = {d}/worker.log
[tls]
ca = {d}/pki/ca.pem
crl = {d}/pki/crl.pem
cert = {d}/pki/issued/worker-hv1.pem
key = {d}/pki/issued/worker-hv1.key
permit_key = {d}/pki/permit.pub
""")
            manager = Manager(d / "notify")
            process = subprocess.Popen([str(fleet.BUILD / "bin/lmo-worker"), "--config", str(d / "worker.conf")],
                                       env={**os.environ, **manager.environment(900)})
            try:
                manager.until("READY=1")
                manager.until("STATUS=0 guests on the way in, 0 on the way out")
                manager.until("WATCHDOG=1")
                (d / "worker.log").rename(d / "worker.log.1")
                process.send_signal(signal.SIGHUP)
                manager.until("RELOADING=1")
                manager.until("READY=1")
                self.assertIn("certificates read again", (d / "worker.log").read_text())
                process.send_signal(signal.SIGSTOP)  # a loop that does not turn
                manager.forget()
                process.send_signal(signal.SIGCONT)
                manager.until("WATCHDOG=1")
                process.send_signal(signal.SIGTERM)
                manager.until("STOPPING=1")
                self.assertEqual(process.wait(20), 0)
            finally:
                process.kill()
                process.wait()
                manager.close()


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


if __name__ == "__main__":
    unittest.main()
