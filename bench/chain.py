"""The whole chain as it runs in a demo: latency from telegram to committed row, and the adapter's memory.

    python -m bench.chain [--meters N] [--speed X] [--duration S]

100 virtual meters at ten times real time are 1,000 telegrams a second, over TCP and ptys, through adapter,
concentrator and cloud on this machine; 500 meters at real time (`--meters 500 --speed 1 --links tcp`) show what one
adapter takes. No peer covers this chain, so the figures stand alone.
"""

import argparse
import asyncio
import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from meterway.demo.platform import Options, Platform
from meterway.demo.run import finish, watching


def resident_mb(pid: int | None) -> float:
    """Return the resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def cpu_s(pid: int | None) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(directory: Path, meters: int, speed: float, duration_s: float, links: list[str]) -> None:
    """Run the platform and print what it did."""
    since = datetime.now(UTC)
    start = since - timedelta(seconds=duration_s * speed)
    options = Options(data_dir=directory, meters=meters, speed=speed, seed="bench", start=start, links=links)
    async with Platform(options) as platform, watching(platform) as watcher:
        pids = {name: platform.processes[name].pid for name in ("adapter", "concentrator", "cloud")}
        await asyncio.sleep(duration_s / 2)  # what the start costs is over
        before = {name: cpu_s(pid) for name, pid in pids.items()}
        await asyncio.sleep(duration_s / 2)
        cores = {name: (cpu_s(pid) - before[name]) / (duration_s / 2) for name, pid in pids.items()}
        memory = {name: resident_mb(pid) for name, pid in pids.items()}
        load = os.getloadavg()[0]
        result = await finish(platform, watcher, since, show=lambda _: None)
    print(
        f"  {result.telegrams / duration_s:,.0f} telegrams/s from {meters} meters for {duration_s:g} s, load {load:.1f}"
    )
    print(f"  missing {result.missing}, duplicated {result.duplicated}, quarantined {result.quarantined}")
    if result.latency_p50_s is not None and result.latency_p99_s is not None:
        p50_ms, p99_ms = result.latency_p50_s * 1000, result.latency_p99_s * 1000
        print(f"  telegram to committed row: p50 {p50_ms:.0f} ms, p99 {p99_ms:.0f} ms")
    print("  processor: " + ", ".join(f"{name} {share:.2f} of a core" for name, share in cores.items()))
    print("  resident: " + ", ".join(f"{name} {size_mb:.0f} MB" for name, size_mb in memory.items()))


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meters", type=int, default=100)
    parser.add_argument("--speed", type=float, default=10.0)
    parser.add_argument("--duration", type=float, default=20.0)
    parser.add_argument("--links", nargs="+", default=["tcp", "pty"])
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="meterway-bench-", ignore_cleanup_errors=True) as temporary:
        directory = Path(temporary)
        directory.chmod(0o711)
        asyncio.run(measure(directory, options.meters, options.speed, options.duration, options.links))


if __name__ == "__main__":
    main()
