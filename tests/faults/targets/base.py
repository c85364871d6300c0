"""What a target of real processes offers to faults.Drive."""
import dataclasses
import os
import time

from faults import Drive, Problem, Unsupported


@dataclasses.dataclass
class Guest:
    name: str
    source: str
    destination: str
    shut_off: bool = False
    paused: bool = False


class Target:
    """One coordinator with its workers. `guest` is the one of the present cell, `rest` a client of the coordinator.

    apply(action, cell) does one thing and returns what undoes it (or None)."""

    name = "?"
    has_points = True
    is_up = False
    guest = None
    rest = None

    def up(self):
        raise NotImplementedError

    def down(self):
        raise NotImplementedError

    def why_not(self, cell):
        """A sentence when this cell cannot be carried out here, else None. Nothing is done yet."""
        if cell.place() and not self.has_points:
            return "needs programs built with fault points (make faults-build)"
        for action in cell.actions:
            if action["do"] not in ("wait", "continue", "cancel", "at") and not hasattr(self, "do_" + action["do"]):
                return f"cannot do '{action['do'].replace('_', ' ')}' here"
        return None

    def carry_out(self, cell, result):
        """Fills the result; raises nothing."""
        Drive(self, cell).run(result)

    def prepare(self, cell):
        """A guest for the cell, everything up and nothing left of the cell before."""
        raise NotImplementedError

    def policy(self, cell):
        return cell.policy

    def apply(self, action, cell):
        function = getattr(self, "do_" + action["do"], None)
        if function is None:
            raise Unsupported(f"cannot do '{action['do']}' here")
        return function(action, cell)

    def check(self, cell, record, result):
        """Sentences of an independent check: what is not in order."""
        raise NotImplementedError

    def settle(self):
        """Every program is up, and the coordinator reaches every host."""
        raise NotImplementedError

    def felt(self, record):
        """What the guest felt, as far as this target can tell."""
        ms = ((record or {}).get("cutover") or {}).get("blackout_ms")
        return {} if ms is None else {"blackout_ms": round(ms, 1)}

    def over(self, drive):
        """Has the migration ended, as far as can be said while the coordinator may stand still?"""
        return False

    # ---- did it strike? A cell that ends well because nothing went wrong has shown nothing.
    witnesses = ()

    def witness(self, what, struck):
        self.witnesses = [*self.witnesses, (what, struck)]

    def count_witnesses(self, result):
        """A cut has one rule for each direction and each kind of message: any of one action's is enough."""
        missed = [what for what, struck in self.witnesses if not struck()]
        if self.witnesses and len(missed) == len(self.witnesses):
            result.problems.append(f"it never struck: {', '.join(missed)}")

    # ---- fault orders (lmo/base/fault.h): one file for all programs of the target
    orders_path = None

    def give_order(self, line):
        path = self.orders_path
        scratch = path.with_name(path.name + ".new")
        scratch.write_text(line + "\n")
        os.replace(scratch, path)

    def forget_orders(self):
        if self.orders_path and self.orders_path.exists():
            self.give_order("# none")

    def struck(self, ident):
        path = self.orders_path.with_name(self.orders_path.name + ".struck")
        try:
            return any(line.startswith(ident + " ") for line in path.read_text().splitlines())
        except OSError:
            return False

    def has_died(self, part):
        """The program of that part has ended by an order; waits until the kernel says so."""
        raise NotImplementedError

    def start(self, part):
        raise NotImplementedError


def wait_until(what, condition, seconds=30.0, every=0.02):
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Problem(f"waited {seconds:g} s for {what}")
        time.sleep(every)
