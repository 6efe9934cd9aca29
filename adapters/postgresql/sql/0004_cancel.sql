-- Version 4. Cancelling jobs.
--
-- That a job was cancelled stands in its row of `result`, whose body is then one zero byte, which no output is.

-- The jobs in flight that are asked to be cancelled. A row of a job that was acked stays until the next one is asked; no
-- other job has its seq.
CREATE TABLE asked (
  queue int NOT NULL,
  seq bigint NOT NULL,
  id text COLLATE "C" NOT NULL,
  ttl float8 NOT NULL, -- for how many seconds to remember that it was cancelled
  PRIMARY KEY (queue, seq)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

-- Remember that jobs were cancelled, and wake those who wait for them.
CREATE FUNCTION keep_cancelled(q queue, p_ids text[], p_ttls float8[]) RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
  PERFORM forget_ends(q.key, p_ids);
  INSERT INTO result (queue, id, expires, body)
  SELECT q.key, c.id, clock_timestamp() + c.ttl * interval '1 s', '\x00' FROM unnest(p_ids, p_ttls) AS c (id, ttl)
  ON CONFLICT (queue, id) DO UPDATE SET expires = excluded.expires, body = excluded.body;
  IF q.callers_wait_until > clock_timestamp() THEN
    PERFORM wake(q.key, CASE
      WHEN length(array_to_string(p_ids, ',')) < 7000 THEN 'e' || array_to_string(p_ids, ',') ELSE 'e*' END);
  END IF;
END
$$;

-- End those of some jobs that are asked to be cancelled, and that are no longer in flight.
CREATE FUNCTION end_asked(q queue, p_places bigint[], p_seqs bigint[]) RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
DECLARE
  ids text[];
  seqs bigint[];
  ttls float8[];
BEGIN
  WITH gone AS (
    DELETE FROM job USING unnest(p_places, p_seqs) AS h (place, seq), asked a
    WHERE job.queue = q.key AND job.place = h.place AND job.seq = h.seq AND job.token IS NULL
      AND a.queue = q.key AND a.seq = h.seq
    RETURNING job.id, job.seq, a.ttl
  ) SELECT array_agg(gone.id), array_agg(gone.seq), array_agg(gone.ttl) INTO ids, seqs, ttls FROM gone;
  IF ids IS NULL THEN RETURN; END IF;
  DELETE FROM asked WHERE queue = q.key AND seq = ANY (seqs);
  PERFORM keep_cancelled(q, ids, ttls);
END
$$;

-- Cancel jobs; return a letter for each: c, it waited and is gone, or was cancelled before; r, it is in flight and was
-- asked to end; t, it has ended; u, it isn't known; b, its row is locked, ask again. It waits for no job's row, as a
-- settlement may wait for another one that this has locked.
CREATE FUNCTION cancel_jobs(p_queue text, p_ids text[], p_ttl float8) RETURNS text LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
DECLARE
  q queue;
  found_seq bigint;
  found_token bigint;
  found_death bigint;
  kept result;
  letter text;
  letters text := '';
  gone text[] := '{}';
  each_id text;
BEGIN
  SELECT * INTO q FROM queue WHERE name = p_queue;
  IF NOT FOUND THEN RAISE EXCEPTION 'no such queue' USING ERRCODE = 'MJ404'; END IF;
  FOREACH each_id IN ARRAY p_ids LOOP
    SELECT seq, token, death INTO found_seq, found_token, found_death
    FROM job WHERE queue = q.key AND id = each_id FOR UPDATE SKIP LOCKED;
    IF NOT FOUND AND EXISTS (SELECT FROM job WHERE queue = q.key AND id = each_id) THEN
      letter := 'b';
    ELSIF NOT FOUND THEN
      -- Read only now: whoever ended the job before the look for its row has stored its result.
      SELECT * INTO kept FROM result WHERE queue = q.key AND id = each_id;
      letter := CASE
        WHEN kept.expires <= clock_timestamp() THEN 'u'
        WHEN kept.body = '\x00' THEN 'c'
        WHEN kept.id IS NOT NULL OR EXISTS (
          SELECT FROM ended WHERE queue = q.key AND number >= first_ended(q.key) AND ids @> ARRAY[each_id]
        ) THEN 't' ELSE 'u' END;
    ELSIF found_death IS NOT NULL THEN
      letter := 't';
    ELSIF EXISTS (SELECT FROM request WHERE token = found_token AND ends > clock_timestamp()) THEN
      letter := 'r';
      INSERT INTO asked (queue, seq, id, ttl) VALUES (q.key, found_seq, each_id, p_ttl) ON CONFLICT DO NOTHING;
    ELSE
      letter := 'c';
      DELETE FROM job WHERE queue = q.key AND id = each_id;
      DELETE FROM asked WHERE queue = q.key AND seq = found_seq;
      gone := gone || each_id;
    END IF;
    letters := letters || letter;
  END LOOP;
  IF gone <> '{}' THEN PERFORM keep_cancelled(q, gone, array_fill(p_ttl, ARRAY[cardinality(gone)])); END IF;
  IF strpos(letters, 'r') > 0 THEN
    DELETE FROM asked WHERE ctid = ANY (ARRAY(
      SELECT a.ctid FROM asked a WHERE a.queue = q.key AND NOT EXISTS (
        SELECT FROM job j WHERE j.queue = q.key AND j.id = a.id AND j.seq = a.seq
      ) LIMIT 1000 FOR UPDATE SKIP LOCKED
    ));
  END IF;
  RETURN letters;
END
$$;

-- Settle one delivery other than by an ack, as before; and c: the job is cancelled, to be remembered for p_delay seconds.
-- Return 0 if its lease was lost, 1 if it is settled, and 2 if it ended as cancelled instead, as that was asked.
CREATE FUNCTION settle_one(
  q queue, op text, p_place bigint, p_seq bigint, p_owner bigint, p_delay float8, p_reason bytea, p_error bytea
) RETURNS int LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
  settled text;
  asked_ttl float8;
BEGIN
  IF op = 'l' THEN
    UPDATE job SET token = NULL, progress = NULL
    WHERE queue = q.key AND place = p_place AND seq = p_seq AND token = p_owner RETURNING id INTO settled;
  ELSIF op = 'w' THEN
    UPDATE job SET token = NULL, progress = NULL, place = NULL, seq = nextval('block') << 16,
      due = clock_timestamp() + p_delay * interval '1 s'
    WHERE queue = q.key AND place = p_place AND seq = p_seq AND token = p_owner RETURNING id INTO settled;
  ELSIF op = 'c' THEN
    DELETE FROM job WHERE queue = q.key AND place = p_place AND seq = p_seq AND token = p_owner RETURNING id INTO settled;
  ELSIF op = 'd' THEN
    UPDATE job SET token = NULL, progress = NULL, place = NULL, death = nextval('death'), died = clock_timestamp(),
      reason = p_reason, error = p_error
    WHERE queue = q.key AND place = p_place AND seq = p_seq AND token = p_owner RETURNING id INTO settled;
  ELSE
    UPDATE job SET token = NULL, progress = NULL, attempt = least(attempt, 2147483646) + 1,
      failed = (failed || attempt)[greatest(1, coalesce(cardinality(failed), 0) - 8):],
      failures = (failures || p_error)[greatest(1, coalesce(cardinality(failures), 0) - 8):],
      place = CASE WHEN p_delay <= 0 THEN place_now(q.kind, priority) END,
      seq = nextval('block') << 16,
      due = CASE WHEN p_delay > 0 THEN clock_timestamp() + p_delay * interval '1 s' END
    WHERE queue = q.key AND place = p_place AND seq = p_seq AND token = p_owner RETURNING id INTO settled;
  END IF;
  IF settled IS NULL THEN RETURN 0; END IF;
  -- Afterwards: this may have waited for the row, until who held it had asked.
  DELETE FROM asked WHERE queue = q.key AND seq = p_seq RETURNING ttl INTO asked_ttl;
  IF op = 'c' THEN
    PERFORM keep_cancelled(q, ARRAY[settled], ARRAY[p_delay]);
  ELSIF asked_ttl IS NOT NULL THEN
    DELETE FROM job WHERE queue = q.key AND id = settled;
    PERFORM keep_cancelled(q, ARRAY[settled], ARRAY[asked_ttl]);
    RETURN 2;
  END IF;
  RETURN 1;
END
$$;

-- As before, but that a delivery whose job ended as cancelled, as was asked, is named among the lost ones, by its number
-- below 0. Releases before this one pass over that.
CREATE OR REPLACE FUNCTION settle_and_take(
  p_queue int, p_token bigint, p_again boolean, p_answered bigint[],
  p_tokens bigint[], -- of the leases of all that is settled
  p_places bigint[], p_seqs bigint[], p_owners bigint[], p_results bytea[], p_ttls float8[], -- acks
  p_ops text, p_other_places bigint[], p_other_seqs bigint[], p_other_owners bigint[], -- the others: r, d or l
  p_delays float8[], p_reasons bytea[], p_errors bytea[],
  p_take int, p_lease_s float8, p_from bigint[], p_returned bigint,
  p_sweep float8, -- how many seconds to look back for what has come to its time: NULL for not at all, or infinity
  p_wait boolean
) RETURNS TABLE (
  place bigint, seq bigint, id text, body bytea, attempt int, number int, crashes int
) LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
  q queue;
  acks constant int := cardinality(p_places);
  settled constant int := cardinality(p_places) + length(p_ops);
  valid bigint[];
  lost int[] := '{}';
  end_of int;
  kept int[];
  ended_ids text[];
  silent_ids text[];
  taken int := 0;
  seen_from bigint[];
  lowest bigint;
  came int;
  seen_before bigint;
  announced int := 0;
  next_ms int;
  sweep_from timestamptz := '-infinity';
  is_swept boolean := false;
BEGIN
  SELECT * INTO q FROM queue WHERE key = p_queue AND name IS NOT NULL;
  IF NOT FOUND THEN RAISE EXCEPTION 'no such queue' USING ERRCODE = 'MJ404'; END IF;
  IF p_again THEN
    SELECT r.odd INTO lost FROM request r WHERE r.token = p_token;
    IF FOUND THEN
      RETURN QUERY SELECT j.place, j.seq, j.id, j.body, j.attempt, j.number, j.crashes
        FROM request r, unnest(r.places, r.seqs) AS h (place, seq), job j
        WHERE r.token = p_token AND r.ends > clock_timestamp()
          AND j.queue = p_queue AND j.place = h.place AND j.seq = h.seq AND j.token = p_token;
      RETURN QUERY SELECT 0::bigint, -1::bigint, array_to_string(lost, ','), NULL::bytea, 0, 0, 0;
      RETURN;
    END IF;
    lost := '{}';
  END IF;
  IF settled = 0 THEN
    -- A lease that a crash of the server takes back is as good as lost, so nobody need wait for the disk.
    PERFORM set_config('synchronous_commit', 'off', true);
  END IF;
  IF p_sweep IS NOT NULL THEN
    IF p_sweep < 'infinity' THEN sweep_from := clock_timestamp() - p_sweep * interval '1 s'; END IF;
    is_swept := sweep(q, sweep_from);
    SELECT * INTO q FROM queue WHERE key = p_queue;
  END IF;

  IF settled > 0 THEN
    valid := ARRAY(SELECT r.token FROM request r WHERE r.token = ANY (p_tokens) AND r.ends > clock_timestamp());
    IF acks > 0 AND p_results IS NULL THEN
      WITH gone AS (
        DELETE FROM job USING unnest(p_places, p_seqs, p_owners) WITH ORDINALITY AS h (place, seq, token, n)
        WHERE job.queue = p_queue AND job.place = h.place AND job.seq = h.seq AND job.token = h.token
          AND h.token = ANY (valid)
        RETURNING job.id, h.n
      ) SELECT array_agg(gone.id), array_agg(gone.n) INTO ended_ids, kept FROM gone;
      silent_ids := ended_ids;
    ELSIF acks > 0 THEN
      WITH gone AS (
        DELETE FROM job USING unnest(p_places, p_seqs, p_owners, p_results, p_ttls)
          WITH ORDINALITY AS h (place, seq, token, result, ttl, n)
        WHERE job.queue = p_queue AND job.place = h.place AND job.seq = h.seq AND job.token = h.token
          AND h.token = ANY (valid)
        RETURNING job.id, h.n, h.result, h.ttl
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
      DELETE FROM result WHERE queue = p_queue AND id = ANY (silent_ids); -- of an earlier job of the same id
      PERFORM note_ended(p_queue, silent_ids);
    END IF;
    FOR i IN 1 .. length(p_ops) LOOP
      end_of := settle_one(
        q, substr(p_ops, i, 1), p_other_places[i], p_other_seqs[i],
        CASE WHEN p_other_owners[i] = ANY (valid) THEN p_other_owners[i] END, p_delays[i], p_reasons[i], p_errors[i]
      );
      IF end_of <> 1 THEN lost := lost || CASE end_of WHEN 0 THEN acks + i ELSE -(acks + i) END; END IF;
    END LOOP;
    IF strpos(p_ops, 'l') > 0 THEN -- and look from the beginning below: they may stand before what was seen
      UPDATE queue SET returned = returned + 1 WHERE key = p_queue RETURNING returned INTO q.returned;
    END IF;
    IF q.receivers_wait_until > clock_timestamp() AND translate(p_ops, 'd', '') <> '' THEN
      PERFORM wake(p_queue, 'r');
    END IF;
    DELETE FROM request WHERE token = ANY (p_answered);
    IF q.callers_wait_until > clock_timestamp() AND (ended_ids IS NOT NULL OR strpos(p_ops, 'd') > 0) THEN
      PERFORM wake(p_queue, CASE
        WHEN strpos(p_ops, 'd') = 0 AND length(array_to_string(ended_ids, ',')) < 7000
        THEN 'e' || array_to_string(ended_ids, ',') ELSE 'e*' END);
    END IF;
  END IF;

  seen_before := pg_snapshot_xmin(pg_current_snapshot())::text::bigint;
  seen_from := CASE WHEN q.returned = p_returned THEN p_from ELSE array_fill(0::bigint, ARRAY[10]) END;
  IF p_take > 0 AND q.kind = 'stack' THEN
    RETURN QUERY WITH picked AS MATERIALIZED (
      SELECT j.ctid AS at FROM job j WHERE j.queue = p_queue AND j.place IS NOT NULL AND j.token IS NULL
      ORDER BY j.place DESC, j.seq DESC LIMIT p_take FOR UPDATE SKIP LOCKED
    ), leased AS (
      UPDATE job SET token = p_token, number = job.number + 1 FROM picked WHERE job.ctid = picked.at
      RETURNING job.place, job.seq, job.id, job.body, job.attempt, job.number, job.crashes
    ), noted AS (
      INSERT INTO request (token, queue, ends, places, seqs, odd)
      SELECT p_token, p_queue, clock_timestamp() + p_lease_s * interval '1 s',
        array_agg(l.place), array_agg(l.seq), nullif(lost, '{}')
      FROM leased l HAVING count(*) > 0
    ) SELECT * FROM leased l ORDER BY l.place DESC, l.seq DESC;
    GET DIAGNOSTICS taken = ROW_COUNT;
  ELSIF p_take > 0 THEN
    FOR level IN 0 .. CASE WHEN q.kind = 'priority' THEN 9 ELSE 0 END LOOP
      lowest := level::bigint << 56;
      RETURN QUERY WITH picked AS MATERIALIZED (
        SELECT j.ctid AS at FROM job j
        WHERE j.queue = p_queue AND j.token IS NULL
          AND j.place >= lowest + seen_from[level + 1] AND j.place < lowest + (1::bigint << 56)
        ORDER BY j.place, j.seq LIMIT p_take - taken FOR UPDATE SKIP LOCKED
      ), leased AS (
        UPDATE job SET token = p_token, number = job.number + 1 FROM picked WHERE job.ctid = picked.at
        RETURNING job.place, job.seq, job.id, job.body, job.attempt, job.number, job.crashes
      ), noted AS (
        INSERT INTO request (token, queue, ends, places, seqs, odd)
        SELECT p_token, p_queue, clock_timestamp() + p_lease_s * interval '1 s',
          array_agg(l.place), array_agg(l.seq), nullif(lost, '{}')
        FROM leased l WHERE taken = 0 HAVING count(*) > 0
      ), noted_more AS (
        UPDATE request r SET places = r.places || more.places, seqs = r.seqs || more.seqs
        FROM (SELECT array_agg(l.place) AS places, array_agg(l.seq) AS seqs FROM leased l) more
        WHERE taken > 0 AND r.token = p_token AND more.places IS NOT NULL
      ) SELECT * FROM leased l ORDER BY l.place, l.seq;
      GET DIAGNOSTICS came = ROW_COUNT;
      taken := taken + came;
      EXIT WHEN taken >= p_take;
    END LOOP;
  END IF;
  IF settled > 0 AND taken = 0 THEN
    INSERT INTO request (token, queue, ends, odd)
    VALUES (p_token, p_queue, clock_timestamp() + interval '1 h', nullif(lost, '{}'));
  END IF;
  IF taken = 0 AND p_wait THEN
    SELECT ceil(1000 * extract(epoch FROM least(
        (SELECT min(due) FROM job WHERE queue = p_queue AND due > sweep_from),
        (SELECT min(ends) FROM request WHERE queue = p_queue AND ends > sweep_from),
        clock_timestamp() + interval '1 h'
      ) - clock_timestamp()))::int INTO next_ms;
    IF q.receivers_wait_until < clock_timestamp() + interval '5 s' THEN
      UPDATE queue SET receivers_wait_until = clock_timestamp() + interval '10 s'
      WHERE key = p_queue AND receivers_wait_until < clock_timestamp() + interval '5 s';
      announced := 1;
    END IF;
  END IF;
  RETURN QUERY SELECT CASE WHEN q.kind = 'stack' THEN 0 ELSE seen_before END, q.returned, array_to_string(lost, ','),
    NULL::bytea, announced, next_ms, is_swept::int;
END
$$;

-- As before, but that an extended lease whose job is asked to be cancelled is named among the lost ones, by its number
-- below 0. Releases before this one pass over that.
CREATE OR REPLACE FUNCTION extend(
  p_queue int, p_token bigint, p_again boolean, p_answered bigint[], p_tokens bigint[],
  p_places bigint[], p_seqs bigint[], p_owners bigint[], p_lease_s float8
) RETURNS int[] LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
DECLARE
  valid bigint[];
  kept int[];
  lost int[];
BEGIN
  PERFORM FROM queue WHERE key = p_queue AND name IS NOT NULL;
  IF NOT FOUND THEN RAISE EXCEPTION 'no such queue' USING ERRCODE = 'MJ404'; END IF;
  IF p_again THEN
    SELECT r.odd INTO lost FROM request r WHERE r.token = p_token;
    IF FOUND THEN RETURN lost; END IF;
  END IF;
  PERFORM set_config('synchronous_commit', 'off', true); -- as with a lease
  valid := ARRAY(SELECT r.token FROM request r WHERE r.token = ANY (p_tokens) AND r.ends > clock_timestamp());
  WITH moved AS (
    UPDATE job SET token = p_token
    FROM unnest(p_places, p_seqs, p_owners) WITH ORDINALITY AS h (place, seq, token, n)
    WHERE job.queue = p_queue AND job.place = h.place AND job.seq = h.seq AND job.token = h.token
      AND h.token = ANY (valid)
    RETURNING h.n
  ) SELECT array_agg(n) INTO kept FROM moved;
  IF cardinality(p_places) > coalesce(cardinality(kept), 0) THEN
    lost := ARRAY(SELECT n FROM generate_series(1, cardinality(p_places)) n WHERE n <> ALL (coalesce(kept, '{}')));
  END IF;
  IF EXISTS (SELECT FROM asked WHERE queue = p_queue) THEN
    lost := nullif(coalesce(lost, '{}') || ARRAY(
      SELECT -n FROM unnest(p_seqs) WITH ORDINALITY AS h (seq, n), asked a
      WHERE a.queue = p_queue AND a.seq = h.seq AND n = ANY (kept)
    )::int[], '{}');
  END IF;
  DELETE FROM request WHERE token = ANY (p_answered);
  INSERT INTO request (token, queue, ends, places, seqs, odd)
  VALUES (p_token, p_queue, clock_timestamp() + p_lease_s * interval '1 s', p_places, p_seqs, lost);
  RETURN lost;
END
$$;

-- As before, but that jobs which are asked to be cancelled end.
CREATE OR REPLACE FUNCTION sweep(q queue, p_from timestamptz) RETURNS boolean LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
DECLARE
  now timestamptz := clock_timestamp();
  before bigint;
  r request;
  has_moved boolean := false;
  readied int := 0;
  ended int := 0;
  dropped int;
BEGIN
  IF EXISTS (SELECT FROM job WHERE queue = q.key AND due > p_from AND due <= now) THEN
    before := nextval('block') << 16;
    UPDATE job SET place = place_now(q.kind, priority), seq = before + d.n, due = NULL
    FROM (
      SELECT first.at, row_number() OVER () AS n FROM (
        SELECT ctid AS at FROM job WHERE queue = q.key AND due > p_from AND due <= now
        ORDER BY due, seq LIMIT 500 FOR UPDATE SKIP LOCKED
      ) first
    ) d WHERE job.ctid = d.at;
    GET DIAGNOSTICS readied = ROW_COUNT;
    has_moved := true;
  END IF;
  FOR r IN
    SELECT * FROM request WHERE queue = q.key AND ends > p_from AND ends <= now
    ORDER BY ends LIMIT 100 FOR UPDATE SKIP LOCKED
  LOOP
    ended := ended + 1;
    IF r.places = '{}' THEN
      DELETE FROM request WHERE token = r.token;
      CONTINUE;
    END IF;
    UPDATE job SET token = NULL, progress = NULL, crashes = crashes + 1
    FROM unnest(r.places, r.seqs) AS h (place, seq)
    WHERE job.queue = q.key AND job.place = h.place AND job.seq = h.seq AND job.token = r.token;
    IF FOUND THEN
      UPDATE queue SET returned = returned + 1 WHERE key = q.key;
      has_moved := true;
    END IF;
    -- Afterwards: what a cancel that held a job's row has asked is seen only now.
    IF EXISTS (SELECT FROM asked WHERE queue = q.key) THEN PERFORM end_asked(q, r.places, r.seqs); END IF;
    -- What it answered is kept for its sender, who may not have got the answer.
    UPDATE request SET ends = now + interval '1 h', places = '{}', seqs = '{}' WHERE token = r.token;
  END LOOP;
  IF has_moved AND q.receivers_wait_until > now THEN PERFORM wake(q.key, 'r'); END IF;
  DELETE FROM result WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM result WHERE queue = q.key AND expires > p_from AND expires <= now LIMIT 500 FOR UPDATE SKIP LOCKED
  ));
  GET DIAGNOSTICS dropped = ROW_COUNT;
  RETURN readied < 500 AND ended < 100 AND dropped < 500;
END
$$;

-- As before, and the new table.
CREATE OR REPLACE FUNCTION drop_deleted(p_most int) RETURNS int LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
DECLARE
  q queue;
  dropped int := 0;
  more int;
BEGIN
  FOR q IN SELECT * FROM queue WHERE name IS NULL ORDER BY key LOOP
    DELETE FROM job WHERE ctid = ANY (ARRAY(SELECT ctid FROM job WHERE queue = q.key LIMIT p_most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS more = ROW_COUNT;
    dropped := dropped + more;
    DELETE FROM result WHERE ctid = ANY (ARRAY(SELECT ctid FROM result WHERE queue = q.key LIMIT p_most FOR UPDATE SKIP LOCKED));
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

INSERT INTO version VALUES (4, 1);
