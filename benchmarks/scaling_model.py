"""What breaks first between one host and a thousand, a thousand jobs and a hundred million.

    python -m benchmarks.scaling_model [--costs costs.json] [--rate 10.9] [--write docs/scaling.md]

`simulate` plays hosts against one Redis, which has one thread and serves one call after the other: each host claims
batches ahead, renders them on its devices, and settles their jobs one by one. `limits` is arithmetic. Both take the
costs that benchmarks.redis_cost measured (`--costs`; without it they are measured first).
"""

import argparse
import heapq
import random
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from benchmarks.redis_cost import BATCH, Costs, measure
from benchmarks.report import table, write_section

HOSTS = (1, 16, 100, 300, 1000)
JOBS = (1_000_000, 10_000_000, 100_000_000)
HOST_RATE = 10.9  # images/s of a host of eight TPU v6e, as published: 1.36 a chip
SIMULATED_S = 20.0
WARM_UP_S = 5.0  # simulated before, and not counted
SPREAD = 0.1  # of a batch's time: hosts are not in step
IN_FLIGHT = 3  # batches claimed that the device is not done with
MAXCLIENTS = 10_000  # Redis' default
CONNECTIONS = 17  # of a worker, as measured
LISTED_PER_PAGE = 1000  # of a bucket's objects
PAGE_S = 0.2  # of a bucket, from a machine in its region: a guess, and the one figure here that was not measured
PLANNED_PER_S = 41_000  # jobs/s of `promptmill submit`: docs/performance.md


@dataclass(frozen=True)
class Farm:
    """What a simulated farm came to."""

    images_per_s: float
    wanted_per_s: float
    redis_busy: float
    devices_wait: float
    """Share of the devices' time in which no batch was there for them."""


def simulate(hosts: int, cost_us: float, rate: float = HOST_RATE, seed: int = 0) -> Farm:
    """Play so many hosts. `cost_us` is a job's time of Redis' thread, `rate` a host's images/s."""
    draw, order = random.Random(seed), count()
    call_s = cost_us * 1e-6 * BATCH / (BATCH + 1)  # of a claim, and of each settlement of its jobs
    events = [(draw.uniform(0, BATCH / rate), next(order), "claim", host) for host in range(hosts)]
    heapq.heapify(events)
    free_at, busy_s, landed = 0.0, 0.0, 0  # of Redis
    device_free = [0.0] * hosts
    held, waited_s = [0] * hosts, 0.0
    while events:
        now, _, what, host = heapq.heappop(events)
        if now > WARM_UP_S + SIMULATED_S:
            break
        counts = now > WARM_UP_S
        if what == "rendered":  # the next claim may go, beside the settlements of this batch
            held[host] -= 1
            heapq.heappush(events, (now, next(order), "claim", host))
            for _ in range(BATCH):
                heapq.heappush(events, (now, next(order), "settle", host))
            continue
        if what == "claim" and held[host] >= IN_FLIGHT:
            continue
        free_at = max(free_at, now) + call_s
        busy_s += call_s * counts
        if what == "settle":
            landed += counts and free_at <= WARM_UP_S + SIMULATED_S
            continue
        held[host] += 1
        began = max(free_at, device_free[host])
        waited_s += (began - device_free[host]) * counts
        device_free[host] = began + BATCH / rate * draw.uniform(1 - SPREAD, 1 + SPREAD)
        heapq.heappush(events, (device_free[host], next(order), "rendered", host))
        heapq.heappush(events, (free_at, next(order), "claim", host))
    return Farm(landed / SIMULATED_S, hosts * rate, min(busy_s / SIMULATED_S, 1.0), waited_s / (hosts * SIMULATED_S))


def farms(costs: Costs, rate: float) -> str:
    """The simulated farms, as Markdown."""
    head = [
        "hosts",
        "wanted, images/s",
        "landed, images/s",
        "Redis' thread busy",
        "devices wait",
        "hosts that wait for jobs",
    ]
    rows = []
    for hosts in HOSTS:
        farm = simulate(hosts, (costs.real or costs.render).cpu_us, rate)
        idle = hosts * costs.idle.cpu_us * 1e-6
        told = [f"{farm.images_per_s:,.0f}", f"{farm.redis_busy:.1%}", f"{farm.devices_wait:.1%}", f"{idle:.1%}"]
        rows.append([f"{hosts:,}", f"{farm.wanted_per_s:,.0f}", *told])
    return table(head, rows)


def most_hosts(costs: Costs, rate: float) -> dict[str, float]:
    """At how many hosts each thing of one Redis is used up."""
    real = costs.real or costs.render
    return {
        "connections (maxclients 10,000)": MAXCLIENTS / CONNECTIONS,
        "its thread, hosts that render": 1e6 / (rate * real.cpu_us),
        "its thread, hosts that wait, few shapes": 1e6 / costs.idle.cpu_us,
        "its thread, hosts that wait, 32 shapes that they cannot render": 1e6 / costs.idle_many_shapes.cpu_us,
        "a network of 10 Gbit/s": 1.25e9 / (rate * (real.bytes_in + real.bytes_out)),
    }


def limits(costs: Costs, rate: float) -> str:
    """What one Redis, one submitter and one listing take, as Markdown."""
    hosts = [[what, f"{number:,.0f}"] for what, number in most_hosts(costs, rate).items()]
    rows = []
    for jobs in JOBS:
        waiting_gb = jobs * costs.enqueue.kept_bytes / 1e9
        bits_mb = 2 * jobs / 8 / 1e6
        listing_h = jobs / LISTED_PER_PAGE * PAGE_S / 3600
        days = [jobs / (number * rate) / 86400 for number in (16, 1000)]
        rows.append(
            [f"{jobs:,}", f"{waiting_gb:.1f}", f"{bits_mb:.1f}", f"{jobs / PLANNED_PER_S / 60:.0f}", f"{listing_h:.1f}"]
            + [f"{one:.2f}" for one in days]
        )
    head = [
        "jobs",
        "all waiting, GB",
        "ledger, MB",
        "submit, minutes",
        "listing, hours",
        "16 hosts, days",
        "1,000 hosts, days",
    ]
    return f"{table(['used up of one Redis', 'at hosts'], hosts)}\n\n{table(head, rows)}"


def report(costs: Costs, rate: float) -> str:
    """All of it, as Markdown."""
    of = f"{rate} images/s per host, batches of {BATCH}; the costs of the table above."
    return "\n\n".join([f"`python -m benchmarks.scaling_model`: {of}", farms(costs, rate), limits(costs, rate)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--costs", type=Path, help="of benchmarks.redis_cost --json")
    parser.add_argument("--rate", type=float, default=HOST_RATE, help="images/s of a host")
    parser.add_argument("--write", type=Path, help="put the tables into this page")
    options = parser.parse_args()
    costs = Costs.of_json(options.costs.read_text()) if options.costs else measure(20_000, 10.0)
    text = report(costs, options.rate)
    print(text)
    if options.write:
        write_section(options.write, "scaling model", text)


if __name__ == "__main__":
    main()
