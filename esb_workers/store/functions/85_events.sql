-- Tells of something about the bus itself: a message of type `esb.…` from the source `esb`, if any route asks for such
-- by a pattern whose first word is `esb`. In the transaction of what it tells of. Whether it was sent.
create or replace function esb_event(p_id uuid, p_type text, p_payload jsonb) returns boolean language plpgsql volatile as $$
begin
  if not exists (select 1 from route r where r.deleted_at is null and r.enabled
                    and split_part(r.body->>'pattern', '.', 1) = 'esb') then
    return false;
  end if;
  insert into message (id, source, type, correlation_id, payload) values (p_id, 'esb', p_type, p_id::text, p_payload::text);
  insert into job (id, pool, lane_id, message_id) values (p_id, 1, esb_lane(1::smallint, 'esb'), p_id);
  return true;
end $$;
