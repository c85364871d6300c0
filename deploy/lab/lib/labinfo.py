"""What the lab's Python programs know about a lab: names, paths, how to get in.

Standard library only.
"""
import ctypes
import json
import os
import pathlib
import subprocess
import sys
import threading

LAB = os.environ.get("LMO_LAB", "lab0")
RUN = pathlib.Path("/run/lmo-lab") / LAB
BIG = pathlib.Path("/var/tmp/lmo-lab") / LAB
OCTET = {"ctl": 10, "hv1": 11, "hv2": 12, "hv3": 13}
HYPERVISORS = ("hv1", "hv2", "hv3")
UNDERLAY = "10.77.0"
MIGRATION = "10.78.0"
CLIENT_HOST = "hv3"
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def host_pid(host):
    """Process 1 of a host as seen from outside, or None when the host is off."""
    try:
        pid, start = (RUN / "host" / f"{host}.pid").read_text().split()
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return int(pid) if stat[19] == start and stat[0] not in "ZX" else None


def require_up():
    if host_pid("ctl") is None:
        sys.exit(f"lab: lab '{LAB}' is not up (lab up)")


def enter_net(host):
    """Moves the calling thread into a host's network namespace."""
    fd = os.open(f"/proc/{host_pid(host)}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(fd, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter the network of {host}")
    finally:
        os.close(fd)


def in_net(host, function, *args):
    """Calls function(*args) in a thread of its own inside a host's network."""
    outcome = {}

    def run():
        try:
            enter_net(host)
            outcome["value"] = function(*args)
        except Exception as error:  # carried to the caller
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]


def command(host, *argv, timeout=30):
    """Runs a command inside a host; returns its output, raises when it fails."""
    done = subprocess.run(
        ["nsenter", "-t", str(host_pid(host)), "-m", "-u", "-i", "-n", "-p", "--", *argv],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{argv[0]} on {host}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def interface_bytes(host, interface):
    """(received, sent) of an interface of a host since it was made."""
    directory = f"/sys/class/net/{interface}/statistics"
    words = command(host, "cat", f"{directory}/rx_bytes", f"{directory}/tx_bytes").split()
    return int(words[0]), int(words[1])


def qmp_path():
    """The lab's own monitor of the volume service, reachable from outside."""
    return f"/proc/{host_pid('ctl')}/root/run/lmo-volumes/lab.sock"


def guests():
    """Records of the lab's guests, by name."""
    found = {}
    for path in sorted((RUN / "guests").glob("*.json")):
        record = json.loads(path.read_text())
        found[record["name"]] = record
    return found


def stream_lines(address, count, timeout=5.0):
    """Greeting and the next count lines of a guest's stream, split into numbers.

    Call it inside the client's network (in_net).
    """
    import socket
    import time

    deadline = time.monotonic() + timeout
    with socket.create_connection((address, 7000), timeout=timeout) as sock:
        data = b""
        while data.count(b"\n") < count + 1:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"the stream of {address} sent {data.count(b'%c' % 10)} lines "
                                   f"in {timeout:g} s")
            sock.settimeout(left)
            chunk = sock.recv(4096)
            if not chunk:
                raise EOFError(f"the stream of {address} ended")
            data += chunk
    lines = data.decode().splitlines()
    return lines[0], [[int(word) for word in line.split()] for line in lines[1:count + 1]]
