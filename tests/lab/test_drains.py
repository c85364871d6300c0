"""Drains of real guests: everything moves, drained means that the host's own list is empty, a cancel leaves nothing behind."""
import harness
from harness import LabTest, lab, virsh, where


class Drains(LabTest):
    def setUp(self):
        super().setUp()
        self.others = []

    def tearDown(self):
        for drain in self.rest.get("/v1/drains")["drains"]:
            if drain["outcome"] is None:
                self.rest.call("POST", f"/v1/drains/{drain['id']}/cancel")
                self.drain(drain["id"], lambda d: d["outcome"])
        for host in ("hv1", "hv2", "hv3"):
            self.healers.append(lambda host=host: lab("lmo", "uncordon", host, check=False))
        super().tearDown()
        for guest in self.others:
            lab("guest", "destroy", guest, check=False)

    def another(self, *argv, host="hv1"):
        guest = f"{self.guest}-{len(self.others) + 2}"
        self.others.append(guest)
        lab("guest", "create", guest, "--host", host, "--memory", "160", *argv)
        return guest

    def drain(self, ident, until, seconds=90):
        """The drain, once `until` says yes of it: followed by its version, never polled."""
        found = {}

        def look():
            version = found.get("version", 0)
            found.update(self.rest.get(f"/v1/drains/{ident}?wait_version={version}&wait_ms=2000"))
            return found if until(found) else None
        return harness.wait_until(f"drain {ident}", look, seconds)

    def start(self, *hosts, **options):
        status, answer = self.rest.call("POST", "/v1/drains", {"hosts": list(hosts), **options})[:2]
        self.assertIn(status, (200, 202), answer)
        return answer

    @staticmethod
    def domains(host):
        return virsh(host, "list", "--all", "--name").split()

    def test_drain_moves_every_guest_and_is_drained_when_the_hosts_own_list_is_empty(self):
        self.create()
        guests = [self.guest] + [self.another() for _ in range(2)]
        status, answer = self.rest.call("POST", "/v1/drains?dry_run=true", {"hosts": ["hv1"]})[:2]
        self.assertEqual(status, 200, answer)
        plan = answer["result"]
        self.assertEqual(sorted(m["name"] for m in plan["moves"]), sorted(guests), plan)
        self.assertEqual(sorted(self.domains("hv1")), sorted(guests))  # nothing was done
        drain = self.start("hv1", plan=plan["plan"])
        again = self.start("hv1")
        self.assertEqual(again["id"], drain["id"])  # the second request returns the first
        drain = self.drain(drain["id"], lambda d: d["outcome"])
        self.assertEqual(drain["outcome"], "drained", drain)
        self.assertEqual(self.domains("hv1"), [])
        to = {m["name"]: m["to"] for m in plan["moves"]}
        for guest in guests:
            self.assertEqual(where(guest), to[guest])  # as it was printed
            harness.alive(guest)
        host = self.rest.get("/v1/hosts/hv1")
        self.assertTrue(host["cordoned"])
        status, problem = self.rest.call("POST", "/v1/migrations", {"vm": guests[0], "destination": "hv1"})[:2]
        self.assertEqual(status, 422, problem)  # nobody comes back by accident
        lab("lmo", "uncordon", "hv1")
        self.assertFalse(self.rest.get("/v1/hosts/hv1")["cordoned"])

    def test_cancel_ends_the_migrations_and_leaves_the_guests_where_they_run(self):
        self.create("--dirty-rate", "8")
        second = self.another("--dirty-rate", "8")
        lab("lmo", "host", "set", "hv1", "--max-bandwidth", "4")
        self.healers.append(lambda: lab("lmo", "host", "set", "hv1", "--reset", check=False))
        drain = self.start("hv1")
        self.drain(drain["id"], lambda d: any(g["phase"] == "precopy" for g in d["guests"]))
        self.rest.call("POST", f"/v1/drains/{drain['id']}/cancel")
        drain = self.drain(drain["id"], lambda d: d["outcome"])
        self.assertEqual(drain["outcome"], "cancelled", drain)
        for guest in (self.guest, second):
            self.assertEqual(where(guest), "hv1")
            harness.alive(guest)
        self.assertFalse(self.rest.get("/v1/hosts/hv1")["cordoned"])

    def test_guest_under_a_lease_is_waited_for_and_said_so(self):
        self.create()
        uuid = self.rest.get(f"/v1/vms/{self.guest}")["uuid"]
        self.rest.call("PUT", f"/v1/vms/{uuid}/lease", {"reason": "resizing it", "seconds": 600})
        self.healers.append(lambda: self.rest.call("DELETE", f"/v1/vms/{uuid}/lease"))
        drain = self.start("hv1")
        drain = self.drain(drain["id"], lambda d: d["state"] == "waiting")
        self.assertIn("resizing it", drain["waiting_for"])
        self.assertEqual(where(self.guest), "hv1")
        self.rest.call("DELETE", f"/v1/vms/{uuid}/lease")
        drain = self.drain(drain["id"], lambda d: d["outcome"])
        self.assertEqual(drain["outcome"], "drained", drain)
