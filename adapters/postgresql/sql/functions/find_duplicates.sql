-- Return which messages of a publish, counted from 1, were not inserted: another job of the queue has the id. The row that
-- message n made has the number p_before + n.
CREATE FUNCTION find_duplicates(p_queue int, p_ids text[], p_before bigint) RETURNS int[]
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
BEGIN
  RETURN ARRAY(
    SELECT m.n FROM unnest(p_ids) WITH ORDINALITY AS m (id, n)
    WHERE NOT EXISTS (SELECT FROM job WHERE queue = p_queue AND id = m.id AND seq = p_before + m.n OFFSET 0)
  );
END
$$;
