-- Give places back, and leave lines.
CREATE FUNCTION leave_places(p_keys text[], p_limits int[], p_holders text[], p_watches text[]) RETURNS void
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
BEGIN
  PERFORM FROM place_key WHERE key = ANY (p_keys) ORDER BY key FOR UPDATE;
  PERFORM delete_places(p_keys, p_holders);
  PERFORM tell_next_in_line(p_keys, p_limits, p_watches);
END
$$;
