"""What must be true when a cell has come to rest, seen from outside of LMO. Nothing here asks LMO whether LMO was right.

The lab has its own check (deploy/lab/check), the simulator its checkers; this is the one of simulated workers, on what
lmo-simctl says of the world, and the part that is the same everywhere: where the record says the guest is."""

DEFINED_IN = {"completed": "destination", "aborted": "source", "refused": "source"}


def expected_host(guest, outcome):
    """Where the guest has to be; None: the outcome does not say."""
    part = DEFINED_IN.get(outcome)
    return getattr(guest, part) if part else None


def of_world(look, guest, outcome):
    """Sentences about what lmo-simctl showed of one guest; empty: in order."""
    wrong = [f"the world saw: {look['violation']}"] if look["violation"] else []
    seen = next((g for g in look["guests"] if g["name"] == guest.name), None)
    if seen is None:
        return wrong + [f"{guest.name} is gone"]
    running = [c["host"] for c in seen["copies"] if c["runs"]]
    if len(running) > 1:
        wrong.append(f"{guest.name} runs on {' and '.join(running)}")
    host = expected_host(guest, outcome)
    if host is None:  # in attention, or unresolved: what is left of it is what the record says
        return wrong
    places = {c["host"]: c for c in seen["copies"]}
    if list(places) != [host]:
        wrong.append(f"{guest.name} is at {' and '.join(places) or 'no host'} instead of {host} alone")
    here = places.get(host)
    if here:
        wrong += of_copy(here, guest, host)
    for volume in sorted({e["volume"] for e in seen["exports"]}):
        to = [e["export"] for e in seen["exports"] if e["volume"] == volume]
        if len(to) != 1 or [e["host"] for e in seen["exports"] if e["volume"] == volume] != [host]:
            wrong.append(f"{volume} is offered as {', '.join(to)}, and only {host} should have it")
    if not seen["exports"]:
        wrong.append(f"no volume of {guest.name} is offered to anybody")
    if seen["dual"] or seen["single"] != host:
        wrong.append(f"the port of {guest.name} is delivered to {seen['single']}{' and another host' if seen['dual'] else ''}")
    if seen["job"]:
        wrong.append(f"a job of {guest.name} runs still")
    return wrong


def of_copy(copy, guest, host):
    wrong = []
    if not copy["defined"]:
        wrong.append(f"{guest.name} is not defined at {host}")
    if guest.shut_off and copy["process"]:
        wrong.append(f"{guest.name} was shut off and is not any more")
    if not guest.shut_off and not copy["process"]:
        wrong.append(f"{guest.name} has no process at {host}")
    if not guest.shut_off and copy["runs"] == guest.paused:
        wrong.append(f"{guest.name} {'runs although its owner paused it' if guest.paused else 'does not run at ' + host}")
    left = [what for what in ("prepared", "incoming", "loaded", "stopped") if copy[what]]
    if left:
        wrong.append(f"{guest.name} at {host} is still {' and '.join(left)}")
    return wrong


def of_doctor(findings):
    """The doctor's sentences; LMO's own look, beside the one from outside."""
    return [f"doctor: {f['kind']}: {f.get('detail') or f.get('text') or f}" for f in findings]
