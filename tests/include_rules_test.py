#!/usr/bin/env python3
"""Tests of include_rules.py: a planted violation of each kind is found, what is allowed is not."""
import os
import tempfile
import unittest

import include_rules


class IncludeRules(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.root = self.directory.name
        for header in ("lmo/base/types.h", "lmo/base/log.h", "lmo/core/phase.h", "lmo/engine/engine.h",
                       "lmo/store/store.h", "lmo/api/api.h", "lmo/http/client.h", "lmo/http/identity.h", "proto/op.h",
                       "workers/worker.h", "workers/drivers/driver.h", "workers/drivers/volume_nbd.h",
                       "workers/drivers/hypervisor_libvirt.h"):
            self.write(header, "")

    def tearDown(self):
        self.directory.cleanup()

    def write(self, path, text):
        full = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as f:
            f.write(text)

    def found(self, path, text):
        self.write(path, text)
        return include_rules.check_file(self.root, path)

    def test_what_is_allowed_passes(self):
        for path, text in (
                ("lmo/core/a.c", '#include "core/phase.h"\n#include "base/types.h"\n#include <stdint.h>\n'),
                ("lmo/http/a.c", "#include <microhttpd.h>\n#include <gnutls/gnutls.h>\n#include <curl/curl.h>\n"),
                ("lmo/sql/a.c", "#include <sqlite3.h>\n"),
                ("lmo/pki/a.c", '#include <openssl/evp.h>\n#include "http/identity.h"\n'),
                ("workers/a.c", '#include "proto/op.h"\n#include "http/client.h"\n#include "workers/worker.h"\n'),
                ("workers/drivers/hypervisor_libvirt_xml.c",
                 '#include <libvirt/libvirt.h>\n#include "workers/drivers/hypervisor_libvirt.h"\n'),
                ("lmo/main.c", '#include "api/api.h"\n#include "store/store.h"\n')):
            self.assertEqual(self.found(path, text), [], path)

    def test_a_planted_violation_fails(self):
        for path, text in (
                ("lmo/base/a.c", '#include "core/phase.h"\n'),
                ("proto/a.c", '#include "core/phase.h"\n'),
                ("lmo/core/a.c", '#include "base/log.h"\n'),
                ("lmo/core/a.c", '#include "engine/engine.h"\n'),
                ("lmo/core/a.c", "#include <time.h>\n"),
                ("lmo/core/a.c", "void f(void)\n{\n    free(malloc(1));\n}\n"),
                ("lmo/engine/a.c", '#include "store/store.h"\n'),
                ("lmo/engine/a.c", '#include "../store/store.h"\n'),
                ("lmo/engine/a.c", "#include <sqlite3.h>\n"),
                ("lmo/store/a.c", '#include "api/api.h"\n'),
                ("lmo/store/a.c", "#  include <sqlite3.h>\n"),
                ("lmo/api/a.c", '#include "store/store.h"\n'),
                ("lmo/api/a.c", "#include <microhttpd.h>\n"),
                ("lmo/api/a.c", "#include <openssl/ssl.h>\n"),
                ("lmo/rpc/a.c", "#include <curl/curl.h>\n"),
                ("lmo/cli/a.c", '#include "engine/engine.h"\n'),
                ("lmo/pki/a.c", '#include "http/client.h"\n'),
                ("workers/a.c", '#include "engine/engine.h"\n'),
                ("workers/a.c", '#include "core/phase.h"\n'),
                ("workers/a.c", "#include <libvirt/libvirt.h>\n"),
                ("workers/drivers/volume_nbd.c", '#include "workers/drivers/hypervisor_libvirt.h"\n'),
                ("lmo/base/a.c", "#include <openssl/evp.h>\n"),
                ("lmo/base/a.c", '#include "base/missing.h"\n'),
                ("lmo/newroom/a.c", "")):
            self.assertEqual(len(self.found(path, text)), 1, f"{path}: {text}")

    def test_comments_and_strings_are_not_calls(self):
        self.assertEqual(self.found("lmo/core/a.c", 'const char *f(void) { return "free(x)"; } /* malloc(1) */\n'), [])


if __name__ == "__main__":
    unittest.main()
