#!lua flags=no-writes,allow-oom
-- Lists a page of dead letters, oldest first, without disturbing them (DLQ-1).
-- KEYS  meta body state dead dead_expiry letter history
-- ARGV  offset, most letters, most bytes (the page ends with the body that exceeds them), and where the page follows
--         another, the number of the last death of that one, in place of the offset; else empty
-- Return {number of the page's last death, empty where no more follow; ids, bodies, infos (attempt:number:crashes),
--         letters (JSON: reason, error, died_ms), histories (JSON)}
-- Error  NOQUEUE
-- Cost  O(log n + letters); O(n) while there are some whose time is over

if redis.call('EXISTS', meta) == 0 then return redis.error_reply('NOQUEUE') end
local offset, limit, most_bytes, after = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
if limit == 0 then return { '', {}, {}, {}, {}, {} } end
local found, is_over, any_over = {}, {}, false
for _, id in ipairs(redis.call('ZRANGE', dead_expiry, '-inf', now_ms(), 'BYSCORE')) do is_over[id], any_over = true, true end
if any_over then
  local PART = 1000
  local from, skip, part = after == '' and '-inf' or '(' .. after, after == '' and offset or 0, nil
  repeat
    part = redis.call('ZRANGE', dead, from, '+inf', 'BYSCORE', 'LIMIT', 0, PART, 'WITHSCORES')
    for i = 1, #part, 2 do
      from = '(' .. part[i + 1]
      if not is_over[part[i]] and skip > 0 then
        skip = skip - 1
      elseif not is_over[part[i]] and #found < 2 * limit then
        found[#found + 1] = part[i]
        found[#found + 1] = part[i + 1]
      end
    end
  until #part < 2 * PART or #found == 2 * limit
elseif after == '' then
  found = redis.call('ZRANGE', dead, offset, offset + limit - 1, 'WITHSCORES')
else
  found = redis.call('ZRANGE', dead, '(' .. after, '+inf', 'BYSCORE', 'LIMIT', 0, limit, 'WITHSCORES')
end
local ids, bodies, bytes, last = {}, {}, 0, ''
for i = 1, #found, 2 do
  if bytes > most_bytes then break end
  local text = redis.call('HGET', body, found[i])
  ids[#ids + 1], bodies[#bodies + 1], last = found[i], text, found[i + 1]
  bytes = bytes + (text and #text or 0)
end
if #found < 2 * limit and #found == 2 * #ids then last = '' end
if #ids == 0 then return { '', {}, {}, {}, {}, {} } end
local infos = {}
for i, record in ipairs(redis.call('HMGET', state, unpack(ids))) do
  local job = record and unpack_state(record) or fresh_state(0)
  infos[i] = job.attempt .. ':' .. job.number .. ':' .. job.crashes
end
return { last, ids, bodies, infos, redis.call('HMGET', letter, unpack(ids)),
         redis.call('HMGET', history, unpack(ids)) }
