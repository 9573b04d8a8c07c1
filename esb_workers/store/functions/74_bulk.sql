-- One chunk of an act on many runs, in the order of their ids: each run is told, and its item marked, in one transaction.
-- Answers how many were handled; fewer than p_limit: the rest is others' or nobody's. Any number may be at it.
create or replace function esb_bulk_step(p_bulk uuid, p_limit int) returns int language plpgsql as $$
declare b bulk; v_id uuid; v_outcome text; v_data text; v_count int := 0;
begin
  select * into b from bulk where id = p_bulk and status = 'running';
  if not found then return 0; end if;
  v_data := json_build_object('by', b.actor, 'reason', b.reason, 'bulkId', p_bulk)::text;
  for v_id in select i.execution_id from bulk_item i where i.bulk_id = p_bulk and i.outcome is null
               order by i.execution_id limit p_limit for update skip locked loop
    v_outcome := case b.action
      when 'cancel' then esb_run_cancel(v_id, b.reason, b.compensate, v_data)
      when 'pause' then esb_run_pause(v_id, v_data)
      when 'resume' then esb_run_resume(v_id, v_data)
      when 'retry' then esb_run_retry(v_id, v_data) end;
    update bulk_item set outcome = coalesce(v_outcome, 'gone') where bulk_id = p_bulk and execution_id = v_id;
    if v_outcome = 'ok' then
      insert into audit (id, actor, action, resource, resource_id, detail)
      values (esb_new_id(), b.actor, b.action, 'execution', v_id::text, jsonb_build_object('bulkId', p_bulk));
    end if;
    v_count := v_count + 1;
  end loop;
  if v_count < p_limit and not exists (select from bulk_item where bulk_id = p_bulk and outcome is null) then
    update bulk set status = 'completed', finished_at = now() where id = p_bulk and status = 'running';
  end if;
  return v_count;
end $$;
