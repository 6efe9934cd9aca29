-- Write a record that has the expected version: 0 if there must be none, NULL for any. Return its new version, else NULL.
CREATE FUNCTION write_record(p_key text, p_value bytea, p_expected bigint, p_ttl float8) RETURNS bigint
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
DECLARE
  written bigint;
BEGIN
  IF p_expected > 0 THEN
    UPDATE shared_record SET version = next_version(), value = p_value,
      ends = clock_timestamp() + p_ttl * interval '1 s'
    WHERE key = p_key AND version = p_expected AND (ends IS NULL OR ends > clock_timestamp())
    RETURNING version INTO written;
    RETURN written;
  END IF;
  IF p_expected = 0 AND EXISTS (
    SELECT FROM shared_record WHERE key = p_key AND (ends IS NULL OR ends > clock_timestamp())
  ) THEN RETURN NULL; END IF; -- as the INSERT would, but that writes
  INSERT INTO shared_record AS r (key, version, value, ends)
  VALUES (p_key, next_version(), p_value, clock_timestamp() + p_ttl * interval '1 s')
  ON CONFLICT (key) DO UPDATE SET version = excluded.version, value = excluded.value,
    ends = clock_timestamp() + p_ttl * interval '1 s'
  WHERE p_expected IS NULL OR r.ends <= clock_timestamp()
  RETURNING version INTO written;
  RETURN written;
END
$$;
