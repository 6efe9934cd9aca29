-- Version 8. Each search for rows has one plan (ADR 87).
--
-- If ANALYZE or VACUUM runs while a table is empty, the planner takes the table for empty until the next of them. To scan
-- a whole queue then seems to cost nothing, and the planner may do so to find one job. So it is left no choice:
--   The rows of a list are searched for one by one, in a subquery with OFFSET 0 or LIMIT 1, which is no part of a join.
--   Where several indexes begin with the same column, a search asks for an order that one of them has, as sorting is off.
--   It says "seq >= x AND seq <= x" for that: of what is equal, the planner forgets the order. Or the other indexes are
--   partial, with a predicate that the search doesn't imply.
--   Rows that were found are changed by their ctid.

-- As in version 7.
CREATE FUNCTION rewrite(p_function regproc, p_pairs text[]) RETURNS void LANGUAGE plpgsql
SET quote_all_identifiers = off AS $$
DECLARE
  definition text := pg_get_functiondef(p_function);
  pair text[];
BEGIN
  FOREACH pair SLICE 1 IN ARRAY p_pairs LOOP
    IF cardinality(string_to_array(definition, pair[1])) <> 2 THEN
      RAISE EXCEPTION '% has not once: %', p_function, pair[1];
    END IF;
    definition := replace(definition, pair[1], pair[2]);
  END LOOP;
  EXECUTE definition;
END
$$;

-- All locks first: one that is taken later could deadlock with a call that has read a table and is about to write it.
LOCK TABLE job, result, place, coordination_sweep IN ACCESS EXCLUSIVE MODE;

-- For sweeps only. Searches by id use the primary key.
DROP INDEX result_expires;
CREATE INDEX result_expires ON result (queue, expires) WHERE expires > '-infinity';

-- For the places of a key that are held, and for its line. Searches for a holder use the primary key.
DROP INDEX place_line;
CREATE INDEX place_held ON place (key, ticket) WHERE is_held;
CREATE INDEX place_line ON place (key, ticket) WHERE NOT is_held;

-- A publication FOR ALL TABLES refuses all changes of a table that has none. What somebody chose stays.
DO $$
BEGIN
  IF (SELECT relreplident FROM pg_class WHERE oid = 'job'::regclass) = 'd' THEN
    ALTER TABLE job REPLICA IDENTITY USING INDEX job_id;
  END IF;
  IF (SELECT relreplident FROM pg_class WHERE oid = 'coordination_sweep'::regclass) = 'd' THEN
    ALTER TABLE coordination_sweep REPLICA IDENTITY FULL; -- of one row
  END IF;
END
$$;

-- Find the jobs of a list whose leases are among the valid ones; return where each is, and its number in the list, counted
-- from 1. The server makes this a part of the statement that calls it.
CREATE FUNCTION find_held(p_queue int, p_places bigint[], p_seqs bigint[], p_owners bigint[], p_valid bigint[])
RETURNS TABLE (at tid, token bigint, n int) LANGUAGE sql STABLE AS $$
  SELECT j.at, h.token, h.n::int
  FROM unnest(p_places, p_seqs, p_owners) WITH ORDINALITY AS h (place, seq, token, n), LATERAL (
    SELECT ctid AS at FROM job
    WHERE queue = p_queue AND place = h.place AND seq >= h.seq AND seq <= h.seq AND token = h.token
    ORDER BY seq LIMIT 1
  ) j
  WHERE h.token = ANY (p_valid)
$$;

-- Lock these jobs. A report of progress moves a row; one that is locked stays where the next statement finds it.
CREATE FUNCTION lock_held(p_queue int, p_places bigint[], p_seqs bigint[], p_owners bigint[], p_valid bigint[])
RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
BEGIN
  PERFORM FROM unnest(p_places, p_seqs, p_owners) AS h (place, seq, token), LATERAL (
    SELECT FROM job
    WHERE queue = p_queue AND place = h.place AND seq >= h.seq AND seq <= h.seq AND token = h.token
    ORDER BY seq LIMIT 1 FOR UPDATE
  ) j
  WHERE h.token = ANY (p_valid);
END
$$;

-- Delete these jobs; return their numbers and ids.
CREATE FUNCTION delete_held(p_queue int, p_places bigint[], p_seqs bigint[], p_owners bigint[], p_valid bigint[])
RETURNS TABLE (n int, id text) LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
DECLARE
  deleted int := 0;
  more int;
