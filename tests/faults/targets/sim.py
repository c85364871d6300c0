"""The simulator (tests/sim): a cell becomes a plan for lmo-sim.

A quiet run of the same fleet comes first. Until a fault strikes, the faulted run is that run again, event for event; so the
trace of the quiet one says when a point is reached, and as which of a process's durable writes, calls or driver calls. What
strikes a process strikes at exactly that one; what happens to the network or a host begins within the millisecond before.
"""
import json
import pathlib
import re
import subprocess
import tempfile

import scenario
from faults import Problem, Unsupported

PROCESS = {"coordinator": "lmod", "source": "hv1", "destination": "hv2", "volumes": "st1"}
ASKED_MS = 500
GIVES_UP_S = 6  # longer than a simulated hypervisor waits for a lost finish
QUIET = {"seed": 7, "hypervisors": 2, "storages": 1, "fresh": False, "faults": []}
DRIVER = {"single_destination": "single", "remove_source": "remove", "job_start": "job_start"}


class Trace:
    """Lines of a quiet run: (milliseconds, process, text)."""

    def __init__(self, text):
        self.lines = []
        for line in text.splitlines():
            match = re.match(r"\s*(\d+\.\d+) (\S+)\s+(.*)", line)
            if match:
                self.lines.append((float(match.group(1)) * 1000, match.group(2), match.group(3)))

    def find(self, process, pattern, after=0):
        """Index of the first such line; the trace is of a run in which nothing went wrong, so there has to be one."""
        for i in range(after, len(self.lines)):
            if (process is None or self.lines[i][1] == process) and re.search(pattern, self.lines[i][2]):
                return i
        raise Problem(f"the quiet run never came to '{pattern}' of {process}")

    def count(self, process, pattern, before):
        return sum(1 for at, who, text in self.lines[:before] if who == process and re.search(pattern, text))

    # Which observation point (tests/sim/sim.h) the next durable write, call or driver call is.
    def next_sync(self, process, index):
        return self.count(process, r"^debug: journal committed", index) + 1

    def call(self, caller, index):
        return self.count("-", rf"^serve \S+ <- {caller}:", index + 1)


