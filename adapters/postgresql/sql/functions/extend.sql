-- Move leases under a new token, which ends later; the request is then their lease. Return which of them, counted from 1,
-- were lost, which belong to jobs that are asked to be cancelled, and whether the server knows the sender's last request:
-- if not, a crash has taken that back, and nothing is forgotten.
CREATE FUNCTION extend(
  p_queue int, p_token bigint, p_again boolean, p_answered bigint[], p_tokens bigint[],
  p_places bigint[], p_seqs bigint[], p_owners bigint[], p_lease_s float8, p_name text, p_last bigint,
  OUT lost int[], OUT cancelled int[], OUT knew_last boolean
) LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
DECLARE
  valid bigint[];
  kept int[];
BEGIN
  PERFORM FROM queue WHERE key = p_queue AND name = p_name;
  IF NOT FOUND THEN RAISE EXCEPTION 'no such queue' USING ERRCODE = 'MJ404'; END IF;
  IF p_again THEN
    SELECT r.odd, r.cancelled INTO lost, cancelled FROM request r WHERE r.token = p_token;
    IF FOUND THEN
      knew_last := EXISTS (SELECT FROM request WHERE token = p_last);
      RETURN;
    END IF;
  END IF;
  PERFORM set_config('synchronous_commit', 'off', true); -- as with a lease

  valid := ARRAY(SELECT r.token FROM request r WHERE r.token = ANY (p_tokens) AND r.ends > clock_timestamp());
  PERFORM lock_held(p_queue, p_places, p_seqs, p_owners, valid);
  WITH moved AS (
    UPDATE job SET token = p_token FROM find_held(p_queue, p_places, p_seqs, p_owners, valid) h
    WHERE job.ctid = h.at AND job.token = h.token
    RETURNING h.n
  ) SELECT array_agg(n) INTO kept FROM moved;
  IF cardinality(p_places) > coalesce(cardinality(kept), 0) THEN
    lost := ARRAY(SELECT n FROM generate_series(1, cardinality(p_places)) n WHERE n <> ALL (coalesce(kept, '{}')));
  END IF;
  IF EXISTS (SELECT FROM asked WHERE queue = p_queue) THEN
    cancelled := nullif(ARRAY(
      SELECT n::int FROM unnest(p_seqs) WITH ORDINALITY AS h (seq, n)
      WHERE n = ANY (kept) AND EXISTS (SELECT FROM asked WHERE queue = p_queue AND seq = h.seq OFFSET 0)
    ), '{}');
  END IF;

  knew_last := p_last = ANY (valid); -- it is one of the leases, most often
  IF NOT knew_last THEN
    PERFORM FROM request WHERE token = p_last;
    knew_last := FOUND;
  END IF;
  IF knew_last THEN DELETE FROM request WHERE token = ANY (p_answered); END IF;
  INSERT INTO request (token, queue, ends, places, seqs, odd, cancelled)
  VALUES (p_token, p_queue, clock_timestamp() + p_lease_s * interval '1 s', p_places, p_seqs, lost, cancelled);
END
$$;
