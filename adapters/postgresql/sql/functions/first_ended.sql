-- The number of a queue before which all that is remembered of its ended jobs was deleted: it is read in the last rows.
CREATE FUNCTION first_ended(p_queue int) RETURNS bigint
LANGUAGE sql STABLE {{one_plan}} AS $$
  SELECT coalesce(
    (SELECT first FROM ended WHERE queue = p_queue AND first IS NOT NULL ORDER BY number DESC LIMIT 1), 0
  )
$$;
