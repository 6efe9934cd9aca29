-- Part of sweep.lua and of purge.lua: ends those jobs whose leases are over that are asked to be cancelled (CAN-3).
-- Reads  expired (ids), found (their records), now waited_until, meta body state history result expiry ended asked rwake
-- Sets   expired, found (the others)
-- Cost   O(log n) a job, and a look through the last 10,000 that ended

local requests, gone, others, other_records = read_asked(asked, expired, found), {}, {}, {}
for i, id in ipairs(expired) do
  if requests[id] then
    gone[#gone + 1] = id
    keep_cancelled(result, expiry, id, now, requests[id])
  else
    others[#others + 1] = id
    other_records[#others] = found[i]
  end
end
if #gone > 0 then
  for _, key in ipairs({ body, state, history }) do redis.call('HDEL', key, unpack(gone)) end
  forget_ends(ended, gone)
  if waited_until and waited_until > now then wake_with_ids(rwake, gone) end
end
forget_asked(meta, asked, expired)
expired, found = others, other_records
