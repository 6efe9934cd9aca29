"""A producer, for the test that kills one: publishes batches until then, and prints which were confirmed."""

import argparse
from itertools import count

from recording_worker import SCHEMA, Numbered

from mindtrace.jobs import Orchestrator, PublishStatus, job_from_schema


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("prefix", help="what the ids begin with; batch and number follow")
    parser.add_argument("size", type=int, help="how many jobs a batch has")
    options = parser.parse_args()
    with Orchestrator(options.url) as orchestrator:
        orchestrator.register(SCHEMA)
        for batch in count():
            ids = [f"{options.prefix}-{batch}-{number}" for number in range(options.size)]
            jobs = [job_from_schema(SCHEMA, Numbered(number=batch), id=id_) for id_ in ids]
            outcomes = [handle.outcome for handle in orchestrator.publish_batch(SCHEMA.name, jobs)]
            assert {outcome.status for outcome in outcomes} == {PublishStatus.ACCEPTED}, outcomes
            print(batch, flush=True)


if __name__ == "__main__":
    main()
