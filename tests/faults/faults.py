"""How a cell is driven on a target of real processes: the point is reached, the actions are taken, everything is healed, the
end is awaited. What differs between targets is behind Target (targets/base.py).

A program stands still at a named point because it was ordered to wait there (`hold`, lmo/base/fault.h); what is done
from outside is done then, and it goes on. If the first action is that very program's SIGKILL, it is ordered to end at the
point instead, which nothing from outside can do as precisely.
"""
import dataclasses
import http.client
import itertools
import threading
import time

from rest import ENDS

TRANSIENT = (OSError, http.client.HTTPException)
HOLD_MAX_MS = 120000
REACH_S = 45.0   # for the migration to come to the point
_numbers = itertools.count(1)


class Problem(Exception):
    """The cell could not be carried out, or what it looked at was not right."""


class Unsupported(Exception):
    """This target cannot do that; the sentence says why."""


class Clock:
    """What has to be undone, and when: by a thread of its own, because whoever drives the cell may be waiting for an answer
    that comes only afterwards."""

    def __init__(self):
        self.heals, self.failed, self.busy = [], None, 0
        self.changed, self.ending = threading.Condition(), False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def later(self, seconds, heal, what):
        with self.changed:
            self.heals.append((time.monotonic() + seconds, next(_numbers), heal, what))
            self.changed.notify_all()

    def _run(self):
        with self.changed:
            while not self.ending:
                self.heals.sort()
                now = time.monotonic()
                if self.heals and self.heals[0][0] <= now:
                    _, _, heal, what = self.heals.pop(0)
                    self.busy += 1
                    self.changed.release()
                    try:
                        self._heal(heal, what)
                    finally:
                        self.changed.acquire()
                        self.busy -= 1
                        self.changed.notify_all()
                else:
                    next_at = self.heals[0][0] if self.heals else float("inf")
                    self.changed.wait(min(1.0, next_at - now))

    def _heal(self, heal, what):
        try:
            heal()
        except Exception as error:  # pylint: disable=broad-except
            self.failed = self.failed or Problem(f"cannot undo {what}: {error}")

    def left(self):
        """When the last thing that has a time will be undone; None: nothing is left."""
        with self.changed:
            if self.busy:
                return time.monotonic()
            return max((due for due, *_ in self.heals if due != float("inf")), default=None)

    def all(self):
        """Everything at once, newest first; the first failure is told after all of them were tried."""
        with self.changed:
            self.ending = True
            self.changed.notify_all()
            deadline = time.monotonic() + 60
            while self.busy and time.monotonic() < deadline:
                self.changed.wait(1.0)
        while self.heals:
            _, _, heal, what = self.heals.pop()
            self._heal(heal, what)
        if self.failed:
            failed, self.failed = self.failed, None
            raise failed


