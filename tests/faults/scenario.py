"""What a campaign file says: cells, each one migration, a point, what goes wrong there, and which ends are right.

Nothing in a campaign belongs to one target. Names of hosts do not occur, only parts: coordinator, source, destination,
volumes (the worker and the service that hold the volumes; the fabric's worker is the same in all targets).
"""
import dataclasses
import json
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
CAMPAIGNS = HERE / "campaigns"
TARGETS = ("sim", "simworkers", "lab", "cluster")
OUTCOMES = ("completed", "aborted", "attention", "refused")
PARTS = ("coordinator", "source", "destination", "volumes")
PHASES = ("queued", "precheck", "destination_create", "volume_attach", "network_preload", "dual_ingress", "precopy",
          "cutover", "finalize", "rollback")

# The operation that stands for a phase, and which part carries it out. In rollback: after a cancel in pre-copy.
OPERATIONS = {
    "precheck": ("describe", "source"), "destination_create": ("prepare", "destination"),
    "volume_attach": ("attach", "volumes"), "network_preload": ("preload", "volumes"), "dual_ingress": ("dual", "volumes"),
    "precopy": ("job_start", "source"), "finalize": ("remove_source", "source"), "rollback": ("discard", "destination"),
}
# Points of every phase that has an operation: place in the program (lmo/base/fault.h), and whose program.
STEPS = {"sent": ("coordinator.send", "coordinator"), "accepted": ("worker.accepted", None),
         "done": ("worker.ended", None), "told": ("worker.answer", None), "answered": ("coordinator.reply", "coordinator")}
# Points of the cutover: the two workers' stages, once they are durable ("deciding ...": decided, not durable).
STAGES = {"asking": "destination", "committed": "destination", "fenced": "destination", "resumed": "destination",
          "freezing": "source", "frozen": "source", "killing": "source"}

# Parameters that each action takes, and those that it must have.
ACTIONS = {
    "kill": ({"who", "for_s"}, {"who"}),                    # SIGKILL; started again after for_s (0: at once)
    "stop": ({"who", "for_s"}, {"who", "for_s"}),           # SIGSTOP for so long
    "cut": ({"from", "to", "for_s", "both"}, {"from", "to", "for_s"}),  # nothing from one reaches the other
    "delay": ({"to", "call", "ms", "for_s"}, {"to", "ms", "for_s"}),    # requests to it take so much longer
    "lose": ({"what", "call", "to", "times"}, {"what", "call", "to"}),  # a request, or the reply of one that was carried out
    "repeat": ({"call", "to", "times", "late_ms"}, {"call", "to"}),  # the request arrives twice, the second time so late
    "refuse": ({"call", "to", "index", "for_s"}, {"call", "to", "for_s"}),  # that call gets an error for an answer
    "finish_lost": ({"for_s"}, set()),                      # the destination's finish never reaches the source's hypervisor
    "host_link_cut": ({"for_s"}, {"for_s"}),                # everything from the destination to the source, both networks
    "copy_dies": (set(), set()),                            # the destination's process of the guest
    "hypervisor_kill": ({"who", "for_s"}, {"who"}),         # the host's libvirtd
    "hypervisor_stop": ({"who", "for_s"}, {"who", "for_s"}),
    "volume_service_kill": ({"for_s"}, set()),
    "disk_full": ({"who", "for_s"}, {"who", "for_s"}),      # of the program's state directory
    "memory_gone": ({"for_s"}, {"for_s"}),                  # of the destination
    "clock": ({"who", "ms", "for_s"}, {"who", "ms"}),       # the wall clock of that program jumps
    "certificate_expires": ({"who", "lifetime_s", "for_s"}, {"who", "lifetime_s"}),  # short-lived; renewed after for_s
    "certificate_rotated": ({"who"}, {"who"}),              # a new one, and the old one revoked everywhere, at once
    "take_over": (set(), set()),                            # a second coordinator on the same store (lmod --take-over)
    "cancel": (set(), set()),
    "wait": ({"for_s"}, {"for_s"}),
    "continue": (set(), set()),                             # whoever stands at the point goes on here, not at the end
    "at": ({"point"}, {"point"}),                           # goes on, to the next point; what follows is done there
}


class Wrong(Exception):
    """A campaign file that does not say something that can be done."""


@dataclasses.dataclass
class Cell:
    ident: str
    campaign: str
    phase: str
    point: str            # of STEPS or STAGES, "entered", or "" (from the beginning)
    actions: list
    outcome: list
    about: str = ""
    hard: bool = False
    guest: dict = dataclasses.field(default_factory=dict)   # volumes, paused, shut_off, dirty_mib_per_s
    policy: dict = dataclasses.field(default_factory=dict)
    cancel_first: bool = False   # a cancel in pre-copy leads to the phase (rollback)
    targets: tuple = TARGETS
    limit_s: float = 90.0

    @property
    def fault(self):
        """What goes wrong, in few words: the matrix's other axis."""
        return " + ".join(name_of(a) for a in self.actions if a["do"] not in ("at", "continue", "wait"))

    def place(self):
        """(order's place, part) of the named point; None: it is a moment that only the record shows."""
        if self.point in ("", "entered"):
            return None
        deciding = self.point.startswith("deciding ")
        stage = self.point.removeprefix("deciding ")
        if stage in STAGES:
            part = STAGES[stage]
            return f"{part}.{'step' if deciding else 'durable'}:{stage}", part
        place, part = STEPS[self.point]
        operation, carried_out_by = OPERATIONS[self.phase]
        return f"{place}:{operation}", part or carried_out_by


