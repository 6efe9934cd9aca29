-- Take a queue's name away, so that it is gone, and wake all who wait for it.
CREATE FUNCTION delete_queue(p_queue text) RETURNS void
LANGUAGE plpgsql VOLATILE {{names}} AS $$
DECLARE
  gone int;
BEGIN
  UPDATE queue SET name = NULL, deleted = clock_timestamp() WHERE name = p_queue RETURNING key INTO gone;
  IF NOT FOUND THEN RAISE EXCEPTION 'no such queue' USING ERRCODE = 'MJ404'; END IF;
  PERFORM wake(gone, 'r'), wake_callers(gone, NULL);
END
$$;
