"""What the lab's tests stand on: a lab, its guests, the coordinator's REST API, faults, and the check from outside.

Every wait is for an observed condition and has a deadline. Nothing here asks LMO whether LMO was right: that is what
deploy/lab/check is for, which knows nothing of it.
"""
import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
import unittest

TREE = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("LMO_LAB", "test")
os.environ.setdefault("LMO_BUILD", str(TREE / "build" / "release"))
sys.path.insert(0, str(TREE / "deploy" / "lab" / "lib"))
sys.path.insert(0, str(TREE / "tests" / "lab"))
import labinfo  # noqa: E402
import rest  # noqa: E402

LAB = str(TREE / "deploy" / "lab" / "lab")
BIN = pathlib.Path(os.environ["LMO_BUILD"]) / "bin"
REST = (f"{labinfo.UNDERLAY}.{labinfo.OCTET['ctl']}", 8443)
ENDS = rest.ENDS


def run(*argv, timeout=120, check=True, env=None):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
                          env={**os.environ, **(env or {})})
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def lab(*argv, **kwargs):
    return run(LAB, *argv, **kwargs)


def wait_until(what, condition, seconds=30.0, every=0.02):
    """The condition's first true value; fails with what was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s for {what}")
        time.sleep(every)


# --- REST ---------------------------------------------------------------------

DOCUMENT = rest.openapi()


class Rest(rest.Rest):
    """The lab's coordinator, as a role of the lab. Every answer is held against proto/openapi.yaml."""

    def __init__(self, role="operator"):
        pki = labinfo.BIG / "pki"
        super().__init__(REST, pki / "ca.pem", pki / "issued" / f"{role}-lab.pem",
                         pki / "issued" / f"{role}-lab.key", lambda function: labinfo.in_net("ctl", function), document=DOCUMENT)


# --- the world, seen from outside -------------------------------------------------

def virsh(host, *argv, check=True):
    try:
        return labinfo.command(host, "virsh", "-q", "-c", "qemu:///system", *argv)
    except RuntimeError:
        if check:
            raise
        return ""


def domain_state(host, name):
    """"running", "paused", "shut off" ..., or "" when the host has no such domain."""
    return virsh(host, "domstate", name, check=False).strip()


def hosts_with(name, state="running"):
    return [h for h in labinfo.HYPERVISORS if labinfo.host_pid(h) and domain_state(h, name) == state]


def where(name):
    """The one host on which the guest runs."""
    found = hosts_with(name)
    if len(found) != 1:
        raise AssertionError(f"{name} runs on {found or 'no host'}")
    return found[0]


def kill_guest(host, name):
    """SIGKILL to the guest's process on that host, by its id."""
    pid = labinfo.command(host, "cat", f"/run/libvirt/qemu/{name}.pid").strip()
    labinfo.command(host, "kill", "-9", pid)


