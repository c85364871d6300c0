"""`lmo top`, `watch` and `wait` as a person and a script see them: the real program in a real terminal, against a real
coordinator and simulated workers. The screen is read by a terminal emulator (pyte)."""
import json
import os
import re
import signal
import subprocess
import time
import unittest

from fleet import BIN, PATIENCE, Fleet, Terminal, wait_until

ESCAPE = "\x1b"
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


class WithMigrations(unittest.TestCase):
    """Two migrations that take long (as many as may run), two that wait for them; cancelled at the end."""
    ids = []

    @classmethod
    def setUpClass(cls):
        where = {g["name"]: g["host"] for g in json.loads(fleet.run("vm", "list", "--json").stdout)["vms"]}
        cls.guests = sorted(where)[:4]
        cls.ids = []
        for guest in cls.guests:
            to = next(h for h in ("hv1", "hv2", "hv3") if h != where[guest])
            done = fleet.run("migrate", guest, "--to", to, "--bandwidth", "0.25")
            cls.ids.append(done.stdout.strip())
        wait_until("two that run", lambda: fleet.run("migration", "list", "--plain").stdout.count("\tprecopy\t") == 2)

    @classmethod
    def tearDownClass(cls):
        for one in reversed(cls.ids):
            fleet.run("migration", "cancel", one, check=False)
        for one in cls.ids:
            fleet.run("wait", f"migration/{one}", "--timeout", PATIENCE, check=False)

    def terminal(self, *args, columns=100, rows=30, **env):
        one = Terminal([BIN / "lmo", *args], fleet.environment(**env), columns, rows)
        self.addCleanup(one.close)
        return one

    def top(self, *args, **more):
        return self.terminal("top", "--interval", "0.2", *args, **more)


class Top(WithMigrations):
    def test_shows_hosts_and_migrations_and_q_ends_it(self):
        t = self.top()
        t.sees("HOST", "hv3", self.guests[0], "precopy", "queued", "q quit", "3 hosts, 3 up; 4 open migrations, 2 queued")
        self.assertRegex(t.text, r"hv1 +up +\d/2 +\d/2")
        t.press("q")
        self.assertEqual(t.ended(), 0)
        self.assertTrue(t.restored(), t.sent[-200:])

    def test_figures_move_without_a_key(self):
        t = self.top()
        t.sees(self.guests[0], "precopy")
        line = lambda: next((l for l in t.text.splitlines() if l.startswith(self.guests[0] + " ")), "")
        first = line()
        t.until("another line of the guest", lambda: line() not in ("", first))

    def test_a_picture_is_one_write_that_erases_nothing_before_it_draws(self):
        t = self.top()
        t.sees(self.guests[0], "q quit")
        t.drain()
        t.sent = b""
        t.until("three more pictures", lambda: t.sent.count(b"\x1b[H") >= 4)
        self.assertNotIn(b"\x1b[2J", t.sent)
        for picture in t.sent.split(b"\x1b[H")[1:-1]:
            self.assertTrue(picture.endswith(b"\x1b[J"), picture[-40:])
            self.assertNotIn(b"\n\n", picture)

    def test_filter_sort_and_pause(self):
        t = self.top()
        t.sees(*self.guests)
        t.press("f" + self.guests[1])
        t.sees("filter: " + self.guests[1])
        t.until("one guest", lambda: self.guests[0] not in t.text.split("filter:")[0])
        t.press("\r")
        t.sees("f filter: " + self.guests[1], "q quit")
        t.press("s")
        t.sees("s sort: progress")
        t.press("p")
        t.sees("paused", "p go on")
        t.press("p")
        t.sees("p pause")
        t.press("f" + ESCAPE)
        t.sees(*self.guests)

    def test_arrows_scroll_and_resizing_redraws(self):
        t = self.top(rows=12)
        t.sees("q quit", "0 above, ")
        first = re.search(r"0 above, (\d+) below", t.text)
        self.assertIsNotNone(first, t.text)
        t.press("\x1b[B")
        t.sees("1 above, ")
        t.press("\x1b[A")
        t.sees("0 above, ")
        t.press("\x1b[F")
        t.sees(f"{first.group(1)} above, 0 below")
        t.size(60, 40)
        t.until("everything on a higher screen", lambda: "above" not in t.text and all(g in t.text for g in self.guests))
        self.assertTrue(all(len(line) <= 60 for line in t.text.splitlines()))
        t.size(24, 8)
        t.sees("lmo top")

    def test_every_signal_that_ends_it_restores_the_terminal(self):
        for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP),
                               (signal.SIGABRT, -signal.SIGABRT), (signal.SIGSEGV, -signal.SIGSEGV)):
            with self.subTest(signal=number.name):
                t = self.top()
                t.sees(self.guests[0])
                self.assertNotEqual(t.modes(), t.modes_before)
                t.process.send_signal(number)
                self.assertEqual(t.ended(), status)
                self.assertTrue(t.restored(), t.sent[-200:])

    def test_ctrl_c_ends_it_and_restores_the_terminal(self):
        t = self.top()
        t.sees(self.guests[0])
        t.press("\x03")
        self.assertEqual(t.ended(), 130)
        self.assertTrue(t.restored())

    def test_ctrl_z_gives_the_terminal_back_until_it_is_continued(self):
        # Without a shell that waits for it, its group would be an orphan, which Ctrl-Z does not stop.
        t = Terminal(["/bin/bash", "--norc", "--noprofile", "-i"],
                     fleet.environment(PS1="ready> ", HISTFILE="/dev/null", INPUTRC="/dev/null"))
        self.addCleanup(t.close)
        t.sees("ready>")
        t.press(f"{BIN}/lmo top --interval 0.2\n")
        t.sees(self.guests[0], "q quit")
        t.press("\x1a")
        t.until("the shell again", lambda: b"Stopped" in t.sent)
        self.assertGreater(t.sent.rfind(b"\x1b[?1049l"), t.sent.rfind(b"\x1b[?1049h"))
        t.sent = b""
        t.press("fg\n")
        t.until("the screen again", lambda: b"\x1b[?1049h" in t.sent)
        t.sees(self.guests[0], "q quit")
        t.press("q")
        t.until("the shell at the end", lambda: b"\x1b[?1049l" in t.sent)
        t.press("exit\n")
        self.assertEqual(t.ended(), 0)

    def test_dumb_terminal_gets_plain_blocks(self):
        t = self.top("--count", "2", TERM="dumb")
        self.assertEqual(t.ended(), 0)
        self.assertNotIn(b"\x1b", t.sent)
        self.assertEqual(t.sent.count(b"lmo top"), 2)
        self.assertIn(self.guests[0].encode(), t.sent)

    def test_pipe_gets_plain_blocks_and_json_documents(self):
        done = fleet.run("top", "--once")
        self.assertNotIn(ESCAPE, done.stdout)
        self.assertIn(self.guests[0], done.stdout)
        self.assertNotIn("q quit", done.stdout)
        lines = fleet.run("top", "--json", "--count", "2", "--interval", "0.2").stdout.splitlines()
        self.assertEqual(len(lines), 2)
        self.assertEqual({h["name"] for h in json.loads(lines[1])["hosts"]}, {"hv1", "hv2", "hv3"})

    def test_no_color_leaves_the_screen_but_no_colours(self):
        t = self.top(NO_COLOR="1")
        t.sees("q quit", self.guests[0])
        self.assertIsNone(re.search(rb"\x1b\[[0-9;]*[1-9][0-9;]*m", t.sent))


