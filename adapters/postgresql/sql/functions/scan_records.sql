-- Return the records whose keys are p_from or behind it, and before p_before if that isn't NULL, in the order of their bytes.
CREATE FUNCTION scan_records(p_from text, p_before text) RETURNS TABLE (key text, value bytea, version bigint)
LANGUAGE plpgsql STABLE {{one_plan}} AS $$
BEGIN
  RETURN QUERY SELECT r.key, r.value, r.version FROM shared_record r
  WHERE r.key >= p_from AND r.key < coalesce(p_before, (SELECT max(l.key) || ' ' FROM shared_record l))
    AND (r.ends IS NULL OR r.ends > clock_timestamp())
  ORDER BY r.key;
END
$$;
