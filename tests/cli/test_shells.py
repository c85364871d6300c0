"""Completion in real shells, manual pages by two readers, and what the build installs."""
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from fleet import BIN, PATIENCE, Fleet, Terminal

SHARE = BIN.parent / "share"
fleet = None


def setUpModule():
    global fleet
    fleet = Fleet()
    try:
        fleet.up()
    except BaseException:
        fleet.down()
        raise


def tearDownModule():
    fleet.down()


class Bash(unittest.TestCase):
    def complete(self, *words, **env):
        """What bash offers for the last word, by calling the completion function as readline does."""
        script = (f"source '{SHARE}/bash-completion/completions/lmo'\nCOMP_WORDS=(\"$@\")\nCOMP_CWORD=$(($# - 1))\ncompopt() {{ :; }}\n"
                  "_lmo\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n")
        done = subprocess.run(["bash", "--norc", "-c", script, "bash", str(BIN / "lmo"), *words], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, env=fleet.environment(**env), timeout=PATIENCE, check=True)
        self.assertEqual(done.stderr, "")
        return [word for word in done.stdout.split("\n") if word]

    def test_commands_options_and_names_of_what_there_is(self):
        self.assertEqual(self.complete("migra"), ["migrate", "migration"])
        self.assertEqual(self.complete("host", "show", ""), ["hv1", "hv2", "hv3"])
        self.assertEqual(sorted(self.complete("migrate", "guest-1")), ["guest-1", "guest-10", "guest-11"])
        self.assertEqual(self.complete("migrate", "g", "--to", "=", "hv2"), ["hv2"])
        self.assertEqual(self.complete("wait", "host/hv3"), ["host/hv3"])
        self.assertIn("--max-downtime", self.complete("migrate", "g", "--max"))

    def test_ids_of_migrations(self):
        one = fleet.migrate("guest-0", "hv2")
        self.assertIn(one, self.complete("migration", "show", one[:8]))

    def test_without_a_coordinator_it_is_silent(self):
        self.assertEqual(self.complete("host", "show", "", LMO_URL="https://127.0.0.1:1"), [])
        self.assertEqual(self.complete("host", "show", "", LMO_KEY="/nonexistent"), [])


class Zsh(unittest.TestCase):
    @unittest.skipUnless(shutil.which("zsh"), "zsh is not installed (deploy/packages.txt)")
    def test_tab_completes_a_host(self):
        home = tempfile.mkdtemp(prefix="lmo-zsh-")
        self.addCleanup(shutil.rmtree, home)
        pathlib.Path(home, ".zshrc").write_text(
            f"fpath=('{SHARE}/zsh/vendor-completions' $fpath)\nPATH='{BIN}':$PATH\nPS1='ready> '\nautoload -Uz compinit\n"
            f"compinit -u -d '{home}/dump'\n")
        t = Terminal(["zsh", "-i"], fleet.environment(ZDOTDIR=home, HOME=home))
        self.addCleanup(t.close)
        t.sees("ready>")
        t.press("lmo migrate guest-3 --to hv\t")
        t.sees("hv1", "hv2", "hv3")
        t.press("3")
        t.sees("--to hv3")
        t.press("\x15lmo mig\t\t")
        t.sees("migrate", "Move a running guest to another host")
        t.press("\x15exit\n")
        t.ended()


class ManualPages(unittest.TestCase):
    pages = sorted((SHARE / "man" / "man1").glob("*.1"))

    def test_there_is_one_for_lmo_and_one_for_each_group(self):
        names = {p.name for p in self.pages}
        self.assertLessEqual({"lmo.1", "lmo-migrate.1", "lmo-host.1", "lmo-top.1", "lmo-context.1"}, names)

    @unittest.skipUnless(shutil.which("mandoc"), "mandoc is not installed (deploy/packages.txt)")
    def test_mandoc_has_nothing_to_say(self):
        for page in self.pages:
            done = subprocess.run(["mandoc", "-T", "lint", "-W", "style", str(page)], capture_output=True, text=True, check=False)
            self.assertEqual(done.stdout, "", page.name)

    @unittest.skipUnless(shutil.which("man"), "man is not installed (deploy/packages.txt)")
    def test_man_formats_them_without_a_warning(self):
        for page in self.pages:
            done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(page)], capture_output=True,
                                  text=True, env={**os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": ""}, check=False)
            self.assertEqual((done.stderr, done.returncode), ("", 0), page.name)


if __name__ == "__main__":
    unittest.main()
