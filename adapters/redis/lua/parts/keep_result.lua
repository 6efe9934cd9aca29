-- Part of settle.lua: acks a job, and keeps its result until it expires (RES-1).
-- Reads  id, text (the result), number (how long to keep it, ms), now, result expiry
-- Sets   done
-- Cost   O(log n)

done[#done + 1] = id
redis.call('HSET', result, id, struct.pack('>d', now + number) .. text)
redis.call('ZADD', expiry, now + number, id)
for _, key in ipairs({ result, expiry }) do
  if redis.call('PTTL', key) < number then redis.call('PEXPIRE', key, number) end
end
