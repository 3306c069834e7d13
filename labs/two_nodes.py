"""Two computers on one: two Linux network namespaces, joined by a link of known latency and rate; a command runs on both.

    python labs/two_nodes.py --latency-ms 5 --mbit 200 -- torchrun --nproc-per-node 1 labs/train_gpt.py --dp 2 --steps 20

Each node has its own address, 10.78.0.1 and 10.78.0.2, on an interface of its own (bml0), and reaches nothing but the other.
The command finds in its environment what a cluster's operator would set: torchrun reads PET_NNODES, PET_NODE_RANK and so on,
gloo its interface, any program NODE_RANK. What node 1 prints follows "[node 1] ". Lines on standard input change the link
while the command runs: `cut`, `mend`, or `latency_ms mbit` such as `5 200`.

No root is needed, only a Linux that lets users have namespaces and /dev/net/tun: exit status 3, and the reason, where it does
not. Everything that was started ends with this program. The link is a Python loop between two TUN devices: it keeps up to
some Gbit/s, takes part of a core while it does, and times packets to about 0.1 ms.
"""

import argparse
import collections
import contextlib
import ctypes
import dataclasses
import fcntl
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time

from bigmodel_lab.errors import require_in_range
from bigmodel_lab.shell import add_options, option

ADDRESSES = "10.78.0.1", "10.78.0.2"
INTERFACE, MTU, PORT = "bml0", 9000, 29500
QUEUE_S = (
    0.5  # what a queue in front of the link holds before it drops, in seconds at the link's rate
)
IMPOSSIBLE = 3  # exit status


@dataclasses.dataclass(frozen=True)
class Config:
    """The link, and how the nodes find each other."""

    latency_ms: float = option(0.0, "milliseconds a packet takes each way")
    mbit: float = option(1000.0, "rate of the link each way, 10^6 bit/s")
    elastic: bool = option(
        False, "torchrun's c10d rendezvous, which can go on with one node, instead of a static one"
    )

    def __post_init__(self):
        require_in_range("latency_ms", self.latency_ms, 0, 10_000, unit="ms")
        require_in_range("mbit", self.mbit, 0.1, 10_000, unit="Mbit/s")


def main() -> None:
    own, command = sys.argv[1:], []
    if "--" in own:
        at = own.index("--")
        own, command = own[:at], own[at + 1 :]
    parser = argparse.ArgumentParser(
        description=__doc__,
        usage="%(prog)s [options] -- command ...",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser, Config)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = vars(parser.parse_args(own))
    inside = options.pop("inside")
    try:
        config = Config(**options)
    except ValueError as error:
        parser.error(str(error))
    if not command:
        parser.error("give the command to run on both nodes after --.")
    if not shutil.which(command[0]):
        parser.error(f"the command {command[0]} is not found.")
    if inside:
        sys.exit(run(config, command))
    if reason := impossible():
        print(f"two nodes are not possible here: {reason}", file=sys.stderr)
        sys.exit(IMPOSSIBLE)
    # A process namespace ends with its first process, and takes everything in it along.
    spaces = "unshare --user --map-root-user --net --pid --fork --mount-proc --kill-child".split()
    os.execvp(spaces[0], [*spaces, sys.executable, __file__, "--inside", *own, "--", *command])


def impossible() -> str:
    """Return why this machine cannot do it, or nothing."""
    for tool in ("unshare", "nsenter", "ip"):
        if not shutil.which(tool):
            return f"the program {tool} is missing (packages util-linux and iproute2)"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun is missing, or not for this user"
    tried = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "ip", "link", "set", "lo", "up"],
        capture_output=True,
        text=True,
    )
    return tried.stderr.strip() if tried.returncode else ""


