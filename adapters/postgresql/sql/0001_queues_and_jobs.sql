-- Version 1. Runs with the schema as the only one in search_path, in one transaction. What is released isn't edited: a
-- change is one more file, with the next number.
--
-- A live job is one row of `job`, whatever its state:
--   ready    place
--   leased   place, token
--   delayed  due
--   dead     death
-- Leasing a job sets no indexed column, so that it is a HOT update, and the page cleans up after itself.
--
-- `place` is the id of the transaction that made the job ready, behind the level of its priority. All transactions
-- before `pg_snapshot_xmin` have ended, so a consumer that has seen all places up to there needn't look at them again:
-- dead rows, which a held snapshot keeps there, cost it nothing.

CREATE TABLE version (
  number int NOT NULL,
  oldest_release int NOT NULL -- the lowest version that a release must know to work on these tables
);

CREATE TABLE queue (
  key int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- never used again, so that nothing of a deleted queue is its successor's
  name text COLLATE "C" UNIQUE, -- NULL once it is deleted
  kind text NOT NULL,
  returned bigint NOT NULL DEFAULT 0, -- how often jobs went back to their old places
  receivers_wait_until timestamptz NOT NULL DEFAULT '-infinity', -- by then at the latest they say so again
  callers_wait_until timestamptz NOT NULL DEFAULT '-infinity', -- those who wait for results
  deleted timestamptz
) WITH (fillfactor = 50);

-- Fixed widths first: what leasing changes is at the beginning of the row, so its WAL record is short.
CREATE TABLE job (
  queue int NOT NULL,
  number int NOT NULL DEFAULT 0,
  token bigint,
  place bigint,
  seq bigint NOT NULL,
  due timestamptz,
  death bigint,
  died timestamptz,
  attempt int NOT NULL DEFAULT 1,
  crashes int NOT NULL DEFAULT 0,
  priority smallint NOT NULL DEFAULT 0,
  id text COLLATE "C" NOT NULL,
  progress text,
  reason bytea,
  error bytea,
  failed int[],
  failures bytea[],
  body bytea NOT NULL
) WITH (
  fillfactor = 50, -- room for the leased versions of a whole page of jobs
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
  autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 50000,
  autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000,
  autovacuum_vacuum_cost_delay = 0, toast.autovacuum_vacuum_scale_factor = 0,
  toast.autovacuum_vacuum_threshold = 5000, toast.autovacuum_vacuum_cost_delay = 0
);
CREATE UNIQUE INDEX job_id ON job (queue, id);
CREATE INDEX job_place ON job (queue, place, seq) WHERE place IS NOT NULL;
CREATE INDEX job_due ON job (queue, due) WHERE due IS NOT NULL;
CREATE INDEX job_death ON job (queue, death) WHERE death IS NOT NULL;

