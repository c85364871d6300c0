#!/usr/bin/python3
"""Backup, restore, activation: real processes on simulated hosts. What was done since a backup is looked for, never repeated."""
import pathlib
import shutil
import signal
import sqlite3
import tempfile
import unittest

import fleet
from fleet import Fleet, Manager, wait_until

SLOW = {"bandwidth_bytes_per_s": 8 << 20}  # of 64 MiB


def rows(path, sql):
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        return db.execute(sql).fetchall()


class Restored(unittest.TestCase):
    def setUp(self):
        self.fleet = Fleet()
        self.scratch = tempfile.TemporaryDirectory(prefix="lmo-backup-")
        self.copy = pathlib.Path(self.scratch.name) / "lmod.backup"
        self.fleet.up()
        self.addCleanup(self.scratch.cleanup)
        self.addCleanup(lambda: self.assertEqual(self.fleet.down(), []))
        self.rest = self.fleet.rest

    def moved(self, guest, host):
        record = self.rest.ended(self.rest.migrate(guest, host)["id"])
        self.assertEqual((record["phase"], record["reason"]), ("completed", None))
        return record["id"]

    def journals(self):
        """What every worker has been ordered, and what it has seen: its own durable memory."""
        found = {}
        for n in range(self.fleet.hosts):
            path = self.fleet.dir / f"state/hv{n + 1}/worker.db"
            found[path.parent.name] = (rows(path, "SELECT id, state FROM op ORDER BY id"), rows(path, "SELECT migration, role FROM closed"),
                                       rows(path, "SELECT vm, seen FROM vm_epoch ORDER BY vm"))
        return found

    def epochs(self):
        """The highest epoch of each guest that any worker has seen."""
        seen = {}
        for _ops, _closed, epochs in self.journals().values():
            for vm, epoch in epochs:
                seen[vm] = max(epoch, seen.get(vm, 0))
        return seen

    def term(self):
        return max(int(rows(self.fleet.dir / f"state/hv{n + 1}/worker.db", "SELECT value FROM meta WHERE key = 'term'")[0][0])
                   for n in range(self.fleet.hosts))

    def restart(self):
        self.fleet.ends("lmod")
        self.fleet.processes["lmod"].start()
        self.fleet.answers_again()

    def put_back(self):
        """The store of the backup, and a coordinator that has just started on it."""
        if self.fleet.processes["lmod"].alive():
            self.fleet.ends("lmod")
        done = self.fleet.lmod("--restore", self.copy)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("it only observes", done.stdout)
        self.fleet.processes["lmod"].start()
        wait_until("the coordinator", self.fleet.answers, 30)

    def places(self):
        return {g["name"]: [c["host"] for c in g["copies"] if c["runs"]] for g in self.fleet.look()["guests"]}

    def test_what_went_on_after_the_backup_is_recognised_and_nothing_is_done_twice(self):
        first = self.moved("guest-1", "hv3")
        opened = self.rest.migrate("guest-4", "hv3", **SLOW)["id"]
        self.rest.in_phase(opened, "precopy")
        self.fleet.lmo("backup", self.copy)  # in the middle of that one
        self.assertEqual(self.copy.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.rest.ended(opened)["phase"], "completed")
        unknown = self.moved("guest-7", "hv3")  # and of a guest that the backup has never heard of
        again = self.moved("guest-1", "hv2")
        for _ in range(3):  # terms that the backup does not know
            self.restart()
        self.fleet.ends("lmod")
        journals, places, epochs, term = self.journals(), self.places(), self.epochs(), self.term()

        self.put_back()
        self.assertIn("only observes", self.fleet.log())
        status, body = self.rest.call("POST", "/v1/migrations", {"vm": "guest-10", "destination": "hv3"})
        self.assertEqual((status, body["code"]), (409, "conflict"))
        self.assertIn("only observes", body["detail"])
        self.assertEqual(self.rest.call("POST", "/v1/doctor", {"repair": True})[0], 409)
        shown = self.fleet.lmo("restore").stdout
        self.assertRegex(shown, rf"{opened}: precopy -> abandoned: it ended after the backup .*guest-4 is on hv3, the destination")
        self.assertIn("state: observing", shown)
        self.assertEqual(self.rest.migration(opened)["phase"], "precopy")  # said, not done
        self.assertEqual((self.journals(), self.places()), (journals, places))  # nothing was ordered of anybody
        self.assertGreater(self.term(), term)

        self.fleet.lmo("restore", "--activate")
        record = self.rest.migration(opened)
        self.assertEqual((record["phase"], "guest-4 is on hv3" in record["reason"]), ("abandoned", True))
        self.assertEqual(self.rest.migration(first)["phase"], "completed")
        for lost in (unknown, again):
            self.assertEqual(self.rest.call("GET", f"/v1/migrations/{lost}")[0], 404)
        self.assertEqual((self.journals(), self.places()), (journals, places))
        self.assertEqual(self.fleet.doctor(), [])
        self.fleet.answers_again()
        for guest, host in (("guest-7", "hv2"), ("guest-1", "hv3"), ("guest-4", "hv2")):
            self.moved(guest, host)
        higher = self.epochs()
        for vm, epoch in epochs.items():
            self.assertGreater(higher[vm], epoch, "an epoch was handed out a second time")
        self.assertEqual(self.fleet.lmo("restore", "--activate", check=False).returncode, 1)
        self.restart()  # and it stays active
        self.assertIn('"active"', self.fleet.lmo("restore", "--json").stdout.replace(": ", ":"))

    def test_a_migration_that_the_backup_does_not_know_and_that_is_under_way_stands_in_the_way(self):
        self.fleet.lmo("backup", self.copy)
        unknown = self.rest.migrate("guest-1", "hv3", bandwidth_bytes_per_s=1 << 20)["id"]
        self.rest.copying(unknown)
        self.fleet.processes["lmod"].kill()
        self.put_back()
        done = self.fleet.lmo("restore", "--activate", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn(unknown, done.stderr)
        self.assertIn("still under way", done.stderr)
        self.assertRegex(self.fleet.lmo("restore").stdout, rf"{unknown}: not in the backup; .*still under way")
        self.fleet.processes["hv1"].kill()  # a host that cannot be asked stands in the way as well
        done = self.fleet.lmo("restore", "--activate", check=False)
        self.assertIn("could not be asked", done.stderr)
        self.fleet.processes["hv1"].start()
        wait_until("hv1", lambda: "not seen: 0" in self.fleet.lmo("restore").stdout, 30)
        term, epochs = self.term(), self.epochs()
        self.fleet.lmo("restore", "--activate", "--force")
        self.fleet.answers_again()
        self.assertGreaterEqual(self.term(), term)
        self.moved("guest-4", "hv3")
        self.assertGreater(max(self.epochs().values()), max(epochs.values()))
        self.assertEqual([len(h) for h in self.places().values() if len(h) != 1], [])

    def test_workers_that_are_in_the_middle_of_it_keep_it_open_for_a_person(self):
        opened = self.rest.migrate("guest-1", "hv3", bandwidth_bytes_per_s=1 << 20)["id"]
        self.rest.copying(opened)
        self.fleet.lmo("backup", self.copy)
        self.fleet.processes["lmod"].kill()
        self.put_back()
        self.fleet.lmo("restore", "--activate")
        record = self.rest.migration(opened)
        self.assertEqual(record["phase"], "attention")
        self.assertIn("workers still know of it", record["reason"])
        self.fleet.answers_again()
        self.fleet.lmo("migration", "resolve", opened, "guest-at-source", "--reason", "a restore", check=False)
        record = self.rest.follow(opened, lambda r: r["phase"] in ("aborted", "completed"), 120) \
            if self.rest.migration(opened)["phase"] != "attention" else self.rest.migration(opened)
        self.assertEqual([len(h) for h in self.places().values() if len(h) != 1], [], record)

    def test_who_may_take_a_backup(self):
        for role in ("viewer", "control-plane"):
            self.fleet.issue_new(role, "fleet")
            self.assertEqual(self.fleet.as_role(role).call("POST", "/v1/backup", {})[0], 403, role)
            self.assertEqual(self.fleet.as_role(role).call("POST", "/v1/restore", {})[0], 403, role)
        self.fleet.lmo("backup", self.copy)
        self.assertNotEqual(self.fleet.lmo("backup", self.copy, check=False).returncode, 0)  # none is overwritten
        self.assertIn("POST /v1/backup", str(self.rest.get("/v1/audit")["audit"]))


class Offline(unittest.TestCase):
    def test_by_hand(self):
        with tempfile.TemporaryDirectory() as scratch:
            copy, one = pathlib.Path(scratch) / "copy", Fleet()
            with one:
                self.assertEqual(one.lmod("--backup", copy).returncode, 0)
                self.assertEqual(copy.stat().st_mode & 0o777, 0o600)
                self.assertEqual(rows(copy, "PRAGMA integrity_check"), [("ok",)])
                self.assertEqual(len(rows(copy, "SELECT made_ms FROM lmo_backup")), 1)
                self.assertEqual(len(rows(copy, "SELECT name FROM host")), 3)
                busy = one.lmod("--restore", copy)
                self.assertEqual((busy.returncode, "end it first" in busy.stderr), (1, True))
                one.ends("lmod")
                bad = pathlib.Path(scratch) / "bad"
                bad.write_bytes(copy.read_bytes()[:20000])
                before = (one.dir / "lmod/lmod.db").read_bytes()
                for what, why in ((bad, "database"), (pathlib.Path(scratch) / "none", "No such file"), (one.dir / "world", "database")):
                    done = one.lmod("--restore", what)
                    self.assertEqual((done.returncode, why in done.stderr), (1, True), done.stderr)
                    self.assertEqual((one.dir / "lmod/lmod.db").read_bytes(), before)
                # A store that somebody put there with cp is known for what it is, too.
                for end in ("-wal", "-shm"):
                    (one.dir / f"lmod/lmod.db{end}").unlink(missing_ok=True)
                shutil.copy(copy, one.dir / "lmod/lmod.db")
                (one.dir / "lmod/lmod.db").chmod(0o600)
                manager = Manager(pathlib.Path(scratch) / "notify")
                one.processes["lmod"].env |= manager.environment()
                one.processes["lmod"].start()
                manager.until("ONLY OBSERVES")
                one.ends("lmod", signal.SIGKILL)
                # A restore that was interrupted: nobody starts on what is there.
                (one.dir / "lmod/lmod.db.restoring").write_text(str(copy))
                one.processes["lmod"].start()
                self.assertEqual(one.processes["lmod"].process.wait(20), 1)
                self.assertRegex(one.log(), "a restore was interrupted here")
                self.assertEqual(one.lmod("--restore", copy).returncode, 0)
                one.processes["lmod"].start()
                one.connect(one.base + one.hosts)
                wait_until("the coordinator", one.answers, 30)
                one.lmo("restore", "--activate")
                one.answers_again()
                manager.close()
            self.assertEqual(one.wrong, [])

    def test_a_store_of_an_older_program_is_copied_and_brought_up_to_date_and_a_newer_one_refused(self):
        one = Fleet()
        schema = sorted((fleet.ROOT / "schema/coordinator").glob("*.sql"))
        with one:
            one.ends("lmod")
            path = one.dir / "lmod/lmod.db"
            for old in path.parent.glob("lmod.db*"):
                old.unlink()
            with sqlite3.connect(path) as db:
                db.executescript("CREATE TABLE lmo_schema_step (version INTEGER PRIMARY KEY, name TEXT NOT NULL, "
                                 "applied_at TEXT NOT NULL DEFAULT 'then') STRICT")
                for number, file in enumerate(schema[:-1], 1):
                    db.executescript(file.read_text())
                    db.execute("INSERT INTO lmo_schema_step (version, name) VALUES (?, ?)", (number, file.stem[4:]))
            db.close()
            one.processes["lmod"].start()
            wait_until("the coordinator", one.answers, 30)
            copies = list((path.parent / "backup").iterdir())
            self.assertEqual([c.name[:len("lmod.db-schemaN-")] for c in copies], [f"lmod.db-schema{len(schema) - 1}-"])
            self.assertEqual(rows(copies[0], "SELECT max(version) FROM lmo_schema_step"), [(len(schema) - 1,)])
            self.assertEqual(rows(path, "SELECT max(version) FROM lmo_schema_step"), [(len(schema),)])
            one.ends("lmod")
            with sqlite3.connect(path) as db:
                db.execute("INSERT INTO lmo_schema_step (version, name) VALUES (99, 'later')")
            db.close()
            one.processes["lmod"].start()
            self.assertEqual(one.processes["lmod"].process.wait(20), 1)
            self.assertRegex(one.log(), f"was last used by a newer program: it has schema 99, this program knows up to {len(schema)}")

    def test_a_workers_journal_cannot_be_put_back(self):
        one = Fleet()
        with one:
            one.ends("hv3")
            path = one.dir / "state/hv3/worker.db"
            with sqlite3.connect(path) as db:
                db.executescript("CREATE TABLE lmo_backup (one INTEGER PRIMARY KEY, made_ms INTEGER); INSERT INTO lmo_backup VALUES (1, 1)")
            db.close()
            one.processes["hv3"].start()
            self.assertNotEqual(one.processes["hv3"].process.wait(30), 0)
            self.assertIn("A worker's journal cannot be restored", one.log("hv3"))


if __name__ == "__main__":
    unittest.main()
