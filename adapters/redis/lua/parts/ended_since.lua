-- Part of ended_jobs.lua and result_store_ended.lua: reads what the wake-ups since one say of which jobs have ended.
-- Reads  stream, last (the id of the wake-up that was seen last; '' to begin), is_known (whether none may be missing)
-- Sets   newest, ids (with commas; false if it isn't known which have ended)
-- Cost   O(wake-ups), of which about a thousand are kept

local newest, ids = '0-0', ''
if last == '' then
  local entry = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  newest = entry and entry[1] or newest
else
  local entries = redis.call('XREVRANGE', stream, '+', last)
  newest = #entries > 0 and entries[1][1] or newest
  -- While the one that was seen last is there, none behind it has been trimmed.
  if not is_known or newest ~= last and (#entries == 0 or entries[#entries][1] ~= last) then
    ids = false
  else
    local found = {}
    for i = #entries - 1, 1, -1 do
      local fields = entries[i][2]
      if fields[1] ~= 'ids' then found = nil; break end
      found[#found + 1] = fields[2]
    end
    ids = found and table.concat(found, ',') or false
  end
end
