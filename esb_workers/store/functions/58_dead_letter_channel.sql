-- Dead-letter channel: of each new dead letter whose route names a service for it (`deadLetter`), that service is sent
-- the message as it came in, with headers that say what happened: a message of the operator's own, delivered without
-- routes, so that its own end is never offered again. The dead letter stays where it is. Each is looked at once,
-- whatever made it; how many were sent.
create or replace function esb_offer_dead_letters(p_limit int) returns int language plpgsql as $$
declare r record; v_message uuid; v_delivery uuid; n int := 0;
begin
  for r in
    with fresh as (select l.delivery_id from dead_letter l where not l.offered order by l.at limit p_limit for update skip locked),
    seen as (update dead_letter l set offered = true from fresh where l.delivery_id = fresh.delivery_id returning l.*)
    select m.*, seen.delivery_id, seen.class, d.cursor->>'dest' as dest, d.last->>'error' as error, route.name as route,
           route.body->>'deadLetter' as service
      from seen join route on route.id = seen.route_id and route.body->>'deadLetter' is not null
      join message m on m.id = seen.message_id and m.payload is not null
      left join delivery d on d.id = seen.delivery_id loop
    v_message := esb_new_id();
    v_delivery := esb_new_id();
    insert into message (id, source, type, correlation_id, priority, traceparent, headers, payload, replay_of)
    values (v_message, r.source, r.type, r.correlation_id, r.priority, r.traceparent,
            (r.headers::jsonb || jsonb_strip_nulls(jsonb_build_object('esb-dead-delivery', r.delivery_id, 'esb-dead-message', r.id,
              'esb-dead-route', r.route, 'esb-dead-destination', r.dest, 'esb-dead-class', r.class,
              -- A header: one line of it, and not too long.
              'esb-dead-reason', left(regexp_replace(r.error, '[[:cntrl:]]+', ' ', 'g'), 500))))::text,
            r.payload, r.id);
    insert into job (id, pool, lane_id, run_at, message_id, cursor)
    values (v_delivery, 2, esb_lane(2::smallint, split_part(r.service, '@', 1)), now() - make_interval(secs => 30 * r.priority),
            v_message, jsonb_build_object('dest', r.service));
    n := n + 1;
  end loop;
  return n;
end $$;