def run(config: Config, command: list[str]) -> int:
    """In the first node's namespace: make the second, the link, run the command on both; return the larger exit status."""
    other = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    while os.readlink(f"/proc/{other.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        time.sleep(0.01)
    link = Link([device(ADDRESSES[0]), device(ADDRESSES[1], other.pid)], config)
    threading.Thread(target=link.carry, daemon=True).start()
    threading.Thread(target=listen, args=(link,), daemon=True).start()
    enter = [], ["nsenter", "--target", str(other.pid), "--net"]
    nodes = [
        subprocess.Popen(
            [*enter[n], *command],
            env=os.environ | environment(n, config),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if n else None,
            stderr=subprocess.STDOUT if n else None,
            text=True,
        )
        for n in range(2)
    ]

    def show() -> None:
        for line in nodes[1].stdout:
            print(f"[node 1] {line}", end="", flush=True)

    shown = threading.Thread(target=show, daemon=True)
    shown.start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        codes = [node.wait() for node in nodes]
        shown.join()
    except KeyboardInterrupt:
        return 130
    return max(abs(code) for code in codes)


def environment(node: int, config: Config) -> dict[str, str]:
    """What a node's command finds in its environment."""
    names = {"NODE_RANK": node, "GLOO_SOCKET_IFNAME": INTERFACE, "PET_NNODES": 2}
    if config.elastic:
        names |= {
            "PET_NNODES": "1:2",
            "PET_RDZV_BACKEND": "c10d",
            "PET_RDZV_ENDPOINT": f"{ADDRESSES[0]}:{PORT}",
            # On one machine torchrun cannot tell by the address which of the two is to hold the store.
            "PET_RDZV_CONF": f"is_host={'false' if node else 'true'}",
            "PET_LOCAL_ADDR": ADDRESSES[node],
        }
    else:
        names |= {
            "PET_NODE_RANK": node,
            "PET_MASTER_ADDR": ADDRESSES[0],
            "PET_MASTER_PORT": PORT,
        }
    return {name: str(value) for name, value in names.items()}


def listen(link: "Link") -> None:
    """Obey the lines on standard input."""
    for line in sys.stdin:
        word = line.split()
        try:
            if word in (["cut"], ["mend"]):
                link.is_up = word == ["mend"]
            else:
                latency_ms, mbit = map(float, word)
                link.set(Config(latency_ms=latency_ms, mbit=mbit))
        except ValueError as error:
            print(
                f"two_nodes.py: {line.strip()!r} is not obeyed ({error}): write cut, mend, or latency_ms mbit such as 5 200",
                file=sys.stderr,
            )


def device(address: str, pid: int | None = None) -> int:
    """Make the TUN device of the node whose network the process `pid` has; return the file of its packets."""
    libc, CLONE_NEWNET = ctypes.CDLL(None, use_errno=True), 0x40000000
    TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000

    def move(path: str) -> None:
        file = os.open(path, os.O_RDONLY)
        if libc.setns(file, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(file)

    if pid:
        home = f"/proc/{os.getpid()}/fd/{os.open('/proc/self/ns/net', os.O_RDONLY)}"
        move(f"/proc/{pid}/ns/net")
    try:
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", INTERFACE.encode(), IFF_TUN | IFF_NO_PI))
        for change in (
            f"addr add {address}/24 dev {INTERFACE}",
            f"link set {INTERFACE} mtu {MTU} txqueuelen 1000 up",
            "link set lo up",
        ):
            subprocess.run(["ip", *change.split()], check=True)
    finally:
        if pid:
            move(home)
    return tun


class Link:
    """Carries packets between two devices, each direction in a queue: sent at the rate, there after the latency."""

    def __init__(self, devices: list[int], config: Config):
        self.devices, self.is_up = devices, True
        self.set(config)
        self._queues = collections.deque(), collections.deque()  # (when it is there, packet)
        self._free = [0.0, 0.0]  # when the last bit of what was sent so far is on its way

    def set(self, config: Config) -> None:
        self._latency_s, self._bytes_per_s = config.latency_ms / 1e3, config.mbit * 1e6 / 8

    def carry(self) -> None:
        poll = select.poll()
        for tun in self.devices:
            poll.register(tun, select.POLLIN)
        while True:
            due = [queue[0][0] for queue in self._queues if queue]
            left_s = min(due) - time.perf_counter() if due else 0.1
            # poll counts in whole milliseconds: look again and again in the last one
            for tun, _ in poll.poll(max(0, int(left_s * 1e3))):
                self._take(self.devices.index(tun))
            for way, queue in enumerate(self._queues):
                while queue and queue[0][0] <= time.perf_counter():
                    _, packet = queue.popleft()
                    with contextlib.suppress(OSError):  # nobody listens any more
                        os.write(self.devices[1 - way], packet)

    def _take(self, way: int) -> None:
        for _ in range(32):
            try:
                packet = os.read(self.devices[way], MTU + 100)
            except BlockingIOError:
                return
            now = time.perf_counter()
            if not self.is_up or self._free[way] > now + QUEUE_S:
                continue
            self._free[way] = max(self._free[way], now) + len(packet) / self._bytes_per_s
            self._queues[way].append((self._free[way] + self._latency_s, packet))


if __name__ == "__main__":
    main()
