#!/usr/bin/env python3
"""Holds answers of the REST API against its OpenAPI document: conform.py OPENAPI.json EXCHANGES.jsonl

One exchange a line: {"method", "path", "status", "headers": ["Name: value", ...], "body"}. An answer fails if its status, its
content type, a header, or a member of its body, at whatever depth, is not in the document, or if what the document requires is
not in the answer. What the document does not know at all (another path or method) may only be answered by a problem. Prints
one line a problem; exit status 1 if there is any. As a module: Document(json).check(...)."""
import json
import re
import sys
import urllib.parse

import jsonschema

# Of HTTP itself, not of this API.
EVERYWHERE = {"date", "content-length", "content-type", "connection", "cache-control", "transfer-encoding"}
UNKNOWN_STATUSES = {"401", "403", "404", "405", "413", "429", "503"}


class Document:
    def __init__(self, document):
        self.document = document
        self.closed = {}
        self.routes = []
        for path, item in document["paths"].items():
            pattern = re.compile("^" + re.sub(r"\{[^}]*\}", "[^/]+", path) + "$")
            for method in ("get", "put", "post", "patch", "delete"):
                if method in item:
                    self.routes.append((method.upper(), pattern, path, item[method]))

    def resolve(self, node):
        while "$ref" in node:
            rest = {k: v for k, v in node.items() if k != "$ref"}
            found = self.document
            for part in node["$ref"][2:].split("/"):
                found = found[part.replace("~1", "/").replace("~0", "~")]
            node = {**found, **rest}
        return node

    def close(self, schema):
        """The same schema without references, in which an object has no members but those that are named."""
        if not isinstance(schema, dict):
            return schema
        key = schema.get("$ref")
        if key and len(schema) == 1 and key in self.closed:
            return self.closed[key]
        schema = dict(self.resolve(schema))
        if "allOf" in schema:  # here always: the members of all
            for part in schema.pop("allOf"):
                part = self.resolve(part)
                schema["properties"] = {**schema.get("properties", {}), **part.get("properties", {})}
                schema["required"] = schema.get("required", []) + part.get("required", [])
        for name in ("items", "additionalProperties"):
            if isinstance(schema.get(name), dict):
                schema[name] = self.close(schema[name])
        for name in ("oneOf", "anyOf"):
            if name in schema:
                schema[name] = [self.close(s) for s in schema[name]]
        if "properties" in schema:
            schema["properties"] = {k: self.close(v) for k, v in schema["properties"].items()}
            schema.setdefault("additionalProperties", False)
        if key:
            self.closed[key] = schema
        return schema

    def validate(self, schema, value):
        validator = jsonschema.Draft202012Validator(self.close(schema), format_checker=jsonschema.FormatChecker())
        errors = sorted(validator.iter_errors(value), key=lambda e: list(map(str, e.path)))
        for error in errors[:3]:
            best = jsonschema.exceptions.best_match([error])
            yield f"{'.'.join(map(str, best.absolute_path)) or 'body'}: {best.message[:300]}"

    def find(self, method, path):
        path = urllib.parse.unquote(urllib.parse.urlsplit(path).path)
        return next((op for m, pattern, _, op in self.routes if m == method and pattern.match(path)), None)

    def check(self, method, path, status, headers, body):
        """Every way in which the answer is none that the document has."""
        operation = self.find(method, path)
        headers = {name.strip().lower(): value.strip() for name, value in headers}
        if operation is None:
            if str(status) not in UNKNOWN_STATUSES:
                return [f"status {status} for what the document does not know"]
            response = self.resolve({"$ref": "#/components/responses/Problem"})
            allowed = {"allow", "www-authenticate", "retry-after"}
        else:
            if str(status) not in operation["responses"]:
                return [f"undocumented status {status}"]
            response = self.resolve(operation["responses"][str(status)])
            allowed = set()
        return list(self.check_headers(response, headers, allowed)) + list(self.check_body(response, headers, body))

    def check_headers(self, response, headers, allowed):
        documented = {name.lower(): self.resolve(h) for name, h in response.get("headers", {}).items()}
        for name, value in headers.items():
            if name not in documented and name not in EVERYWHERE and name not in allowed:
                yield f"undocumented header {name}"
            for error in self.validate(documented[name]["schema"], value) if name in documented else ():
                yield f"header {name}: {error}"
        for name, header in documented.items():
            # A dry run's 200 stands beside the real one, which may promise more of an object.
            if header.get("required") and name not in headers and name != "etag":
                yield f"no header {name}"

    def check_body(self, response, headers, body):
        content = response.get("content")
        kind = headers.get("content-type", "").split(";")[0]
        if not content:
            if body:
                yield "a body where none is documented"
            return
        if kind not in content:
            yield f"undocumented content type {kind!r}"
            return
        if not kind.endswith("json"):
            return
        try:
            value = json.loads(body)
        except ValueError as error:
            yield f"no JSON: {error}"
            return
        yield from self.validate(content[kind]["schema"], value)


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        document = Document(json.load(f))
    count, wrong = 0, set()
    with open(sys.argv[2], encoding="utf-8") as f:
        for line in f:
            x = json.loads(line)
            count += 1
            headers = [h.split(":", 1) for h in x["headers"] if ":" in h]
            for problem in document.check(x["method"], x["path"], x["status"], headers, x["body"]):
                wrong.add(f"{x['method']} {x['path']}: {x['status']}: {problem}")
    for line in sorted(wrong)[:60]:
        print(line)
    print(f"{count} answers, {len(wrong)} problems")
    return 1 if wrong or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
