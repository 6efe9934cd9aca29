-- Settle deliveries and take further jobs, in one step. Return a row for each job taken, and a last one with the summary.
--
-- Each request has a token of its own, which is also that of the leases of what it takes. A request that was carried out
-- before, and is sent again (p_again), is answered as then.
--
-- 1. Answer a request that was carried out before.
-- 2. Sweep: what has come to its time meanwhile is ready.
-- 3. Settle the acks: delete the jobs, keep their results, and remember the ends of those without any.
-- 4. Settle the others, one by one.
-- 5. Wake those who wait for either, and forget the requests whose answers the sender has (p_answered).
-- 6. Take jobs from where the consumer has not looked yet, and note their lease.
-- 7. If there was none and the consumer waits, announce that, and find out when the next one comes to its time.
CREATE FUNCTION settle_and_take(
  p_queue int, p_token bigint, p_again boolean, p_answered bigint[],
  p_tokens bigint[], -- of the leases of all that is settled
  p_places bigint[], p_seqs bigint[], p_owners bigint[], p_results bytea[], p_ttls float8[], -- acks; the last two: NULL for none
  p_ends text[], p_other_places bigint[], p_other_seqs bigint[], p_other_owners bigint[], -- the others; see settle_one
  p_delays float8[], p_reasons bytea[], p_errors bytea[],
  p_take int, p_lease_s float8,
  p_from bigint[], -- for each level of priority: nothing before this place is ready
  p_returned bigint, -- queue.returned, as the consumer knows it; if it is another, look from the beginning
  p_sweep float8, -- how many seconds to look back for what has come to its time: NULL for not at all, or infinity
  p_wait boolean, -- whether the consumer waits if there is no job
  p_name text, -- of the queue; after a crash, another one may have its key
  p_last bigint -- the sender's last request that settled or extended anything
) RETURNS SETOF taken
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
DECLARE
  q queue;
  acks constant int := cardinality(p_places);
  settled constant int := cardinality(p_places) + cardinality(p_ends);
  valid bigint[]; -- those of p_tokens whose leases stand
  kept int[]; -- the acks that took effect
  ended_ids text[];
  silent_ids text[]; -- those that ended without a result
  how text;
  lost int[] := '{}';
  cancelled int[] := '{}';
  taken int := 0;
  came int;
  starts bigint[];
  lowest bigint;
  sweep_from timestamptz := '-infinity';
  told summary;
