-- Publish messages within a transaction of the caller's, which is neither begun nor ended here. Return which of them,
-- counted from 1, were duplicates, and NULL if there is no such queue: an error would end the caller's transaction.
-- Nothing is remembered of the request, as it is never sent twice.
--
-- Rows are inserted by id, so that two transactions that publish the same ids wait for one another, and don't
-- deadlock. If an id is that of a dead letter whose time is over, they are inserted once more without it. Consumers are always told: who waits when this commits, may not have waited now.
CREATE FUNCTION publish_in_transaction(
  p_queue text, p_ids text[], p_bodies bytea[], p_priorities int[], p_delays float8[],
  OUT duplicates int[]
) LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
DECLARE
  q queue;
  before bigint;
  came int;
  arrived int := 0;
BEGIN
  SELECT * INTO q FROM queue WHERE name = p_queue;
  IF NOT FOUND THEN RETURN; END IF;
  duplicates := '{}';
  before := nextval('block') << 16;
  FOR try IN 1 .. 2 LOOP
    INSERT INTO job (queue, place, seq, due, priority, id, body)
    SELECT q.key, CASE WHEN m.delay <= 0 THEN place_now(q.kind, m.priority) END, before + m.n,
      CASE WHEN m.delay > 0 THEN clock_timestamp() + m.delay * interval '1 s' END, m.priority, m.id, m.body
    FROM unnest(p_ids, p_bodies, p_priorities, p_delays) WITH ORDINALITY AS m (id, body, priority, delay, n)
    ORDER BY m.id COLLATE "C", m.n
    ON CONFLICT (queue, id) DO NOTHING;
    GET DIAGNOSTICS came = ROW_COUNT;
    arrived := arrived + came;
    EXIT WHEN arrived = cardinality(p_ids) OR NOT free_ids(q.key, p_ids);
  END LOOP;
  IF arrived < cardinality(p_ids) THEN
    duplicates := find_duplicates(q.key, p_ids, before);
  END IF;
  IF arrived > 0 THEN PERFORM wake(q.key, 'r'); END IF;
END
$$;
