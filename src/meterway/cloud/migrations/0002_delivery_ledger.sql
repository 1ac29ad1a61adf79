-- The delivery ledger: which readings of each meter are there, day by day, and what was said when they were not.

-- What ingest stored and has not yet been entered: a row a batch. Repeated readings are among those that came, because
-- their number may be another than the one that is stored.
create table arrival (
    arrival_key      bigint generated always as identity primary key,
    reading_count    integer not null,
    meter_keys       integer[] not null,
    reading_times    timestamptz[] not null,
    sequence_numbers bigint[] not null,
    new_meter_keys   integer[] not null,
    new_days         date[] not null,
    new_counts       bigint[] not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- One row a meter and day of UTC. The arrays are parallel: the stretches in which readings followed each other without
-- a pause or a skipped number, in order of time.
create table meter_day (
    meter_key     integer not null,
    day           date not null,
    stored        bigint not null,
    interval_s    double precision,
    -- More stretches than are kept: pauses are kept from three minutes on, numbers are not judged on this day.
    is_coarse     boolean not null,
    start_times   timestamptz[] not null,
    end_times     timestamptz[] not null,
    first_numbers bigint[] not null,
    last_numbers  bigint[] not null,
    primary key (meter_key, day)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

-- Days of before the ledger, still to be entered.
create table ledger_backlog (
    meter_key integer not null,
    day       date not null,
    primary key (meter_key, day)
);
insert into ledger_backlog (meter_key, day)
select meter_key, day::date
from meter, generate_series((now() at time zone 'UTC')::date - 31, (now() at time zone 'UTC')::date, interval '1 day') day
where last_reading_time >= now() - interval '32 days';

-- Changes of state that adapters report of their meters and concentrators of themselves. `subject` is a meter id, or
-- `concentrator/[concentratorId]`.
create table state_change (
    state_change_key bigint generated always as identity primary key,
    subject          text not null,
    change_time      timestamptz not null,
    state            text not null,
    since            timestamptz not null,
    reason           text,
    detail           text
);
create index state_change_newest on state_change (subject, change_time desc, state_change_key desc);

create index fault_of_meter on fault (meter_id, fault_time);
create index quarantine_of_meter on quarantine (split_part(topic, '/', 4));
