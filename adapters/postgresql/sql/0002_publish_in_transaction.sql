-- Version 2. Publishing within a transaction of the caller's, which is neither begun nor ended here.

-- Publish messages; return which of them, counted from 1, were duplicates, and NULL if there is no such queue: an
-- error would end the caller's transaction. Nothing is remembered of the request, as it is never sent twice.
--
-- Rows are inserted by id, so that two transactions that publish the same ids wait for one another, and don't
-- deadlock. Consumers are always told: who waits when this commits, may not have waited now.
CREATE FUNCTION publish_in_transaction(
  p_queue text, p_ids text[], p_bodies bytea[], p_priorities int[], p_delays float8[]
) RETURNS int[] LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
  q queue;
  before bigint;
  arrived int;
  duplicates int[] := '{}';
BEGIN
  SELECT * INTO q FROM queue WHERE name = p_queue;
  IF NOT FOUND THEN RETURN NULL; END IF;
  before := nextval('block') << 16;
  INSERT INTO job (queue, place, seq, due, priority, id, body)
  SELECT q.key, CASE WHEN m.delay <= 0 THEN place_now(q.kind, m.priority) END, before + m.n,
    CASE WHEN m.delay > 0 THEN clock_timestamp() + m.delay * interval '1 s' END, m.priority, m.id, m.body
  FROM unnest(p_ids, p_bodies, p_priorities, p_delays) WITH ORDINALITY AS m (id, body, priority, delay, n)
  ORDER BY m.id COLLATE "C", m.n
  ON CONFLICT (queue, id) DO NOTHING;
  GET DIAGNOSTICS arrived = ROW_COUNT;
  IF arrived < cardinality(p_ids) THEN
    duplicates := ARRAY(
      SELECT m.n FROM unnest(p_ids) WITH ORDINALITY AS m (id, n)
      WHERE NOT EXISTS (SELECT FROM job WHERE queue = q.key AND id = m.id AND seq = before + m.n)
    );
  END IF;
  IF arrived > 0 THEN PERFORM wake(q.key, 'r'); END IF;
  RETURN duplicates;
END
$$;

INSERT INTO version VALUES (2, 1);
