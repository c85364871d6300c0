#!/usr/bin/python3
"""The Debian packages in a scratch Debian 12 (debootstrap): installed, configured, removed, purged. Needs root, `make deb`, and
a mirror; says so when something of that is missing.

The bare system is kept in LMO_CHROOT (default /var/cache/lmo-lab/bookworm) and copied for each run."""
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import fleet

DEBS = sorted((fleet.ROOT / "build/deb").glob("lmo-*_*.deb"))
BARE = pathlib.Path(os.environ.get("LMO_CHROOT", "/var/cache/lmo-lab/bookworm"))


def run(*argv, check=True, timeout=900, **kwargs):
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, timeout=timeout, check=False, **kwargs)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, argv))}: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done


@unittest.skipUnless(os.geteuid() == 0 and shutil.which("debootstrap"), "needs root and debootstrap")
@unittest.skipUnless(DEBS, "no packages in build/deb: make deb")
class Packages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not (BARE / "etc/debian_version").exists():
            scratch = BARE.with_name(BARE.name + ".part")
            shutil.rmtree(scratch, ignore_errors=True)
            BARE.parent.mkdir(parents=True, exist_ok=True)
            done = run("debootstrap", "--variant=minbase", "bookworm", scratch, check=False)
            if done.returncode != 0:
                raise unittest.SkipTest(f"debootstrap: {done.stdout[-300:]}{done.stderr[-300:]}")
            scratch.rename(BARE)
        cls.scratch = tempfile.TemporaryDirectory(prefix="lmo-packages-")
        cls.root = pathlib.Path(cls.scratch.name) / "root"
        run("cp", "-a", BARE, cls.root)
        # What this machine knows of mirrors and names, the new one needs as well.
        for part in ("etc/apt/sources.list.d/debian.sources", "etc/resolv.conf", "etc/hosts"):
            if pathlib.Path("/", part).exists():
                (cls.root / part).unlink(missing_ok=True)
                shutil.copy(pathlib.Path("/", part).resolve(), cls.root / part)
        for conf in pathlib.Path("/etc/apt/apt.conf.d").glob("*registry*"):
            shutil.copy(conf, cls.root / "etc/apt/apt.conf.d")
        (cls.root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
        (cls.root / "usr/sbin/policy-rc.d").chmod(0o755)
        for deb in DEBS:
            if "dbgsym" not in deb.name:
                shutil.copy(deb, cls.root / "tmp")
        cls.inside("apt-get", "-q", "update")

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    @classmethod
    def inside(cls, *argv, check=True):
        mounted = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
        return run("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", mounted, cls.root, *argv, check=check,
                   env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"})

    def test_installed_configured_removed_purged(self):
        names = ["lmo-cli", "lmo-coordinator", "lmo-worker"]
        packages = sorted(f"/tmp/{p.name}" for p in (self.root / "tmp").glob("*.deb"))
        self.assertEqual([pathlib.Path(p).name.split("_")[0] for p in packages], names)
        self.inside("apt-get", "-qy", "--no-install-recommends", "install", *packages)
        # Installed is not configured: no configuration, no store, and the units wait for one.
        self.assertFalse((self.root / "etc/lmo/lmod.conf").exists())
        self.assertFalse(list((self.root / "var/lib").glob("lmo*/*.db")))
        for unit, conf in (("lmod", "lmod"), ("lmo-worker", "lmo-worker")):
            text = (self.root / f"lib/systemd/system/{unit}.service").read_text()
            self.assertIn(f"ConditionPathExists=/etc/lmo/{conf}.conf\n", text)
            example = f"/usr/share/doc/{'lmo-coordinator' if unit == 'lmod' else 'lmo-worker'}/examples/{unit}.conf"
            self.inside(f"/usr/sbin/{unit}", "--config", example, "--check-config")
        self.assertIn("lmo:", (self.root / "etc/passwd").read_text())
        self.assertEqual((self.root / "etc/lmo/pki").stat().st_mode & 0o777, 0o750)
        for program in ("/usr/sbin/lmod", "/usr/sbin/lmo-worker", "/usr/bin/lmo"):
            self.inside(program, "--version")
        self.assertEqual(self.inside("dpkg", "--verify", *names).stdout, "")
        # What somebody configured and what the programs wrote stays until a purge; a changed conffile is not overwritten.
        (self.root / "etc/lmo/lmod.conf").write_text("# mine\n")
        rotate = self.root / "etc/logrotate.d/lmo-coordinator"
        rotate.write_text(rotate.read_text() + "# mine\n")
        self.inside("dpkg", "--force-confold", "-i", *packages)
        self.assertTrue(rotate.read_text().endswith("# mine\n"))
        self.inside("dpkg", "--remove", *names)
        self.assertTrue(rotate.exists() and (self.root / "etc/lmo/lmod.conf").exists())
        self.assertFalse((self.root / "usr/sbin/lmod").exists())
        self.inside("dpkg", "--purge", *names)
        self.assertFalse(rotate.exists())
        self.assertTrue((self.root / "etc/lmo/lmod.conf").exists(), "what the packages did not bring they do not take")


if __name__ == "__main__":
    unittest.main()
