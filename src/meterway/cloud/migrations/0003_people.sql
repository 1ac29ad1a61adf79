-- Tenants, people and what they may see.

create table tenant (
    tenant_key   integer generated always as identity primary key,
    tenant_id    text not null unique,
    name         text not null,
    created_time timestamptz not null default now()
);
-- Everything belongs to the first tenant until there is a second one.
insert into tenant (tenant_id, name) values ('main', 'Main');

-- A household is what privacy protects: the meters of one flat or house.
create table household (
    household_key integer generated always as identity primary key,
    tenant_key    integer not null references tenant,
    name          text not null,
    created_time  timestamptz not null default now(),
    unique (tenant_key, name)
);

alter table meter
    add column tenant_key    integer not null default 1 references tenant,
    add column household_key integer references household;
alter table concentrator
    add column tenant_key integer not null default 1 references tenant;
create index meter_of_tenant on meter (tenant_key);
create index meter_of_household on meter (household_key) where household_key is not null;

create table account (
    account_key   integer generated always as identity primary key,
    -- Null: of all tenants (the operator of the installation).
    tenant_key    integer references tenant,
    login         text not null unique,
    name          text not null,
    role          text not null check (role in ('operator', 'auditor', 'member', 'researcher')),
    -- Argon2; null: signs in by a link or by OIDC.
    password_hash text,
    oidc_issuer   text,
    oidc_subject  text,
    disabled      boolean not null default false,
    created_time  timestamptz not null default now(),
    last_sign_in_time timestamptz,
    unique (oidc_issuer, oidc_subject)
);

-- Who lives in a household, from when to when: a member sees its meters in that time only.
create table resident (
    account_key   integer not null references account on delete cascade,
    household_key integer not null references household on delete cascade,
    from_time     timestamptz not null,
    until_time    timestamptz,
    primary key (account_key, household_key, from_time)
);
create index resident_of_household on resident (household_key);

-- One-time links: the first operator, invitations, forgotten passwords. Only a digest is kept, here and below.
create table sign_in_link (
    digest       bytea primary key,
    account_key  integer not null references account on delete cascade,
    expires_time timestamptz not null
);

create table session (
    digest         bytea primary key,
    account_key    integer not null references account on delete cascade,
    created_time   timestamptz not null default now(),
    last_used_time timestamptz not null default now(),
    expires_time   timestamptz not null
);

create table api_token (
    api_token_key  integer generated always as identity primary key,
    digest         bytea not null unique,
    account_key    integer not null references account on delete cascade,
    name           text not null,
    scopes         text[] not null,
    created_time   timestamptz not null default now(),
    expires_time   timestamptz not null,
    last_used_time timestamptz,
    revoked_time   timestamptz
);

-- Who read, changed, exported, deleted. Nothing is ever updated here; rows go when they are older than is kept.
create table audit (
    audit_key   bigint generated always as identity primary key,
    audit_time  timestamptz not null default clock_timestamp(),
    tenant_key  integer,
    account_key integer,
    -- The login, kept as text so that the entry outlives the account.
    actor       text not null,
    action      text not null,
    subject     text not null,
    detail      jsonb
);
create index audit_newest on audit (audit_time desc, audit_key desc);
create index audit_of_subject on audit (subject, audit_time desc);
