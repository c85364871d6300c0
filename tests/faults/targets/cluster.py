"""A real pre-production cluster, by a configuration file (docs/faults.md). It is touched only if both sides say that it is one:
the file (`"pre_production": true`) and the coordinator itself (/healthz, from `[coordinator] pre_production` of its
configuration). With `dry_run` nothing is asked and nothing is done: what would be done to whom is printed.

What is done to a host is a command of the file, given to `run` of that host (ssh, for example). `do` names it; `undo` is
what makes it good again. Words in braces are filled in: {file}, {text}, {peer}, {vm}."""
import contextlib
import json
import pathlib
import shlex
import subprocess
import time

import checks
import rest
import scenario
from faults import TRANSIENT, Problem, Unsupported
from targets.base import Guest, Target, wait_until

COMMAND_S = 60
KEYS = {"pre_production", "coordinator", "ca", "certificate", "key", "hosts", "guest", "volumes_host", "commands", "check", "orders"}
NEEDED = {"coordinator", "ca", "certificate", "key", "hosts", "guest"}
# Actions that the file may have commands for; each "do" and, where it makes sense, "undo".
COMMANDED = ("kill", "stop", "cut", "delay", "hypervisor_kill", "hypervisor_stop", "volume_service_kill", "disk_full", "clock",
             "memory_gone", "copy_dies", "host_link_cut")


class Refused(Exception):
    """This must not be done there."""


def load(path):
    """The file's content, if it says that it is of a pre-production cluster and is whole."""
    try:
        config = json.loads(pathlib.Path(path).read_text())
    except (OSError, ValueError) as failure:
        raise Refused(f"{path}: {failure}") from failure
    if config.get("pre_production") is not True:
        raise Refused(f"{path} does not say \"pre_production\": true: nothing is done to such a cluster")
    if NEEDED - set(config) or set(config) - KEYS:
        raise Refused(f"{path}: needs {', '.join(sorted(NEEDED))}; missing {sorted(NEEDED - set(config))}, "
                      f"unknown {sorted(set(config) - KEYS)}")
    for host, entry in config["hosts"].items():
        if not isinstance(entry.get("run"), list):
            raise Refused(f"{path}: hosts.{host}.run must be a list of words, e.g. [\"ssh\", \"root@{host}\"]")
    unknown = [name for name in config.get("commands", {}) if name not in COMMANDED]
    if unknown:
        raise Refused(f"{path}: commands: {', '.join(unknown)}: known are {', '.join(COMMANDED)}")
    return config