def name_of(action):
    what = action["do"].replace("_", " ")
    who = action.get("who") or (f"{action['from']} to {action['to']}" if "from" in action else action.get("to", ""))
    call = action.get("call", "")
    if action["do"] == "lose":
        return f"{action['what']} of {call} lost"
    if action["do"] == "repeat":
        return f"{call} twice" + (" (late)" if "late_ms" in action else "")
    return " ".join(word for word in (what, call, who) if word)


def check(cell):
    where = f"{cell.campaign}: {cell.ident}"
    if cell.phase not in PHASES:
        raise Wrong(f"{where}: there is no phase '{cell.phase}'")
    stage = cell.point.removeprefix("deciding ")
    if cell.point not in ("", "entered") and stage not in STAGES and cell.point not in STEPS:
        raise Wrong(f"{where}: there is no point '{cell.point}'")
    if cell.point in STEPS and cell.phase not in OPERATIONS:
        raise Wrong(f"{where}: phase '{cell.phase}' has no operation of its own to be at '{cell.point}'")
    if not cell.outcome or set(cell.outcome) - set(OUTCOMES):
        raise Wrong(f"{where}: outcome must name some of {', '.join(OUTCOMES)}")
    if not cell.targets or set(cell.targets) - set(TARGETS):
        raise Wrong(f"{where}: targets must name some of {', '.join(TARGETS)}")
    for action in cell.actions:
        allowed, needed = ACTIONS.get(action.get("do"), (None, None))
        if allowed is None:
            raise Wrong(f"{where}: nobody knows how to do '{action.get('do')}'")
        given = set(action) - {"do"}
        if given - allowed or needed - given:
            raise Wrong(f"{where}: {action['do']} takes {sorted(allowed)}, needs {sorted(needed)}, got {sorted(given)}")
        for part in (action.get(k) for k in ("who", "from", "to")):
            if part is not None and part not in PARTS:
                raise Wrong(f"{where}: there is no part '{part}'")


def cells_of(document, campaign):
    for entry in document.get("cells", []):
        yield make(campaign, entry["id"], {**document.get("defaults", {}), **entry})
    for grid in document.get("grids", []):
        for phase in grid["phases"]:
            for point in grid["points"]:
                for fault in grid["faults"]:
                    outcome = grid["outcome"]
                    allowed = outcome if isinstance(outcome, list) else outcome.get(phase, outcome.get("*"))
                    common = {k: v for k, v in grid.items() if k not in ("phases", "points", "faults", "outcome")}
                    yield make(campaign, "-".join(w for w in (phase, point.replace(" ", "-"), fault["name"]) if w),
                               {**document.get("defaults", {}), **common, "phase": phase, "point": point,
                                "actions": fault["actions"], "outcome": allowed, "about": fault.get("about", "")})


def make(campaign, ident, entry):
    known = {"id", "about", "phase", "point", "actions", "outcome", "hard", "guest", "policy", "targets", "limit_s"}
    if set(entry) - known:
        raise Wrong(f"{campaign}: {ident}: unknown {', '.join(sorted(set(entry) - known))}")
    if "outcome" not in entry or not entry["outcome"]:
        raise Wrong(f"{campaign}: {ident}: which ends are right?")
    cell = Cell(ident=ident, campaign=campaign, phase=entry["phase"], point=entry.get("point", ""),
                actions=entry.get("actions", []), outcome=entry["outcome"], about=entry.get("about", ""),
                hard=entry.get("hard", False), guest=entry.get("guest", {}), policy=entry.get("policy", {}),
                cancel_first=entry["phase"] == "rollback", targets=tuple(entry.get("targets", TARGETS)),
                limit_s=entry.get("limit_s", 90.0))
    check(cell)
    return cell


def load(names=()):
    """Cells of the campaigns with these names (files in campaigns/, or paths); of all of them by default."""
    paths = [pathlib.Path(n) if "/" in n else CAMPAIGNS / f"{n}.json" for n in names] or sorted(CAMPAIGNS.glob("*.json"))
    cells, seen = [], set()
    for path in paths:
        try:
            document = json.loads(path.read_text())
        except (OSError, ValueError) as failure:
            raise Wrong(f"{path}: {failure}") from failure
        for cell in cells_of(document, path.stem):
            if cell.ident in seen:
                raise Wrong(f"{path}: two cells are called {cell.ident}")
            seen.add(cell.ident)
            cells.append(cell)
    return cells
