-- name: about
CREATE TABLE IF NOT EXISTS {about} (name text PRIMARY KEY, value text NOT NULL)

-- name: versions
CREATE SEQUENCE IF NOT EXISTS {versions}

-- name: items
CREATE TABLE IF NOT EXISTS {items} (
    namespace text COLLATE "C" NOT NULL, -- labels joined by dots, which no label holds
    key text COLLATE "C" NOT NULL,
    value jsonb NOT NULL,
    version bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    ttl interval,
    expires_at timestamptz,
    PRIMARY KEY (namespace, key)
)

-- name: updated_near
-- The ten seconds of an item's last write. As long as they stay the same, writing it again touches no index.
ALTER TABLE {items} ADD COLUMN IF NOT EXISTS updated_near timestamptz NOT NULL
    GENERATED ALWAYS AS (date_bin('10 seconds', updated_at, '2000-01-01 00:00:00+00')) STORED

-- name: items_by_time
CREATE INDEX IF NOT EXISTS {items_by_time} ON {items} (namespace, updated_near DESC)

-- name: without_items_by_update
-- What version 1 had instead.
DROP INDEX IF EXISTS {items_by_update}

-- name: items_by_expiry
CREATE INDEX IF NOT EXISTS {items_by_expiry} ON {items} (expires_at) WHERE expires_at IS NOT NULL
