#!lua flags=allow-oom
-- Cancels jobs: those that wait are gone, those in flight are asked to end (CAN-1, CAN-2).
-- KEYS  meta body state history ready run delay letter dead_expiry result expiry ended asked rwake last
-- ARGV  request, keep_ms, for how long to remember it (ms), ids, none twice
-- Return a letter for each: 'c' cancelled, now or before · 'r' asked · 't' too late · 'u' unknown
-- Error  NOQUEUE, STALE
-- Cost   O(log n) a job; on a fifo a look through those that are ready, and one through the last 10,000 that ended

local about = redis.call('HMGET', meta, 'kind', 'stand', 'rwait')
local kind, waited_until = about[1], tonumber(about[3])
if not kind then return redis.error_reply('NOQUEUE') end
local before, stale = answered_before(last, ARGV[1])
if stale then return redis.error_reply('STALE') end
if before then return before end
local now, ttl = now_ms(), tonumber(ARGV[3])
local over = over_until(about[2], now)
local ids, outcomes, gone, listed = {}, {}, {}, {}
for i = 4, #ARGV do ids[#ids + 1] = ARGV[i] end

-- What to answer for a job that neither waits nor runs.
local function how_it_ended(id)
  local record = redis.call('HGET', result, id)
  if not record or #record < 8 then return redis.call('LPOS', ended, id) and 't' or 'u' end
  local expires = struct.unpack('>d', record)
  if math.abs(expires) <= now then return 'u' end
  return expires < 0 and 'c' or 't'
end

local bodies = redis.call('HMGET', body, unpack(ids))
local leases = redis.call('ZMSCORE', run, unpack(ids))
for i, id in ipairs(ids) do
  if not bodies[i] then
    outcomes[i] = how_it_ended(id)
  elseif redis.call('HEXISTS', letter, id) == 1 then
    outcomes[i] = is_expired(dead_expiry, id, now) and 'u' or 't'
  elseif leases[i] and tonumber(leases[i]) > over then
    outcomes[i] = 'r'
    local record = redis.call('HGET', state, id)
    if record and not read_asked(asked, { id }, { record })[id] then
      redis.call('HSET', asked, id, ttl .. '|' .. string.sub(record, RECORD + 1))
    end
  else
    outcomes[i] = 'c'
    gone[#gone + 1] = id
    if redis.call('ZREM', run, id) + redis.call('ZREM', delay, id) == 0 then
      if kind == 'fifo' then
        listed[#listed + 1] = id
      else
        redis.call('ZREM', ready, id)
      end
    end
    keep_cancelled(result, expiry, id, now, ttl)
  end
end
if redis.call('EXISTS', asked) == 1 then redis.call('HSET', meta, 'asked', redis.call('HLEN', asked)) end
if #listed > 0 then remove_from_list(ready, listed) end
if #gone > 0 then
  for _, key in ipairs({ body, state, history, asked }) do redis.call('HDEL', key, unpack(gone)) end
  forget_ends(ended, gone)
  if waited_until and waited_until > now then
    wake_with_ids(rwake, gone)
  end
end
local answer = table.concat(outcomes)
keep_answer(last, ARGV[1], answer, ARGV[2])
return answer
