"""A proxy before one worker that speaks its protocol: it can lose requests, lose replies of requests that were carried out,
repeat, delay, refuse, and cut one direction between two of those who talk.

It ends TLS on both sides, so it needs the fleet's certificates: towards the caller it is the worker, towards the worker it
is the caller, and neither can tell. Or, `raw`: bytes pass as they are (what certificates are made to fail for).

Rules (class Rule) are looked at for each request; times and deadlines end them. Threads: one per connection, all daemons.
"""
import contextlib
import dataclasses
import json
import re
import socket
import ssl
import threading
import time

HEAD_MAX = 32 << 10
IDLE_S = 120
REQUEST_S = 75  # the longest that a worker lets a caller wait, and something more


@dataclasses.dataclass
class Rule:
    what: str                # lose_request, lose_reply, repeat, refuse, delay, cut, cut_replies
    call: str = ""           # regular expression on "METHOD path" and, of orders, the operation; empty: every request
    caller: str = ""         # "coordinator", "worker:hv2"; empty: whoever it is
    index: int = -1          # of a fence or verify: only that volume
    times: int = 0           # so often; 0: until it ends
    until: float = 0.0       # time.monotonic(); 0: until it is removed
    ms: int = 0
    struck: int = 0
    struck_at: float = 0.0   # first


class Closed(Exception):
    pass


class Stream:
    """One direction's reader: whole HTTP/1.1 messages with a Content-Length."""

    def __init__(self, sock):
        self.sock, self.data = sock, b""

    def _more(self):
        chunk = self.sock.recv(65536)
        if not chunk:
            raise Closed
        self.data += chunk

    def message(self):
        """(head, body) as bytes."""
        while b"\r\n\r\n" not in self.data:
            if len(self.data) > HEAD_MAX:
                raise Closed
            self._more()
        head, _, rest = self.data.partition(b"\r\n\r\n")
        match = re.search(rb"\r\ncontent-length:\s*(\d+)", head, re.I)
        length = int(match.group(1)) if match else 0
        self.data = rest
        while len(self.data) < length:
            self._more()
        body, self.data = self.data[:length], self.data[length:]
        return head + b"\r\n\r\n", body


