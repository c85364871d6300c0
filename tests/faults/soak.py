"""Random requests and random faults on simulated workers for a chosen time, and a history that is checked afterwards.

Every acknowledged request has exactly one effect: whatever was answered 202 is one migration and stays the same one for every
repeat of its key; no migration is there that nobody asked for; each of them ends; where every guest is follows from the
completed ones, in order, and is what the world shows. The seed is printed; it decides requests and faults, not the machine's
timing, so a repeat is the same storm and not the same race.
"""
import collections
import dataclasses
import json
import pathlib
import random
import signal
import subprocess
import threading
import time

import checks
import proxy
import rest
from faults import TRANSIENT, Problem
from targets.base import Guest
from targets.simworkers import SimWorkers, fill, pattern

HOSTS, GUESTS_PER_HOST, CLIENTS = 4, 4, 4
REST_AFTER_S = 150.0  # how long everything may take to come to rest once nothing goes wrong any more
CALLS = ("describe", "prepare", "attach", "preload", "dual", "permit", "job_start", "open_gate", "remove_source", "settle",
         "detach_source", "single_destination", "job_abort", "discard", "detach_destination", "single_source", "revive",
         "close_source", "close_destination", "release", "fence_source", "define", "assign",
         "peer freeze", "peer fence", "peer verify", "peer kill", "peer suspended")
UNDECIDED = (0, 429, 502, 503, 504)


@dataclasses.dataclass
class Request:
    key: str
    guest: str
    body: dict
    answers: list = dataclasses.field(default_factory=list)   # (status, id) of every answer, in order
    cancelled: bool = False

    def ids(self):
        return {ident for status, ident in self.answers if status == 202}


class Either:
    """What a client is to whom both coordinators' addresses are known: where one does not answer it asks the other next."""

    def __init__(self, *connections):
        self.connections = list(connections)

    def call(self, *args):
        try:
            return self.connections[0].call(*args)
        except TRANSIENT:
            self.connections.reverse()
            raise


