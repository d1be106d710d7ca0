"""The step `network` of scripts/bench: what a network costs, and how soon its services answer."""

import contextlib
import os
import pathlib
import re
import signal
import statistics
import time

MIB = 1 << 20
# Instances of a network whose memory is measured.
MANY = 50


def run(spore, *words):
    """Launches the built-in guest, which waits for its power button; ids, and the seconds until the command returned."""
    start = time.perf_counter()
    ids = spore("run", "demo", "-q", "-m", "64M", "--append", "demo.mode=poweroff-on-button", *words).split()
    return ids, time.perf_counter() - start


def processes(network):
    """The processes that have a network's id among their arguments."""
    found = []
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if network.encode() in (directory / "cmdline").read_bytes().split(b"\0"):
                found.append(int(directory.name))
        except OSError:
            pass
    return found


def ways_out(network):
    """The pastas of a network: children of its processes."""
    own, found = processes(network), []
    for pid in own:
        for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if pathlib.Path(f"/proc/{child}/comm").read_text().startswith("pas"):
                found.append(int(child))
    return found


def memory(pids):
    """Bytes of PSS."""
    rollups = (pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids)
    return sum(int(re.search(r"^Pss: +(\d+)", text, re.M)[1]) * 1024 for text in rollups)


def launches(results, spore, turns):
    """`run` of one instance without a network, of a network's first, and of its next, in turns."""
    took = {"without a network": [], "the first of a network": [], "a further one": [], "20 without": [], "20 on a network": []}
    for turn in range(turns):
        network = spore("network", "create", f"turn-{turn}").strip()
        for name, words in (("without a network", ()), ("the first of a network", ("--network", f"turn-{turn}")),
                            ("a further one", ("--network", f"turn-{turn}"))):
            took[name].append(run(spore, *words)[1])
        for name, words in ("20 without", ()), ("20 on a network", ("--network", f"turn-{turn}")):
            took[name].append(run(spore, "-n", "20", *words)[1])
        spore("terminate", "--all")
        while processes(network):
            time.sleep(0.05)
        spore("network", "delete", f"turn-{turn}")
    for name, times in took.items():
        results.add(f"run, {name}", 1e3 * statistics.median(times), "ms", least=1e3 * min(times), runs=len(times))

    def more(one, other):
        return 1e3 * statistics.median(a - b for a, b in zip(took[one], took[other]))
    results.add("the first of a network, more than without", more("the first of a network", "without a network"), "ms")
    results.add("a further one, more than without", more("a further one", "without a network"), "ms")
    results.add("each of 20, more than without", more("20 on a network", "20 without") / 20, "ms")


def footprint(results, spore):
    """Memory of a network's processes with one instance and with many."""
    network = spore("network", "create", "footprint").strip()
    for count in 1, MANY:
        run(spore, "-n", count - (count > 1), "--network", "footprint")
        time.sleep(1)
        own = processes(network)
        results.add(f"memory (PSS) of a network of {count}", memory(own) / MIB, "MiB", processes=float(len(own)),
                    pasta=memory(ways_out(network)) / MIB)
    return network


def restart(results, spore, network, turns):
    """From kill -9 of a network's processes to the first command after which they are there; they have let go of their lock
    by then, and guests that run are served again."""
    took, plain = [], []
    for _ in range(turns):
        start = time.perf_counter()
        spore("network", "ls")
        plain.append(time.perf_counter() - start)
        killed = processes(network)
        for pid in killed:
            # The first of a namespace takes the others with it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while processes(network):
            time.sleep(0.005)
        start = time.perf_counter()
        while not processes(network):
            spore("ls", "-q")
        took.append(time.perf_counter() - start)
    results.add(f"a killed network of {MANY} is back", 1e3 * statistics.median(took), "ms", least=1e3 * min(took),
                most=1e3 * max(took), of_a_plain_command=1e3 * statistics.median(plain))


def metadata(results, spore):
    """The guest's own clock: a connection's first packet to its last, with SYNs of its own in between, and a neighbour's."""
    for name, syns in ("alone", 0), ("among 10,000 SYNs of its own", 10_000):
        words = f"demo.mode=net demo.gets=1000 demo.syns={syns}"
        instance = spore("run", "demo", "-q", "-m", "128M", "--network", "default", "--append", words).strip()
        pattern = r"gets: .*median (\d+), p99 (\d+), most (\d+)"
        while not (found := re.search(pattern, spore("logs", instance))):
            time.sleep(0.1)
        spore("terminate", instance)
        median, p99, most = (int(digits) / 1e3 for digits in found.groups())
        results.add(f"metadata GET, {name}", median, "ms", p99=p99, most=most, runs=1000)


def measure(results, spore, turns=11):
    """All of it."""
    launches(results, spore, turns)
    network = footprint(results, spore)
    restart(results, spore, network, turns)
    spore("terminate", "--all")
    metadata(results, spore)
