-- Collections (aggregate) and sequences (resequence): what waits for others of its kind.
--
-- A group is a job of the routing pool, one for each route and key: job_head lets no second one be. What it has
-- gathered are jobs of the delivery pool, parked with parent_job = the group, so that their messages are open and can
-- be cancelled or expire. Whoever holds the group's job is the only one who decides what leaves it; whoever adds to it
-- raises its inbox, and makes it ready if there is something to decide. Its timer is its own run_at.

-- Puts what routing has made into groups, in the transaction that ends the routing jobs. A row: message, route, lane
-- and key of the group, kind, timeout (ms), size (look when so many are there), wake (look now), and the members:
-- [{id, lane, cursor, payload, headers}]. Messages that were cancelled meanwhile are left out.
create or replace function esb_gather(p_rows jsonb) returns void language plpgsql as $$
declare r record; v_group uuid; v_n int;
begin
  -- In order of the groups, so that two workers never wait for one another.
  for r in select x.*, m.expires_at, m.id m_id
             from rows from (jsonb_to_recordset(p_rows) as (message uuid, route uuid, lane int, key text, kind text,
                             timeout bigint, size int, wake boolean, fresh uuid, members jsonb))
                  with ordinality as x(message, route, lane, key, kind, timeout, size, wake, fresh, members, ord)
             join message m on m.id = x.message
            where not exists (select 1 from message_end e where e.message_id = x.message)
            order by x.lane, x.key, x.ord loop
    v_n := jsonb_array_length(r.members);
    insert into job as g (id, pool, lane_id, okey, state, run_at, route_id, cursor)
    values (r.fresh, 1, r.lane, r.key, case when r.wake or v_n >= r.size then 'r' else 's' end::"char",
            case when r.wake or v_n >= r.size then now() else now() + make_interval(secs => r.timeout / 1000.0) end,
            r.route, jsonb_build_object('gather', r.kind, 'n', v_n))
    on conflict (lane_id, okey) where okey is not null and state <> 'q' do update set
      inbox = g.inbox + 1,
      cursor = g.cursor || jsonb_build_object('n', (g.cursor->>'n')::int + v_n),
      state = case when g.state = 's' and (r.wake or (g.cursor->>'n')::int + v_n >= r.size) then 'r' else g.state end,
      run_at = case when g.state = 's' and (r.wake or (g.cursor->>'n')::int + v_n >= r.size) then now() else g.run_at end
    returning g.id into v_group;
    insert into job (id, pool, lane_id, route_id, state, run_at, message_id, expires_at, parent_job, cursor)
    select d.id, 2, d.lane, r.route, 'p', now() + make_interval(secs => r.timeout / 1000.0), r.message, r.expires_at, v_group, d.cursor
      from jsonb_to_recordset(r.members) as d(id uuid, lane int, cursor jsonb);
    insert into form (delivery_id, payload, headers)
    select d.id, d.payload, d.headers from jsonb_to_recordset(r.members) as d(id uuid, payload text, headers text)
     where d.payload is not null;
  end loop;
end $$;

-- What a group has gathered, oldest message first: no more than p_limit and, after the first, p_bytes of payload.
create or replace function esb_gathered(p_group uuid, p_limit int, p_bytes bigint)
returns table (id uuid, message_id uuid, cursor jsonb, age_ms bigint, payload text, headers text, client_id uuid, source text,
               type text, correlation_id text, priority smallint, expires_at timestamptz, reply_to text, traceparent text, more boolean)
language sql stable as $$
  with j as materialized (
    select j.* from job j where j.parent_job = p_group and j.pool = 2 and j.state = 'p'
     order by j.message_id, (j.cursor->>'index')::int, j.seq limit p_limit + 1),
  w as (
    select j.id, j.message_id, j.cursor, (extract(epoch from now() - j.created_at) * 1000)::bigint age_ms,
           coalesce(f.payload, m.payload, 'null') payload, coalesce(f.headers, m.headers) headers, m.client_id, m.source, m.type,
           m.correlation_id, m.priority, m.expires_at, m.reply_to, m.traceparent,
           sum(octet_length(coalesce(f.payload, m.payload, 'null'))) over o total, row_number() over o place, count(*) over () found
      from j join message m on m.id = j.message_id left join form f on f.delivery_id = j.id
    window o as (order by j.message_id, (j.cursor->>'index')::int, j.seq))
  select w.id, w.message_id, w.cursor, w.age_ms, w.payload, w.headers, w.client_id, w.source, w.type, w.correlation_id, w.priority,
         w.expires_at, w.reply_to, w.traceparent, w.found > max(w.place) over ()
    from w where w.place <= p_limit and (w.place = 1 or w.total <= p_bytes) order by w.place
