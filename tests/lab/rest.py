"""The coordinator's REST API over mutual TLS, for tests: one connection, new requests, following a migration to its end."""
import http.client
import json
import pathlib
import ssl
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]

ENDS = ("completed", "aborted", "attention", "abandoned")


def openapi(build=ROOT / "build" / "release"):
    """The document that every answer has to be in (tests/api/conform.py)."""
    sys.path.insert(0, str(ROOT / "tests" / "api"))
    import conform  # python3-jsonschema is the lab's matter, not that of every program that asks a coordinator
    return conform.Document(json.loads((build / "generated" / "openapi.json").read_text()))


class Rest:
    """One mutual-TLS connection to a coordinator; makes a new one when the old one broke. `inside` calls a function where
    the coordinator can be reached (a lab's network namespace). `document`: every answer must be one that it has."""

    def __init__(self, address, ca, cert, key, inside=None, timeout=40, document=None):
        self.document = document
        self.address, self.inside, self.timeout = address, inside or (lambda function: function()), timeout
        self.files = (ca, cert, key)
        self.context = ssl.create_default_context(cafile=str(ca))
        self.context.load_cert_chain(str(cert), str(key))
        self.connection = None

    def _connect(self):
        connection = http.client.HTTPSConnection(*self.address, context=self.context, timeout=self.timeout)
        connection.auto_open = 0  # a new connection is made in the right network, or not at all
        connection.connect()
        return connection

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def call(self, method, path, body=None, headers=None, raw=None):
        """(status, decoded body). Raises OSError when the coordinator cannot be reached."""
        data = raw if raw is not None else (json.dumps(body) if body is not None else None)
        headers = {"Content-Type": "application/json", **(headers or {})} if data is not None else (headers or {})
        for fresh in (False, True):
            if self.connection is None or self.connection.sock is None:
                self.connection = self.inside(self._connect)
                fresh = True
            try:
                self.connection.request(method, path, data, headers)
                answer = self.connection.getresponse()
                text = answer.read()
                self._conforms(method, path, answer, text)
                return answer.status, json.loads(text) if text else None
            except (OSError, http.client.HTTPException):
                self.connection.close()
                self.connection = None
                if fresh or method != "GET":
                    raise
        raise AssertionError("unreachable")

    def _conforms(self, method, path, answer, text):
        wrong = self.document.check(method, path, answer.status, answer.getheaders(), text.decode()) if self.document else []
        if wrong:
            raise AssertionError(f"{method} {path}: {answer.status}: not as in proto/openapi.yaml: {'; '.join(wrong)}")

    def get(self, path):
        status, body = self.call("GET", path)
        if status != 200:
            raise AssertionError(f"GET {path}: {status} {body}")
        return body

    def migrate(self, vm, destination, **policy):
        status, body = self.call("POST", "/v1/migrations", {"vm": vm, "destination": destination, "policy": policy})
        if status != 202:
            raise AssertionError(f"migrate {vm} to {destination}: {status} {body}")
        return body

    def migration(self, ident):
        return self.get(f"/v1/migrations/{ident}")

    def follow(self, ident, until, seconds=120.0):
        """Long-polls until `until(record)` is true; rides over a coordinator that is away."""
        deadline = time.monotonic() + seconds
        version, record = 0, {"phase": "unknown"}
        while True:
            try:
                record = self.get(f"/v1/migrations/{ident}?wait_version={version}&wait_ms=2000")
                version = record["version"]
                if until(record):
                    return record
                if record["phase"] in ENDS:
                    raise AssertionError(f"migration ended {record['phase']}: {record['reason']}")
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)
            if time.monotonic() > deadline:
                raise AssertionError(f"migration {ident} is in {record['phase']} after {seconds:g} s; "
                                     f"waiting for: {record.get('waiting_for')}")

    def ended(self, ident, seconds=120.0):
        return self.follow(ident, lambda r: r["phase"] in ENDS, seconds)

    def in_phase(self, ident, phase, seconds=60.0):
        return self.follow(ident, lambda r: r["phase"] == phase, seconds)

    def copying(self, ident, seconds=60.0):
        """In pre-copy, with memory on the move behind an open gate."""
        return self.follow(ident, lambda r: r["phase"] == "precopy" and
                           (r["progress"] or {}).get("transferred_bytes", 0) > 0, seconds)

    def journal(self, ident):
        return self.get(f"/v1/migrations/{ident}/journal?limit=1000")["journal"]
