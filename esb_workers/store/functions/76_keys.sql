-- Takes the head of an ordering key out of the way, so that those behind it go on. `skip`: it ends as cancelled.
-- `park`: it ends as dead and waits among the dead letters, from where it can be replayed. One in flight ends so when
-- its attempt comes back in vain. Answers nothing (no such open delivery), or 'ok' or 'not_head', with the key to promote.
create or replace function esb_end_head(p_delivery uuid, p_how text)
returns table (outcome text, message_id uuid, lane_id int, okey text) language plpgsql volatile as $$
declare j job; v_last jsonb; v_class text;
begin
  select * into j from job where id = p_delivery and pool = 2 for update;
  if not found then return; end if;
  if j.okey is null or j.state = 'q' then
    return query select 'not_head', j.message_id, null::int, null::text;
    return;
  end if;
  if j.state = 'f' then
    update job set control = case p_how when 'skip' then 'c' else 'k' end::"char" where id = j.id;
    return query select 'ok', j.message_id, null::int, null::text;
    return;
  end if;
  delete from job where id = j.id;
  -- The last attempt of an ended delivery stands with it.
  delete from attempt a where a.delivery_id = j.id and a.outcome = 'failed'
     and a.number = (select max(b.number) from attempt b where b.delivery_id = j.id)
  returning a.detail || jsonb_build_object('number', a.number, 'startedAt', a.started_at, 'finishedAt', a.finished_at) into v_last;
  v_class := case p_how when 'skip' then 'Skipped'
                        else coalesce(v_last->>'errorClass', j.cursor->>'blocked', 'Parked') end;
  insert into delivery (id, message_id, route_id, lane_id, service_id, status, attempts, class, cursor, last, seq, okey, created_at)
  values (j.id, j.message_id, j.route_id, j.lane_id, (v_last->>'instance')::uuid, case p_how when 'skip' then 'cancelled' else 'dead' end,
          j.attempt, v_class, j.cursor - 'held' - 'blocked', v_last, j.seq, j.okey, j.created_at);
  if p_how = 'park' then
    insert into dead_letter (delivery_id, message_id, lane_id, route_id, client_id, class)
    select j.id, j.message_id, j.lane_id, j.route_id, m.client_id, v_class from message m where m.id = j.message_id;
  end if;
  return query select 'ok', j.message_id, j.lane_id, j.okey;
end $$;
