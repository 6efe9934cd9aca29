-- Return dead letters of a queue whose time isn't over, those that died first coming first.
CREATE FUNCTION dead_letters(p_queue int, p_limit bigint, p_offset bigint) RETURNS SETOF job
LANGUAGE plpgsql STABLE {{one_plan}} AS $$
BEGIN
  RETURN QUERY SELECT * FROM job
  WHERE queue = p_queue AND death IS NOT NULL AND (dead_until IS NULL OR dead_until > clock_timestamp())
  ORDER BY death LIMIT p_limit OFFSET p_offset;
END
$$;
