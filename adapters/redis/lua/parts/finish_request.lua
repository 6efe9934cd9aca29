-- Wakes those who wait, if there is work for them, and answers; the answer is kept for a request that is sent again.
-- Reads  must_plan must_wake, kind ready wake, outcomes ids infos all_first, last request keep_ms
-- Sets   nothing: the script ends here
-- Cost   O(1), and to read the bodies

-- They are to take what came back and is still here, or to wait until a moment that was just set.
if must_plan or (must_wake and (#ids == 0 or ready_count(kind, ready) > 0)) then wake_up(wake) end

local outcome = table.concat(outcomes)
if all_first then infos = {} end
keep_answer(last, request, outcome .. '|' .. #ids .. '|' .. table.concat(ids, ',') .. '|' .. table.concat(infos, ','), keep_ms)
return answer(outcome, ids, infos)
