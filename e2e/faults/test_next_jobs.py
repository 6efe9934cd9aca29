"""Chains while workers or the server die: each link runs, and once where its job's ack publishes it."""

from ..coordinated_worker import CHAINED, CONCURRENCY, LINKS
from .coordination import IN_FLIGHT, CoordinatedExperiment, server_of
from .matrix import NO_PROCESSES, NO_SERVER, row

CHAINS = 12


@row("SIGKILL of workers whose jobs publish the next", "THEN-1", "LSE-1", "I1", "I3", not_on=NO_PROCESSES)
def test_the_chains_of_dead_workers_go_on(coordinated: CoordinatedExperiment) -> None:
    for _ in range(3):
        coordinated.publish(CHAINED, ["a"] * CHAINS)
        coordinated.expect_links()
        doomed = coordinated.start_worker(CHAINED)
        coordinated.wait_until_running(doomed, CONCURRENCY)
        coordinated.let_run([doomed], 1)  # others have ended by then, and their acks are under way
        coordinated.kill_at_work(doomed)
        coordinated.start_worker(CHAINED).go()
        coordinated.wait_until_drained(CHAINED)
        coordinated.end_workers()
    assert coordinated.check(CHAINED).done == 3 * CHAINS * LINKS


@row("SIGKILL of the server while jobs publish the next", "THEN-1", "CON-1", "I1", "I3", not_on=NO_SERVER)
def test_no_link_is_lost_when_the_server_dies(coordinated: CoordinatedExperiment) -> None:
    target = server_of(coordinated)
    workers = [coordinated.start_worker(CHAINED) for _ in range(2)]
    for worker in workers:
        worker.go()
    with coordinated.publishing(CHAINED, ["a"], publishers=2):
        for _ in range(2):
            coordinated.wait_until_run(IN_FLIGHT)
            coordinated.crash(target, workers)
    coordinated.expect_links()
    coordinated.wait_until_drained(CHAINED)
    coordinated.check(CHAINED)
