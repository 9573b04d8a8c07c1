-- What a message and its deliveries look like from outside, and what people do to them: redact, retry, replay.

-- The status of a message, derived from what is left to do and from history; see the table `message`.
-- plpgsql, so that each of its statements keeps its plan: it runs for every row of a list, and is polled.
create or replace function esb_message_status(p_id uuid, p_deliver_at timestamptz, p_created timestamptz)
returns text language plpgsql stable as $$
declare v text; n int; v_delivered int; v_expired int; v_cancelled int; v_collected int; v_fate text;
begin
  if exists (select 1 from job where id = p_id and pool = 1) then
    return case when p_deliver_at > now() then 'scheduled' else 'accepted' end;
  end if;
  if exists (select 1 from job where message_id = p_id and pool = 2) then return 'routed'; end if;
  select e.status into v from message_end e where e.message_id = p_id;
  if v is not null then return v; end if;
  -- The bound on the id prunes partitions; a day allows for clocks that differ.
  select count(*), count(*) filter (where d.status = 'delivered'), count(*) filter (where d.status = 'expired'),
         count(*) filter (where d.status = 'cancelled'), count(*) filter (where d.status = 'collected')
    into n, v_delivered, v_expired, v_cancelled, v_collected
    from delivery d where d.message_id = p_id and d.id >= esb_uuid_at(p_created - interval '1 day');
  if v_collected > 0 then   -- these share the fate of what they have become part of
    for v_fate in
      select esb_fate(d.cursor) from delivery d
       where d.message_id = p_id and d.status = 'collected' and d.id >= esb_uuid_at(p_created - interval '1 day') loop
      if v_fate = 'pending' then return 'routed'; end if;
      v_delivered := v_delivered + (v_fate = 'delivered')::int;
      v_expired := v_expired + (v_fate = 'expired')::int;
      v_cancelled := v_cancelled + (v_fate = 'cancelled')::int;
    end loop;
  end if;
  return case when n = 0 then 'accepted' when v_delivered = n then 'delivered' when v_delivered > 0 then 'partially_delivered'
              when v_expired = n then 'expired' when v_cancelled = n then 'cancelled' else 'failed' end;
end $$;

-- What has become of a delivery that was collected: the fate of the message it is part of, in words for deliveries.
create or replace function esb_fate(p_cursor jsonb) returns text language plpgsql stable as $$
declare v text;
begin
  select esb_message_status(m.id, m.deliver_at, m.created_at) into v from message m where m.id = (p_cursor->>'into')::uuid;
  return case when v in ('accepted', 'scheduled', 'routed') then 'pending' when v in ('delivered', 'expired', 'cancelled') then v else 'dead' end;
end $$;

-- The deliveries of a message, open and ended, oldest first, each with its attempts. `held` says why one waits
-- although its time has come: its lane is closed, it could not be tried, or its key is blocked.
create or replace function esb_message_deliveries(p_id uuid, p_created timestamptz) returns json language sql stable as $$
  with o as (
    select j.*, l.name as lane, l.gate, l.gate_until,
           case when j.state = 'f' then null
                when j.cursor ? 'held' then j.cursor->>'held'
                when l.gate_until > now() and l.gate <> 'pull' and not (j.state = 's' and j.run_at > now()) then l.gate
                when j.state = 'b' then 'key_blocked' end as held
      from job j join lane l on l.id = j.lane_id where j.message_id = p_id and j.pool = 2),
  d as (
    select o.id, o.route_id, o.lane, o.cursor, null::uuid as service_id, null::text as class, o.held, o.created_at,
           null::timestamptz as finished_at, null::jsonb as last, null::int as attempts,
           case when o.state = 'f' then 'in_flight' when o.held is not null then 'held'
                when o.tries > 0 or o.losses > 0 then 'retrying' else 'pending' end as status,
           case when o.state in ('f', 'b', 'q') then null when o.gate = 'pull' then greatest(o.run_at, o.created_at)
                when o.gate_until = 'infinity' then null else greatest(o.run_at, o.created_at, o.gate_until) end as next_at
      from o
    union all
    select v.id, v.route_id, l.name, v.cursor, v.service_id, v.class, null, v.created_at, v.finished_at, v.last, v.attempts,
           case v.status when 'collected' then esb_fate(v.cursor) else v.status end, null
      from delivery v join lane l on l.id = v.lane_id
     where v.message_id = p_id and v.id >= esb_uuid_at(p_created - interval '1 day'))
  select coalesce(json_agg(json_build_object('id', d.id, 'route_id', d.route_id, 'route', r.name, 'lane', d.lane, 'cursor', d.cursor,
           'service_id', d.service_id, 'class', d.class, 'held', d.held, 'created_at', d.created_at, 'finished_at', d.finished_at,
           'last', d.last, 'status', d.status, 'next_at', d.next_at,
           'attempts', (select coalesce(json_agg(json_build_object('number', a.number, 'startedAt', a.started_at,
                                 'finishedAt', a.finished_at, 'outcome', a.outcome, 'detail', a.detail) order by a.number), '[]')
                          from attempt a where a.delivery_id = d.id)) order by d.id), '[]')
    from d left join route r on r.id = d.route_id
$$;

