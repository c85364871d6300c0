"""A fleet of real processes for the tests of this directory: coordinator and workers on simulated hosts (tests/faults/targets),
each with a socket that stands for the service manager's."""
import os
import pathlib
import queue
import signal
import socket
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tests" / "faults"), str(ROOT / "tests" / "lab")]
sys.dont_write_bytecode = True
from faults import TRANSIENT  # noqa: E402
from targets.base import wait_until  # noqa: E402, F401
from targets.simworkers import HOSTS, SimWorkers  # noqa: E402, F401

BUILD = pathlib.Path(os.environ.get("LMO_BUILD", ROOT / "build" / "release"))


class Manager:
    """What a service manager hears of one program."""

    def __init__(self, path):
        self.path, self.heard, self.seen = path, queue.Queue(), []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        while True:
            try:
                self.heard.put(self.socket.recv(4096).decode())
            except OSError:
                return

    def close(self):
        self.socket.close()

    def until(self, what, seconds=30.0):
        """The next message that contains `what`; what came before it is gone."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                message = self.heard.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"the manager did not hear '{what}'; it heard {self.seen[-10:]}") from None
            self.seen.append(message)
            if what in message:
                return message

    def forget(self):
        while not self.heard.empty():
            self.seen.append(self.heard.get())

    def environment(self, watchdog_ms=0):
        return {"NOTIFY_SOCKET": str(self.path)} | ({"WATCHDOG_USEC": str(watchdog_ms * 1000)} if watchdog_ms else {})


class Fleet(SimWorkers):
    """`limits`: lines of [limits]; `more`: lines of [coordinator]."""

    def __init__(self, build=BUILD, limits="max_migrations = 64", **world):
        super().__init__(build, guests_per_host=8, **world)
        self.limits, self.more, self.extra = limits, "", {}

    def __enter__(self):
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *_):
        self.wrong = self.down()

    def configure(self, second):
        super().configure(second)
        path = self.dir / ("second.conf" if second else "lmod.conf")
        text = path.read_text().replace("max_migrations = 64", self.limits)
        path.write_text(text.replace("pre_production = yes", "pre_production = yes\n" + self.more))

    def environment(self, name):
        return super().environment(name) | self.extra.get(name, {})

    def log(self, name="lmod"):
        return (self.dir / f"{name}.log").read_text(errors="replace")

    def lmo(self, *argv, check=True):
        pki = self.dir / "pki"
        env = {**os.environ, "LMO_URL": f"https://127.0.0.1:{self.base + self.hosts}", "LMO_CA": str(pki / "ca.pem"),
               "LMO_CERT": str(pki / "issued/operator-fleet.pem"), "LMO_KEY": str(pki / "issued/operator-fleet.key")}
        done = subprocess.run([str(self.bin / "lmo"), *map(str, argv)], capture_output=True, text=True, env=env, timeout=120,
                              check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"lmo {' '.join(map(str, argv))}: {done.returncode} {done.stdout}{done.stderr}")
        return done

    def issue_new(self, role, name):
        if not (self.dir / "pki/issued" / f"{role}-{name}.pem").exists():
            subprocess.run([str(self.bin / "lmo"), "pki", "issue", "--dir", str(self.dir / "pki"), "--role", role, "--name", name],
                           check=True, capture_output=True, timeout=30)

    def as_role(self, role, name="fleet"):
        import rest
        issued = self.dir / "pki/issued"
        return rest.Rest(("127.0.0.1", self.base + self.hosts), self.dir / "pki/ca.pem", issued / f"{role}-{name}.pem",
                         issued / f"{role}-{name}.key", timeout=20)

    def lmod(self, *argv):
        """The program by hand, beside the coordinator or in its absence."""
        return subprocess.run([str(self.bin / "lmod"), "--config", str(self.dir / "lmod.conf"), *map(str, argv)],
                              capture_output=True, text=True, timeout=60, check=False)

    def answers_again(self):
        wait_until("the coordinator", self.answers, 30)
        wait_until("every worker to be up", self.all_up, 60)

    def ends(self, name, number=signal.SIGTERM, seconds=20):
        """Tells the program to end; its exit status. (It ends itself after 5 s; the rest is this machine's load.)"""
        process = self.processes[name].process
        process.send_signal(number)
        return process.wait(seconds)


def free_port():
    from targets.simworkers import free_ports
    return free_ports(1)
