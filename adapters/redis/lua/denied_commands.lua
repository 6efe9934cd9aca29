#!lua flags=no-writes,allow-oom
-- Returns the commands that the user may not use, without running any.
-- KEYS  meta
-- ARGV  the commands, each with its arguments, by spaces; KEY stands for that key
-- Return those that are denied

local denied = {}
for _, command in ipairs(ARGV) do
  local words = {}
  for word in string.gmatch(command, '%S+') do
    words[#words + 1] = word == 'KEY' and meta or word
  end
  if not redis.acl_check_cmd(unpack(words)) then denied[#denied + 1] = words[1] end
end
return denied
