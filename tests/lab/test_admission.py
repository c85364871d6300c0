"""Limits, links and bandwidth, on the real thing: what QEMU itself says is in force, and what the interfaces counted."""
import pathlib
import re

import harness
from harness import LabTest, lab, labinfo, settled_check, where

MIB = 1 << 20


def limit_in_force(host, guest):
    """QEMU's own limit of the running job, MiB/s; None while the gate is shut or when there is no job any more."""
    def monitor(command):
        return harness.virsh(host, "qemu-monitor-command", "--hmp", guest, command, check=False)
    if "Migration status: active" not in monitor("info migrate"):
        return None  # its parameters are what QEMU begins with
    text = monitor("info migrate_parameters")
    found = re.search(r"max-bandwidth: (\d+)", text)
    limit = int(found.group(1)) / MIB if found else 0
    return limit if limit > 1 else None  # 1: the gate's


class Admission(LabTest):
    def setUp(self):
        super().setUp()
        self.others = []

    def tearDown(self):
        for host in labinfo.HYPERVISORS:
            self.healers.append(lambda host=host: lab("lmo", "host", "set", host, "--reset", check=False))
        super().tearDown()
        for guest in self.others:
            lab("guest", "destroy", guest, check=False)

    def another(self, *argv, host="hv1"):
        guest = f"{self.guest}-{len(self.others) + 2}"
        self.others.append(guest)
        lab("guest", "create", guest, "--host", host, "--memory", "160", *argv)
        return guest

    def queued(self, ident, limit, seconds=20):
        return self.rest.follow(ident, lambda r: r["phase"] == "queued" and (r["held_by"] or {}).get("limit") == limit, seconds)

    def test_byte_counters_show_that_guest_memory_took_the_migration_link_and_nothing_else(self):
        # Without a volume there is nothing on the first interface but orders and answers.
        lab("guest", "create", self.guest, "--host", "hv1", "--memory", "256", "--disk", "0", "--dirty-rate", "40")
        before = {(h, i): labinfo.interface_bytes(h, i) for h in ("hv1", "hv2") for i in ("under0", "mig0")}
        record = self.rest.ended(self.rest.migrate(self.guest, "hv2")["id"])
        self.assertEqual(record["phase"], "completed", record["reason"])
        moved = {key: tuple(b - a for a, b in zip(before[key], labinfo.interface_bytes(*key))) for key in before}
        memory = record["progress"]["transferred_bytes"]  # of the last sample: what was sent in the end is more
        sent = moved["hv1", "mig0"][1]
        self.assertGreater(sent, max(memory, 48 * MIB), moved)
        self.assertGreater(moved["hv2", "mig0"][0], max(memory, 48 * MIB), moved)
        for host in ("hv1", "hv2"):
            self.assertLess(sum(moved[host, "under0"]), sent / 50, moved)
        print(f"memory {memory / MIB:.1f} MiB; hv1 mig0 sent {moved['hv1', 'mig0'][1] / MIB:.1f} MiB, "
              f"under0 both ways {sum(moved['hv1', 'under0']) / MIB:.2f} MiB", end=" ")

    def test_bandwidth_is_divided_when_a_second_guest_starts_and_given_back_when_one_ends(self):
        self.create("--dirty-rate", "8")
        second = self.another("--dirty-rate", "8")
        lab("lmo", "host", "set", "hv1", "--max-bandwidth", "24")
        a = self.rest.migrate(self.guest, "hv2")["id"]
        harness.wait_until("the first to have all of it", lambda: limit_in_force("hv1", self.guest) == 24, 30)
        b = self.rest.migrate(second, "hv3")["id"]
        seen = []

        def divided():
            limits = [limit_in_force("hv1", g) for g in (self.guest, second)]
            seen.append(limits)
            return limits == [12, 12]
        harness.wait_until("both to have half of it", divided, 30)
        for limits in seen:
            self.assertLessEqual(sum(limit or 0 for limit in limits), 24, seen)
        self.assertEqual([self.rest.migration(i)["share_bytes_per_s"] for i in (a, b)], [12 * MIB, 12 * MIB])
        self.rest.call("POST", f"/v1/migrations/{a}/cancel")
        self.assertEqual(self.rest.ended(a)["phase"], "aborted")
        harness.wait_until("the other to have all of it again", lambda: limit_in_force("hv1", second) == 24, 30)
        lab("lmo", "host", "set", "hv1", "--reset")  # and live: what the link has
        harness.wait_until("the link's own rate", lambda: (limit_in_force("hv1", second) or 9999) > 24, 30)
        record = self.rest.ended(b)
        self.assertEqual(record["phase"], "completed", record["reason"])
        self.assertTrue(any("divided anew" in line["why"] for line in self.rest.journal(b)))
        settled_check()

    def test_queued_one_says_what_holds_it_and_its_place_and_a_new_coordinator_keeps_to_the_limits(self):
        self.create("--dirty-rate", "8")
        second, third = self.another(), self.another()
        lab("lmo", "host", "set", "hv2", "--max-incoming", "1", "--max-bandwidth", "12")
        first = self.rest.migrate(self.guest, "hv2")["id"]
        self.rest.copying(first)
        ids = [self.rest.migrate(g, "hv2")["id"] for g in (second, third)]
        record = self.queued(ids[0], "incoming")
        self.assertEqual((record["held_by"]["host"], record["held_by"]["in_use"], record["held_by"]["max"]), ("hv2", 1, 1))
        self.assertEqual(record["queue_position"], 1)
        self.assertEqual(self.queued(ids[1], "incoming")["queue_position"], 2)
        self.assertIn("2nd in line", lab("lmo", "migration", "show", ids[1]).stdout)
        self.assertIn("queued, 2 in line", lab("lmo", "migration", "list").stdout)
        lab("lmod", "kill")
        lab("lmod", "start")
        record = self.queued(ids[0], "incoming")
        self.assertEqual(self.rest.migration(first)["phase"], "precopy")
        self.assertEqual(self.rest.call("POST", f"/v1/migrations/{ids[0]}/cancel")[0], 202)
        self.assertEqual(self.rest.ended(ids[0])["phase"], "aborted")
        self.assertEqual(self.queued(ids[1], "incoming")["queue_position"], 1)
        lab("lmo", "host", "set", "hv2", "--max-bandwidth", "1000")
        for ident in (first, ids[1]):
            record = self.rest.ended(ident)
            self.assertEqual(record["phase"], "completed", record["reason"])
        started = [next(p["started_ms"] for p in self.rest.migration(i)["phases"] if p["name"] == "precheck") for i in (first, ids[1])]
        self.assertLessEqual(self.rest.migration(first)["updated_ms"], started[1])
        self.assertEqual((where(self.guest), where(second), where(third)), ("hv2", "hv1", "hv2"))
        settled_check()

    def test_host_without_the_link_is_an_error_that_names_it_and_no_other_way_is_taken(self):
        self.create()
        conf = labinfo.BIG / "hosts" / "hv3" / "etc" / "lmo" / "worker.conf"
        text = conf.read_text()
        self.healers.append(lambda: (conf.write_text(text), lab("worker", "stop", "hv3"), lab("worker", "start", "hv3")))
        self.assertIn("[link migration]", text)
        self.restart_worker("hv3", conf, text.replace("[link migration]", "[link other]"))
        status, body = self.rest.call("POST", "/v1/migrations", {"vm": self.guest, "destination": "hv3"})
        self.assertEqual((status, body["code"], body["field"]), (422, "refused", "destination"), body)
        self.assertIn("host hv3 has no link 'migration'", body["detail"])
        # A source that would send by another interface than its link's refuses as well.
        self.restart_worker("hv3", conf, text)
        source = labinfo.BIG / "hosts" / "hv1" / "etc" / "lmo" / "worker.conf"
        kept = source.read_text()
        self.healers.append(lambda: (source.write_text(kept), lab("worker", "stop", "hv1"), lab("worker", "start", "hv1")))
        self.restart_worker("hv1", source, kept.replace(f"address = {labinfo.MIGRATION}.11", f"address = {labinfo.UNDERLAY}.11"))
        record = self.rest.ended(self.rest.migrate(self.guest, "hv3")["id"])
        self.assertEqual((record["phase"], record["failed_in"]), ("aborted", "precheck"), record)
        self.assertReason(record, "not by its link 'migration'")
        self.assertEqual(where(self.guest), "hv1")

    def restart_worker(self, host, conf, text):
        pathlib.Path(conf).write_text(text)
        boot = self.boot(host)
        lab("worker", "stop", host)
        lab("worker", "start", host)
        harness.wait_until(f"the new worker of {host} to be known", lambda: self.boot(host) not in (boot, None), 30)

    def boot(self, host):
        record = self.rest.get(f"/v1/hosts/{host}")
        return (record["capabilities"] or {}).get("boot") if record["state"] == "up" else None

    def test_memory_that_the_destination_lacks_holds_a_guest_until_it_is_there(self):
        self.create()
        facts = self.rest.get("/v1/hosts/hv2")["capabilities"]
        total = facts["memory_total_bytes"]
        self.assertGreater(total, facts["memory_free_bytes"])
        # All but what the guest needs is to be kept free: more than there is now, but not more than there could be.
        lab("lmo", "host", "set", "hv2", "--keep-free", str((total >> 20) - 400))
        ident = self.rest.migrate(self.guest, "hv2")["id"]
        held = self.queued(ident, "memory")["held_by"]
        self.assertEqual(held["host"], "hv2")
        self.assertGreater(held["needed"], 160 * MIB)
        lab("lmo", "host", "set", "hv2", "--reset")
        self.assertEqual(self.rest.ended(ident)["phase"], "completed")
        self.assertEqual(where(self.guest), "hv2")
