-- Publish messages; return which of them, counted from 1, were duplicates, or NULL if none was.
--
-- 1. If the sender asks again (p_again), and the request was carried out, answer as then.
-- 2. Insert the messages as jobs. Most are plain: without priorities and delays, which are NULL then. If an id is that of a
--    dead letter whose time is over, insert them once more without it.
-- 3. Find the duplicates, if there are any.
-- 4. Forget the requests whose answers the sender has (p_answered), and remember this one for an hour.
-- 5. Wake the consumers that wait.
CREATE FUNCTION publish(
  p_queue text, p_token bigint, p_again boolean, p_answered bigint[],
  p_ids text[], p_bodies bytea[], p_priorities int[], p_delays float8[],
  OUT duplicates int[]
) LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
DECLARE
  q queue;
  before bigint;
  came int;
  arrived int := 0;
BEGIN
  IF p_again THEN
    SELECT r.odd INTO duplicates FROM request r WHERE r.token = p_token;
    IF FOUND THEN RETURN; END IF;
  END IF;
  SELECT * INTO q FROM queue WHERE name = p_queue;
  IF NOT FOUND THEN RAISE EXCEPTION 'no such queue' USING ERRCODE = 'MJ404'; END IF;

  before := nextval('block') << 16;
  FOR try IN 1 .. 2 LOOP
    IF p_priorities IS NULL THEN
      INSERT INTO job (queue, place, seq, id, body)
      SELECT q.key, place_now(q.kind, 0), before + m.n, m.id, m.body
      FROM unnest(p_ids, p_bodies) WITH ORDINALITY AS m (id, body, n)
      ON CONFLICT (queue, id) DO NOTHING;
    ELSE
      INSERT INTO job (queue, place, seq, due, priority, id, body)
      SELECT q.key, CASE WHEN m.delay <= 0 THEN place_now(q.kind, m.priority) END, before + m.n,
        CASE WHEN m.delay > 0 THEN clock_timestamp() + m.delay * interval '1 s' END, m.priority, m.id, m.body
      FROM unnest(p_ids, p_bodies, p_priorities, p_delays) WITH ORDINALITY AS m (id, body, priority, delay, n)
      ON CONFLICT (queue, id) DO NOTHING;
    END IF;
    GET DIAGNOSTICS came = ROW_COUNT;
    arrived := arrived + came;
    EXIT WHEN arrived = cardinality(p_ids) OR NOT free_ids(q.key, p_ids);
  END LOOP;
  IF arrived < cardinality(p_ids) THEN
    duplicates := find_duplicates(q.key, p_ids, before);
  END IF;

  DELETE FROM request WHERE token = ANY (p_answered);
  INSERT INTO request (token, queue, ends, odd) VALUES (p_token, q.key, clock_timestamp() + interval '1 h', duplicates);
  IF arrived > 0 AND q.receivers_wait_until > clock_timestamp() THEN PERFORM wake(q.key, 'r'); END IF;
END
$$;
