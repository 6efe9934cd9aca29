-- Answers a request that was sent again as before, and refuses one that comes late.
-- Reads  request now stand, body run delay wake last
-- Sets   answer(outcomes, ids, infos), which makes the answer of settle_and_take.lua
-- Cost   O(1), and to read the bodies once more

local function answer(outcomes, ids, infos)
  local bodies = {}
  if #ids > 0 then
    bodies = redis.call('HMGET', body, unpack(ids))
    return { now, -1, '', outcomes, ids, bodies, infos }
  end
  local due, expires = first_score(delay), first_score(run)
  if expires and stand then expires = math.max(expires, stand) end
  local event = -1
  if due and expires then event = math.min(due, expires) else event = due or expires or -1 end
  local newest = redis.call('XREVRANGE', wake, '+', '-', 'COUNT', 1)[1]
  return { now, event, newest and newest[1] or '0-0', outcomes, ids, bodies, infos }
end

-- What is remembered of an answer: outcomes|number of ids|id,id...|info,info...
local function split(list)
  local items = {}
  if list == '' then return items end
  for item in string.gmatch(list .. ',', '([^,]*),') do items[#items + 1] = item end
  return items
end
local before, stale = answered_before(last, request)
if stale then return redis.error_reply('STALE') end
if before then
  local outcomes, count, ids, infos = string.match(before, '^([^|]*)|(%d+)|(.*)|([^|]*)$')
  ids, infos = split(ids), split(infos)
  if #ids ~= tonumber(count) then ids, infos = {}, {} end -- one has a comma, so that they can't be told apart
  return answer(outcomes, ids, infos)
end
