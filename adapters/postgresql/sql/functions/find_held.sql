-- Find the jobs of a list whose leases are among the valid ones; return where each is, and its number in the list, counted
-- from 1. The server makes this a part of the statement that calls it.
CREATE FUNCTION find_held(p_queue int, p_places bigint[], p_seqs bigint[], p_owners bigint[], p_valid bigint[])
RETURNS TABLE (at tid, token bigint, n int)
LANGUAGE sql STABLE AS $$
  SELECT j.at, h.token, h.n::int
  FROM unnest(p_places, p_seqs, p_owners) WITH ORDINALITY AS h (place, seq, token, n), LATERAL (
    SELECT ctid AS at FROM job
    WHERE queue = p_queue AND place = h.place AND seq >= h.seq AND seq <= h.seq AND token = h.token
    ORDER BY seq LIMIT 1
  ) j
  WHERE h.token = ANY (p_valid)
$$;
