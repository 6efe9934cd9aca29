-- As settle_and_take; and publish the next jobs of the acks and the deaths that took effect (THEN-2, THEN-4). p_next_ends says
-- of which each is: acks are counted from 1, and the others behind them. If a queue of theirs isn't declared, its name is
-- raised, and nothing is done.
--
-- A request that was carried out before is answered as then. One that is carried out at this moment, over a connection
-- that its sender gave up, fails here by its token, which is taken.
CREATE FUNCTION settle_publish_and_take(
  p_queue int, p_token bigint, p_again boolean, p_answered bigint[],
  p_tokens bigint[], p_places bigint[], p_seqs bigint[], p_owners bigint[], p_results bytea[], p_ttls float8[],
  p_ends text[], p_other_places bigint[], p_other_seqs bigint[], p_other_owners bigint[],
  p_delays float8[], p_reasons bytea[], p_errors bytea[],
  p_take int, p_lease_s float8, p_from bigint[], p_returned bigint, p_sweep float8, p_wait boolean,
  p_name text, p_last bigint,
  p_next_ends int[], p_next_queues text[], p_next_ids text[], p_next_bodies bytea[],
  p_next_priorities int[], p_next_delays float8[]
) RETURNS SETOF taken
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
DECLARE
  is_done constant boolean := p_again AND EXISTS (SELECT FROM request r WHERE r.token = p_token);
  queues constant queue[] := ARRAY(SELECT n FROM queue n WHERE n.name = ANY (p_next_queues) ORDER BY n.key);
  missing text;
  answer taken;
  without_effect int[]; -- those that were lost, or whose jobs ended as cancelled instead
  next_queue queue;
  blocks bigint[];
  expected int;
  came int;
  arrived int;
BEGIN
  IF NOT is_done THEN
    SELECT m.name INTO missing FROM unnest(p_next_queues) AS m (name)
    WHERE m.name NOT IN (SELECT n.name FROM unnest(queues) n) LIMIT 1;
    IF FOUND THEN RAISE EXCEPTION '%', missing USING ERRCODE = 'MJ405'; END IF;
  END IF;
  FOR answer IN SELECT * FROM settle_and_take(
    p_queue, p_token, is_done, p_answered, p_tokens, p_places, p_seqs, p_owners, p_results, p_ttls,
    p_ends, p_other_places, p_other_seqs, p_other_owners, p_delays, p_reasons, p_errors,
    p_take, p_lease_s, p_from, p_returned, p_sweep, p_wait, p_name, p_last
  ) LOOP
    RETURN NEXT answer;
    without_effect := (answer.summary).lost || (answer.summary).cancelled; -- the last row has both
  END LOOP;
  IF is_done THEN RETURN; END IF;

  without_effect := coalesce(without_effect, '{}');
  FOREACH next_queue IN ARRAY queues LOOP
    -- A block has 65,536 numbers, and one of them goes to each message, also to those of other queues.
    blocks := ARRAY(SELECT nextval('block') << 16 FROM generate_series(0, cardinality(p_next_ids) >> 16));
    expected := (
      SELECT count(*) FROM unnest(p_next_ends, p_next_queues) AS m (settled, queue)
      WHERE m.queue = next_queue.name AND m.settled <> ALL (without_effect)
    );
    arrived := 0;
    FOR try IN 1 .. 2 LOOP
      INSERT INTO job (queue, place, seq, due, priority, id, body)
      SELECT next_queue.key, CASE WHEN m.delay <= 0 THEN place_now(next_queue.kind, m.priority) END,
        blocks[1 + (m.n >> 16)] + (m.n & 65535),
        CASE WHEN m.delay > 0 THEN clock_timestamp() + m.delay * interval '1 s' END, m.priority, m.id, m.body
      FROM unnest(p_next_ends, p_next_queues, p_next_ids, p_next_bodies, p_next_priorities, p_next_delays)
        WITH ORDINALITY AS m (settled, queue, id, body, priority, delay, n)
      WHERE m.queue = next_queue.name AND m.settled <> ALL (without_effect)
      ORDER BY m.id COLLATE "C", m.n -- two requests that publish the same ids wait for one another, and don't deadlock
      ON CONFLICT (queue, id) DO NOTHING;
      GET DIAGNOSTICS came = ROW_COUNT;
      arrived := arrived + came;
      EXIT WHEN arrived = expected OR NOT free_ids(next_queue.key, p_next_ids);
    END LOOP;
    IF arrived > 0 AND EXISTS (
      SELECT FROM queue n WHERE n.key = next_queue.key AND n.receivers_wait_until > clock_timestamp()
    ) THEN PERFORM wake(next_queue.key, 'r'); END IF;
  END LOOP;
END
$$;