BEGIN
  FOR try IN 1 .. 2 LOOP
    RETURN QUERY DELETE FROM job USING find_held(p_queue, p_places, p_seqs, p_owners, p_valid) h
      WHERE job.ctid = h.at AND job.token = h.token
      RETURNING h.n, job.id;
    GET DIAGNOSTICS more = ROW_COUNT;
    deleted := deleted + more;
    EXIT WHEN deleted = cardinality(p_places);
    -- The others are lost, or moved while this statement ran.
    IF try = 1 THEN PERFORM lock_held(p_queue, p_places, p_seqs, p_owners, p_valid); END IF;
  END LOOP;
END
$$;

CREATE FUNCTION forget_results(p_queue int, p_ids text[]) RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
BEGIN
  DELETE FROM result WHERE ctid = ANY (ARRAY(
    SELECT r.at FROM unnest(p_ids) AS i (id), LATERAL (
      SELECT ctid AS at FROM result WHERE queue = p_queue AND id = i.id OFFSET 0
    ) r
  ));
END
$$;

-- Drop some results of the queues of other brokers, whose time is over.
CREATE FUNCTION sweep_results(p_kind text) RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
DECLARE
  now constant timestamptz := clock_timestamp();
BEGIN
  DELETE FROM result WHERE ctid = ANY (ARRAY(
    SELECT r.at FROM queue q, LATERAL (
      SELECT ctid AS at FROM result WHERE queue = q.key AND expires > '-infinity' AND expires <= now
      ORDER BY expires LIMIT 500 FOR UPDATE SKIP LOCKED
    ) r WHERE q.kind = p_kind LIMIT 500
  ));
END
$$;

-- Lock one such job, and return where it is.
CREATE FUNCTION lock_one(p_queue int, p_place bigint, p_seq bigint, p_owner bigint) RETURNS tid LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
BEGIN
  RETURN (
    SELECT ctid FROM job WHERE queue = p_queue AND place = p_place AND seq >= p_seq AND seq <= p_seq AND token = p_owner
    ORDER BY seq LIMIT 1 FOR UPDATE
  );
END
$$;

CREATE FUNCTION report_progress(p_queue int, p_place bigint, p_seq bigint, p_token bigint, p_progress text)
RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
DECLARE
  at constant tid := lock_one(p_queue, p_place, p_seq, p_token);
BEGIN
  UPDATE job SET progress = p_progress WHERE ctid = at;
END
$$;

-- As before, by the place where the job is.
CREATE OR REPLACE FUNCTION settle_one(
  q queue, op text, p_place bigint, p_seq bigint, p_owner bigint, p_delay float8, p_reason bytea, p_error bytea
) RETURNS int LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
  at constant tid := lock_one(q.key, p_place, p_seq, p_owner);
  settled text;
  asked_ttl float8;
BEGIN
  IF at IS NULL THEN RETURN 0; END IF;
  IF op = 'l' THEN
    UPDATE job SET token = NULL, progress = NULL
    WHERE ctid = at RETURNING id INTO settled;
  ELSIF op = 'w' THEN
    UPDATE job SET token = NULL, progress = NULL, place = NULL, seq = nextval('block') << 16,
      due = clock_timestamp() + p_delay * interval '1 s'
    WHERE ctid = at RETURNING id INTO settled;
  ELSIF op = 'c' THEN
    DELETE FROM job WHERE ctid = at RETURNING id INTO settled;
  ELSIF op = 'd' THEN
    UPDATE job SET token = NULL, progress = NULL, place = NULL, death = nextval('death'), died = clock_timestamp(),
      reason = p_reason, error = p_error
    WHERE ctid = at RETURNING id INTO settled;
  ELSE
    UPDATE job SET token = NULL, progress = NULL, attempt = least(attempt, 2147483646) + 1,
      failed = (failed || attempt)[greatest(1, coalesce(cardinality(failed), 0) - 8):],
      failures = (failures || p_error)[greatest(1, coalesce(cardinality(failures), 0) - 8):],
      place = CASE WHEN p_delay <= 0 THEN place_now(q.kind, priority) END,
      seq = nextval('block') << 16,
      due = CASE WHEN p_delay > 0 THEN clock_timestamp() + p_delay * interval '1 s' END
    WHERE ctid = at RETURNING id INTO settled;
  END IF;
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

