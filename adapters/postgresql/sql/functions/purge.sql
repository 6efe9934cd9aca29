-- Drop some of the jobs that wait, and return how many; called until none is left. Ready ones go first, then delayed ones.
CREATE FUNCTION purge(p_queue text, p_most int) RETURNS int
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
DECLARE
  q queue;
  dropped text[];
BEGIN
  SELECT * INTO q FROM queue WHERE name = p_queue;
  IF NOT FOUND THEN RAISE EXCEPTION 'no such queue' USING ERRCODE = 'MJ404'; END IF;
  PERFORM sweep(q, '-infinity'); -- what was leased too long waits, too
  WITH gone AS (
    DELETE FROM job WHERE ctid = ANY (ARRAY(
      SELECT ctid FROM job WHERE queue = q.key AND place IS NOT NULL AND token IS NULL
      LIMIT p_most FOR UPDATE SKIP LOCKED
    )) RETURNING id
  ) SELECT array_agg(id) INTO dropped FROM gone;
  IF dropped IS NULL THEN
    WITH gone AS (
      DELETE FROM job WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM job WHERE queue = q.key AND due IS NOT NULL LIMIT p_most FOR UPDATE SKIP LOCKED
      )) RETURNING id
    ) SELECT array_agg(id) INTO dropped FROM gone;
  END IF;
  PERFORM forget_ends(q.key, dropped);
  RETURN coalesce(cardinality(dropped), 0);
END
$$;
