-- Drop some rows of deleted queues, and return how many; called until none is left. A publish that had found the queue may
-- come to its end after that, so its key is kept for an hour.
CREATE FUNCTION drop_deleted(p_most int) RETURNS int
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
DECLARE
  q queue;
  dropped int := 0;
  more int;
BEGIN
  FOR q IN SELECT * FROM queue WHERE name IS NULL ORDER BY key LOOP
    DELETE FROM job WHERE ctid = ANY (ARRAY(
      SELECT ctid FROM job WHERE queue = q.key LIMIT p_most FOR UPDATE SKIP LOCKED
    ));
    GET DIAGNOSTICS more = ROW_COUNT;
    dropped := dropped + more;
    DELETE FROM result WHERE ctid = ANY (ARRAY(
      SELECT ctid FROM result WHERE queue = q.key LIMIT p_most FOR UPDATE SKIP LOCKED
    ));
    GET DIAGNOSTICS more = ROW_COUNT;
    dropped := dropped + more;
    DELETE FROM ended WHERE queue = q.key;
    DELETE FROM asked WHERE queue = q.key;
    DELETE FROM request WHERE queue = q.key AND ends < clock_timestamp() - interval '1 h';
    IF q.deleted < clock_timestamp() - interval '1 h' THEN DELETE FROM queue WHERE key = q.key; END IF;
    EXIT WHEN dropped >= p_most;
  END LOOP;
  DELETE FROM request r WHERE r.ends < clock_timestamp() AND NOT EXISTS (SELECT FROM queue WHERE key = r.queue);
  RETURN dropped;
END
$$;
