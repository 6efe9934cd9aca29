-- Keep how far a job has come, for as long as its lease.
CREATE FUNCTION report_progress(p_queue int, p_place bigint, p_seq bigint, p_token bigint, p_progress text) RETURNS void
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
DECLARE
  at constant tid := lock_one(p_queue, p_place, p_seq, p_token);
BEGIN
  UPDATE job SET progress = p_progress WHERE ctid = at;
END
$$;
