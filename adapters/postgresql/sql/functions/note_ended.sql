-- Remember that jobs ended without a result, of no more than about the last {{remembered_ends}} jobs of a queue: one call
-- in 64 deletes what is older.
CREATE FUNCTION note_ended(p_queue int, p_ids text[]) RETURNS void
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
DECLARE
  next bigint := nextval('ending');
  since bigint;
  until bigint;
BEGIN
  IF next % 64 = 0 THEN
    since := first_ended(p_queue);
    SELECT coalesce(max(s.number), since) INTO until FROM (
      SELECT number, sum(cardinality(ids)) OVER (ORDER BY number DESC) AS upto
      FROM ended WHERE queue = p_queue AND number >= since
    ) s WHERE s.upto > {{remembered_ends}};
    DELETE FROM ended WHERE queue = p_queue AND number >= since AND number < until;
  END IF;
  INSERT INTO ended (queue, number, ids, first) VALUES (p_queue, next, p_ids, until);
END
$$;
