-- Return those of some records that are there.
CREATE FUNCTION get_records(p_keys text[]) RETURNS TABLE (key text, value bytea, version bigint)
LANGUAGE plpgsql STABLE {{one_plan}} AS $$
BEGIN
  RETURN QUERY SELECT r.key, r.value, r.version FROM shared_record r
  WHERE r.key = ANY (p_keys) AND (r.ends IS NULL OR r.ends > clock_timestamp());
END
$$;
