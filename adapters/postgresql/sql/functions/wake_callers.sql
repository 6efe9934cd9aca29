-- Tell those who wait for results which jobs have ended. If the ids are NULL, or too long for a notification, which takes
-- 8,000 bytes, it is said of all jobs.
CREATE FUNCTION wake_callers(p_queue int, p_ids text[]) RETURNS void
LANGUAGE plpgsql VOLATILE {{names}} AS $$
DECLARE
  told constant text := array_to_string(p_ids, ',');
BEGIN
  PERFORM wake(p_queue, CASE WHEN length(told) < 7000 THEN 'e' || told ELSE 'e*' END);
END
$$;
