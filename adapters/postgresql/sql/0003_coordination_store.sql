-- Version 3. The coordination store: records, places and rates; and deliveries that are released with a delay.

-- `minute` is when a record ends, rounded down. An update within that minute changes no index, so that it is a HOT update.
CREATE TABLE shared_record (
  key text COLLATE "C" PRIMARY KEY,
  version bigint NOT NULL,
  ends timestamptz, -- NULL: never
  minute timestamptz GENERATED ALWAYS AS (date_bin('1 min', ends, '2000-01-01 00:00:00+00')) STORED,
  value bytea NOT NULL
) WITH (
  fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
  autovacuum_vacuum_cost_delay = 0, toast.autovacuum_vacuum_scale_factor = 0,
  toast.autovacuum_vacuum_threshold = 2000, toast.autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX shared_record_minute ON shared_record (minute) WHERE minute IS NOT NULL;

-- A key that has places. A call that takes or leaves some locks the key's row first. The row outlasts them.
CREATE TABLE place_key (
  key text COLLATE "C" PRIMARY KEY,
  number bigint GENERATED ALWAYS AS IDENTITY,
  ends timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX place_key_ends ON place_key (ends);

-- Who has a place, and who waits for one in the order of tickets. To extend one is a HOT update.
CREATE TABLE place (
  key bigint NOT NULL, -- the number of a place_key
  holder text COLLATE "C" NOT NULL,
  ticket bigint NOT NULL,
  is_held boolean NOT NULL,
  ends timestamptz NOT NULL,
  PRIMARY KEY (key, holder)
) WITH (
  fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
  autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX place_line ON place (key, is_held, ticket);

CREATE TABLE rate (
  key text COLLATE "C" PRIMARY KEY,
  turn timestamptz NOT NULL, -- the first that isn't reserved
  ends timestamptz NOT NULL -- at turn or later; rarely changed
) WITH (
  fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
  autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX rate_ends ON rate (ends);

-- One row: all that had ended by `swept` was removed, but what was locked just then, which is looked at once more. So no
-- sweep reads again the dead rows that a held snapshot keeps.
CREATE TABLE coordination_sweep (before timestamptz NOT NULL, swept timestamptz NOT NULL);
INSERT INTO coordination_sweep VALUES ('-infinity', '-infinity');

CREATE SEQUENCE coordination; -- versions of records, and tickets of places

-- Remove some of what has ended. It waits for nobody, and comes after all locks that may have to be waited for.
CREATE FUNCTION sweep_coordination() RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
DECLARE
  most constant int := 500;
  until constant timestamptz := clock_timestamp() - interval '1 min';
  s coordination_sweep;
  k place_key;
  removed int;
  is_all boolean;
BEGIN
  SELECT * INTO s FROM coordination_sweep FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN RETURN; END IF; -- another does it
  DELETE FROM shared_record WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM shared_record WHERE minute >= s.before AND minute < until LIMIT most FOR UPDATE SKIP LOCKED
  ));
  GET DIAGNOSTICS removed = ROW_COUNT;
  is_all := removed < most;
  DELETE FROM rate WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM rate WHERE ends >= s.before AND ends < until LIMIT most FOR UPDATE SKIP LOCKED
  ));
  GET DIAGNOSTICS removed = ROW_COUNT;
  is_all := is_all AND removed < most;
  removed := 0;
  FOR k IN SELECT * FROM place_key WHERE ends >= s.before AND ends < until LIMIT most FOR UPDATE SKIP LOCKED LOOP
    DELETE FROM place WHERE ctid = ANY (ARRAY(SELECT ctid FROM place WHERE key = k.number LIMIT most));
    IF NOT EXISTS (SELECT FROM place WHERE key = k.number) THEN DELETE FROM place_key WHERE key = k.key; END IF;
    removed := removed + 1;
    is_all := is_all AND NOT EXISTS (SELECT FROM place WHERE key = k.number);
  END LOOP;
  IF is_all AND removed < most THEN
    UPDATE coordination_sweep SET swept = until,
      before = CASE WHEN s.swept <= until THEN s.swept ELSE '-infinity' END; -- a clock that was set back: begin anew
  END IF;
END
$$;

-- Write a record that has the expected version: 0 if there must be none, NULL for any. Return its new version, else NULL.
CREATE FUNCTION write_record(p_key text, p_value bytea, p_expected bigint, p_ttl float8) RETURNS bigint LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
  written bigint;
