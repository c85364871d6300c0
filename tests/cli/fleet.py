"""A coordinator and simulated workers as real processes, and the real `lmo` with a terminal or without one."""
import contextlib
import errno
import fcntl
import os
import pathlib
import pty
import random
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import termios
import threading
import time

import pyte

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BIN = pathlib.Path(os.environ.get("LMO_CLI_BUILD", ROOT / "build" / "release")) / "bin"
PATIENCE = 60  # seconds; nothing takes that long but on a machine that is busy with other things


def wait_until(what, condition, seconds=PATIENCE, every=0.02):
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(every)


def free_ports(count):
    """So many ports in a row that nobody listens on."""
    for _ in range(200):
        base = random.randrange(20000, 31000)
        with contextlib.ExitStack() as held:
            try:
                for port in range(base, base + count):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
                return base
            except OSError:
                continue
    raise AssertionError("no free ports")


class Fleet:
    """Three hosts; guests of 64 MiB whose memory takes some seconds, so that there is something to look at."""

    def __init__(self, hosts=3, guests=12, rate_mib=6):
        self.hosts, self.guests, self.rate = hosts, guests, rate_mib
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="lmo-cli-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
        self.processes = []

    def up(self):
        self.base = free_ports(self.hosts + 1)
        pki = self.dir / "pki"
        self.workers = self.spawn("workers", BIN / "lmo-simworkers", "--dir", self.dir, "--base-port", self.base, "--hosts",
                                  self.hosts, "--guests", self.guests, "--memory", 64, "--rate", self.rate, "--dirty", 0,
                                  "--make", "--workers", self.hosts)
        wait_until("the workers", lambda: self.started(self.workers, "workers", "ready"))
        (self.dir / "lmod.conf").write_text(f"""[coordinator]
listen = 127.0.0.1:{self.base + self.hosts}
state_dir = {self.dir}/lmod

[limits]
max_migrations = 2

[tls]
ca = {pki}/ca.pem
crl = {pki}/crl.pem
cert = {pki}/issued/coordinator-fleet.pem
key = {pki}/issued/coordinator-fleet.key
permit_key = {pki}/permit.key
""")
        self.start_lmod()
        for n in range(self.hosts):
            self.run("host", "add", f"hv{n + 1}", "--url", f"https://127.0.0.1:{self.base + n}")
            self.run("wait", f"host/hv{n + 1}", "--timeout", PATIENCE)
        return self

    def start_lmod(self):
        self.lmod = self.spawn("lmod", BIN / "lmod", "--config", self.dir / "lmod.conf")
        wait_until("the coordinator", lambda: self.run("host", "list", check=False).returncode == 0)

    def stop_lmod(self):
        self.lmod.terminate()
        self.lmod.wait(PATIENCE)

    def spawn(self, name, *argv):
        with open(self.dir / f"{name}.log", "a", encoding="utf-8") as out:
            process = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.processes.append(process)
        return process

    def started(self, process, name, word):
        text = (self.dir / f"{name}.log").read_text()
        if process.poll() is not None:
            raise AssertionError(f"{name} ended: {text[-400:]}")
        return word in text

    def down(self):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def environment(self, **more):
        pki = self.dir / "pki"
        plain = {k: v for k, v in os.environ.items() if not k.startswith("LMO_") and k not in ("NO_COLOR", "XDG_CONFIG_HOME")}
        return {**plain, "HOME": str(self.dir / "home"), "LMO_URL": f"https://127.0.0.1:{self.base + self.hosts}",
                "LMO_CA": str(pki / "ca.pem"), "LMO_CRL": str(pki / "crl.pem"),
                "LMO_CERT": str(pki / "issued" / "operator-fleet.pem"), "LMO_KEY": str(pki / "issued" / "operator-fleet.key"),
                "LC_ALL": "C.UTF-8", "TZ": "UTC", "TERM": "xterm", **more}

    def run(self, *args, check=True, **env):
        """One command line to its end, without a terminal."""
        done = subprocess.run([str(BIN / "lmo"), *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, env=self.environment(**env), timeout=2 * PATIENCE, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"lmo {' '.join(map(str, args))}: {done.returncode}: {done.stderr}")
        return done

    def migrate(self, guest, to):
        return self.run("migrate", guest, "--to", to).stdout.strip()

    def background(self, *args, **env):
        process = subprocess.Popen([str(BIN / "lmo"), *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, env=self.environment(**env))
        timer = threading.Timer(2 * PATIENCE, process.kill)  # whoever reads from it reads its end, at the latest then
        timer.daemon = True
        timer.start()
        return process


class Terminal:
    """A program in a terminal of its own: what a person would see is .screen, what was sent is .sent."""

    def __init__(self, argv, env, columns=100, rows=30):
        self.sent, self.modes_before = b"", None
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.fd, slave = pty.openpty()
        self.size(columns, rows, tell=False)
        self.modes_before = termios.tcgetattr(slave)
        self.slave = slave  # kept open: its modes are looked at after the program has ended

        def own_terminal():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen([str(a) for a in argv], stdin=slave, stdout=slave, stderr=slave, env=env,
                                        preexec_fn=own_terminal)

    def size(self, columns, rows, tell=True):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if tell:
            self.screen.resize(rows, columns)

    def feed(self, seconds=0.05):
        """Takes what the program has written."""
        ready, _, _ = select.select([self.fd], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError as error:
            if error.errno == errno.EIO:
                return False
            raise
        self.sent += data
        self.stream.feed(data)
        return bool(data)

    def drain(self):
        while self.feed(0):
            pass

    @property
    def text(self):
        return "\n".join(line.rstrip() for line in self.screen.display)

    def until(self, what, condition):
        deadline = time.monotonic() + PATIENCE
        while True:
            self.feed()
            if condition():
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"waited for {what}; the screen:\n{self.text}")

    def sees(self, *words):
        self.until(" and ".join(words), lambda: all(w in self.text for w in words))

    def press(self, keys):
        os.write(self.fd, keys.encode())

    def ended(self):
        """Its exit status, as subprocess has it."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            self.feed()
            if time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError(f"it did not end; the screen:\n{self.text}")
        self.drain()
        return self.process.returncode

    def modes(self):
        return termios.tcgetattr(self.slave)

    def restored(self):
        """Modes as before, the first screen, the cursor seen, wrapping on."""
        self.drain()
        last = lambda on, off: self.sent.rfind(on) >= self.sent.rfind(off)
        return (self.modes() == self.modes_before and last(b"\x1b[?1049l", b"\x1b[?1049h") and
                last(b"\x1b[?25h", b"\x1b[?25l") and last(b"\x1b[?7h", b"\x1b[?7l"))

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        os.close(self.slave)
        os.close(self.fd)
