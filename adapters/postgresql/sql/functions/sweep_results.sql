-- Drop some results of the queues of other brokers, whose time is over.
CREATE FUNCTION sweep_results(p_kind text) RETURNS void
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
DECLARE
  most constant int := 500;
  now constant timestamptz := clock_timestamp();
BEGIN
  DELETE FROM result WHERE ctid = ANY (ARRAY(
    SELECT r.at FROM queue q, LATERAL (
      SELECT ctid AS at FROM result WHERE queue = q.key AND expires > '-infinity' AND expires <= now
      ORDER BY expires LIMIT most FOR UPDATE SKIP LOCKED
    ) r WHERE q.kind = p_kind LIMIT most
  ));
END
$$;
