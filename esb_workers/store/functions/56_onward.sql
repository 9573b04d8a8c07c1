-- A routing slip: the answer of a stop goes on to the next one, as a delivery of the same message and with the same
-- place in the order of its key. In the transaction that records the stop, so that it happens once; p_from is that
-- stop's delivery, which has become history by then. Answers the key to promote.
create or replace function esb_onward(p_from uuid, p_id uuid, p_to text, p_cursor jsonb, p_payload text, p_headers text)
returns table (lane_id int, okey text) language plpgsql as $$
declare d delivery; m message; v_lane int;
begin
  select * into d from delivery v where v.id = p_from;
  select * into m from message v where v.id = d.message_id;
  v_lane := esb_lane(2::smallint, split_part(p_to, '@', 1));
  insert into form (delivery_id, payload, headers) values (p_id, p_payload, p_headers);
  insert into job (id, pool, lane_id, route_id, okey, state, run_at, seq, message_id, expires_at, cursor) overriding system value
  values (p_id, 2, v_lane, d.route_id, d.okey, case when d.okey is null then 'r' else 'q' end::"char",
          now() - make_interval(secs => 30 * m.priority), coalesce(d.seq, nextval(pg_get_serial_sequence('job', 'seq'))),
          d.message_id, m.expires_at, p_cursor);
  return query select v_lane, d.okey;
end $$;