-- Takes a message's content away: the payload, what transformations made of it, and what destinations answered,
-- for an answer may repeat it. Answers null (no such message), the status that forbids it, or 'ok'.
create or replace function esb_redact(p_id uuid) returns text language plpgsql volatile as $$
declare m message; v text; v_ids uuid[];
begin
  select * into m from message where id = p_id for update;
  if not found then return null; end if;
  v := esb_message_status(m.id, m.deliver_at, m.created_at);
  if v in ('accepted', 'scheduled', 'routed') then return v; end if;
  update message set payload = null, redacted_at = coalesce(redacted_at, now()) where id = p_id;
  select array_agg(d.id) into v_ids from delivery d
   where d.message_id = p_id and d.id >= esb_uuid_at(m.created_at - interval '1 day');
  delete from form where delivery_id = any(v_ids);
  delete from message_warning where message_id = p_id;
  update attempt set detail = detail - 'responseBody' where delivery_id = any(v_ids) and detail ? 'responseBody';
  update delivery set last = last - 'responseBody' where id = any(v_ids) and last ? 'responseBody';
  return 'ok';
end $$;

-- Lets one delivery of a lane through although every circuit of its service is open: it becomes the probe. It
-- goes before whatever waits there, for it is the one that a person has chosen. A transaction of its own, after the
-- one that took the delivery up: services are locked before jobs everywhere, and that one holds jobs.
create or replace function esb_let_probe(p_lane int, p_delivery uuid) returns void language plpgsql volatile as $$
declare v_name text;
begin
  select name into v_name from lane where id = p_lane and gate = 'circuit_open' and gate_until > now();
  if not found then return; end if;
  update service_state st set circuit_until = now() from service s
   where s.name = v_name and s.id = st.service_id and s.status = 'active' and st.circuit = 'open' and st.circuit_until > now();
  update job set run_at = least(run_at, (select min(run_at) from job where pool = 2 and lane_id = p_lane and state = 'r') - interval '1 ms')
   where id = p_delivery and state in ('r', 'q');
  perform esb_gate(v_name);
  perform esb_changed('services');
end $$;

-- A retry by hand. Answers nothing (no such delivery), 'ok', or the word that forbids it: 'delivered', 'forbidden',
-- 'in_flight', 'redacted'. Messages are locked before their deliveries, as by redaction.
create or replace function esb_retry_by_hand(p_delivery uuid) returns table (outcome text, message_id uuid, lane_id int, okey text)
language plpgsql volatile as $$
declare v_message uuid; v_state "char"; v_status text; v_redacted boolean;
begin
  select x.message_id into v_message
    from (select j.message_id from job j where j.id = p_delivery and j.pool = 2
          union all select d.message_id from delivery d where d.id = p_delivery) x;
  if v_message is null then return; end if;
  select m.redacted_at is not null into v_redacted from message m where m.id = v_message for update;
  select j.state into v_state from job j where j.id = p_delivery and j.pool = 2 for update;
  select d.status into v_status from delivery d where d.id = p_delivery for update;
  v_status := case when v_redacted is distinct from false then 'redacted' when v_state = 'f' then 'in_flight' when v_state = 'p' then 'gathered'
                   when v_status in ('delivered', 'forbidden', 'collected') then v_status else 'ok' end;
  if v_status <> 'ok' then
    return query select v_status, v_message, null::int, null::text;
  else
    return query select 'ok', v_message, t.lane_id, t.okey from esb_retry(p_delivery) t;
  end if;
end $$;

-- Sends the next items of a replay, at most p_limit and, at a rate, those whose time comes within p_ahead: each is
-- given its own moment, so that the rate holds however unevenly this is called. One row for each item handled;
-- its lane is null where nothing could be retried (delivered or in flight by now, redacted).
create or replace function esb_replay_step(p_replay uuid, p_limit int, p_ahead interval)
returns table (delivery_id uuid, lane_id int, okey text) language plpgsql volatile as $$
declare r replay; v_at timestamptz;
begin
  select * into r from replay where id = p_replay and status = 'running' for update skip locked;
  if not found then return; end if;
  for delivery_id in select i.delivery_id from replay_item i where i.replay_id = p_replay and i.sent_at is null
                      order by i.delivery_id limit p_limit loop
    v_at := greatest(r.next_at, now());
    exit when r.rate is not null and v_at > now() + p_ahead;
    update replay_item i set sent_at = now() where i.replay_id = p_replay and i.delivery_id = esb_replay_step.delivery_id;
    lane_id := null; okey := null;
    if exists (select 1 from dead_letter l join message m on m.id = l.message_id
                where l.delivery_id = esb_replay_step.delivery_id and m.redacted_at is null) then
      select t.lane_id, t.okey into lane_id, okey from esb_retry(delivery_id) t;
    end if;
    if r.rate is not null then
      update job j set run_at = v_at, state = case when j.state = 'r' and v_at > now() then 's' else j.state end::"char"
       where j.id = esb_replay_step.delivery_id and j.pool = 2 and j.state in ('r', 'q');
      r.next_at := v_at + make_interval(secs => 1 / r.rate);
    end if;
    return next;
  end loop;
  if exists (select 1 from replay_item i where i.replay_id = p_replay and i.sent_at is null) then
    update replay set next_at = r.next_at where id = p_replay;
  else
    update replay set next_at = r.next_at, status = 'completed', finished_at = now() where id = p_replay;
  end if;
end $$;
