#!/usr/bin/python3
"""A receiver for tests, independent of the product: HTTP (or HTTPS) on a free port of 127.0.0.1, which it prints.

    receiver.py FILE [CERT KEY]

Every POST is appended to FILE as one line of JSON: path, headers, body, and whether a signature is good for each secret in
FILE.secrets (one per line). FILE.plan says how to answer, read anew with every request: lines "STATUS COUNT [BODY]"; the first
line whose count is not used up is used, and without one 204."""
import base64
import hashlib
import hmac
import http.server
import json
import os
import ssl
import sys
import threading

FILE = sys.argv[1]
LOCK = threading.Lock()
USED = {}


def read_lines(path):
    return open(path, encoding="utf-8").read().splitlines() if os.path.exists(path) else []


def good(secret, headers, body):
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers.get('webhook-id')}.{headers.get('webhook-timestamp')}.".encode() + body
    want = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    given = [s.removeprefix("v1,") for s in (headers.get("webhook-signature") or "").split(" ")]
    return any(hmac.compare_digest(want, s) for s in given)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        for number, line in enumerate(read_lines(FILE + ".plan")):
            status, count, *body = line.split(" ", 2)
            if USED.get((number, line), 0) < int(count):
                USED[(number, line)] = USED.get((number, line), 0) + 1
                return int(status), body[0] if body else ""
        return 204, ""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with LOCK:
            status, text = self.answer()
            line = {"path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}, "body": body.decode(),
                    "status": status, "good": [good(s, self.headers, body) for s in read_lines(FILE + ".secrets")]}
            with open(FILE, "a", encoding="utf-8") as f:
                f.write(json.dumps(line) + "\n")
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
if len(sys.argv) > 3:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
server.serve_forever()