DO $$
DECLARE
  duplicates constant text[] := ARRAY[['seq = before + m.n)', 'seq = before + m.n OFFSET 0)']];
  settles constant text[] := ARRAY[
    ['h (place, seq), job j
        WHERE r.token = p_token AND r.ends > clock_timestamp()
          AND j.queue = p_queue AND j.place = h.place AND j.seq = h.seq AND j.token = p_token;',
     'h (place, seq), LATERAL (
          SELECT * FROM job WHERE queue = p_queue AND place = h.place AND seq >= h.seq AND seq <= h.seq AND token = p_token
          ORDER BY seq LIMIT 1
        ) j
        WHERE r.token = p_token AND r.ends > clock_timestamp();'],
    ['WITH gone AS (
        DELETE FROM job USING unnest(p_places, p_seqs, p_owners) WITH ORDINALITY AS h (place, seq, token, n)
        WHERE job.queue = p_queue AND job.place = h.place AND job.seq = h.seq AND job.token = h.token
          AND h.token = ANY (valid)
        RETURNING job.id, h.n
      ) SELECT array_agg(gone.id), array_agg(gone.n) INTO ended_ids, kept FROM gone;',
     'SELECT array_agg(gone.id), array_agg(gone.n) INTO ended_ids, kept
      FROM delete_held(p_queue, p_places, p_seqs, p_owners, valid) gone;'],
    ['DELETE FROM job USING unnest(p_places, p_seqs, p_owners, p_results, p_ttls)
          WITH ORDINALITY AS h (place, seq, token, result, ttl, n)
        WHERE job.queue = p_queue AND job.place = h.place AND job.seq = h.seq AND job.token = h.token
          AND h.token = ANY (valid)
        RETURNING job.id, h.n, h.result, h.ttl',
     'SELECT d.id, d.n, p_results[d.n] AS result, p_ttls[d.n] AS ttl
        FROM delete_held(p_queue, p_places, p_seqs, p_owners, valid) d'],
    ['DELETE FROM result WHERE queue = p_queue AND id = ANY (silent_ids);', 'PERFORM forget_results(p_queue, silent_ids);'],
    ['(SELECT min(due) FROM job WHERE queue = p_queue AND due > sweep_from)',
     '(SELECT due FROM job WHERE queue = p_queue AND due > sweep_from ORDER BY due LIMIT 1)'],
    ['(SELECT min(ends) FROM request WHERE queue = p_queue AND ends > sweep_from)',
     '(SELECT ends FROM request WHERE queue = p_queue AND ends > sweep_from ORDER BY ends LIMIT 1)']
  ];
  extends constant text[] := ARRAY[
    ['  WITH moved AS (
    UPDATE job SET token = p_token
    FROM unnest(p_places, p_seqs, p_owners) WITH ORDINALITY AS h (place, seq, token, n)
    WHERE job.queue = p_queue AND job.place = h.place AND job.seq = h.seq AND job.token = h.token
      AND h.token = ANY (valid)
    RETURNING h.n
  )',
     '  PERFORM lock_held(p_queue, p_places, p_seqs, p_owners, valid);
  WITH moved AS (
    UPDATE job SET token = p_token FROM find_held(p_queue, p_places, p_seqs, p_owners, valid) h
    WHERE job.ctid = h.at AND job.token = h.token
    RETURNING h.n
  )'],
    ['FROM unnest(p_seqs) WITH ORDINALITY AS h (seq, n), asked a
      WHERE a.queue = p_queue AND a.seq = h.seq AND n = ANY (kept)',
     'FROM unnest(p_seqs) WITH ORDINALITY AS h (seq, n)
      WHERE n = ANY (kept) AND EXISTS (SELECT FROM asked WHERE queue = p_queue AND seq = h.seq OFFSET 0)']
  ];
BEGIN
  PERFORM rewrite('publish', duplicates);
  PERFORM rewrite('publish_in_transaction', duplicates);
  PERFORM rewrite('settle_and_take', settles);
  PERFORM rewrite('settle_and_take_after', settles);
  PERFORM rewrite('extend', extends);
  PERFORM rewrite('extend_after', extends);
  PERFORM rewrite('sweep', ARRAY[
    ['    UPDATE job SET token = NULL, progress = NULL, crashes = crashes + 1
    FROM unnest(r.places, r.seqs) AS h (place, seq)
    WHERE job.queue = q.key AND job.place = h.place AND job.seq = h.seq AND job.token = r.token;',
     '    owners := array_fill(r.token, ARRAY[cardinality(r.places)]);
    PERFORM lock_held(q.key, r.places, r.seqs, owners, ARRAY[r.token]);
    UPDATE job SET token = NULL, progress = NULL, crashes = crashes + 1
    FROM find_held(q.key, r.places, r.seqs, owners, ARRAY[r.token]) h
    WHERE job.ctid = h.at AND job.token = r.token;'],
    ['  r request;', '  r request;
  owners bigint[];'],
    ['expires > p_from AND expires <= now LIMIT', 'expires > ''-infinity'' AND expires > p_from AND expires <= now
    ORDER BY expires LIMIT']
  ]);
  PERFORM rewrite('end_asked', ARRAY[
    ['DELETE FROM job USING unnest(p_places, p_seqs) AS h (place, seq), asked a
    WHERE job.queue = q.key AND job.place = h.place AND job.seq = h.seq AND job.token IS NULL
      AND a.queue = q.key AND a.seq = h.seq
    RETURNING job.id, job.seq, a.ttl',
     'DELETE FROM job USING (
      SELECT j.at, a.at AS asked_at, a.ttl FROM unnest(p_places, p_seqs) AS h (place, seq), LATERAL (
        SELECT ctid AS at, ttl FROM asked WHERE queue = q.key AND seq = h.seq OFFSET 0
      ) a, LATERAL (
        SELECT ctid AS at FROM job
        WHERE queue = q.key AND place = h.place AND seq >= h.seq AND seq <= h.seq AND token IS NULL
        ORDER BY seq LIMIT 1
      ) j
    ) h
    WHERE job.ctid = h.at AND job.token IS NULL
    RETURNING job.id, h.asked_at, h.ttl'],
    ['  seqs bigint[];', '  found tid[];'],
    ['array_agg(gone.id), array_agg(gone.seq), array_agg(gone.ttl) INTO ids, seqs, ttls',
     'array_agg(gone.id), array_agg(gone.asked_at), array_agg(gone.ttl) INTO ids, found, ttls'],
    ['WHERE queue = q.key AND seq = ANY (seqs);', 'WHERE ctid = ANY (found);']
  ]);
  PERFORM rewrite('cancel_jobs', ARRAY[
    ['j.id = a.id AND j.seq = a.seq
      )', 'j.id = a.id AND j.seq = a.seq OFFSET 0
      )']
  ]);
  PERFORM rewrite('forget_ends', ARRAY[
    ['DELETE FROM result WHERE queue = p_queue AND id = ANY (p_ids);', 'PERFORM forget_results(p_queue, p_ids);']
  ]);
  PERFORM rewrite('redrive_or_discard', ARRAY[
    ['  found_ids text[];', '  dead tid[];
  gone text[];'],
    ['found_ids := ARRAY(
      SELECT id FROM job WHERE queue = q.key AND id = ANY (p_ids) AND death IS NOT NULL ORDER BY death FOR UPDATE
    );',
     'dead := ARRAY(
      SELECT j.at FROM (SELECT DISTINCT unnest(p_ids) AS id) i, LATERAL (
        SELECT ctid AS at, death FROM job WHERE queue = q.key AND id = i.id OFFSET 0
      ) j WHERE j.death IS NOT NULL ORDER BY j.death
    );
    dead := ARRAY( -- locked only now, so that no live job is; in the order of deaths, as above
      SELECT f.at FROM unnest(dead) AS f (at), LATERAL (SELECT death FROM job WHERE ctid = f.at OFFSET 0 FOR UPDATE) j
      WHERE j.death IS NOT NULL
    );'],
    ['found_ids := ARRAY(
      SELECT id FROM job', 'dead := ARRAY(
      SELECT ctid FROM job'],
    ['IF found_ids =', 'IF dead ='],
    ['unnest(found_ids) WITH ORDINALITY AS f (id, n) WHERE job.queue = q.key AND job.id = f.id;',
     'unnest(dead) WITH ORDINALITY AS f (at, n) WHERE job.ctid = f.at;'],
    ['DELETE FROM job WHERE queue = q.key AND id = ANY (found_ids);
    PERFORM forget_ends(q.key, found_ids);',
     'WITH deleted AS (DELETE FROM job WHERE ctid = ANY (dead) RETURNING id) SELECT array_agg(id) INTO gone FROM deleted;
    PERFORM forget_ends(q.key, gone);'],
    ['cardinality(found_ids)', 'cardinality(dead)']
  ]);
  PERFORM rewrite('take_places', ARRAY[
    ['SELECT ctid FROM place WHERE key = k AND is_held AND ends <= now',
     '(SELECT ctid FROM place WHERE key = k AND is_held AND ends <= now ORDER BY ticket)'],
    ['SELECT FROM place WHERE key = k AND is_held
', '(SELECT FROM place WHERE key = k AND is_held ORDER BY ticket)
'],
    ['SELECT FROM place WHERE key = k AND NOT is_held AND ticket < t AND ends > now
', '(SELECT FROM place WHERE key = k AND NOT is_held AND ticket < t AND ends > now ORDER BY ticket)
'],
    [' SET enable_bitmapscan', ' SET enable_sort TO off
 SET enable_bitmapscan']
  ]);
  PERFORM rewrite('leave_places', ARRAY[['holder = u.holder', 'holder = u.holder OFFSET 0']]);
END
$$;

DROP FUNCTION rewrite;

INSERT INTO version VALUES (8, 1);
