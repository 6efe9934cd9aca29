-- Version 6. What an outage leaves open: which leases it cut short, and whether a request was carried out.

-- When a lease began: one that began after the server had started wasn't cut short by a restart. Without a default for the
-- rows that are there, as the table isn't rewritten then. A lease that is extended has a new row.
ALTER TABLE request ADD COLUMN began timestamptz;
ALTER TABLE request ALTER COLUMN began SET DEFAULT clock_timestamp();

-- Find out whether a request was carried out, and if it wasn't, have it never be. Asked again, it answers the same, which
-- `resolve` doesn't: it takes the row that it left for the request's own.
CREATE FUNCTION was_carried_out(p_token bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO request (token, queue, ends) VALUES (p_token, 0, clock_timestamp() + interval '1 h')
  ON CONFLICT (token) DO NOTHING;
  RETURN EXISTS (SELECT FROM request WHERE token = p_token AND queue <> 0);
END
$$;

INSERT INTO version VALUES (6, 1);
