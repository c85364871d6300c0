"""The bad days: cancelled, killed, cut. Exactly one guest runs at the end, and nothing is left over."""
import time

import harness
from harness import (LabTest, all_between, alive, control_between, domain_state, hosts_with, kill_guest, kill_now, lab,
                     labinfo, libvirt_between, libvirt_reply_lost, memory_between, settled_check, stage, wait_until, where,
                     word_lost)

SLOW = {"bandwidth_bytes_per_s": 16 << 20}


class Cancel(LabTest):
    def test_cancel_in_precopy_leaves_the_guest_at_the_source_unharmed_and_nothing_behind(self):
        self.create("--dirty-rate", "10")
        ident = self.rest.migrate(self.guest, "hv2", **SLOW)["id"]
        self.rest.copying(ident)
        status, body = self.rest.call("POST", f"/v1/migrations/{ident}/cancel")
        self.assertEqual(status, 202, body)
        record = self.rest.ended(ident)
        self.assertEqual(record["phase"], "aborted")
        self.assertReason(record, "cancelled by")
        self.assertEqual(where(self.guest), "hv1")
        self.assertEqual(domain_state("hv2", self.guest), "")
        alive(self.guest)
        settled_check(self.guest)
        record = self.rest.ended(self.rest.migrate(self.guest, "hv2")["id"])
        self.assertEqual(record["phase"], "completed", record["reason"])

    def test_guest_that_dirties_faster_than_the_link_carries_is_aborted_with_reason_and_rates(self):
        self.create("--memory", "256", "--dirty-rate", "80", "--dirty-region", "128")
        ident = self.rest.migrate(self.guest, "hv2", bandwidth_bytes_per_s=8 << 20, max_downtime_ms=30,
                                  convergence_timeout_ms=9000)["id"]
        record = self.rest.ended(ident)
        self.assertEqual(record["phase"], "aborted")
        self.assertEqual(record["reason_code"], "not_converging")
        self.assertReason(record, r"\d+ MiB remaining after \d+ iteration.*transfers \d+ MiB/s, dirties \d+ MiB/s")
        self.assertEqual(where(self.guest), "hv1")


class Precheck(LabTest):
    """What would stop a move half-way is found before anything has been made anywhere."""

    def assert_refused(self, pattern):
        destination = self.events("hv2")
        record = self.rest.ended(self.rest.migrate(self.guest, "hv2")["id"], 30)
        self.assertEqual(record["phase"], "aborted")
        self.assertEqual(record["reason_code"], "refused")
        self.assertEqual(record["failed_in"], "precheck")
        self.assertReason(record, pattern)
        self.assertEqual(destination.seen, [])
        self.assertEqual(where(self.guest), "hv1")

    def test_a_network_on_which_the_source_does_not_reach_the_destination_is_named(self):
        self.create()
        for cut, pattern in ((memory_between("hv1", "hv2"), r"check_reach at hv1: migration_uri: 10\.78\.0\.12 does not answer"),
                             (libvirt_between("hv1", "hv2"), r"check_reach at hv1: peer_uri: 10\.77\.0\.12 does not answer "
                                                             r"at port (16509|16514)")):
            with self.subTest(pattern):
                self.cut(cut).make()
                self.assert_refused(pattern)
                cut.heal()
        settled_check(self.guest)
        lab("libvirtd", "kill", "hv2")
        try:
            # Its own worker cannot judge the guest then, either: whichever says so first is the reason.
            record = self.rest.ended(self.rest.migrate(self.guest, "hv2")["id"], 60)
            self.assertEqual((record["phase"], record["failed_in"]), ("aborted", "precheck"), record["reason"])
        finally:
            lab("libvirtd", "start", "hv2")
        self.assertEqual(where(self.guest), "hv1")
        alive(self.guest)