class Sim:
    name = "sim"
    is_up = False

    def __init__(self, build):
        self.program = pathlib.Path(build) / "bin" / "lmo-sim"
        self.quiet = {}

    def up(self):
        if not self.program.exists():
            raise Problem(f"{self.program} is missing")

    def down(self):
        return []

    def why_not(self, cell):
        for action in cell.actions:
            if action["do"] not in ("wait", "continue", "at") and not hasattr(self, "do_" + action["do"]):
                return f"the simulator has no '{action['do'].replace('_', ' ')}'"
        return None

    # ---- plans

    def carry_out(self, cell, result):
        try:
            plan, at_ms = self.plan(cell)
            self.judge(cell, plan, at_ms, result)
        except Unsupported as why:
            result.skipped = str(why)
        except (Problem, OSError, subprocess.SubprocessError, ValueError) as failure:
            result.problems.append(str(failure))

    def plan(self, cell):
        request = {"at_ms": ASKED_MS, "guest": "vm1", "destination": "hv2", "cancel_after_ms": 0,
                   "bandwidth_mib": cell.policy.get("bandwidth_bytes_per_s", 0) >> 20}
        if cell.cancel_first:
            request["cancel_after_ms"] = 400
        guest = {"name": "vm1", "host": "hv1", "volumes": cell.guest.get("volumes", 2), "ports": 1, "memory_mib": 64,
                 "dirty_mib_per_s": 10, "persistent": True, "owner_paused": cell.guest.get("paused", False)}
        if cell.guest.get("shut_off"):
            raise Unsupported("the simulator's guests run")
        plan = {**QUIET, "guests": [guest], "requests": [request]}
        self.trace = self.quiet_run(plan)
        self.at = self.anchor(cell, cell.point)
        self.cell, self.faults, self.request, self.shift_ms = cell, [], request, 0
        for number, action in enumerate(cell.actions):
            what = action["do"]
            if what == "wait":
                self.shift_ms += round(action["for_s"] * 1000)
            elif what == "at":
                self.at = self.anchor(cell, action["point"])
            elif what != "continue":
                getattr(self, "do_" + what)(action, number == 0)
        return {**plan, "requests": [request], "faults": self.faults}, self.ms()

    def quiet_run(self, plan):
        key = json.dumps(plan)
        if key not in self.quiet:
            self.quiet[key] = Trace(self.lmo_sim(plan, "--debug")[0])
        return self.quiet[key]

    def lmo_sim(self, plan, *argv):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(plan, file)
            file.flush()
            done = subprocess.run([str(self.program), "--plan", file.name, *argv], capture_output=True, text=True, timeout=120,
                                  check=False)
        if done.returncode not in (0, 1):
            raise Problem(f"lmo-sim: {done.stderr.strip() or done.stdout[-300:]}")
        return done.stdout, done.returncode

    def anchor(self, cell, point):
        """(line of the trace, process that stands there, its point's kind, its number, fate if it dies there)."""
        t = self.trace
        if point in ("", "entered"):
            phase = "precopy" if cell.phase == "queued" else cell.phase
            if cell.phase == "queued":
                return (t.find("lmod", "^info: request .*POST path=/v1/migrations"), None, None, 0, None)
            return (t.find("lmod", rf"^info: migration .*phase={phase} "), None, None, 0, None)
        stage = point.removeprefix("deciding ")
        if stage in scenario.STAGES:
            process = PROCESS[scenario.STAGES[stage]]
            i = t.find(process, rf"^info: (source|destination) stage .*stage={stage} ")
            return (i, process, "sync", t.next_sync(process, i), "crash_after" if stage == point else "crash_before")
        operation, part = scenario.OPERATIONS[cell.phase]
        worker = PROCESS[part]
        sent = t.find("-", rf"^serve {worker} <- lmod: PUT .*-{operation}[?]")
        if point == "sent":
            return (sent, "lmod", "call", t.call("lmod", sent), "crash_before")
        if point == "answered":
            return (sent, "lmod", "call", t.call("lmod", sent), "crash_after")
        if point == "accepted":
            return (sent, worker, "sync", t.next_sync(worker, sent), "crash_after")
        ended = t.find(worker, rf"^info: op ended .*kind={operation} ", sent)
        return (ended, worker, "sync", t.next_sync(worker, ended), "crash_before" if point == "done" else "crash_after")

    def ms(self):
        return int(self.trace.lines[self.at[0]][0]) + self.shift_ms

    def add(self, kind, target, seconds=0.0, **more):
        self.faults.append({"kind": kind, "at_ms": self.ms(), "for_ms": max(1, round(seconds * 1000)), "target": target, **more})

    # ---- actions

    def do_kill(self, action, first):
        who, seconds = PROCESS[action["who"]], action.get("for_s", 0)
        _, process, kind, k, fate = self.at
        if first and process == who and not self.shift_ms:
            self.add("point", who, seconds, point=kind, k=k, fate=fate)
        else:
            self.add("crash", who, seconds)

    def do_stop(self, action, _first):
        if any(a["do"] == "take_over" for a in self.cell.actions):
            return  # one fault in the simulator: takeover
        self.add("sleep", PROCESS[action["who"]], action["for_s"])

    def do_take_over(self, _action, _first):
        sleeps = next((a["for_s"] for a in self.cell.actions if a["do"] == "stop"), 5)
        self.add("takeover", "lmod", sleeps)

    def do_cut(self, action, _first):
        pairs = [(action["from"], action["to"])] + ([(action["to"], action["from"])] if action.get("both") else [])
        for sender, receiver in pairs:
            self.add("cut", PROCESS[sender], action["for_s"], other=PROCESS[receiver])

    def do_delay(self, action, _first):
        if "call" in action:
            raise Unsupported("the simulator delays links, not calls")
        for sender in PROCESS.values():
            if sender != PROCESS[action["to"]]:
                self.add("delay", sender, action["for_s"], other=PROCESS[action["to"]], value=action["ms"])

    def a_call(self, action, fate):
        """Fate of the first such call from the point on."""
        worker, call = PROCESS[action["to"]], action["call"]
        path = rf"POST /v1/peer/{call.removeprefix('peer ')}" if call.startswith("peer ") else rf"PUT .*-{call}[?]"
        i = self.trace.find("-", rf"^serve {worker} <- \S+: {path}", self.at[0])
        caller = re.match(r"serve \S+ <- (\S+):", self.trace.lines[i][2]).group(1)
        self.faults.append({"kind": "point", "at_ms": 0, "for_ms": 1000, "target": caller, "point": "call",
                            "k": self.trace.call(caller, i), "fate": fate})

    def do_lose(self, action, _first):
        self.a_call(action, "lost" if action["what"] == "request" else "reply_lost")

    def do_repeat(self, action, _first):
        self.a_call(action, "late" if action.get("late_ms") else "twice")

    def do_refuse(self, action, _first):
        """The driver's call fails, once, certainly without effect."""
        worker, name = PROCESS[action["to"]], action["call"].removeprefix("peer ")
        i = self.trace.find(worker, rf"^driver {DRIVER.get(name, name)}$", self.at[0])
        for _ in range(action.get("index", 0)):
            i = self.trace.find(worker, rf"^driver {DRIVER.get(name, name)}$", i + 1)
        self.faults.append({"kind": "point", "at_ms": 0, "for_ms": 1000, "target": worker, "point": "driver",
                            "k": self.driver_call(worker, i), "fate": "fail"})

    def driver_call(self, worker, index):
        """Freezes are told in words of their own and count all the same."""
        return self.trace.count(worker, r"^(driver |freeze guest=)", index + 1)

    def do_finish_lost(self, _action, _first):
        """On the others its worker stands at the point until the source's hypervisor has given up: here it sleeps so long."""
        if self.at[1] == PROCESS["source"]:
            self.add("sleep", PROCESS["source"], GIVES_UP_S)
        self.faults.append({"kind": "finish_lost", "at_ms": ASKED_MS - 1, "for_ms": 1000, "target": "vm1"})

    def do_copy_dies(self, _action, _first):
        self.faults.append({"kind": "copy_dies", "at_ms": ASKED_MS - 1, "for_ms": 1000, "target": "vm1", "value": 100})

    def do_hypervisor_kill(self, action, _first):
        self.add("down", PROCESS[action["who"]], action.get("for_s", 1))

    def do_hypervisor_stop(self, action, _first):
        self.add("hang", PROCESS[action["who"]], action["for_s"])

    def do_volume_service_kill(self, action, _first):
        self.add("down", "st1", action.get("for_s", 1))

    def do_disk_full(self, action, _first):
        self.add("disk_full", PROCESS[action["who"]], action["for_s"])

    def do_memory_gone(self, action, _first):
        self.add("refuse", "hv2", action["for_s"])

    def do_clock(self, action, _first):
        self.add("clock", PROCESS[action["who"]], 0, value=action["ms"])
        if "for_s" in action:
            self.faults.append({"kind": "clock", "at_ms": self.ms() + round(action["for_s"] * 1000), "for_ms": 1,
                                "target": PROCESS[action["who"]], "value": 0})

    def do_cancel(self, _action, _first):
        self.request["cancel_after_ms"] = max(1, self.ms() - ASKED_MS)

    # ---- what came of it

    def judge(self, cell, plan, at_ms, result):
        text, status = self.lmo_sim(plan, "--trace", "--report", "json")
        figures = json.loads(text[text.rindex("\n{\n"):])
        wanted = {}
        for fault in plan["faults"]:
            wanted[fault["kind"]] = wanted.get(fault["kind"], 0) + 1
        for kind, count in wanted.items():
            if figures["faults"].get(kind, 0) < count:
                result.problems.append(f"{count} x {kind} was planned, {figures['faults'].get(kind, 0)} struck")
        ends = re.findall(r"^  request-0 vm1 -> hv2: (\w+)", text, re.M)
        result.outcome = ends[-1] if ends and ends[-1] in scenario.OUTCOMES else "unresolved"
        ended = re.findall(r"^\s*(\d+\.\d+) lmod2?\s+info: migration .*phase=(?:completed|aborted|attention) ", text, re.M)
        if ended:
            result.resolve_ms = max(0, round(float(ended[-1]) * 1000 - at_ms))
        result.guest = self.felt(text)
        failure = re.search(r"^FAILED seed .*\n  (.*)", text, re.M)
        result.invariants_ok = status == 0 and not failure
        if failure or status:
            path = pathlib.Path(tempfile.gettempdir()) / f"lmo-faults-{cell.ident}.json"
            path.write_text(json.dumps(plan, indent=1))
            result.problems.append(f"{failure.group(1) if failure else 'lmo-sim failed'} (lmo-sim --plan {path} --trace)")
        if result.outcome not in cell.outcome:
            result.problems.append(f"ended {result.outcome}, and only {' or '.join(cell.outcome)} is right")

    @staticmethod
    def felt(text):
        """From the pause until it runs anywhere: the last such gap."""
        paused, gap = None, None
        for match in re.finditer(r"^\s*(\d+\.\d+) \S+\s+(switch-over guest=vm1|guest runs guest=vm1)", text, re.M):
            if match.group(2).startswith("switch"):
                paused = float(match.group(1))
            elif paused is not None:
                gap, paused = (float(match.group(1)) - paused) * 1000, None
        return {} if gap is None else {"blackout_ms": round(gap, 1)}