BEGIN
  SELECT * INTO q FROM queue WHERE key = p_queue AND name = p_name;
  IF NOT FOUND THEN RAISE EXCEPTION 'no such queue' USING ERRCODE = 'MJ404'; END IF;

  -- 1. Answer a request that was carried out before.
  IF p_again THEN
    SELECT r.odd, r.cancelled INTO told.lost, told.cancelled FROM request r WHERE r.token = p_token;
    IF FOUND THEN
      told.knew_last := EXISTS (SELECT FROM request WHERE token = p_last);
      RETURN QUERY SELECT j.place, j.seq, j.id, j.body, j.attempt, j.number, j.crashes, NULL::summary
        FROM request r, unnest(r.places, r.seqs) AS h (place, seq), LATERAL (
          SELECT * FROM job WHERE queue = p_queue AND place = h.place AND seq >= h.seq AND seq <= h.seq AND token = p_token
          ORDER BY seq LIMIT 1
        ) j
        WHERE r.token = p_token AND r.ends > clock_timestamp();
      RETURN NEXT ROW(NULL, NULL, NULL, NULL, NULL, NULL, NULL, told)::taken;
      RETURN;
    END IF;
  END IF;
  IF settled = 0 THEN
    -- A lease that a crash of the server takes back is as good as lost, so nobody need wait for the disk.
    PERFORM set_config('synchronous_commit', 'off', true);
  END IF;

  -- 2. Sweep.
  IF p_sweep IS NOT NULL THEN
    IF p_sweep < 'infinity' THEN sweep_from := clock_timestamp() - p_sweep * interval '1 s'; END IF;
    told.is_swept := sweep(q, sweep_from);
    SELECT * INTO q FROM queue WHERE key = p_queue;
  END IF;

  IF settled > 0 THEN
    -- 3. Settle the acks.
    valid := ARRAY(SELECT r.token FROM request r WHERE r.token = ANY (p_tokens) AND r.ends > clock_timestamp());
    IF acks > 0 AND p_results IS NULL THEN
      SELECT array_agg(gone.id), array_agg(gone.n) INTO ended_ids, kept
      FROM delete_held(p_queue, p_places, p_seqs, p_owners, valid) gone;
      silent_ids := ended_ids;
    ELSIF acks > 0 THEN
      WITH gone AS (
        SELECT d.id, d.n, p_results[d.n] AS result, p_ttls[d.n] AS ttl
        FROM delete_held(p_queue, p_places, p_seqs, p_owners, valid) d
      ), stored AS (
        INSERT INTO result (queue, id, expires, body)
        SELECT p_queue, gone.id, clock_timestamp() + gone.ttl * interval '1 s', gone.result
        FROM gone WHERE gone.result IS NOT NULL
        ON CONFLICT (queue, id) DO UPDATE SET expires = excluded.expires, body = excluded.body
      ) SELECT array_agg(gone.id), array_agg(gone.n), array_agg(gone.id) FILTER (WHERE gone.result IS NULL)
        INTO ended_ids, kept, silent_ids FROM gone;
    END IF;
    IF acks > coalesce(cardinality(kept), 0) THEN
      lost := ARRAY(SELECT n FROM generate_series(1, acks) n WHERE n <> ALL (coalesce(kept, '{}')));
    END IF;
    IF silent_ids IS NOT NULL THEN
      PERFORM forget_results(p_queue, silent_ids); -- of an earlier job of the same id
      PERFORM note_ended(p_queue, silent_ids);
    END IF;

    -- 4. Settle the others.
    FOR i IN 1 .. cardinality(p_ends) LOOP
      how := settle_one(
        q, p_ends[i], p_other_places[i], p_other_seqs[i],
        CASE WHEN p_other_owners[i] = ANY (valid) THEN p_other_owners[i] END, p_delays[i], p_reasons[i], p_errors[i]
      );
      IF how = 'lost' THEN lost := lost || acks + i; END IF;
      IF how = 'cancelled' THEN cancelled := cancelled || acks + i; END IF;
    END LOOP;
    IF 'release' = ANY (p_ends) THEN -- and look from the beginning below: they may stand before what was seen
      UPDATE queue SET returned = returned + 1 WHERE key = p_queue RETURNING returned INTO q.returned;
    END IF;

    -- 5. Wake, and forget.
    IF q.receivers_wait_until > clock_timestamp() AND 'dead' <> ANY (p_ends) THEN
      PERFORM wake(p_queue, 'r');
    END IF;
    told.knew_last := p_last = ANY (valid); -- it is the lease of what is settled, most often
    IF NOT told.knew_last THEN
      PERFORM FROM request WHERE token = p_last;
      told.knew_last := FOUND;
    END IF;
    IF told.knew_last THEN DELETE FROM request WHERE token = ANY (p_answered); END IF;
    IF q.callers_wait_until > clock_timestamp() AND (ended_ids IS NOT NULL OR 'dead' = ANY (p_ends)) THEN
      PERFORM wake_callers(p_queue, CASE WHEN 'dead' = ANY (p_ends) THEN NULL ELSE ended_ids END);
    END IF;
  END IF;
  told.lost := nullif(lost, '{}');
  told.cancelled := nullif(cancelled, '{}');

  -- 6. Take jobs: of a stack the last ones; else, level by level, the first ones.
  told.seen_before := CASE WHEN q.kind = 'stack' THEN 0 ELSE pg_snapshot_xmin(pg_current_snapshot())::text::bigint END;
  told.returned := q.returned;
  starts := CASE WHEN q.returned = p_returned THEN p_from ELSE array_fill(0::bigint, ARRAY[10]) END;
  IF p_take > 0 AND q.kind = 'stack' THEN
    RETURN QUERY WITH picked AS MATERIALIZED (
      SELECT j.ctid AS at FROM job j WHERE j.queue = p_queue AND j.place IS NOT NULL AND j.token IS NULL
      ORDER BY j.place DESC, j.seq DESC LIMIT p_take FOR UPDATE SKIP LOCKED
    ), leased AS (
      UPDATE job SET token = p_token, number = job.number + 1 FROM picked WHERE job.ctid = picked.at
      RETURNING job.place, job.seq, job.id, job.body, job.attempt, job.number, job.crashes
    ), noted AS (
      INSERT INTO request (token, queue, ends, places, seqs, odd, cancelled)
      SELECT p_token, p_queue, clock_timestamp() + p_lease_s * interval '1 s',
        array_agg(l.place), array_agg(l.seq), told.lost, told.cancelled
      FROM leased l HAVING count(*) > 0
    ) SELECT l.*, NULL::summary FROM leased l ORDER BY l.place DESC, l.seq DESC;
    GET DIAGNOSTICS taken = ROW_COUNT;
  ELSIF p_take > 0 THEN
    FOR level IN 0 .. CASE WHEN q.kind = 'priority' THEN 9 ELSE 0 END LOOP
      lowest := level::bigint << 56;
      RETURN QUERY WITH picked AS MATERIALIZED (
        SELECT j.ctid AS at FROM job j
        WHERE j.queue = p_queue AND j.token IS NULL
          AND j.place >= lowest + starts[level + 1] AND j.place < lowest + (1::bigint << 56)
        ORDER BY j.place, j.seq LIMIT p_take - taken FOR UPDATE SKIP LOCKED
      ), leased AS (
        UPDATE job SET token = p_token, number = job.number + 1 FROM picked WHERE job.ctid = picked.at
        RETURNING job.place, job.seq, job.id, job.body, job.attempt, job.number, job.crashes
      ), noted AS (
        INSERT INTO request (token, queue, ends, places, seqs, odd, cancelled)
        SELECT p_token, p_queue, clock_timestamp() + p_lease_s * interval '1 s',
          array_agg(l.place), array_agg(l.seq), told.lost, told.cancelled
        FROM leased l WHERE taken = 0 HAVING count(*) > 0
      ), noted_more AS (
        UPDATE request r SET places = r.places || more.places, seqs = r.seqs || more.seqs
        FROM (SELECT array_agg(l.place) AS places, array_agg(l.seq) AS seqs FROM leased l) more
        WHERE taken > 0 AND r.token = p_token AND more.places IS NOT NULL
      ) SELECT l.*, NULL::summary FROM leased l ORDER BY l.place, l.seq;
      GET DIAGNOSTICS came = ROW_COUNT;
      taken := taken + came;
      EXIT WHEN taken >= p_take;
    END LOOP;
  END IF;
  IF settled > 0 AND taken = 0 THEN -- remember what was settled all the same
    INSERT INTO request (token, queue, ends, odd, cancelled)
    VALUES (p_token, p_queue, clock_timestamp() + interval '1 h', told.lost, told.cancelled);
  END IF;

  -- 7. Announce that the consumer waits.
  IF taken = 0 AND p_wait THEN
    SELECT ceil(1000 * extract(epoch FROM least(
        (SELECT due FROM job WHERE queue = p_queue AND due > sweep_from ORDER BY due LIMIT 1),
        (SELECT ends FROM request WHERE queue = p_queue AND ends > sweep_from ORDER BY ends LIMIT 1),
        clock_timestamp() + interval '1 h'
      ) - clock_timestamp()))::int INTO told.next_event_ms;
    IF q.receivers_wait_until < clock_timestamp() + interval '5 s' THEN
      UPDATE queue SET receivers_wait_until = clock_timestamp() + interval '10 s'
      WHERE key = p_queue AND receivers_wait_until < clock_timestamp() + interval '5 s';
      told.has_announced := true;
    END IF;
  END IF;
  RETURN NEXT ROW(NULL, NULL, NULL, NULL, NULL, NULL, NULL, told)::taken;
END
$$;