class Proxy:
    """Listens on `listen`, forwards to `upstream`. `files(identity)` gives (certificate, key) of whoever is to be played."""

    def __init__(self, name, listen, upstream, ca, files, inside=None):
        self.name, self.upstream, self.ca, self.files = name, upstream, str(ca), files
        self.inside = inside or (lambda function, *args: function(*args))
        self.rules, self.lock, self.connections = [], threading.Lock(), set()
        self.raw, self.ending = False, False
        self.server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server_context.load_verify_locations(self.ca)
        self.server_context.verify_mode = ssl.CERT_REQUIRED
        self.server_context.load_cert_chain(*map(str, files(f"worker:{name}")))
        self.client_contexts = {}
        self.listener = self.inside(self._listen, listen)
        self.address = self.listener.getsockname()
        threading.Thread(target=self._accept, daemon=True, name=f"proxy {name}").start()

    @staticmethod
    def _listen(address):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(256)
        return listener

    # ---- rules

    def add(self, rule):
        with self.lock:
            self.rules.append(rule)
        if rule.what in ("cut", "cut_replies"):
            return rule
        return rule

    def remove(self, rule):
        with self.lock, contextlib.suppress(ValueError):
            self.rules.remove(rule)

    def clear(self):
        with self.lock:
            self.rules.clear()

    def set_raw(self, raw):
        """From the next connection on; those that are open are closed."""
        self.raw = raw
        self.drop_connections()

    def drop_connections(self):
        with self.lock:
            doomed = list(self.connections)
        for sock in doomed:
            shut(sock)

    def close(self):
        self.ending = True
        shut(self.listener)
        self.listener.close()
        self.drop_connections()

    def _due(self, kinds, text, caller, body):
        """The first rule of these kinds that is meant by this request; it has struck."""
        now = time.monotonic()
        with self.lock:
            for rule in self.rules:
                if rule.what not in kinds or (rule.until and now > rule.until) or (rule.times and rule.struck >= rule.times):
                    continue
                if rule.caller and not caller.startswith(rule.caller):
                    continue
                if rule.call and not re.search(rule.call, text):
                    continue
                if rule.index >= 0 and index_of(body) != rule.index:
                    continue
                rule.struck += 1
                rule.struck_at = rule.struck_at or now
                return rule
        return None

    # ---- connections

    def _accept(self):
        while not self.ending:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _track(self, sock):
        with self.lock:
            self.connections.add(sock)

    def _untrack(self, sock):
        with self.lock:
            self.connections.discard(sock)
        with contextlib.suppress(OSError):
            sock.close()

    def _serve(self, sock):
        opened = [sock]
        self._track(sock)
        try:
            sock.settimeout(IDLE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.raw:
                self._pipe(sock, opened)
                return
            tls = self.server_context.wrap_socket(sock, server_side=True)
            opened[0] = tls
            self._untrack_only(sock)
            self._track(tls)
            caller = identity(tls)
            client, server, upstream = Stream(tls), None, None
            while not self.ending:
                head, body = client.message()
                if upstream is None:
                    upstream = self._connect(caller)
                    opened.append(upstream)
                    self._track(upstream)
                    server = Stream(upstream)
                try:
                    answer = self._one(caller, head, body, upstream, server)
                except Closed:
                    # The worker had closed a connection that nobody used, or it ended: the caller sees the same.
                    raise
                tls.sendall(answer)
        except (OSError, Closed, ValueError):
            pass
        finally:
            for one in opened:
                self._untrack(one)

    def _untrack_only(self, sock):
        with self.lock:
            self.connections.discard(sock)

    def _pipe(self, sock, opened):
        upstream = self.inside(socket.create_connection, self.upstream, 10)
        opened.append(upstream)
        self._track(upstream)

        def one_way(source, sink):
            with contextlib.suppress(OSError):
                while True:
                    data = source.recv(65536)
                    if not data:
                        break
                    sink.sendall(data)
            shut(source)
            shut(sink)
        back = threading.Thread(target=one_way, args=(upstream, sock), daemon=True)
        back.start()
        one_way(sock, upstream)
        back.join()

    def _connect(self, caller):
        if caller not in self.client_contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.load_verify_locations(self.ca)
            context.load_cert_chain(*map(str, self.files(caller)))
            self.client_contexts[caller] = context
        sock = self.inside(socket.create_connection, self.upstream, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(REQUEST_S)
        return self.client_contexts[caller].wrap_socket(sock)

    def _one(self, caller, head, body, upstream, server):
        text = call_of(head, body)
        self._hold_while_cut({"cut"}, text, caller, body)
        if self._due({"lose_request"}, text, caller, body):
            raise Closed
        late = self._due({"delay"}, text, caller, body)
        if late:
            time.sleep(late.ms / 1000)
        if self._due({"refuse"}, text, caller, body):
            return problem()
        again = self._due({"repeat"}, text, caller, body)
        upstream.sendall(head + body)
        answer = server.message()
        if again and again.ms:
            threading.Thread(target=self._late, args=(caller, head + body, again.ms), daemon=True).start()
        elif again:
            upstream.sendall(head + body)
            answer = server.message()
        self._hold_while_cut({"cut_replies"}, text, caller, body)
        if self._due({"lose_reply"}, text, caller, body):
            raise Closed
        return answer[0] + answer[1]

    def _late(self, caller, request, ms):
        """The same request once more, long after; whoever asked has its answer and hears nothing of this one."""
        time.sleep(ms / 1000)
        with contextlib.suppress(OSError, Closed, ValueError):
            with self._connect(caller) as upstream:
                upstream.sendall(request)
                Stream(upstream).message()

    def _hold_while_cut(self, kinds, text, caller, body):
        """What a cut swallows is not refused: nothing comes, until the connection is given up or the cut has ended (then
        it is gone for good, as packets are)."""
        cut = self._due(kinds, text, caller, body)
        if cut:
            while not self.ending and cut in self.rules and time.monotonic() < (cut.until or float("inf")):
                time.sleep(0.05)
            raise Closed


def shut(sock):
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def identity(tls):
    """"coordinator:fleet" of the peer's certificate."""
    names = dict.fromkeys(value for kind, value in (tls.getpeercert() or {}).get("subjectAltName", ()) if kind == "URI")
    for name in names:
        if name.startswith("urn:lmo:"):
            return name.removeprefix("urn:lmo:")
    raise Closed


def call_of(head, body):
    """"PUT /v1/ops/... attach": what rules are matched against."""
    line = head.partition(b"\r\n")[0].decode(errors="replace")
    text = " ".join(line.split(" ")[:2])
    if "/v1/ops/" in text:
        match = re.search(r"/v1/ops/[^ ?]*-([a-z_]+)(?:[ ?]|$)", text)
        text += " " + (match.group(1) if match else kind_of(body))
    return text


def kind_of(body):
    with contextlib.suppress(ValueError):
        return str(json.loads(body).get("kind", ""))
    return ""


def index_of(body):
    with contextlib.suppress(ValueError, AttributeError):
        return int(json.loads(body).get("index", 0))
    return -1


def problem():
    body = json.dumps({"type": "/problems/unavailable", "title": "made to fail", "status": 503, "code": "unavailable",
                       "detail": "a fault was ordered"}).encode()
    return (b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n"
            % len(body)) + body
