-- Signed readings (docs/signatures.md): whose signature a meter's readings carry, and what was signed.

alter table meter
    -- Ed25519; the first key whose signature held, until a person says another.
    add column signing_key        bytea check (length(signing_key) = 32),
    -- Whether readings without a good signature of that key go to quarantine.
    add column signature_required boolean not null default false check (not signature_required or signing_key is not null);
create index meter_signed on meter (meter_id) where signing_key is not null;

alter table reading
    -- Null: unsigned. False: signed, but not by the meter's key, or altered.
    add column signature_verified boolean,
    -- The payload as it arrived, signature and all, so that it can be verified elsewhere; null where it has none. What
    -- removes or changes values of a reading must remove this, too.
    add column signed_payload     bytea;
