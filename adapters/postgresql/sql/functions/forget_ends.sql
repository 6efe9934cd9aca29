-- Forget how these jobs ended in an earlier life.
CREATE FUNCTION forget_ends(p_queue int, p_ids text[]) RETURNS void
LANGUAGE plpgsql VOLATILE {{names}} AS $$
BEGIN
  PERFORM forget_results(p_queue, p_ids);
  UPDATE ended SET ids = ARRAY(SELECT i FROM unnest(ids) i WHERE i <> ALL (p_ids))
  WHERE queue = p_queue AND ids && p_ids;
END
$$;