def stage(host, ident):
    """Where a migration stands in the journal of a host's worker ("frozen", "asking" ...); None: not known there."""
    def ask():
        pki = labinfo.BIG / "pki"
        context = ssl.create_default_context(cafile=str(pki / "ca.pem"))
        context.load_cert_chain(str(pki / "issued" / "coordinator-lab.pem"), str(pki / "issued" / "coordinator-lab.key"))
        connection = http.client.HTTPSConnection(f"{labinfo.UNDERLAY}.{labinfo.OCTET[host]}", 7443, context=context, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", "/healthz")  # whoever asks does so in the name of the coordinator it obeys
            term = json.loads(connection.getresponse().read())["term"]
            connection.request("GET", "/v1/observe/migrations", headers={"LMO-Term": str(term)})
            return json.loads(connection.getresponse().read())["migrations"]
    return next((m["stage"] for m in labinfo.in_net("ctl", ask) if m["migration"] == ident), None)


def alive(guest, seconds=20.0):
    """The guest's stream advances."""
    ip = labinfo.guests()[guest]["ip"]

    def advances():
        try:
            return labinfo.in_net("client", labinfo.stream_lines, ip, 3, 5.0)
        except (OSError, EOFError, TimeoutError):
            return None
    return wait_until(f"the stream of {guest}", advances, seconds)


def check(*argv):
    """The independent check; its sentences are the failure."""
    done = lab("check", *argv, check=False)
    if done.returncode != 0:
        raise AssertionError("not in order:\n" + done.stdout + done.stderr)


def settled_check(*argv, seconds=45.0):
    """The check, once what was ordered has had time to settle (ports going, flows leaving). Says so when that took long."""
    begun, last = time.monotonic(), ""
    while True:
        done = lab("check", *argv, check=False)
        took = time.monotonic() - begun
        if done.returncode == 0:
            if took > 10:
                print(f"(in order after {took:.0f} s; before: {last})", end=" ")
            return
        last = " ".join((done.stdout + done.stderr).split())
        if took > seconds:
            raise AssertionError(f"not in order after {took:.0f} s:\n{done.stdout}{done.stderr}")
        time.sleep(0.2)


class Events(threading.Thread):
    """libvirt's lifecycle events of one guest on one host, as they arrive: (monotonic seconds, "SUSPENDED/MIGRATED")."""

    NAMES = {
        2: ("STARTED", ["BOOTED", "MIGRATED", "RESTORED"]),
        3: ("SUSPENDED", ["PAUSED", "MIGRATED", "IOERROR", "WATCHDOG", "RESTORED"]),
        4: ("RESUMED", ["UNPAUSED", "MIGRATED", "FROM_SNAPSHOT"]),
        5: ("STOPPED", ["SHUTDOWN", "DESTROYED", "CRASHED", "MIGRATED", "SAVED", "FAILED"]),
    }
    _loop = None

    def __init__(self, host, name, on_event=None):
        import libvirt
        super().__init__(daemon=True)
        self.libvirt, self.host, self.guest, self.on_event = libvirt, host, name, on_event
        self.seen, self.changed = [], threading.Condition()
        if Events._loop is None:
            libvirt.virEventRegisterDefaultImpl()
            libvirt.registerErrorHandler(lambda _context, _error: None, None)
            Events._loop = threading.Thread(target=self._run_loop, daemon=True)
            Events._loop.start()
        uri = f"qemu+tcp://{labinfo.UNDERLAY}.{labinfo.OCTET[host]}/system"
        self.connection = labinfo.in_net(host, libvirt.open, uri)
        self.connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._arrived, None)

    @staticmethod
    def _run_loop():
        import libvirt
        while True:
            libvirt.virEventRunDefaultImpl()

    def _arrived(self, _connection, domain, event, detail, _opaque):
        if domain.name() != self.guest:
            return
        name, details = self.NAMES.get(event, (str(event), []))
        text = f"{name}/{details[detail] if detail < len(details) else detail}"
        if self.on_event:
            self.on_event(text)
        with self.changed:
            self.seen.append((time.monotonic(), text))
            self.changed.notify_all()

    def wait(self, text, seconds=60.0):
        deadline = time.monotonic() + seconds
        with self.changed:
            while not any(name == text for _, name in self.seen):
                if not self.changed.wait(deadline - time.monotonic()):
                    raise AssertionError(f"no {text} of {self.guest} on {self.host} within {seconds:g} s: {self.seen}")

    def had(self, prefix):
        return [name for _, name in self.seen if name.startswith(prefix)]

    def close(self):
        with contextlib.suppress(self.libvirt.libvirtError):
            self.connection.close()


def kill_now(record):
    """SIGKILL to a process of the lab by its record ("ctl.lmod", "hv2.worker"), at once."""
    pid, start = (labinfo.RUN / "proc" / f"{record}.pid").read_text().split()
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if stat[19] == start:
        os.kill(int(pid), signal.SIGKILL)


def pid_of(record):
    """Of a program of the lab as seen from outside, by its record."""
    return int((labinfo.RUN / "proc" / f"{record}.pid").read_text().split()[0])


def stop_now(pid):
    """SIGSTOP; returns what wakes it. nsenter, which started it, stops with its child and must be woken too."""
    parent = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

    def wake():
        for one in (pid, parent):
            if one > 1:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGCONT)
    os.kill(pid, signal.SIGSTOP)
    return wake