class Drive:
    """One cell on one target."""

    def __init__(self, target, cell):
        self.target, self.cell = target, cell
        self.clock = Clock()
        self.record, self.ident = None, None
        self.refused = None
        self.fault_at = None
        self.order, self.continues = None, None

    # ---- the way to the point

    def arm(self):
        place = self.cell.place()
        if place is None:
            return
        where, part = place
        crash = bool(self.cell.actions) and self.cell.actions[0]["do"] == "kill" and self.cell.actions[0]["who"] == part
        self.stand(where, part, "crash" if crash else "hold")

    def stand(self, where, part, how):
        self.order = (f"c{next(_numbers)}", where, part, how)
        self.target.give_order(f"{self.order[0]} {where} 1 {how} {HOLD_MAX_MS}")

    def request(self):
        guest = self.target.guest
        body = {"vm": guest.name, "source": guest.source, "destination": guest.destination, "policy": self.target.policy(self.cell)}
        key = f"{self.cell.ident[:40]}-{time.time_ns()}"
        deadline = time.monotonic() + 30
        while True:
            try:
                status, answer = self.target.rest.call("POST", "/v1/migrations", body, {"Idempotency-Key": key})
            except TRANSIENT:
                status, answer = 0, None
            if status == 202:
                self.ident, self.record = answer["id"], answer
                return
            if status not in (0, 409, 429, 502, 503, 504) or time.monotonic() > deadline:
                self.refused = answer
                return
            time.sleep(0.1)

    def look(self, wait_ms=200):
        """The newest record, or the one before it while nobody answers."""
        try:
            version = self.record["version"] if self.record else 0
            self.record = self.target.rest.get(f"/v1/migrations/{self.ident}?wait_version={version}&wait_ms={wait_ms}")
        except TRANSIENT:
            time.sleep(0.05)
        return self.record

    def reach(self):
        """True once the point is reached; False if the migration ended before."""
        if self.cell.cancel_first:
            self.until(lambda: self.copying(), "pre-copy behind an open gate")
            self.cancel()
        if self.order:
            return self.until(lambda: self.target.struck(self.order[0]), f"the point {self.order[1]}", busy=True)
        if self.cell.point == "entered":
            return self.until(lambda: self.copying() if self.cell.phase == "precopy" else self.record["phase"] == self.cell.phase,
                              f"phase {self.cell.phase}")
        return True

    def copying(self):
        return self.record["phase"] == "precopy" and (self.record.get("progress") or {}).get("transferred_bytes", 0) > 0

    def until(self, condition, what, busy=False):
        deadline = time.monotonic() + REACH_S
        while not condition():
            if time.monotonic() > deadline:
                raise Problem(f"never came to {what}: in {self.record['phase']}, waiting for {self.record.get('waiting_for')}")
            if busy:
                time.sleep(0.005)  # whoever stands at the point may be the one that would answer
                if self.target.over(self):
                    return condition()
            elif self.look()["phase"] in ENDS:
                return condition()
        return True

    # ---- what goes wrong

    def act(self):
        self.fault_at = time.monotonic()
        self.stands()
        for number, action in enumerate(self.cell.actions):
            if number == 0 and self.order and self.order[3] == "crash":
                self.target.has_died(action["who"])
                self.clock.later(action.get("for_s", 0), lambda who=action["who"]: self.target.start(who), "a kill")
            else:
                self.take(action)
        # What is to stand for some time and stands at its point already goes on when that time is over.
        if self.order and not any(a["do"] == "stop" and a["who"] == self.order[2] for a in self.cell.actions):
            self.go_on()

    def stands(self):
        if self.order and self.order[3] == "hold":
            self.continues = self.target.forget_orders
            self.clock.later(float("inf"), self.go_on, f"a program that waits at {self.order[1]}")

    def go_on(self):
        if self.continues:
            go, self.continues = self.continues, None
            go()

    def take(self, action):
        what = action["do"]
        seconds = action.get("for_s", 0)
        if what == "wait":
            time.sleep(seconds)
        elif what == "continue":
            self.go_on()
        elif what == "at":
            self.next_point(action["point"])
        elif what == "cancel":
            self.cancel()
        elif what == "stop" and self.order and self.continues and action["who"] == self.order[2]:
            self.clock.later(seconds, self.go_on, "a stop")
        else:
            heal = self.target.apply(action, self.cell)
            if heal:
                self.clock.later(seconds, heal, what)

    def next_point(self, point):
        """The next point is armed before whoever stands at this one goes on."""
        where, part = dataclasses.replace(self.cell, point=point).place()
        self.continues = None
        self.stand(where, part, "hold")  # in place of the order before, which ends with that
        self.until(lambda: self.target.struck(self.order[0]), f"the point {where}", busy=True)
        self.stands()

    def cancel(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                status, answer = self.target.rest.call("POST", f"/v1/migrations/{self.ident}/cancel", {})
            except TRANSIENT:
                status, answer = 0, None
            if status in (202, 409):
                return
            if status not in (0, 429, 502, 503, 504):
                raise Problem(f"cancel: {status} {answer}")
            time.sleep(0.1)
        raise Problem("nobody takes the cancel")

    # ---- the end

    def to_the_end(self):
        """Until the record has come to rest and everything is healed; the heals are due meanwhile."""
        deadline = max(time.monotonic(), self.clock.left() or 0) + self.cell.limit_s
        ended_at = None
        while True:
            phase = self.look()["phase"]
            if phase in ENDS and ended_at is None:
                ended_at = time.monotonic()
            # A resting place is left again by a fact, as long as something is still to be healed.
            if phase in ENDS and self.clock.left() is None:
                return ended_at
            if phase not in ENDS:
                ended_at = None
            if time.monotonic() > deadline:
                raise Problem(f"not resolved {self.cell.limit_s:g} s after everything was healed: in {phase}, waiting for: "
                              f"{self.record.get('waiting_for')}")
            if phase in ENDS:
                time.sleep(0.02)

    def run(self, result):
        """Fills `result`; raises nothing."""
        try:
            self.target.prepare(self.cell)
            self.arm()
            if self.cell.point == "" and self.cell.phase == "queued":
                self.act()
            self.request()
            if self.refused is not None:
                result.outcome = "refused"
            else:
                self.steps(result)
            self.clock.all()
        except Unsupported as why:
            result.skipped = str(why)
        except Exception as failure:  # pylint: disable=broad-except
            result.problems.append(f"{type(failure).__name__}: {failure}" if not isinstance(failure, Problem) else str(failure))
        finally:
            try:
                self.clock.all()
                self.target.forget_orders()
                if not result.skipped:
                    self.judge(result)
            except Exception as failure:  # pylint: disable=broad-except
                result.problems.append(f"afterwards: {failure}")

    def steps(self, result):
        if self.fault_at is None:
            if self.reach():
                self.act()
            elif self.cell.actions:
                raise Problem(f"ended {self.record['phase']} before it came to {self.cell.phase} {self.cell.point}: "
                              f"{self.record.get('reason')}")
        ended_at = self.to_the_end()
        result.resolve_ms = round((ended_at - (self.fault_at or ended_at)) * 1000)
        result.outcome = self.record["phase"]
        result.reason = self.record.get("reason") or ""

    def judge(self, result):
        self.target.settle()
        if self.ident and (self.record or {}).get("phase") not in ENDS:
            result.outcome = "unresolved"
        if self.ident and result.outcome == "attention":  # healed: does it still rest there?
            result.outcome = self.target.rest.migration(self.ident)["phase"]
        if result.outcome not in self.cell.outcome:
            result.problems.append(f"ended {result.outcome}, and only {' or '.join(self.cell.outcome)} is right"
                                   + (f": {result.reason}" if result.reason else ""))
        wrong = self.target.check(self.cell, self.record if self.ident else None, result)
        result.invariants_ok = not wrong
        result.problems += wrong
        result.guest = self.target.felt(self.record) if self.ident else {}
