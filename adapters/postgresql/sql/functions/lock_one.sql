-- Lock one job by its lease, and return where it is; NULL if the lease was lost.
CREATE FUNCTION lock_one(p_queue int, p_place bigint, p_seq bigint, p_owner bigint) RETURNS tid
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
BEGIN
  RETURN (
    SELECT ctid FROM job WHERE queue = p_queue AND place = p_place AND seq >= p_seq AND seq <= p_seq AND token = p_owner
    ORDER BY seq LIMIT 1 FOR UPDATE
  );
END
$$;
