-- The first schema: meters, readings, and what could not become a reading.

create table meter (
    meter_key       integer generated always as identity primary key,
    meter_id        text not null unique,
    -- A meter that nobody registered is stored all the same, as unclaimed (unless the cloud is strict).
    claimed         boolean not null default false,
    name            text,
    first_seen_time timestamptz not null default now(),
    concentrator_id text,
    -- The newest reading by reading time, so that lists and live views need not search the readings.
    last_reading_time       timestamptz,
    last_reading_identifier uuid,
    last_sequence_number    bigint,
    last_fault_code         text,
    last_property_set_key   integer,
    last_numerical_values   numeric[],
    last_text_values        text[],
    last_dates              timestamptz[],
    last_stored_time        timestamptz,
    -- The retained reports of the adapter (core/reports.py), as sent.
    status          jsonb,
    status_time     timestamptz,
    description     jsonb
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
-- Half of each page stays free, so that the newest reading is updated in place, without touching an index.

create table concentrator (
    concentrator_id text primary key,
    first_seen_time timestamptz not null default now(),
    last_seen_time  timestamptz not null default now(),
    status          jsonb,
    status_time     timestamptz
);

-- Which properties a reading has, in order: shared by the many readings of the same shape. An element of `units` is
-- null where the value has no unit.
create table property_set (
    property_set_key integer generated always as identity primary key,
    property_ids     text[] not null,
    units            text[] not null,
    unique (property_ids, units)
);

-- One row a reading; values are arrays parallel to the property set, null where the value is of the other kind;
-- text_values and dates are null altogether where a reading has none. numeric keeps every digit the meter sent.
create table reading (
    meter_key          integer not null,
    reading_time       timestamptz not null,
    reading_identifier uuid not null,
    sequence_number    bigint,
    fault_code         text,
    property_set_key   integer not null,
    numerical_values   numeric[] not null,
    text_values        text[],
    dates              timestamptz[],
    stored_time        timestamptz not null default clock_timestamp(),
    primary key (meter_key, reading_time, reading_identifier)
) partition by range (reading_time);

-- The same identifier with other content: kept aside and shown, never overwritten. `digest` is the one of
-- core/receipts.py, over topic and payload, here and below.
create table conflict (
    conflict_key       bigint generated always as identity primary key,
    digest             bytea not null unique,
    meter_id           text not null,
    reading_time       timestamptz not null,
    reading_identifier uuid not null,
    topic              text not null,
    payload            bytea not null,
    received_time      timestamptz not null default clock_timestamp()
);

-- What could not be decoded, with its bytes and the reason; can be replayed after a fix.
create table quarantine (
    quarantine_key bigint generated always as identity primary key,
    digest         bytea not null unique,
    topic          text not null,
    -- At most 1 MiB; size_bytes tells how much there was.
    payload        bytea not null,
    size_bytes     bigint not null,
    reason         text not null,
    message        text not null,
    received_time  timestamptz not null default clock_timestamp(),
    seen_count     bigint not null default 1
);
create index quarantine_newest on quarantine (received_time desc);

-- Telegrams that adapters or concentrators rejected (their `faults` topic).
create table fault (
    fault_key       bigint generated always as identity primary key,
    digest          bytea not null unique,
    concentrator_id text not null,
    meter_id        text,
    fault_time      timestamptz not null,
    reason          text not null,
    message         text not null,
    data            bytea not null,
    received_time   timestamptz not null default clock_timestamp()
);
create index fault_newest on fault (received_time desc);