class Killed(LabTest):
    """SIGKILL of each program, in pre-copy and right before the cutover."""

    def resolved(self, ident):
        record = self.rest.ended(ident)
        self.assertIn(record["phase"], ("completed", "aborted"), record)
        host = where(self.guest)
        self.assertEqual(host, "hv2" if record["phase"] == "completed" else "hv1")
        alive(self.guest)
        return record

    def test_coordinator_killed_in_precopy__the_restarted_one_finishes_the_record(self):
        self.create("--dirty-rate", "10")
        ident = self.rest.migrate(self.guest, "hv2", **SLOW)["id"]
        self.rest.copying(ident)
        lab("lmod", "kill")
        lab("lmod", "start")
        self.assertEqual(self.resolved(ident)["phase"], "completed")

    def test_coordinator_killed_right_before_the_cutover__the_workers_finish_it_alone(self):
        self.create("--dirty-rate", "10")
        source, destination = self.at_the_pause("hv1", lambda: kill_now("ctl.lmod")), self.events("hv2")
        ident = self.rest.migrate(self.guest, "hv2")["id"]
        source.wait("SUSPENDED/MIGRATED")
        destination.wait("RESUMED/UNPAUSED", 30)
        alive(self.guest)
        lab("lmod", "start")
        self.assertEqual(self.resolved(ident)["phase"], "completed")

    def test_source_worker_killed_in_precopy(self):
        self.create("--dirty-rate", "10")
        ident = self.rest.migrate(self.guest, "hv2", **SLOW)["id"]
        self.rest.copying(ident)
        lab("worker", "kill", "hv1")
        lab("worker", "start", "hv1")
        self.resolved(ident)

    def test_destination_worker_killed_in_precopy(self):
        self.create("--dirty-rate", "10")
        ident = self.rest.migrate(self.guest, "hv2", **SLOW)["id"]
        self.rest.copying(ident)
        lab("worker", "kill", "hv2")
        lab("worker", "start", "hv2")
        self.resolved(ident)

    def test_destination_worker_dead_at_the_cutover__restarted_it_asks_the_source_first(self):
        self.create("--dirty-rate", "10")
        source, destination = self.events("hv1"), self.events("hv2")
        ident = self.rest.migrate(self.guest, "hv2", **SLOW)["id"]
        self.rest.copying(ident)
        lab("worker", "kill", "hv2")
        destination.wait("SUSPENDED/PAUSED", 60)
        source.wait("STOPPED/MIGRATED", 60)
        self.assertEqual(hosts_with(self.guest), [])
        lab("worker", "start", "hv2")
        self.assertEqual(self.resolved(ident)["phase"], "completed")