class Wait(WithMigrations):
    def test_lines_on_a_narrow_terminal_are_never_wrapped(self):
        t = self.terminal("migration", "list", columns=60)
        self.assertEqual(t.ended(), 0)
        lines = [l for l in re.sub(rb"\x1b\[[0-9;]*m", b"", t.sent).decode().split("\r\n") if l]
        self.assertTrue(lines and all(len(line) <= 60 for line in lines), lines)
        self.assertIn("~", t.text)
        piped = fleet.run("migration", "list").stdout
        self.assertNotIn("~", piped)

    def test_waits_for_a_phase_and_gives_up_in_time(self):
        done = fleet.run("wait", f"migration/{self.ids[0]}", "--for", "precopy")
        self.assertEqual(done.stdout, f"migration/{self.ids[0]} precopy\n")
        late = fleet.run("wait", f"migration/{self.ids[3]}", "--timeout", "0.2", check=False)
        self.assertEqual(late.returncode, 6)
        self.assertIn("still in phase queued", late.stderr)

    def test_waits_for_hosts_and_guests(self):
        self.assertEqual(fleet.run("wait", "host/hv1", "--plain").stdout, "object\tstate\treached\nhost/hv1\tup\ttrue\n")
        answer = json.loads(fleet.run("wait", f"vm/{self.guests[0]}", "--for", "migrating", "--json").stdout)
        self.assertEqual((answer["object"], answer["reached"]), (f"vm/{self.guests[0]}", True))
        self.assertEqual(fleet.run("wait", f"vm/{self.guests[0]}", "--timeout", "0.2", check=False).returncode, 6)
        wrong = fleet.run("wait", "hosts/hv1", check=False)
        self.assertEqual(wrong.returncode, 2)
        self.assertIn("Did you mean host?", wrong.stderr)

    def test_interrupting_the_wait_leaves_the_migration_alone(self):
        t = self.terminal("wait", f"migration/{self.ids[0]}")
        t.sees("precopy")
        t.press("\x03")
        self.assertEqual(t.ended(), 130)
        self.assertIn(b"the migration goes on", t.sent)
        self.assertIn("\tprecopy\t", fleet.run("migration", "show", self.ids[0], "--plain").stdout)

    def test_a_name_that_nobody_has_is_met_with_those_that_are_like_it(self):
        t = self.terminal("migrate", self.guests[0].replace("guest", "gusset"), "--to", "hv2")
        self.assertEqual(t.ended(), 1)
        self.assertIn(f"Did you mean {self.guests[0]}", re.sub(r"\s+", " ", t.text))
        # A script is not made to wait for a list that nobody reads.
        self.assertNotIn("Did you mean", fleet.run("vm", "show", "gusset-1", check=False).stderr)


