-- Leave places, then take or extend others, one after the other; return for each of these whether its holder has it now.
-- Who has none waits in line, and its watch is told once it is next. Keys are locked in their order, so that two calls
-- don't deadlock.
CREATE FUNCTION take_places(
  p_keys text[], p_limits int[], p_holders text[], p_watches text[], p_ttl float8, p_waits float8,
  p_left_keys text[], p_left_limits int[], p_left_holders text[], p_left_watches text[]
) RETURNS boolean[]
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
DECLARE
  ttl constant interval := p_ttl * interval '1 s';
  waits constant interval := p_waits * interval '1 s';
  longest constant interval := greatest(ttl, waits);
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
  SELECT u.key, clock_timestamp() + 2 * longest + interval '2 min' FROM unnest(p_keys || p_left_keys) AS u (key)
  GROUP BY u.key ORDER BY u.key COLLATE "C"
  ON CONFLICT (key) DO UPDATE SET ends = excluded.ends -- or only lock it
  WHERE p.ends < clock_timestamp() + longest + interval '1 min';
  PERFORM delete_places(p_left_keys, p_left_holders);
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
          (SELECT ctid FROM place WHERE key = k AND is_held AND ends <= now ORDER BY ticket)
          UNION ALL SELECT w.ctid FROM (
            SELECT ctid, ends FROM place WHERE key = k AND NOT is_held ORDER BY ticket LIMIT 20
          ) w WHERE w.ends <= now
        ));
        before := (SELECT count(*) FROM (
          (SELECT FROM place WHERE key = k AND is_held ORDER BY ticket)
          UNION ALL (SELECT FROM place WHERE key = k AND NOT is_held AND ticket < t AND ends > now ORDER BY ticket)
          LIMIT p_limits[i]
        ) those);
      END IF;
      has_it := before < p_limits[i];
      before := before + 1;
      counted := CASE WHEN is_new THEN k || ':' || p_limits[i] END;
    END IF;
    INSERT INTO place (key, holder, ticket, is_held, ends, watch) VALUES (k, p_holders[i], t, has_it, now + CASE WHEN has_it THEN ttl ELSE waits END, p_watches[i])
    ON CONFLICT (key, holder) DO UPDATE
    SET ticket = excluded.ticket, is_held = excluded.is_held, ends = excluded.ends, watch = excluded.watch;
    answers[i] := has_it;
  END LOOP;
  PERFORM tell_next_in_line(p_left_keys, p_left_limits, p_left_watches);
  IF sweeps THEN PERFORM sweep_coordination(); END IF;
  RETURN answers;
END
$$;
