"""What the demo and the bench do with a guest of the lab: move it, plainly or with LMO, hurt it, and watch.

Everything that is judged is seen from outside: libvirt's events on both hosts, the users' probe and stream, the history
of writes at the volume service, frames on the wire. LMO's own record only adds where its time went. All times are
CLOCK_REALTIME in microseconds, because five programs have to agree on them.
"""
import ctypes
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

TREE = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("LMO_LAB", "demo")
sys.path.insert(0, str(TREE / "tests" / "lab"))
import harness  # noqa: E402
from harness import lab, labinfo, wait_until  # noqa: E402

try:
    import libvirt
except ImportError:
    sys.exit("python3-libvirt is missing: deploy/setup.sh installs it")


def _load(path):
    loader = importlib.machinery.SourceFileLoader(path.name.replace("-", "_"), str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


plain_migrate = _load(TREE / "deploy" / "lab" / "plain-migrate")

PROXY_PORT = 10810
PROBE_MS = 5
HISTORY = labinfo.BIG / "hosts" / "ctl" / "var" / "log" / "volume-proxy.history"


def now_us():
    return time.time_ns() // 1000


def ms(us):
    return round(us / 1000, 1)


def namespace(host, *argv, net_only=True):
    pid = str(labinfo.host_pid(host))
    return ["nsenter", "-t", pid, "-n", "--", *argv] if net_only else \
           ["nsenter", "-t", pid, "-m", "-u", "-i", "-n", "-p", "--", *argv]


_libc = ctypes.CDLL(None)


def _die_with_parent():
    _libc.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: a demo that is killed leaves no probe behind


def start(argv, **kwargs):
    return subprocess.Popen(argv, preexec_fn=_die_with_parent, **kwargs)


def tool(name, *argv):
    """Runs one of the JSON tools to its end; a verdict of "something is wrong" is an answer, not a failure."""
    done = subprocess.run([str(harness.BIN / name), *argv], capture_output=True, text=True, timeout=60, check=False)
    if not done.stdout:
        raise RuntimeError(f"{name}: {done.stderr.strip() or done.returncode}")
    return json.loads(done.stdout)


# --- the guest -------------------------------------------------------------------

class Guest:
    """A guest whose disk goes through the delaying proxy. Gone at the end of `with`."""

    def __init__(self, name, host="hv1", memory_mib=256, dirty_mib_s=10, proxied=True):
        self.name = name
        self.argv = ["--host", host, "--memory", str(memory_mib), "--dirty-rate", str(dirty_mib_s), "--disk", "1"]
        if proxied:
            self.argv += ["--volume-port", str(PROXY_PORT)]

    def __enter__(self):
        lab("guest", "create", self.name, *self.argv)
        record = labinfo.guests()[self.name]
        self.ip, self.mac, self.volume, self.record = record["ip"], record["mac"], record["volume"], record
        return self

    def __exit__(self, *_):
        lab("guest", "destroy", self.name, check=False)

    def export(self, host):
        """The export that the guest uses on that host now."""
        xml = harness.virsh(host, "dumpxml", self.name)
        at = xml.index("protocol='nbd' name='") + len("protocol='nbd' name='")
        return xml[at:xml.index("'", at)]

    def volume_verdict(self, host):
        """Pauses the guest, so that nothing is under way, and judges every slot of its volume."""
        harness.virsh(host, "suspend", self.name)
        try:
            return tool("volcheck", "--volume", str(labinfo.BIG / "volumes" / f"{self.volume}.raw"))["volume"]
        finally:
            harness.virsh(host, "resume", self.name)

    def history_verdict(self, since_us, fenced=None, until_us=None):
        """Judges the writes that reached the volume service since then. fenced: {export: microseconds}."""
        argv = ["--history", str(HISTORY), "--prefix", self.volume + ".", "--since", str(since_us)]
        if until_us:
            argv += ["--until", str(until_us)]
        for export, at_us in (fenced or {}).items():
            argv += ["--fenced", f"{export}={at_us}"]
        return tool("volcheck", *argv)["history"]


class Proxy:
    """The delaying proxy's control socket."""

    @staticmethod
    def ask(*words):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(f"/proc/{labinfo.host_pid('ctl')}/root/run/lmo-volumes/proxy.ctl")
            sock.sendall((" ".join(words) + "\n").encode())
            answer = b""
            while chunk := sock.recv(65536):
                answer += chunk
        return json.loads(answer)


class LateWrite:
    """A copy of one write that the source issued, kept on its established session and let go when the guest runs elsewhere.

    Made when enough later writes have gone round the disk that the slot it is meant for holds a newer record: landing
    late, it would overwrite newer data with older.
    """

    def __init__(self, guest, host):
        self.export = guest.export(host)
        Proxy.ask("capture", self.export)
        slots = guest.record["disk_mib"] * 256
        self.item = wait_until("a write to keep back", lambda: next(iter(Proxy.ask("status")["items"]), None), 10)
        wait_until("newer writes to its place on the disk", lambda: self.newest() > self.item["seq"] + slots + 5, 60, 0.1)
        self.answer = None

    def newest(self):
        with open(HISTORY, "rb") as file:
            file.seek(max(0, HISTORY.stat().st_size - 4096))
            lines = file.read().decode().splitlines()[1:-1]
        mine = [line.split() for line in lines]
        return max((int(row[7]) for row in mine if row[4] == self.export and int(row[1]) > self.item["kept_us"]), default=0)

    def release(self):
        self.released_us = now_us()
        answer = Proxy.ask("release")
        self.answer = answer["items"][0] if answer["items"] else None

    def report(self, history):
        """What became of it, by the proxy's answer and by the volume's history (two witnesses)."""
        landed = any(fault["what"] == "stale" for fault in history["faults"])
        if self.answer is None:
            return {"released": False}
        return {"released": True, "export": self.export, "seq": self.item["seq"], "kept_us": self.item["kept_us"],
                "released_us": self.answer["released_us"], "session": self.answer["session"],
                "reply": self.answer["reply"], "reconnect": self.answer["reconnect"],
                "accepted": self.answer["accepted"] or landed,
                "refused": not self.answer["accepted"] and not landed and history["stale"] == 0}


# --- who watches ------------------------------------------------------------------

class Users:
    """What the guest's users notice: datagrams every 5 ms, and one TCP connection that sends a line every 5 ms."""

    def __init__(self, guest):
        self.log = labinfo.RUN / "probe.log"
        self.windows = labinfo.RUN / "probe.windows"
        self.windows.write_text("")
        self.probe = start(namespace("client", str(harness.BIN / "probe"), "-i", str(PROBE_MS), "--log", str(self.log),
                                     "--events", str(self.windows), guest.ip), stdout=subprocess.PIPE, text=True)
        self.stream = start(namespace("client", str(harness.BIN / "streamcheck"), guest.ip),
                            stdout=subprocess.PIPE, text=True)

    def end(self, pauses=()):
        """Stops both; returns (probe, stream). pauses: [(start_us, end_us)] to line the losses up with."""
        self.windows.write_text("".join(f"{begin} {end}\n" for begin, end in pauses))
        reports = []
        for process in (self.probe, self.stream):
            process.send_signal(signal.SIGINT)
        for process in (self.probe, self.stream):
            out, _ = process.communicate(timeout=30)
            reports.append(json.loads(out))
        return reports

    def kill(self):
        for process in (self.probe, self.stream):
            if process.poll() is None:
                process.kill()
                process.communicate()


class Watch:
    """libvirt's events of a guest on two hosts, as they arrive; calls hooks from the event thread."""

    def __init__(self, guest, hosts):
        self.hooks, self.entries = {}, []
        self.streams = {host: harness.Events(host, guest.name, lambda text, h=host: self._arrived(h, text))
                        for host in hosts}

    def _arrived(self, host, text):
        self.entries.append((now_us(), host, text))
        hook = self.hooks.pop((host, text), None)
        if hook:
            hook()

    def at(self, host, text, hook):
        """Calls `hook` once, at the first such event."""
        self.hooks[host, text] = hook

    def first(self, host, prefix):
        return next((at for at, where, text in self.entries if where == host and text.startswith(prefix)), None)

    def wait(self, host, prefix, seconds=60):
        return wait_until(f"{prefix} on {host}; seen: {[e[1:] for e in self.entries]}",
                          lambda: self.first(host, prefix), seconds, 0.002)

    def close(self):
        for events in self.streams.values():
            events.close()


class Frames:
    """Which host's frames of the guest reach the fabric (tests/demo/frames)."""

    def __init__(self, guest, hosts):
        self.log = labinfo.RUN / "frames.log"
        self.process = start(namespace("fabric", str(TREE / "tests" / "demo" / "frames"), guest.mac, str(self.log), *hosts),
                             stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.communicate(timeout=10)
        rows = [line.split() for line in self.log.read_text().splitlines()] if self.log.exists() else []
        return [(int(at), host, kind) for at, host, kind in rows]


# --- faults that are ready before they are needed ------------------------------------

class Cut:
    """An nftables table of ours that takes effect within milliseconds of make(): nft is already waiting for its input."""

    def __init__(self, host, family, chain, *rules):
        self.host, self.family = host, family
        self.text = f"table {family} lmodemo {{\n chain cut {{\n  {chain}\n" + \
                    "".join(f"  {rule}\n" for rule in rules) + " }\n}\n"
        self.process = start(namespace(host, "nft", "-f", "-"), stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.made_us, self.on = None, False

    def make(self):
        _out, error = self.process.communicate(self.text, timeout=10)
        if self.process.returncode:
            raise RuntimeError(f"nft in {self.host}: {error}")
        self.made_us, self.on = now_us(), True

    def heal(self):
        if self.process.poll() is None:  # never needed
            self.process.stdin.close()
            self.process.stdin = None
            self.process.communicate(timeout=10)
        if self.on and labinfo.host_pid(self.host):
            subprocess.run(namespace(self.host, "nft", "delete", "table", self.family, "lmodemo"), check=True, timeout=10)
        self.on = False


def address(host, network=None):
    return f"{network or labinfo.UNDERLAY}.{labinfo.OCTET[host]}"


def libvirt_replies_lost(source, destination):
    """What the destination's libvirt answers does not reach the source any more; all else does."""
    return Cut(source, "inet", "type filter hook input priority 0;",
               f"ip saddr {address(destination)} tcp sport {{ 16509, 16514 }} counter drop")


def all_replies_lost(source, destination):
    """Nothing that the destination sends reaches the source any more, libvirt and workers alike. The last of the guest's
    memory, on the network of its own, still gets through: without it there would be nothing to decide."""
    return Cut(source, "inet", "type filter hook input priority 0;", f"ip saddr {address(destination)} counter drop")


def no_cable(one, other):
    """Nothing at all between two hosts, on any network, in either direction."""
    return Cut("fabric", "bridge", "type filter hook forward priority 0;",
               f'iifname "{one}-*" oifname "{other}-*" counter drop', f'iifname "{other}-*" oifname "{one}-*" counter drop')


def kill_coordinator():
    pid = int((labinfo.RUN / "proc" / "ctl.lmod.pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)


# --- moving ----------------------------------------------------------------------

class PlainMove:
    """A migration as it is done today: a second export, libvirt's call, and when that has returned the port moves and the
    first export goes. No gate, no freeze, no fence. Both copies of the guest may write to the volume at any time.

    shared: one export for both hosts, as storage without exclusion has it (and as a guest needs it that LMO moves next).
    """

    def __init__(self, guest, source, destination, shared=False):
        self.guest, self.source, self.destination, self.shared = guest, source, destination, shared
        self.connection = labinfo.in_net("ctl", libvirt.open, f"qemu+tcp://{address(source)}/system")
        self.domain = self.connection.lookupByName(guest.name)
        live = self.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE)
        persistent = self.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
        self.volume = plain_migrate.Volume({"volume": None if shared else guest.volume}, live, destination)
        self.volume.add()
        self.parameters = {
            libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{address(destination, labinfo.MIGRATION)}",
            libvirt.VIR_MIGRATE_PARAM_DEST_XML: plain_migrate.destination_xml(live, self.volume),
            libvirt.VIR_MIGRATE_PARAM_PERSIST_XML: plain_migrate.destination_xml(persistent, self.volume),
        }
        self.entries, self.error, self.thread = [], None, None

    def note(self, what):
        self.entries.append((now_us(), "lab", what))

    def call(self):
        flags = (libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_UNSAFE |
                 libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE)
        self.begun_us = now_us()
        self.note("libvirt's migrate call")
        try:
            self.domain.migrateToURI3(f"qemu+tcp://{address(self.destination)}/system", self.parameters, flags)
            self.note("call returns")
        except libvirt.libvirtError as failure:
            self.error = failure.get_error_message()
            self.note("call fails")
        self.returned_us = now_us()

    def start(self):
        self.thread = threading.Thread(target=self.call, daemon=True)
        self.thread.start()

    def join(self, seconds):
        self.thread.join(seconds)
        if self.thread.is_alive():
            raise RuntimeError(f"libvirt's migrate call did not return within {seconds:g} s")

    def finish(self):
        """What people do once the call has returned."""
        plain_migrate.move_port({"name": self.guest.name, "port": self.guest.record["port"]}, self.destination,
                                time.monotonic() + 30)
        self.note("port moved")
        if not self.shared:
            self.volume.remove(self.volume.old)
            self.note("old export removed")
        self.ended_us = now_us()

    def close(self):
        self.connection.close()


class LmoMove:
    """A migration with LMO: one request; the record says when it is over."""

    def __init__(self, guest, destination, rest=None, **policy):
        self.guest, self.destination, self.rest, self.policy = guest, destination, rest or harness.Rest(), policy
        self.record = None

    def start(self):
        self.rest.get("/v1/hosts")  # the connection is up: what is measured is the request
        self.begun_us = now_us()
        self.id = self.rest.migrate(self.guest.name, self.destination, **self.policy)["id"]
        self.accepted_us = now_us()

    def join(self, seconds=120.0):
        self.record = self.rest.ended(self.id, seconds)
        self.ended_us = now_us()
        return self.record

    def journal(self):
        return self.rest.journal(self.id)


# --- figures of one move ------------------------------------------------------------

def figures(users, watch, source, destination):
    """Ends the probe and the stream; blackout and what the users noticed of it."""
    suspended, resumed = watch.first(source, "SUSPENDED/"), watch.first(destination, "RESUMED/")
    probe, stream = users.end([(suspended, resumed)] if suspended and resumed else [])
    rows = [[int(word) for word in line.split()] for line in users.log.read_text().splitlines()]
    zero = suspended or probe["started_us"]
    return {
        "suspended_us": suspended, "resumed_us": resumed,
        "blackout_ms": ms(resumed - suspended) if suspended and resumed else None,
        # Both measured outside: the users' longest wait for a reply, less the time in which nobody could have answered.
        "added_gap_ms": round(probe["longest_gap_ms"] - (resumed - suspended) / 1000, 1) if suspended and resumed else None,
        "probe": {key: probe[key] for key in
                  ("sent", "received", "lost", "dup", "longest_gap_ms", "reordered", "interval_ms", "pauses", "rtt",
                   "late_sends", "worst_send_delay_ms")} |
                 {"lost_sent_ms": [ms(row[1] - zero) for row in rows if not row[2]][:50],
                  "dup_sent_ms": [ms(row[1] - zero) for row in rows if row[3]][:50]},
        "stream": {key: stream[key] for key in
                   ("resets", "closes", "stall_ms", "records", "missing", "reordered", "reconnects", "tick_went_back")} |
                  {"survived": stream["connections"] == 1 and not stream["resets"] and not stream["closes"]},
        "guest": {"disk_conflicts": stream["disk"]["conflicts"], "disk_errors": stream["disk"]["errors"],
                  "memory_errors": stream["memory_errors"], "boots": len(stream["boots"])},
    }


def record_figures(record):
    """What LMO's own record says about where the time went."""
    cutover = record["cutover"]
    phases = [{"name": p["name"], "ms": p["ms"]} for p in record["phases"]]
    total = record["phases"][-1]["ended_ms"] - record["created_ms"]
    call = record["migrate_call_ms"]
    return {
        "phases": phases, "accepted_to_completed_ms": total, "call_ms": call,
        "orchestration_ms": total - call if call is not None else None,
        "loaded_to_resumed_ms": cutover["loaded_to_resumed_ms"],
        "cutover": {key: cutover[key] for key in
                    ("blackout_ms", "freeze_ms", "fence_ms", "verify_ms", "freeze_answer", "evidence")},
    }


# --- what it costs ----------------------------------------------------------------

class Cost:
    """CPU and memory of LMO's processes: the coordinator and every worker."""

    def __init__(self):
        self.pids = {}
        for path in (labinfo.RUN / "proc").iterdir():
            host, name, suffix = path.name.split(".")
            if suffix == "pid" and name in ("lmod", "worker"):
                self.pids[f"{name}@{host}"] = int(path.read_text().split()[0])

    def cpu_ms(self):
        """{process: CPU time of all its threads so far, user and system}: the kernel's process clock, in nanoseconds."""
        return {name: time.clock_gettime_ns((~pid << 3) | 2) / 1e6 for name, pid in self.pids.items()}

    def pss_mib(self):
        found = {}
        for name, pid in self.pids.items():
            for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    found[name] = round(int(line.split()[1]) / 1024, 1)
        return found
