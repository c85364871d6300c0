"""A token instead of a certificate: what is sent, to whom, and what never is. The other end is a small HTTPS server that has the
coordinator's certificate and asks for none."""
import http.server
import os
import ssl
import subprocess
import tempfile
import threading
import unittest
import pathlib
import shutil

from fleet import BIN, PATIENCE

TOKEN = "lmo_0123456789abcdef"


class Recorder(http.server.BaseHTTPRequestHandler):
    seen = []

    def do_GET(self):
        Recorder.seen.append((self.path, self.headers.get("Authorization"), self.connection.getpeercert()))
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        body = b'{"hosts":[{"name":"hv1","state":"up"}]}' if known else b'{"code":"unauthenticated","detail":"no such token"}'
        self.send_response(200 if known else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Token(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = pathlib.Path(tempfile.mkdtemp(prefix="lmo-token-"))
        cls.lmo("pki", "init", cls.dir / "pki")
        for role in ("coordinator", "worker"):
            cls.lmo("pki", "issue", "--dir", cls.dir / "pki", "--role", role, "--name", "one", "--address", "127.0.0.1")
        (cls.dir / "token").write_text(TOKEN + "\n")
        (cls.dir / "token").chmod(0o600)
        cls.servers = {role: cls.serve(role) for role in ("coordinator", "worker")}

    @classmethod
    def serve(cls, role):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cls.dir / "pki" / "issued" / f"{role}-one.pem", cls.dir / "pki" / "issued" / f"{role}-one.key")
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    @classmethod
    def tearDownClass(cls):
        for server in cls.servers.values():
            server.shutdown()
            server.server_close()
        shutil.rmtree(cls.dir)

    def setUp(self):
        Recorder.seen.clear()

    @classmethod
    def lmo(cls, *args, to=None, **env):
        plain = {k: v for k, v in os.environ.items() if not k.startswith("LMO_") and k != "XDG_CONFIG_HOME"}
        url = {"LMO_URL": f"https://127.0.0.1:{to.server_address[1]}", "LMO_CA": str(cls.dir / "pki" / "ca.pem")} if to else {}
        return subprocess.run([str(BIN / "lmo"), *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              env={**plain, "HOME": str(cls.dir / "home"), **url, **env}, timeout=PATIENCE, check=False)

    def test_is_sent_as_a_bearer_token_without_a_certificate(self):
        done = self.lmo("host", "list", "--plain", "--token-file", self.dir / "token", to=self.servers["coordinator"])
        self.assertEqual((done.returncode, done.stdout.splitlines()[1].split("\t")[:2]), (0, ["hv1", "up"]), done.stderr)
        self.assertEqual(Recorder.seen, [("/v1/hosts", f"Bearer {TOKEN}", None)])

    def test_comes_from_a_context_too(self):
        port = self.servers["coordinator"].server_address[1]
        self.lmo("context", "set", "t", "--url", f"https://127.0.0.1:{port}", "--ca", self.dir / "pki" / "ca.pem", "--token-file",
                 self.dir / "token")
        done = self.lmo("--context", "t", "host", "list")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn(TOKEN, (self.dir / "home" / ".config" / "lmo" / "config").read_text())

    def test_is_never_sent_to_somebody_who_is_not_the_coordinator(self):
        done = self.lmo("host", "list", "--token-file", self.dir / "token", to=self.servers["worker"])
        self.assertEqual(done.returncode, 3)
        self.assertEqual(Recorder.seen, [])

    def test_that_is_refused_is_said_so_without_showing_it(self):
        wrong = self.dir / "wrong"
        wrong.write_text("lmo_wrong")
        wrong.chmod(0o600)
        done = self.lmo("host", "list", LMO_TOKEN_FILE=str(wrong), to=self.servers["coordinator"])
        self.assertEqual(done.returncode, 1)
        self.assertIn("or the token", done.stderr)
        self.assertNotIn("lmo_wrong", done.stderr + done.stdout)

    def test_that_others_can_read_is_not_even_opened(self):
        loose = self.dir / "loose"
        loose.write_text(TOKEN)
        loose.chmod(0o644)
        done = self.lmo("host", "list", "--token-file", loose, to=self.servers["coordinator"])
        self.assertEqual(done.returncode, 2)
        self.assertIn(f"Run: chmod 600 {loose}", done.stderr)
        self.assertEqual(Recorder.seen, [])


if __name__ == "__main__":
    unittest.main()
