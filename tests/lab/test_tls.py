"""What hypervisors say to each other is encrypted: libvirt's own connections, and guests' memory."""
import json
import socket
import struct
import threading
import time

import harness
from harness import LabTest, labinfo, settled_check, where

MEMORY_PORTS = range(49152, 49216)
LIBVIRT_PLAIN, LIBVIRT_TLS = 16509, 16514
EVERYTHING = 0x0003  # ETH_P_ALL: what a host sends is shown to nobody who asks for one protocol
HANDSHAKE, QEMU_MAGIC = 0x16, b"QEVM"  # first byte of a TLS connection; first bytes of a migration stream


class Capture(threading.Thread):
    """The first bytes that a host sends on each new TCP connection, seen on one of its interfaces."""

    def __init__(self, host, interface):
        super().__init__(daemon=True)
        self.first, self.stopping = {}, False
        self.socket = labinfo.in_net(host, self._open, interface)

    @staticmethod
    def _open(interface):
        one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERYTHING))
        one.bind((interface, EVERYTHING))
        one.settimeout(0.2)
        return one

    def run(self):
        while not self.stopping:
            try:
                frame, address = self.socket.recvfrom(65536)
            except (TimeoutError, BlockingIOError):
                continue
            except OSError:
                return
            if address[2] != socket.PACKET_OUTGOING or frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_TCP:
                continue
            ip = (frame[14] & 15) * 4
            tcp = frame[14 + ip:]
            source, destination = struct.unpack("!HH", tcp[:4])
            data = tcp[(tcp[12] >> 4) * 4:struct.unpack("!H", frame[16:18])[0] - ip]
            if data:
                self.first.setdefault((source, destination), data[:16])

    def to(self, ports):
        return [data for (_, destination), data in self.first.items() if destination in ports]

    def stop(self):
        self.stopping = True
        self.join()
        self.socket.close()


class Encrypted(LabTest):
    def test_memory_and_libvirts_own_connection_are_tls(self):
        self.create("--dirty-rate", "2")
        memory, control = Capture("hv1", "mig0"), Capture("hv1", "under0")
        memory.start()
        control.start()
        ident = self.rest.migrate(self.guest, "hv2", bandwidth_bytes_per_s=16 << 20)["id"]
        self.rest.in_phase(ident, "precopy")

        def credentials():
            """What QEMU itself says; libvirt takes it away again at the end."""
            answer = harness.virsh("hv1", "qemu-monitor-command", self.guest, '{"execute":"query-migrate-parameters"}', check=False)
            return (json.loads(answer)["return"] if answer else {}).get("tls-creds")
        deadline = time.monotonic() + 30
        while not (named := credentials()) and time.monotonic() < deadline:
            pass
        record = self.rest.ended(ident)
        memory.stop()
        control.stop()
        self.assertTrue(named, "QEMU has no tls-creds while it migrates")
        self.assertEqual(record["phase"], "completed", record["reason"])
        self.assertEqual(where(self.guest), "hv2")
        # The stream itself, and the one look at a port before it, which sends nothing.
        streams = memory.to(MEMORY_PORTS)
        self.assertTrue(streams, "no memory was seen on the migration network")
        self.assertTrue(all(data[0] == HANDSHAKE and data[1] == 3 for data in streams), streams)
        self.assertFalse(any(data.startswith(QEMU_MAGIC) for data in streams))
        self.assertEqual(control.to([LIBVIRT_PLAIN]), [])
        greetings = control.to([LIBVIRT_TLS])
        self.assertTrue(greetings, "libvirt was not seen to connect to the other libvirt")
        self.assertTrue(all(data[0] == HANDSHAKE for data in greetings), greetings)
        settled_check(self.guest)
