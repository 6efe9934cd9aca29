-- Have it told for some seconds when jobs of a queue end; return the queue's key.
CREATE FUNCTION announce_caller(p_queue text) RETURNS int
LANGUAGE plpgsql VOLATILE {{names}} AS $$
DECLARE
  q queue;
BEGIN
  SELECT * INTO q FROM queue WHERE name = p_queue;
  IF NOT FOUND THEN RAISE EXCEPTION 'no such queue' USING ERRCODE = 'MJ404'; END IF;
  IF q.callers_wait_until < clock_timestamp() + interval '20 s' THEN
    PERFORM set_config('synchronous_commit', 'off', true);
    UPDATE queue SET callers_wait_until = clock_timestamp() + interval '30 s' WHERE key = q.key;
  END IF;
  RETURN q.key;
END
$$;
