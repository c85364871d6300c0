"""Simulated workers as real processes: the real coordinator, real workers on fake hypervisors (tests/simworkers), mutual TLS,
a process per worker, a proxy before each.

hv1 holds the volumes and the fabric, guests move from hv2 to hv3; every cell has a guest of its own. Needs no root, except
for cells with a full disk (a small tmpfs in a mount namespace of our own)."""
import contextlib
import ctypes
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import checks
import proxy
import rest
from faults import TRANSIENT, Problem, Unsupported
from targets.base import Guest, Target, wait_until

HOSTS = {"volumes": "hv1", "source": "hv2", "destination": "hv3"}
GUESTS_PER_HOST = 400
STATE_MIB = 48
FULL = ("database or disk is full", "No space left", "disk I/O error")  # what SQLite and the system call it
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18
# Operations and peer calls by which a rule of the proxy knows a request.
_own_mounts = False


def own_mounts():
    """From here on what this process mounts is seen by nobody else. To be called before there are threads: a namespace is a
    thread's, and those that begin later inherit it. Without the right to it there are no disks to fill."""
    global _own_mounts
    assert threading.active_count() == 1, "there are threads already"
    libc = ctypes.CDLL(None, use_errno=True)
    _own_mounts = libc.unshare(CLONE_NEWNS) == 0 and libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0


def free_ports(count):
    """So many ports in a row that nobody listens on."""
    for _ in range(200):
        base = random.randrange(20000, 31000)
        with contextlib.ExitStack() as held:
            try:
                for port in range(base, base + count):
                    one = held.enter_context(socket.socket())
                    one.bind(("127.0.0.1", port))
                return base
            except OSError:
                continue
    raise Problem("no free ports")


class Process:
    """One program of the fleet: started, killed and started again by its record, never by name."""

    def __init__(self, name, argv, log, env):
        self.name, self.argv, self.log, self.env = name, argv, log, env
        self.process = None

    def start(self):
        if self.alive():
            return
        with open(self.log, "a", encoding="utf-8") as out:
            self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                            env={**os.environ, **self.env})

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        if self.alive():
            self.process.send_signal(number)

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait(20)

    def end(self):
        """SIGTERM, and insists. Its exit status."""
        if self.alive():
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.returncode if self.process is not None else None


