-- Notify the watches of the holders who are next in line for the free places of keys, but not the watch that left one. A
-- notification has the watch, "p", the ticket and the key. The ticket makes each one unique.
CREATE FUNCTION tell_next_in_line(p_keys text[], p_limits int[], p_watches text[]) RETURNS void
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
DECLARE
  now constant timestamptz := clock_timestamp();
  i int;
  k bigint;
  free int;
BEGIN
  FOR i IN SELECT max(u.n) FROM unnest(p_keys) WITH ORDINALITY AS u (key, n) GROUP BY u.key LOOP
    SELECT number INTO k FROM place_key WHERE key = p_keys[i];
    CONTINUE WHEN NOT FOUND;
    free := p_limits[i] - (SELECT count(*) FROM (
      SELECT FROM place WHERE key = k AND is_held AND ends > now ORDER BY ticket LIMIT p_limits[i]
    ) those);
    CONTINUE WHEN free <= 0;
    PERFORM pg_notify(current_schema(), w.watch || 'p' || w.ticket || ' ' || p_keys[i]) FROM (
      SELECT watch, ticket FROM place WHERE key = k AND NOT is_held AND ends > now ORDER BY ticket LIMIT free
    ) w WHERE w.watch <> '' AND w.watch <> p_watches[i];
  END LOOP;
END
$$;