BEGIN
  IF p_expected > 0 THEN
    UPDATE shared_record SET version = nextval('coordination'), value = p_value,
      ends = clock_timestamp() + p_ttl * interval '1 s'
    WHERE key = p_key AND version = p_expected AND (ends IS NULL OR ends > clock_timestamp())
    RETURNING version INTO written;
    RETURN written;
  END IF;
  IF p_expected = 0 AND EXISTS (
    SELECT FROM shared_record WHERE key = p_key AND (ends IS NULL OR ends > clock_timestamp())
  ) THEN RETURN NULL; END IF; -- as the INSERT would, but that writes
  INSERT INTO shared_record AS r (key, version, value, ends)
  VALUES (p_key, nextval('coordination'), p_value, clock_timestamp() + p_ttl * interval '1 s')
  ON CONFLICT (key) DO UPDATE SET version = excluded.version, value = excluded.value,
    ends = clock_timestamp() + p_ttl * interval '1 s'
  WHERE p_expected IS NULL OR r.ends <= clock_timestamp()
  RETURNING version INTO written;
  RETURN written;
END
$$;

CREATE FUNCTION put_record(p_key text, p_value bytea, p_expected bigint, p_ttl float8) RETURNS bigint LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT AS $$
DECLARE
  written constant bigint := write_record(p_key, p_value, p_expected, p_ttl);
BEGIN
  IF written % 32 = 0 THEN PERFORM sweep_coordination(); END IF;
  RETURN written;
END
$$;

