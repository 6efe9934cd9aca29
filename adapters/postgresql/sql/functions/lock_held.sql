-- Lock the jobs that `find_held` finds. A report of progress moves a row; one that is locked stays where the next
-- statement finds it.
CREATE FUNCTION lock_held(p_queue int, p_places bigint[], p_seqs bigint[], p_owners bigint[], p_valid bigint[])
RETURNS void
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
BEGIN
  PERFORM FROM unnest(p_places, p_seqs, p_owners) AS h (place, seq, token), LATERAL (
    SELECT FROM job
    WHERE queue = p_queue AND place = h.place AND seq >= h.seq AND seq <= h.seq AND token = h.token
    ORDER BY seq LIMIT 1 FOR UPDATE
  ) j
  WHERE h.token = ANY (p_valid);
END
$$;
