#!/usr/bin/python3
"""qmp.py SOCKET [--ignore TEXT] [--wait-export-deleted ID] COMMAND...

Sends QMP commands (JSON) one after another and prints each result as JSON.
--ignore TEXT: an error whose description contains TEXT is no failure.
--wait-export-deleted ID: after the commands, wait for that export's
BLOCK_EXPORT_DELETED event; not when the commands' errors were ignored.
Every wait ends after 15 seconds.
"""
import json
import socket
import sys


class Qmp:
    """One connection to a QMP monitor."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(15)
        self.sock.connect(path)
        self.file = self.sock.makefile("r", encoding="utf-8")
        self.events = []
        self._read()
        self.execute({"execute": "qmp_capabilities"})

    def _read(self):
        line = self.file.readline()
        if not line:
            raise EOFError("the monitor closed the connection")
        return json.loads(line)

    def execute(self, command):
        """Returns (result, None) or (None, error description)."""
        self.sock.sendall(json.dumps(command).encode() + b"\n")
        while True:
            message = self._read()
            if "event" in message:
                self.events.append(message)
            elif "error" in message:
                return None, message["error"]["desc"]
            else:
                return message["return"], None

    def wait_event(self, name, **data):
        """Waits for an event whose data contain the given values."""
        while True:
            for event in self.events:
                if event["event"] == name and data.items() <= event.get("data", {}).items():
                    return event
            self.events = [self._read()]


def main(args):
    path, ignore, deleted, failed = args.pop(0), None, None, False
    while args and args[0].startswith("--"):
        option = args.pop(0)
        if option == "--ignore":
            ignore = args.pop(0)
        elif option == "--wait-export-deleted":
            deleted = args.pop(0)
        else:
            sys.exit(f"qmp: unknown option {option}")
    qmp = Qmp(path)
    for text in args:
        result, error = qmp.execute(json.loads(text))
        if error is None:
            print(json.dumps(result))
        elif ignore is not None and ignore in error:
            failed = True
        else:
            sys.exit(f"qmp: {error}")
    if deleted is not None and not failed:
        qmp.wait_event("BLOCK_EXPORT_DELETED", id=deleted)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1:])