class Soak:
    def __init__(self, build, minutes, seed):
        self.target = SimWorkers(build, hosts=HOSTS, guests_per_host=GUESTS_PER_HOST, memory_mib=32, rate_mib=300, dirty_mib=5)
        self.seconds, self.seed = minutes * 60, seed
        self.names = [f"guest-{i}" for i in range(HOSTS * GUESTS_PER_HOST)]
        self.locks = {name: threading.Lock() for name in self.names}
        self.began_at = {f"guest-{i}": f"hv{i % HOSTS + 1}" for i in range(HOSTS * GUESTS_PER_HOST)}
        self.off = {name: False for name in self.names}
        self.requests, self.lock, self.wrong = [], threading.Lock(), []
        self.counts = collections.Counter()
        self.stop = threading.Event()

    # ---- requests

    def client(self, second=False):
        pki = self.target.dir / "pki"
        return rest.Rest(("127.0.0.1", self.target.base + HOSTS + second), pki / "ca.pem", pki / "issued" / "operator-fleet.pem",
                         pki / "issued" / "operator-fleet.key", timeout=5)

    @staticmethod
    def ask(client, method, path, body=None, headers=None):
        try:
            return client.call(method, path, body, headers)
        except TRANSIENT:
            return 0, None

    def post(self, client, request):
        status, body = self.ask(client, "POST", "/v1/migrations", request.body, {"Idempotency-Key": request.key})
        ident = body.get("id") if status == 202 else (body or {}).get("code")
        with self.lock:
            request.answers.append((status, ident))
        self.counts[f"answer {status}"] += 1
        return status, ident

    def decide(self, client, request, until):
        """Repeats it under its key until the answer is a definite one, as a client does."""
        while True:
            status, ident = self.post(client, request)
            # 409 with the key's first request still under way is no answer to this one.
            if status not in UNDECIDED and not (status == 409 and ident == "busy"):
                return ident if status == 202 else None
            if time.monotonic() > until:
                return None
            time.sleep(0.1)

    def serve(self, number):
        rng, client = random.Random(f"{self.seed}/client/{number}"), Either(self.client(), self.client(second=True))
        serial = 0
        while not self.stop.is_set():
            serial += 1
            name = rng.choice(self.names)
            key = f"{self.seed}-{number}-{serial}"
            with self.locks[name]:
                try:
                    self.one(rng, client, name, key)
                except (AssertionError, Problem) as failure:
                    self.broke(str(failure))
            time.sleep(rng.random() * 0.2)

    def one(self, rng, client, name, key):
        if rng.random() < 0.15:
            self.switch_power(name)
        first = self.migrate(rng, client, name, key)
        if first and rng.random() < 0.4:  # there and back
            self.migrate(rng, client, name, key + "b")

    def migrate(self, rng, client, name, key):
        body = {"vm": name, "destination": f"hv{rng.randint(1, HOSTS)}", "policy": {}}
        if rng.random() < 0.4:
            body["policy"] = {"bandwidth_bytes_per_s": rng.choice((8, 16, 32, 64)) << 20}
        request = Request(key, name, body)
        with self.lock:
            self.requests.append(request)
        ident = self.decide(client, request, time.monotonic() + 90)
        if ident is None:
            return None
        if rng.random() < 0.4:
            self.post(client, request)
        if rng.random() < 0.1:
            status, _ = self.ask(client, "POST", "/v1/migrations", {**body, "policy": {"max_downtime_ms": 77}},
                                 {"Idempotency-Key": key})
            if status not in (422, *UNDECIDED):
                self.broke(f"key {key} with another body: {status}")
        if rng.random() < 0.15:
            other = Request(key + "x", name, {**body, "destination": f"hv{rng.randint(1, HOSTS)}"})
            with self.lock:
                self.requests.append(other)
            self.decide(client, other, time.monotonic() + 90)
        if rng.random() < 0.25:
            time.sleep(rng.random() * 0.5)
            status, _ = self.ask(client, "POST", f"/v1/migrations/{ident}/cancel", {})
            request.cancelled = status == 202
            self.counts["cancel " + str(status)] += 1
        return self.wait(client, ident)

    def wait(self, client, ident):
        end = time.monotonic() + 120
        while time.monotonic() < end:
            status, body = self.ask(client, "GET", f"/v1/migrations/{ident}?wait_ms=500&wait_version=0")
            if status == 404:
                self.broke(f"{ident} was acknowledged and is not there")
                return None
            if status == 200 and body["phase"] in rest.ENDS:
                return body["phase"]
            if self.stop.is_set() and time.monotonic() > end - 60:
                return None
            time.sleep(0.05)
        return None

    def switch_power(self, name):
        self.target.ctl("start" if self.off[name] else "shut-off", name, check=False)
        seen = self.target.look(name)["guests"][0]
        self.off[name] = not any(c["process"] for c in seen["copies"])

    # ---- faults

    def storm(self):
        rng = random.Random(f"{self.seed}/faults")
        faults = (self.kill, self.kill, self.sleep, self.cut, self.lose, self.repeat, self.slow, self.full, self.lost_finish,
                  self.take_over)
        while not self.stop.wait(rng.random() * 3):
            fault = rng.choice(faults)
            try:
                fault(rng)
                self.counts[fault.__name__] += 1
            except (Problem, OSError, KeyError) as failure:
                self.broke(f"{fault.__name__}: {failure}")

    def program(self, rng):
        return self.target.processes[rng.choice(["lmod", "lmod"] + [f"hv{n + 1}" for n in range(HOSTS)])]

    def kill(self, rng):
        program = self.program(rng)
        self.by_itself(program)
        program.kill()
        time.sleep(rng.choice((0, 0.3, 2)))
        program.start()

    def by_itself(self, program):
        status = program.process.poll()
        if status is not None and status != -signal.SIGKILL:
            self.broke(f"{program.name} ended by itself with status {status}: {program.log.read_text()[-500:]}")

    def sleep(self, rng):
        program = self.program(rng)
        program.signal(signal.SIGSTOP)
        time.sleep(rng.choice((0.2, 1, 3)))
        program.signal(signal.SIGCONT)

    def take_over(self, rng):
        """The coordinator falls asleep, another one takes its store, it wakes and must end itself without having acted."""
        old = self.target.processes["lmod"]
        old.signal(signal.SIGSTOP)
        time.sleep(rng.choice((0, 0.3, 2)))
        try:
            if not self.second_begins():
                self.counts["take_over in vain"] += 1
                return
            time.sleep(rng.choice((0.5, 3, 8)))
        finally:
            old.signal(signal.SIGCONT)
        try:
            old.process.wait(20)
        except subprocess.TimeoutExpired:
            self.broke("a coordinator that was taken over from goes on")
        second = self.target.processes.pop("second")
        if second.end() != 0:
            self.broke(f"the coordinator that had taken over ended with {second.process.returncode}: "
                       f"{second.log.read_text()[-500:]}")
        old.start()

    def second_begins(self):
        """False: the one that sleeps does so within a transaction, and nobody else can write (docs/adr/0014)."""
        for _ in range(3):
            self.target.spawn_lmod("second", "--take-over")
            second, client = self.target.processes["second"], self.client(second=True)
            end = time.monotonic() + 20
            while second.alive() and time.monotonic() < end:
                if self.ask(client, "GET", "/healthz")[0] == 200:
                    return True
                time.sleep(0.1)
            second.end()
            del self.target.processes["second"]
        return False

    def proxy(self, rng):
        return self.target.proxies[f"hv{rng.randint(1, HOSTS)}"]

    def cut(self, rng):
        caller = rng.choice(["coordinator:"] + [f"worker:hv{n + 1}" for n in range(HOSTS)])
        seconds = rng.choice((0.5, 2, 6))
        one = self.proxy(rng)
        rule = one.add(proxy.Rule(rng.choice(("cut", "cut_replies")), caller=caller, until=time.monotonic() + seconds))
        threading.Timer(seconds, one.remove, [rule]).start()

    def lose(self, rng):
        self.proxy(rng).add(proxy.Rule(rng.choice(("lose_request", "lose_reply")), call=pattern(rng.choice(CALLS)), times=1,
                                       until=time.monotonic() + 20))

    def repeat(self, rng):
        self.proxy(rng).add(proxy.Rule("repeat", call=pattern(rng.choice(CALLS)), times=2, ms=rng.choice((0, 500, 5000)),
                                       until=time.monotonic() + 20))

    def slow(self, rng):
        self.proxy(rng).add(proxy.Rule("delay", ms=rng.choice((5, 50, 300)), until=time.monotonic() + 3))

    def full(self, rng):
        name = rng.choice(["lmod"] + [f"state/hv{n + 1}" for n in range(HOSTS)])
        path = self.target.dir / name / "filler"
        if not path.parent.is_mount():
            return
        fill(path)
        time.sleep(rng.choice((0.2, 1)))
        path.unlink()

    def lost_finish(self, _rng):
        for guest in self.target.look()["guests"]:
            if guest["job"] and any(c["loaded"] and not c["runs"] for c in guest["copies"]):
                self.target.ctl("finish-lost", guest["name"])
                return

    def broke(self, what):
        with self.lock:
            self.wrong.append(what)

    # ---- the run

    def run(self):
        self.target.up()
        threads = [threading.Thread(target=self.serve, args=(n,), daemon=True) for n in range(CLIENTS)]
        faults = threading.Thread(target=self.storm, daemon=True)
        for thread in [*threads, faults]:
            thread.start()
        end = time.monotonic() + self.seconds
        while time.monotonic() < end and not self.wrong:
            time.sleep(0.2)
        self.stop.set()
        faults.join(120)  # a take-over has to be over
        for one in self.target.proxies.values():
            one.clear()
        for name in self.target.processes:
            self.by_itself(self.target.processes[name])
        self.target.settle()
        for thread in threads:
            thread.join(REST_AFTER_S)
        self.judge()

    def judge(self):
        client = self.client()
        for request in self.requests:  # what nobody has heard of is asked for once more, under its key
            if not any(status not in UNDECIDED for status, _ in request.answers):
                self.decide(client, request, time.monotonic() + 30)
        records = self.at_rest(client)
        self.wrong += judge_history(self.requests, records)
        places = judge_places(records, self.began_at, self.wrong)
        look = self.target.look()
        end = time.monotonic() + 20
        while True:
            wrong = []
            for name in self.names:
                guest = Guest(name, "", places[name], shut_off=self.off[name])
                wrong += checks.of_world(look, guest, "completed")
            if not wrong or time.monotonic() > end:
                break
            time.sleep(0.5)
            look = self.target.look()
        self.wrong += list(dict.fromkeys(wrong))
        self.wrong += checks.of_doctor(self.target.doctor())
        for record in records:
            self.counts[record["phase"]] += 1

    def at_rest(self, client):
        end = time.monotonic() + REST_AFTER_S
        while True:
            records = every_migration(client)
            still = [r for r in records if r["phase"] not in rest.ENDS]
            if not still or time.monotonic() > end:
                return records
            time.sleep(0.5)


