-- Takes the answer that a callback token brings, once: 'ok', 'used', null (no such run), or the status of a run that is over.
-- Every strand that waits for a signal looks again: which of them this is for, its step knows.
create or replace function esb_callback(p_execution uuid, p_hash bytea, p_name text, p_payload text) returns text language plpgsql as $$
declare v_status text;
begin
  select status into v_status from execution where id = p_execution for share;
  if v_status is null or v_status not in ('open', 'paused') then return v_status; end if;
  insert into callback (hash, execution_id) values (p_hash, p_execution) on conflict do nothing;
  if not found then return 'used'; end if;
  insert into signal (execution_id, name, payload) values (p_execution, p_name, p_payload);
  perform esb_note(p_execution, 'run.signalled', json_build_object('name', p_name)::text);
  update job set inbox = inbox + 1,
                 run_at = case when state in ('p', 's') and control is null then now() else run_at end,
                 state = case when state in ('p', 's') and control is null then 'r' else state end::"char"
   where execution_id = p_execution and (state = 'f' or cursor->>'signal' is not null);
  return 'ok';
end $$;
