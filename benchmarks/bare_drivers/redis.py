"""The limit on Redis: two scripts and nothing else."""

from collections.abc import Sequence

from redis import Redis

# What any such queue must do at least: end the last batch, take ids and bodies, and remember the leases.
DRAIN = """
local done = {}
for i = 3, #ARGV do done[#done + 1] = ARGV[i] end
if #done > 0 then
  redis.call('ZREM', KEYS[3], unpack(done))
  redis.call('HDEL', KEYS[2], unpack(done))
end
local ids = redis.call('LPOP', KEYS[1], ARGV[1])
if not ids then return {{}, {}} end
local leases = {}
for i, id in ipairs(ids) do leases[2 * i - 1] = ARGV[2]; leases[2 * i] = id end
redis.call('ZADD', KEYS[3], unpack(leases))
return {ids, redis.call('HMGET', KEYS[2], unpack(ids))}
"""
PUBLISH = """
local ids = {}
for i = 1, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
redis.call('HSET', KEYS[2], unpack(ARGV))
redis.call('RPUSH', KEYS[1], unpack(ids))
return #ids
"""
PUBLISH_BATCH = 100


class BareRedis:
    """A queue of two scripts."""

    def __init__(self, url: str, name: str = "bare") -> None:
        self.server = Redis.from_url(url)
        self.keys = [f"{{{name}}}:{key}" for key in ("ready", "body", "run")]
        self._publish = self.server.script_load(PUBLISH)
        self._drain = self.server.script_load(DRAIN)

    def publish(self, messages: Sequence[tuple[str, bytes]], batch: int = PUBLISH_BATCH) -> None:
        for start in range(0, len(messages), batch):
            words = [word for message in messages[start : start + batch] for word in message]
            self.server.evalsha(self._publish, 3, *self.keys, *words)

    def take(self, batch: int, done: Sequence[bytes]) -> list[bytes]:
        """End what is done, and take further ids, with their bodies; in one round trip."""
        ids, _ = self.server.evalsha(self._drain, 3, *self.keys, batch, 1, *done)
        return ids

    def drain(self, batch: int) -> None:
        done = self.take(batch, [])
        while done:
            done = self.take(batch, done)

    def clear(self) -> None:
        self.server.unlink(*self.keys)