CREATE FUNCTION delete_record(p_key text, p_expected bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
  DELETE FROM shared_record
  WHERE key = p_key AND (p_expected IS NULL OR version = p_expected) AND (ends IS NULL OR ends > clock_timestamp());
  RETURN FOUND;
END
$$;

CREATE FUNCTION get_records(p_keys text[]) RETURNS TABLE (key text, value bytea, version bigint) LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
BEGIN
  RETURN QUERY SELECT r.key, r.value, r.version FROM shared_record r
  WHERE r.key = ANY (p_keys) AND (r.ends IS NULL OR r.ends > clock_timestamp());
END
$$;

-- Return the records whose keys are p_from or behind it, and before p_before if that isn't NULL, in the order of their bytes.
CREATE FUNCTION scan_records(p_from text, p_before text) RETURNS TABLE (key text, value bytea, version bigint) LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
BEGIN
  RETURN QUERY SELECT r.key, r.value, r.version FROM shared_record r
  WHERE r.key >= p_from AND r.key < coalesce(p_before, (SELECT max(l.key) || ' ' FROM shared_record l))
    AND (r.ends IS NULL OR r.ends > clock_timestamp())
  ORDER BY r.key;
END
$$;

-- Take or extend places, one after the other. Keys are locked in their order, so that two calls don't deadlock.
CREATE FUNCTION take_places(p_keys text[], p_limits int[], p_holders text[], p_ttl float8) RETURNS boolean[] LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
  ttl constant interval := p_ttl * interval '1 s';
  now timestamptz;
  i int;
  k bigint;
  t bigint;
  has_it boolean;
  is_new boolean;
  before int; -- how many have a place or wait in front, up to the limit
  counted text; -- for whom `before` holds: the next one who is new, of this key and limit
  answers boolean[] := array_fill(false, ARRAY[cardinality(p_keys)]);
  sweeps boolean := false;
BEGIN
  INSERT INTO place_key AS p (key, ends)
  SELECT u.key, clock_timestamp() + 2 * ttl + interval '2 min' FROM unnest(p_keys) AS u (key)
  GROUP BY u.key ORDER BY u.key COLLATE "C"
  ON CONFLICT (key) DO UPDATE SET ends = excluded.ends -- or only lock it
  WHERE p.ends < clock_timestamp() + ttl + interval '1 min';
  now := clock_timestamp();
  FOR i IN SELECT u.n FROM unnest(p_keys) WITH ORDINALITY AS u (key, n) ORDER BY u.key COLLATE "C", u.n LOOP
    SELECT number INTO k FROM place_key WHERE key = p_keys[i];
    SELECT ticket, is_held INTO t, has_it FROM place WHERE key = k AND holder = p_holders[i] AND ends > now;
    is_new := NOT FOUND;
    IF is_new THEN
      t := nextval('coordination');
      sweeps := sweeps OR t % 32 = 0;
    END IF;
    IF has_it IS NOT TRUE THEN
      IF NOT is_new OR counted IS DISTINCT FROM k || ':' || p_limits[i] THEN
        DELETE FROM place WHERE ctid = ANY (ARRAY(
          SELECT ctid FROM place WHERE key = k AND is_held AND ends <= now
          UNION ALL SELECT w.ctid FROM (
            SELECT ctid, ends FROM place WHERE key = k AND NOT is_held ORDER BY ticket LIMIT 20
          ) w WHERE w.ends <= now
        ));
        before := (SELECT count(*) FROM (
          SELECT FROM place WHERE key = k AND is_held
          UNION ALL SELECT FROM place WHERE key = k AND NOT is_held AND ticket < t AND ends > now
          LIMIT p_limits[i]
        ) those);
      END IF;
      has_it := before < p_limits[i];
      before := before + 1;
      counted := CASE WHEN is_new THEN k || ':' || p_limits[i] END;
    END IF;
    INSERT INTO place (key, holder, ticket, is_held, ends) VALUES (k, p_holders[i], t, has_it, now + ttl)
    ON CONFLICT (key, holder) DO UPDATE SET ticket = excluded.ticket, is_held = excluded.is_held, ends = excluded.ends;
    answers[i] := has_it;
  END LOOP;
  IF sweeps THEN PERFORM sweep_coordination(); END IF;
  RETURN answers;
END
$$;

CREATE FUNCTION leave_places(p_keys text[], p_holders text[]) RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
BEGIN
  PERFORM FROM place_key WHERE key = ANY (p_keys) ORDER BY key FOR UPDATE;
  DELETE FROM place WHERE ctid = ANY (ARRAY( -- each by the primary key: a join would read all places of a key for each
    SELECT p.ctid FROM unnest(p_keys, p_holders) AS u (key, holder), LATERAL (
      SELECT ctid FROM place WHERE key = (SELECT number FROM place_key k WHERE k.key = u.key) AND holder = u.holder
    ) p
  ));
END
$$;

-- Reserve turns of a rate. Return in how many seconds the first one is, less than 0 if it might have been earlier, and how
-- many were reserved.
CREATE FUNCTION reserve_turns(p_key text, p_count int, p_interval float8, p_burst int, p_max_wait float8)
RETURNS TABLE (first_s float8, turns int) LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
  now timestamptz;
  next_turn timestamptz;
BEGIN
  INSERT INTO rate AS r (key, turn, ends) VALUES (p_key, '-infinity', clock_timestamp() + interval '1 min')
  ON CONFLICT (key) DO UPDATE SET turn = r.turn WHERE false; -- only locks it
  now := clock_timestamp();
  SELECT greatest(turn, now) INTO next_turn FROM rate WHERE key = p_key;
  first_s := extract(epoch FROM next_turn - now) - (p_burst - 1) * p_interval;
  turns := CASE
    WHEN first_s > p_max_wait THEN 0
    WHEN p_interval <= 0 THEN p_count
    ELSE least(p_count, floor((p_max_wait - first_s) / p_interval + 1e-9) + 1)
  END;
  IF turns > 0 THEN
    next_turn := next_turn + turns * p_interval * interval '1 s';
    UPDATE rate SET turn = next_turn, ends = CASE WHEN ends < next_turn THEN next_turn + interval '1 min' ELSE ends END
    WHERE key = p_key;
  END IF;
  IF nextval('coordination') % 32 = 0 THEN PERFORM sweep_coordination(); END IF;
  RETURN NEXT;
END
$$;

-- Publish a message and write a record, or neither. Return {} or, of a duplicate, {1}; NULL if the record hasn't the
-- expected version.
CREATE FUNCTION publish_guarded(
  p_queue text, p_token bigint, p_again boolean, p_answered bigint[],
  p_id text, p_body bytea, p_priority int, p_delay float8,
  p_key text, p_value bytea, p_expected bigint, p_ttl float8
) RETURNS int[] LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
  written bigint;
  duplicates int[];
BEGIN
  IF p_again THEN
    SELECT CASE WHEN r.queue > 0 THEN coalesce(r.odd, '{}') END INTO duplicates FROM request r WHERE r.token = p_token;
    IF FOUND THEN RETURN duplicates; END IF;
  END IF;
  PERFORM FROM queue WHERE name = p_queue;
  IF NOT FOUND THEN RAISE EXCEPTION 'no such queue' USING ERRCODE = 'MJ404'; END IF;
  written := write_record(p_key, p_value, p_expected, p_ttl);
  IF written IS NULL THEN
    IF p_again AND resolve(p_token) THEN -- the first try came to its end meanwhile; from now on it never will
      SELECT CASE WHEN r.queue > 0 THEN coalesce(r.odd, '{}') END INTO duplicates FROM request r WHERE r.token = p_token;
    END IF;
    RETURN duplicates;
  END IF;
  duplicates := publish(
    p_queue, p_token, false, p_answered, ARRAY[p_id], ARRAY[p_body], ARRAY[p_priority], ARRAY[p_delay]
  );
  IF written % 32 = 0 THEN PERFORM sweep_coordination(); END IF;
  RETURN coalesce(duplicates, '{}');
END
$$;

-- As before, and w: the job is released, and ready after the delay. Releases before this one don't send that.
CREATE OR REPLACE FUNCTION settle_other(
  q queue, op text, p_place bigint, p_seq bigint, p_owner bigint, p_delay float8, p_reason bytea, p_error bytea
) RETURNS boolean LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
  IF op = 'l' THEN
    UPDATE job SET token = NULL, progress = NULL
    WHERE queue = q.key AND place = p_place AND seq = p_seq AND token = p_owner;
  ELSIF op = 'w' THEN
    UPDATE job SET token = NULL, progress = NULL, place = NULL, seq = nextval('block') << 16,
      due = clock_timestamp() + p_delay * interval '1 s'
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

INSERT INTO version VALUES (3, 1);
