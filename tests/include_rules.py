#!/usr/bin/env python3
"""Checks who includes whom: `include_rules.py [ROOT]`. The rules are the two tables below; why they are as they are is
in docs/ARCHITECTURE.md. Prints one line per violation and ends with "N passed, N failed" (one per source file)."""
import os
import re
import sys

# Which of our own layers a layer may include, besides itself. A string with a '/' allows that header alone.
LAYERS = {
    "base":    [],
    "proto":   ["base"],
    "core":    ["base/types.h", "base/err.h", "base/assert.h", "base/ops.h", "base/str.h"],
    "sql":     ["base"],
    "http":    ["base"],
    "pki":     ["base", "http/identity.h"],
    "engine":  ["core", "proto", "base", "pki"],
    "store":   ["engine", "core", "proto", "sql", "base"],
    "rpc":     ["engine", "core", "proto", "http", "pki", "base"],
    "api":     ["engine", "core", "proto", "http", "pki", "base"],
    "cli":     ["proto", "http", "pki", "base"],
    "daemon":  ["engine", "store", "sql", "core", "base"],
    "main":    ["daemon", "api", "rpc", "store", "engine", "core", "proto", "http", "pki", "sql", "base"],
    "workers": ["proto", "http", "pki", "sql", "base"],
}

# Headers of others, and the only places (path prefixes) that may include them.
VENDORS = {
    r"microhttpd\.h":        ["lmo/http/"],
    r"gnutls/.*":            ["lmo/http/"],
    r"curl/.*":              ["lmo/http/"],
    r"openssl/evp\.h":       ["lmo/http/", "lmo/pki/", "lmo/api/"],  # api: the hash of a request, for idempotency
    r"openssl/(?!evp\.h).*": ["lmo/http/", "lmo/pki/"],
    r"sqlite3\.h":           ["lmo/sql/"],
    r"libvirt/.*":           ["workers/drivers/hypervisor_libvirt"],
    r"libxml/.*":            ["workers/drivers/"],
    r"libnbd\.h":            ["workers/drivers/volume_"],
    r"rbd/.*|rados/.*":      ["workers/drivers/volume_"],
    r"libmnl/.*|libnetfilter_conntrack/.*|nftables/.*": ["workers/drivers/"],
    r"jansson\.h":           ["lmo/base/", "proto/", "lmo/engine/", "lmo/store/", "lmo/rpc/", "lmo/api/", "lmo/cli/",
                              "lmo/http/", "lmo/main.c", "workers/"],
}

# lmo/core is pure: these system headers and no others, and none of these calls.
CORE_SYSTEM = {"stdbool.h", "stddef.h", "stdint.h", "string.h", "limits.h", "inttypes.h", "stdarg.h", "stdio.h"}
CORE_CALLS = re.compile(r"\b(malloc|calloc|realloc|free|strdup|printf|fprintf|dprintf|puts|fputs|fopen|open|read|write|"
                        r"time|clock_gettime|gettimeofday|getrandom|rand|random|getenv|abort|exit|lmo_log|"
                        r"lmo_now_ns)\s*\(")

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
DRIVER = re.compile(r"workers/drivers/(hypervisor|volume|network|fabric)_([a-z0-9]+)")


def layer_of(path):
    """The layer of a file, by its path from the root; None for what the rules do not cover."""
    parts = path.split("/")
    if path == "lmo/main.c":
        return "main"
    if parts[0] == "lmo" and len(parts) > 2:
        return parts[1]
    return parts[0] if parts[0] in ("proto", "workers") else None


def resolve(root, path, name):
    """The path from the root of a header included with quotes, or None."""
    for base in (os.path.dirname(path), "lmo", ""):
        candidate = os.path.normpath(os.path.join(base, name))
        if os.path.isfile(os.path.join(root, candidate)):
            return candidate
    return None


def strip_comments(text):
    """Blanks comments and strings, keeping line breaks."""
    pattern = r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"'
    return re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.S)


def check_own(layer, path, target, line):
    """Violation text for an include of our own header, or None."""
    target_layer = layer_of(target)
    driver, other = DRIVER.match(path), DRIVER.match(target)
    if driver and other and driver.groups() != other.groups() and other.group(1) != "fabric":
        return f"{path}:{line}: a driver must not know another driver ({target})"
    if target_layer is None:
        return f"{path}:{line}: {layer} must not include {target}"
    short = target[len("lmo/"):] if target.startswith("lmo/") else target
    if target_layer == layer or target_layer in LAYERS[layer] or short in LAYERS[layer]:
        return None
    return f"{path}:{line}: {layer} must not include {short}"


def check_file(root, path):
    layer = layer_of(path)
    with open(os.path.join(root, path), encoding="utf-8") as f:
        text = f.read()
    found = []
    if layer not in LAYERS:
        return [f"{path}: no rule for the directory {layer}: add it to LAYERS"]
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        quote, name = match.groups()
        target = resolve(root, path, name) if quote == '"' else None
        if target:
            violation = check_own(layer, path, target, number)
            found += [violation] if violation else []
            continue
        if quote == '"':
            found.append(f"{path}:{number}: there is no {name}")
        for pattern, places in VENDORS.items():
            if re.fullmatch(pattern, name) and not any(path.startswith(p) for p in places):
                found.append(f"{path}:{number}: <{name}> belongs to {', '.join(places)}")
        if layer == "core" and name not in CORE_SYSTEM:
            found.append(f"{path}:{number}: core must not include <{name}>")
    if layer == "core":
        for number, line in enumerate(strip_comments(text).splitlines(), 1):
            match = CORE_CALLS.search(line)
            if match:
                found.append(f"{path}:{number}: core is pure and must not call {match.group(1)}()")
    return found


def sources(root):
    for top in ("lmo", "proto", "workers"):
        for directory, _, files in os.walk(os.path.join(root, top)):
            for name in sorted(files):
                if name.endswith((".c", ".h")):
                    yield os.path.relpath(os.path.join(directory, name), root)


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    passed = failed = 0
    for path in sources(root):
        violations = check_file(root, path)
        for violation in violations:
            print(violation)
        failed += 1 if violations else 0
        passed += 0 if violations else 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
