"""What came of the cells: a table for people, JSON for programs (build/reports/faults.json)."""
import dataclasses
import json
import os
import time


@dataclasses.dataclass
class Result:
    ident: str
    campaign: str
    phase: str
    point: str
    fault: str
    target: str
    hard: bool = False
    outcome: str = ""
    invariants_ok: bool = False
    resolve_ms: int = None
    reason: str = ""
    guest: dict = dataclasses.field(default_factory=dict)
    problems: list = dataclasses.field(default_factory=list)
    skipped: str = ""
    seconds: float = 0.0

    @property
    def passed(self):
        return not self.skipped and not self.problems

    def as_json(self):
        return {"id": self.ident, "campaign": self.campaign, "phase": self.phase, "point": self.point, "fault": self.fault,
                "target": self.target, "hard": self.hard, "outcome": self.outcome, "invariants_ok": self.invariants_ok,
                "resolve_ms": self.resolve_ms, "guest": self.guest, "reason": self.reason, "problems": self.problems,
                "seconds": round(self.seconds, 2)}


def felt(guest):
    words = []
    if "blackout_ms" in guest:
        words.append(f"paused {guest['blackout_ms']:g} ms")
    if "probes_lost" in guest:
        words.append(f"{guest['probes_lost']} of {guest['probes_sent']} probes lost")
    if "longest_gap_ms" in guest:
        words.append(f"gap {guest['longest_gap_ms']:g} ms")
    return ", ".join(words)


def table(results):
    rows = [("TARGET", "PHASE", "POINT", "FAULT", "OUTCOME", "INVARIANTS", "RESOLVED", "GUEST")]
    for r in results:
        if r.skipped:
            continue
        rows.append((r.target, r.phase, r.point or "-", r.fault or "none", r.outcome or "?", "held" if r.invariants_ok else "BROKEN",
                     "-" if r.resolve_ms is None else f"{r.resolve_ms / 1000:.2f} s", felt(r.guest)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip() for row in rows)


def matrix(results):
    """phase x fault, over all targets and points: how many cells, and what became of them."""
    phases = list(dict.fromkeys(r.phase for r in results if not r.skipped))
    faults = list(dict.fromkeys(r.fault for r in results if not r.skipped))
    cell = {}
    for r in results:
        if not r.skipped:
            cell.setdefault((r.fault, r.phase), []).append(r)

    def text(some):
        if not some:
            return "."
        ends = "/".join(sorted({r.outcome[:4] for r in some}))
        return f"{len(some)} {ends}{'' if all(r.passed for r in some) else ' !'}"
    rows = [["FAULT", *phases]] + [[f or "none", *(text(cell.get((f, p))) for p in phases)] for f in faults]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip() for row in rows)


def violations(results):
    return [{"id": r.ident, "target": r.target, "phase": r.phase, "fault": r.fault, "what": problem}
            for r in results for problem in r.problems]


def write(path, results, more=None):
    document = {"made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "cells": [r.as_json() for r in results if not r.skipped],
                "skipped": [{"id": r.ident, "target": r.target, "why": r.skipped} for r in results if r.skipped],
                "violations": violations(results), **(more or {})}
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".new")
    scratch.write_text(json.dumps(document, indent=1) + "\n")
    os.replace(scratch, path)