class Cluster(Target):
    name = "cluster"

    def __init__(self, path, dry_run=False, say=print):
        if not path:
            raise Refused("a cluster needs its configuration file (--cluster FILE)")
        self.config, self.dry_run, self.say = load(path), dry_run, say
        self.has_points = bool(self.config.get("orders"))
        self.count, self.place_of = 0, {}
        for action in COMMANDED:
            if action in self.config.get("commands", {}):
                setattr(self, "do_" + action, self.commanded)

    # ---- up and down

    def up(self):
        if self.dry_run:
            self.say(f"would ask {self.config['coordinator']} whether it is pre-production, and end if it does not say so")
            return
        address, _, port = self.config["coordinator"].removeprefix("https://").rstrip("/").rpartition(":")
        self.rest = rest.Rest((address, int(port)), self.config["ca"], self.config["certificate"], self.config["key"], timeout=5)
        health = self.rest.get("/healthz")
        if health.get("pre_production") is not True:
            raise Refused(f"{self.config['coordinator']} does not say that it is pre-production: nothing is done to it "
                          "([coordinator] pre_production = yes)")
        if self.has_points and not health.get("fault_points"):
            self.say("cluster: this coordinator is a release build, it has no fault points: cells at named points are skipped")
            self.has_points = False
        self.settle()

    def down(self):
        if self.rest:
            self.rest.close()
        return []

    def why_not(self, cell):
        if cell.guest:
            return "the cluster's guest is as it is"
        return super().why_not(cell)

    # ---- commands

    def host_of(self, part):
        if part == "coordinator":
            return "coordinator"
        if part == "volumes":
            return self.config.get("volumes_host", "coordinator")
        return self.place_of[part]

    def remote(self, host, command, **words):
        entry = self.config["hosts"].get(host)
        if entry is None:
            raise Unsupported(f"the file has no host {host}")
        for name, value in words.items():
            command = command.replace("{" + name + "}", shlex.quote(str(value)))
        argv = [*entry["run"], command]
        if self.dry_run:
            self.say(f"  on {host}: {' '.join(map(shlex.quote, argv))}")
            return ""
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_S, check=False)
        if done.returncode != 0:
            raise Problem(f"on {host}: {command}: exit status {done.returncode}: {done.stderr.strip()[:300]}")
        return done.stdout

    def commanded(self, action, _cell):
        """One action by its command; what makes it good again, or None."""
        commands = self.config["commands"][action["do"]]
        part = action.get("who") or action.get("to") or "destination"
        # Whoever is to be killed or stopped may be the coordinator's program or a worker: the file has one command each.
        kind = "coordinator" if part == "coordinator" else "worker"
        entry = commands.get(kind, commands)
        host = self.host_of(part)
        words = {"peer": self.host_of(action["from"]) if "from" in action else "", "vm": self.config["guest"],
                 "ms": action.get("ms", 0)}
        self.remote(host, entry["do"], **words)
        return (lambda: self.remote(host, entry["undo"], **words)) if "undo" in entry else None

    # ---- fault orders

    def give_order(self, line):
        """To every host's file: only the program that comes to the point takes it."""
        orders = self.config["orders"]
        for host in self.config["hosts"]:
            self.remote(host, orders["write"], text=line, file=orders["file"])

    def forget_orders(self):
        if self.has_points:
            self.give_order("# none")

    def struck(self, ident):
        orders = self.config["orders"]
        return any(line.startswith(ident + " ") for host in self.config["hosts"]
                   for line in self.remote(host, orders["read"], file=orders["file"] + ".struck").splitlines())

    def has_died(self, part):
        time.sleep(0.2)  # it was noted right before it ended

    def start(self, part):
        commands = self.config["commands"]["kill"]
        entry = commands.get("coordinator" if part == "coordinator" else "worker", commands)
        if "undo" in entry:
            self.remote(self.host_of(part), entry["undo"])

    # ---- cells

    def carry_out(self, cell, result):
        if self.dry_run:
            self.rehearse(cell, result)
        else:
            super().carry_out(cell, result)

    def rehearse(self, cell, result):
        """Prints; does nothing."""
        hosts = [h for h in self.config["hosts"] if h not in ("coordinator", self.config.get("volumes_host"))]
        self.place_of = {"source": hosts[0], "destination": hosts[-1]}
        self.say(f"{cell.ident}: would move {self.config['guest']} from {hosts[0]} to {hosts[-1]} (wherever it is then), and")
        place = cell.place()
        if place:
            self.say(f"  at {place[0]} of the {place[1]}'s program:")
            self.give_order(f"ID {place[0]} 1 {'crash' if cell.actions and cell.actions[0]['do'] == 'kill' else 'hold'} 120000")
        else:
            self.say(f"  in {cell.phase}:")
        for action in cell.actions:
            if action["do"] in self.config.get("commands", {}):
                undo = self.commanded(action, cell)
                if undo:
                    self.say(f"  and {action.get('for_s', 0):g} s later:")
                    undo()
            else:
                self.say(f"  {scenario.name_of(action)}")
        result.outcome, result.invariants_ok = "rehearsed", True

    def prepare(self, cell):
        self.settle()
        vm = self.rest.get(f"/v1/vms/{self.config['guest']}")
        source = vm["host"]
        others = [h for h in self.config["hosts"] if h not in ("coordinator", source, self.config.get("volumes_host"))]
        if not others:
            raise Problem("no other host to move the guest to")
        self.place_of = {"source": source, "destination": others[self.count % len(others)]}
        self.count += 1
        self.guest = Guest(self.config["guest"], source, self.place_of["destination"])

    def settle(self):
        def all_up():
            try:
                named = {h["name"]: h["state"] for h in self.rest.get("/v1/hosts")["hosts"]}
                return all(named.get(h) == "up" for h in self.config["hosts"] if h != "coordinator")
            except (*TRANSIENT, AssertionError):
                return False
        wait_until("every worker to be up", all_up, 120)

    def over(self, drive):
        if self.struck(drive.order[0]):
            return True
        with contextlib.suppress(*TRANSIENT, AssertionError):
            drive.record = self.rest.migration(drive.ident)
        return drive.record["phase"] in rest.ENDS

    def check(self, cell, record, result):
        """The file's own check, which ought to know nothing of LMO; and the doctor."""
        wrong = []
        host = checks.expected_host(self.guest, result.outcome)
        entry = self.config.get("check")
        if entry and host:
            text = " ".join(entry).replace("{vm}", shlex.quote(self.config["guest"])).replace("{host}", shlex.quote(host))
            done = subprocess.run(["/bin/sh", "-c", text], capture_output=True, text=True, timeout=120, check=False)
            if done.returncode != 0:
                wrong += (done.stdout + done.stderr).strip().splitlines()[:20] or ["the check says no more than that it failed"]
        status, body = self.rest.call("POST", "/v1/doctor", {})
        wrong += checks.of_doctor(body["findings"]) if status == 200 else [f"the doctor answered {status}"]
        return wrong