class Watch(WithMigrations):
    def test_tells_every_change_of_one_migration_and_ends_with_it(self):
        one = fleet.background("watch", self.ids[3], "--json")
        first = json.loads(one.stdout.readline())
        self.assertEqual((first["object"], first["id"], first["state"]), ("migration", self.ids[3], "queued"))
        fleet.run("migration", "cancel", self.ids[3])
        out, err = one.communicate(timeout=PATIENCE)
        self.assertEqual(one.returncode, 0, err)
        self.assertEqual(json.loads(out.splitlines()[-1])["state"], "aborted")

    def test_short_phases_are_told_too_because_events_are_followed(self):
        one = fleet.background("watch", "--json")
        first = json.loads(one.stdout.readline())
        self.assertIn(first["id"], self.ids)
        fleet.run("migration", "cancel", self.ids[1])
        fleet.run("wait", f"migration/{self.ids[1]}", check=False)
        told = []
        while "precopy" not in [c["state"] for c in told if c["id"] == self.ids[2]]:
            told.append(json.loads(one.stdout.readline()))
        states = [c["state"] for c in told if c["id"] == self.ids[2]]
        self.assertEqual(states[-7:], ["queued", "precheck", "destination_create", "volume_attach", "network_preload", "dual_ingress",
                                       "precopy"], states)
        self.assertEqual([c["state"] for c in told if c["id"] == self.ids[1]][-2:], ["rollback", "aborted"])
        one.kill()
        one.communicate()

    def test_plain_begins_with_how_things_stand(self):
        out = fleet.run("watch", "migrations", "--count", "2", "--plain").stdout.splitlines()
        self.assertEqual(out[0].split("\t"), ["at_ms", "object", "id", "vm", "source", "destination", "state", "detail"])
        self.assertTrue(all(len(line.split("\t")) == 8 for line in out))
        hosts = fleet.run("watch", "hosts", "--count", "3", "--plain").stdout.splitlines()
        self.assertEqual({line.split("\t")[2] for line in hosts[1:]}, {"hv1", "hv2", "hv3"})

    def test_a_reader_that_goes_away_ends_it(self):
        one = fleet.background("watch", "--interval", "0.2")
        one.stdout.readline()
        one.stdout.close()
        guest = sorted(g["name"] for g in json.loads(fleet.run("vm", "list", "--json").stdout)["vms"] if not g["migration"])[-1]
        on = json.loads(fleet.run("vm", "show", guest, "--json").stdout)["host"]
        fleet.run("migration", "cancel", fleet.migrate(guest, "hv1" if on != "hv1" else "hv2"))
        self.assertIn(one.wait(PATIENCE), (0, 1))
        one.stderr.close()


class ZRestart(WithMigrations):
    """Last by name: the coordinator goes away and comes back."""

    def test_coordinator_that_restarts_is_borne_with(self):
        t = self.top()
        t.sees(self.guests[0], "q quit")
        one = fleet.background("watch", self.ids[0], "--json")
        json.loads(one.stdout.readline())
        fleet.stop_lmod()
        t.until("word of it", lambda: "old" in t.text)
        t.press("s")  # keys are answered meanwhile
        t.sees("s sort: progress")
        fleet.start_lmod()
        t.until("news", lambda: " old" not in t.text and self.guests[0] in t.text)
        t.press("q")
        self.assertEqual(t.ended(), 0)
        fleet.run("migration", "cancel", self.ids[0], check=False)
        out, err = one.communicate(timeout=PATIENCE)
        self.assertEqual(one.returncode, 0, err)
        self.assertIn(json.loads(out.splitlines()[-1])["state"], ("aborted", "completed"))


if __name__ == "__main__":
    unittest.main()