def gone(pid):
    """It has ended, whether or not somebody has asked for its status."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


class SecondCoordinator:
    """A second lmod on the lab's store, on port 8444, that takes over."""

    PORT = 8444

    @staticmethod
    def configure():
        conf = labinfo.BIG / "hosts" / "ctl" / "etc" / "lmo"
        (conf / "second.conf").write_text((conf / "lmod.conf").read_text().replace(":8443", f":{SecondCoordinator.PORT}"))

    def __init__(self, lmod=None):
        self.configure()
        log = labinfo.BIG / "hosts" / "ctl" / "var" / "log" / "lmo" / "second.log"
        with open(log, "w", encoding="utf-8") as out:
            self.process = subprocess.Popen([LAB, "exec", "ctl", str(lmod or BIN / "lmod"), "--config", "/etc/lmo/second.conf",
                                             "--take-over"], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                            start_new_session=True)

    def end(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(20)


# --- faults --------------------------------------------------------------------

class Cut:
    """Packets that a host does not take in any more, by an nftables table of our own in its network namespace."""

    def __init__(self, host, *rules):
        self.host, self.rules = host, rules
        self.on = False

    def make(self):
        rules = "\n".join(self.rules)
        text = f"table inet lmotest {{\n chain cut {{\n type filter hook input priority 0;\n{rules}\n }}\n}}\n"
        subprocess.run(["nsenter", "-t", str(labinfo.host_pid(self.host)), "-n", "nft", "-f", "-"], input=text, text=True,
                       check=True, timeout=10)
        self.on = True
        return self

    def heal(self):
        if self.on and labinfo.host_pid(self.host):
            subprocess.run(["nsenter", "-t", str(labinfo.host_pid(self.host)), "-n", "nft", "delete", "table", "inet", "lmotest"],
                           check=True, timeout=10)
        self.on = False


def libvirt_reply_lost(source, destination):
    """What the destination's libvirtd answers does not reach the source any more."""
    return Cut(source, f"ip saddr {labinfo.UNDERLAY}.{labinfo.OCTET[destination]} tcp sport {{ 16509, 16514 }} drop")


def word_lost(source, destination):
    """What the source's worker answers does not reach the destination any more; what it is asked still reaches it."""
    return Cut(destination, f"ip saddr {labinfo.UNDERLAY}.{labinfo.OCTET[source]} tcp sport 7443 drop")


def control_between(source, destination):
    """Nothing of the destination's libvirtd and worker reaches the source; guest memory still flows the other way."""
    return Cut(source, f"ip saddr {labinfo.UNDERLAY}.{labinfo.OCTET[destination]} drop")


def all_between(source, destination):
    """Nothing from the destination reaches the source, on any network between hosts: the last memory, too, is stuck."""
    octet = labinfo.OCTET[destination]
    return Cut(source, f"ip saddr {{ {labinfo.UNDERLAY}.{octet}, {labinfo.MIGRATION}.{octet} }} drop")


def memory_between(source, destination):
    """Nothing from the source reaches the destination on the network for guests' memory."""
    return Cut(destination, f"ip saddr {labinfo.MIGRATION}.{labinfo.OCTET[source]} drop")


def libvirt_between(source, destination):
    """Nothing from the source reaches the destination's libvirtd."""
    return Cut(destination, f"ip saddr {labinfo.UNDERLAY}.{labinfo.OCTET[source]} tcp dport {{ 16509, 16514 }} drop")


# --- the tests' base -----------------------------------------------------------

class LabTest(unittest.TestCase):
    """One guest of the test's own, on hv1 unless the test says otherwise; at the end everything is healed, checked and
    taken away."""

    allow_errors = False  # disk errors that the guest saw are part of the test
    checked = True        # False: the test leaves the guest in a state that no check would accept
    number = 0

    def setUp(self):
        LabTest.number += 1
        self.guest = f"g{LabTest.number}"
        self.healers = []
        self.rest = Rest()

    def create(self, *argv, host="hv1"):
        lab("guest", "create", self.guest, "--host", host, "--memory", "160", *argv)
        return self.guest

    def cut(self, cut):
        self.healers.append(cut.heal)
        return cut

    def events(self, host, on_event=None):
        events = Events(host, self.guest, on_event)
        self.healers.append(events.close)
        return events

    def at_the_pause(self, host, *actions):
        """Events of the guest on `host`; the actions are run, once, at its pause for the switch-over (`acted` says so)."""
        events = self.events(host)
        events.acted = threading.Event()

        def on_event(text):
            if text == "SUSPENDED/MIGRATED" and not events.acted.is_set():
                events.acted.set()
                for action in actions:
                    action()
        events.on_event = on_event
        return events

    def heal(self):
        while self.healers:
            self.healers.pop()()

    def tearDown(self):
        self.heal()
        failed = self._outcome and any(error for _, error in getattr(self._outcome, "errors", []) if error)
        try:
            for node in labinfo.OCTET:
                lab("worker", "start", node)
            lab("lmod", "start")
            wait_until("every worker to be up", lambda: self.hosts_up() == 4, 90)
            self.finish_migrations()
            if self.guest in labinfo.guests():
                if self.checked and not failed:
                    settled_check(*(["--allow-errors"] if self.allow_errors else []))
        finally:
            if self.guest in labinfo.guests():
                gone = lab("guest", "destroy", self.guest, check=False)
                if gone.returncode != 0:
                    print(f"could not take {self.guest} away: {gone.stdout}{gone.stderr}")

    def hosts_up(self):
        try:
            return sum(h["state"] == "up" for h in self.rest.get("/v1/hosts")["hosts"])
        except (OSError, http.client.HTTPException):
            return 0

    def finish_migrations(self):
        for record in self.rest.get("/v1/migrations?limit=20")["migrations"]:
            if record["phase"] not in ENDS:
                self.rest.ended(record["id"], 90)

    def logs(self, node):
        name = "worker"
        path = labinfo.BIG / "hosts" / node / "var" / "log" / "lmo" / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def assertReason(self, record, pattern):
        self.assertRegex(record["reason"] or "", re.compile(pattern))