def every_migration(client):
    found, before = [], ""
    while True:
        page = client.get("/v1/migrations?limit=1000" + (f"&before={before}" if before else ""))["migrations"]
        found += page
        if len(page) < 1000:
            return sorted(found, key=lambda r: r["id"])
        before = page[-1]["id"]


def judge_history(requests, records):
    """Every acknowledged request has exactly one effect, and nothing else has one."""
    wrong, owner = [], {}
    known = {r["id"]: r for r in records}
    for request in requests:
        ids = request.ids()
        if len(ids) > 1:
            wrong.append(f"key {request.key} was acknowledged as {' and as '.join(sorted(ids))}")
        for ident in ids:
            if ident not in known:
                wrong.append(f"{ident} was acknowledged (key {request.key}) and is lost")
            if ident in owner:
                wrong.append(f"{ident} answers for two keys, {owner[ident]} and {request.key}")
            owner[ident] = request.key
            if ident in known and guest_of(known[ident]) != request.guest:
                wrong.append(f"{ident} is of another guest than key {request.key} asked for")
        refused = [s for s, _ in request.answers if s not in (202, *UNDECIDED)]
        if ids and [s for s in refused if s != 409]:
            wrong.append(f"key {request.key} was acknowledged and refused: {request.answers}")
    wrong += [f"{ident} was asked for by nobody" for ident in known if ident not in owner]
    for record in records:
        if record["phase"] not in ("completed", "aborted"):
            wrong.append(f"{record['id']} came to rest {record['phase']}, waiting for: {record.get('waiting_for')}; "
                         f"{record.get('reason')}")
    return wrong


