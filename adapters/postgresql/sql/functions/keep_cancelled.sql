-- Remember that jobs were cancelled, and wake those who wait for them.
CREATE FUNCTION keep_cancelled(q queue, p_ids text[], p_ttls float8[]) RETURNS void
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
BEGIN
  PERFORM forget_ends(q.key, p_ids);
  INSERT INTO result (queue, id, expires, body)
  SELECT q.key, c.id, clock_timestamp() + c.ttl * interval '1 s', E'\\x00' FROM unnest(p_ids, p_ttls) AS c (id, ttl)
  ON CONFLICT (queue, id) DO UPDATE SET expires = excluded.expires, body = excluded.body;
  IF q.callers_wait_until > clock_timestamp() THEN PERFORM wake_callers(q.key, p_ids); END IF;
END
$$;