class SimWorkers(Target):
    name = "simworkers"

    def __init__(self, build, hosts=3, guests_per_host=GUESTS_PER_HOST, memory_mib=64, rate_mib=400, dirty_mib=10, volumes=2):
        self.bin = pathlib.Path(build) / "bin"
        self.hosts, self.guests_per_host, self.volumes = hosts, guests_per_host, volumes
        self.world = {"memory": memory_mib, "rate": rate_mib, "dirty": dirty_mib}
        self.dir, self.processes, self.proxies, self.used, self.over_since = None, {}, {}, 0, None
        self.second_port, self.rules = False, []
        self.has_points = built_with_points(self.bin / "lmod")

    # ---- up and down

    def up(self):
        if not (self.bin / "lmo-simworkers").exists():
            raise Problem(f"{self.bin}/lmo-simworkers is missing (make faults-build)")
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="lmo-faults-"))
        self.base = free_ports(self.hosts + 2)
        self.orders_path = self.dir / "orders"
        self.orders_path.write_text("# none\n")
        if _own_mounts:
            self.small_disks()
        self._spawn("keeper", "--make", "--hosts", self.hosts, "--guests", self.hosts * self.guests_per_host, "--volumes",
                    self.volumes, "--workers", 0, "--memory", self.world["memory"], "--rate", self.world["rate"], "--dirty",
                    self.world["dirty"])
        for n in range(self.hosts):
            self._spawn(f"hv{n + 1}", "--first", n, "--workers", 1)
        pki = self.dir / "pki"
        wait_until("the world and its certificates", lambda: self.ready("keeper"), 60)
        for n in range(self.hosts):
            host = f"hv{n + 1}"
            wait_until(f"the worker of {host}", lambda h=host: self.ready(h), 60)
            self.proxies[host] = proxy.Proxy(host, ("127.0.0.1", 0), ("127.0.0.1", self.base + n), pki / "ca.pem", self.files)
        for second in (False, True):
            self.configure(second)
        self.spawn_lmod("lmod")
        self.connect(self.base + self.hosts)
        wait_until("the coordinator", self.answers, 30)
        for host, one in self.proxies.items():
            status, body = self.rest.call("POST", "/v1/hosts", {"name": host, "url": f"https://127.0.0.1:{one.address[1]}"})
            if status != 201:
                raise Problem(f"host {host}: {status} {body}")
        self.settle()

    def small_disks(self):
        """State directories on disks that can be filled."""
        for name in ["lmod"] + [f"state/hv{n + 1}" for n in range(self.hosts)]:
            path = self.dir / name
            path.mkdir(parents=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={STATE_MIB}m,mode=700", "lmo-faults", str(path)], check=True)

    def files(self, identity):
        role, _, name = identity.partition(":")
        issued = self.dir / "pki" / "issued"
        return issued / f"{role}-{name}.pem", issued / f"{role}-{name}.key"

    def configure(self, second):
        pki, port = self.dir / "pki", self.base + self.hosts + second
        (self.dir / ("second.conf" if second else "lmod.conf")).write_text(f"""[coordinator]
listen = 127.0.0.1:{port}
state_dir = {self.dir}/lmod
pre_production = yes

[limits]
max_migrations = 64

[tls]
ca = {pki}/ca.pem
crl = {pki}/crl.pem
cert = {pki}/issued/coordinator-fleet.pem
key = {pki}/issued/coordinator-fleet.key
permit_key = {pki}/permit.key
""")

    def connect(self, port):
        if self.rest:
            self.rest.close()
        pki = self.dir / "pki"
        self.rest = rest.Rest(("127.0.0.1", port), pki / "ca.pem", pki / "issued" / "operator-fleet.pem",
                              pki / "issued" / "operator-fleet.key", timeout=4)

    def environment(self, name):
        return {"LMO_FAULT_ORDERS": str(self.orders_path), "LMO_FAKE_CLOCK": str(self.dir / f"{name}.clock"),
                "LD_PRELOAD": str(self.bin / "liblmo-fakeclock.so")}

    def _spawn(self, name, *argv):
        argv = [str(self.bin / "lmo-simworkers"), "--dir", str(self.dir), "--base-port", str(self.base), *map(str, argv)]
        self.processes[name] = Process(name, argv, self.dir / f"{name}.log", self.environment(name))
        self.processes[name].start()

    def spawn_lmod(self, name, *more):
        conf = self.dir / ("second.conf" if name == "second" else "lmod.conf")
        argv = [str(self.bin / "lmod"), "--config", str(conf), *more]
        self.processes[name] = Process(name, argv, self.dir / f"{name}.log", self.environment(name))
        self.processes[name].start()

    def ready(self, name):
        process = self.processes[name]
        if not process.alive():
            raise Problem(f"{name} ended: {process.log.read_text()[-400:]}")
        return "ready" in process.log.read_text()

    def down(self):
        """Returns what went wrong in a process: an exit status that nobody ordered, a violation that the world saw."""
        if self.rest:
            self.rest.close()
        for one in self.proxies.values():
            one.close()
        for name in sorted(self.processes, key=lambda n: (n == "keeper", n)):
            self.processes[name].end()
        wrong = []
        keeper = self.processes.get("keeper")
        if keeper and keeper.process.returncode not in (0, None):
            wrong.append(f"the world: {keeper.log.read_text().strip().splitlines()[-1][:300]}")
        if self.dir and _own_mounts:
            for name in ["lmod"] + [f"state/hv{n + 1}" for n in range(self.hosts)]:
                subprocess.run(["umount", str(self.dir / name)], check=False, capture_output=True)
        if self.dir and not os.environ.get("LMO_FAULTS_KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)
        return wrong

    # ---- cells

    def program(self, part):
        if part == "coordinator":
            return self.processes["second" if self.second_port else "lmod"]
        return self.processes[HOSTS.get(part, part)]

    def prepare(self, cell):
        self.settle()
        self.witnesses = []
        index = self.used * self.hosts + 1  # begins at hv2
        self.used += 1
        if self.used > self.guests_per_host:
            raise Problem("no guest is left")
        shut_off = cell.guest.get("shut_off", False)
        self.guest = Guest(f"guest-{index}", HOSTS["source"], HOSTS["destination"], shut_off)
        if cell.guest.get("paused"):
            raise Unsupported("a guest that its owner paused")
        if shut_off:
            self.ctl("shut-off", self.guest.name)

    def check(self, cell, record, result):
        deadline = time.monotonic() + 20
        self.count_witnesses(result)
        while True:
            wrong = checks.of_world(self.look(self.guest.name), self.guest, result.outcome)
            if not wrong and result.outcome in checks.DEFINED_IN:
                wrong = checks.of_doctor(self.doctor())
            if not wrong or time.monotonic() > deadline:
                return wrong
            time.sleep(0.2)

    def doctor(self):
        patient = rest.Rest(self.rest.address, *self.rest.files, timeout=40)  # it waits for hosts, 12 s for a silent one
        with contextlib.closing(patient), contextlib.suppress(*TRANSIENT):
            status, body = patient.call("POST", "/v1/doctor", {})
            if status == 200:
                return body["findings"]
        return [{"kind": "no answer", "detail": "the doctor did not answer"}]

    def look(self, *guest):
        return json.loads(self.ctl("look", *guest))

    def ctl(self, *argv, check=True):
        done = subprocess.run([str(self.bin / "lmo-simctl"), str(self.dir), *map(str, argv)], capture_output=True, text=True,
                              timeout=30, check=False)
        if check and done.returncode != 0:
            raise Problem(f"lmo-simctl {' '.join(map(str, argv))}: {done.stderr or done.returncode}")
        return done.stdout

    def settle(self):
        for rule_host, rule in self.rules:
            self.proxies[rule_host].remove(rule)
        self.rules = []
        if self.second_port:
            self.processes["second"].end()
            self.second_port = False
            self.connect(self.base + self.hosts)
        for name in ["keeper"] + [f"hv{n + 1}" for n in range(self.hosts)] + ["lmod"]:
            self.processes[name].start()
        wait_until("every worker to be up", self.all_up, 60)

    def all_up(self):
        try:
            return all(h["state"] == "up" for h in self.rest.get("/v1/hosts")["hosts"])
        except (*TRANSIENT, AssertionError):
            return False

    def answers(self):
        try:
            return self.rest.get("/healthz")["pre_production"]
        except TRANSIENT:
            return False

    def over(self, drive):
        if self.struck(drive.order[0]):
            return True
        with contextlib.suppress(*TRANSIENT, AssertionError):
            drive.record = self.rest.migration(drive.ident)
        return drive.record["phase"] in rest.ENDS

    # ---- programs

    def has_died(self, part):
        wait_until(f"{part} to end", lambda: not self.program(part).alive(), 10)

    def start(self, part):
        self.program(part).start()

    def do_kill(self, action, _cell):
        program = self.program(action["who"])
        program.kill()
        return program.start

    def do_stop(self, action, _cell):
        program = self.program(action["who"])
        program.signal(signal.SIGSTOP)
        return lambda: program.signal(signal.SIGCONT)

    def do_take_over(self, _action, _cell):
        old = self.processes["lmod"]
        self.spawn_lmod("second", "--take-over")
        self.second_port = True
        self.connect(self.base + self.hosts + 1)

        def old_one_ends():
            old.signal(signal.SIGCONT)
            wait_until("the coordinator that was asleep to end itself", lambda: not old.alive(), 10)
        return old_one_ends

    # ---- the network

    def rule(self, host, rule):
        self.proxies[host].add(rule)
        self.rules.append((host, rule))
        self.witness(f"{rule.what} {rule.call or rule.caller}", lambda: rule.struck > 0)
        return lambda: self.proxies[host].remove(rule)

    @staticmethod
    def caller(part):
        return "coordinator:" if part == "coordinator" else f"worker:{HOSTS[part]}"

    def do_cut(self, action, _cell):
        until = time.monotonic() + action["for_s"]
        pairs = [(action["from"], action["to"])] + ([(action["to"], action["from"])] if action.get("both") else [])
        undo = []
        for sender, receiver in pairs:
            if receiver != "coordinator":
                undo.append(self.rule(HOSTS[receiver], proxy.Rule("cut", caller=self.caller(sender), until=until)))
            if sender != "coordinator":
                undo.append(self.rule(HOSTS[sender], proxy.Rule("cut_replies", caller=self.caller(receiver), until=until)))
        return lambda: [u() for u in undo]

    def do_delay(self, action, _cell):
        until = time.monotonic() + action["for_s"]
        call = pattern(action["call"]) if "call" in action else ""
        return self.rule(HOSTS[action["to"]], proxy.Rule("delay", call=call, ms=action["ms"], until=until))

    def do_lose(self, action, _cell):
        what = {"request": "lose_request", "reply": "lose_reply"}[action["what"]]
        return self.kept(self.rule(HOSTS[action["to"]], proxy.Rule(what, call=pattern(action["call"]), times=action.get("times", 1))))

    def do_repeat(self, action, _cell):
        return self.kept(self.rule(HOSTS[action["to"]], proxy.Rule("repeat", call=pattern(action["call"]),
                                                                  ms=action.get("late_ms", 0), times=action.get("times", 1))))

    @staticmethod
    def kept(_undo):
        """It ends by itself when it has struck; what never struck goes when the cell is over (settle)."""
        return None

    def do_refuse(self, action, _cell):
        until = time.monotonic() + action["for_s"]
        return self.rule(HOSTS[action["to"]], proxy.Rule("refuse", call=pattern(action["call"]), index=action.get("index", -1),
                                                        until=until))

    # ---- hypervisors and services

    def do_finish_lost(self, _action, _cell):
        self.ctl("finish-lost", self.guest.name)

    def do_copy_dies(self, _action, _cell):
        self.ctl("copy-dies", self.guest.name)

    def do_volume_service_kill(self, _action, _cell):
        calls = ("check_volume", "attach", "fence", "verify", "detach")
        for call in calls:
            self.ctl("fail", call, 1000000)
        return lambda: [self.ctl("fail", call, 0) for call in calls]

    # ---- the programs' surroundings

    def do_disk_full(self, action, _cell):
        if not _own_mounts:
            raise Unsupported("a small disk of our own (needs root)")
        name = HOSTS.get(action["who"])
        filler = self.dir / (f"state/{name}" if name else "lmod") / "filler"
        fill(filler)
        log = self.dir / f"{name or 'lmod'}.log"
        begins = log.stat().st_size
        self.witness("disk_full", lambda: any(word in log.read_text(errors="replace")[begins:] for word in FULL))
        return lambda: filler.unlink(missing_ok=True)

    def do_clock(self, action, _cell):
        name = HOSTS.get(action["who"], "lmod")
        path = self.dir / f"{name}.clock"
        path.write_text(str(action["ms"]))
        return (lambda: path.write_text("0")) if "for_s" in action else None

    def do_certificate_expires(self, action, _cell):
        """Short-lived certificate in its place, and SIGHUP; a good one when it is healed. Nobody plays a part meanwhile: the
        proxies pass on what they get."""
        role, name = self.identity(action["who"])
        for one in self.proxies.values():
            one.set_raw(True)
        self.issue(role, name, action["lifetime_s"])
        self.program(action["who"]).signal(signal.SIGHUP)
        expires = time.monotonic() + action["lifetime_s"]
        self.witness("certificate_expires", lambda: time.monotonic() > expires)

        def renew():
            self.issue(role, name, 86400)
            self.program(action["who"]).signal(signal.SIGHUP)
            self.pass_on()
        return renew

    def do_certificate_rotated(self, action, _cell):
        """What an administrator does with a key that may be known: a new pair, the old certificate revoked, and everybody told."""
        role, name = self.identity(action["who"])
        for one in self.proxies.values():
            one.set_raw(True)
        old = self.serial(role, name)
        self.issue(role, name, 86400)
        self.program(action["who"]).signal(signal.SIGHUP)
        self.pki("revoke", old)
        for part in ("lmod", *(f"hv{n + 1}" for n in range(self.hosts))):
            self.processes[part].signal(signal.SIGHUP)
        log = self.dir / "pki" / "crl.pem"
        self.witness("certificate_rotated", lambda: log.exists() and self.serial(role, name) != old)
        return self.pass_on

    def pass_on(self):
        for one in self.proxies.values():
            one.read_certificates()
            one.set_raw(False)

    @staticmethod
    def identity(part):
        return ("coordinator", "fleet") if part == "coordinator" else ("worker", HOSTS[part])

    def serial(self, role, name):
        listed = json.loads(self.pki("list", "--json"))["certificates"]
        return [c["serial"] for c in listed if (c["role"], c["name"], c["status"]) == (role, name, "valid")][-1]

    def pki(self, *argv):
        return subprocess.run([str(self.bin / "lmo"), "pki", argv[0], "--dir", str(self.dir / "pki"), *argv[1:]], check=True,
                              capture_output=True, text=True, timeout=30).stdout

    def issue(self, role, name, seconds):
        self.pki("issue", "--role", role, "--name", name, "--seconds", str(seconds), "--renew")


def fill(path):
    """Takes what is left of a small disk."""
    block = b"\0" * 65536
    with open(path, "wb", buffering=0) as out:
        with contextlib.suppress(OSError):
            while out.write(block) == len(block):
                if out.tell() > STATE_MIB << 20:
                    raise Problem(f"{path} is not on a small disk")


def pattern(call):
    """"attach": the order's request; "peer freeze": what one worker asks of another."""
    return rf"/v1/peer/{call.removeprefix('peer ')}$" if call.startswith("peer ") else rf"^PUT .* {call}$"


def built_with_points(program):
    done = subprocess.run([str(program), "--version"], capture_output=True, text=True, timeout=10, check=False) \
        if program.exists() else None
    return done is not None and "fault points: none" not in done.stdout