def guest_of(record):
    vm = record["vm"]
    return vm["name"] if isinstance(vm, dict) else record.get("vm_name") or vm


def judge_places(records, began_at, wrong):
    """Where each guest must be: the completed migrations in the order of their making, each from where the last one led."""
    at = dict(began_at)
    for record in records:
        if record["phase"] == "completed":
            name = guest_of(record)
            if record["source"] != at.get(name):
                wrong.append(f"{record['id']} moved {name} from {record['source']}, and it was at {at.get(name)}")
            at[name] = record["destination"]
    return at


def main(args):
    seed = args.seed or random.SystemRandom().randrange(1, 1 << 31)
    print(f"soak: {args.soak:g} minutes, seed {seed}", flush=True)
    soak, failure = Soak(args.build, args.soak, seed), None
    begun = time.monotonic()
    try:
        soak.run()
    except Exception as error:  # pylint: disable=broad-except
        failure = f"{type(error).__name__}: {error}"
        soak.broke(failure)
    finally:
        soak.wrong += soak.target.down()
    acknowledged = sum(bool(r.ids()) for r in soak.requests)
    document = {"seed": seed, "seconds": round(time.monotonic() - begun, 1), "requests": len(soak.requests),
                "acknowledged": acknowledged, "counts": dict(sorted(soak.counts.items())), "violations": soak.wrong}
    path = pathlib.Path(args.report).with_name("soak.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document["counts"]))
    for what in soak.wrong:
        print(f"FAILED {what}")
    good = not soak.wrong and acknowledged > 0
    print(f"soak: {len(soak.requests)} requests, {acknowledged} acknowledged, seed {seed}; {path}")
    print(f"{acknowledged if good else 0} passed, {0 if good else max(1, len(soak.wrong))} failed")
    return 0 if good else 1