class NoPermit(LabTest):
    def test_destination_worker_does_not_resume_a_loaded_guest_without_a_permit(self):
        self.create()
        import libvirt
        # Somebody else's migration, guest left paused at the destination: there is no permit for it.
        destination = self.events("hv2")
        connection = labinfo.in_net("hv1", libvirt.open, f"qemu+tcp://{labinfo.UNDERLAY}.{labinfo.OCTET['hv1']}/system")
        domain = connection.lookupByName(self.guest)
        uri = f"qemu+tcp://{labinfo.UNDERLAY}.{labinfo.OCTET['hv2']}/system"
        domain.migrateToURI3(uri, {libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{labinfo.MIGRATION}.{labinfo.OCTET['hv2']}"},
                             libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_UNSAFE |
                             libvirt.VIR_MIGRATE_PAUSED | libvirt.VIR_MIGRATE_PERSIST_DEST |
                             libvirt.VIR_MIGRATE_UNDEFINE_SOURCE)
        destination.wait("SUSPENDED/PAUSED")
        lab("worker", "kill", "hv2")
        lab("worker", "start", "hv2")
        wait_until("the worker to be up again", lambda: self.hosts_up() == 4)
        time.sleep(1.0)  # what must NOT happen has to be given time to happen
        self.assertEqual(destination.had("RESUMED"), [])
        self.assertEqual(domain_state("hv2", self.guest), "paused")
        connection.close()
        self.checked = False  # a move without LMO leaves its volume and port where they were

    def test_forged_permit_is_refused_by_every_worker(self):
        self.create()
        pki = labinfo.BIG / "pki" / "issued"
        for host in ("hv1", "hv2", "ctl"):
            for call in ("freeze", "fence", "verify", "kill", "suspended"):
                done = harness.run(
                    harness.LAB, "exec", "ctl", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert",
                    str(labinfo.BIG / "pki" / "ca.pem"), "--cert", str(pki / "worker-hv2.pem"), "--key",
                    str(pki / "worker-hv2.key"), "-H", "Content-Type: application/json", "-d",
                    '{"permit": "{\\"payload\\":\\"bG1vLXBlcm1pdCAx\\",\\"signature\\":\\"AAAA\\"}", "index": 0, "pause": 1}',
                    f"https://{labinfo.UNDERLAY}.{labinfo.OCTET[host]}:7443/v1/peer/{call}")
                self.assertIn(done.stdout, ("400", "403"), (host, call))
        self.assertEqual(where(self.guest), "hv1")


class LostFinish(LabTest):
    """libvirt's finish reply does not reach the source (facts: its libvirt then resumes the guest there)."""

    def cut_at_the_pause(self, cut):
        return self.at_the_pause("hv1", self.cut(cut).make)

    def test_only_libvirts_reply_is_lost__the_guest_runs_at_the_destination_and_never_again_at_the_source(self):
        self.create("--dirty-rate", "10")
        source = self.cut_at_the_pause(libvirt_reply_lost("hv1", "hv2"))
        ident = self.rest.migrate(self.guest, "hv2")["id"]
        record = self.rest.ended(ident)
        self.assertEqual(record["phase"], "completed", record["reason"])
        self.assertEqual(where(self.guest), "hv2")
        self.assertEqual(source.had("RESUMED"), [])

    def test_hosts_cut_off_from_each_other__the_freeze_goes_through_the_coordinator(self):
        self.create("--dirty-rate", "10")
        source = self.cut_at_the_pause(control_between("hv1", "hv2"))
        ident = self.rest.migrate(self.guest, "hv2")["id"]
        record = self.rest.ended(ident)
        self.assertIn(record["phase"], ("completed", "aborted"), record)
        self.heal()
        if record["phase"] == "completed":
            self.assertEqual(where(self.guest), "hv2")
            self.assertEqual(source.had("RESUMED"), [])
        else:
            self.assertEqual(where(self.guest), "hv1")
        alive(self.guest)

    def test_hosts_cut_and_no_coordinator__the_guest_runs_on_at_the_source_and_the_copy_never_runs(self):
        self.create("--dirty-rate", "10")
        destination = self.events("hv2")
        cut = all_between("hv1", "hv2")
        self.cut(cut)
        source = self.at_the_pause("hv1", lambda: kill_now("ctl.lmod"), cut.make)
        ident = self.rest.migrate(self.guest, "hv2")["id"]
        source.wait("SUSPENDED/MIGRATED")
        wait_until("the source to run on", lambda: hosts_with(self.guest) == ["hv1"], 60)
        alive(self.guest)
        self.assertEqual(destination.had("RESUMED"), [])
        cut.heal()
        lab("lmod", "start")
        record = self.rest.ended(ident)
        self.assertEqual(record["phase"], "aborted")
        self.assertEqual(destination.had("RESUMED"), [])
        self.assertEqual(where(self.guest), "hv1")

    def test_destination_worker_dead_while_the_source_resumed_does_not_run_its_stale_copy(self):
        self.create("--dirty-rate", "10")
        destination = self.events("hv2")
        cut = libvirt_reply_lost("hv1", "hv2")
        source = self.cut_at_the_pause(cut)
        ident = self.rest.migrate(self.guest, "hv2", **SLOW)["id"]
        self.rest.copying(ident)
        lab("worker", "kill", "hv2")
        source.wait("SUSPENDED/MIGRATED")
        wait_until("the source's libvirt to give up and run on", lambda: hosts_with(self.guest) == ["hv1"], 60)
        cut.heal()
        lab("worker", "start", "hv2")
        record = self.rest.ended(ident)
        self.assertEqual(record["phase"], "aborted")
        self.assertEqual(destination.had("RESUMED"), [])
        self.assertEqual(where(self.guest), "hv1")
        self.assertEqual(domain_state("hv2", self.guest), "")
        alive(self.guest)


class Thaw(LabTest):
    """The copy dies while the source stands frozen for it and nothing is fenced yet: the source is the guest."""

    def test_copy_dies_between_loaded_and_committed__the_frozen_source_is_thawed_under_a_higher_epoch(self):
        self.create("--dirty-rate", "10")
        destination = self.events("hv2")
        # These hold the moment: the source's word does not arrive, neither directly nor through the coordinator; and the
        # source's libvirt does not learn that the destination was complete, so it does not end its copy by itself.
        reply, word = self.cut(libvirt_reply_lost("hv1", "hv2")), self.cut(word_lost("hv1", "hv2"))
        source = self.at_the_pause("hv1", word.make, reply.make, lambda: kill_now("ctl.lmod"))
        begun = self.rest.migrate(self.guest, "hv2")
        ident = begun["id"]
        destination.wait("SUSPENDED/PAUSED")
        wait_until("the source to be frozen", lambda: stage("hv1", ident) == "frozen")
        self.assertEqual(self.process_state("hv1"), "T")
        self.assertEqual(stage("hv2", ident), "asking")
        kill_guest("hv2", self.guest)
        wait_until("the destination to know that its copy is dead", lambda: stage("hv2", ident) == "discarded")
        # Nobody but the coordinator may say that the source is the guest now, and it is not there.
        self.assertEqual(stage("hv1", ident), "frozen")
        self.assertEqual(self.process_state("hv1"), "T")
        self.assertEqual(source.had("RESUMED"), [])
        lab("lmod", "start")
        record = self.rest.ended(ident)
        self.assertEqual(record["phase"], "aborted", record)
        self.assertReason(record, "destination's copy died before it was resumed")
        self.assertGreater(record["epoch"], begun["epoch"])
        # A stopped source's job cannot end: the thaw did not wait for that.
        self.assertFalse([line["what"] for line in self.rest.journal(ident) if line["what"].startswith("job_abort at")])
        self.assertNotEqual(self.process_state("hv1"), "T")
        self.assertEqual(where(self.guest), "hv1")
        self.assertEqual(destination.had("RESUMED"), [])
        self.assertEqual(len(source.had("RESUMED")), 1)
        alive(self.guest)
        self.heal()
        settled_check(self.guest)
        record = self.rest.ended(self.rest.migrate(self.guest, "hv2")["id"])
        self.assertEqual(record["phase"], "completed", record["reason"])

    def process_state(self, host):
        """As the kernel shows it; "T": stopped."""
        pid = labinfo.command(host, "cat", f"/run/libvirt/qemu/{self.guest}.pid").strip()
        return labinfo.command(host, "cat", f"/proc/{pid}/stat").rpartition(")")[2].split()[0]


class Services(LabTest):
    allow_errors = True

    def test_volume_service_restarted_right_after_the_fence_does_not_let_the_source_back_in(self):
        self.create("--dirty-rate", "10")
        volume = labinfo.guests()[self.guest]["volume"]
        ident = self.rest.migrate(self.guest, "hv2")["id"]
        self.rest.follow(ident, lambda r: r["phase"] in ("finalize", "completed"))
        lab("volume-service", "restart")

        def offered():
            try:
                from qmp import Qmp
                with_exports = Qmp(labinfo.qmp_path()).execute({"execute": "query-block-exports"})[0]
            except OSError:
                return None
            return [e["id"] for e in with_exports if e["id"].startswith(volume + ".")]
        exports = wait_until("the destination's export to be offered again", offered, 20)
        self.assertTrue(all(".hv2." in e for e in exports), exports)
        record = self.rest.ended(ident)
        self.assertEqual(record["phase"], "completed", record["reason"])
        self.assertEqual(offered(), exports)
        # Its disk was away: it stands with an I/O error until its owner lets it go on, and again when the first write
        # after that finds the old connection dead.

        def goes_on():
            lab("guest", "resume", self.guest)
            try:
                return alive(self.guest, 2)
            except AssertionError:
                return None
        wait_until("the guest to go on", goes_on, 30)

    def test_destination_that_dies_after_its_ingress_was_opened_costs_nothing(self):
        self.create("--dirty-rate", "10")
        source = self.at_the_pause("hv1", lambda: kill_guest("hv2", self.guest))
        ident = self.rest.migrate(self.guest, "hv2")["id"]
        record = self.rest.ended(ident)
        self.assertTrue(source.acted.is_set())
        self.assertEqual(record["phase"], "aborted", record)
        self.assertEqual(where(self.guest), "hv1")
        alive(self.guest)
        settled_check(self.guest)


class Identity(LabTest):
    def test_nobody_without_the_right_certificate_gets_anywhere(self):
        pki = labinfo.BIG / "pki" / "issued"

        def curl(url, *argv):
            done = harness.run(harness.LAB, "exec", "ctl", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert",
                               str(labinfo.BIG / "pki" / "ca.pem"), *argv, url, check=False)
            return done.stdout
        coordinator = f"https://{harness.REST[0]}:8443/v1/hosts"
        worker = f"https://{labinfo.UNDERLAY}.{labinfo.OCTET['hv1']}:7443/v1/observe/vms"
        operator = ("--cert", str(pki / "operator-lab.pem"), "--key", str(pki / "operator-lab.key"))
        own = ("--cert", str(pki / "worker-hv2.pem"), "--key", str(pki / "worker-hv2.key"))
        self.assertIn(curl(coordinator), ("000", "401"))
        self.assertIn(curl(worker), ("000", "401"))
        self.assertEqual(curl(coordinator, *operator), "200")
        self.assertEqual(curl(worker, *operator), "403")
        self.assertEqual(curl(coordinator, *own), "403")
        self.assertEqual(curl(worker, *own), "403")