-- Every request that changed something, until its sender has the answer; and the leases of what it took. A token is
-- random: no two requests share one, also after a failover, and no place in the index is the busy one.
CREATE TABLE request (
  token bigint PRIMARY KEY,
  queue int NOT NULL,
  ends timestamptz NOT NULL, -- when the leases end; without any, when nobody will ask any more
  places bigint[] NOT NULL DEFAULT '{}',
  seqs bigint[] NOT NULL DEFAULT '{}',
  odd int[] -- which of the request's items, counted from 1, were duplicates, or whose lease was lost
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX request_ends ON request (queue, ends);

CREATE TABLE result (
  queue int NOT NULL,
  id text COLLATE "C" NOT NULL,
  expires timestamptz NOT NULL,
  body bytea NOT NULL,
  PRIMARY KEY (queue, id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX result_expires ON result (queue, expires);

-- The last jobs of a queue that ended without a result: a row for each request that settled some.
CREATE TABLE ended (
  queue int NOT NULL,
  number bigint NOT NULL,
  ids text[] COLLATE "C" NOT NULL,
  first bigint, -- of some rows: all rows of the queue before this number had been deleted by then
  PRIMARY KEY (queue, number)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

CREATE SEQUENCE block; -- a job's seq is one of these, and its number in the request behind it
CREATE SEQUENCE death;
CREATE SEQUENCE ending;

-- Where a job stands that becomes ready now.
CREATE FUNCTION place_now(kind text, priority int) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT (CASE WHEN kind = 'priority' THEN (9 - priority)::bigint << 56 ELSE 0 END) + pg_current_xact_id()::text::bigint
$$;

CREATE FUNCTION wake(queue int, what text) RETURNS void LANGUAGE sql VOLATILE SET search_path FROM CURRENT AS $$
  SELECT pg_notify(current_schema(), queue || what)
$$;

-- Publish messages; return which of them, counted from 1, were duplicates.
CREATE FUNCTION publish(
  p_queue text, p_token bigint, p_again boolean, p_answered bigint[],
  p_ids text[], p_bodies bytea[], p_priorities int[], p_delays float8[]
) RETURNS int[] LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
DECLARE
  q queue;
  before bigint;
  arrived int;
  duplicates int[];
BEGIN
  IF p_again THEN
    SELECT r.odd INTO duplicates FROM request r WHERE r.token = p_token;
    IF FOUND THEN RETURN duplicates; END IF;
  END IF;
  SELECT * INTO q FROM queue WHERE name = p_queue;
  IF NOT FOUND THEN RAISE EXCEPTION 'no such queue' USING ERRCODE = 'MJ404'; END IF;
  before := nextval('block') << 16;
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
  GET DIAGNOSTICS arrived = ROW_COUNT;
  IF arrived < cardinality(p_ids) THEN
    duplicates := ARRAY(
      SELECT m.n FROM unnest(p_ids) WITH ORDINALITY AS m (id, n)
      WHERE NOT EXISTS (SELECT FROM job WHERE queue = q.key AND id = m.id AND seq = before + m.n)
    );
  END IF;
  DELETE FROM request WHERE token = ANY (p_answered);
  INSERT INTO request (token, queue, ends, odd) VALUES (p_token, q.key, clock_timestamp() + interval '1 h', duplicates);
  IF arrived > 0 AND q.receivers_wait_until > clock_timestamp() THEN PERFORM wake(q.key, 'r'); END IF;
  RETURN duplicates;
END
$$;

-- Make ready what is due, and take back what was leased too long; drop what is remembered long enough. Looks at what
-- came to its time after p_from, so as not to read again what was swept before: a held snapshot keeps those rows. Answers
-- whether that was all.
CREATE FUNCTION sweep(q queue, p_from timestamptz) RETURNS boolean LANGUAGE plpgsql VOLATILE
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

-- The number of a queue before which all that is remembered of its ended jobs was deleted: it is read in the last rows.
CREATE FUNCTION first_ended(p_queue int) RETURNS bigint LANGUAGE sql STABLE
SET search_path FROM CURRENT SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
  SELECT coalesce(
    (SELECT first FROM ended WHERE queue = p_queue AND first IS NOT NULL ORDER BY number DESC LIMIT 1), 0
  )
$$;

-- Remember that jobs ended, of no more than about the last 10,000 jobs of a queue.
CREATE FUNCTION note_ended(p_queue int, p_ids text[]) RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
DECLARE
  next bigint := nextval('ending');
  since bigint;
  until bigint;
BEGIN
  IF next % 64 = 0 THEN
    since := first_ended(p_queue);
    SELECT coalesce(max(s.number), since) INTO until FROM (
      SELECT number, sum(cardinality(ids)) OVER (ORDER BY number DESC) AS upto
      FROM ended WHERE queue = p_queue AND number >= since
    ) s WHERE s.upto > 10000;
    DELETE FROM ended WHERE queue = p_queue AND number >= since AND number < until;
  END IF;
  INSERT INTO ended (queue, number, ids, first) VALUES (p_queue, next, p_ids, until);
END
$$;

-- Settle deliveries and take further jobs. Returns a row for each job taken, and a last one of another meaning:
-- place: all transactions before this one were seen, so that nothing more can become ready there; seq: queue.returned;
-- id: the settlements whose leases were lost, counted from 1, with commas; number: milliseconds until something is due or
-- a lease ends; attempt: 1 if it was announced just now that somebody waits; crashes: 1 if all was swept.
CREATE FUNCTION settle_and_take(
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
      IF NOT settle_other(
        q, substr(p_ops, i, 1), p_other_places[i], p_other_seqs[i],
        CASE WHEN p_other_owners[i] = ANY (valid) THEN p_other_owners[i] END, p_delays[i], p_reasons[i], p_errors[i]
      ) THEN lost := lost || (acks + i); END IF;
    END LOOP;
    IF strpos(p_ops, 'l') > 0 THEN UPDATE queue SET returned = returned + 1 WHERE key = p_queue; END IF;
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

-- Settle one delivery other than by an ack; answer whether its lease was still there.
CREATE FUNCTION settle_other(
  q queue, op text, p_place bigint, p_seq bigint, p_owner bigint, p_delay float8, p_reason bytea, p_error bytea
) RETURNS boolean LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
  IF op = 'l' THEN
    UPDATE job SET token = NULL, progress = NULL
    WHERE queue = q.key AND place = p_place AND seq = p_seq AND token = p_owner;
  ELSIF op = 'd' THEN
    UPDATE job SET token = NULL, progress = NULL, place = NULL, death = nextval('death'), died = clock_timestamp(),
      reason = p_reason, error = p_error
    WHERE queue = q.key AND place = p_place AND seq = p_seq AND token = p_owner;
  ELSE
    UPDATE job SET token = NULL, progress = NULL, attempt = least(attempt, 2147483646) + 1,
      failed = (failed || attempt)[greatest(1, coalesce(cardinality(failed), 0) - 8):],
      failures = (failures || p_error)[greatest(1, coalesce(cardinality(failures), 0) - 8):],
      place = CASE WHEN p_delay <= 0 THEN place_now(q.kind, priority) END,
      seq = nextval('block') << 16,
      due = CASE WHEN p_delay > 0 THEN clock_timestamp() + p_delay * interval '1 s' END
    WHERE queue = q.key AND place = p_place AND seq = p_seq AND token = p_owner;
  END IF;
  RETURN FOUND;
END
$$;

-- Move leases under a new token, which ends later; return which of them, counted from 1, were lost.
CREATE FUNCTION extend(
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
  DELETE FROM request WHERE token = ANY (p_answered);
  INSERT INTO request (token, queue, ends, places, seqs, odd)
  VALUES (p_token, p_queue, clock_timestamp() + p_lease_s * interval '1 s', p_places, p_seqs, lost);
  RETURN lost;
END
$$;

-- Forget how these jobs ended in an earlier life.
CREATE FUNCTION forget_ends(p_queue int, p_ids text[]) RETURNS void LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
  DELETE FROM result WHERE queue = p_queue AND id = ANY (p_ids);
  UPDATE ended SET ids = ARRAY(SELECT i FROM unnest(ids) i WHERE i <> ALL (p_ids))
  WHERE queue = p_queue AND ids && p_ids;
END
$$;

-- Drop some of the jobs that wait, and say how many; called until none is left.
CREATE FUNCTION purge(p_queue text, p_most int) RETURNS int LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
DECLARE
  q queue;
  dropped text[];
BEGIN
  SELECT * INTO q FROM queue WHERE name = p_queue;
  IF NOT FOUND THEN RAISE EXCEPTION 'no such queue' USING ERRCODE = 'MJ404'; END IF;
  PERFORM sweep(q, '-infinity'); -- what was leased too long waits, too
  WITH gone AS (
    DELETE FROM job WHERE ctid = ANY (ARRAY(
      SELECT ctid FROM job WHERE queue = q.key AND place IS NOT NULL AND token IS NULL
      LIMIT p_most FOR UPDATE SKIP LOCKED
    )) RETURNING id
  ) SELECT array_agg(id) INTO dropped FROM gone;
  IF dropped IS NULL THEN
    WITH gone AS (
      DELETE FROM job WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM job WHERE queue = q.key AND due IS NOT NULL LIMIT p_most FOR UPDATE SKIP LOCKED
      )) RETURNING id
    ) SELECT array_agg(id) INTO dropped FROM gone;
  END IF;
  PERFORM forget_ends(q.key, dropped);
  RETURN coalesce(cardinality(dropped), 0);
END
$$;

-- Redrive or discard dead jobs: those of p_ids, or if that is NULL some up to a death. Say how many there were.
CREATE FUNCTION redrive_or_discard(p_queue text, p_ids text[], p_upto bigint, p_most int, p_redrive boolean)
RETURNS int LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
DECLARE
  q queue;
  found_ids text[];
  before bigint;
BEGIN
  SELECT * INTO q FROM queue WHERE name = p_queue;
  IF NOT FOUND THEN RAISE EXCEPTION 'no such queue' USING ERRCODE = 'MJ404'; END IF;
  IF p_ids IS NULL THEN
    found_ids := ARRAY(
      SELECT id FROM job WHERE queue = q.key AND death <= p_upto ORDER BY death LIMIT p_most FOR UPDATE
    );
  ELSE
    found_ids := ARRAY(
      SELECT id FROM job WHERE queue = q.key AND id = ANY (p_ids) AND death IS NOT NULL ORDER BY death FOR UPDATE
    );
  END IF;
  IF found_ids = '{}' THEN RETURN 0; END IF;
  IF p_redrive THEN
    before := nextval('block') << 16;
    UPDATE job SET place = place_now(q.kind, priority), seq = before + f.n, death = NULL, died = NULL, reason = NULL,
      error = NULL, attempt = 1, crashes = 0, failed = NULL, failures = NULL
    FROM unnest(found_ids) WITH ORDINALITY AS f (id, n) WHERE job.queue = q.key AND job.id = f.id;
    IF q.receivers_wait_until > clock_timestamp() THEN PERFORM wake(q.key, 'r'); END IF;
  ELSE
    DELETE FROM job WHERE queue = q.key AND id = ANY (found_ids);
    PERFORM forget_ends(q.key, found_ids);
  END IF;
  RETURN cardinality(found_ids);
END
$$;

-- Take a queue's name away, so that it is gone, and wake all who wait for it.
CREATE FUNCTION delete_queue(p_queue text) RETURNS void LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
  gone int;
BEGIN
  UPDATE queue SET name = NULL, deleted = clock_timestamp() WHERE name = p_queue RETURNING key INTO gone;
  IF NOT FOUND THEN RAISE EXCEPTION 'no such queue' USING ERRCODE = 'MJ404'; END IF;
  PERFORM wake(gone, 'r'), wake(gone, 'e*');
END
$$;

-- Drop some rows of deleted queues, and say how many. A publish that had found the queue may come to its end after
-- that, so its key is kept for an hour.
CREATE FUNCTION drop_deleted(p_most int) RETURNS int LANGUAGE plpgsql VOLATILE
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
    DELETE FROM request WHERE queue = q.key AND ends < clock_timestamp() - interval '1 h';
    IF q.deleted < clock_timestamp() - interval '1 h' THEN DELETE FROM queue WHERE key = q.key; END IF;
    EXIT WHEN dropped >= p_most;
  END LOOP;
  DELETE FROM request r WHERE r.ends < clock_timestamp() AND NOT EXISTS (SELECT FROM queue WHERE key = r.queue);
  RETURN dropped;
END
$$;

-- Find out whether a request was carried out, and if it wasn't, have it never be.
CREATE FUNCTION resolve(p_token bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO request (token, queue, ends) VALUES (p_token, 0, clock_timestamp() + interval '1 h')
  ON CONFLICT (token) DO NOTHING;
  RETURN NOT FOUND;
END
$$;

-- Have it told from now on when jobs end; say until when.
CREATE FUNCTION announce_caller(p_queue text) RETURNS int LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
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

INSERT INTO version VALUES (1, 1);
