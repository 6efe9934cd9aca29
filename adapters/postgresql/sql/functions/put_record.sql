-- As write_record; one write in 32 sweeps.
CREATE FUNCTION put_record(p_key text, p_value bytea, p_expected bigint, p_ttl float8) RETURNS bigint
LANGUAGE plpgsql VOLATILE {{names}} AS $$
DECLARE
  written constant bigint := write_record(p_key, p_value, p_expected, p_ttl);
BEGIN
  IF written % 32 = 0 THEN PERFORM sweep_coordination(); END IF;
  RETURN written;
END
$$;
