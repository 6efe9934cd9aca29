-- Count who has a place or waits for one, of all keys from each start up to the end of the same position (CRD-8). For each
-- pair comes one row of all its keys, and then one for each of the busiest keys. It locks nothing.
CREATE FUNCTION count_places(p_starts text[], p_ends text[], p_busiest int)
RETURNS TABLE (pair int, key text, held bigint, waiting bigint, keys bigint)
LANGUAGE plpgsql STABLE {{one_plan}} AS $$
BEGIN
  FOR i IN 1 .. cardinality(p_starts) LOOP
    RETURN QUERY WITH counts AS MATERIALIZED (
      SELECT k.key, p.held, p.waiting FROM place_key k, LATERAL (
        SELECT count(*) FILTER (WHERE is_held) AS held, count(*) FILTER (WHERE NOT is_held) AS waiting
        FROM place WHERE place.key = k.number AND place.ends > clock_timestamp() OFFSET 0
      ) p
      WHERE k.key >= p_starts[i] COLLATE "C" AND k.key < p_ends[i] COLLATE "C" AND p.held + p.waiting > 0
    )
    SELECT i, NULL::text, coalesce(sum(c.held), 0)::bigint, coalesce(sum(c.waiting), 0)::bigint, count(*) FROM counts c
    UNION ALL
    (SELECT i, c.key, c.held, c.waiting, 1::bigint FROM counts c
     ORDER BY c.held DESC, c.waiting DESC, c.key COLLATE "C" LIMIT p_busiest);
  END LOOP;
END
$$;
