#!/usr/bin/python3
"""record.py NAME GUEST --bandwidth MiB/s [--seconds S] [--throttle INITIAL:INCREMENT] [--destination hv2]

Records one pre-copy of a guest of the lab as NAME.csv, beside this file: libvirt's statistics of the job, read twice a
second as LMO's worker does, with a downtime limit of 1 ms, so that nothing but the guest and the bandwidth decides what
they are. Ends with an abort after S seconds (the guest stays), or when the job has converged all the same (the guest is
gone: destroy it).

    export LMO_LAB=traces; deploy/lab/lab up --no-lmo
    deploy/lab/lab guest create slow --dirty-rate 4 --dirty-region 64
    tests/traces/record.py slow slow --bandwidth 24
"""
import argparse
import pathlib
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "deploy" / "lab" / "lib"))
import labinfo  # noqa: E402
import libvirt  # noqa: E402

COLUMNS = ("elapsed_ms", "iteration", "total_bytes", "transferred_bytes", "remaining_bytes", "rate_bytes_per_s",
           "dirty_bytes_per_s", "throttle_percent")
SAMPLE_S = 0.5


def sample(domain):
    s = domain.jobStats()
    return (s.get("time_elapsed", 0), s.get("memory_iteration", 0), s.get("memory_total", 0),
            s.get("memory_processed", 0), s.get("memory_remaining", 0), s.get("memory_bps", 0),
            s.get("memory_dirty_rate", 0) * s.get("memory_page_size", 0), s.get("auto_converge_throttle", 0))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("guest")
    parser.add_argument("--bandwidth", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--throttle", default="")
    parser.add_argument("--source", default="hv1")
    parser.add_argument("--destination", default="hv2")
    args = parser.parse_args()
    uri = f"qemu+tcp://{labinfo.UNDERLAY}.{labinfo.OCTET[args.source]}/system"
    watcher, mover = (labinfo.in_net(args.source, libvirt.open, uri).lookupByName(args.guest) for _ in range(2))
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    params = {libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{labinfo.MIGRATION}.{labinfo.OCTET[args.destination]}",
              libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: args.bandwidth}
    flags = (libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_PAUSED |
             libvirt.VIR_MIGRATE_UNSAFE)
    if args.throttle:
        initial, increment = args.throttle.split(":")
        flags |= libvirt.VIR_MIGRATE_AUTO_CONVERGE
        params[libvirt.VIR_MIGRATE_PARAM_AUTO_CONVERGE_INITIAL] = int(initial)
        params[libvirt.VIR_MIGRATE_PARAM_AUTO_CONVERGE_INCREMENT] = int(increment)
    over = threading.Event()

    def move():
        try:
            host = f"{labinfo.UNDERLAY}.{labinfo.OCTET[args.destination]}"
            mover.migrateToURI3(f"qemu+tcp://{host}/system", params, flags)
        except libvirt.libvirtError:
            pass  # the abort below
        over.set()

    before = watcher.migrateGetMaxDowntime()
    watcher.migrateSetMaxDowntime(1)
    threading.Thread(target=move, daemon=True).start()
    rows, deadline = [], time.monotonic() + args.seconds
    while not over.wait(SAMPLE_S) and time.monotonic() < deadline:
        try:
            row = sample(watcher)
        except libvirt.libvirtError:
            break  # it has converged to 1 ms, and its domain is gone from here
        if row[2]:
            rows.append(row)
    try:
        watcher.abortJob()
        over.wait(30)
        watcher.migrateSetMaxDowntime(before)
    except libvirt.libvirtError:
        print("it converged by itself: the guest has moved")
    with open(HERE / f"{args.name}.csv", "w", encoding="ascii") as out:
        out.write(f"# tests/traces/record.py {' '.join(sys.argv[1:])}\n{','.join(COLUMNS)}\n")
        out.writelines(",".join(map(str, row)) + "\n" for row in rows)
    print(f"{args.name}.csv: {len(rows)} samples, {rows[-1][1]} passes")


if __name__ == "__main__":
    main()
