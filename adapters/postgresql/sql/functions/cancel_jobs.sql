-- Cancel jobs; return for each of them, in order:
--   cancelled  it waited and is gone, or was cancelled before
--   requested  it is in flight, and was asked to end
--   too late   it has ended
--   unknown    it isn't known
--   locked     another transaction is about to change it: ask again
-- It waits for no job's row, as a settlement may wait for another one that this has locked.
CREATE FUNCTION cancel_jobs(p_queue text, p_ids text[], p_ttl float8, OUT outcomes text[])
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
DECLARE
  q queue;
  found_seq bigint;
  found_token bigint;
  found_death bigint;
  found_until timestamptz;
  kept result;
  outcome text;
  gone text[] := '{}';
  each_id text;
BEGIN
  outcomes := '{}';
  SELECT * INTO q FROM queue WHERE name = p_queue;
  IF NOT FOUND THEN RAISE EXCEPTION 'no such queue' USING ERRCODE = 'MJ404'; END IF;
  FOREACH each_id IN ARRAY p_ids LOOP
    SELECT seq, token, death, dead_until INTO found_seq, found_token, found_death, found_until
    FROM job WHERE queue = q.key AND id = each_id FOR UPDATE SKIP LOCKED;
    IF NOT FOUND AND EXISTS (SELECT FROM job WHERE queue = q.key AND id = each_id) THEN
      outcome := 'locked';
    ELSIF NOT FOUND THEN
      -- Read the result after the row: if the job ended before, its result is stored by now.
      SELECT * INTO kept FROM result WHERE queue = q.key AND id = each_id;
      outcome := CASE
        WHEN kept.expires <= clock_timestamp() THEN 'unknown'
        WHEN kept.body = E'\\x00' THEN 'cancelled'
        WHEN kept.id IS NOT NULL OR EXISTS (
          SELECT FROM ended WHERE queue = q.key AND number >= first_ended(q.key) AND ids @> ARRAY[each_id]
        ) THEN 'too late' ELSE 'unknown' END;
    ELSIF found_death IS NOT NULL THEN
      outcome := CASE WHEN found_until <= clock_timestamp() THEN 'unknown' ELSE 'too late' END;
    ELSIF EXISTS (SELECT FROM request WHERE token = found_token AND ends > clock_timestamp()) THEN
      outcome := 'requested';
      INSERT INTO asked (queue, seq, id, ttl) VALUES (q.key, found_seq, each_id, p_ttl) ON CONFLICT DO NOTHING;
    ELSE
      outcome := 'cancelled';
      DELETE FROM job WHERE queue = q.key AND id = each_id;
      DELETE FROM asked WHERE queue = q.key AND seq = found_seq;
      gone := gone || each_id;
    END IF;
    outcomes := outcomes || outcome;
  END LOOP;
  IF gone <> '{}' THEN PERFORM keep_cancelled(q, gone, array_fill(p_ttl, ARRAY[cardinality(gone)])); END IF;
  IF 'requested' = ANY (outcomes) THEN -- and drop what was asked of jobs that have ended since
    DELETE FROM asked WHERE ctid = ANY (ARRAY(
      SELECT a.ctid FROM asked a WHERE a.queue = q.key AND NOT EXISTS (
        SELECT FROM job j WHERE j.queue = q.key AND j.id = a.id AND j.seq = a.seq OFFSET 0
      ) LIMIT 1000 FOR UPDATE SKIP LOCKED
    ));
  END IF;
END
$$;
