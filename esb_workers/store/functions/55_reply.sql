-- Sends the first 2xx answer to a message on to the service that the message named in reply_to: a message of its
-- own, same client and correlation, delivered without routes. The client's grant binds it as any delivery. False if
-- there was a reply before: several destinations may answer, and a retried delivery may answer again.
create or replace function esb_reply(p_of uuid, p_message uuid, p_delivery uuid, p_to text, p_source text, p_type text, p_payload text)
returns boolean language plpgsql as $$
declare
  m message; v_name text := split_part(p_to, '@', 1); v_lane int; v_cursor jsonb := jsonb_build_object('dest', p_to); v_allowed boolean;
begin
  insert into idempotency (scope, key, hash, resource_id, status, expires_at)
  values ('reply', p_of::text, '', p_message, 202, now() + interval '30 days') on conflict (scope, key) do nothing;
  if not found then return false; end if;
  select * into m from message where id = p_of;
  select m.client_id is null or exists (
    select 1 from client c where c.id = m.client_id and c.allowed_services && array[v_name, '*']) into v_allowed;
  v_lane := esb_lane(2::smallint, v_name);
  insert into message (id, client_id, source, type, correlation_id, priority, traceparent, headers, payload)
  values (p_message, m.client_id, p_source, p_type, m.correlation_id, m.priority, m.traceparent, '{}', p_payload);
  if v_allowed then
    insert into job (id, pool, lane_id, run_at, message_id, cursor)
    values (p_delivery, 2, v_lane, now() - make_interval(secs => 30 * m.priority), p_message, v_cursor);
  else
    insert into delivery (id, message_id, lane_id, status, attempts, class, cursor, created_at)
    values (p_delivery, p_message, v_lane, 'forbidden', 0, 'Forbidden', v_cursor, now());
  end if;
  return true;
end $$;
