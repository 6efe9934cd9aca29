-- End those of some jobs that are asked to be cancelled, and that are no longer in flight.
CREATE FUNCTION end_asked(q queue, p_places bigint[], p_seqs bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
DECLARE
  ids text[];
  found tid[];
  ttls float8[];
BEGIN
  WITH gone AS (
    DELETE FROM job USING (
      SELECT j.at, a.at AS asked_at, a.ttl FROM unnest(p_places, p_seqs) AS h (place, seq), LATERAL (
        SELECT ctid AS at, ttl FROM asked WHERE queue = q.key AND seq = h.seq OFFSET 0
      ) a, LATERAL (
        SELECT ctid AS at FROM job
        WHERE queue = q.key AND place = h.place AND seq >= h.seq AND seq <= h.seq AND token IS NULL
        ORDER BY seq LIMIT 1
      ) j
    ) h
    WHERE job.ctid = h.at AND job.token IS NULL
    RETURNING job.id, h.asked_at, h.ttl
  ) SELECT array_agg(gone.id), array_agg(gone.asked_at), array_agg(gone.ttl) INTO ids, found, ttls FROM gone;
  IF ids IS NULL THEN RETURN; END IF;
  DELETE FROM asked WHERE ctid = ANY (found);
  PERFORM keep_cancelled(q, ids, ttls);
END
$$;
