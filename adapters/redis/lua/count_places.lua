#!lua flags=no-writes,allow-oom
-- Counts who has a place or waits for one, of all keys that begin alike (CRD-8).
-- KEYS  lines
-- ARGV  how many keys to name of each, how the names of lines and of their ends begin, then what the keys begin with
-- Return for each of these a list: how many have a place, how many wait, how many keys there are, then the busiest keys,
--         each with how many have a place and how many wait
-- Cost  O(keys with places of the namespace), and O(log n) for each who ended

local most, line_prefix, ends_prefix, now = tonumber(ARGV[1]), ARGV[2], ARGV[3], now_us()
local present, answers = redis.call('ZRANGE', lines, '(' .. string.format('%.0f', now), '+inf', 'BYSCORE'), {}

-- How many have a place of a key and how many wait, of those whose time isn't over.
local function count(key, line)
  local ends = ends_prefix .. key
  local waiting = redis.call('ZCARD', line)
  local held = redis.call('ZCARD', ends) - waiting
  for _, holder in ipairs(redis.call('ZRANGE', ends, '-inf', now, 'BYSCORE')) do
    if redis.call('ZMSCORE', line, holder)[1] then waiting = waiting - 1 else held = held - 1 end
  end
  return { key, held, waiting }
end

local function is_busier(one, other)
  if one[2] ~= other[2] then return one[2] > other[2] end
  if one[3] ~= other[3] then return one[3] > other[3] end
  return one[1] < other[1]
end

for i = 4, #ARGV do
  local counts, held, waiting = {}, 0, 0
  for _, line in ipairs(present) do
    local key = string.sub(line, #line_prefix + 1)
    if string.sub(key, 1, #ARGV[i]) == ARGV[i] then
      local each = count(key, line)
      held, waiting = held + each[2], waiting + each[3]
      if each[2] + each[3] > 0 then counts[#counts + 1] = each end
    end
  end
  table.sort(counts, is_busier)
  local answer = { held, waiting, #counts }
  for n = 1, math.min(most, #counts) do
    for _, part in ipairs(counts[n]) do answer[#answer + 1] = part end
  end
  answers[#answers + 1] = answer
end
return answers
