"""The lab: real libvirt, QEMU, OVN and volume service on three hosts made of namespaces (deploy/lab).

A lab that is up already is used and left up: its LMO programs are exchanged for those with fault points, and put back
afterwards. One guest serves many cells, from wherever the cell before left it. A proxy stands before every worker: what
reaches a host's port 7443 is redirected to it inside that host's own network. The independent check is deploy/lab/check."""
import contextlib
import json
import os
import pathlib
import resource
import signal
import subprocess

import checks
import proxy
import rest
from faults import TRANSIENT, Problem, Unsupported
from targets.base import Guest, Target, wait_until
from targets.simworkers import built_with_points, pattern

PROXY_PORT, WORKER_PORT, REST_PORT = 7444, 7443, 8443


class Lab(Target):
    name = "lab"

    def __init__(self, build, keep=False):
        self.build, self.keep = pathlib.Path(build).resolve(), keep
        self.was_up, self.proxies, self.rules, self.second, self.probe, self.events = False, {}, [], None, None, None
        self.count, self.kind, self.lost_finish, self.report = 0, None, None, None
        self.given_up = []  # migrations that were closed with what they left still there
        os.environ.setdefault("LMO_LAB", "faults")
        os.environ.setdefault("LMO_BUILD", str(self.build))
        import harness
        self.h = harness
        self.has_points = built_with_points(self.build / "bin" / "lmod")

    # ---- up and down

    def up(self):
        h = self.h
        self.was_up = h.labinfo.host_pid("ctl") is not None
        if not self.was_up:
            h.lab("down")
            h.lab("up", timeout=300, env={"LMO_BUILD": str(self.build)})
        directory = h.labinfo.BIG / "faults"
        directory.mkdir(exist_ok=True)
        self.orders_path = directory / "orders"
        self.orders_path.write_text("# none\n")
        self.environment = {"LMO_BUILD": str(self.build), "LMO_FAULT_ORDERS": str(self.orders_path)}
        self.connect(REST_PORT)
        self.programs("stop")
        for host in h.labinfo.OCTET:
            self.intercept(host)
        self.programs("start")
        self.settle()

    def programs(self, action, environment=None):
        environment = environment or self.environment
        for node in self.h.labinfo.OCTET:
            self.h.lab("worker", action, node, env=environment)
        self.h.lab("lmod", action, env=environment)

    def intercept(self, host):
        """What comes to this host's worker from elsewhere passes our proxy; what the proxy itself sends does not come in."""
        info = self.h.labinfo
        address = f"{info.UNDERLAY}.{info.OCTET[host]}"
        self.proxies[host] = proxy.Proxy(host, (address, PROXY_PORT), (address, WORKER_PORT), info.BIG / "pki" / "ca.pem",
                                         self.files, lambda function, *args: info.in_net(host, function, *args))
        self.nft(host, f"table ip lmofaults {{\n chain pre {{\n type nat hook prerouting priority dstnat;\n"
                       f" tcp dport {WORKER_PORT} redirect to :{PROXY_PORT}\n }}\n}}\n")

    def nft(self, host, text, check=True):
        subprocess.run(["nsenter", "-t", str(self.h.labinfo.host_pid(host)), "-n", "nft", "-f", "-"], input=text, text=True,
                       check=check, timeout=10, capture_output=not check)

    def files(self, identity):
        role, _, name = identity.partition(":")
        issued = self.h.labinfo.BIG / "pki" / "issued"
        return issued / f"{role}-{name}.pem", issued / f"{role}-{name}.key"

    def connect(self, port):
        info = self.h.labinfo
        pki = info.BIG / "pki"
        if self.rest:
            self.rest.close()
        self.rest = rest.Rest((f"{info.UNDERLAY}.{info.OCTET['ctl']}", port), pki / "ca.pem", pki / "issued" / "operator-lab.pem",
                              pki / "issued" / "operator-lab.key", lambda function: info.in_net("ctl", function), timeout=4)

    def down(self):
        self.end_probe()
        self.remove_guest()
        with contextlib.suppress(Exception):
            self.settle()
        for host, one in self.proxies.items():
            one.close()
            if self.h.labinfo.host_pid(host):
                self.nft(host, "delete table ip lmofaults\n", check=False)
        self.proxies = {}
        if not self.was_up and not self.keep:
            self.h.lab("down")
        elif self.was_up:
            self.programs("stop")
            self.programs("start", {"LMO_BUILD": os.environ["LMO_BUILD"], "LMO_FAULT_ORDERS": ""})
            wait_until("every worker to be up", self.all_up, 60)
        return []

    # ---- cells

    def prepare(self, cell):
        self.settle()
        self.witnesses = []
        kind = (cell.guest.get("paused", False), cell.guest.get("shut_off", False), cell.guest.get("volumes", 1))
        if self.guest is None or self.kind != kind or kind[1]:
            self.remove_guest()
            self.create(kind)
        else:
            source = self.h.where(self.guest.name)
            self.guest = Guest(self.guest.name, source, "hv2" if source == "hv1" else "hv1")
        self.parts = {"source": self.guest.source, "destination": self.guest.destination, "volumes": "ctl", "coordinator": "ctl"}
        self.arm_hypervisor(cell)
        self.begin_probe()

    def create(self, kind):
        self.count += 1
        name = f"f{self.count}"
        self.kind = paused, shut_off, volumes = kind
        self.h.lab("guest", "create", name, "--host", "hv1", "--memory", "160", "--dirty-rate", "10",
                   *(["--paused"] if paused else []), *(["--shut-off"] if shut_off else []), *(["--second-disk", "16"] if volumes > 1 else []))
        self.guest = Guest(name, "hv1", "hv2", shut_off, paused)

    def remove_guest(self):
        if self.guest is not None:
            with contextlib.suppress(Exception):
                self.h.lab("guest", "destroy", self.guest.name)
            self.guest = None

    def give_up_on(self, record):
        """The cells that follow get another guest; what a person would have had to decide is closed."""
        if record and record["phase"] == "attention":
            self.rest.call("POST", f"/v1/migrations/{record['id']}/resolve", {"decision": "abandon", "reason": "end of a cell"})
            self.given_up.append(record["id"])
        self.remove_guest()

    def arm_hypervisor(self, cell):
        """A finish is lost by a cut that begins when the source's guest is paused for the switch-over: later is too late."""
        if self.events:
            self.events.close()
            self.events = None
        self.lost_finish = None
        if any(a["do"] == "finish_lost" for a in cell.actions):
            cut = self.lost_finish = self.h.libvirt_reply_lost(self.guest.source, self.guest.destination)
            self.events = self.h.Events(self.guest.source, self.guest.name, lambda text: cut.make()
                                        if text == "SUSPENDED/MIGRATED" and not cut.on and cut is self.lost_finish else None)

    def begin_probe(self):
        self.report = None
        if self.guest.paused or self.guest.shut_off:
            return
        ready = self.h.labinfo.RUN / "faults-probe-ready"
        ready.unlink(missing_ok=True)
        self.probe = subprocess.Popen([self.h.LAB, "probe", self.guest.name, "--every", "10", "--ready-file", str(ready)],
                                      stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        wait_until("the probe's first replies", ready.exists, 30)

    def end_probe(self):
        if self.probe:
            self.probe.terminate()
            out, _ = self.probe.communicate(timeout=30)
            self.probe = None
            with contextlib.suppress(ValueError):
                self.report = json.loads(out)

    def check(self, cell, record, result):
        h, wrong = self.h, []
        self.count_witnesses(result)
        if self.events:
            self.events.close()
            self.events = None
        host = checks.expected_host(self.guest, result.outcome)
        try:
            if host is None:  # a person decides; until then: no two copies, and nothing more is said of its place
                running = h.hosts_with(self.guest.name)
                wrong += [f"the guest runs on {' and '.join(running)}"] if len(running) > 1 else []
            else:
                h.settled_check(self.guest.name)
            if host and not (self.guest.paused or self.guest.shut_off):
                if h.where(self.guest.name) != host:
                    wrong.append(f"the guest runs at {h.where(self.guest.name)}, the record says {host}")
                h.alive(self.guest.name)
        except AssertionError as sentence:
            wrong += [line for line in str(sentence).splitlines() if line.strip()]
        self.end_probe()
        wrong += self.of_probe()
        if not wrong and host:
            with contextlib.suppress(*TRANSIENT):
                status, body = self.rest.call("POST", "/v1/doctor", {})
                findings = body["findings"] if status == 200 else []
                wrong += checks.of_doctor(f for f in findings if f.get("migration") not in self.given_up)
        if wrong or host is None:
            self.give_up_on(record)
        return wrong + self.heard_last() if wrong else wrong

    def heard_last(self):
        """Beside what is wrong: whether the guest's network was there at the end."""
        udp = (self.report or {}).get("udp")
        return [f"(probe: {udp['lost']} of {udp['sent']} lost, longest gap {udp['longest_gap_ms']} ms)"] if udp else []

    def of_probe(self):
        """What no guest may ever notice, whatever goes wrong: time that goes back, its disk or its memory changed."""
        stream = (self.report or {}).get("stream", {})
        wrong = [f"the guest saw {what}: {stream[what]}" for what in ("counters_went_back", "disk_conflicts", "memory_errors")
                 if stream.get(what)]
        duplicates = (self.report or {}).get("udp", {}).get("duplicates", 0)
        return wrong + ([f"{duplicates} replies came twice"] if duplicates > 2 else [])  # docs/ovn.md, "Twice"

    def felt(self, record):
        felt = super().felt(record)
        if self.report:
            udp = self.report["udp"]
            felt |= {"probes_lost": udp["lost"], "probes_sent": udp["sent"], "longest_gap_ms": udp["longest_gap_ms"],
                     "connection_survived": self.report["stream"]["survived"]}
        return felt

    def settle(self):
        for host, rule in self.rules:
            self.proxies[host].remove(rule)
        self.rules = []
        if self.lost_finish:
            self.lost_finish.heal()
        if self.second:
            self.second.end()
            self.second = None
            self.connect(REST_PORT)
        for host in self.h.labinfo.HYPERVISORS:
            self.h.lab("libvirtd", "start", host)
        for node in self.h.labinfo.OCTET:
            self.h.lab("worker", "start", node, env=self.environment)
        self.h.lab("lmod", "start", env=self.environment)
        wait_until("every worker to be up", self.all_up, 60)

    def all_up(self):
        try:
            hosts = self.rest.get("/v1/hosts")["hosts"]
            return len(hosts) == len(self.h.labinfo.OCTET) and all(h["state"] == "up" for h in hosts)
        except (*TRANSIENT, AssertionError):
            return False

    def over(self, drive):
        if self.struck(drive.order[0]):
            return True
        with contextlib.suppress(*TRANSIENT, AssertionError):
            drive.record = self.rest.migration(drive.ident)
        return drive.record["phase"] in rest.ENDS

    # ---- programs

    def record_of(self, part):
        return "ctl.lmod" if part == "coordinator" else f"{self.parts[part]}.worker"

    def start(self, part):
        if part == "coordinator":
            self.h.lab("lmod", "start", env=self.environment)
        else:
            self.h.lab("worker", "start", self.parts[part], env=self.environment)

    def has_died(self, part):
        record = self.h.labinfo.RUN / "proc" / f"{self.record_of(part)}.pid"
        pid = int(record.read_text().split()[0])
        wait_until(f"{part} to end", lambda: self.h.gone(pid), 10)

    def do_kill(self, action, _cell):
        self.h.kill_now(self.record_of(action["who"]))
        return lambda: self.start(action["who"])

    def do_stop(self, action, _cell):
        return self.h.stop_now(self.h.pid_of(self.record_of(action["who"])))

    def do_take_over(self, _action, _cell):
        old = self.h.pid_of("ctl.lmod")
        self.second = self.h.SecondCoordinator(self.build / "bin" / "lmod")
        self.connect(self.h.SecondCoordinator.PORT)

        def old_one_ends():
            with contextlib.suppress(ProcessLookupError):
                os.kill(old, signal.SIGCONT)
            wait_until("the coordinator that was asleep to end itself", lambda: self.h.gone(old), 10)
        return old_one_ends

    # ---- the network

    def do_cut(self, action, _cell):
        """What LMO's programs on two hosts say to each other. Libvirt's, the volumes' and the guests' own traffic goes on."""
        pairs = [(action["from"], action["to"])] + ([(action["to"], action["from"])] if action.get("both") else [])
        cuts = []
        for sender, receiver in pairs:
            address = f"{self.h.labinfo.UNDERLAY}.{self.h.labinfo.OCTET[self.parts[sender]]}"
            cuts.append(self.h.Cut(self.parts[receiver],
                                   f"ip saddr {address} tcp dport {{ {WORKER_PORT}, {PROXY_PORT}, {REST_PORT} }} drop",
                                   f"ip saddr {address} tcp sport {{ {WORKER_PORT}, {REST_PORT} }} drop").make())
        return lambda: [cut.heal() for cut in cuts]

    def do_host_link_cut(self, _action, _cell):
        cut = self.h.all_between(self.parts["source"], self.parts["destination"]).make()
        return cut.heal

    def rule(self, part, rule):
        host = self.parts[part]
        self.proxies[host].add(rule)
        self.rules.append((host, rule))
        self.witness(f"{rule.what} {rule.call or rule.caller}", lambda: rule.struck > 0)
        return lambda: self.proxies[host].remove(rule)

    def do_delay(self, action, _cell):
        call = pattern(action["call"]) if "call" in action else ""
        return self.rule(action["to"], proxy.Rule("delay", call=call, ms=action["ms"]))

    def do_lose(self, action, _cell):
        what = {"request": "lose_request", "reply": "lose_reply"}[action["what"]]
        self.rule(action["to"], proxy.Rule(what, call=pattern(action["call"]), times=action.get("times", 1)))

    def do_repeat(self, action, _cell):
        self.rule(action["to"], proxy.Rule("repeat", call=pattern(action["call"]), ms=action.get("late_ms", 0),
                                           times=action.get("times", 1)))

    def do_refuse(self, action, _cell):
        return self.rule(action["to"], proxy.Rule("refuse", call=pattern(action["call"]), index=action.get("index", -1)))

    # ---- hypervisors and services

    def do_finish_lost(self, _action, _cell):
        if not self.lost_finish.on:
            raise Problem("the guest was not paused for a switch-over yet")
        wait_until("the source's libvirt to give up and run the guest",
                   lambda: self.h.domain_state(self.guest.source, self.guest.name) == "running", 30)
        return self.lost_finish.heal

    def do_copy_dies(self, _action, _cell):
        self.h.kill_guest(self.guest.destination, self.guest.name)

    def do_hypervisor_kill(self, action, _cell):
        host = self.parts[action["who"]]
        self.h.lab("libvirtd", "kill", host)
        return lambda: self.h.lab("libvirtd", "start", host)

    def do_hypervisor_stop(self, action, _cell):
        return self.h.stop_now(self.h.pid_of(f"{self.parts[action['who']]}.libvirtd"))

    def do_volume_service_kill(self, _action, _cell):
        self.h.lab("volume-service", "kill")
        return lambda: self.h.lab("volume-service", "start", env=self.environment)

    def do_memory_gone(self, _action, _cell):
        """New processes of the destination's libvirtd get no more memory: its QEMU cannot begin."""
        pid = self.h.pid_of(f"{self.parts['destination']}.libvirtd")
        before = resource.prlimit(pid, resource.RLIMIT_DATA, (700 << 20, resource.RLIM_INFINITY))
        return lambda: resource.prlimit(pid, resource.RLIMIT_DATA, before)

    def do_certificate_expires(self, action, _cell):
        """Short-lived certificate in its place, and SIGHUP; a good one when it is healed."""
        if action["who"] != "coordinator":
            raise Unsupported("only the coordinator's certificate")
        self.issue(action["lifetime_s"])
        return lambda: self.issue(86400)

    def issue(self, seconds):
        pki, info = self.h.labinfo.BIG / "pki", self.h.labinfo
        self.h.run(str(self.build / "bin" / "lmo"), "pki", "issue", "--dir", str(pki), "--role", "coordinator", "--name", "lab",
                   "--seconds", str(seconds), "--renew")
        target = info.BIG / "hosts" / "ctl" / "etc" / "lmo" / "pki"
        for kind in ("pem", "key"):
            (target / f"coordinator.{kind}").write_bytes((pki / "issued" / f"coordinator-lab.{kind}").read_bytes())
        for one in self.proxies.values():
            one.client_contexts.clear()
            one.set_raw(seconds < 3600)
        os.kill(self.h.pid_of("ctl.lmod"), signal.SIGHUP)

