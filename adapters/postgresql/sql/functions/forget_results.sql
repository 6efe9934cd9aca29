-- Forget the results of these jobs.
CREATE FUNCTION forget_results(p_queue int, p_ids text[]) RETURNS void
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
BEGIN
  DELETE FROM result WHERE ctid = ANY (ARRAY(
    SELECT r.at FROM unnest(p_ids) AS i (id), LATERAL (
      SELECT ctid AS at FROM result WHERE queue = p_queue AND id = i.id OFFSET 0
    ) r
  ));
END
$$;
