-- Make ready what is due, take back what was leased too long, and drop results and dead letters whose time is over; some
-- of each. Return whether that was all.
--
-- It looks at what came to its time after p_from, so as not to read again what was swept before: a held snapshot keeps
-- those rows.
CREATE FUNCTION sweep(q queue, p_from timestamptz) RETURNS boolean
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
DECLARE
  most constant int := 500; -- due jobs, results, and dead letters
  most_requests constant int := 100; -- each of many jobs
  now timestamptz := clock_timestamp();
  before bigint;
  r request;
  owners bigint[];
  has_moved boolean := false;
  readied int := 0;
  ended int := 0;
  dropped int;
  gone text[];
BEGIN
  -- 1. What is due becomes ready, in the order of its times.
  IF EXISTS (SELECT FROM job WHERE queue = q.key AND due > p_from AND due <= now) THEN
    before := nextval('block') << 16;
    UPDATE job SET place = place_now(q.kind, priority), seq = before + d.n, due = NULL
    FROM (
      SELECT first.at, row_number() OVER () AS n FROM (
        SELECT ctid AS at FROM job WHERE queue = q.key AND due > p_from AND due <= now
        ORDER BY due, seq LIMIT most FOR UPDATE SKIP LOCKED
      ) first
    ) d WHERE job.ctid = d.at;
    GET DIAGNOSTICS readied = ROW_COUNT;
    has_moved := true;
  END IF;

  -- 2. What was leased too long is ready again, where it was.
  FOR r IN
    SELECT * FROM request WHERE queue = q.key AND ends > p_from AND ends <= now
    ORDER BY ends LIMIT most_requests FOR UPDATE SKIP LOCKED
  LOOP
    ended := ended + 1;
    IF r.places = '{}' THEN
      DELETE FROM request WHERE token = r.token;
      CONTINUE;
    END IF;
    owners := array_fill(r.token, ARRAY[cardinality(r.places)]);
    PERFORM lock_held(q.key, r.places, r.seqs, owners, ARRAY[r.token]);
    UPDATE job SET token = NULL, progress = NULL, crashes = crashes + 1
    FROM find_held(q.key, r.places, r.seqs, owners, ARRAY[r.token]) h
    WHERE job.ctid = h.at AND job.token = r.token;
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

  -- 3. Results whose time is over go.
  DELETE FROM result WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM result WHERE queue = q.key AND expires > '-infinity' AND expires > p_from AND expires <= now
    ORDER BY expires LIMIT most FOR UPDATE SKIP LOCKED
  ));
  GET DIAGNOSTICS dropped = ROW_COUNT;

  -- 4. So do dead letters (DLQ-5).
  WITH deleted AS (
    DELETE FROM job WHERE ctid = ANY (ARRAY(
      SELECT ctid FROM job WHERE queue = q.key AND dead_until > p_from AND dead_until <= now
      ORDER BY dead_until LIMIT most FOR UPDATE SKIP LOCKED
    )) RETURNING id
  ) SELECT array_agg(id) INTO gone FROM deleted;
  IF gone IS NOT NULL THEN PERFORM forget_ends(q.key, gone); END IF;
  RETURN readied < most AND ended < most_requests AND dropped < most AND coalesce(cardinality(gone), 0) < most;
END
$$;
