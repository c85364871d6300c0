#!/usr/bin/python3
"""Neighbouring versions: this tree's programs and those of the revision that landed last, together in one fleet, through
migrations, and exchanged in the middle of one. The world (tests/fakes) is simulated; coordinator, workers, protocol, journals
and stores are each version's own.

The other revision: LMO_OTHER_REVISION, or the newest tag, or where this branch left main, or the commit before this one. It is
built once in build/other/REVISION. Without it in the history (a shallow clone), or if its simulated world is another one, the
tests are skipped and say so."""
import os
import pathlib
import shutil
import subprocess
import unittest

import fleet
from fleet import Fleet, wait_until

PROGRAMS = ["lmod", "lmo", "lmo-worker", "lmo-simworkers", "lmo-simctl", "lmo-fakeclock"]
SLOW = {"bandwidth_bytes_per_s": 8 << 20}  # of 64 MiB


def git(*argv):
    done = subprocess.run(["git", "-C", str(fleet.ROOT), *argv], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def other_revision():
    named = os.environ.get("LMO_OTHER_REVISION")
    head = git("rev-parse", "HEAD")
    for what in [named] if named else [git("describe", "--tags", "--abbrev=0"), git("merge-base", "HEAD", "main"),
                                       git("merge-base", "HEAD", "origin/main"), "HEAD~1"]:
        commit = git("rev-parse", "--verify", "--quiet", f"{what}^{{commit}}") if what else ""
        if commit and commit != head:
            return commit
    return None


def build(revision):
    """Its build directory. Kept: a revision does not change."""
    target = fleet.ROOT / "build" / "other" / revision[:12]
    if all((target / "release" / "bin" / p).exists() for p in PROGRAMS[:-1]):
        return target / "release"
    shutil.rmtree(target, ignore_errors=True)
    (target / "src").mkdir(parents=True)
    archive = subprocess.run(["git", "-C", str(fleet.ROOT), "archive", revision], capture_output=True, check=True, timeout=120)
    subprocess.run(["tar", "-x", "-C", str(target / "src")], input=archive.stdout, check=True, timeout=120)
    for argv in (["cmake", "-S", str(target / "src"), "-B", str(target / "release"), "-DCMAKE_BUILD_TYPE=Release"],
                 ["cmake", "--build", str(target / "release"), "--parallel", "2", "--target", *PROGRAMS]):
        done = subprocess.run(argv, capture_output=True, text=True, timeout=3000, check=False)
        if done.returncode != 0:
            raise unittest.SkipTest(f"revision {revision[:12]} cannot be built here: {done.stdout[-500:]}{done.stderr[-500:]}")
    return target / "release"


class Mixed(Fleet):
    """`of`: which programs ("lmod", "hv1" ...) are the other version's."""

    def __init__(self, other, of):
        super().__init__()
        self.today, self.other, self.of = self.bin, other / "bin", set(of)

    def _directory(self, name):
        return self.other if name in self.of else self.today

    def _spawn(self, name, *argv):
        self.bin = self._directory(name)
        super()._spawn(name, *argv)
        self.bin = self.today

    def spawn_lmod(self, name, *more):
        self.bin = self._directory(name)
        super().spawn_lmod(name, *more)
        self.bin = self.today

    def exchange(self, name):
        """Ends it as the service manager does, and starts the other version's in its place."""
        status = self.ends(name)
        self.of ^= {name}
        process = self.processes[name]
        process.argv[0] = str(self._directory(name) / pathlib.Path(process.argv[0]).name)
        process.start()
        return status

    def versions(self):
        return {h["name"]: (h["capabilities"] or {}).get("protocol_max") for h in self.rest.get("/v1/hosts")["hosts"]}


class Versions(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        revision = other_revision()
        if revision is None:
            raise unittest.SkipTest("no earlier revision in this history (a shallow clone?): LMO_OTHER_REVISION names one")
        if git("diff", "--name-only", revision, "--", "tests/fakes/world.h"):
            raise unittest.SkipTest(f"the simulated world is another one than in {revision[:12]}: the two cannot share it")
        cls.other = build(revision)
        print(f"the other version is {revision[:12]}: {git('log', '-1', '--format=%s', revision)}")

    def moved(self, one, guest, host, **policy):
        record = one.rest.ended(one.rest.migrate(guest, host, **policy)["id"])
        self.assertEqual((record["phase"], record["reason"]), ("completed", None))

    def fleet_of(self, *of):
        one = Mixed(self.other, of)
        self.addCleanup(lambda: self.assertEqual(one.down(), []))
        one.up()
        return one

    def test_todays_coordinator_with_the_other_versions_workers(self):
        one = self.fleet_of("hv1", "hv2", "hv3")
        self.moved(one, "guest-1", "hv3")
        self.moved(one, "guest-1", "hv2")

    def test_the_other_versions_coordinator_with_todays_workers(self):
        one = self.fleet_of("lmod")
        self.moved(one, "guest-1", "hv3")
        self.moved(one, "guest-1", "hv2")

    def test_workers_of_both_versions_at_one_cutover(self):
        one = self.fleet_of("hv2")
        self.moved(one, "guest-1", "hv3")
        self.moved(one, "guest-1", "hv2")

    def test_a_rolling_upgrade_in_the_middle_of_a_migration(self):
        one = self.fleet_of("lmod", "hv1", "hv2", "hv3")
        ident = one.rest.migrate("guest-1", "hv3", **SLOW)["id"]
        one.rest.in_phase(ident, "precopy")
        for name in ("hv3", "lmod", "hv2", "hv1"):
            self.assertEqual(one.exchange(name), 0, name)
        record = one.rest.ended(ident)
        self.assertEqual((record["phase"], record["reason"]), ("completed", None))
        one.answers_again()
        self.assertEqual(set(one.versions().values()), {1})
        self.assertEqual(one.doctor(), [])
        self.moved(one, "guest-1", "hv2")



if __name__ == "__main__":
    unittest.main()
