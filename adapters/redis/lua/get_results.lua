#!lua flags=no-writes,allow-oom
-- Says how jobs ended, of those that have (RES-1).
-- KEYS  meta body result letter dead_expiry ended
-- ARGV  the most bytes to answer, ids
-- Return for each id, up to as many as fit: 'd' and the output · 'n', done without one · 'c', cancelled · 'f' and the letter (JSON) · nil
-- Error  NOQUEUE
-- Cost  O(ids); where more than a few of them ended without a result or are unknown, a look through the last 10,000

if redis.call('EXISTS', meta) == 0 then return redis.error_reply('NOQUEUE') end
local FEW = 4
local most, now, size = tonumber(ARGV[1]), now_ms(), 0
local answers, open, recent = {}, 0, nil

local function has_ended(id)
  open = open + 1
  if open <= FEW then return redis.call('LPOS', ended, id) end
  if not recent then
    recent = {}
    for _, each in ipairs(redis.call('LRANGE', ended, 0, -1)) do recent[each] = true end
  end
  return recent[id]
end

for i = 2, #ARGV do
  local id, answer = ARGV[i], false
  local failed = redis.call('HGET', letter, id)
  if failed and not is_expired(dead_expiry, id, now) then
    answer = 'f' .. failed
  elseif redis.call('HEXISTS', body, id) == 0 then
    local record = redis.call('HGET', result, id)
    local expires = record and #record >= 8 and struct.unpack('>d', record) or 0
    if -expires > now then
      answer = 'c'
    elseif expires > now then
      local output = string.sub(record, 9)
      answer = output == '' and 'n' or 'd' .. output
    elseif not record and has_ended(id) then
      answer = 'n'
    end
  end
  answers[i - 1] = answer
  size = size + (answer and #answer or 0)
  if size > most then break end
end
return answers
