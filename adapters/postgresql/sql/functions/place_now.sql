-- Where a job stands that becomes ready now: behind all that were ready before, on the level of its priority.
CREATE FUNCTION place_now(kind text, priority int) RETURNS bigint
LANGUAGE sql STABLE AS $$
  SELECT (CASE WHEN kind = 'priority' THEN (9 - priority)::bigint << 56 ELSE 0 END) + pg_current_xact_id()::text::bigint
$$;
