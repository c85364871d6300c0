#!/usr/bin/python3
"""The unit files and the example configurations: what systemd says of them, and that no key is missing or made up."""
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import fleet

DEPLOY = fleet.ROOT / "deploy"
# What `systemd-analyze security` calls the exposure: 0 is none, 10 all. "OK" ends at 4.9. A unit that is let out further
# than this has lost something.
EXPOSURE = {"lmod": 1.5, "lmo-worker": 2.8}


def run(*argv):
    return subprocess.run(list(map(str, argv)), capture_output=True, text=True, timeout=60, check=False)


@unittest.skipUnless(shutil.which("systemd-analyze"), "no systemd here")
class Units(unittest.TestCase):
    def test_exposure(self):
        for name, most in EXPOSURE.items():
            done = run("systemd-analyze", "security", "--offline=yes", "--no-pager", DEPLOY / f"systemd/{name}.service")
            score = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout).group(1))
            print(f"exposure of {name}.service: {score} (at most {most})")
            self.assertLessEqual(score, most)

    def test_verify(self):
        with tempfile.TemporaryDirectory() as scratch:
            for name in EXPOSURE:
                text = (DEPLOY / f"systemd/{name}.service").read_text()
                unit = pathlib.Path(scratch) / f"{name}.service"
                unit.write_text(text.replace(f"/usr/sbin/{name}", str(fleet.BUILD / "bin" / name)))
                done = run("systemd-analyze", "verify", "--man=no", unit)
                self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    @unittest.skipUnless(shutil.which("systemd-sysusers"), "no systemd here")
    def test_user_and_directories(self):
        with tempfile.TemporaryDirectory() as scratch:
            root = pathlib.Path(scratch)
            (root / "etc").mkdir()
            done = run("systemd-sysusers", f"--root={root}", DEPLOY / "systemd/lmo.sysusers")
            self.assertEqual((done.returncode, "lmo:" in (root / "etc/passwd").read_text()), (0, True), done.stderr)
            done = run("systemd-tmpfiles", f"--root={root}", "--create", DEPLOY / "systemd/lmo.tmpfiles")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual((root / "etc/lmo/pki").stat().st_mode & 0o777, 0o750)


SETTING = re.compile(r"^#?([a-z_]+) = (.*)$")
SECTION = re.compile(r"^#?\[([a-z]+)( [a-z]+)?\]$")


def keys_of_example(path):
    section, found = None, []
    for line in path.read_text().splitlines():
        match = SECTION.match(line)
        if match:
            section = match.group(1) + (" *" if match.group(2) else "")
        match = SETTING.match(line)
        if match:
            found.append((section, match.group(1)))
    return found


def everything_set(path):
    """The example with every setting that it shows in a comment in force."""
    return "\n".join(line[1:] if line.startswith("#") and (SETTING.match(line) or SECTION.match(line)) else line
                     for line in path.read_text().splitlines()) + "\n"


class Examples(unittest.TestCase):
    def test_every_key_and_no_other(self):
        for name in EXPOSURE:
            listed = [tuple(line.split("\t")[:2]) for line in run(fleet.BUILD / "bin" / name, "--list-keys").stdout.splitlines()]
            self.assertGreater(len(listed), 10)
            shown = keys_of_example(DEPLOY / f"config/{name}.conf")
            self.assertEqual(len(shown), len(set(shown)), "a key is shown twice")
            self.assertEqual(sorted(shown), sorted(listed))

    def test_defaults_are_what_they_are_said_to_be(self):
        for name in EXPOSURE:
            text = (DEPLOY / f"config/{name}.conf").read_text()
            for line in run(fleet.BUILD / "bin" / name, "--list-keys").stdout.splitlines():
                _section, key, _required, default, _help = line.split("\t")
                if default:
                    self.assertIn(f"\n#{key} = {default}\n", text)

    def test_accepted_as_they_are_and_with_everything_set(self):
        with tempfile.TemporaryDirectory() as scratch:
            whole = pathlib.Path(scratch) / "whole.conf"
            for name in EXPOSURE:
                path = DEPLOY / f"config/{name}.conf"
                whole.write_text(everything_set(path))
                for one in (path, whole):
                    done = run(fleet.BUILD / "bin" / name, "--config", one, "--check-config")
                    self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