$$;

-- What the holder of a group has decided. r = {id, attempt, inbox, cursor, due, send: [ids in order], sets: [{members,
-- message: {id, …}}]}: `send` go out as they are, in this order; each of `sets` becomes one message, whose routing job
-- knows the route it is for; then the group waits for `due` ms, or, without, is gone. Answers the group, if it was still
-- ours, and the keys to promote. If a member is gone since the look, by a cancel or because it expired, nothing is
-- done, and the group is looked at anew.
create or replace function esb_release(p_worker bigint, r jsonb) returns table (id uuid, lane_id int, okey text) language plpgsql as $$
declare g job; s jsonb; m jsonb; v_ids uuid[]; v_id uuid; v_free boolean;
begin
  select * into g from job j where j.id = (r->>'id')::uuid and j.attempt = (r->>'attempt')::int and j.worker_id = p_worker for update;
  if not found then return; end if;
  v_ids := array(select x::uuid from jsonb_array_elements_text(r->'send') x)
        || array(select x::uuid from jsonb_array_elements(r->'sets') e, jsonb_array_elements_text(e->'members') x);
  perform 1 from job j where j.id = any(v_ids) order by j.id for update;
  if (select count(*) from job j where j.id = any(v_ids) and j.state = 'p' and j.parent_job = g.id) < cardinality(v_ids) then
    update job j set state = 'r', run_at = now(), worker_id = null where j.id = g.id;
    return query select g.id, null::int, null::text;
    return;
  end if;
  for v_id in select x::uuid from jsonb_array_elements_text(r->'send') x loop   -- one by one: each takes the next place
    return query
    update job j set state = case when j.cursor ? 'okey' then 'q' else 'r' end::"char", okey = j.cursor->>'okey', seq = default,
                     run_at = now(), parent_job = null, cursor = j.cursor - 'okey' - 'number'
     where j.id = v_id returning null::uuid, j.lane_id, j.okey;
  end loop;
  for s in select e from jsonb_array_elements(r->'sets') e loop
    m := s->'message';
    insert into message (id, client_id, source, type, correlation_id, priority, expires_at, reply_to, traceparent, headers, payload)
    values ((m->>'id')::uuid, (m->>'client')::uuid, m->>'source', m->>'type', m->>'corr', (m->>'prio')::smallint,
            (m->>'exp')::timestamptz, m->>'reply', m->>'trace', m->>'headers', m->>'payload');
    insert into job (id, pool, lane_id, state, run_at, route_id, message_id, expires_at, cursor)
    values ((m->>'id')::uuid, 1, g.lane_id, 'r', now(), g.route_id, (m->>'id')::uuid, (m->>'exp')::timestamptz, '{"collected": true}');
    with gone as (delete from job j where j.id = any(array(select x::uuid from jsonb_array_elements_text(s->'members') x)) returning j.*)
    insert into delivery (id, message_id, route_id, lane_id, status, attempts, cursor, created_at)
    select gone.id, gone.message_id, gone.route_id, gone.lane_id, 'collected', 0,
           gone.cursor || jsonb_build_object('into', m->>'id'), gone.created_at from gone;
  end loop;
  v_free := g.inbox = (r->>'inbox')::int;   -- nobody has added anything since it was claimed
  if v_free and r->>'due' is null then
    delete from job j where j.id = g.id;
  else
    update job j set state = case when v_free then 's' else 'r' end::"char", worker_id = null, cursor = r->'cursor', losses = 0,
                     run_at = case when v_free then now() + make_interval(secs => (r->>'due')::bigint / 1000.0) else now() end
     where j.id = g.id;
  end if;
  return query select g.id, null::int, null::text;
end $$;
