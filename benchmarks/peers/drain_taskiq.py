"""taskiq on Redis streams, measured."""

import sys
import time

from taskiq_redis import RedisStreamBroker

from taskiq_measured import measure

broker = RedisStreamBroker(sys.argv[1], queue_name=f"bench-{time.time_ns()}", consumer_group_name="bench")
measure(broker, int(sys.argv[2]), at_once=100)
